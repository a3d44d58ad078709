// What stands where there is nothing to draw: why, and what to do about it.

import * as api from "./api";
import { h } from "./dom";
import { ago } from "./format";
import type { Store } from "./state";
import { offset, unix } from "./time";

/** An error with the server's own words and a way to try again. */
export function failure(error: Error, retry: () => void): HTMLElement {
  const status =
    error instanceof api.ApiError && error.status > 0 ? ` (${`${error.status} ${error.code}`.trim()})` : "";
  return h(
    "div",
    { class: "notice error", role: "alert" },
    h("h2", {}, `This did not work${status}`),
    h("p", {}, error.message),
    h("p", {}, h("button", { type: "button", onclick: retry }, "Try again")),
  );
}

export class Notices {
  /** Agents that have reported, as far as known. */
  private nodes: api.Node[] | null = null;

  constructor(private readonly store: Store) {}

  known(nodes: api.Node[]): void {
    this.nodes = nodes;
  }

  /** Why nothing is there: no agent, a filter that matches nothing, or a range without samples. */
  empty(): HTMLElement {
    const { state } = this.store;
    if (this.nodes !== null && this.nodes.length === 0 && state.query === "") return this.noAgent();
    const last = Math.max(0, ...(this.nodes ?? []).map((node) => unix(node.last_seen)));
    const now = Date.now() / 1000;
    if (state.query === "" && state.focus === "" && offset(state.until) === 0 && now - last < 30)
      return h(
        "div",
        { class: "notice" },
        h("h2", {}, "Waiting for the first samples"),
        h("p", { class: "faint" }, "An agent is at work. This page looks again by itself every few seconds."),
      );
    const actions: HTMLElement[] = [];
    if (state.query !== "")
      actions.push(
        h("button", { type: "button", onclick: () => this.store.set({ query: "", zoom: "" }) }, "Clear the filter"),
      );
    const back = offset(state.from);
    if (back === null || back < 86400)
      actions.push(
        h(
          "button",
          { type: "button", onclick: () => this.store.set({ from: "now-24h", until: "now", zoom: "" }) },
          "Look at the last 24 hours",
        ),
      );
    if (state.focus !== "")
      actions.push(
        h("button", { type: "button", onclick: () => this.store.set({ focus: "", zoom: "" }) }, "Show everything"),
      );
    return h(
      "div",
      { class: "notice" },
      h("h2", {}, state.query !== "" ? "No sample matches the filter" : "No samples in this range"),
      state.query !== "" && h("p", {}, h("code", {}, state.query)),
      last > 0 && h("p", {}, `The newest report of an agent came ${ago(last, now)}.`),
      h("p", { class: "notice-actions" }, ...actions),
    );
  }

  private noAgent(): HTMLElement {
    const own = /^(127\.|localhost|\[::1\])/.test(location.host);
    const command = `sudo everflame agent --endpoint ${location.origin}`;
    return h(
      "div",
      { class: "notice" },
      h("h2", {}, "No agent has reported yet"),
      h("p", {}, "Start one on each machine that you want to see. Nothing there needs to be changed or restarted."),
      h("pre", {}, h("code", {}, command)),
      own && h("p", {}, "On this machine alone, ", h("code", {}, "sudo everflame up"), " is server and agent in one."),
      h(
        "p",
        { class: "faint" },
        "If one was just started, its first samples come within seconds: this page looks again by itself.",
      ),
    );
  }
}
