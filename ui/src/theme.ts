// Dark and light: the system's choice until someone makes their own, which this browser then remembers.

import { h, icon } from "./dom";

const KEY = "everflame-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners: (() => void)[] = [];

function chosen(): "dark" | "light" | null {
  try {
    const value = localStorage.getItem(KEY);
    return value === "dark" || value === "light" ? value : null;
  } catch {
    return null; // storage may be forbidden; the system's choice still holds
  }
}

let own = chosen();

/** Whether the page is dark now. */
export function isDark(): boolean {
  return (own ?? (system.matches ? "dark" : "light")) === "dark";
}

export function onThemeChange(listener: () => void): void {
  listeners.push(listener);
}

function apply(): void {
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
  for (const listener of listeners) listener();
}

/** The button that switches. Choosing what the system says follows the system again. */
export function themeButton(): HTMLButtonElement {
  const button = h(
    "button",
    {
      class: "quiet",
      type: "button",
      title: "Dark or light",
      "aria-label": "Switch between dark and light",
      onclick: () => {
        const next = isDark() ? "light" : "dark";
        own = (next === "dark") === system.matches ? null : next;
        try {
          if (own === null) localStorage.removeItem(KEY);
          else localStorage.setItem(KEY, own);
        } catch {
          // not remembered, but switched
        }
        apply();
      },
    },
    icon("M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M8 1.5v13a6.5 6.5 0 0 0 0-13"),
  );
  return button;
}

system.addEventListener("change", apply);
apply();
