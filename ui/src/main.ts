// Puts the page together: state in the middle, panels around it, and the clock that refreshes a live range.

import "./styles/base.css";
import "./styles/controls.css";
import "./styles/panels.css";
import "./styles/tables.css";
import "./styles/accounting.css";
import { AccountingPanel } from "./accounting";
import * as api from "./api";
import { fill, h, icon, options } from "./dom";
import { Filter } from "./filter";
import { FlamePanel } from "./flamegraph/panel";
import { helpDialog, listen } from "./keyboard";
import { Login } from "./login";
import { MeshPanel } from "./mesh";
import { Notices } from "./notice";
import { ProcessesPanel } from "./processes";
import { RangePicker, follows } from "./range";
import { SeriesPanel } from "./series";
import { Store, TABS, type State, type Tab } from "./state";
import { Summary } from "./summary";
import { themeButton } from "./theme";
import { resolve, rfc3339, since } from "./time";
import { TopPanel } from "./top";

const TAB_NAMES: Record<Tab, string> = {
  flame: "Flame graph",
  top: "Top functions",
  processes: "Processes",
  mesh: "Mesh",
  accounting: "Accounting",
};

const store = new Store();
const notices = new Notices(store);
const progress = h("div", { class: "progress", hidden: true, role: "progressbar", "aria-label": "Loading" });
let under = 0;
/** Makes a counter of requests under way; the thin line at the top shows while there are any. */
function busy(): (now: boolean) => void {
  let mine = false;
  return (now) => {
    if (now !== mine) under += now ? 1 : -1;
    mine = now;
    progress.hidden = under === 0;
  };
}

const summary = new Summary((from) =>
  store.set({ from: follows(store.state) ? since(Date.now() / 1000 - from) : rfc3339(from) }),
);
const filter = new Filter(store);
const range = new RangePicker(store, () => refresh());
const help = helpDialog();
const login = new Login(() => {
  loadTypes();
  refresh();
});
api.onRefused(() => login.ask());
const refused = (error: Error) => {
  if (error instanceof api.ApiError && error.status === 400) filter.refused();
};
const complete = (answer: api.Totals) => summary.complete(answer.samples, answer.complete);
let samples = -1;
const series = new SeriesPanel(
  store,
  (chart, unit) => {
    samples = chart.samples;
    summary.show(chart, unit);
    summary.late(chart);
  },
  busy(),
  refused,
);
const flame = new FlamePanel(store, notices, complete, busy());
const top = new TopPanel(store, notices, complete, busy());
const processes = new ProcessesPanel(store, notices, busy());
const mesh = new MeshPanel(store, busy());
const accounting = new AccountingPanel(notices, () => store.set({ tab: "accounting" }));
const panels: Record<Tab, { element: HTMLElement }> = { flame, top, processes, mesh, accounting };

const type = h("select", { "aria-label": "Sample type", class: "type" });
type.addEventListener("change", () => store.set({ type: type.value, zoom: "" }));
let types: string[] = ["cpu"];

const tabs = new Map(
  TABS.map((tab) => [
    tab,
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${tab}`,
        "aria-controls": `panel-${tab}`,
        onclick: () => store.set({ tab }),
      },
      TAB_NAMES[tab],
    ),
  ]),
);
for (const tab of TABS) {
  const { element } = panels[tab];
  element.id = `panel-${tab}`;
  element.setAttribute("role", "tabpanel");
  element.setAttribute("aria-labelledby", `tab-${tab}`);
}

const logo = h(
  "a",
  { class: "logo", href: location.pathname, title: "Start afresh" },
  h("img", { src: "./favicon.svg", alt: "", width: 20, height: 20 }),
  "Everflame",
);
fill(
  document.getElementById("app")!,
  progress,
  h(
    "header",
    { class: "bar-top" },
    logo,
    filter.element,
    type,
    range.element,
    themeButton(),
    login.out,
    h(
      "button",
      { type: "button", class: "quiet", title: "Help (?)", "aria-label": "Help", onclick: () => help.showModal() },
      icon("M5.5 6a2.5 2.5 0 1 1 3.6 2.2C8.3 8.7 8 9.2 8 10.3M8 12.9v.2"),
    ),
  ),
  h(
    "main",
    {},
    series.element,
    h(
      "div",
      { class: "bar-tabs" },
      h(
        "div",
        {
          class: "tabs",
          role: "tablist",
          "aria-label": "Views",
          onkeydown: (event: Event) => walkTabs(event as KeyboardEvent),
        },
        ...tabs.values(),
      ),
      summary.element,
      accounting.corner,
    ),
    ...TABS.map((tab) => panels[tab].element),
  ),
  help,
  login.element,
);

function walkTabs(event: KeyboardEvent): void {
  const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
  if (step === 0) return;
  event.preventDefault();
  nextTab(step);
  tabs.get(store.state.tab)?.focus();
}

function nextTab(step = 1): void {
  const at = TABS.indexOf(store.state.tab);
  store.set({ tab: TABS[(at + step + TABS.length) % TABS.length]! });
}

let tick = 0;

function show(state: Readonly<State>): void {
  filter.show(state);
  range.show(state);
  options(
    type,
    types.map((name) => [name, name] as const),
    state.type,
  );
  type.hidden = types.length < 2 && state.type === "cpu";
  for (const [tab, button] of tabs) {
    const chosen = tab === state.tab;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
    panels[tab].element.hidden = !chosen;
  }
  document.title = `${state.query === "" ? "" : `${state.query} · `}Everflame`;
  series.show(state, tick);
  accounting.show(tick);
  if (state.tab === "flame") flame.show(state, tick);
  else if (state.tab === "top") top.show(state, tick);
  else if (state.tab === "processes") processes.show(state, tick);
  else if (state.tab === "mesh") mesh.show(state, tick);
}

function refresh(): void {
  tick += 1;
  show(store.state);
}

/** Escape takes back one thing at a time, the newest kind first. */
function reset(): void {
  const { state } = store;
  if (state.search !== "") store.set({ search: "" });
  else if (state.zoom !== "") store.set({ zoom: "" });
  else if (state.focus !== "") store.set({ focus: "", invert: false });
}

listen(
  {
    search: () =>
      store.state.tab === "processes"
        ? processes.focusSearch()
        : store.state.tab === "flame"
          ? flame.focusSearch()
          : goSearch(),
    filter: () => filter.focus(),
    reset,
    nextTab: () => nextTab(),
    refresh,
  },
  help,
);

function goSearch(): void {
  store.set({ tab: "flame" });
  flame.focusSearch();
}

/** Seconds between refreshes of a live range: often while nothing is there yet, seldom where the range is long. */
function pace(state: Readonly<State>): number {
  if (samples <= 0) return 2;
  const span = resolve(state.until, 0) - resolve(state.from, 0);
  return span <= 3600 ? 10 : span <= 6 * 3600 ? 30 : 120;
}

let waited = 0;
setInterval(() => {
  const { state } = store;
  waited += 1;
  if (
    document.hidden ||
    login.element.open ||
    under > 0 ||
    !state.live ||
    !follows(state) ||
    waited < pace(state) ||
    flame.busy()
  )
    return;
  waited = 0;
  refresh();
}, 1000);

store.listen((state) => {
  waited = 0;
  show(state);
});
function loadTypes(): void {
  void api.types().then(
    (list) => {
      types = list.length > 0 ? list : types;
      show(store.state);
    },
    () => {}, // the panels say what is wrong with the server
  );
}

show(store.state);
loadTypes();
void api.session().then(
  (session) => login.known(session),
  () => {}, // the log-in opens by itself
);
