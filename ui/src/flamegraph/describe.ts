// A frame in words and figures, for the tooltip and the status line alike.

import { count, percent, value } from "../format";
import { h } from "../dom";
import { kind as kindColour } from "./colours";
import type { Tree } from "./tree";

export interface Described {
  name: string;
  kind: string;
  mapping: string;
  /** `file:line`, empty where unknown. */
  where: string;
  self: string;
  total: string;
  /** What was left out below it, empty where nothing was. */
  elided: string;
}

function figure(samples: number, amount: number, tree: Tree, all: number): string {
  return `${percent(samples, all)} · ${value(amount, tree.unit)} · ${count(samples)} ${samples === 1 ? "sample" : "samples"}`;
}

export function describe(tree: Tree, node: number): Described {
  const all = tree.total[0] ?? 0;
  const file = tree.files[tree.file[node]!] ?? "";
  const line = tree.line[node]!;
  const elided = tree.elided[node]!;
  return {
    name: tree.names[tree.name[node]!] ?? "",
    kind: tree.kinds[tree.kind[node]!] ?? "",
    mapping: tree.mappings[tree.mapping[node]!] ?? "",
    where: file === "" ? "" : line > 0 ? `${file}:${line}` : file,
    self: figure(tree.self[node]!, tree.selfValue[node]!, tree, all),
    total: figure(tree.total[node]!, tree.totalValue[node]!, tree, all),
    elided: elided > 0 ? `${count(elided)} samples go on in frames that are not drawn yet: click to fetch them` : "",
  };
}

/** One sentence, for the status line and for screen readers. */
export function sentence(tree: Tree, node: number): string {
  const d = describe(tree, node);
  const place = [d.kind, d.mapping, d.where].filter(Boolean).join(", ");
  return `${d.name} (${place}): total ${d.total}; self ${d.self}`;
}

/** The tooltip's content. */
export function card(tree: Tree, node: number, dark: boolean): HTMLElement {
  const d = describe(tree, node);
  const chip = h("span", { class: "chip" });
  chip.style.background = kindColour(d.kind, dark);
  return h(
    "div",
    {},
    h("div", { class: "tip-name" }, d.name),
    h("div", { class: "tip-place" }, chip, [d.kind, d.mapping, d.where].filter(Boolean).join(" · ")),
    h(
      "dl",
      { class: "tip-figures" },
      h("dt", {}, "total"),
      h("dd", {}, d.total),
      h("dt", {}, "self"),
      h("dd", {}, d.self),
    ),
    d.elided !== "" && h("div", { class: "tip-note" }, d.elided),
  );
}
