// The server's API, typed: one function a path, errors as the server words them, requests that can be given up.

import type { State } from "./state";

/** What every answer says about itself. Times are RFC 3339 or Unix seconds. */
export interface Covered {
  from: string | number;
  until: string | number;
  resolution_s: number;
}

export interface Complete {
  samples: number;
  incomplete: Record<string, number>;
}

export interface Totals extends Covered {
  type: string;
  unit: string;
  samples: number;
  value: number;
  complete?: Complete;
}

export interface NodeColumns {
  parent: number[];
  name: number[];
  file: number[];
  mapping: number[];
  kind: number[];
  line: number[];
  self: number[];
  total: number[];
  self_value: number[];
  total_value: number[];
  elided: number[];
  id?: (string | number)[];
}

export interface FlameGraph extends Totals {
  names: string[];
  files: string[];
  mappings: string[];
  kinds: string[];
  nodes: NodeColumns;
  elided: { nodes: number; samples: number };
}

export interface TopRow {
  name: string;
  file: string;
  mapping: string;
  kind: string;
  self: number;
  total: number;
  self_value: number;
  total_value: number;
}

export interface Top extends Totals {
  count: number;
  rows: TopRow[];
}

export interface Series extends Covered {
  unit?: string;
  step_s: number;
  series: { value: string; rest: boolean; points: [number, number, number][] }[];
}

export interface Process {
  node: string;
  pid: number;
  process: string;
  thread_count: number;
  container: string;
  pod: string;
  namespace: string;
  service: string;
  samples: number;
  complete: number;
  first_seen: string | number;
  last_seen: string | number;
}

export interface MeshRow {
  namespace: string;
  service: string;
  pods: number;
  proxy_samples: number;
  proxy_seconds: number;
  workload_samples: number;
  workload_seconds: number;
}

/** What the proxies of a service mesh cost, and those sums over all services with one. */
export interface Mesh extends Covered {
  containers: string[];
  proxy_seconds: number;
  workload_seconds: number;
  count: number;
  rows: MeshRow[];
}

/** What an independent unwinder says of one in `every` of an agent's stacks. */
export interface SecondOpinion {
  every: number;
  agree: number;
  differ: number;
  shorter: number;
  not_judged: Record<string, number>;
  executables: { name: string; agree: number; differ: number; shorter: number }[];
}

export interface Node {
  node: string;
  instance: string;
  agent_version: string;
  kernel: string;
  cpus: number;
  rate: number;
  last_seen: string | number;
  cpu_percent: number;
  memory_bytes: number;
  second_opinion?: SecondOpinion;
}

export interface Account {
  node: string;
  instance: string;
  since: string | number;
  taken: number;
  idle: number;
  stored: number;
  in_flight: Record<string, number>;
  dropped: Record<string, number>;
  missed: { sure: number; perhaps_idle: number };
  complete: number;
  incomplete: Record<string, number>;
}

/** A refusal or a failure to reach the server, in words for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

type Params = Record<string, string | number | boolean | undefined>;

/** Who the server takes this page for. */
export interface Session {
  tokens_wanted: boolean;
  id: string;
  name: string;
  role: string;
  project: string;
  expires: number | null;
  session: boolean;
}

let refused = () => {};

/** Says what is to happen when the server wants to know who asks. */
export function onRefused(act: () => void): void {
  refused = act;
}

async function get<T>(path: string, params: Params, signal?: AbortSignal): Promise<T> {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) if (value !== undefined) query.set(key, String(value));
  const text = query.toString();
  try {
    return await request<T>(`${path}${text === "" ? "" : `?${text}`}`, signal ? { signal } : {});
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) refused();
    throw error;
  }
}

async function request<T>(path: string, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`api/v1/${path}`, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The server does not answer: is it still running?");
  }
  if (response.ok) return (await response.json()) as T;
  const body = (await response.json().catch(() => null)) as { error?: { code?: string; message?: string } } | null;
  const message = body?.error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  throw new ApiError(response.status, body?.error?.code ?? "", message);
}

export function session(): Promise<Session> {
  return get("session", {});
}

/** Trades a token for a session, which the browser keeps where no script sees it. */
export function logIn(token: string): Promise<Session> {
  const headers = { "content-type": "application/json" };
  return request("session", { method: "POST", headers, body: JSON.stringify({ token }) });
}

export async function logOut(): Promise<void> {
  await request("session", { method: "DELETE" });
}

/** The part of the state that selects samples. */
function range(state: Readonly<State>): Params {
  return { query: state.query || undefined, from: state.from, until: state.until };
}

function selection(state: Readonly<State>): Params {
  return { ...range(state), type: state.type };
}

/** What distinguishes one selection of samples from another. */
export function selectionKey(state: Readonly<State>): string {
  return JSON.stringify(selection(state));
}

/** A flame graph; `root` is the id of a node whose part alone is wanted. */
export function flameGraph(state: Readonly<State>, signal: AbortSignal, root?: string): Promise<FlameGraph> {
  return get(
    "flamegraph",
    {
      ...selection(state),
      group: state.group,
      focus: state.focus || undefined,
      invert: state.focus && state.invert ? true : undefined,
      max_nodes: state.nodes,
      ids: true,
      root,
    },
    signal,
  );
}

export function top(state: Readonly<State>, limit: number, offset: number, signal: AbortSignal): Promise<Top> {
  return get("top", { ...selection(state), by: state.rows, sort: state.sort, limit, offset }, signal);
}

export function series(state: Readonly<State>, step: number, limit: number, signal: AbortSignal): Promise<Series> {
  return get("series", { ...selection(state), by: state.by, step, limit }, signal);
}

export function processes(state: Readonly<State>, signal: AbortSignal): Promise<Covered & { processes: Process[] }> {
  return get("processes", range(state), signal);
}

export function mesh(state: Readonly<State>, signal: AbortSignal): Promise<Mesh> {
  return get("mesh", range(state), signal);
}

/** Sample types, whichever of the two forms the server gives them in. */
export async function types(): Promise<string[]> {
  const answer = await get<{ types?: (string | { name?: string; type?: string })[] }>("types", {});
  return (answer.types ?? []).map((entry) => (typeof entry === "string" ? entry : (entry.name ?? entry.type ?? "")));
}

export async function labels(state: Readonly<State>, signal: AbortSignal): Promise<string[]> {
  return (await get<{ labels: string[] }>("labels", range(state), signal)).labels;
}

export interface Values {
  count: number;
  values: { value: string; samples: number }[];
}

export function values(label: string, state: Readonly<State>, limit: number, signal: AbortSignal): Promise<Values> {
  return get(`labels/${encodeURIComponent(label)}/values`, { ...range(state), limit }, signal);
}

export async function nodes(signal: AbortSignal): Promise<Node[]> {
  return (await get<{ nodes: Node[] }>("nodes", {}, signal)).nodes;
}

export async function accounting(signal: AbortSignal): Promise<Account[]> {
  return (await get<{ instances: Account[] }>("accounting", {}, signal)).instances;
}
