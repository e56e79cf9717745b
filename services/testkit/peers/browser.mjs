// A Chromium for tests of pages: names that lead to addresses, a virtual authenticator, axe-core and screenshots of each page in four forms
// (desktop and phone, light and dark).
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
    // The pages' own policy would keep axe-core out.
    bypassCSP: true,
    viewport: { width: 1280, height: 900 },
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", `--host-resolver-rules=${rules}`,
    ],
  });
  const seen = { pages: [], violations: [], errors: [], wide: [] };
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
    seen.pages.push(name);
    await page.evaluate(axe);
    for (const [size, width, height] of [["desktop", 1280, 900], ["phone", 390, 844]]) {
      await page.setViewportSize({ width, height });
      const overflows = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
      if (overflows) seen.wide.push(`${name} (${size})`);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        const form = `${name}-${size}-${colorScheme}`;
        const { violations } = await page.evaluate(() => window.axe.run(document));
        for (const { id, impact, nodes } of violations) {
          seen.violations.push({ page: form, id, impact, at: nodes.map((node) => node.target.join(" ")) });
        }
        if (folder !== "-") await page.screenshot({ path: join(folder, `${form}.png`), fullPage: true });
      }
      await page.emulateMedia({ colorScheme: "light" });
    }
    await page.setViewportSize({ width: 1280, height: 900 });
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

  return {
    page, seen, look, run,
    press: (name) => page.getByRole("button", { name, exact: true }).click(),
    fill: (label, text) => page.getByLabel(label, { exact: false }).first().fill(text),
    arrived: (path) => page.waitForURL((url) => url.pathname === path),
    has: async (text) => (await page.getByText(text).count()) > 0,
  };
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
