// Uses MCIAS's pages in Chromium: logs in, sets up an authenticator app and a passkey (on a virtual authenticator), logs in with each,
// moves the app to another phone, sends expired forms, follows a link from another site, and visits every page of an admin. Prints the results
// as JSON.
//
// Each page is looked at by axe-core, in light and dark, at the width of a desktop and of a phone; at many widths whether it is wider than the
// window, and whether what can be done with each row of its tables is in sight. Nothing may offend against the pages' security policy.
//
// Arguments: origin, IP address, administrator, password, folder for screenshots (or "-").
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

// npm installs its packages elsewhere.
const require = createRequire(join(process.env.MC_NODE, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core"), "utf8");

const [origin, ip, admin, password, folder] = process.argv.slice(2);
const host = new URL(origin).hostname;
const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "pages-")), {
  executablePath: process.env.MC_CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  ignoreHTTPSErrors: true,
  viewport: { width: 1280, height: 900 },
  // Colours that are on their way from light to dark have no contrast that counts.
  reducedMotion: "reduce",
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", `--host-resolver-rules=MAP ${host} ${ip}`,
  ],
});
const seen = { pages: [], violations: [], errors: [], wide: [], hidden: [], styled: [], rows: {} };
let failed = null;
await context.addInitScript({ content: axe });
await context.addInitScript(() => {
  document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
    console.error(`policy: ${violatedDirective} ${blockedURI}`);
  });
});
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(10000);
page.on("pageerror", (error) => seen.errors.push(String(error)));
page.on("console", (message) => {
  if (message.text().startsWith("policy: ")) seen.errors.push(`${page.url()}: ${message.text()}`);
});

const cdp = await context.newCDPSession(page);
await cdp.send("WebAuthn.enable");
const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
  options: {
    protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true,
    isUserVerified: true, automaticPresenceSimulation: true,
  },
});
// Whether somebody is there to touch the authenticator.
const touch = (enabled) => cdp.send("WebAuthn.setAutomaticPresenceSimulation", { authenticatorId, enabled });

// From a small phone to a large screen, on both sides of each width at which the layout changes.
const WIDTHS = [320, 390, 600, 767, 959, 960, 1087, 1088, 1280, 1920];

// Whether the page is wider than the window, and what of the rows' actions is not in sight: not within the window, or with something over it.
const measure = () => page.evaluate(() => {
  const hidden = [];
  const all = [...document.querySelectorAll("td.act a, td.act button")];
  for (const element of all) {
    element.scrollIntoView({ block: "center", behavior: "instant" });
    const { left, right, top, bottom } = element.getBoundingClientRect();
    const inside = left >= 0 && right <= document.documentElement.clientWidth && right > left;
    const at = (x) => element.contains(document.elementFromPoint(x, (top + bottom) / 2));
    if (!inside || !at(left + 1) || !at(right - 1)) hidden.push(element.textContent);
  }
  scrollTo(0, 0);
  const { scrollWidth } = document.documentElement;
  return { count: all.length, hidden, isWide: scrollWidth > window.innerWidth };
});

async function look(name) {
  seen.pages.push(name);
  const styles = await page.evaluate(() => document.querySelectorAll("[style], style").length);
  if (styles > 0) seen.styled.push(name);
  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: 900 });
    const { count, hidden, isWide } = await measure();
    if (isWide) seen.wide.push(`${name} at ${width}`);
    if (count > 0) seen.rows[name] = count;
    for (const label of hidden) seen.hidden.push(`${name} at ${width}: ${label}`);
  }
  for (const [size, width, height] of [["phone", 390, 844], ["desktop", 1280, 900]]) {
    await page.setViewportSize({ width, height });
    await check(`${name} (${size}, light)`, {});
    await keep(`${name}-${size}-light`);
    await page.emulateMedia({ colorScheme: "dark" });
    // All else is as in light.
    await check(`${name} (${size}, dark)`, { runOnly: ["color-contrast"] });
    await keep(`${name}-${size}-dark`);
    await page.emulateMedia({ colorScheme: "light" });
  }
}

async function check(name, options) {
  const { violations } = await page.evaluate((options) => window.axe.run(document, options), options);
  for (const { id, impact, nodes } of violations) {
    seen.violations.push({ page: name, id, impact, at: nodes.map((node) => node.target.join(" ")) });
  }
}

async function keep(name) {
  if (folder !== "-") await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

const go = (path) => page.goto(origin + path);
const press = (name) => page.getByRole("button", { name, exact: true }).click();
const fill = (label, text) => page.getByLabel(label, { exact: false }).first().fill(text);
// As long as a label can be.
const LONG = "x1234567".repeat(10);
const arrived = (path) => page.waitForURL((url) => url.pathname === path);

async function logIn() {
  await go("/login");
  await fill("Username", admin);
  await fill("Password", password);
  await press("Log in with password");
}

async function logOut() {
  await page.locator(".me > summary").click();
  await press("Log out");
  await arrived("/login");
}

// A form whose session ended: after a login in another tab it is sent again by a reload, and shown with what was typed.
async function expire() {
  await go("/new-account");
  await fill("Name", "carol");
  await context.clearCookies({ name: "__Host-session" });
  await press("Create account");
  await look("session-ended");
  const [tab] = await Promise.all([
    context.waitForEvent("page"),
    page.getByRole("link", { name: "Log in in a new tab" }).click(),
  ]);
  await tab.getByLabel("Username").fill(admin);
  await tab.getByLabel("Password").fill(password);
  await tab.getByRole("button", { name: "Log in with password" }).click();
  await tab.waitForURL((url) => url.pathname === "/");
  await tab.close();
  await page.reload();
  const typed = await page.getByLabel("Name").first().inputValue();
  const notes = await page.getByText("This form has expired. Check it and send it again.").count();
  seen.kept_what_was_typed = typed === "carol" && notes === 1;
  await look("form-expired");
}

// RFC 6238.
function code(base32, at) {
  const bits = [...base32].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(at / 30000)));
  const mac = createHmac("sha1", key).update(step).digest();
  return String((mac.readUInt32BE(mac[19] & 15) & 0x7fffffff) % 1000000).padStart(6, "0");
}

// The first text that is shown once.
const once = () => page.locator("#once").textContent();

async function walk() {
  await go("/accounts");
  seen.asked_to_log_in = new URL(page.url()).pathname === "/login";
  seen.focus_in_login = await page.evaluate(() => document.activeElement.name);
  await look("login");
  await fill("Username", admin);
  await fill("Password", "something else entirely");
  await page.getByRole("button", { name: "Show Password" }).click();
  seen.shows_password = await page.locator("#password").getAttribute("type") === "text";
  await press("Log in with password");
  await page.getByRole("alert").waitFor();
  await look("login-wrong");
  await fill("Password", password);
  await press("Log in with password");
  await arrived("/accounts");
  seen.led_back = true;
  await look("accounts");
  await expire();

  // A link on another site: the session's cookie comes with the second request.
  await page.goto("about:blank");
  await page.setContent(`<a href="${origin}/audit">Audit log</a>`);
  await page.getByRole("link").click();
  await page.getByRole("heading", { name: "Audit log" }).waitFor();
  seen.link_from_elsewhere = new URL(page.url()).pathname === "/audit";
  await go("/security/password");
  await fill("Current password", "wrong");
  await fill("New password", "a new and long password");
  await fill("Repeat new password", "another one");
  await press("Change password");
  await look("password-wrong");
  const managed = await page.evaluate(() => [...document.querySelectorAll("main input")].map((field) => field.autocomplete));
  seen.autocomplete = managed.filter((value) => value !== "").join(", ");

  await go("/");
  await look("overview");
  // Before the second factor ends all but one.
  await go("/sessions");
  await look("sessions");
  await go("/");
  await go("/security");
  await look("security-without");
  await press("Set up authenticator app…");
  const secret = await page.locator("#totp-secret").textContent();
  await look("totp");
  await fill("Code", "000000");
  await press("Confirm code");
  await look("totp-wrong");
  await fill("Code", code(secret, Date.now() - 30000));
  await press("Confirm code");
  seen.recovery_codes = (await once()).split("\n").length;
  await look("recovery-codes");
  await page.getByRole("link", { name: "Done" }).click();
  // To another phone, with another secret and other codes.
  await press("Move to new phone…");
  const moved = await page.locator("#totp-secret").textContent();
  await look("totp-move");
  await fill("Code", code(moved, Date.now() - 30000));
  await press("Confirm code");
  const codes = await once();
  seen.moved = moved !== secret && (await page.getByText("Authenticator app moved").count()) === 1;
  await page.getByRole("link", { name: "Done" }).click();

  await fill("Name of the new passkey", LONG);
  await press("Add passkey");
  await page.getByRole("rowheader", { name: LONG }).waitFor();
  await look("security");
  await page.getByRole("link", { name: LONG, exact: true }).click();
  await look("passkey");

  // With somebody at the authenticator, the passkey is taken from the username field.
  await logOut();
  await arrived("/");
  seen.passkey_in_field = true;
  await touch(false);
  await logOut();
  await page.getByRole("button", { name: "Continue with a passkey" }).waitFor();
  await touch(true);
  await press("Continue with a passkey");
  await arrived("/");
  seen.passkey_login = true;
  await touch(false);
  await logOut();
  await logIn();
  await page.getByLabel("Code", { exact: true }).waitFor();
  seen.code_keyboard = await page.locator("#code").getAttribute("inputmode");
  await look("second-factor");
  await fill("Code", code(moved, Date.now()));
  await press("Log in");
  await arrived("/");
  seen.totp_login = true;
  await logOut();
  await logIn();
  await page.getByText("Use a recovery code").click();
  await fill("Recovery code", "aaaa-bbbb");
  await press("Log in with recovery code");
  await look("recovery-wrong");
  await fill("Recovery code", codes.split("\n")[0]);
  await press("Log in with recovery code");
  await arrived("/");
  seen.recovery_login = true;

  await go("/sessions");
  await look("sessions-own");
  await go("/new-account");
  await fill("Name", "Not a name");
  await press("Create account");
  await look("account-new-wrong");
  await fill("Name", "bob");
  await page.getByLabel("User", { exact: true }).check();
  await press("Create account");
  await arrived("/accounts/bob");
  await look("account-new");
  await go(`/accounts/${admin}`);
  await look("account-person");
  await page.getByRole("link", { name: "Edit details" }).click();
  await look("account-edit");
  await go("/accounts/bob/disable");
  await look("account-disable");
  await press("Disable account");
  await arrived("/accounts/bob");
  await look("account-disabled");
  await press("Enable account");
  await page.getByText("Account enabled.").waitFor();
  await press("Create setup link");
  const link = await once();
  await look("link");
  await go("/accounts/bob/delete");
  await fill("Type bob to confirm", "ada");
  await press("Delete account");
  await page.getByRole("alert").waitFor();
  seen.asked_for_name = new URL(page.url()).pathname === "/accounts/bob/delete";
  await look("account-delete-wrong");

  await go("/new-account");
  await fill("Name", "gone");
  await press("Create account");
  await arrived("/accounts/gone");
  await go("/accounts/gone/delete");
  await fill("Type gone to confirm", "gone");
  await press("Delete account");
  await arrived("/accounts");
  await page.getByRole("link", { name: "Deleted accounts" }).click();
  await look("deleted-accounts");
  await page.getByRole("link", { name: "Release name… gone" }).click();
  await look("deleted-account-release");
  await press("Release name");
  await arrived("/deleted-accounts");
  await look("deleted-accounts-none");

  await go("/accounts/mcr");
  await page.getByRole("link", { name: "Create token" }).click();
  await fill("Label", LONG);
  await fill("Valid for (days)", "some");
  await press("Create token");
  await look("token-wrong");
  await fill("Valid for (days)", "3");
  await press("Create token");
  seen.token_parts = (await once()).split(".").length;
  await look("token");
  await go("/accounts/mcr");
  await look("account-service");
  await go("/");
  seen.warned = (await page.getByRole("link", { name: `Token ${LONG} of mcr expires` }).count()) === 1;
  await look("overview-needs");
  await go("/accounts/mcr");
  await page.getByRole("link", { name: `Revoke… ${LONG}` }).click();
  await look("confirm");
  await press("Revoke token");
  await arrived("/accounts/mcr");

  await go("/policy/rule");
  await fill("Name", "no-bob");
  await page.getByLabel("Effect").selectOption("deny");
  await fill("Accounts", "bob");
  await fill("Services", "mcr");
  await look("rule");
  await press("Create rule");
  await arrived("/policy");
  await go("/policy?account=bob&service=mcr");
  seen.explained = await page.getByText("no-bob").count() > 1;
  await look("policy");
  await page.getByRole("link", { name: "Edit no-bob" }).click();
  await look("rule-edit");
  await page.getByRole("link", { name: "Delete rule…" }).click();
  await look("rule-delete");
  await page.getByRole("link", { name: "Cancel" }).click();
  await go("/policy/default");
  await look("policy-default");
  await go("/policy/history");
  await look("policy-history");
  await page.getByRole("link", { name: "2", exact: true }).click();
  await page.getByText("no-bob").first().waitFor();
  await look("policy-diff");
  await go("/audit");
  await press("Verify now");
  seen.intact = (await page.getByText("Chain verified to #").count()) === 1;
  await page.locator(".entry > summary").first().click();
  await look("audit");
  await go("/audit?account=bob&hours=24");
  await look("audit-filtered");
  await go("/audit?account=nobody");
  await look("audit-empty");
  await go("/keys");
  await look("keys");
  await go("/security/passkeys/none");
  await look("not-found");
  await page.getByRole("link", { name: "Go to the start page" }).click();
  await page.setViewportSize({ width: 390, height: 844 });
  await page.getByText("Menu", { exact: true }).click();
  seen.menu = await page.getByRole("link", { name: "Signing keys" }).isVisible();
  await keep("menu-phone-light");
  await page.keyboard.press("Escape");
  seen.menu_closes = !(await page.getByRole("link", { name: "Signing keys" }).isVisible());
  await page.setViewportSize({ width: 1280, height: 900 });

  await logOut();
  await page.goto(link);
  // The script takes the secret out of the address.
  await page.getByLabel("New password").first().waitFor();
  seen.address_after_link = page.url();
  await look("welcome");
  await fill("New password", "short");
  await fill("Repeat new password", "short");
  await press("Set password");
  await look("welcome-wrong");
  await fill("New password", password + " of bob");
  await fill("Repeat new password", password + " of bob");
  await press("Set password");
  await arrived("/login");
  await fill("Username", "bob");
  await fill("Password", password + " of bob");
  await press("Log in with password");
  await arrived("/");
  await go("/accounts");
  seen.bob_may_not = (await page.getByText("Not permitted").count()) > 0;
}

try {
  await walk();
} catch (error) {
  failed = `${error} at ${page.url()}`;
  if (folder !== "-") await page.screenshot({ path: join(folder, "failed.png"), fullPage: true });
}
console.log(JSON.stringify({ ...seen, failed }));
await context.close();
process.exit(0);
