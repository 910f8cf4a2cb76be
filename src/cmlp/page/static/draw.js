// Draw a digit: a pad for mouse, pen and finger, a grid for keys, and what the network reads.

import { T } from "./texts.js";
import { digits, fill, h } from "./dom.js";
import { amount, cells, fresh } from "./paint.js";

const SIDE = 32, BRUSH = 1.55;

export function draw(app) {
  const ink = new Uint8Array(SIDE * SIDE);
  const undo = [];
  let prepared = null, counts = new Uint8Array(64), last = null, pointer = null, fromPad = false;

  const pad = h("canvas", { class: "pad", role: "img", "aria-label": T.draw.padLabel, tabindex: -1 });
  const scaled = h("canvas", { role: "img", "aria-label": T.draw.prepared });
  const counted = h("canvas", { role: "img", "aria-label": T.draw.counted });
  const cut = h("figure", {}, scaled, h("figcaption", {}, T.draw.prepared)); // of a drawing alone
  for (const canvas of [scaled, counted]) canvas.style.height = "84px";
  const truth = h("p", { class: "soft" });
  const grid = h("div", { class: "grid8", role: "grid", "aria-label": T.draw.keysHelp, hidden: true });
  const squares = Array.from({ length: 64 }, (_, i) => h("span", { role: "gridcell", tabindex: i ? -1 : 0, "data-at": i, onkeydown: gridKey, onclick: (event) => setCell(i, counts[i] ? 0 : 16) }));
  for (let row = 0; row < 8; row++) grid.append(h("div", { role: "row" }, squares.slice(8 * row, 8 * row + 8)));
  const keysButton = h("button", { "aria-pressed": "false", onclick: () => toggleKeys() }, T.draw.keys);

  const padPanel = app.panel("left", 1, T.draw.pad, "draw", [],
    h("div", { class: "pads" }, pad, h("div", {}, cut, h("figure", {}, counted, h("figcaption", {}, T.draw.counted)))),
    h("div", { class: "row" }, button(T.draw.test, () => sample("next")), button(T.draw.wrong, () => sample("wrong")), button(T.draw.undo, takeBack), button(T.draw.clear, clear), keysButton),
    truth, grid, h("p", { class: "soft keyshelp", hidden: true }, T.draw.keysHelp));

  const labels = h("select", { "aria-label": T.draw.label }, Array.from({ length: 10 }, (_, i) => h("option", {}, String(i))));
  const mine = h("p", { class: "soft" }, T.draw.collected(0));
  app.panel("left", 5, T.draw.mine, "draw", [],
    h("div", { class: "row" }, h("label", {}, T.draw.label, " ", labels), button(T.draw.collect, () => app.send("collect", { label: Number(labels.value) })),
      button(T.draw.train, () => app.send("mine")), button(T.draw.forget, () => app.send("forget"))), mine);
  labels.style.width = "4em";

  // The answer
  const reading = h("p", { class: "reading" });
  const second = h("p", { class: "soft" });
  const bars = h("div", { class: "bars" });
  const threshold = h("input", { type: "range", min: 10, max: 99, value: 60, "aria-label": T.draw.threshold, oninput: () => app.redraw() });
  const answer = app.panel("right", 2, T.draw.answer, "draw", ["row"], reading, second, bars, h("label", {}, T.draw.threshold, " ", threshold));
  let barRows = [];
  let spoken = "", timer = 0;

  answer.draw = () => {
    const out = app.arrays[`a${app.sizes.length - 1}`];
    if (!out) return;
    const values = out.length > 1 ? [...out] : [1 - out[0], out[0]];
    const names = app.classes.length ? app.classes : values.map((_, i) => String(i));
    if (barRows.length !== values.length) {
      barRows = values.map((_, i) => {
        const bar = h("i"), value = h("span", { class: "num" });
        return { bar, value, row: h("div", {}, h("span", {}, names[i]), h("span", { class: "bar" }, bar), value) };
      });
      fill(bars, barRows.map((row) => row.row));
    }
    const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a]);
    barRows.forEach((row, i) => {
      row.bar.style.transform = `scaleX(${Math.min(1, Math.max(0, values[i])) || 0})`;
      row.value.textContent = `${(100 * values[i]).toFixed(1)} %`;
      row.row.className = i === order[0] ? "best" : "";
    });
    const share = 100 * values[order[0]];
    const sure = share >= Number(threshold.value);
    reading.textContent = sure ? names[order[0]] : `${names[order[0]]}?`;
    second.textContent = !app.about.step ? T.draw.untrained : (sure ? "" : `${T.draw.unsure}; `) + T.draw.runner(names[order[1]], (100 * values[order[1]]).toFixed(1));
    const text = T.draw.reads(names[order[0]], Math.round(share));
    if (text !== spoken && !app.about.playing) {
      spoken = text;
      clearTimeout(timer);
      timer = setTimeout(() => app.say(text), 700);
    }
  };

  padPanel.draw = () => {
    const { context, width } = fresh(pad);
    const size = width / SIDE;
    if (fromPad) cells(context, ink, SIDE, 0, 0, size, (value) => (value ? "#16191d" : "#ffffff"));
    else cells(context, counts, 8, 0, 0, width / 8, (value) => `rgb(${[0, 1, 2].map(() => 255 - value * 14).join()})`);
    cut.hidden = !prepared || !fromPad;
    const left = fresh(scaled);
    const side = Math.min(left.width, left.height);
    if (!cut.hidden) cells(left.context, prepared, SIDE, 0, 0, side / SIDE, (value) => (value ? "#16191d" : "#ffffff"));
    const right = fresh(counted);
    cells(right.context, counts, 8, 0, 0, Math.min(right.width, right.height) / 8, (value) => amount(value / 16));
    if (!grid.hidden) squares.forEach((square, i) => {
      square.textContent = counts[i] ? Math.round(counts[i] / 2) : "";
      square.style.background = `rgb(${[0, 1, 2].map(() => 255 - counts[i] * 14).join()})`;
      square.style.color = counts[i] > 8 ? "#fff" : "#000";
      square.setAttribute("aria-label", T.draw.cell(Math.floor(i / 8), i % 8, Math.round(counts[i] / 2)));
    });
  };

  // Strokes
  const cellAt = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * SIDE, (event.clientY - box.top) / box.height * SIDE];
  };
  pad.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    if (!fromPad) { ink.fill(0); undo.length = 0; }
    fromPad = true;
    truth.textContent = "";
    undo.push(ink.slice());
    pointer = event.pointerId;
    pad.setPointerCapture(pointer);
    last = cellAt(event);
    stroke(last, last);
    event.preventDefault();
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      const here = cellAt(each);
      stroke(last, here);
      last = here;
    }
  });
  pad.addEventListener("pointerup", (event) => { if (event.pointerId === pointer) { pointer = null; sendInk(true); } });
  pad.addEventListener("pointercancel", (event) => { if (event.pointerId === pointer) { pointer = null; takeBack(); } });

  function stroke(/** @type {number[]} */ [x0, y0], /** @type {number[]} */ [x1, y1]) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)));
    for (let k = 0; k <= steps; k++) {
      const x = x0 + (x1 - x0) * k / steps, y = y0 + (y1 - y0) * k / steps;
      for (let row = Math.max(0, Math.floor(y - BRUSH)); row <= Math.min(SIDE - 1, y + BRUSH); row++) {
        for (let column = Math.max(0, Math.floor(x - BRUSH)); column <= Math.min(SIDE - 1, x + BRUSH); column++) {
          if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= BRUSH ** 2) ink[row * SIDE + column] = 1;
        }
      }
    }
    sendInk(false);
    app.redraw();
  }

  let sentAt = 0, later = 0;
  function sendInk(now) {
    clearTimeout(later);
    const wait = sentAt + 40 - performance.now();
    if (!now && wait > 0) { later = setTimeout(() => sendInk(true), wait); return; }
    sentAt = performance.now();
    let bits = "";
    for (let i = 0; i < ink.length; i += 4) bits += (8 * ink[i] + 4 * ink[i + 1] + 2 * ink[i + 2] + ink[i + 3]).toString(16);
    app.send("ink", { bits });
  }

  function takeBack() {
    if (!undo.length) return;
    ink.set(undo.pop());
    sendInk(true);
    app.redraw();
  }

  function clear() {
    if (fromPad) undo.push(ink.slice());
    ink.fill(0);
    counts.fill(0);
    fromPad = true;
    truth.textContent = "";
    sendInk(true);
    app.redraw();
  }

  function sample(which) { app.send("sample", { which }); }

  // Keys
  function toggleKeys() {
    grid.hidden = !grid.hidden;
    padPanel.element.querySelector(".keyshelp").hidden = grid.hidden;
    keysButton.setAttribute("aria-pressed", String(!grid.hidden));
    app.redraw();
    if (!grid.hidden) squares[0].focus();
  }

  function setCell(i, value) {
    fromPad = false;
    counts[i] = value;
    truth.textContent = "";
    app.send("pixels", { values: [...counts] });
    app.redraw();
  }

  function gridKey(event) {
    const at = Number(event.currentTarget.dataset.at);
    const move = { ArrowLeft: at % 8 ? -1 : 0, ArrowRight: at % 8 < 7 ? 1 : 0, ArrowUp: at > 7 ? -8 : 0, ArrowDown: at < 56 ? 8 : 0 }[event.key];
    if (move !== undefined) {
      squares[at].tabIndex = -1;
      squares[at + move].tabIndex = 0;
      squares[at + move].focus();
    } else if (/^[0-8]$/.test(event.key)) setCell(at, 2 * Number(event.key));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function button(text, act) { return h("button", { onclick: act }, text); }

  return {
    key(event) {
      const key = event.key.toLowerCase();
      if (key === "z" && (event.ctrlKey || event.metaKey)) takeBack();
      else if (event.ctrlKey || event.metaKey || event.altKey) return false;
      else if (key === "delete" || key === "backspace") clear();
      else if (key === "t") sample("next");
      else if (key === "w") sample("wrong");
      else return false;
      return true;
    },
    event(event) {
      if (event.type === "prepared" && fromPad) {
        prepared = Uint8Array.from(event.bits, (c) => parseInt(c, 16)).reduce((all, four) => { all.push(four >> 3 & 1, four >> 2 & 1, four >> 1 & 1, four & 1); return all; }, []);
        counts = Uint8Array.from(event.counts);
      } else if (event.type === "sample" && event.counts.length === 64) {
        fromPad = false;
        counts = Uint8Array.from(event.counts);
        truth.textContent = T.draw.truth(event.truth, event.row);
      } else if (event.type === "state" && event.kind === "digits") {
        app.send("sample", { which: 0 });
      } else if (event.type === "collected") {
        mine.textContent = T.draw.collected(event.n) + event.labels.join(" ");
      } else if (event.type === "mine") {
        mine.textContent = T.draw.trained(event);
        app.say(mine.textContent);
      } else if (event.type === "off") app.net.chosen();
      app.redraw();
    },
    shown() { app.net.chosen && app.sizes && app.net.chosen(); },
    summary: () => ({ counts: [...counts], reading: reading.textContent, bars: barRows.map((row) => row.value.textContent), truth: truth.textContent, mine: mine.textContent }),
  };
}
