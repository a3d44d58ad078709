// The list of processes among the selected samples, with how much of each one's stacks is complete.

import * as api from "./api";
import { fill, h } from "./dom";
import { ago, count, percent } from "./format";
import { Loader } from "./loader";
import { failure, type Notices } from "./notice";
import { only } from "./only";
import type { State, Store } from "./state";
import { unix } from "./time";
import { bar } from "./top";

const FIRST = 200;

type Column = "process" | "pid" | "node" | "threads" | "samples" | "complete" | "last";

const order: Record<Column, (a: api.Process, b: api.Process) => number> = {
  process: (a, b) => a.process.localeCompare(b.process),
  pid: (a, b) => a.pid - b.pid,
  node: (a, b) => a.node.localeCompare(b.node),
  threads: (a, b) => b.thread_count - a.thread_count,
  samples: (a, b) => b.samples - a.samples,
  complete: (a, b) => a.complete / a.samples - b.complete / b.samples,
  last: (a, b) => unix(b.last_seen) - unix(a.last_seen),
};

export class ProcessesPanel {
  readonly element: HTMLElement;
  private readonly body = h("div", { class: "table-scroll", tabindex: 0, "aria-label": "Process table" });
  private readonly note = h("span", { class: "faint" });
  private readonly field: HTMLInputElement;
  private readonly loader: Loader<api.Process[]>;
  private list: api.Process[] | null = null;
  private sort: Column = "samples";
  private shown = FIRST;

  constructor(
    private readonly store: Store,
    private readonly notices: Notices,
    busy: (under: boolean) => void,
  ) {
    this.field = h("input", {
      type: "search",
      class: "search-field",
      placeholder: "find a process",
      "aria-label": "Find a process in the list",
      spellcheck: "false",
      oninput: () => this.draw(),
    });
    this.loader = new Loader(
      (list) => {
        this.list = list;
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
      { class: "panel processes", "aria-label": "Processes" },
      h("div", { class: "tools" }, this.field, this.note),
      this.body,
    );
  }

  show(state: Readonly<State>, tick: number): void {
    const key = JSON.stringify([api.selectionKey(state), tick]);
    this.loader.load(key, async (signal) => (await api.processes(state, signal)).processes);
  }

  focusSearch(): void {
    this.field.focus();
  }

  private draw(): void {
    const { list } = this;
    if (!list) return;
    if (list.length === 0) {
      this.note.textContent = "";
      return fill(this.body, this.notices.empty());
    }
    const text = this.field.value.toLowerCase();
    const found = list.filter((p) =>
      [p.process, String(p.pid), p.node, p.namespace, p.pod, p.container, p.service].some((field) =>
        field.toLowerCase().includes(text),
      ),
    );
    found.sort((a, b) => order[this.sort](a, b) || b.samples - a.samples || a.pid - b.pid);
    const all = list.reduce((sum, p) => sum + p.samples, 0);
    const longest = list.reduce((most, p) => Math.max(most, p.samples), 0);
    const complete = list.reduce((sum, p) => sum + p.complete, 0);
    this.note.textContent = `${count(found.length)} of ${count(list.length)} processes; ${percent(complete, all)} of all stacks complete`;
    const where = found.some((p) => p.namespace || p.pod || p.container);
    const services = found.some((p) => p.service !== "" && p.service !== p.process);
    const now = Date.now() / 1000;
    const th = (column: Column | null, label: string, number = false) =>
      h(
        "th",
        { scope: "col", class: number ? "number" : null, "aria-sort": column === this.sort ? "descending" : null },
        column
          ? h(
              "button",
              { type: "button", class: "sort", onclick: () => this.sortBy(column) },
              label,
              column === this.sort && " ↓",
            )
          : label,
      );
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
            th("process", "Process"),
            th("pid", "PID", true),
            services && th(null, "Service"),
            where && th(null, "Namespace / pod / container"),
            th("node", "Node"),
            th("threads", "Threads", true),
            th("samples", "Share", true),
            th(null, "Samples", true),
            th("complete", "Complete stacks", true),
            th("last", "Last seen", true),
          ),
        ),
        h("tbody", {}, ...found.slice(0, this.shown).map((p) => this.row(p, all, longest, now, services, where))),
      ),
      found.length > this.shown &&
        h(
          "p",
          { class: "more" },
          h(
            "button",
            { type: "button", onclick: () => this.more() },
            `Show ${count(Math.min(FIRST * 5, found.length - this.shown))} more`,
          ),
        ),
    );
  }

  private row(
    p: api.Process,
    all: number,
    longest: number,
    now: number,
    services: boolean,
    where: boolean,
  ): HTMLElement {
    return h(
      "tr",
      {},
      h("td", { class: "bar-cell" }, bar(p.samples, longest)),
      h("td", { class: "main" }, only(this.store, "process", p.process)),
      h("td", { class: "number" }, p.pid > 0 ? only(this.store, "pid", String(p.pid)) : ""),
      services && h("td", {}, p.service === "" ? "" : only(this.store, "service", p.service)),
      where && h("td", {}, [p.namespace, p.pod, p.container].filter(Boolean).join(" / ")),
      h("td", {}, p.node === "" ? "" : only(this.store, "node", p.node)),
      h("td", { class: "number" }, count(p.thread_count)),
      h("td", { class: "number" }, percent(p.samples, all)),
      h("td", { class: "number faint" }, count(p.samples)),
      h(
        "td",
        { class: "number" },
        h("span", { class: p.complete < p.samples * 0.95 ? "warn" : null }, percent(p.complete, p.samples)),
      ),
      h("td", { class: "number faint" }, ago(unix(p.last_seen), now)),
    );
  }

  private sortBy(column: Column): void {
    this.sort = column;
    this.draw();
  }

  private more(): void {
    this.shown += FIRST * 5;
    this.draw();
  }
}
