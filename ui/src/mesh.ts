// What the proxies of a service mesh cost: CPU time of the sidecars of each service, beside the service's own.

import * as api from "./api";
import { fill, h } from "./dom";
import { cores, count, duration, percent } from "./format";
import { Loader } from "./loader";
import { failure } from "./notice";
import { only } from "./only";
import type { State, Store } from "./state";
import { unix } from "./time";
import { bar } from "./top";

export class MeshPanel {
  readonly element: HTMLElement;
  private readonly body = h("div", { class: "table-scroll", tabindex: 0, "aria-label": "Table of services" });
  private readonly note = h("span", { class: "faint" });
  private readonly loader: Loader<api.Mesh>;

  constructor(
    private readonly store: Store,
    busy: (under: boolean) => void,
  ) {
    this.loader = new Loader(
      (mesh) => this.draw(mesh),
      (error) =>
        fill(
          this.body,
          failure(error, () => this.show(this.store.state, performance.now())),
        ),
      busy,
    );
    this.element = h(
      "section",
      { class: "panel mesh", "aria-label": "Cost of the mesh" },
      h("div", { class: "tools" }, this.note),
      this.body,
    );
  }

  show(state: Readonly<State>, tick: number): void {
    const key = JSON.stringify([api.selectionKey(state), tick]);
    this.loader.load(key, (signal) => api.mesh(state, signal));
  }

  private draw(mesh: api.Mesh): void {
    const names = mesh.containers.join(", ");
    if (mesh.rows.length === 0) {
      this.note.textContent = "";
      return fill(
        this.body,
        h("p", { class: "explain" }, `No sample of this selection is of a mesh's proxy, a container named ${names}.`),
      );
    }
    const seconds = unix(mesh.until) - unix(mesh.from);
    const rate = (n: number) => cores(seconds > 0 ? n / seconds : 0);
    const all = mesh.proxy_seconds + mesh.workload_seconds;
    this.note.textContent = `proxies (${names}) use ${rate(mesh.proxy_seconds)}, ${percent(mesh.proxy_seconds, all)} of the CPU time of ${count(mesh.count)} services with one`;
    const longest = mesh.rows.reduce((most, row) => Math.max(most, row.proxy_seconds), 0);
    const number = (label: string, title: string) => h("th", { scope: "col", class: "number", title }, label);
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
            h("th", { scope: "col", class: "bar-cell", "aria-label": "Proxies" }),
            h("th", { scope: "col" }, "Service"),
            h("th", { scope: "col" }, "Namespace"),
            number("Pods", "Pods whose proxies had samples"),
            number("Proxies", "CPU that the proxies use"),
            number("Service itself", "CPU that the other containers use"),
            number("Proxies' share", "Of the CPU time of both"),
            number("Proxies' CPU time", "Over the whole range"),
          ),
        ),
        h("tbody", {}, ...mesh.rows.map((row) => this.row(row, longest, rate))),
      ),
    );
  }

  private row(row: api.MeshRow, longest: number, rate: (seconds: number) => string): HTMLElement {
    return h(
      "tr",
      {},
      h("td", { class: "bar-cell" }, bar(row.proxy_seconds, longest)),
      h("td", { class: "main" }, only(this.store, "service", row.service)),
      h("td", {}, only(this.store, "namespace", row.namespace)),
      h("td", { class: "number" }, count(row.pods)),
      h("td", { class: "number", title: `${count(row.proxy_samples)} samples` }, rate(row.proxy_seconds)),
      h("td", { class: "number", title: `${count(row.workload_samples)} samples` }, rate(row.workload_seconds)),
      h("td", { class: "number" }, percent(row.proxy_seconds, row.proxy_seconds + row.workload_seconds)),
      h("td", { class: "number faint" }, duration(row.proxy_seconds)),
    );
  }
}
