// Keys that work everywhere, and the page that explains them.

import { h } from "./dom";

export interface Keys {
  search(): void;
  filter(): void;
  reset(): void;
  nextTab(): void;
  refresh(): void;
}

const HELP = [
  ["/", "search"],
  ["f", "filter"],
  ["Esc", "reset: search, then zoom, then callers or callees"],
  ["t", "next tab"],
  ["r", "refresh"],
  ["↑ ↓ ← →", "walk through the flame graph"],
  ["Enter", "zoom into the selected frame"],
  ["?", "this help"],
] as const;

const MOUSE = [
  ["click a frame", "zoom into it"],
  ["click it again", "back to its parent"],
  ["drag over the time series", "select a time range"],
  ["click a series", "only this; with Alt: all but this"],
  ["double-click a function", "its callers"],
] as const;

/** Whether a key belongs to the field that has the focus. */
function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}

export function helpDialog(): HTMLDialogElement {
  const table = (rows: readonly (readonly [string, string])[], key: boolean) =>
    h("dl", {}, ...rows.flatMap(([name, text]) => [h("dt", {}, key ? h("kbd", {}, name) : name), h("dd", {}, text)]));
  const dialog = h(
    "dialog",
    { class: "help", "aria-label": "Help" },
    h("h2", {}, "Keys"),
    table(HELP, true),
    h("h2", {}, "Mouse"),
    table(MOUSE, false),
    h("h2", {}, "Reading the picture"),
    h(
      "p",
      {},
      "Each box is a function; what it calls lies below it; its width is the share of samples that were in it. Colours tell the kind of code. Striped boxes are stacks that did not reach their root, and say why; hatched ends are frames too small to have been sent yet, which come when you zoom in. Dull boxes have no name yet, only a place in their binary.",
    ),
    h("form", { method: "dialog" }, h("button", { type: "submit" }, "Close")),
  );
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return dialog;
}

export function listen(keys: Keys, help: HTMLDialogElement): void {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || help.open) return;
    if (event.key === "Escape") {
      if (isTyping(event.target)) (event.target as HTMLElement).blur();
      keys.reset();
      return;
    }
    if (isTyping(event.target)) return;
    if (event.key === "/") keys.search();
    else if (event.key === "f") keys.filter();
    else if (event.key === "t") keys.nextTab();
    else if (event.key === "r") keys.refresh();
    else if (event.key === "?") help.showModal();
    else return;
    event.preventDefault();
  });
}
