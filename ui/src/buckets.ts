// Time buckets as rates: what a series answer means on a time axis.

import type { Series } from "./api";
import { unix } from "./time";

export interface Line {
  label: string;
  /** What the limit of the answer left out. */
  rest: boolean;
  /** Sum of the value over the range, in the unit of the type. */
  value: number;
  samples: number;
  /** Value per second (CPU cores for CPU time) of each bucket. */
  rate: Float64Array;
}

export interface Chart {
  from: number;
  until: number;
  step: number;
  /** Starts of the buckets; the first may begin before `from`. */
  time: Float64Array;
  lines: Line[];
  samples: number;
  value: number;
}

/** Lays the answer out on all buckets of its range. Buckets at the edges count for the part the range covers. */
export function chart(answer: Series): Chart {
  const from = unix(answer.from);
  const until = unix(answer.until);
  const step = answer.step_s;
  const first = Math.floor(from / step);
  const size = Math.max(1, Math.ceil(until / step) - first);
  const time = Float64Array.from({ length: size }, (_, i) => (first + i) * step);
  const covered = Float64Array.from(time, (start) => Math.min(until, start + step) - Math.max(from, start));
  const lines = answer.series.map(({ value: label, rest, points }) => {
    const line: Line = { label, rest, value: 0, samples: 0, rate: new Float64Array(size) };
    for (const [start, samples, value] of points) {
      const at = Math.round(start / step) - first;
      if (at < 0 || at >= size) continue;
      line.samples += samples;
      line.value += value;
      line.rate[at] = covered[at]! > 0 ? value / covered[at]! : 0;
    }
    return line;
  });
  lines.sort((a, b) => Number(a.rest) - Number(b.rest) || b.samples - a.samples || (a.label < b.label ? -1 : 1));
  const sum = (of: (line: Line) => number) => lines.reduce((total, line) => total + of(line), 0);
  return { from, until, step, time, lines, samples: sum((l) => l.samples), value: sum((l) => l.value) };
}

/** The highest sum of all lines, left of account buckets of which the range covers less than half: too few samples. */
export function peak(of: Chart): number {
  let most = 0;
  of.time.forEach((start, i) => {
    const covered = Math.min(of.until, start + of.step) - Math.max(of.from, start);
    if (covered < of.step / 2 && of.time.length > 2) return;
    most = Math.max(
      most,
      of.lines.reduce((sum, line) => sum + line.rate[i]!, 0),
    );
  });
  return most;
}

/** A mark of an axis, with as many decimals as the distance between marks needs. */
export function mark(at: number, step: number): string {
  const decimals = step >= 1 ? (Number.isInteger(step) ? 0 : 1) : Math.ceil(-Math.log10(step) - 1e-9);
  const half = step < 1 && Math.round(step * 10 ** (decimals + 1)) % 10 !== 0 ? 1 : 0;
  return at.toFixed(decimals + half);
}

/** Round numbers from 0 to `most`, at most about `ticks` of them. */
export function axis(most: number, ticks: number): number[] {
  if (!(most > 0)) return [0];
  const rough = most / ticks;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((f) => f * power >= rough) ?? 10);
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, i) => i * step);
}
