// Times as the API takes them: RFC 3339, Unix seconds, or `now` with an offset.

const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** A time as the server writes it, in Unix seconds. `NaN` where it is none. */
export function unix(time: string | number): number {
  if (typeof time === "number") return time;
  if (/^-?\d+(\.\d+)?$/.test(time)) return Number(time);
  return Date.parse(time) / 1000;
}

/** The seconds that `now` or `now-15m` lies back, or `null` where the time is absolute. */
export function offset(time: string): number | null {
  const match = /^now(?:-(\d+)([smhdw]))?$/.exec(time.trim());
  if (!match) return null;
  return match[1] === undefined ? 0 : Number(match[1]) * (UNIT_SECONDS[match[2] ?? "s"] ?? 1);
}

/** Any time the API understands, in Unix seconds as of `now` (Unix seconds). */
export function resolve(time: string, now: number): number {
  const back = offset(time);
  return back === null ? unix(time.trim()) : now - back;
}

/** Unix seconds as RFC 3339 in UTC, milliseconds only where there are some. */
export function rfc3339(seconds: number): string {
  return new Date(Math.round(seconds * 1000)).toISOString().replace(".000Z", "Z");
}

const DAY: Intl.DateTimeFormatOptions = { month: "short", day: "numeric" };
const CLOCK: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

/** A time on an axis, with no more than the distance between ticks needs. */
export function tick(seconds: number, step: number): string {
  const date = new Date(seconds * 1000);
  if (step >= 86400) return date.toLocaleDateString("en-GB", DAY);
  if (date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0)
    return date.toLocaleDateString("en-GB", DAY);
  return date.toLocaleTimeString("en-GB", step < 60 ? { ...CLOCK, second: "2-digit" } : CLOCK);
}

/** Date and time to the second, in the browser's time zone. */
export function moment(seconds: number): string {
  const date = new Date(seconds * 1000);
  return `${date.toLocaleDateString("en-GB", DAY)} ${date.toLocaleTimeString("en-GB", { ...CLOCK, second: "2-digit" })}`;
}

/** Time of day to the second, in the browser's time zone. */
export function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB", { ...CLOCK, second: "2-digit" });
}

/** The shortest round `now-…` that reaches back over a number of seconds. */
export function since(seconds: number): string {
  const round = [60, 120, 300, 600, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800];
  const back = round.find((candidate) => candidate >= seconds) ?? Math.ceil(seconds / 86400) * 86400;
  if (back % 86400 === 0) return `now-${back / 86400}d`;
  return back % 3600 === 0 ? `now-${back / 3600}h` : `now-${back / 60}m`;
}

/** Value of a `datetime-local` field for a time, in the browser's time zone. */
export function local(seconds: number): string {
  const date = new Date(seconds * 1000);
  const shifted = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 19);
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** The finest round step (seconds) that makes at most `most` buckets of a span. */
export function step(span: number, most: number): number {
  const least = span / Math.max(1, most);
  return STEPS.find((candidate) => candidate >= least) ?? Math.ceil(least / 86400) * 86400;
}
