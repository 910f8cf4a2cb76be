// Points in two dimensions: recipes and one's own points, regions, lines and units over the plane.

import { T } from "./texts.js";
import { fill, h } from "./dom.js";
import { fresh, marker, regions, setHeight, sizeOf, unitPlane } from "./paint.js";

const MOVE = 0.05;

export function plane(app) {
  const P = T.plane;
  let points = null, chosen = -1, dragged = -1, cross = [0, 0], sendTimer = 0, over = null;

  // Data
  const kind = h("select", { "aria-label": P.kind, onchange: recipe }, Object.entries(P.names).map(([value, name]) => h("option", { value }, name)));
  const n = h("input", { type: "number", min: 8, max: 5000, "aria-label": P.n, onchange: recipe });
  const noise = h("input", { type: "number", min: 0, max: 1, step: 0.01, "aria-label": P.noise, onchange: recipe });
  const label = h("select", { "aria-label": P.classOf }, Array.from({ length: 8 }, (_, i) => h("option", {}, String(i))));
  const text = h("textarea", { rows: 4, "aria-label": P.csv, placeholder: "0.2,0.5,0" });
  app.panel("left", 2, P.data, "plane", [], h("div", { class: "form" }, h("label", {}, P.kind), kind, h("label", {}, P.n), n, h("label", {}, P.noise), noise, h("label", {}, P.classOf), label),
    h("div", { class: "row" }, h("button", { onclick: () => begin({ data_seed: app.setup.data_seed + 1 }) }, P.again), h("button", { onclick: () => setPoints([]) }, P.clear)),
    h("p", { class: "soft" }, P.help), h("label", {}, P.csv, text),
    h("div", { class: "row drop" }, h("button", { onclick: () => paste(text.value) }, P.load), P.drop));
  const [data] = app.panels.splice(-1, 1);
  app.panels.unshift(data); // above the settings, which were made before

  const begin = (fields) => app.send("setup", { fields: { ...fields, epochs: 0, parameters: [], story: "plane" } });

  function recipe() {
    if (kind.value === "points") setPoints(own());
    else { points = null; begin({ data: kind.value, n: Number(n.value), noise: Number(noise.value) }); }
  }

  /** The points on view, all of them, as x, y, label. */
  function own() {
    const found = [];
    for (const part of ["", "_val"]) {
      const X = app.points[`X${part}`], y = app.points[`y${part}`];
      for (let i = 0; y && i < y.length; i++) found.push([X[2 * i], X[2 * i + 1], y[i]].map((value, k) => (k < 2 ? Number(value.toFixed(4)) : value)));
    }
    return found;
  }

  function setPoints(list, later = false) {
    points = list;
    kind.value = "points";
    app.redraw();
    clearTimeout(sendTimer);
    if (!list.length) return;
    sendTimer = setTimeout(() => begin({ data: "points", points: list }), later ? 250 : 0);
  }

  const editable = () => points || (points = app.setup.data === "points" ? app.setup.points.map((row) => [...row]) : own());

  function paste(csv) {
    const found = [];
    const rows = csv.split(/\r?\n/);
    for (let i = 0; i < rows.length; i++) {
      if (!rows[i].trim()) continue;
      const cells = rows[i].split(/[,;\t]/).map((cell) => Number(cell.trim()));
      const good = cells.length === 3 && cells.every(Number.isFinite) && Number.isInteger(cells[2]) && cells[2] >= 0 && cells[2] < 8;
      if (!good && i === 0 && /[a-z]/i.test(rows[0])) continue; // names of columns
      if (!good) { app.error(P.bad(i + 1)); return; }
      found.push(cells);
    }
    if (found.length > app.limits.points) app.error(P.many(found.length, app.limits.points));
    else if (found.length) setPoints(found);
    else app.error(P.bad(1));
  }

  async function take(file) { if (!app.tooLarge(file, app.limits.setup)) paste(await file.text()); }

  // The picture
  const canvas = h("canvas", { class: "plane", role: "img", tabindex: 0, onkeydown: keys });
  canvas.style.aspectRatio = "1";
  canvas.style.touchAction = "none";
  canvas.style.maxWidth = "620px";
  const lines = h("input", { type: "checkbox", checked: true, onchange: () => app.redraw() });
  const shown = h("span", { class: "soft" });
  const panel = app.panel("middle", 1, P.title, "plane", ["regions", "weights"], canvas, h("div", { class: "row" }, h("label", {}, lines, " ", P.lines), h("span", { class: "soft" }, P.held), shown));
  const extent = () => app.points.extent || 1.25;
  const toPlane = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width * 2 - 1) * extent(), (1 - (event.clientY - box.top) / box.height * 2) * extent()];
  };

  panel.draw = () => {
    const { context, width: side } = fresh(canvas);
    const { classes, sure } = app.arrays;
    const layer = over && app.arrays[`unit${over[0]}`];
    if (layer && over[1] < layer.shape[0]) unitPlane(context, pictureOf(layer, over[1]), layer.shape[1], 0, 0, side);
    else if (classes) regions(context, classes, sure, side, app.colours, app.dark.matches);
    shown.textContent = layer ? P.over(...over) : "";
    const X = (x) => (x / extent() + 1) / 2 * side, Y = (y) => (1 - y / extent()) / 2 * side;
    if (lines.checked) firstLayer(context, X, Y, side);
    if (points && app.setup.data !== "points" || points && sendTimer && dragged >= 0) points.forEach((p, i) => dot(context, X(p[0]), Y(p[1]), p[2], false, i === chosen));
    else for (const part of ["", "_val"]) {
      const at = app.points[`X${part}`], y = app.points[`y${part}`];
      for (let i = 0; y && i < y.length; i++) dot(context, X(at[2 * i]), Y(at[2 * i + 1]), y[i], part !== "", false);
    }
    if (document.activeElement === canvas) {
      context.strokeStyle = app.colours.ink;
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(X(cross[0]) - 8, Y(cross[1])); context.lineTo(X(cross[0]) + 8, Y(cross[1]));
      context.moveTo(X(cross[0]), Y(cross[1]) - 8); context.lineTo(X(cross[0]), Y(cross[1]) + 8);
      context.stroke();
    }
    canvas.setAttribute("aria-label", P.label(cross[0].toFixed(2), cross[1].toFixed(2)));
  };

  function dot(context, x, y, label, ringed, marked) {
    context.fillStyle = context.strokeStyle = app.colours.classes[label % 8];
    context.lineWidth = 2;
    marker(context, label, x, y, 4);
    if (label % 8 === 5 || label % 8 === 6) context.stroke(); else context.fill();
    context.strokeStyle = app.colours.back;
    context.lineWidth = 0.8;
    if (label % 8 < 5) context.stroke();
    if (ringed || marked) {
      context.strokeStyle = marked ? app.colours.accent : app.colours.ink;
      context.lineWidth = marked ? 2.5 : 1.2;
      context.beginPath(); context.arc(x, y, 7, 0, 7); context.stroke();
    }
  }

  /** Where the sums of first-layer units are 0; thicker for larger weights. */
  function firstLayer(context, X, Y, side) {
    const { W1, b1 } = app.arrays;
    if (!W1 || W1.shape[0] !== 2) return;
    const n = W1.shape[1];
    for (let j = 0; j < n; j++) {
      const [a, b, c] = [W1[j], W1[n + j], b1[j]];
      const size = Math.hypot(a, b);
      if (size < 1e-6) continue;
      const [x, y] = [-a * c / size ** 2, -b * c / size ** 2];
      const [dx, dy] = [-b / size * 4, a / size * 4];
      context.strokeStyle = app.colours.ink;
      context.globalAlpha = Math.min(0.75, 0.2 + size / 6);
      context.lineWidth = 1;
      context.beginPath(); context.moveTo(X(x - dx), Y(y - dy)); context.lineTo(X(x + dx), Y(y + dy)); context.stroke();
    }
    context.globalAlpha = 1;
  }

  const near = (/** @type {number[]} */ [x, y]) => {
    const list = editable();
    let best = -1, least = 0.06 * extent();
    list.forEach((p, i) => { const d = Math.hypot(p[0] - x, p[1] - y); if (d < least) [best, least] = [i, d]; });
    return best;
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    const here = toPlane(event);
    cross = here;
    const found = near(here);
    if (found < 0) add(here);
    else chosen = dragged = found;
    canvas.focus();
    app.redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (dragged < 0) return;
    const [x, y] = toPlane(event);
    points[dragged] = [Number(x.toFixed(4)), Number(y.toFixed(4)), points[dragged][2]];
    setPoints(points, true);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { dragged = -1; });

  function add(/** @type {number[]} */ [x, y]) {
    editable().push([Number(x.toFixed(4)), Number(y.toFixed(4)), Number(label.value)]);
    chosen = points.length - 1;
    setPoints(points, true);
  }

  function keys(event) {
    const move = { ArrowLeft: [-MOVE, 0], ArrowRight: [MOVE, 0], ArrowUp: [0, MOVE], ArrowDown: [0, -MOVE] }[event.key];
    if (move && !event.shiftKey) cross = cross.map((value, k) => Math.max(-extent(), Math.min(extent(), value + move[k])));
    else if (event.key === "Enter") add(cross);
    else if (event.key === "Delete" || event.key === "Backspace") {
      const found = chosen >= 0 ? chosen : near(cross);
      if (found < 0) return;
      editable().splice(found, 1);
      chosen = -1;
      setPoints(points, true);
    } else return;
    event.preventDefault();
    event.stopPropagation();
    app.redraw();
  }
  for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => app.redraw());

  // Units
  const THUMB = 58;
  const thumbs = h("canvas", { class: "thumbs", role: "img", tabindex: 0, "aria-label": P.units, onkeydown: pointByKeys });
  const units = app.panel("middle", 5, P.units, "plane", ["units"], thumbs, h("p", { class: "soft" }, P.hover));
  units.on = "unit1";
  const pictureOf = (layer, unit) => layer.subarray(unit * layer.shape[1] ** 2, (unit + 1) * layer.shape[1] ** 2);

  /**
   * Where each unit's picture is: [layer, unit, x, y]; and the height of all.
   * @returns {[number[][], number]}
   */
  function thumbPlaces() {
    const across = Math.max(1, Math.floor(sizeOf(thumbs).width / THUMB)), found = [];
    let top = 0;
    for (let layer = 1; app.arrays[`unit${layer}`]; layer++) {
      const n = app.arrays[`unit${layer}`].shape[0];
      for (let j = 0; j < n; j++) found.push([layer, j, (j % across) * THUMB, top + 18 + Math.floor(j / across) * THUMB]);
      top += Math.ceil(n / across) * THUMB + 18;
    }
    return [found, top];
  }

  units.draw = () => {
    const [places, height] = thumbPlaces();
    if (!places.length) return;
    setHeight(thumbs, height);
    const { context } = fresh(thumbs);
    context.textAlign = "left";
    for (const [layer, unit, x, y] of places) {
      const values = app.arrays[`unit${layer}`];
      context.fillStyle = app.colours.soft;
      if (!unit) context.fillText(T.stats.layer(layer), 0, y - 10);
      unitPlane(context, pictureOf(values, unit), values.shape[1], x, y, 54);
      if (over?.[0] === layer && over[1] === unit) {
        context.strokeStyle = app.colours.accent;
        context.lineWidth = 3;
        context.strokeRect(x + 1, y + 1, 52, 52);
      }
    }
  };

  function point(found) {
    if (String(found) === String(over)) return;
    over = found;
    app.redraw();
  }
  for (const name of ["pointermove", "pointerdown"]) thumbs.addEventListener(name, (event) => {
    const found = thumbPlaces()[0].find(([, , x, y]) => event.offsetX >= x && event.offsetX < x + 54 && event.offsetY >= y && event.offsetY < y + 54);
    point(found ? found.slice(0, 2) : null);
  });
  // a finger has left as soon as it has tapped: what it chose stays
  for (const name of ["pointerleave", "blur"]) thumbs.addEventListener(name, (event) => event.pointerType === "touch" || point(null));

  function pointByKeys(event) {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const [places] = thumbPlaces();
    if (!move || event.shiftKey || !places.length) return;
    const at = over ? places.findIndex(([layer, unit]) => layer === over[0] && unit === over[1]) : move > 0 ? -1 : 0;
    point(places.at((at + move) % places.length).slice(0, 2));
    app.say(P.over(...over));
    event.preventDefault();
    event.stopPropagation();
  }

  return {
    take,
    key(event) { return event.target === canvas && /^(Arrow|Enter|Delete|Backspace)/.test(event.key) && !event.shiftKey; },
    event(event) {
      if (event.type !== "state") return;
      if (event.kind !== "plane") return;
      if (event.setup.data !== "points" || dragged < 0) points = null;
      if (P.names[event.setup.data]) kind.value = event.setup.data;
      n.value = event.setup.n;
      noise.value = event.setup.noise;
      n.disabled = noise.disabled = event.setup.data === "points";
      fill(label, Array.from({ length: 8 }, (_, i) => h("option", { selected: String(i) === label.value }, String(i))));
    },
    summary: () => ({ over, data: app.setup?.data, classes_on_grid: app.arrays.classes ? [...app.arrays.classes] : null, canvas: canvas.getAttribute("aria-label") }),
  };
}
