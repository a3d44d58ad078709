// Search by name, with a share that counts every sample once however often the name stands in its stack.

import type { Tree } from "./tree";

export interface Found {
  /** 1 for nodes whose name matches. */
  readonly match: Uint8Array;
  /** 1 for nodes at or below a match. */
  readonly covered: Uint8Array;
  /** Number of matching nodes. */
  readonly nodes: number;
  /** Samples and value at or below the outermost matches: exact, each sample once. */
  readonly samples: number;
  readonly value: number;
  /** Samples left out elsewhere, in which the search cannot look. */
  readonly hidden: number;
}

/**
 * A test for names: part of the name, case ignored; the whole name where the text is in double quotes; or a regular
 * expression. `null` for no text, an `Error` for a broken expression.
 */
export function matcher(text: string, regex: boolean): ((name: string) => boolean) | null | Error {
  if (text === "") return null;
  if (regex) {
    try {
      const expression = new RegExp(text, "i");
      return (name) => expression.test(name);
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }
  if (text.length > 2 && text.startsWith('"') && text.endsWith('"')) {
    const exact = text.slice(1, -1);
    return (name) => name === exact;
  }
  const lower = text.toLowerCase();
  return (name) => name.toLowerCase().includes(lower);
}

/** Searches the nodes below the root. Every name is tested once, however many nodes carry it. */
export function search(tree: Tree, test: (name: string) => boolean): Found {
  const named = Uint8Array.from(tree.names, (name) => (test(name) ? 1 : 0));
  const match = new Uint8Array(tree.size);
  const covered = new Uint8Array(tree.size);
  let nodes = 0;
  let samples = 0;
  let value = 0;
  let hidden = tree.elided[0] ?? 0;
  for (let i = 1; i < tree.size; i += 1) {
    const above = covered[tree.parent[i]!]!;
    const hit = named[tree.name[i]!]!;
    if (hit) {
      match[i] = 1;
      nodes += 1;
      if (!above) {
        samples += tree.total[i]!;
        value += tree.totalValue[i]!;
      }
    }
    covered[i] = above | hit;
    if (!covered[i]) hidden += tree.elided[i]!;
  }
  return { match, covered, nodes, samples, value, hidden };
}
