// The table of top functions: exact sums by the server, page by page.

import * as api from "./api";
import { fill, h, icon, style } from "./dom";
import { kind as kindColour } from "./flamegraph/colours";
import { matcher } from "./flamegraph/search";
import { count, percent, value } from "./format";
import { Loader } from "./loader";
import { failure, type Notices } from "./notice";
import type { State, Store } from "./state";
import { isDark, onThemeChange } from "./theme";

const PAGE = 100;
const ROWS = [
  ["function", "Functions"],
  ["file", "Source files"],
  ["mapping", "Binaries"],
] as const;

export class TopPanel {
  readonly element: HTMLElement;
  private readonly rowsBy = h("div", { class: "segments", role: "group", "aria-label": "Rows" });
  private readonly pager = h("div", { class: "pager" });
  private readonly body = h("div", { class: "table-scroll", tabindex: 0, "aria-label": "Top table" });
  private readonly note = h("span", { class: "faint" });
  private readonly loader: Loader<api.Top>;
  private answer: api.Top | null = null;

  constructor(
    private readonly store: Store,
    private readonly notices: Notices,
    private readonly totals: (answer: api.Top) => void,
    busy: (under: boolean) => void,
  ) {
    this.loader = new Loader(
      (answer) => {
        this.answer = answer;
        this.totals(answer);
        this.draw();
      },
      (error) =>
        fill(
          this.body,
          failure(error, () => this.show(this.store.state, performance.now())),
        ),
      busy,
    );
    this.element = h(
      "section",
      { class: "panel top", "aria-label": "Top functions" },
      h("div", { class: "tools" }, this.rowsBy, this.note, h("span", { class: "grow" }), this.pager),
      this.body,
    );
    onThemeChange(() => this.draw());
  }

  show(state: Readonly<State>, tick: number): void {
    fill(
      this.rowsBy,
      ...ROWS.map(([rows, text]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(state.rows === rows),
            onclick: () => this.store.set({ rows, page: 0 }),
          },
          text,
        ),
      ),
    );
    const key = JSON.stringify([api.selectionKey(state), state.rows, state.sort, state.page, tick]);
    this.loader.load(key, (signal) => api.top(state, PAGE, state.page * PAGE, signal));
    this.draw();
  }

  private draw(): void {
    const { answer } = this;
    if (!answer) return;
    const { state } = this.store;
    if (answer.samples === 0) {
      fill(this.body, this.notices.empty());
      fill(this.pager);
      return;
    }
    const test = matcher(state.search, state.regex);
    const hit = typeof test === "function" ? test : null;
    this.note.textContent = hit ? `“${state.search}” is marked` : "";
    const dark = isDark();
    const functions = state.rows === "function";
    const heading = (sort: "self" | "total", text: string, title: string) =>
      h(
        "th",
        { scope: "col", class: "number", colspan: 2, "aria-sort": state.sort === sort ? "descending" : null },
        h(
          "button",
          { type: "button", class: "sort", title, onclick: () => this.store.set({ sort, page: 0 }) },
          text,
          state.sort === sort && " ↓",
        ),
      );
    const longest = Math.max(1, ...answer.rows.map((row) => (state.sort === "self" ? row.self : row.total)));
    const rows = answer.rows.map((row) => {
      const text =
        state.rows === "file" ? row.file || row.name : state.rows === "mapping" ? row.mapping || row.name : row.name;
      const chip = h("span", { class: "chip" });
      style(chip, { background: kindColour(row.kind, dark) });
      const label = h("span", { class: "name", title: text }, text === "" ? "(none)" : text);
      const open = () =>
        this.store.set({ tab: "flame", search: functions ? `"${row.name}"` : text, regex: false, focus: "", zoom: "" });
      const turn = (invert: boolean) => this.store.set({ tab: "flame", focus: row.name, invert, zoom: "", search: "" });
      return h(
        "tr",
        { class: hit?.(row.name) ? "hit" : null, ondblclick: functions ? () => turn(true) : null },
        h("td", { class: "bar-cell" }, bar(state.sort === "self" ? row.self : row.total, longest)),
        h(
          "td",
          { class: "main" },
          h(
            "div",
            { class: "cell" },
            functions && row.kind !== "" && chip,
            functions
              ? h(
                  "button",
                  { type: "button", class: "cell-link", title: `${text}\nFind it in the flame graph`, onclick: open },
                  label,
                )
              : label,
            functions &&
              h(
                "span",
                { class: "row-actions" },
                h(
                  "button",
                  { type: "button", class: "small", title: "Who calls it (double click)", onclick: () => turn(true) },
                  "callers",
                ),
                h(
                  "button",
                  { type: "button", class: "small", title: "What it calls", onclick: () => turn(false) },
                  "callees",
                ),
              ),
          ),
        ),
        functions && h("td", { class: "faint place", title: row.file || row.mapping }, row.mapping),
        h("td", { class: "number" }, percent(row.self, answer.samples)),
        h("td", { class: "number faint" }, value(row.self_value, answer.unit)),
        h("td", { class: "number" }, percent(row.total, answer.samples)),
        h("td", { class: "number faint" }, value(row.total_value, answer.unit)),
      );
    });
    fill(
      this.body,
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col", class: "bar-cell", "aria-label": "Share" }),
            h("th", { scope: "col" }, ROWS.find(([rows]) => rows === state.rows)?.[1] ?? state.rows),
            functions && h("th", { scope: "col" }, "Binary"),
            heading("self", "Self", "Time in the function itself"),
            heading("total", "Total", "Time in it and in all it calls; recursion counts once"),
          ),
        ),
        h("tbody", {}, ...rows),
      ),
    );
    this.drawPager(answer);
  }

  private drawPager(answer: api.Top): void {
    const { page } = this.store.state;
    const first = page * PAGE;
    const turn = (to: number, label: string, path: string, able: boolean) =>
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          "aria-label": label,
          disabled: !able,
          onclick: () => this.store.set({ page: to }),
        },
        icon(path),
      );
    fill(
      this.pager,
      turn(page - 1, "Previous page", "M10 3L5 8l5 5", page > 0),
      h(
        "span",
        { class: "figure" },
        answer.rows.length === 0
          ? "0"
          : `${count(first + 1)}–${count(first + answer.rows.length)} of ${count(answer.count)}`,
      ),
      turn(page + 1, "Next page", "M6 3l5 5-5 5", first + answer.rows.length < answer.count),
    );
  }
}

/** A bar that compares a row with the longest one, as decoration beside the figure that says the share. */
export function bar(part: number, all: number, kind = ""): HTMLElement {
  const inner = h("span", {});
  style(inner, { width: `${all > 0 ? Math.min(100, (part / all) * 100) : 0}%` });
  return h("span", { class: `bar ${kind}`.trim(), "aria-hidden": "true" }, inner);
}
