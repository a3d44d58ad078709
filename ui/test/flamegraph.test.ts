// The flame graph's arithmetic on trees small enough to add up by hand.

import { describe, expect, it } from "vitest";
import { bring } from "../src/flamegraph/graft";
import { childrenEnd, hit, layout, parentPlace, rows } from "../src/flamegraph/layout";
import { fit, plain } from "../src/flamegraph/names";
import { matcher, search } from "../src/flamegraph/search";
import { elidedBelow, find, path, type Tree } from "../src/flamegraph/tree";
import { SMALL, tree } from "./trees";

const test = (text: string, regex = false) => {
  const found = matcher(text, regex);
  if (typeof found !== "function") throw new Error("no matcher");
  return found;
};

describe("layout", () => {
  const t = tree(SMALL);
  const at = layout(t);

  it("puts the children below their parent, the largest first", () => {
    const span = (node: number) => [at.depth[at.place[node]!], at.start[at.place[node]!], at.end[at.place[node]!]];
    expect(span(0)).toEqual([0, 0, 100]);
    expect(span(1)).toEqual([1, 0, 60]);
    expect(span(5)).toEqual([1, 60, 90]);
    expect(span(2)).toEqual([2, 0, 40]);
    expect(span(4)).toEqual([2, 40, 55]);
    expect(span(3)).toEqual([3, 0, 10]);
  });

  it("makes each row one sorted run of places", () => {
    expect([...at.row]).toEqual([0, 1, 3, 5, 6]);
    expect(rows(at)).toBe(4);
  });

  it("finds what stands at a position, and nothing in free space", () => {
    const node = (row: number, x: number) => {
      const place = hit(at, row, x);
      return place < 0 ? -1 : at.node[place];
    };
    expect(node(1, 59.9)).toBe(1);
    expect(node(1, 60)).toBe(5);
    expect(node(1, 95)).toBe(-1);
    expect(node(2, 54)).toBe(4);
    expect(node(2, 57)).toBe(-1);
    expect(node(9, 0)).toBe(-1);
  });

  it("knows parents and where the children end", () => {
    expect(at.node[parentPlace(at, t, at.place[3]!)]).toBe(2);
    expect(parentPlace(at, t, 0)).toBe(-1);
    expect(childrenEnd(at, at.place[1]!)).toBe(55);
    expect(childrenEnd(at, at.place[5]!)).toBe(60);
  });

  it("takes a root alone and nothing at all", () => {
    expect(rows(layout(tree([[-1, "total", 0]])))).toBe(1);
    expect(rows(layout(tree([])))).toBe(0);
  });
});

describe("search", () => {
  it("counts each sample once, however often the name stands in its stack", () => {
    const found = search(tree(SMALL), test("a"));
    expect([found.samples, found.nodes, found.value]).toEqual([60, 2, 3]);
  });

  it("adds up the outermost matches", () => {
    expect(search(tree(SMALL), test("b")).samples).toBe(70);
    expect(search(tree(SMALL), test("^[bc]$", true)).samples).toBe(85);
  });

  it("never matches the root, whose name is no function", () => {
    expect(search(tree(SMALL), test("total")).samples).toBe(0);
  });

  it("says how many samples it cannot look into", () => {
    expect(search(tree(SMALL), test("c")).hidden).toBe(5);
    expect(search(tree(SMALL), test("b")).hidden).toBe(0);
  });

  it("marks matches and what lies below them", () => {
    const found = search(tree(SMALL), test("b"));
    expect([...found.match]).toEqual([0, 0, 1, 0, 0, 1]);
    expect([...found.covered]).toEqual([0, 0, 1, 1, 0, 1]);
  });

  it("understands plain text, whole names and expressions", () => {
    expect(test("ENVOY")("envoy+0x1")).toBe(true);
    expect(test("operator()(")("x::operator()(int)")).toBe(true);
    expect(test('"read"')("read")).toBe(true);
    expect(test('"read"')("pread")).toBe(false);
    expect(test("^p?read$", true)("Pread")).toBe(true);
    expect(matcher("", false)).toBeNull();
    expect(matcher("(", true)).toBeInstanceOf(Error);
  });
});

describe("tree", () => {
  it("sums what is left out below each node", () => {
    expect([...elidedBelow(tree(SMALL))]).toEqual([5, 0, 0, 0, 0, 5]);
  });

  it("finds nodes by id and their path", () => {
    const t = tree(SMALL);
    expect(find(t, "n3")).toBe(3);
    expect(find(t, "")).toBe(-1);
    expect(path(t, 3)).toEqual([0, 1, 2, 3]);
  });
});

describe("what is fetched on zoom", () => {
  const coarse = tree(SMALL);
  const adds = (t: Tree) => {
    for (let i = 0; i < t.size; i += 1) {
      let sum = t.self[i]! + t.elided[i]!;
      for (let j = 0; j < t.size; j += 1) if (t.parent[j] === i) sum += t.total[j]!;
      expect(sum).toBe(t.total[i]);
      expect(t.parent[i]!).toBeLessThan(i);
    }
  };
  const names = (t: Tree, node: number) => path(t, node).map((n) => t.names[t.name[n]!]);

  it("takes the place of the coarse part and keeps every sum", () => {
    const detail = tree([
      [-1, "total", 0, 0, "n0"],
      [0, "b", 25, 0, "n5"],
      [1, "new", 2, 0, "x1"],
      [2, "a", 3, 0, "x2"],
    ]);
    const done = bring(coarse, "n5", detail)!;
    expect(done.size).toBe(8);
    expect([...done.elided].every((n) => n === 0)).toBe(true);
    expect(names(done, find(done, "x2"))).toEqual(["total", "b", "new", "a"]);
    adds(done);
  });

  it("becomes a new branch where the coarse tree had left the node out", () => {
    const detail = tree([
      [-1, "total", 0, 0, "n0"],
      [0, "b", 0, 0, "n5"],
      [1, "new", 1, 0, "x1"],
      [2, "deep", 2, 1, "x2"],
    ]);
    const done = bring(coarse, "x2", detail)!;
    expect(done.size).toBe(8);
    expect(done.elided[find(done, "n5")]).toBe(1);
    expect(done.elided[find(done, "x2")]).toBe(1);
    expect(names(done, find(done, "x2"))).toEqual(["total", "b", "new", "deep"]);
    adds(done);
  });

  it("is refused where it counts other samples, or more than was left out", () => {
    const other = tree([
      [-1, "total", 0, 0, "n0"],
      [0, "b", 26, 5, "n5"],
    ]);
    expect(bring(coarse, "n5", other)).toBeNull();
    const more = tree([
      [-1, "total", 0, 0, "n0"],
      [0, "b", 0, 0, "n5"],
      [1, "new", 6, 0, "x1"],
    ]);
    expect(bring(coarse, "x1", more)).toBeNull();
    expect(bring(coarse, "unknown", more)).toBeNull();
  });
});

describe("names", () => {
  it("drops parameters and template arguments", () => {
    expect(plain("std::vector<int, std::allocator<int> >::push_back(int const&)")).toBe("std::vector::push_back");
    expect(plain("Foo::operator()(int)")).toBe("Foo::operator()");
    expect(plain("bool operator< <int>(A const&)")).toMatch(/operator</);
    expect(plain("(anonymous namespace)::run(int)")).toBe("(anonymous namespace)::run");
    expect(plain("net/http.(*conn).serve")).toBe("net/http.(*conn).serve");
    expect(plain("[incomplete: depth_limit]")).toBe("[incomplete: depth_limit]");
    expect(plain("<alloc::vec::Vec<T> as core::iter::Extend<T>>::extend")).toBe("alloc::vec::Vec::extend");
    expect(plain("<std::thread::Thread>::new::<u8>")).toBe("std::thread::Thread::new");
    expect(plain("<A<B as C>>::f::<<X as Y>::Z>::{closure#0}")).toBe("A::f::{closure#0}");
    expect(plain("<module>")).toBe("<module>");
    expect(plain("std::rt::run::<(), T>")).toBe("std::rt::run");
  });

  it("shows the end of a path where there is little room", () => {
    expect(fit("short", 10)).toBe("short");
    expect(fit("aaaa::bbbb::cccc(int)", 11)).toBe("bbbb::cccc");
    expect(fit("aaaa::bbbb::cccc(int)", 9)).toBe("…bb::cccc");
    expect(fit("aaaa::bbbb::cccc(int)", 6)).toBe("cccc");
    expect(fit("aaaa::bbbb::cccccccc(int)", 5)).toBe("cccc…");
    expect(fit("abc::def", 2)).toBe("");
    expect(fit("aaaa::run::{{closure}}", 9)).toBe("run::{{c…");
  });
});
