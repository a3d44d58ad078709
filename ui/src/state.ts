// The page's state is its address: whatever is looked at can be sent as a link and comes back by back and forward.

export const TABS = ["flame", "top", "processes", "mesh", "accounting"] as const;
export type Tab = (typeof TABS)[number];

export interface State {
  /** Prometheus selector, empty for everything. */
  query: string;
  /** Start of the range, as the API takes it. */
  from: string;
  /** End of the range. */
  until: string;
  /** Sample type. */
  type: string;
  /** Labels of the first levels of the flame graph, comma-separated; empty for none. */
  group: string;
  /** Label that splits the time series. */
  by: string;
  tab: Tab;
  /** Id of the frame that fills the flame graph, empty for the whole. */
  zoom: string;
  /** What is searched for. */
  search: string;
  /** Whether the search is a regular expression. */
  regex: boolean;
  /** Function whose callees or callers are shown, empty for the whole picture. */
  focus: string;
  /** Callers instead of callees. */
  invert: boolean;
  /** Largest number of nodes to ask for, 0 for all. */
  nodes: number;
  /** What a row of the top table is. */
  rows: string;
  sort: string;
  page: number;
  /** Whether a range that ends now is followed. */
  live: boolean;
}

export const DEFAULTS: Readonly<State> = {
  query: "",
  from: "now-15m",
  until: "now",
  type: "cpu",
  group: "process",
  by: "process",
  tab: "flame",
  zoom: "",
  search: "",
  regex: false,
  focus: "",
  invert: false,
  nodes: 20000,
  rows: "function",
  sort: "self",
  page: 0,
  live: true,
};

/** Reads a state from the part of the address behind `?`; what is missing or makes no sense is the default. */
export function parse(search: string): State {
  const given = new URLSearchParams(search);
  const state: State = { ...DEFAULTS };
  const record = state as unknown as Record<string, string | number | boolean>;
  for (const [key, fallback] of Object.entries(DEFAULTS)) {
    const text = given.get(key);
    if (text === null) continue;
    if (typeof fallback === "boolean") record[key] = text === "1";
    else if (typeof fallback === "number") record[key] = /^\d{1,9}$/.test(text) ? Number(text) : fallback;
    else record[key] = text;
  }
  if (!TABS.includes(state.tab)) state.tab = DEFAULTS.tab;
  if (state.sort !== "self" && state.sort !== "total") state.sort = DEFAULTS.sort;
  return state;
}

/** The part of the address behind `?`, with defaults left out. */
export function format(state: State): string {
  const out = new URLSearchParams();
  for (const [key, fallback] of Object.entries(DEFAULTS)) {
    const value = state[key as keyof State];
    if (value !== fallback) out.set(key, typeof value === "boolean" ? (value ? "1" : "0") : String(value));
  }
  return out.toString();
}

type Listener = (state: State, before: State) => void;

/** Keeps state and address the same, and tells who listens. */
export class Store {
  private now: State;
  private readonly listeners: Listener[] = [];

  constructor() {
    this.now = parse(location.search);
    addEventListener("popstate", () => this.become(parse(location.search)));
  }

  get state(): Readonly<State> {
    return this.now;
  }

  /** Changes parts of the state. `replace` makes no new entry in the history (typing, not steps). */
  set(patch: Partial<State>, replace = false): void {
    const next = { ...this.now, ...patch };
    const before = format(this.now);
    const after = format(next);
    if (after === before) return;
    const url = after === "" ? location.pathname : `?${after}`;
    if (replace) history.replaceState(null, "", url);
    else history.pushState(null, "", url);
    this.become(next);
  }

  listen(listener: Listener): void {
    this.listeners.push(listener);
  }

  private become(next: State): void {
    const before = this.now;
    this.now = next;
    for (const listener of this.listeners) listener(next, before);
  }
}
