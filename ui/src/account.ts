// The sum behind the accounting: every sample taken is idle, stored, in flight or dropped, and nothing is left over.

import type { Account } from "./api";

export interface Sum {
  taken: number;
  idle: number;
  stored: number;
  inFlight: number;
  dropped: number;
  /** taken − idle − stored − in flight − dropped: a check, and it should be 0. */
  residual: number;
  missedSure: number;
  missedPerhaps: number;
  complete: number;
  /** stored − complete − Σ incomplete: a check as well. */
  unexplained: number;
}

function total(parts: Record<string, number>): number {
  return Object.values(parts).reduce((sum, n) => sum + n, 0);
}

/** Adds up the accounts of one or many agent instances. */
export function sum(accounts: readonly Account[]): Sum {
  const out: Sum = {
    taken: 0,
    idle: 0,
    stored: 0,
    inFlight: 0,
    dropped: 0,
    residual: 0,
    missedSure: 0,
    missedPerhaps: 0,
    complete: 0,
    unexplained: 0,
  };
  for (const a of accounts) {
    const inFlight = total(a.in_flight);
    const dropped = total(a.dropped);
    out.taken += a.taken;
    out.idle += a.idle;
    out.stored += a.stored;
    out.inFlight += inFlight;
    out.dropped += dropped;
    // Absolute, so that errors of two instances can never cancel each other out.
    out.residual += Math.abs(a.taken - a.idle - a.stored - inFlight - dropped);
    out.missedSure += a.missed.sure;
    out.missedPerhaps += a.missed.perhaps_idle;
    out.complete += a.complete;
    out.unexplained += Math.abs(a.stored - a.complete - total(a.incomplete));
  }
  return out;
}
