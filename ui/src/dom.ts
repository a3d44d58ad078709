// The one way to make elements: a typed `h`, and a few things every panel needs.

type Child = Node | string | null | undefined | false;

/** Attributes, `on…` handlers, and `class`; a value of `null` or `false` leaves the attribute out. */
export type Props = Record<
  string,
  string | number | boolean | null | undefined | ((event: never) => void) | ((event: Event) => void)
>;

/** Makes an element. Text is always set as text, so nothing a profile contains becomes markup. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value as (event: Event) => void);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/** Replaces what an element contains. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...children.filter((child): child is Node | string => Boolean(child)));
}

const SVG = "http://www.w3.org/2000/svg";

/** A 16-unit icon from one path, drawn with the text's colour. Decoration only: hidden from readers. */
export function icon(path: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

/** Sets a property of an element's own style. Done by script, which the content security policy allows. */
export function style(element: HTMLElement, values: Record<string, string>): void {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(name, value);
}

/** Fills a `<select>` with pairs of value and text and chooses one, adding it where it is missing. */
export function options(
  select: HTMLSelectElement,
  pairs: readonly (readonly [string, string])[],
  chosen: string,
): void {
  const all = pairs.some(([value]) => value === chosen) ? pairs : [...pairs, [chosen, chosen] as const];
  fill(select, ...all.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  select.value = chosen;
}
