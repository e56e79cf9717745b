// Uses MCAT's pages in Chromium, beside a real MCIAS at another name below the same domain: logs in by password, second factor and passkey, is
// denied by a rule, and tries a draft. Checks each page with axe-core. Prints the results as JSON.
//
// One argument, JSON: { mcat, mcias: { origin, ip, name }, password, admin, second (a guest, who gets a second factor), denied (an account that
// `rule` denies MCAT), tokens: { admin, second } (for MCIAS), folder }.
import { browser, code } from "./browser.mjs";

const at = JSON.parse(process.argv[2]);
const hosts = { [at.mcat.name]: at.mcat.ip, [at.mcias.name]: at.mcias.ip };
const { page, seen, touch, withoutOffer, look, press, fill, arrived, logOut, run } = await browser(hosts, at.folder);
const has = async (text) => (await page.getByText(text).count()) > 0;
const go = (path) => page.goto(at.mcat.origin + path);

const draft = (rules) => `default = "allow"\n${rules}`;
const rule = (name, lines) => `[[rules]]\nname = "${name}"\npriority = 1\neffect = "deny"\n${lines}\n`;

async function logIn(name) {
  await go("/login");
  await fill("Username", name);
  await fill("Password", at.password);
  await press("Log in with password");
}

// Asks MCIAS's API on a page of MCIAS.
function ask(token, path, body) {
  return page.evaluate(async ([token, path, body]) => {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
    return answer.json();
  }, [token, path, body]);
}

// Adds a passkey and an authenticator app at MCIAS, by its API: its pages have a walk of their own. Returns the app's secret.
async function setUp() {
  await page.goto(`${at.mcias.origin}/login`);
  const { ceremony_id, options } = await ask(at.tokens.admin, "/v1/me/passkeys/begin", {});
  const { publicKey } = JSON.parse(options);
  seen.passkey_domain = publicKey.rp.id;
  const made = await page.evaluate(async (options) => {
    const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
    return JSON.stringify((await navigator.credentials.create({ publicKey })).toJSON());
  }, publicKey);
  await ask(at.tokens.admin, "/v1/me/passkeys/finish", { ceremony_id, credential: made, label: "Test key" });
  const { secret } = await ask(at.tokens.second, "/v1/me/totp/begin", {});
  await ask(at.tokens.second, "/v1/me/totp/confirm", { code: code(secret, Date.now() - 30000) });
  return secret;
}

await run(async () => {
  const secret = await setUp();
  // A browser offers passkeys on the login page by itself: nobody takes them there.
  await touch(false);
  await go("/?service=mcr");
  await arrived("/login");
  await look("login");
  await logIn(at.denied);
  await page.getByRole("alert").first().waitFor();
  seen.denied_login_names_its_rule = await has(at.rule);
  await look("login-denied");

  await go("/?service=mcr");
  await fill("Username", at.admin);
  await fill("Password", at.password);
  await press("Log in with password");
  await page.waitForURL((url) => url.search === "?service=mcr");
  seen.led_back = await has("Allowed");
  await look("explained");
  await go("/");
  await look("empty");
  await fill("Service", "elsewhere");
  await press("Test");
  seen.unknown_service_is_warned_of = (await page.getByText("There is no service “elsewhere”.").count()) === 1;
  await look("service-unknown");
  await fill("Service", "mcr");
  await fill("Service tags", "Not-A-Tag");
  await press("Test");
  await page.getByRole("alert").first().waitFor();
  seen.wrong_tag_is_explained = await has("Use lowercase letters, digits and - _ . @ only.");
  await look("tags-wrong");

  await fill("Service tags", "");
  await fill("Draft", draft(rule("nobody", "roles = \"admin\"")));
  await press("Test");
  await page.getByRole("alert").first().waitFor();
  seen.wrong_draft_has_a_place = await has("Line 6, column 9: ");
  await look("draft-wrong");
  await fill("Other service", "mcr");
  await fill("Tags of the other service", "test");
  await fill("Draft", draft(rule("no-production", "resource_tags = [\"prod\"]") + rule("no-second", `accounts = ["${at.second}"]\nresources = ["mcat"]`)));
  await press("Test");
  await page.getByText("no-production decides").first().waitFor();
  seen.draft_denies = await has("no-production decides");
  seen.changes = await page.getByRole("table", { name: "Decisions that would change" }).getByRole("row").allInnerTexts();
  await look("draft");
  await logOut();

  await logIn(at.second);
  await page.getByLabel("Code", { exact: true }).waitFor();
  await look("second-factor");
  await fill("Code", code(secret, Date.now()));
  await press("Log in");
  await arrived("/");
  seen.totp_login = true;
  await go("/?service=mcr");
  seen.denied_by_rule = await has("guests-stay-out decides");
  await look("denied");
  await withoutOffer();
  await logOut();

  await page.getByRole("button", { name: "Continue with a passkey" }).waitFor();
  await touch(true);
  await press("Continue with a passkey");
  await arrived("/");
  seen.passkey_login = await has(at.admin);
  await go("/nothing");
  await look("not-found");
});
