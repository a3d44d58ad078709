// The query language, as far as a text field needs it: reading conditions, adding one, and knowing what is being typed.

export interface Condition {
  label: string;
  op: "=" | "!=" | "=~" | "!~";
  value: string;
}

const CONDITION = /^\s*("(?:[^"\\]|\\.)*"|[A-Za-z_][\w.]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)/;

/** The selector with its braces, `""` for nothing. */
export function normalise(text: string): string {
  const inner = strip(text);
  return inner === "" ? "" : `{${inner}}`;
}

function strip(text: string): string {
  return text.trim().replace(/^\{/, "").replace(/\}$/, "").trim().replace(/,$/, "");
}

/** The conditions of a selector, or `null` where it is not (yet) a whole one. */
export function conditions(text: string): Condition[] | null {
  let rest = strip(text);
  const found: Condition[] = [];
  while (rest !== "") {
    const match = CONDITION.exec(rest);
    if (!match) return null;
    const [all, name = "", op = "=", value = ""] = match;
    const label = name.startsWith('"') ? unescape(name.slice(1, -1)) : name;
    found.push({ label, op: op as Condition["op"], value: unescape(value) });
    rest = rest.slice(all.length);
  }
  return found;
}

/** Writes conditions as a selector. */
export function write(list: readonly Condition[]): string {
  if (list.length === 0) return "";
  return `{${list.map(({ label, op, value }) => `${name(label)}${op}"${escape(value)}"`).join(", ")}}`;
}

/** A label as it stands in a selector: quoted where it has to be. */
export function name(label: string): string {
  return /^[A-Za-z_]\w*$/.test(label) ? label : `"${escape(label)}"`;
}

/** The selector with `label = value` (or `!=`) in it. Equal conditions on the same label are replaced. */
export function narrow(text: string, label: string, value: string, op: "=" | "!=" = "="): string {
  const list = conditions(text) ?? [];
  const kept = list.filter(
    (c) => c.label !== label || (op === "!=" ? c.op !== "=" && c.value !== value : c.op === "!="),
  );
  return write([...kept, { label, op, value }]);
}

/** What stands at the cursor: the start of a label name or of a value, and where it begins. */
export interface Typing {
  what: "label" | "value";
  /** Label whose value is being typed. */
  label: string;
  /** What is there of it up to the cursor. */
  prefix: string;
  /** Where it begins, and where it ends beyond the cursor. */
  start: number;
  end: number;
  /** The other whole conditions, which narrow what can be suggested. */
  others: string;
}

/** Finds out what is being typed at `cursor`. */
export function typing(text: string, cursor: number): Typing | null {
  let at = 0;
  while (at < cursor && /[\s{,]/.test(text[at] ?? "")) at += 1;
  const before: Condition[] = [];
  for (;;) {
    const match = CONDITION.exec(text.slice(at).replace(/\}\s*$/, ""));
    if (!match || at + match[0].length > cursor || !/,\s*$/.test(match[0])) break;
    before.push(...(conditions(match[0].replace(/,\s*$/, "")) ?? []));
    at += match[0].length;
    while (at < cursor && /[\s,]/.test(text[at] ?? "")) at += 1;
  }
  const others = write(before);
  const here = text.slice(at, cursor);
  const value = /^\s*("(?:[^"\\]|\\.)*"|[A-Za-z_][\w.]*)\s*(?:=~|!~|!=|=)\s*("?)((?:[^"\\]|\\.)*)$/.exec(here);
  if (value) {
    const [, label = "", , prefix = ""] = value;
    const rest = /^(?:[^"\\]|\\.)*"?/.exec(text.slice(cursor))?.[0] ?? "";
    const end = rest.endsWith('"') ? cursor + rest.length : cursor;
    const start = cursor - prefix.length - (value[2] === '"' ? 1 : 0);
    return { what: "value", label: label.replace(/^"|"$/g, ""), prefix: unescape(prefix), start, end, others };
  }
  const label = /^"?[\w.]*$/.exec(here);
  if (!label) return null;
  const rest = /^[\w.]*"?/.exec(text.slice(cursor))?.[0] ?? "";
  return { what: "label", label: "", prefix: here.replace(/^"/, ""), start: at, end: cursor + rest.length, others };
}

/** A value as it stands between quotes. */
export function escape(value: string): string {
  return value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}

function unescape(text: string): string {
  return text.replace(/\\(.)/g, (_, c: string) => (c === "n" ? "\n" : c));
}
