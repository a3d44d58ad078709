// The accounting of every agent: where each sample went, what was missed, and the check that nothing is left over.

import { sum, type Sum } from "./account";
import * as api from "./api";
import { fill, h } from "./dom";
import { ago, bytes, count, percent, significant } from "./format";
import { Loader } from "./loader";
import { failure, type Notices } from "./notice";
import { moment, unix } from "./time";
import { bar } from "./top";

const STALE_S = 60;

interface Loaded {
  accounts: api.Account[];
  nodes: api.Node[];
}

export class AccountingPanel {
  readonly element: HTMLElement;
  /** The corner of the page that says in one word whether all samples are accounted for. */
  readonly corner: HTMLButtonElement;
  private readonly body = h("div", { class: "accounts" });
  private readonly loader: Loader<Loaded>;

  constructor(
    private readonly notices: Notices,
    open: () => void,
  ) {
    this.corner = h("button", { type: "button", class: "corner", onclick: open, hidden: true });
    this.element = h("section", { class: "panel accounting", "aria-label": "Accounting" }, this.body);
    this.loader = new Loader(
      (loaded) => this.draw(loaded),
      (error) =>
        fill(
          this.body,
          failure(error, () => this.show(performance.now())),
        ),
    );
  }

  show(tick: number): void {
    this.loader.load(String(tick), async (signal) => {
      const [accounts, nodes] = await Promise.all([api.accounting(signal), api.nodes(signal)]);
      this.notices.known(nodes);
      return { accounts, nodes };
    });
  }

  private draw({ accounts, nodes }: Loaded): void {
    const all = sum(accounts);
    this.drawCorner(accounts, all);
    if (accounts.length === 0) return fill(this.body, this.notices.empty());
    const now = Date.now() / 1000;
    const seen = new Map(nodes.map((node) => [node.instance, node]));
    const sorted = [...accounts].sort((a, b) => unix(b.since) - unix(a.since));
    fill(
      this.body,
      h(
        "p",
        { class: "explain" },
        "Every sample that an agent takes is counted at each stage on its own. ",
        h("strong", {}, "taken = idle + stored + in flight + dropped"),
        "; what is left over is a check and must be 0.",
      ),
      ...sorted.map((account) => this.card(account, seen.get(account.instance), now)),
    );
  }

  private drawCorner(accounts: readonly api.Account[], all: Sum): void {
    this.corner.hidden = accounts.length === 0;
    const good = all.residual === 0 && all.unexplained === 0;
    this.corner.classList.toggle("bad", !good);
    const text = good
      ? all.dropped > 0
        ? `${count(all.dropped)} dropped, all accounted for`
        : "every sample accounted for"
      : `${count(all.residual + all.unexplained)} samples unaccounted for`;
    this.corner.title = `${count(all.taken)} taken − ${count(all.idle)} idle − ${count(all.stored)} stored − ${count(all.inFlight)} in flight − ${count(all.dropped)} dropped = ${count(all.residual)}`;
    fill(this.corner, h("span", { class: "dot", "aria-hidden": "true" }), text);
  }

  private card(account: api.Account, node: api.Node | undefined, now: number): HTMLElement {
    const s = sum([account]);
    const residual = account.taken - s.idle - s.stored - s.inFlight - s.dropped;
    const last = node ? unix(node.last_seen) : 0;
    const stale = last > 0 && now - last > STALE_S;
    const busy = Math.max(1, s.taken - s.idle);
    const ticks = s.taken + s.missedSure + s.missedPerhaps;
    return h(
      "article",
      { class: "account", "aria-label": `Agent on ${account.node}` },
      h(
        "header",
        {},
        h("h3", {}, account.node || "(no name)"),
        h("span", { class: stale ? "warn" : "faint" }, last > 0 ? `reported ${ago(last, now)}` : ""),
        h("span", { class: "grow" }),
        h(
          "span",
          { class: residual === 0 ? "check good" : "check bad", role: "status" },
          residual === 0 ? "left over: 0" : `left over: ${count(residual)}`,
        ),
      ),
      node &&
        h(
          "p",
          { class: "faint" },
          `agent ${node.agent_version} · ${node.rate} Hz on ${node.cpus} CPUs · ${significant(node.cpu_percent)} % of a CPU · ${bytes(node.memory_bytes)} · Linux ${node.kernel}`,
        ),
      h(
        "div",
        { class: "figures" },
        figure("taken", s.taken, `since ${moment(unix(account.since))}`),
        figure("idle", s.idle, percent(s.idle, s.taken)),
        figure("stored", s.stored, `${percent(s.stored, busy)} of the busy ones`),
        figure("in flight", s.inFlight, parts(account.in_flight)),
        figure("dropped", s.dropped, parts(account.dropped) || "nothing", s.dropped > 0),
        figure("complete stacks", percent(s.complete, s.stored), `${count(s.complete)} of ${count(s.stored)}`),
        figure(
          "missed ticks",
          s.missedSure,
          `surely, ${percent(s.missedSure, ticks)}; perhaps, while idle: ${count(s.missedPerhaps)}`,
          s.missedSure > ticks * 0.01,
        ),
        node?.second_opinion && opinion(node.second_opinion),
      ),
      this.reasons(account, s),
      node?.second_opinion && disagreements(node.second_opinion),
    );
  }

  private reasons(account: api.Account, s: Sum): HTMLElement | null {
    const reasons = Object.entries(account.incomplete)
      .filter(([, n]) => n > 0)
      .sort((a, b) => b[1] - a[1]);
    if (reasons.length === 0 && s.unexplained === 0) return null;
    return h(
      "table",
      { class: "reasons" },
      h("caption", {}, "Stacks that did not reach their root, and why"),
      h(
        "tbody",
        {},
        ...reasons.map(([reason, n]) =>
          h(
            "tr",
            {},
            h("td", { class: "bar-cell" }, bar(n, s.stored, "grey")),
            h("td", { class: "main" }, reason.replaceAll("_", " ")),
            h("td", { class: "number" }, percent(n, s.stored)),
            h("td", { class: "number faint" }, count(n)),
          ),
        ),
        s.unexplained > 0 &&
          h(
            "tr",
            {},
            h("td", {}),
            h("td", { class: "bad" }, "without a reason"),
            h("td", {}),
            h("td", { class: "number bad" }, count(s.unexplained)),
          ),
      ),
    );
  }
}

/** How many of the stacks that were walked twice came out the same. */
function opinion(said: api.SecondOpinion): HTMLElement | null {
  if (said.every === 0) return null;
  const judged = said.agree + said.differ + said.shorter;
  const note = `${count(said.agree)} of ${count(judged)} stacks; one in ${count(said.every)} is walked again by an independent unwinder`;
  return figure("second opinion agrees", judged > 0 ? percent(said.agree, judged) : "–", note, said.differ > 0);
}

/** The executables whose steps the independent unwinder sees otherwise. */
function disagreements(said: api.SecondOpinion): HTMLElement | null {
  const rows = said.executables.filter((executable) => executable.differ + executable.shorter > 0);
  if (rows.length === 0) return null;
  return h(
    "table",
    { class: "reasons" },
    h("caption", {}, "Stacks that the second opinion sees otherwise, by the executable whose step differs"),
    h(
      "tbody",
      {},
      ...rows.map(({ name, agree, differ, shorter }) =>
        h(
          "tr",
          {},
          h("td", { class: "main" }, name),
          h("td", { class: "number" }, differ > 0 ? `${count(differ)} differ` : ""),
          h("td", { class: "number" }, shorter > 0 ? `${count(shorter)} end early` : ""),
          h("td", { class: "number faint" }, `${count(agree)} agree`),
        ),
      ),
    ),
  );
}

function figure(label: string, amount: number | string, note: string, warn = false): HTMLElement {
  return h(
    "div",
    { class: "stat" },
    h("div", { class: "stat-label" }, label),
    h("div", { class: warn ? "stat-value warn" : "stat-value" }, typeof amount === "number" ? count(amount) : amount),
    h("div", { class: "stat-note" }, note),
  );
}

/** `3 in spool, 12 in ring`, without the empty ones. */
function parts(of: Record<string, number>): string {
  return Object.entries(of)
    .filter(([, n]) => n > 0)
    .map(([name, n]) => `${name.replaceAll("_", " ")} ${count(n)}`)
    .join(", ");
}
