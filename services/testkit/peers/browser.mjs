// A Chromium for tests of pages: names that lead to addresses, a virtual authenticator, and a look at each page.
//
// Each page is looked at by axe-core, in light and dark, at the width of a desktop and of a phone; at many widths whether it is wider than the
// window, and whether what can be done with each row of its tables is in sight. Nothing may offend against the pages' security policy.
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

// npm installs its packages elsewhere.
const require = createRequire(join(process.env.MC_NODE, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core"), "utf8");

// `hosts`: { name: address }. `folder`: for screenshots, or "-".
export async function browser(hosts, folder) {
  const rules = Object.entries(hosts).map(([name, address]) => `MAP ${name} ${address}`).join(", ");
  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "pages-")), {
    executablePath: process.env.MC_CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    ignoreHTTPSErrors: true,
    viewport: { width: 1280, height: 900 },
    // Colours that are on their way from light to dark have no contrast that counts.
    reducedMotion: "reduce",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", `--host-resolver-rules=${rules}`,
    ],
  });
  const seen = { pages: [], violations: [], errors: [], wide: [], hidden: [], styled: [], rows: {} };
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

  // From now on pages do not find that the browser offers passkeys in a field: somebody who is there would take one before a button
  // is pressed.
  const withoutOffer = () => context.addInitScript(() => {
    PublicKeyCredential.isConditionalMediationAvailable = async () => false;
  });

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

  // Walks, prints what was seen as JSON, and ends.
  async function run(walk) {
    let failed = null;
    try {
      await walk();
    } catch (error) {
      failed = `${error} at ${page.url()}`;
      if (folder !== "-") await page.screenshot({ path: join(folder, "failed.png"), fullPage: true });
    }
    console.log(JSON.stringify({ ...seen, failed }));
    await context.close();
    process.exit(0);
  }

  const press = (name) => page.getByRole("button", { name, exact: true }).click();
  const fill = (label, text) => page.getByLabel(label, { exact: false }).first().fill(text);
  const arrived = (path) => page.waitForURL((url) => url.pathname === path);

  async function logOut() {
    await page.locator(".me > summary").click();
    await press("Log out");
    await arrived("/login");
  }

  return { context, page, seen, touch, withoutOffer, look, keep, press, fill, arrived, logOut, run };
}

// RFC 6238.
export function code(base32, at) {
  const bits = [...base32].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(at / 30000)));
  const mac = createHmac("sha1", key).update(step).digest();
  return String((mac.readUInt32BE(mac[19] & 15) & 0x7fffffff) % 1000000).padStart(6, "0");
}
