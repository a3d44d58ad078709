// Sums over time and over agents.

import { describe, expect, it } from "vitest";
import { sum } from "../src/account";
import type { Account } from "../src/api";
import { axis, chart, mark, peak } from "../src/buckets";

describe("chart", () => {
  const made = chart({
    from: 105,
    until: "1970-01-01T00:02:10Z",
    resolution_s: 1,
    step_s: 10,
    series: [
      { value: "", rest: true, points: [[110, 4, 0.2]] },
      { value: "b", rest: false, points: [[120, 40, 2]] },
      {
        value: "a",
        rest: false,
        points: [
          [100, 20, 1],
          [110, 100, 5],
        ],
      },
    ],
  });

  it("divides each bucket by the part of it that the range covers", () => {
    expect([...made.time]).toEqual([100, 110, 120]);
    expect([...made.lines[0]!.rate]).toEqual([0.2, 0.5, 0]);
  });

  it("puts the largest first and the rest last, and adds up exactly", () => {
    expect(made.lines.map(({ label, rest }) => [label, rest])).toEqual([
      ["a", false],
      ["b", false],
      ["", true],
    ]);
    expect([made.samples, made.value]).toEqual([164, 8.2]);
  });

  it("does not let a sliver of a bucket set the scale", () => {
    const edge = chart({
      from: 109.9,
      until: 140,
      resolution_s: 1,
      step_s: 10,
      series: [
        {
          value: "a",
          rest: false,
          points: [
            [100, 20, 1],
            [110, 20, 1],
          ],
        },
      ],
    });
    expect(edge.lines[0]!.rate[0]).toBeCloseTo(10);
    expect(peak(edge)).toBeCloseTo(0.1);
  });

  it("marks the axis with round numbers", () => {
    expect(axis(1.7, 4)).toEqual([0, 0.5, 1, 1.5]);
    expect(axis(2.02, 4)).toEqual([0, 1, 2]);
    expect([mark(0.5, 0.5), mark(2, 0.5), mark(0.25, 0.25), mark(10, 5), mark(0.02, 0.02)]).toEqual([
      "0.5",
      "2.0",
      "0.25",
      "10",
      "0.02",
    ]);
    expect(axis(0, 4)).toEqual([0]);
    expect(axis(90, 3)).toEqual([0, 50]);
  });
});

describe("account", () => {
  const account: Account = {
    node: "n",
    instance: "i",
    since: 0,
    taken: 1000,
    idle: 600,
    stored: 380,
    in_flight: { ring: 5, spool: 10 },
    dropped: { ring_full: 5 },
    missed: { sure: 1, perhaps_idle: 2 },
    complete: 370,
    incomplete: { no_unwind_info: 10 },
  };

  it("leaves nothing over where everything is counted", () => {
    expect(sum([account])).toMatchObject({ residual: 0, unexplained: 0, inFlight: 15, dropped: 5 });
  });

  it("does not let errors of two agents cancel each other", () => {
    const more = { ...account, taken: 1001 };
    const less = { ...account, taken: 999 };
    expect(sum([more, less]).residual).toBe(2);
    expect(sum([{ ...account, complete: 369 }]).unexplained).toBe(1);
  });
});
