// Numbers as people read them. A percentage never claims all or nothing unless it is exactly that.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** `1,234,567` */
export function count(n: number): string {
  return whole.format(n);
}

/** Three significant digits, plain: `0.0123`, `1.23`, `12.3`, `1,234`. */
export function significant(n: number): string {
  if (n === 0) return "0";
  const size = Math.abs(n);
  if (size >= 99.95) return whole.format(n);
  if (size >= 9.995) return n.toFixed(1);
  if (size >= 0.9995) return n.toFixed(2);
  if (size >= 0.0009995) return n.toPrecision(size >= 0.09995 ? 3 : 2);
  return n.toExponential(1);
}

/** A duration: `1.20 ms`, `42.0 s`, `51.3 min`, `14.2 h`, `3.10 d`. */
export function duration(seconds: number): string {
  const size = Math.abs(seconds);
  if (size === 0) return "0 s";
  if (size < 0.9995e-3) return `${significant(seconds * 1e6)} µs`;
  if (size < 0.9995) return `${significant(seconds * 1e3)} ms`;
  if (size < 119.5) return `${significant(seconds)} s`;
  if (size < 7170) return `${significant(seconds / 60)} min`;
  if (size < 172000) return `${significant(seconds / 3600)} h`;
  return `${significant(seconds / 86400)} d`;
}

/** `1.50 MiB` */
export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  let size = n;
  while (Math.abs(size) >= 1023.5 && at < units.length - 1) {
    size /= 1024;
    at += 1;
  }
  return `${at === 0 ? whole.format(size) : significant(size)} ${units[at]}`;
}

/** A value in the unit of its sample type. CPU time says so. */
export function value(n: number, unit: string): string {
  if (unit === "seconds") return duration(n);
  if (unit === "bytes") return bytes(n);
  return count(n);
}

/** `12.34 %`. Only exactly nothing is `0 %` and exactly all is `100 %`. */
export function percent(part: number, all: number): string {
  if (all <= 0 || part <= 0) return "0 %";
  if (part >= all) return "100 %";
  const share = (part / all) * 100;
  if (share < 0.01) return "< 0.01 %";
  if (share > 99.99) return "> 99.99 %";
  return `${share.toFixed(2)} %`;
}

/** Average CPUs kept busy: `0.42 cores`, `1.00 core`. */
export function cores(n: number): string {
  const text = significant(n);
  return `${text} ${text === "1.00" ? "core" : "cores"}`;
}

/** How long ago, coarsely: `now`, `12 s ago`, `3 min ago`. */
export function ago(unixSeconds: number, now: number): string {
  const age = now - unixSeconds;
  if (age < 2) return "now";
  if (age < 120) return `${Math.round(age)} s ago`;
  if (age < 7200) return `${Math.round(age / 60)} min ago`;
  if (age < 172800) return `${Math.round(age / 3600)} h ago`;
  return `${Math.round(age / 86400)} d ago`;
}
