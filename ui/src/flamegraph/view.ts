// The canvas and what one can do with it: scroll, hover, click, walk by keyboard, zoom in motion.

import { h, style } from "../dom";
import { isDark, onThemeChange } from "../theme";
import { childrenEnd, hit, layout, parentPlace, rows, type Layout } from "./layout";
import { Painter, ROW, paintMarks, type Scene } from "./paint";
import type { Found } from "./search";
import { find, type Tree } from "./tree";

const MOTION_MS = 170;

export interface Handlers {
  /** A node was chosen to fill the width; -1 for the whole picture. */
  zoom(node: number): void;
  /** The pointer is over a node (-1: over none), at a place of the page. */
  hover(node: number, x: number, y: number): void;
  /** The keyboard or a click selected a node, -1 for none. */
  select(node: number): void;
}

export class View {
  readonly element: HTMLElement;
  readonly canvas: HTMLCanvasElement;
  private readonly spacer = h("div", { class: "flame-spacer" });
  private readonly marks = h("canvas", { class: "flame-marks", "aria-hidden": "true" });
  private readonly marksContext: CanvasRenderingContext2D;
  private readonly painter: Painter;
  private tree: Tree | null = null;
  private layout: Layout | null = null;
  private found: Found | null = null;
  private zoomed = 0;
  private zoomedId = "";
  private selected = -1;
  private hover = -1;
  private from = 0;
  private until = 0;
  private motion: { from: number; until: number; toFrom: number; toUntil: number; began: number } | null = null;
  private frame = 0;
  /** Whether the picture itself must be drawn, not only its marks. */
  private dirty = true;
  private pointed = 0;

  constructor(private readonly handlers: Handlers) {
    this.canvas = h("canvas", {
      class: "flame-canvas",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "flame graph",
      "aria-label": "Flame graph",
      "aria-keyshortcuts": "ArrowUp ArrowDown ArrowLeft ArrowRight Enter Escape",
      "aria-describedby": "flame-status",
    });
    this.spacer.append(this.canvas, this.marks);
    this.element = h("div", { class: "flame-scroll" }, this.spacer);
    const context = this.canvas.getContext("2d");
    const marks = this.marks.getContext("2d");
    if (!context || !marks) throw new Error("this browser has no 2d canvas");
    this.painter = new Painter(context);
    this.marksContext = marks;

    this.element.addEventListener("scroll", () => this.draw(), { passive: true });
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerleave", () => this.leave());
    this.canvas.addEventListener("click", (event) => this.click(event));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.draw(true));
    new ResizeObserver(() => this.draw()).observe(this.element);
    onThemeChange(() => this.draw());
  }

  /** Shows a tree, with the node of an id filling the width. Keeps the selection where it still exists. */
  show(tree: Tree, zoom: string): void {
    const selected = this.selectedNode();
    const id = selected >= 0 && this.tree ? (this.tree.id[selected] ?? "") : "";
    this.tree = tree;
    this.layout = layout(tree);
    this.found = null;
    this.hover = -1;
    const again = find(tree, id);
    this.selected = again < 0 ? -1 : this.layout.place[again]!;
    style(this.spacer, { height: `${rows(this.layout) * ROW + ROW}px` });
    this.canvas.dataset["nodes"] = String(tree.size);
    this.canvas.dataset["rows"] = String(rows(this.layout));
    this.zoomTo(Math.max(0, find(tree, zoom)), false);
  }

  /** Highlights a search; `null` for none. */
  highlight(found: Found | null): void {
    this.found = found;
    this.draw();
  }

  /** Lets a node fill the width. */
  zoomTo(node: number, moving = true): void {
    const { layout: at } = this;
    if (!at || at.start.length === 0) return this.draw();
    const place = at.place[node] ?? 0;
    const id = this.tree?.id[node] ?? "";
    const same = id === this.zoomedId;
    if (same && moving && place === this.zoomed) return;
    this.zoomed = place;
    this.zoomedId = id;
    const toFrom = at.start[place]!;
    const toUntil = at.end[place]!;
    if (moving && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.motion = { from: this.from, until: this.until, toFrom, toUntil, began: performance.now() };
    } else {
      this.motion = null;
      this.from = toFrom;
      this.until = toUntil;
    }
    const top = at.depth[place]! * ROW;
    const { scrollTop, clientHeight } = this.element;
    if (same) return this.draw();
    if (top < scrollTop || top > scrollTop + clientHeight * 0.4) this.element.scrollTop = Math.max(0, top - 3 * ROW);
    this.draw();
  }

  /** Node that is selected, -1 for none. */
  selectedNode(): number {
    return this.selected < 0 || !this.layout ? -1 : this.layout.node[this.selected]!;
  }

  select(node: number): void {
    this.selected = node < 0 || !this.layout ? -1 : this.layout.place[node]!;
    this.handlers.select(node);
    this.draw(true);
  }

  /** Whether someone points at the picture right now, so that it should not change under the pointer. */
  busy(): boolean {
    return this.hover >= 0 && performance.now() - this.pointed < 20_000;
  }

  /** Draws with the next picture of the screen; `marksOnly` where just pointer or selection moved. */
  draw(marksOnly = false): void {
    this.dirty ||= !marksOnly;
    this.frame ||= requestAnimationFrame((now) => {
      this.frame = 0;
      this.render(now);
    });
  }

  private render(now: number): void {
    const { tree, layout: at, element, canvas } = this;
    const width = element.clientWidth;
    const height = element.clientHeight;
    if (!tree || !at || width === 0 || height === 0) return;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      style(canvas, { width: `${width}px`, height: `${height}px` });
      this.marks.width = canvas.width;
      this.marks.height = canvas.height;
      style(this.marks, { width: `${width}px`, height: `${height}px`, "margin-top": `-${height}px` });
      this.dirty = true;
    }
    if (this.motion) {
      const { from, until, toFrom, toUntil, began } = this.motion;
      const passed = Math.min(1, Math.max(0, (now - began) / MOTION_MS));
      const eased = 1 - (1 - passed) ** 3;
      this.from = from + (toFrom - from) * eased;
      this.until = until + (toUntil - until) * eased;
      if (passed >= 1) this.motion = null;
      else this.draw();
    }
    const scene: Scene = {
      tree,
      layout: at,
      found: this.found,
      from: this.from,
      until: this.until,
      scroll: element.scrollTop,
      width,
      height,
      dark: isDark(),
      hover: this.hover,
      selected: this.selected,
      zoomRow: at.depth[this.zoomed] ?? 0,
    };
    if (this.dirty) canvas.dataset["drawn"] = String(this.painter.paint(scene, ratio));
    this.dirty = this.motion !== null;
    paintMarks(this.marksContext, scene, ratio);
  }

  private placeAt(event: PointerEvent | MouseEvent): number {
    if (!this.layout || this.until <= this.from) return -1;
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top + this.element.scrollTop) / ROW);
    const x = this.from + ((event.clientX - box.left) / box.width) * (this.until - this.from);
    const place = hit(this.layout, row, x);
    if (place >= 0 || !this.tree) return place;
    // The hatched part stands for what was left out below the frame above it.
    const above = hit(this.layout, row - 1, x);
    const missing = above < 0 ? 0 : this.tree.elided[this.layout.node[above]!]!;
    return missing > 0 && x < childrenEnd(this.layout, above) + missing ? above : -1;
  }

  private move(event: PointerEvent): void {
    const place = this.placeAt(event);
    this.pointed = performance.now();
    this.canvas.classList.toggle("over-frame", place >= 0);
    if (place !== this.hover) {
      this.hover = place;
      this.draw(true);
    }
    this.handlers.hover(place < 0 ? -1 : this.layout!.node[place]!, event.clientX, event.clientY);
  }

  private leave(): void {
    this.hover = -1;
    this.handlers.hover(-1, 0, 0);
    this.draw(true);
  }

  private click(event: MouseEvent): void {
    const place = this.placeAt(event);
    if (place < 0 || !this.layout) return;
    const node = this.layout.node[place]!;
    this.select(node);
    // A second click on what already fills the width leads back to its parent.
    const target = place === this.zoomed && this.tree ? this.tree.parent[node]! : node;
    this.handlers.zoom(target <= 0 ? -1 : target);
  }

  private key(event: KeyboardEvent): void {
    const { layout: at, tree } = this;
    if (!at || !tree || tree.size === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const here = this.selected;
    let next = here;
    if (event.key === "ArrowDown") next = here < 0 ? this.zoomed : at.children[here]! > 0 ? at.child[here]! : here;
    else if (event.key === "ArrowUp") next = here < 0 ? this.zoomed : Math.max(0, parentPlace(at, tree, here));
    else if (event.key === "ArrowRight") next = this.beside(here, 1);
    else if (event.key === "ArrowLeft") next = this.beside(here, -1);
    else if (event.key === "Home") next = 0;
    else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const node = this.selectedNode();
      if (node >= 0) this.handlers.zoom(node === 0 ? -1 : node);
      return;
    } else return;
    event.preventDefault();
    if (next < 0) next = this.zoomed;
    this.select(at.node[next]!);
    this.reveal(next);
  }

  /** The neighbour in the same row. */
  private beside(place: number, by: number): number {
    const at = this.layout!;
    if (place < 0) return this.zoomed;
    const next = place + by;
    const row = at.depth[place]!;
    return next < at.row[row]! || next >= at.row[row + 1]! ? place : next;
  }

  /** Scrolls to a place, and zooms out where it is outside the picture. */
  private reveal(place: number): void {
    const at = this.layout!;
    const top = at.depth[place]! * ROW;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + 2 * ROW > scrollTop + clientHeight) this.element.scrollTop = top + 2 * ROW - clientHeight;
    const zoom = this.zoomed;
    if (at.start[place]! < at.start[zoom]! || at.end[place]! > at.end[zoom]!) {
      let up = zoom;
      while (up > 0 && (at.start[place]! < at.start[up]! || at.end[place]! > at.end[up]!))
        up = parentPlace(at, this.tree!, up);
      this.handlers.zoom(up <= 0 ? -1 : at.node[up]!);
    }
  }
}
