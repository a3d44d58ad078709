// Small trees written by hand, in the shape of the API.

import type { FlameGraph } from "../src/api";
import { fromAnswer, type Tree } from "../src/flamegraph/tree";

/** Parent, name, self, elided, id; totals follow from them. */
export type Row = [parent: number, name: string, self: number, elided?: number, id?: string];

export function answer(rows: Row[], kinds: string[] = []): FlameGraph {
  const names = [...new Set(rows.map(([, name]) => name))];
  const self = rows.map(([, , own]) => own);
  const elided = rows.map(([, , , missing]) => missing ?? 0);
  const total = self.map((own, i) => own + elided[i]!);
  for (let i = rows.length - 1; i > 0; i -= 1) total[rows[i]![0]]! += total[i]!;
  const zeros = rows.map(() => 0);
  return {
    from: 0,
    until: 60,
    resolution_s: 1,
    type: "cpu",
    unit: "seconds",
    samples: total[0]!,
    value: total[0]! / 20,
    names,
    files: [""],
    mappings: [""],
    kinds: ["native", ...kinds],
    nodes: {
      parent: rows.map(([parent]) => parent),
      name: rows.map(([, name]) => names.indexOf(name)),
      file: zeros,
      mapping: zeros,
      kind: zeros,
      line: zeros,
      self,
      total,
      self_value: self.map((n) => n / 20),
      total_value: total.map((n) => n / 20),
      elided,
      id: rows.map(([, , , , id], i) => id ?? `n${i}`),
    },
    elided: { nodes: 0, samples: elided.reduce((a, b) => a + b, 0) },
  };
}

export function tree(rows: Row[]): Tree {
  return fromAnswer(answer(rows));
}

/**
 * total 100 ─ a 60 ─ b 40 ─ a 10 (recursion)
 *           │      └ c 15
 *           └ b 30 (5 left out below it)
 */
export const SMALL: Row[] = [
  [-1, "total", 10],
  [0, "a", 5],
  [1, "b", 30],
  [2, "a", 10],
  [1, "c", 15],
  [0, "b", 25, 5],
];
