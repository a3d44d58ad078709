// The time range: presets, two fields for an absolute range, and whether a range that ends now is followed.

import { fill, h, icon } from "./dom";
import type { State, Store } from "./state";
import { local, moment, offset, resolve, rfc3339 } from "./time";

const PRESETS = [
  ["now-5m", "Last 5 minutes"],
  ["now-15m", "Last 15 minutes"],
  ["now-1h", "Last hour"],
  ["now-6h", "Last 6 hours"],
  ["now-24h", "Last 24 hours"],
  ["now-7d", "Last 7 days"],
] as const;

/** The range in words. */
export function words(state: Readonly<State>): string {
  const preset = PRESETS.find(([from]) => from === state.from);
  if (preset && state.until === "now") return preset[1];
  const back = /^now-(\d+)([smhdw])$/.exec(state.from);
  if (back && state.until === "now") {
    const unit = { s: "second", m: "minute", h: "hour", d: "day", w: "week" }[back[2]!] ?? "";
    return back[1] === "1" ? `Last ${unit}` : `Last ${back[1]} ${unit}s`;
  }
  const show = (time: string) => (offset(time) === null ? moment(resolve(time, 0)) : time);
  return `${show(state.from)} – ${show(state.until)}`;
}

/** Whether the range moves with the clock. */
export function follows(state: Readonly<State>): boolean {
  return offset(state.until) !== null;
}

export class RangePicker {
  readonly element: HTMLElement;
  private readonly label = h("span", {});
  private readonly button: HTMLButtonElement;
  private readonly popup: HTMLElement;
  private readonly from = h("input", { type: "datetime-local", step: 1, "aria-label": "From" });
  private readonly until = h("input", { type: "datetime-local", step: 1, "aria-label": "Until" });
  private readonly presets = h("div", { class: "presets", role: "group", "aria-label": "Presets" });
  private readonly problem = h("p", { class: "bad", role: "alert" });
  private readonly live: HTMLButtonElement;

  constructor(
    private readonly store: Store,
    refresh: () => void,
  ) {
    this.button = h(
      "button",
      {
        type: "button",
        class: "range-button",
        "aria-haspopup": "dialog",
        "aria-expanded": "false",
        onclick: () => this.toggle(),
      },
      icon("M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M8 4.5V8l2.5 1.5"),
      this.label,
    );
    const form = h(
      "form",
      { class: "absolute", onsubmit: (event: Event) => this.submit(event) },
      h("label", {}, h("span", {}, "from"), this.from),
      h("label", {}, h("span", {}, "until"), this.until),
      h("button", { type: "submit" }, "Show this range"),
      this.problem,
    );
    this.popup = h(
      "div",
      { class: "popup", role: "dialog", "aria-label": "Time range", hidden: true },
      this.presets,
      form,
    );
    this.live = h(
      "button",
      { type: "button", class: "live", onclick: () => store.set({ live: !store.state.live }, true) },
      h("span", { class: "live-dot", "aria-hidden": "true" }),
      "live",
    );
    this.element = h(
      "div",
      { class: "range" },
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          title: "Twice as long",
          "aria-label": "Zoom out: twice as long a range",
          onclick: () => this.widen(),
        },
        icon("M7 2a5 5 0 1 0 0 10a5 5 0 1 0 0-10M11 11l3.5 3.5M4.7 7h4.6"),
      ),
      this.button,
      this.popup,
      this.live,
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          title: "Refresh (r)",
          "aria-label": "Refresh",
          "aria-keyshortcuts": "r",
          onclick: refresh,
        },
        icon("M13.5 8a5.5 5.5 0 1 1-1.7-4M13.5 1.5v3h-3"),
      ),
    );
    document.addEventListener("pointerdown", (event) => {
      if (!this.element.contains(event.target as globalThis.Node)) this.close();
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.popup.hidden) return;
      event.stopPropagation();
      this.close();
      this.button.focus();
    });
  }

  show(state: Readonly<State>): void {
    this.label.textContent = words(state);
    const able = follows(state);
    this.live.disabled = !able;
    this.live.setAttribute("aria-pressed", String(able && state.live));
    this.live.title = able ? "Follow the clock: refresh every few seconds" : "A range with a fixed end does not change";
  }

  private toggle(): void {
    if (!this.popup.hidden) return this.close();
    const { state } = this.store;
    const now = Date.now() / 1000;
    this.from.value = local(resolve(state.from, now));
    this.until.value = local(resolve(state.until, now));
    this.problem.textContent = "";
    fill(
      this.presets,
      ...PRESETS.map(([from, text]) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": String(state.from === from && state.until === "now"),
            onclick: () => {
              this.close();
              this.store.set({ from, until: "now" });
            },
          },
          text,
        ),
      ),
    );
    this.popup.hidden = false;
    this.button.setAttribute("aria-expanded", "true");
    this.presets.querySelector("button")?.focus();
  }

  private close(): void {
    this.popup.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
  }

  private submit(event: Event): void {
    event.preventDefault();
    const from = Date.parse(this.from.value) / 1000;
    const until = Date.parse(this.until.value) / 1000;
    if (!Number.isFinite(from) || !Number.isFinite(until)) this.problem.textContent = "Give both times.";
    else if (from >= until) this.problem.textContent = "The range must begin before it ends.";
    else {
      this.close();
      this.store.set({ from: rfc3339(from), until: rfc3339(until) });
    }
  }

  private widen(): void {
    const { state } = this.store;
    const now = Date.now() / 1000;
    const from = resolve(state.from, now);
    const until = resolve(state.until, now);
    const back = offset(state.from);
    if (back !== null && state.until === "now") {
      const longer = PRESETS.map(([preset]) => preset).find((preset) => (offset(preset) ?? 0) > back);
      this.store.set({ from: longer ?? `now-${back * 2}s` });
    } else {
      const half = (until - from) / 2;
      this.store.set({ from: rfc3339(from - half), until: rfc3339(Math.min(now, until + half)) });
    }
  }
}
