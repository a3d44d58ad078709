// Puts a part that was fetched in more detail in the place of the coarse one.

import type { Tree } from "./tree";

/** Merges lists of strings; `into` says where each string of `from` stands in the result. */
function merge(list: readonly string[], from: readonly string[]): { all: string[]; into: Uint32Array } {
  const at = new Map(list.map((text, index) => [text, index]));
  const all = [...list];
  const into = Uint32Array.from(from, (text) => {
    let index = at.get(text);
    if (index === undefined) {
      index = all.push(text) - 1;
      at.set(text, index);
    }
    return index;
  });
  return { all, into };
}

/** Marks the nodes at and below `root`. */
function below(tree: Tree, root: number): Uint8Array {
  const inside = new Uint8Array(tree.size);
  inside[root] = 1;
  for (let i = root + 1; i < tree.size; i += 1) inside[i] = inside[tree.parent[i]!]!;
  return inside;
}

/**
 * The tree with everything below `node` replaced by what stands below `root` in `detail`.
 * `null` where the two do not count the same samples, so that a picture never mixes two states of the store.
 */
export function graft(tree: Tree, node: number, detail: Tree, root: number): Tree | null {
  if (tree.total[node] !== detail.total[root] || tree.self[node] !== detail.self[root]) return null;
  const names = merge(tree.names, detail.names);
  const files = merge(tree.files, detail.files);
  const mappings = merge(tree.mappings, detail.mappings);
  const kinds = merge(tree.kinds, detail.kinds);

  const dropped = below(tree, node);
  const added = below(detail, root);
  const kept: number[] = [];
  const place = new Int32Array(tree.size);
  for (let i = 0; i < tree.size; i += 1) {
    if (dropped[i] && i !== node) continue;
    place[i] = kept.push(i) - 1;
  }
  const taken: number[] = [];
  const detailPlace = new Int32Array(detail.size);
  detailPlace[root] = place[node]!;
  for (let i = root + 1; i < detail.size; i += 1) {
    if (added[i]) detailPlace[i] = kept.length + taken.push(i) - 1;
  }

  const size = kept.length + taken.length;
  const column = <T extends Float64Array | Uint32Array>(out: T, base: T, extra: T, into?: Uint32Array): T => {
    kept.forEach((from, at) => (out[at] = base[from]!));
    taken.forEach((from, at) => (out[kept.length + at] = into ? into[extra[from]!]! : extra[from]!));
    return out;
  };
  const words = () => new Uint32Array(size);
  const sums = () => new Float64Array(size);
  const parent = new Int32Array(size);
  kept.forEach((from, at) => (parent[at] = from === 0 ? -1 : place[tree.parent[from]!]!));
  taken.forEach((from, at) => (parent[kept.length + at] = detailPlace[detail.parent[from]!]!));
  const elided = column(sums(), tree.elided, detail.elided);
  elided[place[node]!] = detail.elided[root]!;

  return {
    size,
    parent,
    name: column(words(), tree.name, detail.name, names.into),
    file: column(words(), tree.file, detail.file, files.into),
    mapping: column(words(), tree.mapping, detail.mapping, mappings.into),
    kind: column(words(), tree.kind, detail.kind, kinds.into),
    line: column(words(), tree.line, detail.line),
    self: column(sums(), tree.self, detail.self),
    total: column(sums(), tree.total, detail.total),
    selfValue: column(sums(), tree.selfValue, detail.selfValue),
    totalValue: column(sums(), tree.totalValue, detail.totalValue),
    elided,
    id: [...kept.map((from) => tree.id[from] ?? ""), ...taken.map((from) => detail.id[from] ?? "")],
    names: names.all,
    files: files.all,
    mappings: mappings.all,
    kinds: kinds.all,
    unit: tree.unit,
  };
}
