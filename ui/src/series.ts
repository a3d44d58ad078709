// The time series: stacked areas over the range, where dragging selects a range and the legend filters.

import * as api from "./api";
import { chart, type Chart, type Line } from "./buckets";
import { fill, h, options, style } from "./dom";
import { series as seriesColour } from "./flamegraph/colours";
import { cores, percent, significant, value } from "./format";
import { Loader } from "./loader";
import { failure } from "./notice";
import { Plot } from "./plot";
import * as selector from "./selector";
import type { State, Store } from "./state";
import { isDark, onThemeChange } from "./theme";
import { moment, resolve, rfc3339, step } from "./time";

const LABELS = ["process", "service", "namespace", "pod", "node", "thread"].map((name) => [name, name] as const);
const LIMIT = 9;

export class SeriesPanel {
  readonly element: HTMLElement;
  private readonly by = h("select", { "aria-label": "Split the time series by" });
  private readonly legend = h("ul", { class: "series-legend", "aria-label": "Series" });
  private readonly notice = h("div", { class: "notice-slot" });
  private readonly tip = h("div", { class: "tip", hidden: true });
  private readonly plot: Plot;
  private readonly loader: Loader<api.Series>;
  private chart: Chart | null = null;
  private unit = "seconds";

  constructor(
    private readonly store: Store,
    private readonly totals: (chart: Chart, unit: string) => void,
    busy: (under: boolean) => void,
    private readonly refused: (error: Error) => void,
  ) {
    this.by.addEventListener("change", () => store.set({ by: this.by.value }));
    this.plot = new Plot({
      hover: (bucket, x, y) => this.hover(bucket, x, y),
      select: (from, until) => store.set({ from: rfc3339(from), until: rfc3339(until), zoom: store.state.zoom }),
    });
    this.loader = new Loader(
      (answer) => this.loaded(answer),
      (error) => this.failed(error),
      busy,
    );
    this.element = h(
      "section",
      { class: "panel series", "aria-label": "Time series" },
      h("div", { class: "series-plot" }, this.plot.element, this.notice),
      h(
        "div",
        { class: "series-side" },
        h("label", { class: "field" }, h("span", {}, "CPU cores by"), this.by),
        this.legend,
      ),
      this.tip,
    );
    onThemeChange(() => this.drawLegend());
  }

  show(state: Readonly<State>, tick: number): void {
    options(this.by, LABELS, state.by);
    const now = Date.now() / 1000;
    const span = resolve(state.until, now) - resolve(state.from, now);
    const width = Math.max(200, this.plot.element.clientWidth);
    const every = Number.isFinite(span) ? step(span, width / 5) : 60;
    const key = JSON.stringify([api.selectionKey(state), state.by, every, tick]);
    this.loader.load(key, (signal) => api.series(state, every, LIMIT, signal));
  }

  private loaded(answer: api.Series): void {
    fill(this.notice);
    this.chart = chart(answer);
    this.unit = answer.unit ?? "seconds";
    this.totals(this.chart, this.unit);
    this.plot.show(this.chart, this.unit);
    this.drawLegend();
  }

  private failed(error: Error): void {
    this.refused(error);
    fill(
      this.notice,
      failure(error, () => this.show(this.store.state, performance.now())),
    );
  }

  private rate(line: Line): string {
    const { from, until } = this.chart!;
    const seconds = Math.max(1e-9, until - from);
    return this.unit === "seconds" ? significant(line.value / seconds) : value(line.value, this.unit);
  }

  private drawLegend(): void {
    if (!this.chart) return;
    const { lines, samples } = this.chart;
    const dark = isDark();
    fill(
      this.legend,
      ...lines.map((line, rank) => {
        const chip = h("span", { class: "chip" });
        style(chip, { background: colour(line, rank, dark) });
        const text = name(line);
        const figure = h("span", { class: "figure" }, this.rate(line));
        if (line.rest || line.label === "")
          return h(
            "li",
            { class: "series-item", title: `${text}: ${percent(line.samples, samples)}` },
            chip,
            h("span", { class: "name faint" }, text),
            figure,
          );
        return h(
          "li",
          {},
          h(
            "button",
            {
              type: "button",
              class: "series-item",
              title: `${text}: ${percent(line.samples, samples)} of the samples. Click: only this. Alt-click: all but this.`,
              onclick: (event: Event) => this.filter(line.label, (event as MouseEvent).altKey),
            },
            chip,
            h("span", { class: "name" }, text),
            figure,
          ),
        );
      }),
    );
  }

  private filter(label: string, not: boolean): void {
    const { query, by } = this.store.state;
    this.store.set({ query: selector.narrow(query, by, label, not ? "!=" : "="), zoom: "" });
  }

  private hover(bucket: number, x: number, y: number): void {
    const { chart: at, tip } = this;
    if (bucket < 0 || !at) {
      tip.hidden = true;
      return;
    }
    const dark = isDark();
    const per = (rate: number) => (this.unit === "seconds" ? cores(rate) : `${value(rate, this.unit)}/s`);
    const all = at.lines.reduce((sum, line) => sum + line.rate[bucket]!, 0);
    const rows = at.lines
      .map((line, rank) => ({ line, rank, rate: line.rate[bucket]! }))
      .filter(({ rate }) => rate > 0)
      .sort((a, b) => b.rate - a.rate)
      .map(({ line, rank, rate }) => {
        const chip = h("span", { class: "chip" });
        style(chip, { background: colour(line, rank, dark) });
        return h(
          "div",
          { class: "tip-row" },
          chip,
          h("span", { class: "name" }, name(line)),
          h("span", { class: "figure" }, per(rate)),
        );
      });
    fill(
      tip,
      h("div", { class: "tip-name" }, moment(at.time[bucket]!)),
      h(
        "div",
        { class: "tip-row total" },
        h("span", { class: "name" }, "all"),
        h("span", { class: "figure" }, per(all)),
      ),
      ...rows,
    );
    tip.hidden = false;
    const left = x + 16 + tip.offsetWidth > innerWidth - 8 ? x - tip.offsetWidth - 16 : x + 16;
    style(tip, { left: `${Math.max(8, left)}px`, top: `${Math.min(y + 12, innerHeight - tip.offsetHeight - 8)}px` });
  }
}

function name(line: Line): string {
  return line.rest ? "all others" : line.label === "" ? "(none)" : line.label;
}

/** Colour of a line by its rank; what has no name of its own is grey. */
export function colour(line: Line, rank: number, dark: boolean): string {
  if (line.rest || line.label === "") return dark ? "oklch(0.45 0.006 60)" : "oklch(0.8 0.006 60)";
  return seriesColour(rank, dark);
}
