// Drives the page of a running server in a real browser and checks what it shows against the API.
// Usage: node run.mjs [URL] [--screenshot FILE]; URL also by EVERFLAME_URL. Each check prints a line;
// the last line is `N passed, N failed`.

import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { clickFrame, drawn, open, parameter, quiet, totals, visit } from "./page.mjs";
import { allTree, share } from "./truth.mjs";

const args = process.argv.slice(2);
const at = args.indexOf("--screenshot");
const screenshot = at < 0 ? (process.env.EVERFLAME_SCREENSHOT ?? "") : args.splice(at, 2)[1];
const base = (args[0] ?? process.env.EVERFLAME_URL ?? "http://127.0.0.1:4040").replace(/\/$/, "");

const browser = await open(base);
const { page, problems, requests } = browser;
let passed = 0;
let failed = 0;

async function check(name, act) {
  try {
    const note = await act();
    passed += 1;
    console.log(`ok      ${name}${note ? `: ${note}` : ""}`);
  } catch (error) {
    failed += 1;
    console.log(
      `FAILED  ${name}: ${String(error?.message ?? error)
        .split("\n")
        .slice(0, 3)
        .join(" ")}`,
    );
  }
}

function must(holds, what) {
  if (!holds) throw new Error(what);
}

const get = async (path, parameters = {}) => {
  const response = await fetch(`${base}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return response.json();
};
const status = () => page.locator("#flame-status").textContent();

await check("the page shows a flame graph", async () => {
  await visit(page, base);
  const nodes = Number(await page.locator(".flame-canvas").getAttribute("data-nodes"));
  must(nodes > 10, `${nodes} nodes only`);
  must((await totals(page)) > 0, "the totals are empty");
  must((await page.locator(".series-item").count()) > 1, "the time series has no legend");
  const pixels = await page.evaluate(() => {
    const canvas = document.querySelector(".flame-canvas");
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, Math.min(canvas.height, 200)).data;
    const seen = new Set();
    for (let i = 0; i < data.length; i += 64) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return seen.size;
  });
  must(pixels > 8, `the canvas has ${pixels} colours only`);
  return `${nodes} nodes`;
});

if (failed > 0) {
  // Without a picture every other check would only wait for its time to run out.
  await browser.close();
  console.log(`${problems.slice(0, 5).join("\n")}\n${passed} passed, ${failed} failed`);
  process.exit(1);
}

// From here on a range with a fixed end, a little in the past, so that nothing arrives while it is looked at.
// A server that has just begun is given the time to have one.
const ENOUGH = 300;
let fixed = {};
for (let tries = 0; tries < 40; tries += 1) {
  const until = Math.floor(Date.now() / 1000) - 10;
  fixed = { from: String(until - 300), until: String(until) };
  if ((await get("flamegraph", { ...fixed, max_nodes: "1" })).samples >= ENOUGH) break;
  await page.waitForTimeout(1000);
}
const address = (more = {}) => new URLSearchParams({ ...fixed, ...more }).toString();

// Names are put on when a profile is read: one that comes between two answers changes what a
// function's share is. A comparison counts where the API said the same before and after.
async function settled(truth, look) {
  for (let tries = 0; tries < 5; tries += 1) {
    const before = await truth();
    const shown = await look();
    if ((await truth()) === before) return { truth: before, shown };
  }
  throw new Error("the API's answers do not settle");
}
const shownSamples = async () => Number(await page.locator(".search-result").getAttribute("data-samples"));

let top = null;
await check("the search shows the exact share of a function, each sample once", async () => {
  must((await allTree(get, fixed)).samples > 0, "the server has no samples older than ten seconds yet");
  const { rows, samples } = await get("top", { ...fixed, sort: "total", limit: "0" });
  // A function whose name no other row bears, so that one row is all there is of it.
  const single = (row) => row.kind !== "marker" && rows.filter(({ name }) => name === row.name).length === 1;
  top = rows.find((row) => single(row) && row.total < samples * 0.9) ?? rows.find(single);
  const wanted = top.name.toLowerCase();
  const { truth, shown } = await settled(
    async () => share(await allTree(get, fixed), (name) => name.toLowerCase().includes(wanted)),
    async () => {
      await visit(page, base, address({ nodes: "0" }));
      await page.keyboard.press("/");
      await page.keyboard.type(top.name);
      await page.waitForFunction(() => document.querySelector(".search-result")?.dataset.samples, null, {
        timeout: 5000,
      });
      await quiet(page);
      return shownSamples();
    },
  );
  must(shown > 0, "nothing found");
  must(shown === truth, `the page says ${shown} samples, the whole tree ${truth}`);
  must(parameter(page, "search") === top.name, "the address does not carry the search");
  return `${top.name}: ${await page.locator(".search-result").textContent()}`;
});

await check("an exact search agrees with the top table", async () => {
  const { truth, shown } = await settled(
    async () => {
      const { rows } = await get("top", { ...fixed, sort: "total", limit: "0" });
      return rows.filter(({ name }) => name === top.name).reduce((sum, row) => sum + row.total, 0);
    },
    async () => {
      await visit(page, base, address({ nodes: "0", search: `"${top.name}"` }));
      return shownSamples();
    },
  );
  must(shown === truth, `the page says ${shown}, the table ${truth}`);
});

await check("Esc clears the search", async () => {
  await page.locator(".flame-canvas").focus();
  await page.keyboard.press("Escape");
  await quiet(page);
  must(parameter(page, "search") === null, "the search is still in the address");
  must((await page.locator(".search-field").first().inputValue()) === "", "the search is still in the field");
});

await check("a click zooms, with path and address", async () => {
  await visit(page, base, address());
  await clickFrame(page, 2, 0.03);
  await quiet(page);
  must(parameter(page, "zoom"), "the address has no zoom");
  must((await page.locator(".crumb").count()) === 3, "the path has not three steps");
  must(/\d %/.test(await page.locator(".crumb-share").textContent()), "the path shows no share");
  must((await status()).includes("total"), "the status line says nothing");
  return (await page.locator(".crumbs").textContent()).trim();
});

await check("back and forward walk through the zoom", async () => {
  const zoom = parameter(page, "zoom");
  await page.goBack();
  await quiet(page);
  must(parameter(page, "zoom") === null && (await page.locator(".crumb").count()) === 0, "back did not leave the zoom");
  await page.goForward();
  await quiet(page);
  must(parameter(page, "zoom") === zoom && (await page.locator(".crumb").count()) === 3, "forward did not return");
});

await check("Esc leaves the zoom", async () => {
  await page.locator(".flame-canvas").focus();
  await page.keyboard.press("Escape");
  await quiet(page);
  must(parameter(page, "zoom") === null, "the zoom is still in the address");
  must((await page.locator(".crumb").count()) === 0, "the path is still there");
});

await check("the keyboard walks and zooms", async () => {
  await page.locator(".flame-canvas").focus();
  const said = [];
  for (const key of ["Home", "ArrowDown", "ArrowDown"]) {
    await page.keyboard.press(key);
    said.push(await status());
  }
  must(new Set(said).size === 3, `three steps said ${JSON.stringify(said)}`);
  await page.keyboard.press("Enter");
  await quiet(page);
  must(parameter(page, "zoom"), "Enter did not zoom");
  await page.keyboard.press("Escape");
});

await check("hovering explains a frame", async () => {
  const box = await page.locator(".flame-canvas").boundingBox();
  await page.mouse.move(box.x + 30, box.y + 30);
  await page.waitForTimeout(200);
  const text = await page.locator(".flame .tip").textContent();
  must(/total/.test(text) && /self/.test(text) && /%/.test(text) && /samples?/.test(text), text);
  await page.mouse.move(5, 5);
  return text.slice(0, 90);
});

let narrowed = "";
await check("the filter suggests, and narrows all totals", async () => {
  await visit(page, base, address());
  const all = await totals(page);
  await page.locator(".query").fill('process="');
  await page.locator(".suggestions li").first().waitFor({ timeout: 10_000 });
  await page.keyboard.press("ArrowDown");
  const value = await page.locator('.suggestions li[aria-selected="true"] span').first().textContent();
  await page.keyboard.press("Enter");
  await quiet(page);
  narrowed = parameter(page, "query");
  must(narrowed?.includes(value), `the address says ${narrowed}`);
  const some = await totals(page);
  const truth = (await get("flamegraph", { ...fixed, query: narrowed })).samples;
  must(some === truth, `the page says ${some}, the API ${truth}`);
  must(some > 0 && some < all, `${some} of ${all}`);
  return `${narrowed}: ${some} of ${all} samples`;
});

await check("reloading restores filter, zoom and search", async () => {
  await clickFrame(page, 2, 0.03);
  await quiet(page);
  await page.locator(".search-field").first().fill("e");
  await quiet(page);
  const look = async () => [
    page.url(),
    await totals(page),
    await page.locator(".query").inputValue(),
    await page.locator(".search-field").first().inputValue(),
    await page.locator(".search-result").textContent(),
    await page.locator(".crumbs").textContent(),
  ];
  const before = await look();
  must(
    before.every((part) => part !== ""),
    `something is empty: ${JSON.stringify(before)}`,
  );
  await page.reload();
  await drawn(page);
  const after = await look();
  must(JSON.stringify(after) === JSON.stringify(before), `${JSON.stringify(before)} became ${JSON.stringify(after)}`);
});

await check("a time range asks again", async () => {
  await visit(page, base, "live=0");
  const before = requests.length;
  await page.locator(".range-button").click();
  await page.getByRole("button", { name: "Last 5 minutes" }).click();
  await quiet(page);
  must(parameter(page, "from") === "now-5m", "the address does not carry the range");
  const asked = requests.slice(before).filter((url) => url.includes("from=now-5m"));
  must(
    asked.some((url) => url.includes("/flamegraph")) && asked.some((url) => url.includes("/series")),
    asked.join(" "),
  );
});

await check("dragging over the time series selects a range", async () => {
  const box = await page.locator(".plot-canvas").boundingBox();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 60);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.8, box.y + 60, { steps: 5 });
  await page.mouse.up();
  await quiet(page);
  const length = (Date.parse(parameter(page, "until")) - Date.parse(parameter(page, "from"))) / 1000;
  must(length > 60 && length < 130, `${length} s were selected`);
  return `${length} s`;
});

await check("top functions: exact rows, and a click finds the function", async () => {
  await visit(page, base, address());
  await page.getByRole("tab", { name: "Top functions" }).click();
  await page.locator(".top tbody tr").first().waitFor();
  const { rows } = await get("top", { ...fixed, sort: "self", limit: "100" });
  must((await page.locator(".top tbody tr").count()) === rows.length, "the number of rows differs from the API");
  const first = await page.locator(".top tbody tr .name").first().textContent();
  must(first === rows[0].name, `the first row is ${first}, not ${rows[0].name}`);
  await page.locator(".top tbody .cell-link").first().click();
  await quiet(page);
  must(parameter(page, "search") === `"${rows[0].name}"`, "the search is not in the address");
  return rows[0].name;
});

await check("callers and callees of a function", async () => {
  const { rows } = await get("top", { ...fixed, sort: "self", limit: "50" });
  const { name, total } = rows.find(
    (row) => row.kind !== "marker" && rows.filter((r) => r.name === row.name).length === 1,
  );
  await visit(page, base, address({ focus: name, invert: "1" }));
  must((await page.locator(".focus-bar code").textContent()) === name, "the bar does not name the function");
  const label = await page.locator(".flame-canvas").getAttribute("aria-label");
  must(label.includes(` ${total.toLocaleString("en-US")} samples`), `${label}; the table says ${total}`);
  await page.getByRole("button", { name: "callees", exact: true }).first().click();
  await quiet(page);
  must(parameter(page, "invert") === null, "the address still says callers");
  await page.getByRole("button", { name: "show everything" }).click();
  await quiet(page);
  must(parameter(page, "focus") === null, "the focus is still in the address");
  return `${name}: ${label}`;
});

await check("processes: list, and a click filters", async () => {
  await visit(page, base, address());
  const all = await totals(page);
  await page.getByRole("tab", { name: "Processes" }).click();
  await page.locator(".processes tbody tr").first().waitFor();
  const { processes } = await get("processes", fixed);
  must((await page.locator(".processes tbody tr").count()) === Math.min(200, processes.length), "rows are missing");
  await page.locator(".processes tbody tr .cell-link").nth(1).click();
  await quiet(page);
  must(/pid="\d+"/.test(parameter(page, "query") ?? ""), `the address says ${parameter(page, "query")}`);
  must((await totals(page)) < all, "the totals did not narrow");
  return `${processes.length} processes`;
});

await check("accounting: nothing is left over", async () => {
  await page.getByRole("tab", { name: "Accounting" }).click();
  await page.locator(".account").first().waitFor();
  const { instances } = await get("accounting");
  must((await page.locator(".account").count()) === instances.length, "an agent is missing");
  for (const text of await page.locator(".check").allTextContents()) must(text === "left over: 0", text);
  must((await page.locator(".corner.bad").count()) === 0, "the corner is red");
});

await check("t walks through the tabs and ? explains the keys", async () => {
  await visit(page, base, address());
  await page.locator(".logo").focus();
  await page.keyboard.press("t");
  must(parameter(page, "tab") === "top", "t did not change the tab");
  await page.keyboard.press("?");
  must(await page.locator("dialog[aria-label=Help]").isVisible(), "no help");
  await page.keyboard.press("Escape");
  must(!(await page.locator("dialog[aria-label=Help]").isVisible()), "the help stays");
});

await check("a filter without a match says what to do", async () => {
  await visit(page, base, address());
  await page.goto(`${base}/?${address({ query: '{process="no-such-process"}' })}`);
  await page.getByRole("button", { name: "Clear the filter" }).last().waitFor();
  must((await totals(page)) === 0, "the totals are not zero");
  await page.locator(".notice").getByRole("button", { name: "Clear the filter" }).click();
  await drawn(page);
  must(parameter(page, "query") === null && (await totals(page)) > 0, "the filter was not cleared");
});

await check("an error shows the server's words and a way to try again", async () => {
  const known = problems.length;
  await page.goto(`${base}/?${address({ query: "{process=}" })}`);
  await page.locator(".notice.error").first().waitFor();
  const text = await page.locator(".notice.error").first().textContent();
  const { error } = await (await fetch(`${base}/api/v1/flamegraph?query=%7Bprocess%3D%7D`)).json();
  must(text.includes(error.message), `${text} does not say: ${error.message}`);
  must((await page.getByRole("button", { name: "Try again" }).count()) > 0, "no way to try again");
  await page.waitForTimeout(500);
  // These refusals were asked for; anything else that happened meanwhile still counts.
  const meant = (problem) => problem.includes("400");
  problems.splice(known, problems.length, ...problems.slice(known).filter((problem) => !meant(problem)));
  return error.message;
});

await check("dark and light", async () => {
  await visit(page, base, "from=now-2m&live=0");
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await back();
  await page.getByRole("button", { name: "Switch between dark and light" }).click();
  const dark = await back();
  must(light !== dark, `both are ${light}`);
  await page.reload();
  await drawn(page);
  must((await back()) === dark, "the choice was forgotten");
  if (screenshot) {
    mkdirSync(dirname(screenshot), { recursive: true });
    await page.mouse.move(700, 40);
    await page.screenshot({ path: screenshot });
  }
  await page.getByRole("button", { name: "Switch between dark and light" }).click();
  must((await back()) === light, "the way back is missing");
  if (screenshot) await page.screenshot({ path: screenshot.replace(/\.png$/, "-light.png") });
});

await check("no error on the console, no failed request, no other host", async () => {
  must(problems.length === 0, problems.slice(0, 3).join("; "));
  const strange = requests.filter((url) => !url.startsWith(`${base}/`));
  must(strange.length === 0, strange.slice(0, 3).join(" "));
  return `${requests.length} requests`;
});

await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
