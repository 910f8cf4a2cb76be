// A table of one's own: columns, training, confusion or pairs, the worst rows, diagnosis.

import { T } from "./texts.js";
import { count, digits, fill, h, table } from "./dom.js";
import { fresh, lines } from "./paint.js";
import { legendItem, showFindings } from "./train.js";

export function tables(app) {
  const S = T.table;
  let bytes = null, curve = { epoch: [], loss: [], held: [] }, result = null;

  const file = h("input", { type: "file", accept: ".csv,.tsv,.txt,text/csv", class: "unseen", tabindex: -1, "aria-hidden": "true", onchange: () => take(file.files[0]) });
  const target = h("select", { "aria-label": S.target, disabled: true });
  const fit = h("button", { disabled: true, onclick: train }, S.fit);
  const stop = h("button", { disabled: true, onclick: () => app.send("stop") }, S.stop);
  const state = h("p", { class: "soft" }, S.privacy);
  app.panel("left", 1, S.title, "table", [], h("div", { class: "drop" },
    h("p", {}, S.drop), h("button", { onclick: () => file.click() }, S.choose), file, " ", h("button", { onclick: example }, S.example)),
    h("div", { class: "row" }, h("label", {}, S.target, " ", target)), h("div", { class: "row" }, fit, stop), state);
  const columns = h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": S.title });
  app.panel("middle", 2, S.title, "table", [], columns);
  const canvas = h("canvas", { role: "img", "aria-label": T.curves.title });
  canvas.style.height = "180px";
  const legend = h("div", { class: "legend" });
  const curves = app.panel("right", 3, T.curves.title, "table", [], legend, canvas);
  const results = h("div");
  const pairs = h("canvas", { role: "img", "aria-label": S.pairs, hidden: true });
  pairs.style.height = "220px";
  const learned = app.panel("middle", 4, S.results, "table", [], results, pairs);
  const share = h("div");
  app.panel("right", 5, S.columns, "table", [], share);
  const diagnosis = h("div");
  app.panel("right", 9, T.diagnosis.title, "table", [], diagnosis);

  async function take(given) {
    if (!given) return;
    if (!given.size) { app.error(S.empty(given.name)); return; }
    if (app.tooLarge(given, app.limits.upload)) return;
    send(new Uint8Array(await given.arrayBuffer()), given.name);
  }

  function send(data, name) {
    bytes = data;
    app.send("upload", { name, size: data.length });
  }

  function example() {
    const rows = ["city,rooms,built,garden,price"];
    let state = 7;
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    for (let i = 0; i < 400; i++) {
      const city = ["Bern", "Oslo", "Porto"][Math.floor(random() * 3)], rooms = 1 + Math.floor(random() * 7), built = 1900 + Math.floor(random() * 120), garden = random() < 0.4;
      const price = 80 + 55 * rooms + { Bern: 220, Oslo: 140, Porto: 0 }[city] + (built - 1900) * 0.6 + (garden ? 60 : 0) + 30 * (random() - 0.5);
      rows.push(`${city},${random() < 0.05 ? "" : rooms},${built},${garden ? "yes" : "no"},${price.toFixed(1)}`);
    }
    send(new TextEncoder().encode(rows.join("\n") + "\n"), "houses.csv");
  }

  function train() {
    curve = { epoch: [], loss: [], held: [] };
    result = null;
    fill(results); fill(share); fill(diagnosis);
    pairs.hidden = true;
    app.send("fit", { target: JSON.parse(target.value) });
  }

  curves.draw = () => {
    fill(legend, legendItem(app.colours.classes[0], false, T.curves.cost), legendItem(app.colours.classes[1], true, T.curves.held));
    lines(canvas, [{ x: curve.epoch, y: curve.loss, colour: app.colours.classes[0] }, { x: curve.epoch, y: curve.held, colour: app.colours.classes[1], dash: [6, 3] }],
      { log: true, xlabel: T.curves.epochs, colours: app.colours });
  };

  learned.draw = () => {
    if (!result?.pairs) return;
    const { context, width, height } = fresh(pairs);
    const all = result.pairs.flat();
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const X = (v) => 30 + (v - low) / (high - low || 1) * (width - 40), Y = (v) => height - 20 - (v - low) / (high - low || 1) * (height - 30);
    context.strokeStyle = app.colours.line;
    context.beginPath(); context.moveTo(X(low), Y(low)); context.lineTo(X(high), Y(high)); context.stroke();
    context.fillStyle = app.colours.classes[0];
    for (const [truth, predicted] of result.pairs) { context.beginPath(); context.arc(X(truth), Y(predicted), 2.5, 0, 7); context.fill(); }
    context.fillStyle = app.colours.soft;
    context.textAlign = "left";
    context.fillText(S.pairs, 34, 10);
    context.fillText(digits(low), X(low), height - 8);
    context.textAlign = "right";
    context.fillText(digits(high), X(high), height - 8);
  };

  function showResult(event) {
    result = event;
    const parts = [];
    if (event.accuracy !== undefined) {
      parts.push(h("p", {}, S.accuracy(`${(100 * event.accuracy).toFixed(1)} %`, event.n, event.held_out)));
      if (event.confusion.length) parts.push(h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": S.confusion }, table(["", ...event.labels], event.confusion.map((row, i) => [event.labels[i], ...row.map((k) => k || "·")]), S.confusion)));
    } else parts.push(h("p", {}, S.r2(digits(event.r2), digits(event.rmse), event.n, event.held_out)));
    pairs.hidden = !event.pairs;
    parts.push(table([...S.worstHeads, event.pairs ? S.error : S.share], event.worst.map(([line, truth, read, value]) => [line, truth, read, digits(value)]), S.worst), event.notes.map((note) => h("p", { class: "soft" }, note)));
    fill(results, parts);
    const top = event.columns[0]?.[1] || 1;
    fill(share, h("div", { class: "bars" }, event.columns.slice(0, 15).map(([name, value]) => {
      const bar = h("i");
      bar.style.transform = `scaleX(${value / top})`;
      return h("div", {}, h("span", {}, name), h("span", { class: "bar" }, bar), h("span", { class: "num" }, digits(value)));
    })));
    if (event.diagnosis) showFindings(diagnosis, event.diagnosis);
  }

  function busy(now) { app.learning(now); fit.disabled = now || !target.options.length; stop.disabled = !now; }

  return {
    take,
    event(event) {
      if (event.type === "ready" && bytes) {
        for (let at = 0; at < bytes.length; at += event.part) app.wire.send(bytes.slice(at, at + event.part));
        bytes = null;
      } else if (event.type === "columns") {
        fill(columns, table(S.heads, event.columns.map((c) => [c.name, c.kind, count(c.missing), count(c.distinct), c.use]), S.rows(count(event.rows), event.name)), event.notes.map((note) => h("p", { class: "soft" }, note)));
        fill(target, event.columns.map((c, i) => h("option", { value: JSON.stringify(c.target), selected: i === event.columns.length - 1 }, c.name)));
        target.disabled = false;
        state.textContent = S.rows(count(event.rows), event.name);
        busy(false);
      } else if (event.type === "fitting") busy(true);
      else if (event.type === "epoch") {
        curve.epoch.push(event.epoch); curve.loss.push(event.loss); curve.held.push(event.val_loss ?? NaN);
        state.textContent = S.training(event.epoch);
        app.redraw();
      } else if (event.type === "fitted") { busy(false); showResult(event); app.say(results.textContent.slice(0, 120)); app.redraw(); }
      else if (event.type === "error") busy(false);
    },
    summary: () => ({ columns: columns.textContent, results: results.textContent, state: state.textContent, shares: share.textContent, epochs: curve.epoch.length }),
  };
}
