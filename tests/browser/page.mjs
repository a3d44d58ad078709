// A browser with nothing in it, and short words for what the checks look at on the page.

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The driver, installed on first use as the lock file says. */
async function driver() {
  try {
    return await import("playwright-core");
  } catch {
    const done = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
      cwd: HERE,
      stdio: "inherit",
    });
    if (done.status !== 0) throw new Error("cannot install playwright-core: run `npm ci` in tests/browser");
    return import("playwright-core");
  }
}

/** Starts the browser and opens one page. `problems` collects whatever went wrong on it. */
export async function open(base) {
  const { chromium } = await driver();
  const profile = mkdtempSync(join(tmpdir(), "everflame-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    viewport: { width: 1440, height: 900 },
    colorScheme: "light",
    timezoneId: "UTC",
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(15_000);
  const problems = [];
  const requests = [];
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`script: ${error.message}`));
  page.on("requestfailed", (request) => {
    // A request that the page itself gave up, because something newer was asked for, is no failure.
    const why = request.failure()?.errorText ?? "";
    if (why !== "net::ERR_ABORTED") problems.push(`request: ${request.url()} ${why}`);
  });
  page.on("request", (request) => requests.push(request.url()));
  page.on("response", (response) => {
    if (response.status() >= 400) problems.push(`answer ${response.status()}: ${response.url()}`);
  });
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  };
  return { page, problems, requests, close, base };
}

/** Opens an address and waits for the picture. */
export async function visit(page, base, search = "") {
  await page.goto(`${base}/${search === "" ? "" : `?${search}`}`);
  await drawn(page);
}

/** Waits until the flame graph shows frames beside the root and nothing is loading. */
export async function drawn(page) {
  await page.waitForFunction(() => Number(document.querySelector(".flame-canvas")?.dataset.drawn ?? 0) > 1, null, {
    timeout: 30_000,
  });
  await quiet(page);
}

/** Waits until no request of the page is under way and the motion has ended. */
export async function quiet(page) {
  await page.waitForTimeout(150);
  await page.waitForFunction(() => document.querySelector(".progress")?.hidden === true, null, { timeout: 30_000 });
  await page.waitForTimeout(300);
}

/** Samples that the totals of the page show. */
export async function totals(page) {
  return Number(await page.locator(".summary").getAttribute("data-samples"));
}

/** A parameter of the address. */
export function parameter(page, name) {
  return new URL(page.url()).searchParams.get(name);
}

/** Clicks into the flame graph: `row` from the top, `share` of the width. */
export async function clickFrame(page, row, share) {
  const box = await page.locator(".flame-canvas").boundingBox();
  await page.mouse.click(box.x + box.width * share, box.y + row * 20 + 10);
}
