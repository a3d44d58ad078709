// Where every frame stands, computed once per tree: drawing and hit tests are then binary searches in a row.

import type { Tree } from "./tree";

/**
 * Places of the nodes in breadth-first order, so that a row is one run of places sorted from left to right.
 * Distances are samples. Children start where their parent starts, the largest first; then comes what was
 * left out, then the parent's own time as free space.
 */
export interface Layout {
  /** Place to node. */
  readonly node: Uint32Array;
  /** Node to place. */
  readonly place: Uint32Array;
  /** Left and right edge by place. */
  readonly start: Float64Array;
  readonly end: Float64Array;
  /** First place of each row, and the end of the last one. */
  readonly row: Uint32Array;
  /** Row by place. */
  readonly depth: Uint16Array;
  /** First child's place and how many there are, by place. */
  readonly child: Uint32Array;
  readonly children: Uint32Array;
}

export function layout(tree: Tree): Layout {
  const { size, parent, total } = tree;
  // Children of each node, side by side.
  const first = new Uint32Array(size + 1);
  for (let i = 1; i < size; i += 1) first[parent[i]! + 1] = first[parent[i]! + 1]! + 1;
  for (let i = 0; i < size; i += 1) first[i + 1] = first[i + 1]! + first[i]!;
  const next = first.slice(0, size);
  const sorted = new Uint32Array(Math.max(0, size - 1));
  for (let i = 1; i < size; i += 1) {
    const at = next[parent[i]!]!;
    sorted[at] = i;
    next[parent[i]!] = at + 1;
  }
  for (let i = 0; i < size; i += 1) sortByTotal(sorted, first[i]!, first[i + 1]!, total);

  const node = new Uint32Array(size);
  const place = new Uint32Array(size);
  const start = new Float64Array(size);
  const end = new Float64Array(size);
  const depth = new Uint16Array(size);
  const child = new Uint32Array(size);
  const children = new Uint32Array(size);
  const rows: number[] = [];
  let filled = size > 0 ? 1 : 0;
  if (size > 0) end[0] = total[0]!;
  for (let at = 0; at < filled; at += 1) {
    const i = node[at]!;
    if (rows.length <= depth[at]!) rows.push(at);
    child[at] = filled;
    children[at] = first[i + 1]! - first[i]!;
    let left = start[at]!;
    for (let c = first[i]!; c < first[i + 1]!; c += 1) {
      const kid = sorted[c]!;
      node[filled] = kid;
      place[kid] = filled;
      start[filled] = left;
      left += total[kid]!;
      end[filled] = left;
      depth[filled] = depth[at]! + 1;
      filled += 1;
    }
  }
  return { node, place, start, end, row: Uint32Array.from([...rows, size]), depth, child, children };
}

/** Sorts a run of siblings, the largest first, equal ones as they came. Most runs are short: insertion is fastest. */
function sortByTotal(nodes: Uint32Array, low: number, high: number, total: Float64Array): void {
  if (high - low > 32) {
    nodes.subarray(low, high).sort((a, b) => total[b]! - total[a]! || a - b);
    return;
  }
  for (let i = low + 1; i < high; i += 1) {
    const node = nodes[i]!;
    const size = total[node]!;
    let at = i;
    for (; at > low && total[nodes[at - 1]!]! < size; at -= 1) nodes[at] = nodes[at - 1]!;
    nodes[at] = node;
  }
}

/** How many rows there are. */
export function rows(of: Layout): number {
  return of.row.length - 1;
}

/** Where the children of a place end, which is where what was left out begins. */
export function childrenEnd(of: Layout, place: number): number {
  const n = of.children[place]!;
  return n === 0 ? of.start[place]! : of.end[of.child[place]! + n - 1]!;
}

/** The first place in `[low, high)` whose right edge is beyond `x`; `high` where there is none. */
export function firstBeyond(of: Layout, low: number, high: number, x: number): number {
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (of.end[middle]! > x) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** The place at a row and a position, -1 where there is free space. */
export function hit(of: Layout, row: number, x: number): number {
  if (row < 0 || row >= rows(of)) return -1;
  const high = of.row[row + 1]!;
  const at = firstBeyond(of, of.row[row]!, high, x);
  return at < high && of.start[at]! <= x ? at : -1;
}

/** The parent's place, -1 for the root. */
export function parentPlace(of: Layout, tree: Tree, place: number): number {
  const parent = tree.parent[of.node[place]!]!;
  return parent < 0 ? -1 : of.place[parent]!;
}
