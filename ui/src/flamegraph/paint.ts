// Draws the visible part of a flame graph. Its cost follows the pixels, not the nodes: whatever is narrower than
// half a pixel is skipped by binary search and shown as dust.

import { NEUTRAL, frame, inks } from "./colours";
import { childrenEnd, firstBeyond, rows, type Layout } from "./layout";
import { fit } from "./names";
import type { Found } from "./search";
import type { Tree } from "./tree";

export const ROW = 20;
const FONT = '11px ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace';
const NARROWEST = 0.5;
const TEXT_FROM = 30;

export interface Scene {
  tree: Tree;
  layout: Layout;
  found: Found | null;
  /** Visible range, in samples. */
  from: number;
  until: number;
  /** Pixels scrolled down. */
  scroll: number;
  /** Size in CSS pixels. */
  width: number;
  height: number;
  dark: boolean;
  /** Places, -1 for none. */
  hover: number;
  selected: number;
  /** Row of the frame that fills the width; rows above it are drawn pale. */
  zoomRow: number;
}

/** Keeps what is expensive between pictures: the colour of each frame, the width of a letter, the stripes. */
export class Painter {
  private colour: string[] = [];
  private colourOf: Tree | null = null;
  private colourDark = false;
  private letter = 0;
  private stripes: CanvasPattern | null = null;
  private stripesDark: boolean | null = null;

  constructor(private readonly context: CanvasRenderingContext2D) {}

  /** Draws the scene and says how many frames it drew. */
  paint(scene: Scene, ratio: number): number {
    const { context } = this;
    const { layout, tree, width, height, dark } = scene;
    const ink = inks(dark);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (tree.size === 0 || scene.until <= scene.from) return 0;
    context.font = FONT;
    context.textBaseline = "middle";
    this.letter ||= context.measureText("M".repeat(64)).width / 64;
    if (this.colourOf !== tree || this.colourDark !== dark) {
      this.colour = new Array<string>(tree.size);
      this.colourOf = tree;
      this.colourDark = dark;
    }
    this.makeStripes(dark, ink.stripe);

    const scale = width / (scene.until - scene.from);
    const firstRow = Math.max(0, Math.floor(scene.scroll / ROW) - 1);
    const lastRow = Math.min(rows(layout) - 1, Math.floor((scene.scroll + height) / ROW));
    let drawn = 0;
    for (let row = firstRow; row <= lastRow; row += 1) {
      const y = row * ROW - scene.scroll;
      const high = layout.row[row + 1]!;
      let dustFrom = -1;
      let dustTo = -1;
      let at = firstBeyond(layout, layout.row[row]!, high, scene.from);
      while (at < high && layout.start[at]! < scene.until) {
        const left = Math.max(0, (layout.start[at]! - scene.from) * scale);
        const right = Math.min(width, (layout.end[at]! - scene.from) * scale);
        if (right - left < NARROWEST) {
          if (dustFrom < 0 || left > dustTo + 1) {
            this.dust(dustFrom, dustTo, y, ink.dust);
            dustFrom = left;
          }
          dustTo = Math.max(right, left + NARROWEST);
          at = firstBeyond(layout, at + 1, high, scene.from + (left + NARROWEST) / scale);
          continue;
        }
        this.frame(scene, at, left, right, y, ink);
        drawn += 1;
        at += 1;
      }
      this.dust(dustFrom, dustTo, y, ink.dust);
    }
    return drawn;
  }

  private frame(scene: Scene, place: number, left: number, right: number, y: number, ink: ReturnType<typeof inks>) {
    const { context } = this;
    const { tree, layout, found } = scene;
    const i = layout.node[place]!;
    const kind = tree.kinds[tree.kind[i]!] ?? "";
    const width = right - left;
    const wide = width > 3 ? width - 1 : width;
    const matched = found !== null && found.match[i] === 1;
    const pale = found !== null && found.covered[i] === 0;
    context.fillStyle = matched ? ink.found : pale ? ink.dim : this.colourFor(tree, i, kind, scene.dark);
    context.fillRect(left, y, wide, ROW - 1);
    if (kind === "marker" && this.stripes) {
      context.fillStyle = this.stripes;
      context.fillRect(left, y, wide, ROW - 1);
    }
    if (wide >= TEXT_FROM) {
      const text = fit(tree.names[tree.name[i]!] ?? "", Math.floor((wide - 8) / this.letter));
      if (text !== "") {
        context.fillStyle = pale && !matched ? ink.dimText : ink.text;
        context.globalAlpha = layout.depth[place]! < scene.zoomRow ? 0.62 : 1;
        context.fillText(text, left + 4, y + ROW / 2);
        context.globalAlpha = 1;
      }
    }
    const missing = tree.elided[i]!;
    if (missing > 0) this.missing(scene, place, missing, y + ROW, ink.back);
  }

  /** What the server left out below a frame, hatched. */
  private missing(scene: Scene, place: number, samples: number, y: number, back: string): void {
    const scale = scene.width / (scene.until - scene.from);
    const start = childrenEnd(scene.layout, place);
    const left = Math.max(0, (start - scene.from) * scale);
    const right = Math.min(scene.width, (start + samples - scene.from) * scale);
    if (right - left < NARROWEST) return;
    const wide = right - left > 3 ? right - left - 1 : right - left;
    this.context.fillStyle = back;
    this.context.fillRect(left, y, wide, ROW - 1);
    if (this.stripes) {
      this.context.fillStyle = this.stripes;
      this.context.fillRect(left, y, wide, ROW - 1);
    }
  }

  private colourFor(tree: Tree, i: number, kind: string, dark: boolean): string {
    let colour = this.colour[i];
    if (colour === undefined) {
      colour = frame(kind, tree.names[tree.name[i]!] ?? "", tree.mappings[tree.mapping[i]!] ?? "", dark);
      this.colour[i] = colour;
    }
    return colour;
  }

  private dust(from: number, to: number, y: number, colour: string): void {
    if (from < 0) return;
    this.context.fillStyle = colour;
    this.context.fillRect(from, y, to - from, ROW - 1);
  }

  private makeStripes(dark: boolean, colour: string): void {
    if (this.stripesDark === dark) return;
    this.stripesDark = dark;
    const tile = new OffscreenCanvas(6, 6);
    const pen = tile.getContext("2d");
    if (!pen) return;
    pen.strokeStyle = colour;
    pen.lineWidth = 1.2;
    pen.beginPath();
    for (const shift of [-6, 0, 6]) {
      pen.moveTo(shift, 6);
      pen.lineTo(shift + 6, 0);
    }
    pen.stroke();
    this.stripes = this.context.createPattern(tile, "repeat");
  }
}

/** Draws what follows the pointer and the keyboard, on a canvas above the picture, so that moving redraws no frame. */
export function paintMarks(context: CanvasRenderingContext2D, scene: Scene, ratio: number): void {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, scene.width, scene.height);
  if (scene.until <= scene.from) return;
  const scale = scene.width / (scene.until - scene.from);
  const mark = (place: number, weight: number, fill: string | null) => {
    if (place < 0 || place >= scene.layout.start.length) return;
    const left = Math.max(0, (scene.layout.start[place]! - scene.from) * scale);
    const right = Math.min(scene.width, (scene.layout.end[place]! - scene.from) * scale);
    // Outside the picture; a frame too narrow to see is still marked, so that the keyboard does not get lost.
    if (right < 0 || left > scene.width) return;
    const y = scene.layout.depth[place]! * ROW - scene.scroll;
    if (fill) {
      context.fillStyle = fill;
      context.fillRect(left, y, right - left, ROW - 1);
    }
    context.strokeStyle = inks(scene.dark).line;
    context.lineWidth = weight;
    const wide = Math.max(2, right - left - 1 - weight);
    context.strokeRect(left + weight / 2, y + weight / 2, wide, ROW - 1 - weight);
  };
  mark(scene.hover, 1, scene.dark ? "rgba(255,255,255,0.12)" : "rgba(255,255,255,0.35)");
  mark(scene.selected, 2, null);
}

/** Whether a kind is code, so that it belongs into the legend. */
export function isCode(kind: string): boolean {
  return !NEUTRAL.has(kind) || kind === "marker";
}
