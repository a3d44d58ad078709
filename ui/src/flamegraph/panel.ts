// The flame graph with its tools: grouping, search, path, legend, tooltip, and fetching what was left out.

import * as api from "../api";
import { fill, h, options, style } from "../dom";
import { count, percent, value } from "../format";
import { Loader } from "../loader";
import { failure, type Notices } from "../notice";
import { narrow } from "../selector";
import type { State, Store } from "../state";
import { isDark, onThemeChange } from "../theme";
import { card, sentence } from "./describe";
import { kind as kindColour } from "./colours";
import { bring } from "./graft";
import { plain } from "./names";
import { isCode } from "./paint";
import { SearchBox } from "./searchbox";
import { elidedBelow, find, fromAnswer, NONE, path, type Tree } from "./tree";
import { View } from "./view";

const GROUPS = [
  ["process", "process"],
  ["service", "service"],
  ["namespace", "namespace"],
  ["pod", "pod"],
  ["node", "node"],
  ["thread", "thread"],
  ["process,thread", "process, thread"],
  ["node,process", "node, process"],
  ["", "nothing"],
] as const;

interface Loaded {
  tree: Tree;
  answer: api.FlameGraph;
  /** Id of the node whose detail the tree has already, empty for none. */
  id: string;
}

export class FlamePanel {
  readonly element: HTMLElement;
  private readonly view: View;
  private readonly searchBox: SearchBox;
  private readonly group = h("select", { "aria-label": "Group the flame graph by" });
  private readonly focusBar = h("div", { class: "focus-bar", hidden: true });
  private readonly crumbs = h("nav", { class: "crumbs", "aria-label": "Path of the zoom" });
  private readonly legend = h("div", { class: "legend", "aria-label": "Colours by kind of code" });
  private readonly whole = h("span", { class: "elided" });
  private readonly status = h("div", { id: "flame-status", class: "status", role: "status", "aria-live": "polite" });
  private readonly actions = h("div", { class: "actions" });
  private readonly tip = h("div", { class: "tip", hidden: true });
  private readonly notice = h("div", { class: "notice-slot" });
  private readonly body: HTMLElement;
  private readonly loader: Loader<Loaded>;
  private readonly detailLoader: Loader<{ detail: Tree; of: Tree; id: string }>;
  private tree: Tree | null = null;
  private below: Float64Array | null = null;
  private answer: api.FlameGraph | null = null;
  private detailed = new Set<string>();
  private mismatches = 0;
  private settle = 0;

  constructor(
    private readonly store: Store,
    private readonly notices: Notices,
    private readonly totals: (answer: api.FlameGraph) => void,
    busy: (under: boolean) => void,
  ) {
    this.view = new View({
      zoom: (node) => this.zoom(node),
      hover: (node, x, y) => this.hover(node, x, y),
      select: (node) => this.describe(node),
    });
    this.searchBox = new SearchBox(store);
    this.group.addEventListener("change", () => store.set({ group: this.group.value, zoom: "" }));
    this.loader = new Loader(
      (loaded) => this.loaded(loaded),
      (error) => this.failed(error),
      busy,
    );
    this.detailLoader = new Loader(
      ({ detail, of, id }) => this.detailLoaded(detail, of, id),
      (error) => this.say(`${error.message}`),
      busy,
    );
    this.body = h("div", { class: "flame-body" }, this.view.element, this.notice);
    this.element = h(
      "section",
      { class: "panel flame", "aria-label": "Flame graph" },
      h(
        "div",
        { class: "tools" },
        h("label", { class: "field" }, h("span", {}, "group by"), this.group),
        this.searchBox.element,
        this.whole,
        this.legend,
      ),
      this.focusBar,
      this.crumbs,
      this.body,
      h("div", { class: "status-bar" }, this.status, this.actions),
      this.tip,
    );
    onThemeChange(() => this.drawLegend());
  }

  show(state: Readonly<State>, tick: number): void {
    options(this.group, GROUPS, state.group);
    this.group.disabled = state.focus !== "";
    this.drawFocus(state);
    this.searchBox.show(state);
    const asked = state.focus === "" ? state : { ...state, group: "" };
    const key = JSON.stringify([api.selectionKey(state), asked.group, state.focus, state.invert, state.nodes, tick]);
    this.loader.load(key, async (signal) => {
      const answer = await api.flameGraph(asked, signal);
      return this.withZoom(fromAnswer(answer), answer, asked, signal);
    });
    if (this.tree) this.applyZoom(true);
    this.find();
  }

  /** Puts the keyboard into the picture. */
  focus(): void {
    this.view.canvas.focus();
  }

  focusSearch(): void {
    this.searchBox.focus();
  }

  busy(): boolean {
    return this.view.busy();
  }

  /** A whole answer, with the part that the address zooms into where that was left out: one picture, not two. */
  private async withZoom(tree: Tree, answer: api.FlameGraph, asked: State, signal: AbortSignal): Promise<Loaded> {
    const id = this.store.state.zoom;
    const node = find(tree, id);
    if (id === "" || answer.samples === 0 || (node >= 0 && elidedBelow(tree)[node] === 0))
      return { tree, answer, id: "" };
    const range = { from: String(answer.from), until: String(answer.until) };
    const grown = bring(tree, id, fromAnswer(await api.flameGraph({ ...asked, ...range }, signal, id)));
    return grown ? { tree: grown, answer, id } : { tree, answer, id: "" };
  }

  private loaded({ tree, answer, id }: Loaded): void {
    this.answer = answer;
    this.totals(answer);
    this.detailed = new Set(id === "" ? [] : [id]);
    fill(this.notice);
    this.body.classList.remove("stale");
    if (answer.samples === 0) fill(this.notice, this.notices.empty());
    this.display(tree);
  }

  private display(tree: Tree): void {
    this.tree = tree;
    this.below = elidedBelow(tree);
    this.view.show(tree, this.store.state.zoom);
    this.tip.hidden = true;
    this.describe(this.view.selectedNode());
    const total = tree.total[0] ?? 0;
    this.view.canvas.setAttribute(
      "aria-label",
      `Flame graph of ${count(tree.size)} frames, ${value(tree.totalValue[0] ?? 0, tree.unit)} in ${count(total)} samples`,
    );
    const missing = this.below[0] ?? 0;
    fill(
      this.whole,
      missing > 0 &&
        h(
          "button",
          {
            class: "link",
            type: "button",
            title: `${count(missing)} samples end in frames too small to be sent at first. They count in every frame that is drawn; the rest is hatched and comes when you zoom in.`,
            onclick: () => this.store.set({ nodes: 0 }),
          },
          `${percent(missing, total)} cut short: fetch all`,
        ),
    );
    this.drawLegend();
    this.applyZoom(false);
    this.find();
  }

  private failed(error: Error): void {
    this.body.classList.add("stale");
    fill(
      this.notice,
      failure(error, () => this.show(this.store.state, performance.now())),
    );
  }

  private zoom(node: number): void {
    if (!this.tree) return;
    this.store.set({ zoom: node <= 0 ? "" : (this.tree.id[node] ?? "") });
  }

  /** Brings the picture to the zoom of the address, and fetches what is missing there. */
  private applyZoom(moving: boolean): void {
    const { tree, below } = this;
    if (!tree || !below) return;
    const id = this.store.state.zoom;
    const node = find(tree, id);
    if (moving) this.view.zoomTo(Math.max(0, node));
    this.drawCrumbs(node);
    const missing = id !== "" && (node < 0 || below[node]! > 0);
    if (!missing || this.detailed.has(id) || !this.answer || this.answer.samples === 0) return;
    this.detailed.add(id);
    const { state } = this.store;
    const group = state.focus === "" ? state.group : "";
    const asked = { ...state, group, from: String(this.answer.from), until: String(this.answer.until) };
    this.detailLoader.forget();
    this.detailLoader.load(id, async (signal) => ({
      detail: fromAnswer(await api.flameGraph(asked, signal, id)),
      of: tree,
      id,
    }));
  }

  private detailLoaded(detail: Tree, of: Tree, id: string): void {
    if (of !== this.tree) return;
    const grown = bring(of, id, detail);
    if (grown) {
      this.mismatches = 0;
      this.display(grown);
    } else if (find(detail, id) < 0) {
      this.say("The frame of this address is not in this selection: Esc shows all of it.");
    } else if (this.mismatches < 2) {
      // Samples arrived between the two answers: ask for the whole again, so that all figures belong together.
      this.mismatches += 1;
      this.loader.forget();
      this.show(this.store.state, performance.now());
    }
  }

  private find(): void {
    if (!this.tree) return;
    this.view.highlight(this.searchBox.search(this.tree));
  }

  private drawCrumbs(node: number): void {
    const { tree } = this;
    if (!tree || node <= 0) {
      this.crumbs.hidden = true;
      return fill(this.crumbs);
    }
    this.crumbs.hidden = false;
    const nodes = path(tree, node);
    const kept = nodes.length > 6 ? [...nodes.slice(0, 2), -1, ...nodes.slice(-3)] : nodes;
    const items = kept.flatMap((at, index) => {
      const text = at < 0 ? "…" : at === 0 ? "all" : plain(tree.names[tree.name[at]!] ?? "");
      const last = index === kept.length - 1;
      const item =
        at < 0
          ? h("span", { class: "crumb-gap", title: `${nodes.length - 5} more frames` }, "…")
          : h(
              "button",
              {
                type: "button",
                class: "crumb",
                title: at === 0 ? "Everything (Esc)" : (tree.names[tree.name[at]!] ?? ""),
                "aria-current": last ? "location" : null,
                onclick: () => this.zoom(at),
              },
              text,
            );
      return last ? [item] : [item, h("span", { class: "crumb-sep", "aria-hidden": "true" }, "›")];
    });
    const share = percent(tree.total[node]!, tree.total[0]!);
    fill(
      this.crumbs,
      ...items,
      h("span", { class: "crumb-share" }, `${share} · ${value(tree.totalValue[node]!, tree.unit)}`),
    );
  }

  private drawFocus(state: Readonly<State>): void {
    this.focusBar.hidden = state.focus === "";
    if (state.focus === "") return;
    const choice = (text: string, invert: boolean) =>
      h(
        "button",
        {
          type: "button",
          "aria-pressed": String(state.invert === invert),
          onclick: () => this.store.set({ invert, zoom: "" }),
        },
        text,
      );
    fill(
      this.focusBar,
      h(
        "span",
        { class: "segments", role: "group", "aria-label": "Direction" },
        choice("callees", false),
        choice("callers", true),
      ),
      h("span", {}, "of"),
      h("code", { title: state.focus }, state.focus),
      h(
        "button",
        { type: "button", class: "link", onclick: () => this.store.set({ focus: "", invert: false, zoom: "" }) },
        "show everything",
      ),
    );
  }

  private drawLegend(): void {
    const { tree } = this;
    if (!tree) return;
    const dark = isDark();
    fill(
      this.legend,
      ...[...tree.kinds.filter(isCode)]
        .sort((a, b) => Number(a === "marker") - Number(b === "marker"))
        .map((name) => {
          const chip = h("span", { class: name === "marker" ? "chip striped" : "chip" });
          chip.style.background = kindColour(name, dark);
          return h("span", { class: "legend-item" }, chip, name === "marker" ? "incomplete" : name);
        }),
    );
  }

  private hover(node: number, x: number, y: number): void {
    const { tree, tip } = this;
    clearTimeout(this.settle);
    if (node < 0 || !tree) {
      tip.hidden = true;
      this.settle = window.setTimeout(() => this.describe(this.view.selectedNode()), 250);
      return;
    }
    fill(tip, card(tree, node, isDark()));
    tip.hidden = false;
    const { offsetWidth, offsetHeight } = tip;
    const left = x + 14 + offsetWidth > innerWidth - 8 ? Math.max(8, x - offsetWidth - 14) : x + 14;
    const top = y + 18 + offsetHeight > innerHeight - 8 ? Math.max(8, y - offsetHeight - 12) : y + 18;
    style(tip, { left: `${left}px`, top: `${top}px` });
    this.settle = window.setTimeout(() => this.say(sentence(tree, node)), 350);
  }

  /** Puts the selected frame into the status line, with what can be done with it. */
  private describe(node: number): void {
    const { tree } = this;
    if (!tree || node < 0 || node >= tree.size) {
      this.say("");
      return fill(this.actions);
    }
    this.say(sentence(tree, node));
    const name = tree.names[tree.name[node]!] ?? "";
    const kind = tree.kinds[tree.kind[node]!] ?? "";
    const action = (text: string, title: string, act: () => void) =>
      h("button", { type: "button", class: "small", title, onclick: act }, text);
    if (kind === "label")
      return fill(
        this.actions,
        action("only this", `Filter by ${name}`, () => this.only(node)),
      );
    if (kind === "root" || kind === "marker") return fill(this.actions);
    fill(
      this.actions,
      action("callers", `Who calls ${name}`, () => this.store.set({ focus: name, invert: true, zoom: "" })),
      action("callees", `What ${name} calls`, () => this.store.set({ focus: name, invert: false, zoom: "" })),
      action("find all", `Highlight every ${name}`, () => this.store.set({ search: `"${name}"`, regex: false })),
      navigator.clipboard ? action("copy", "Copy the name", () => void navigator.clipboard.writeText(name)) : null,
    );
  }

  /** Filters by the label value that a node of the first levels stands for. */
  private only(node: number): void {
    const { state } = this.store;
    const label = state.group.split(",")[path(this.tree!, node).length - 2];
    const name = this.tree!.names[this.tree!.name[node]!]!;
    if (label) this.store.set({ query: narrow(state.query, label, name === NONE ? "" : name), zoom: "" });
  }

  private say(text: string): void {
    this.status.textContent = text;
  }
}
