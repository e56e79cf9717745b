// Uses MCIAS's pages in Chromium: logs in, sets up an authenticator app and a passkey (on a virtual authenticator), logs in with each,
// sends expired forms, and visits every page of an admin. Checks each page with axe-core. Prints the results as JSON.
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
  // The pages' own policy would keep axe-core out.
  bypassCSP: true,
  viewport: { width: 1280, height: 900 },
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", `--host-resolver-rules=MAP ${host} ${ip}`,
  ],
});
const seen = { pages: [], violations: [], errors: [], wide: [] };
let failed = null;
const page = context.pages()[0] ?? (await context.newPage());
page.setDefaultTimeout(10000);
page.on("pageerror", (error) => seen.errors.push(String(error)));

const cdp = await context.newCDPSession(page);
await cdp.send("WebAuthn.enable");
await cdp.send("WebAuthn.addVirtualAuthenticator", {
  options: {
    protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true,
    isUserVerified: true, automaticPresenceSimulation: true,
  },
});

async function look(name) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document));
  for (const { id, impact, nodes } of violations) {
    seen.violations.push({ page: name, id, impact, at: nodes.map((node) => node.target.join(" ")) });
  }
  seen.pages.push(name);
  for (const [size, width, height] of [["desktop", 1280, 900], ["phone", 390, 844]]) {
    await page.setViewportSize({ width, height });
    const overflows = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    if (overflows) seen.wide.push(`${name} (${size})`);
    if (folder === "-") continue;
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(folder, `${name}-${size}-${colorScheme}.png`), fullPage: true });
    }
    await page.emulateMedia({ colorScheme: "light" });
  }
  await page.setViewportSize({ width: 1280, height: 900 });
}

const go = (path) => page.goto(origin + path);
const press = (name) => page.getByRole("button", { name, exact: true }).click();
const fill = (label, text) => page.getByLabel(label, { exact: false }).first().fill(text);
const arrived = (path) => page.waitForURL((url) => url.pathname === path);

async function logIn() {
  await go("/login");
  await fill("Username", admin);
  await fill("Password", password);
  await press("Log in");
}

async function logOut() {
  await page.evaluate(() => document.querySelectorAll("details").forEach((menu) => (menu.open = true)));
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
  await tab.getByRole("button", { name: "Log in" }).click();
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

async function walk() {
  await go("/accounts");
  seen.asked_to_log_in = new URL(page.url()).pathname === "/login";
  await look("login");
  await fill("Username", admin);
  await fill("Password", "something else entirely");
  await press("Log in");
  await page.getByRole("alert").or(page.locator(".error-summary")).first().waitFor();
  await look("login-wrong");
  await fill("Password", password);
  await press("Log in");
  await arrived("/accounts");
  seen.led_back = true;
  await look("accounts");
  await expire();

  await go("/");
  await look("overview");
  await go("/security");
  await press("Set up authenticator app…");
  const secret = await page.locator("#totp-secret").inputValue();
  await look("totp");
  await fill("Code", "000000");
  await press("Confirm code");
  await look("totp-wrong");
  await fill("Code", code(secret, Date.now() - 30000));
  await press("Confirm code");
  const codes = await page.locator("#codes").inputValue();
  seen.recovery_codes = codes.split("\n").length;
  await look("recovery-codes");
  await page.getByRole("link", { name: "Done" }).click();

  await fill("Name of the new passkey", "Test key");
  await press("Add passkey");
  await page.getByText("Test key").first().waitFor();
  await look("security");
  await logOut();

  await press("Continue with a passkey");
  await arrived("/");
  seen.passkey_login = true;
  await logOut();
  await logIn();
  await page.getByLabel("Code").waitFor();
  await look("second-factor");
  await fill("Code", code(secret, Date.now()));
  await press("Log in");
  await arrived("/");
  seen.totp_login = true;
  await logOut();
  await logIn();
  await fill("Code", codes.split("\n")[0]);
  await press("Log in");
  await arrived("/");
  seen.recovery_login = true;

  await go("/sessions");
  await look("sessions");
  await go("/new-account");
  await fill("Name", "Not a name");
  await press("Create account");
  await look("account-new-wrong");
  await fill("Name", "bob");
  await page.getByLabel("User", { exact: false }).first().check();
  await press("Create account");
  await arrived("/accounts/bob");
  await look("account-person");
  await press("Create setup link");
  const link = await page.locator("#once").inputValue();
  await look("link");
  await go("/new-account");
  await fill("Name", "mcr");
  await page.getByLabel("Type").selectOption("system");
  await fill("Tags", "prod");
  await press("Create account");
  await arrived("/accounts/mcr");
  await fill("Label", "first");
  await press("Create token");
  seen.token_parts = (await page.locator("#once").inputValue()).split(".").length;
  await go("/accounts/mcr");
  await look("account-service");
  await page.getByRole("link", { name: "Revoke" }).click();
  await look("confirm");
  await press("Revoke token");
  await arrived("/accounts/mcr");

  await go("/policy/rule");
  await fill("Name", "no-bob");
  await page.getByLabel("Effect").selectOption("deny");
  await fill("Accounts", "bob");
  await fill("Services", "mcr");
  await look("rule");
  await press("Save rule");
  await arrived("/policy");
  await go("/policy?account=bob&service=mcr");
  seen.explained = await page.getByText("no-bob").count() > 1;
  await look("policy");
  await go("/policy/history");
  await look("policy-history");
  await page.getByRole("link", { name: "2", exact: true }).click();
  await page.getByText("no-bob").first().waitFor();
  await look("policy-diff");
  await go("/audit");
  await press("Verify now");
  seen.intact = (await page.getByText("Chain verified to #").count()) === 1;
  await look("audit");
  await go("/keys");
  await look("keys");
  await go("/security/passkeys/none");
  await look("not-found");
  await page.getByRole("link", { name: "Go to the start page" }).click();

  await logOut();
  await page.goto(link);
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
  await press("Log in");
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
