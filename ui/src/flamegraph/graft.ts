// Puts a part that was fetched in more detail in the place of the coarse one.

import { find, path, type Tree } from "./tree";

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

/** Joins nodes of two trees: those of `tree` that stay, then those of `detail` that `place` puts below them. */
function join(tree: Tree, kept: number[], place: Int32Array, detail: Tree, taken: number[], into: Int32Array): Tree {
  const names = merge(tree.names, detail.names);
  const files = merge(tree.files, detail.files);
  const mappings = merge(tree.mappings, detail.mappings);
  const kinds = merge(tree.kinds, detail.kinds);
  const size = kept.length + taken.length;
  const column = <T extends Float64Array | Uint32Array>(out: T, base: T, extra: T, list?: Uint32Array): T => {
    kept.forEach((from, at) => (out[at] = base[from]!));
    taken.forEach((from, at) => (out[kept.length + at] = list ? list[extra[from]!]! : extra[from]!));
    return out;
  };
  const words = () => new Uint32Array(size);
  const sums = () => new Float64Array(size);
  const parent = new Int32Array(size);
  kept.forEach((from, at) => (parent[at] = from === 0 ? -1 : place[tree.parent[from]!]!));
  taken.forEach((from, at) => (parent[kept.length + at] = into[detail.parent[from]!]!));
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
    elided: column(sums(), tree.elided, detail.elided),
    id: [...kept.map((from) => tree.id[from] ?? ""), ...taken.map((from) => detail.id[from] ?? "")],
    names: names.all,
    files: files.all,
    mappings: mappings.all,
    kinds: kinds.all,
    unit: tree.unit,
  };
}

/**
 * The tree with everything below `node` replaced by what stands below `root` in `detail`.
 * `null` where the two do not count the same samples, so that a picture never mixes two states of the store.
 */
export function graft(tree: Tree, node: number, detail: Tree, root: number): Tree | null {
  if (tree.total[node] !== detail.total[root] || tree.self[node] !== detail.self[root]) return null;
  const dropped = below(tree, node);
  const kept: number[] = [];
  const place = new Int32Array(tree.size);
  for (let i = 0; i < tree.size; i += 1) if (!dropped[i] || i === node) place[i] = kept.push(i) - 1;
  const added = below(detail, root);
  const taken: number[] = [];
  const into = new Int32Array(detail.size);
  into[root] = place[node]!;
  for (let i = root + 1; i < detail.size; i += 1) if (added[i]) into[i] = kept.length + taken.push(i) - 1;
  const joined = join(tree, kept, place, detail, taken, into);
  joined.elided[place[node]!] = detail.elided[root]!;
  return joined;
}

/**
 * The tree with a branch added that it had left out: `branch` of `detail` and all below it, under `node`, which
 * leaves out that much less. `null` where `node` does not leave out that much.
 */
export function attach(tree: Tree, node: number, detail: Tree, branch: number): Tree | null {
  const left = tree.elided[node]! - detail.total[branch]!;
  if (left < 0) return null;
  const kept = Array.from({ length: tree.size }, (_, i) => i);
  const added = below(detail, branch);
  const taken: number[] = [];
  const into = new Int32Array(detail.size);
  into[detail.parent[branch]!] = node;
  for (let i = branch; i < detail.size; i += 1) if (added[i]) into[i] = kept.length + taken.push(i) - 1;
  const joined = join(tree, kept, Int32Array.from(kept), detail, taken, into);
  joined.elided[node] = left;
  return joined;
}

/**
 * The tree with what an answer for one id brings: in the place of that node where the tree has it, else as a new
 * branch at the place where the two paths part. `null` where the answer counts other samples or has no such node.
 */
export function bring(tree: Tree, id: string, detail: Tree): Tree | null {
  const root = find(detail, id);
  if (root < 0) return null;
  const node = find(tree, id);
  if (node >= 0) return graft(tree, node, detail, root);
  const steps = path(detail, root);
  for (let i = steps.length - 2; i >= 0; i -= 1) {
    const common = find(tree, detail.id[steps[i]!] ?? "");
    if (common >= 0) return attach(tree, common, detail, steps[i + 1]!);
  }
  return null;
}
