// The line of totals: what the whole selection adds up to, whatever part of it is on the screen.

import type { Complete } from "./api";
import type { Chart } from "./buckets";
import { fill, h } from "./dom";
import { clock } from "./time";
import { cores, count, percent, value } from "./format";

export class Summary {
  readonly element = h("div", { class: "summary", role: "status", "aria-label": "Totals of the selection" });
  private readonly totals = h("span", { class: "summary-part" });
  private readonly began = h("span", { class: "summary-part" });
  private readonly stacks = h("span", { class: "summary-part" });

  /** `only` narrows the range to what begins at a time (Unix seconds). */
  constructor(private readonly only: (from: number) => void) {
    this.element.append(this.totals, this.stacks, this.began);
  }

  /** Totals over the range that the answer covers. */
  show(chart: Chart, unit: string): void {
    const seconds = chart.until - chart.from;
    this.element.dataset["samples"] = String(chart.samples);
    fill(
      this.totals,
      unit === "seconds"
        ? h(
            "strong",
            { title: "CPU time divided by the length of the range" },
            cores(seconds > 0 ? chart.value / seconds : 0),
          )
        : h("strong", {}, value(chart.value, unit)),
      unit === "seconds" && h("span", {}, `${value(chart.value, unit)} of CPU time`),
      h("span", { class: "faint" }, `${count(chart.samples)} samples`),
    );
  }

  /** Where samples began late in the range, averages over all of it mislead: says so, and offers the part that has some. */
  late(chart: Chart): void {
    const at = chart.time.findIndex((_, i) => chart.lines.some((line) => line.rate[i]! > 0));
    const first = Math.max(chart.from, chart.time[at] ?? chart.from);
    const late = at > 0 && chart.until - first < (chart.until - chart.from) / 2;
    fill(
      this.began,
      late &&
        h(
          "button",
          { type: "button", class: "link", title: "Show only the part with samples", onclick: () => this.only(first) },
          `samples since ${clock(first)}`,
        ),
    );
  }

  /** How many stacks reached their root. */
  complete(samples: number, complete: Complete | undefined): void {
    if (!complete || samples === 0) return fill(this.stacks);
    const reasons = Object.entries(complete.incomplete)
      .filter(([, n]) => n > 0)
      .sort((a, b) => b[1] - a[1])
      .map(([reason, n]) => `${reason.replaceAll("_", " ")}: ${percent(n, samples)} (${count(n)})`);
    const title =
      reasons.length > 0 ? `Incomplete stacks, by reason:\n${reasons.join("\n")}` : "Every stack reached its root";
    fill(this.stacks, h("span", { class: "faint", title }, `${percent(complete.samples, samples)} complete stacks`));
  }
}
