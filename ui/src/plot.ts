// Draws the time series on a canvas and turns dragging into a range.

import { axis, mark, peak, type Chart } from "./buckets";
import { h, style } from "./dom";
import { value } from "./format";
import { colour } from "./series";
import { isDark, onThemeChange } from "./theme";
import { local, tick } from "./time";

const LEFT = 44;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 20;
const FONT = '11px system-ui, "Segoe UI", Roboto, sans-serif';
const TICKS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
];

export interface PlotHandlers {
  /** The pointer is over a bucket, -1 for none. */
  hover(bucket: number, x: number, y: number): void;
  /** A range was dragged, in Unix seconds. */
  select(from: number, until: number): void;
}

export class Plot {
  readonly element: HTMLElement;
  private readonly canvas: HTMLCanvasElement;
  private chart: Chart | null = null;
  private unit = "seconds";
  private hover = -1;
  private drag: { from: number; to: number } | null = null;
  private frame = 0;

  constructor(private readonly handlers: PlotHandlers) {
    this.canvas = h("canvas", { class: "plot-canvas", role: "img", "aria-label": "Time series" });
    this.element = h("div", { class: "plot" }, this.canvas);
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerup", (event) => this.up(event));
    this.canvas.addEventListener("pointercancel", () => this.stop());
    this.canvas.addEventListener("pointerleave", () => {
      if (!this.drag) this.over(-1, 0, 0);
    });
    addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Escape" && this.drag) {
          event.stopImmediatePropagation();
          this.stop();
        }
      },
      true,
    );
    new ResizeObserver(() => this.draw()).observe(this.element);
    onThemeChange(() => this.draw());
  }

  show(chart: Chart, unit: string): void {
    this.chart = chart;
    this.unit = unit;
    this.hover = -1;
    this.canvas.setAttribute(
      "aria-label",
      `Time series from ${local(chart.from)} to ${local(chart.until)} in ${chart.time.length} steps of ${chart.step} seconds, ${value(chart.value, unit)} in all`,
    );
    this.draw();
  }

  draw(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  private x(seconds: number, width: number): number {
    const { from, until } = this.chart!;
    return LEFT + ((seconds - from) / (until - from)) * (width - LEFT - RIGHT);
  }

  private timeAt(x: number): number {
    const { from, until } = this.chart!;
    const share = (x - LEFT) / (this.element.clientWidth - LEFT - RIGHT);
    return from + Math.min(1, Math.max(0, share)) * (until - from);
  }

  private render(): void {
    const width = this.element.clientWidth;
    const height = this.element.clientHeight;
    const { canvas, chart } = this;
    if (!chart || width < 100 || height < 40) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    style(canvas, { width: `${width}px`, height: `${height}px` });
    const pen = canvas.getContext("2d");
    if (!pen) return;
    pen.scale(ratio, ratio);
    const dark = isDark();
    const faint = dark ? "#8d8780" : "#837c73";
    const grid = dark ? "rgba(255,255,255,0.07)" : "rgba(0,0,0,0.07)";
    pen.font = FONT;

    const high = peak(chart);
    const marks = axis(high, height < 110 ? 2 : 4);
    const most = high > 0 ? high * 1.04 : 1;
    const step = marks[1] ?? 1;
    const y = (rate: number) => Math.max(TOP, height - BOTTOM - (rate / most) * (height - TOP - BOTTOM));

    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const at of marks) {
      pen.fillStyle = grid;
      pen.fillRect(LEFT, Math.round(y(at)), width - LEFT - RIGHT, 1);
      pen.fillStyle = faint;
      pen.fillText(this.unit === "seconds" ? mark(at, step) : value(at, this.unit), LEFT - 8, y(at));
    }
    this.times(pen, width, height, faint);
    this.areas(pen, chart, width, y, dark);
    this.marks(pen, chart, width, height, dark);
  }

  /** Stacked areas, the largest series at the bottom; each bucket is a step as wide as its time. */
  private areas(
    pen: CanvasRenderingContext2D,
    chart: Chart,
    width: number,
    y: (rate: number) => number,
    dark: boolean,
  ): void {
    const size = chart.time.length;
    const edge = Float64Array.from({ length: size + 1 }, (_, i) => {
      const time = i < size ? chart.time[i]! : chart.time[size - 1]! + chart.step;
      return this.x(Math.min(chart.until, Math.max(chart.from, time)), width);
    });
    const lower = new Float64Array(size);
    chart.lines.forEach((line, rank) => {
      pen.beginPath();
      for (let i = 0; i < size; i += 1) {
        const at = y(lower[i]! + line.rate[i]!);
        pen.lineTo(edge[i]!, at);
        pen.lineTo(edge[i + 1]!, at);
      }
      for (let i = size - 1; i >= 0; i -= 1) {
        pen.lineTo(edge[i + 1]!, y(lower[i]!));
        pen.lineTo(edge[i]!, y(lower[i]!));
        lower[i]! += line.rate[i]!;
      }
      pen.closePath();
      pen.fillStyle = colour(line, rank, dark);
      pen.globalAlpha = 0.9;
      pen.fill();
      pen.globalAlpha = 1;
    });
  }

  private times(pen: CanvasRenderingContext2D, width: number, height: number, colour: string): void {
    const { from, until } = this.chart!;
    const most = Math.max(2, (width - LEFT - RIGHT) / 90);
    const step = TICKS.find((candidate) => (until - from) / candidate <= most) ?? 604800;
    const zone = new Date(from * 1000).getTimezoneOffset() * 60;
    pen.textBaseline = "alphabetic";
    pen.textAlign = "center";
    pen.fillStyle = colour;
    for (let at = Math.ceil((from - zone) / step) * step + zone; at < until; at += step) {
      const x = this.x(at, width);
      if (x < LEFT + 10 || x > width - 24) continue;
      pen.fillText(tick(at, step), x, height - 5);
      pen.fillRect(Math.round(x), height - BOTTOM, 1, 3);
    }
  }

  private marks(pen: CanvasRenderingContext2D, chart: Chart, width: number, height: number, dark: boolean): void {
    if (this.drag) {
      const [from, to] = [Math.min(this.drag.from, this.drag.to), Math.max(this.drag.from, this.drag.to)];
      pen.fillStyle = dark ? "rgba(255,255,255,0.14)" : "rgba(0,0,0,0.10)";
      pen.fillRect(from, TOP, to - from, height - TOP - BOTTOM);
      pen.fillStyle = dark ? "#fff" : "#000";
      pen.fillRect(from, TOP, 1, height - TOP - BOTTOM);
      pen.fillRect(to, TOP, 1, height - TOP - BOTTOM);
    } else if (this.hover >= 0 && this.hover < chart.time.length) {
      const from = this.x(Math.max(chart.from, chart.time[this.hover]!), width);
      const to = this.x(Math.min(chart.until, chart.time[this.hover]! + chart.step), width);
      pen.fillStyle = dark ? "rgba(255,255,255,0.16)" : "rgba(0,0,0,0.10)";
      pen.fillRect(from, TOP, Math.max(1, to - from), height - TOP - BOTTOM);
    }
  }

  private at(event: PointerEvent): number {
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    return Math.min(this.element.clientWidth - RIGHT, Math.max(LEFT, x));
  }

  private down(event: PointerEvent): void {
    if (event.button !== 0 || !this.chart) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { from: this.at(event), to: this.at(event) };
    this.draw();
  }

  private move(event: PointerEvent): void {
    if (!this.chart) return;
    const x = this.at(event);
    if (this.drag) this.drag.to = x;
    const bucket = Math.floor((this.timeAt(x) - this.chart.time[0]!) / this.chart.step);
    this.over(Math.min(bucket, this.chart.time.length - 1), event.clientX, event.clientY);
  }

  private up(event: PointerEvent): void {
    const { drag } = this;
    if (!drag) return;
    drag.to = this.at(event);
    this.stop();
    if (Math.abs(drag.to - drag.from) < 4) return;
    const from = this.timeAt(Math.min(drag.from, drag.to));
    const until = this.timeAt(Math.max(drag.from, drag.to));
    const fine = until - from > 30 ? 1 : 1000;
    this.handlers.select(Math.floor(from * fine) / fine, Math.ceil(until * fine) / fine);
  }

  private stop(): void {
    this.drag = null;
    this.draw();
  }

  private over(bucket: number, x: number, y: number): void {
    this.hover = bucket;
    this.handlers.hover(bucket, x, y);
    this.draw();
  }
}
