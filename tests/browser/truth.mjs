// The same figures by another way: straight from the API, without any of the page's code.

/** The whole tree of a selection, nothing left out. */
export async function allTree(get, selection) {
  const answer = await get("flamegraph", { ...selection, group: "process", max_nodes: "0" });
  if (answer.elided.samples !== 0) throw new Error("max_nodes=0 left something out");
  return answer;
}

/** Samples whose stack has a matching name: for every node, is it or any of its callers a match? Own time only. */
export function share(answer, test) {
  const { parent, name, self } = answer.nodes;
  let samples = 0;
  for (let i = 1; i < parent.length; i += 1) {
    if (self[i] === 0) continue;
    let node = i;
    while (node > 0 && !test(answer.names[name[node]])) node = parent[node];
    if (node > 0) samples += self[i];
  }
  return samples;
}
