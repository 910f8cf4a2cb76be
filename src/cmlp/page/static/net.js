// The network as a picture, and the choice of a unit.

import { T } from "./texts.js";
import { digits, fill, h, table } from "./dom.js";
import { cells, difference, fresh, isTiny, most, netAt, network, setHeight } from "./paint.js";

export function netPanel(app) {
  const canvas = h("canvas", { class: "net", role: "img" });
  const layer = h("input", { type: "number", min: 1, value: 1, "aria-label": T.net.layer, onchange: pick });
  const unit = h("input", { type: "number", min: 0, value: 0, "aria-label": T.net.unit, onchange: pick });
  const off = h("button", { onclick: () => app.send("off", { layer: app.unit[0], unit: app.unit[1] }) }, T.net.off);
  layer.style.width = unit.style.width = "5em";
  const panel = app.panel("middle", 3, T.net.title, "draw train step", ["weights", "row"], canvas,
    h("div", { class: "row" }, h("label", {}, T.net.layer, " ", layer), h("label", {}, T.net.unit, " ", unit), off));
  panel.element.classList.add("net");

  function pick() { app.chooseUnit(Number(layer.value), Number(unit.value)); }

  canvas.addEventListener("click", (event) => {
    const found = netAt(app.sizes, canvas, event.offsetX, event.offsetY, app.unit);
    if (!found || !found[0]) return;
    const [layer, unit, from] = found;
    if (from !== undefined && app.story === "step") app.stories.step.from(from);
    app.chooseUnit(layer, unit);
  });

  panel.draw = () => {
    const tallest = Math.max(app.sizes[0] === 64 ? 8 : app.sizes[0], ...app.sizes.slice(1));
    setHeight(canvas, isTiny(app.sizes) ? 74 * tallest + 10 : Math.min(340, 26 * tallest + 24));
    const mark = app.story === "step" ? app.stories.step.mark() : null;
    const arrays = app.story === "step" ? { ...app.arrays, ...app.stories.step.arrays() } : app.arrays;
    network(canvas, { sizes: app.sizes, arrays, unit: app.unit, classes: app.sizes.at(-1) === 1 ? [app.classes[1] ?? ""] : app.classes, off: app.off, mark }, app.colours);
  };

  // The card of the chosen unit
  const picture = h("canvas", { role: "img", "aria-label": T.card.weights });
  picture.style.width = picture.style.height = "128px";
  const terms = h("div");
  const card = app.panel("middle", 4, T.card.title, "draw train", ["unit"], h("div", { class: "pads unitcard" }, terms,
    h("figure", {}, picture, h("figcaption", {}, T.card.weights))));

  card.on = "unit_terms";
  card.draw = () => {
    const { unit_terms: rows, unit_about: about, unit_w: w } = app.arrays;
    if (!app.plain) fill(terms, T.card.other);
    if (!rows) return;
    const { context, width } = fresh(picture);
    const side = w.length === 64 ? 8 : Math.ceil(Math.sqrt(w.length));
    const top = most(w);
    cells(context, w, side, 0, 0, width / side, (value) => difference(value / top));
    const list = [];
    for (let i = 0; i < rows.shape[0]; i++) list.push([rows[4 * i], ...[1, 2, 3].map((k) => digits(rows[4 * i + k]))]);
    if (about[2]) list.push([T.card.rest(about[2]), "", "", digits(about[3])]);
    list.push([T.card.bias, "", "", digits(about[4])], [T.card.z, "", "", digits(about[5])], [T.card.a, "", "", digits(about[6])]);
    fill(terms, table(T.card.heads, list, `${T.net.layer} ${about[0]}, ${T.net.unit.toLowerCase()} ${about[1]}`));
  };

  return {
    canvas,
    chosen() {
      const [l, u] = app.unit;
      layer.max = app.sizes.length - 1;
      unit.max = app.sizes[l] - 1;
      layer.value = l;
      unit.value = u;
      off.disabled = l >= app.sizes.length - 1;
      off.hidden = app.story !== "draw";
      off.textContent = app.off.has(`${l},${u}`) ? T.net.on : T.net.off;
      canvas.setAttribute("aria-label", T.net.label(app.sizes, l, u));
    },
  };
}
