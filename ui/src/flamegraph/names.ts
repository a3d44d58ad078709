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

/** A name without parameters and template arguments: `std::map<…>::find(…) const` becomes `std::map::find`. */
export function plain(name: string): string {
  if (!/[<(]/.test(name) || name.startsWith("[") || name.startsWith("/")) return name;
  let out = "";
  for (let i = 0; i < name.length;) {
    const c = name[i]!;
    const operator = /operator\s*$/.test(out);
    if (c === "(" && !operator && !name.startsWith("(anonymous", i)) {
      // A receiver of Go, `net/http.(*conn).serve`, is part of the name.
      if (out.endsWith(".")) {
        out += name.slice(i, skip(name, i));
        i = skip(name, i);
        continue;
      }
      if (out !== "" && !name.startsWith("::", skip(name, i))) break;
      i = skip(name, i);
    } else if (c === "<" && !operator && out !== "") i = skip(name, i);
    else {
      out += c;
      i += 1;
    }
  }
  out = out.replace(/::::/g, "::").trim();
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

/** Where the `::` before the last telling part stands; `{{closure}}` alone tells nothing. */
function lastPart(name: string): number {
  const last = name.lastIndexOf("::");
  return last > 0 && name[last + 2] === "{" ? name.lastIndexOf("::", last - 1) : last;
}

/** The most telling form of a name in at most `room` characters; empty where nothing sensible fits. */
export function fit(name: string, room: number): string {
  if (name.length <= room) return name;
  if (room < 3) return "";
  const short = remembered(name);
  if (short.length <= room) return short;
  const tail = lastPart(short);
  if (tail > 0 && short.length - tail - 2 + 1 <= room) return `…${short.slice(short.length - room + 1)}`;
  return `${(tail > 0 ? short.slice(tail + 2) : short).slice(0, room - 1)}…`;
}
