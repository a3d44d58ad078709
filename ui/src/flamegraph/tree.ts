// The flame graph's columns as typed arrays: what a million nodes need so that nothing is an object.

import type { FlameGraph } from "../api";

/** A tree in columns. Node 0 is the root, and a parent stands before its children. Counts are samples. */
export interface Tree {
  readonly size: number;
  /** Index of the parent, -1 for the root. */
  readonly parent: Int32Array;
  readonly name: Uint32Array;
  readonly file: Uint32Array;
  readonly mapping: Uint32Array;
  readonly kind: Uint32Array;
  readonly line: Uint32Array;
  readonly self: Float64Array;
  readonly total: Float64Array;
  readonly selfValue: Float64Array;
  readonly totalValue: Float64Array;
  /** Samples of children that the server left out. */
  readonly elided: Float64Array;
  /** Ids that name a path in every answer for the same grouping. */
  readonly id: readonly string[];
  readonly names: readonly string[];
  readonly files: readonly string[];
  readonly mappings: readonly string[];
  readonly kinds: readonly string[];
  readonly unit: string;
}

/** What stands for a missing label. */
export const NONE = "(none)";

/** Reads an answer of the server. */
export function fromAnswer(answer: FlameGraph): Tree {
  const { nodes } = answer;
  return {
    size: nodes.parent.length,
    parent: Int32Array.from(nodes.parent),
    name: Uint32Array.from(nodes.name),
    file: Uint32Array.from(nodes.file),
    mapping: Uint32Array.from(nodes.mapping),
    kind: Uint32Array.from(nodes.kind),
    line: Uint32Array.from(nodes.line),
    self: Float64Array.from(nodes.self),
    total: Float64Array.from(nodes.total),
    selfValue: Float64Array.from(nodes.self_value),
    totalValue: Float64Array.from(nodes.total_value),
    elided: Float64Array.from(nodes.elided),
    id: (nodes.id ?? []).map(String),
    names: answer.names.map((name) => name || NONE),
    files: answer.files,
    mappings: answer.mappings,
    kinds: answer.kinds,
    unit: answer.unit,
  };
}

/** Samples left out at or below each node. */
export function elidedBelow(tree: Tree): Float64Array {
  const below = Float64Array.from(tree.elided);
  for (let i = tree.size - 1; i > 0; i -= 1) {
    const parent = tree.parent[i]!;
    below[parent] = below[parent]! + below[i]!;
  }
  return below;
}

/** The node with an id, -1 where there is none. */
export function find(tree: Tree, id: string): number {
  return id === "" ? -1 : tree.id.indexOf(id);
}

/** The nodes from the root to `node`, both included. */
export function path(tree: Tree, node: number): number[] {
  const nodes: number[] = [];
  for (let i = node; i >= 0; i = tree.parent[i]!) nodes.push(i);
  return nodes.reverse();
}
