// The query field: a Prometheus selector, with the labels and values that the selected samples really have.

import * as api from "./api";
import { fill, h, icon } from "./dom";
import { count } from "./format";
import * as selector from "./selector";
import type { State, Store } from "./state";

/** Short names that the server knows, offered before the full ones. */
const SHORT = ["process", "service", "namespace", "pod", "container", "workload", "node", "thread", "pid"];
const LIMIT = 40;
const PAUSE_MS = 120;

interface Suggestion {
  text: string;
  note: string;
  insert: string;
}

export class Filter {
  readonly element: HTMLElement;
  private readonly field: HTMLInputElement;
  private readonly clear: HTMLButtonElement;
  private readonly list = h("ul", {
    class: "suggestions",
    role: "listbox",
    id: "suggestions",
    "aria-label": "Suggestions",
    hidden: true,
  });
  private shown: Suggestion[] = [];
  private chosen = -1;
  private typing: selector.Typing | null = null;
  private pause = 0;
  private abort: AbortController | null = null;

  constructor(private readonly store: Store) {
    this.field = h("input", {
      type: "text",
      class: "query",
      placeholder: 'everything — or filter, as in process="envoy", namespace=~"shop.*"',
      role: "combobox",
      "aria-label": "Filter samples",
      "aria-controls": "suggestions",
      "aria-expanded": "false",
      "aria-autocomplete": "list",
      "aria-keyshortcuts": "f",
      spellcheck: "false",
      autocomplete: "off",
      oninput: () => this.later(),
      onfocus: () => this.later(),
      onclick: () => this.later(),
      onblur: () => window.setTimeout(() => this.leave(), 150),
      onkeydown: (event: Event) => this.key(event as KeyboardEvent),
    });
    this.clear = h(
      "button",
      {
        type: "button",
        class: "quiet inset",
        title: "Clear the filter",
        "aria-label": "Clear the filter",
        onclick: () => store.set({ query: "", zoom: "" }),
      },
      icon("M4 4l8 8M12 4l-8 8"),
    );
    this.element = h("div", { class: "filter" }, icon("M1.5 3h13l-5 6v4l-3 1.5V9z"), this.field, this.clear, this.list);
  }

  focus(): void {
    this.field.focus();
  }

  show(state: Readonly<State>): void {
    if (document.activeElement !== this.field || selector.normalise(this.field.value) !== state.query)
      this.field.value = state.query;
    this.clear.hidden = state.query === "";
    this.field.setAttribute("aria-invalid", "false");
  }

  /** Shows by the field that the server refused the query. */
  refused(): void {
    this.field.setAttribute("aria-invalid", "true");
  }

  private later(): void {
    clearTimeout(this.pause);
    this.pause = window.setTimeout(() => void this.suggest(), PAUSE_MS);
  }

  private async suggest(): Promise<void> {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    const at = selector.typing(this.field.value, this.field.selectionStart ?? this.field.value.length);
    this.typing = at;
    if (!at) return this.hide();
    const asked = { ...this.store.state, query: at.others };
    try {
      const found =
        at.what === "label" ? await this.labels(asked, at, abort.signal) : await this.values(asked, at, abort.signal);
      if (!abort.signal.aborted && document.activeElement === this.field) this.offer(found);
    } catch {
      this.hide(); // suggestions are a help only: the query itself will say what is wrong
    }
  }

  private async labels(asked: State, at: selector.Typing, signal: AbortSignal): Promise<Suggestion[]> {
    const have = await api.labels(asked, signal);
    const names = [...SHORT, ...have.filter((name) => !SHORT.includes(name))];
    const prefix = at.prefix.toLowerCase();
    return names
      .filter((name) => name.toLowerCase().includes(prefix))
      .sort((a, b) => Number(!a.toLowerCase().startsWith(prefix)) - Number(!b.toLowerCase().startsWith(prefix)))
      .slice(0, LIMIT)
      .map((name) => ({ text: name, note: "", insert: `${selector.name(name)}="` }));
  }

  private async values(asked: State, at: selector.Typing, signal: AbortSignal): Promise<Suggestion[]> {
    const { values } = await api.values(at.label, asked, 1000, signal);
    const prefix = at.prefix.toLowerCase();
    return values
      .filter(({ value }) => value !== "" && value.toLowerCase().includes(prefix))
      .slice(0, LIMIT)
      .map(({ value, samples }) => ({
        text: value,
        note: `${count(samples)} samples`,
        insert: `"${selector.escape(value)}"`,
      }));
  }

  private offer(found: Suggestion[]): void {
    this.shown = found;
    this.chosen = -1;
    if (found.length === 0) return this.hide();
    fill(
      this.list,
      ...found.map((item, index) =>
        h(
          "li",
          {
            role: "option",
            id: `suggestion-${index}`,
            "aria-selected": "false",
            onpointerdown: (event: Event) => this.take(index, event),
          },
          h("span", {}, item.text),
          h("span", { class: "faint" }, item.note),
        ),
      ),
    );
    this.list.hidden = false;
    this.field.setAttribute("aria-expanded", "true");
  }

  private choose(index: number): void {
    this.list.children[this.chosen]?.setAttribute("aria-selected", "false");
    this.chosen = (index + this.shown.length) % this.shown.length;
    const item = this.list.children[this.chosen];
    item?.setAttribute("aria-selected", "true");
    item?.scrollIntoView({ block: "nearest" });
    this.field.setAttribute("aria-activedescendant", `suggestion-${this.chosen}`);
  }

  private take(index: number, event?: Event): void {
    event?.preventDefault();
    const item = this.shown[index];
    const at = this.typing;
    if (!item || !at) return;
    const text = this.field.value;
    const before = text.slice(0, at.start) + item.insert;
    this.field.value = before + text.slice(at.end);
    this.field.setSelectionRange(before.length, before.length);
    if (at.what === "value") this.submit();
    else void this.suggest();
  }

  private key(event: KeyboardEvent): void {
    const open = !this.list.hidden;
    if (event.key === "ArrowDown" && open) this.choose(this.chosen + 1);
    else if (event.key === "ArrowUp" && open) this.choose(this.chosen < 0 ? this.shown.length - 1 : this.chosen - 1);
    else if ((event.key === "Enter" || event.key === "Tab") && open && this.chosen >= 0) this.take(this.chosen);
    else if (event.key === "Enter") this.submit();
    else if (event.key === "Escape") {
      event.stopPropagation();
      if (open) return this.hide();
      this.field.value = this.store.state.query;
      this.field.blur();
      return;
    } else return;
    event.preventDefault();
  }

  private submit(): void {
    this.hide();
    this.store.set({ query: selector.normalise(this.field.value), zoom: "" });
  }

  private leave(): void {
    if (document.activeElement !== this.field) this.hide();
  }

  private hide(): void {
    clearTimeout(this.pause);
    this.abort?.abort();
    this.list.hidden = true;
    this.field.setAttribute("aria-expanded", "false");
    this.field.removeAttribute("aria-activedescendant");
  }
}
