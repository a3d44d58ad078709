// Colours of frames: the hue says the kind of code, a small stable shift says which file, and dull says "no name yet".

/** Hue (degrees) and strength of each kind, far enough apart to be told in both themes. */
const KINDS: Record<string, { hue: number; chroma: number; shift: number }> = {
  native: { hue: 52, chroma: 0.12, shift: 20 },
  kernel: { hue: 290, chroma: 0.07, shift: 10 },
  cpython: { hue: 245, chroma: 0.1, shift: 9 },
  jvm: { hue: 150, chroma: 0.1, shift: 9 },
  v8js: { hue: 112, chroma: 0.11, shift: 8 },
  go: { hue: 205, chroma: 0.1, shift: 9 },
  php: { hue: 272, chroma: 0.1, shift: 6 },
  ruby: { hue: 15, chroma: 0.13, shift: 6 },
  perl: { hue: 180, chroma: 0.07, shift: 6 },
  dotnet: { hue: 315, chroma: 0.1, shift: 8 },
  beam: { hue: 345, chroma: 0.1, shift: 8 },
  luajit: { hue: 262, chroma: 0.12, shift: 5 },
};

/** Kinds that are no code: drawn without colour. */
export const NEUTRAL = new Set(["root", "label", "marker"]);

const UNNAMED = /\+0x[0-9a-f]+$/i;

/** A small number from a text, the same on every machine. */
function hash(text: string): number {
  let h = 2166136261;
  for (let i = 0; i < text.length; i += 1) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  return ((h >>> 0) % 1009) / 1008;
}

function tone(hue: number, chroma: number, light: number): string {
  return `oklch(${light.toFixed(3)} ${chroma.toFixed(3)} ${hue.toFixed(1)})`;
}

/** The colour of a frame. Equal for equal kind, name and mapping. */
export function frame(kind: string, name: string, mapping: string, dark: boolean): string {
  if (NEUTRAL.has(kind)) return neutral(kind, dark);
  const base = KINDS[kind] ?? { hue: 360 * hash(kind), chroma: 0.06, shift: 6 };
  const hue = base.hue + (hash(mapping) * 2 - 1) * base.shift;
  const chroma = UNNAMED.test(name) ? base.chroma * 0.5 : base.chroma;
  const light = (dark ? 0.5 : 0.815) + (hash(name) - 0.5) * (dark ? 0.08 : 0.07);
  return tone(hue, dark ? chroma * 0.92 : chroma, light);
}

function neutral(kind: string, dark: boolean): string {
  if (kind === "root") return dark ? "oklch(0.34 0.006 60)" : "oklch(0.88 0.006 60)";
  if (kind === "marker") return dark ? "oklch(0.40 0 0)" : "oklch(0.86 0 0)";
  return dark ? "oklch(0.385 0.008 60)" : "oklch(0.925 0.008 60)";
}

/** The colour a kind has in the legend. */
export function kind(of: string, dark: boolean): string {
  if (NEUTRAL.has(of)) return neutral(of, dark);
  const base = KINDS[of] ?? { hue: 360 * hash(of), chroma: 0.06, shift: 0 };
  return tone(base.hue, dark ? base.chroma * 0.92 : base.chroma, dark ? 0.52 : 0.8);
}

/** Colours that do not depend on the frame. */
export function inks(dark: boolean) {
  return dark
    ? {
        text: "#f3efe9",
        dim: "oklch(0.30 0.004 60)",
        dimText: "#8d8780",
        found: "oklch(0.55 0.20 340)",
        dust: "oklch(0.36 0.02 60)",
        line: "#ffffff",
        stripe: "rgba(255,255,255,0.16)",
        back: "oklch(0.24 0.005 60)",
      }
    : {
        text: "#221c15",
        dim: "oklch(0.945 0.003 60)",
        dimText: "#8b857d",
        found: "oklch(0.74 0.19 340)",
        dust: "oklch(0.87 0.025 60)",
        line: "#1a1511",
        stripe: "rgba(0,0,0,0.17)",
        back: "oklch(0.97 0.003 60)",
      };
}

/** Colours of the series in the chart: distinct neighbours, stable by rank. */
export function series(rank: number, dark: boolean): string {
  const hues = [48, 240, 150, 310, 95, 200, 20, 275, 125, 345];
  const hue = hues[rank % hues.length]!;
  return tone(hue, rank < hues.length ? 0.125 : 0.07, dark ? 0.66 : 0.7);
}
