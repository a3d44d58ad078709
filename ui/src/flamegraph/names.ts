// Function names in little room: what tells functions apart is the end of the path, not the parameters.

/** Index just behind the bracket group that starts at `from`. */
function skip(text: string, from: number): number {
  let depth = 0;
  for (let i = from; i < text.length; i += 1) {
    const c = text[i];
    if (c === "<" || c === "(" || c === "{") depth += 1;
    else if (c === ")" || c === "}" || (c === ">" && text[i - 1] !== "-")) {
      depth -= 1;
      if (depth === 0) return i + 1;
    }
  }
  return text.length;
}

/**
 * A name without parameters and template arguments: `std::map<…>::find(…) const` becomes `std::map::find`, and
 * Rust's `<Vec<T> as Extend<T>>::extend` becomes `Vec::extend`.
 */
export function plain(name: string): string {
  if (!/[<(]/.test(name) || name.startsWith("[") || name.startsWith("/")) return name;
  if (name.startsWith("<")) {
    const end = skip(name, 0);
    // A name like `<module>` is one as it stands.
    if (!name.startsWith("::", end)) return name;
    const inner = name.slice(1, end - 1);
    const as = inner.search(/ as [\w:]+(<|$|::)/);
    return `${plain(as < 0 ? inner : inner.slice(0, as))}${plain(`x${name.slice(end)}`).slice(1)}`;
  }
  let out = "";
  for (let i = 0; i < name.length;) {
    const c = name[i]!;
    const operator = /operator\s*$/.test(out);
    if (c === "(" && !operator && !name.startsWith("(anonymous", i)) {
      // A receiver of Go, `net/http.(*conn).serve`, is part of the name.
      if (out.endsWith(".")) out += name.slice(i, skip(name, i));
      else if (out !== "" && !name.startsWith("::", skip(name, i))) break;
      i = skip(name, i);
    } else if (c === "<" && !operator && out !== "") i = skip(name, i);
    else {
      out += c;
      i += 1;
    }
  }
  out = out
    .replace(/::(::)+/g, "::")
    .replace(/::$/, "")
    .trim();
  return out === "" ? name : out;
}

const cache = new Map<string, string>();
const CACHE_LIMIT = 50_000;

/** `plain`, remembered, since the same names are drawn in every picture. */
function remembered(name: string): string {
  let short = cache.get(name);
  if (short === undefined) {
    if (cache.size >= CACHE_LIMIT) cache.clear();
    short = plain(name);
    cache.set(name, short);
  }
  return short;
}

/** Where the last telling part of a path begins; `{{closure}}` alone tells nothing. */
function lastPart(name: string): number {
  let at = name.lastIndexOf("::");
  if (at > 0 && name[at + 2] === "{") at = name.lastIndexOf("::", at - 1);
  return at < 0 ? 0 : at + 2;
}

/** The most telling form of a name in at most `room` characters; empty where nothing sensible fits. */
export function fit(name: string, room: number): string {
  if (name.length <= room) return name;
  if (room < 3) return "";
  const short = remembered(name);
  if (short.length <= room) return short;
  // As many whole parts from the end as there is room for.
  let from = lastPart(short);
  if (short.length - from > room) return `${short.slice(from, from + room - 1)}…`;
  for (;;) {
    const before = from > 2 ? short.lastIndexOf("::", from - 3) + 2 : 0;
    if (before < 2 || short.length - before > room) break;
    from = before;
  }
  // Where they leave much room unused, a part that is cut says more: `run` is everywhere, `…PassManager::run` is not.
  if (short.length - from > room * 0.6) return short.slice(from);
  return `…${short.slice(short.length - room + 1)}`;
}
