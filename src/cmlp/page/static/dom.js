// Elements without a library. Text goes in as text, never as HTML.

/** Make an element: attributes, `on...` listeners, children that are text or elements. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  return fill(element, children);
}

const MATH = "http://www.w3.org/1998/Math/MathML";
const MATH_TAGS = new Set(["math", "mrow", "mi", "mo", "mn", "mtext", "msub", "msup", "munder"]);

/** Make MathML of nodes such as ["msub", ["mi", "z"], ["mn", "1"]]: a piece for each term, so that lines break. */
export function math(nodes) {
  const pieces = [];
  for (const node of nodes) {
    const begins = node[0] === "mo" && (node[1] === "=" || node[1] === "+");
    if (begins || !pieces.length) pieces.push(document.createElementNS(MATH, "math"));
    pieces.at(-1).append(mathNode(node));
  }
  return pieces.flatMap((piece) => [piece, " "]);
}

function mathNode([tag, ...children]) {
  const element = document.createElementNS(MATH, MATH_TAGS.has(tag) ? tag : "mtext");
  if (tag === "mo") element.setAttribute("stretchy", "false");
  element.append(...children.map((child) => (typeof child === "string" ? child.replaceAll("-", "−") : mathNode(child))));
  return element;
}

/** The text of formula nodes, for those who listen. */
export function mathText(nodes) {
  return nodes.map(([tag, ...children]) =>
    children.map((child) => (typeof child === "string" ? child : mathText([child]))).join(tag === "msub" ? " " : "")
  ).join(" ");
}

/** Replace the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child != null));
  return element;
}

/** A table of text, with a heading row. */
export function table(heads, rows, caption) {
  return h("table", {},
    caption ? h("caption", {}, caption) : null,
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, typeof cell === "string" ? cell.replace(/^-(?=[\d.])/, "−") : String(cell)))))));
}

/** A number with about four digits. */
export function digits(value, n = 3) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const text = Math.abs(value) >= 1e5 || Math.abs(value) < 1e-4 ? value.toExponential(n - 1) : value.toPrecision(n);
  return (text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text).replace("-", "−");
}

/** A count with thousands apart. */
export const count = (value) => Math.round(value).toLocaleString("en");
