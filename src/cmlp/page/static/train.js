// Watch it train: settings, curves, first-layer weights, histograms, wrong rows, diagnosis.

import { T } from "./texts.js";
import { digits, fill, h } from "./dom.js";
import { amount, cells, fresh, histogram, lines, mosaic, setHeight, sizeOf } from "./paint.js";
import { settings } from "./settings.js";

export function train(app) {
  const form = settings(app, "train plane");

  // First-layer weights
  const images = h("canvas", { role: "img", "aria-label": T.images.title });
  const imagePanel = app.panel("middle", 7, T.images.title, "train", ["weights"], images, h("p", { class: "soft" }, T.images.help));
  imagePanel.on = "W1";
  imagePanel.draw = () => {
    const W = app.arrays.W1;
    if (!W) return;
    const [nIn, nOut] = W.shape;
    const side = nIn === 64 ? 8 : Math.ceil(Math.sqrt(nIn));
    const n = Math.min(nOut, 32);
    const across = Math.min(n, Math.max(4, Math.floor(sizeOf(images).width / 68)));
    const size = sizeOf(images).width / across;
    setHeight(images, Math.ceil(n / across) * size);
    mosaic(fresh(images).context, W, n, side, across, size);
  };

  // Curves
  const canvas = h("canvas", { role: "img" });
  canvas.style.height = "190px";
  const score = h("canvas", { role: "img", "aria-label": T.curves.score });
  score.style.height = "110px";
  const legend = h("div", { class: "legend" });
  const drop = h("button", { hidden: true, onclick: () => { app.kept = []; drop.hidden = true; app.redraw(); } }, T.curves.drop);
  const curves = app.panel("right", 4, T.curves.title, "train plane", [], legend, canvas, score,
    h("div", { class: "row" }, h("button", { onclick: keep }, T.curves.keep), drop));
  let labelledAt = 0;

  function keep() {
    const { epoch, loss, held, score: right } = app.curve;
    const s = app.setup;
    app.kept.push({ epoch: [...epoch], loss: [...loss], held: [...held], score: [...right], name: `${s.layers.join("-")} ${s.solver} ${digits(s.learning_rate)} · ${s.batch_size}` });
    app.kept.splice(0, app.kept.length - 6);
    drop.hidden = false;
    app.redraw();
  }

  curves.draw = () => {
    const { colours, curve, kept } = app;
    const kept_ = kept.map((each) => each.name).join();
    if (legend.dataset.kept !== kept_ + colours.ink) fill(legend, legendItem(colours.classes[0], false, T.curves.cost), legendItem(colours.classes[1], true, T.curves.held), legendItem(colours.classes[2], false, T.curves.score),
      kept.map((each) => legendItem(colours.soft, false, each.name)));
    legend.dataset.kept = kept_ + colours.ink;
    const grey = kept.map((each) => ({ x: each.epoch, y: each.loss, colour: colours.soft, width: 1 }));
    lines(canvas, [...grey, { x: curve.epoch, y: curve.loss, colour: colours.classes[0] }, { x: curve.epoch, y: curve.held, colour: colours.classes[1], dash: [6, 3] }],
      { log: true, xlabel: T.curves.epochs, colours });
    lines(score, [...kept.map((each) => ({ x: each.epoch, y: each.score, colour: colours.soft, width: 1 })), { x: curve.epoch, y: curve.score, colour: colours.classes[2] }],
      { high: 1, xlabel: T.curves.epochs, colours });
    if (!app.about.playing || performance.now() - labelledAt > 2000) {
      labelledAt = performance.now();
      const at = curve.loss.length - 1;
      canvas.setAttribute("aria-label", T.curves.label(at + 1, digits(curve.loss[at]), digits(curve.held[at]), digits(curve.score[at])));
    }
  };

  // Histograms
  const hists = h("div");
  const stats = app.panel("right", 7, T.stats.title, "train", ["stats"], hists, h("p", { class: "soft" }, T.stats.first));
  stats.on = "hist1";
  let parts = [];
  stats.draw = () => {
    const n = app.sizes.length - 1;
    if (parts.length !== n) {
      parts = Array.from({ length: n }, (_, i) => {
        const canvas = h("canvas", { role: "img" });
        canvas.style.height = "64px";
        return { canvas, text: h("figcaption", {}) };
      });
      fill(hists, parts.map((part) => h("figure", { class: "hist" }, part.text, part.canvas)));
      for (const figure of hists.children) figure.style.margin = "0 0 8px";
    }
    parts.forEach((part, i) => {
      const now = app.arrays[`hist${i + 1}`];
      if (!now) return;
      histogram(part.canvas, now, app.arrays[`hist_first${i + 1}`], app.arrays[`edge${i + 1}`][0], app.colours);
      const dead = i < n - 1 ? `, ${T.stats.dead} ${Math.round(100 * app.arrays.dead[i])} %` : "";
      part.text.textContent = `${T.stats.layer(i + 1)}: ${T.stats.gradient} ${digits(app.arrays.gradient[i])}${dead}`;
      part.canvas.setAttribute("aria-label", part.text.textContent);
    });
  };

  // Read wrongly
  const list = h("div", { class: "wrongs" });
  const right = h("p", { class: "soft" });
  const wrong = app.panel("right", 8, T.wrong.title, "draw train", ["wrong"], right, list);
  wrong.on = "wrong";
  let shownWrong = "";
  wrong.draw = () => {
    const { wrong: rows, wrong_x: pixels, confusion } = app.arrays;
    if (!rows) return;
    const key = rows.join();
    if (key === shownWrong) return;
    shownWrong = key;
    let [hits, all] = [0, 0];
    const n = confusion.shape[0];
    confusion.forEach((value, i) => { all += value; if (i % (n + 1) === 0) hits += value; });
    right.textContent = T.wrong.right(`${(100 * hits / all).toFixed(1)} %`);
    fill(list, Array.from({ length: pixels ? rows.shape[0] : 0 }, (_, i) => {
      const [row, truth, read] = rows.slice(3 * i, 3 * i + 3);
      const text = T.wrong.item(app.classes[truth], app.classes[read]);
      const small = h("canvas", { role: "img", "aria-hidden": "true", width: 32, height: 32 });
      cells(small.getContext("2d"), pixels.slice(64 * i, 64 * i + 64), 8, 0, 0, 4, (value) => amount(value));
      return h("button", { title: text, "aria-label": text, onclick: () => app.send("sample", { which: row }) }, small, `${app.classes[truth]}→${app.classes[read]}`);
    }));
  };

  // Diagnosis
  const findings = h("div");
  const diagnose = () => app.send("diagnose");
  const judged = app.panel("right", 9, T.diagnosis.title, "train plane", [], h("button", { onclick: diagnose }, T.diagnosis.button), findings);

  return {
    paused() { if (!judged.element.hidden) diagnose(); },
    event(event) {
      form.event(event);
      if (event.type === "state") { shownWrong = ""; fill(findings); }
      if (event.type === "diagnosis") showFindings(findings, event);
    },
    summary: () => ({ images: images.getAttribute("aria-label"), diagnosis: findings.textContent, wrongs: list.children.length, kept: app.kept.length }),
  };
}

/** A line of a legend. */
export function legendItem(colour, dashed, text) {
  const mark = h("i", dashed ? { class: "dashed" } : {});
  mark.style.borderColor = colour;
  return h("span", {}, mark, text);
}

/** What keeps it from learning, in words. */
export function showFindings(element, event) {
  fill(element, event.findings.map((each) => h("div", { class: `finding ${each.severity}` }, h("strong", {}, `${each.severity}: ${each.code}`), h("p", {}, each.meaning), h("p", {}, `→ ${each.advice}`))),
    event.findings.length ? null : h("p", {}, event.looked_at ? T.diagnosis.none : T.diagnosis.first),
    event.looked_at ? h("p", { class: "soft" }, event.looked_at) : null);
}
