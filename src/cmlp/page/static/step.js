// Step through backpropagation: stations with their formulas and numbers, and one weight that can be moved.

import { T } from "./texts.js";
import { fill, h, math, mathText, table } from "./dom.js";
import { lines } from "./paint.js";

export function step(app) {
  const S = T.step;
  let cards = null, at = 0, valley = null, first = true;

  // Rows
  const which = h("select", { "aria-label": S.rows }, ["view", "batch", "setup", "numbers"].map((name) => h("option", { value: name }, S[name])));
  const numbers = h("input", { "aria-label": S.numbers, value: "0", size: 8 });
  const shownRow = h("input", { type: "number", min: 0, value: 0, "aria-label": S.row, onchange: () => app.send("trace", { row: Number(shownRow.value) }) });
  shownRow.style.width = "4em";
  const undo = h("button", { onclick: () => app.send("undo") }, S.undo);
  const note = h("p", { class: "soft" }, S.plain);
  app.panel("left", 1, S.rows, "step", [], which, h("div", { class: "row" }, h("label", {}, S.numbers, " ", numbers), h("button", { onclick: () => trace(true) }, S.go)),
    h("div", { class: "row" }, h("label", {}, S.row, " ", shownRow)),
    h("div", { class: "row" }, h("button", { onclick: () => app.send("apply") }, S.take), undo, h("button", { onclick: () => trace(true) }, S.copy)),
    h("div", { class: "row" }, h("button", { onclick: () => app.send("setup", { fields: app.byHand, new: true }) }, S.lesson)), note);

  function trace(fresh) {
    const rows = which.value === "numbers" ? numbers.value.split(/[\s,;]+/).filter(Boolean).map(Number) : which.value;
    app.send("trace", { rows, fresh });
  }

  // Stations
  const list = h("ol", { class: "stations" });
  const card = h("div", { "aria-live": "off" });
  app.panel("middle", 2, T.stories.step, "step", ["row"], list, h("div", { class: "row" },
    h("button", { onclick: () => go(at - 1), title: S.previous, "aria-label": S.previous }, "←"), h("button", { onclick: () => go(at + 1), title: S.next, "aria-label": S.next }, "→")), card);

  function go(to) {
    if (!cards) return;
    at = Math.min(Math.max(0, to), cards.stations.length - 1);
    show();
    const station = cards.stations[at];
    app.say(`${station.title}. ${mathText(station.numbers)}`);
    app.redraw();
  }

  function show() {
    const { stations } = cards;
    fill(list, stations.map((station, i) => h("li", {}, h("button", { "aria-pressed": String(i === at), title: station.title, onclick: () => go(i) }, station.key.replace("delta", "δ").replace("dW", "∂W")))));
    const station = stations[at];
    fill(card, h("h3", {}, station.title),
      h("p", { class: "soft" }, S.symbols), h("div", { class: "formula", tabindex: 0, role: "group", "aria-label": S.symbols }, math(station.symbols)),
      station.numbers.length ? [h("p", { class: "soft" }, S.numbers_), h("div", { class: "formula numbers", tabindex: 0, role: "group", "aria-label": S.numbers_ }, math(station.numbers))] : null,
      station.mean && station.rows > 1 ? h("p", {}, S.mean(station.mean, station.rows)) : null,
      station.values.length ? [h("p", { class: "soft" }, S.values), values(station.values, station.unit)] : null,
      station.target ? [h("p", { class: "soft" }, S.target), values(station.target)] : null,
      station.shapes.length ? h("p", { class: "soft" }, `${S.shapes}: ${station.shapes.map(([name, shape]) => `${name.replace("delta", "δ")} (${shape.join(" × ")})`).join(", ")}`) : null);
  }

  const values = (list, chosen) => h("div", { class: "values" }, list.map((value, i) => h("span", { class: i === chosen ? "chosen" : null }, value.replace("-", "−"))));

  // One weight
  const layer = h("input", { type: "number", min: 1, value: 1, "aria-label": S.layer, onchange: choose });
  const from = h("input", { type: "number", min: -1, value: 0, "aria-label": S.from, onchange: choose });
  const to = h("input", { type: "number", min: 0, value: 0, "aria-label": S.to, onchange: choose });
  const canvas = h("canvas", { role: "img", "aria-label": S.valley });
  canvas.style.height = "190px";
  const facts = h("p", { class: "facts" });
  const nudge = h("input", { type: "range", min: -1, max: 1, step: "any", "aria-label": S.nudge, oninput: move, onchange: () => { first = true; } });
  const terms = h("div");
  const weight = app.panel("right", 4, S.weight, "step", [], h("div", { class: "form" }, h("label", {}, S.layer), layer, h("label", {}, S.from), from, h("label", {}, S.to), to),
    canvas, facts, h("label", {}, S.nudge, nudge), h("h3", {}, S.made), terms);

  function choose() { app.send("weight", { layer: Number(layer.value), i: Number(from.value), j: Number(to.value) }); }

  let movedAt = 0, later = 0;
  function move() {
    clearTimeout(later);
    const wait = movedAt + 60 - performance.now();
    if (wait > 0) { later = setTimeout(move, wait); return; }
    movedAt = performance.now();
    app.send("nudge", { value: Number(nudge.value), first });
    first = false;
  }

  weight.draw = () => {
    if (!valley) return;
    lines(canvas, [{ x: valley.w, y: valley.C, colour: app.colours.classes[0] }], { xlabel: "w", colours: app.colours, point: { x: valley.value, y: valley.cost }, tangent: valley.slope });
  };

  function showValley() {
    facts.textContent = S.facts(valley.text).replaceAll("-", "−");
    canvas.setAttribute("aria-label", `${S.valley}: ${facts.textContent}`);
    if (document.activeElement !== nudge) {
      nudge.min = valley.w[0];
      nudge.max = valley.w.at(-1);
      nudge.value = valley.value;
    }
    layer.value = valley.layer; from.value = valley.i; to.value = valley.j;
    fill(terms, table(S.heads, [...valley.terms.map((row, i) => [i, ...row]), ["", "", S.sum, valley.text.slope]]));
    app.redraw();
  }

  return {
    mark: () => (cards ? cards.stations[at].layer : null),
    arrays: () => {
      const found = {};
      (cards?.weights || []).forEach((W, i) => { found[`W${i + 1}`] = Object.assign(W.flat(), { shape: [W.length, W[0].length] }); found[`b${i + 1}`] = cards.biases[i]; });
      for (const station of cards?.stations || []) {
        if (station.key === "x" || /^a\d+$/.test(station.key)) found[station.key] = station.values.map(Number);
      }
      return found;
    },
    from(input) { from.value = input; },
    unit() { if (cards) { app.send("trace", { layer: app.unit[0], unit: app.unit[1] }); app.send("weight", { layer: app.unit[0], i: Number(from.value), j: app.unit[1] }); } },
    key(event) {
      if (event.shiftKey || event.ctrlKey || event.altKey || !cards) return false;
      if (event.key === "ArrowRight") go(at + 1);
      else if (event.key === "ArrowLeft") go(at - 1);
      else return false;
      return true;
    },
    shown() {
      which.value = app.setup?.rows.length ? "setup" : "view";
      if (app.setup) { trace(true); app.chooseUnit(...app.unit); }
    },
    event(event) {
      if (event.type === "state") {
        cards = valley = null;
        at = 0;
        if (app.story === "step") this.shown();
      } else if (event.type === "cards") {
        const begins = !cards;
        cards = event;
        shownRow.value = event.row;
        shownRow.max = event.rows - 1;
        undo.disabled = !event.undo;
        undo.textContent = event.undo ? S.undoing(event.undo) : S.undo;
        note.textContent = [S.plain, event.plain ? "" : S.noise, which.value === "view" && !event.viewed ? S.unlabelled : ""].join(" ");
        at = Math.min(at, event.stations.length - 1);
        show();
        if (begins) app.send("weight", { layer: 1, j: 0 });
        app.redraw();
      } else if (event.type === "valley") { valley = event; showValley(); }
    },
    summary: () => ({ stations: cards?.stations.map((s) => ({ key: s.key, result: s.result, values: s.values })), station: cards?.stations[at].key, card: card.textContent, valley, facts: facts.textContent, undo: cards?.undo, cost: cards?.cost }),
  };
}
