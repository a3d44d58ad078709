// The search field of the flame graph and the exact share of what it finds.

import { fill, h } from "../dom";
import { count, percent, value } from "../format";
import type { State, Store } from "../state";
import { matcher, search, type Found } from "./search";
import type { Tree } from "./tree";

const PAUSE_MS = 120;

export class SearchBox {
  readonly element: HTMLElement;
  private readonly field: HTMLInputElement;
  private readonly regex: HTMLButtonElement;
  private readonly result = h("output", { class: "search-result", "aria-live": "polite" });
  /** Timer of a search that is still being typed. */
  private pause = 0;
  private text = "";
  private isRegex = false;
  private last: { tree: Tree; text: string; regex: boolean; found: Found | null } | null = null;

  constructor(store: Store) {
    this.field = h("input", {
      type: "search",
      class: "search-field",
      placeholder: "search frames",
      title: 'Part of a name, case ignored; a whole name in "double quotes"; or a regular expression with .* pressed',
      "aria-label": "Search frames",
      "aria-keyshortcuts": "/",
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => {
        clearTimeout(this.pause);
        this.pause = window.setTimeout(() => {
          this.pause = 0;
          store.set({ search: this.field.value }, true);
        }, PAUSE_MS);
      },
    });
    this.regex = h(
      "button",
      {
        type: "button",
        class: "small mono",
        title: "Regular expression",
        "aria-label": "Regular expression",
        onclick: () => store.set({ regex: !store.state.regex }, true),
      },
      ".*",
    );
    this.element = h("div", { class: "search", role: "search" }, this.field, this.regex, this.result);
  }

  focus(): void {
    this.field.focus();
    this.field.select();
  }

  show(state: Readonly<State>): void {
    if (this.pause === 0 && this.field.value !== state.search) this.field.value = state.search;
    this.regex.setAttribute("aria-pressed", String(state.regex));
    this.text = state.search;
    this.isRegex = state.regex;
  }

  /** Searches a tree and shows the share. `null` where nothing is searched for. */
  search(tree: Tree): Found | null {
    const { text, isRegex: regex } = this;
    if (this.last && this.last.tree === tree && this.last.text === text && this.last.regex === regex)
      return this.last.found;
    const test = matcher(text, regex);
    this.field.setAttribute("aria-invalid", String(test instanceof Error));
    let found: Found | null = null;
    if (test instanceof Error) fill(this.result, h("span", { class: "bad" }, test.message));
    else if (test === null) fill(this.result);
    else {
      found = search(tree, test);
      this.share(tree, found);
    }
    this.last = { tree, text, regex, found };
    return found;
  }

  private share(tree: Tree, found: Found): void {
    const all = tree.total[0] ?? 0;
    const { samples, hidden, nodes } = found;
    const least = hidden > 0 ? "≥ " : "";
    const note = hidden > 0 ? `; up to ${percent(hidden, all)} more lies in frames that are not drawn yet` : "";
    this.result.title = `${count(samples)} of ${count(all)} samples in ${count(nodes)} frames, each sample once${note}`;
    this.result.dataset["samples"] = String(samples);
    fill(this.result, h("strong", {}, `${least}${percent(samples, all)}`), ` ${value(found.value, tree.unit)}`);
  }
}
