// A value in a table that narrows the selection to itself.

import { h } from "./dom";
import * as selector from "./selector";
import type { Store } from "./state";

export function only(store: Store, label: string, value: string): HTMLElement {
  if (value === "") return h("span", { class: "faint" }, "(no name)");
  const narrow = () => store.set({ query: selector.narrow(store.state.query, label, value), zoom: "" });
  return h("button", { type: "button", class: "cell-link", title: `Only ${label}="${value}"`, onclick: narrow }, value);
}
