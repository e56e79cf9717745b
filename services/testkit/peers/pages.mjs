// Uses MCIAS's pages in Chromium: logs in, sets up an authenticator app and a passkey (on a virtual authenticator), logs in with each,
// moves the app to another phone, sends expired forms, follows a link from another site, and visits every page of an admin. Prints the results
// as JSON.
//
// Arguments: origin, IP address, administrator, password, folder for screenshots (or "-").
import { browser, code } from "./browser.mjs";

const [origin, ip, admin, password, folder] = process.argv.slice(2);
const { context, page, seen, touch, withoutOffer, look, keep, press, fill, arrived, logOut, run } = await browser({ [new URL(origin).hostname]: ip }, folder);

const go = (path) => page.goto(origin + path);
// As long as a label can be.
const LONG = "x1234567".repeat(10);

async function logIn() {
  await go("/login");
  await fill("Username", admin);
  await fill("Password", password);
  await press("Log in with password");
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
  await withoutOffer();
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
  seen.names_token = (await page.getByRole("heading", { name: `Revoke token ${LONG} of mcr?` }).count()) === 1;
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
  await page.getByRole("link", { name: "Revision 2", exact: true }).click();
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

await run(walk);
