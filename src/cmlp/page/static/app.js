// The page: what it knows of the run, its frame, its keys; the stories draw themselves.

import { T } from "./texts.js";
import { count, digits, fill, h, table } from "./dom.js";
import { palette } from "./paint.js";
import { readFrame } from "./wire.js";
import { netPanel } from "./net.js";
import { draw } from "./draw.js";
import { train } from "./train.js";
import { step } from "./step.js";
import { plane } from "./plane.js";
import { tables } from "./table.js";
import { decodeSetup, sharing } from "./share.js";

const SPEEDS = [1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 0];
const WIDTHS = { mid: 1100, thin: 720 }; // of the page, which in a notebook is not the window's
const MEDIA = { calm: "(prefers-reduced-motion: reduce)", dark: "(prefers-color-scheme: dark)" };
const SPOKEN_EVERY = 10000, HIDDEN_PAUSE = 600000;

/** Begin the page in an element; `connect` makes a transport. */
export function start(root, connect, options = {}) {
  const wire = connect(); // it opens while the page is built
  root.classList.add("cmlp-play");
  const app = new App(root, options);
  Object.assign(window, { cmlpTest: { app, state: () => app.summary() } });
  app.connect(wire);
  return app;
}

class App {
  constructor(root, options) {
    this.root = root;
    this.options = options;
    this.arrays = {};
    this.about = { step: 0, epoch: 0, batch: 0, batches: 1, furthest: 0, earliest: 0, playing: false, rate: 0 };
    this.curve = { epoch: [], step: [], loss: [], held: [], score: [] };
    // of the state that the engine tells
    this.setup = this.family = this.kind = this.ownKind = this.plain = undefined;
    /** @type {number[] | undefined} */ this.sizes = undefined;
    /** @type {string[]} */ this.classes = [];
    this.kept = [];
    this.points = {};
    this.unit = [1, 0];
    this.off = new Set();
    this.arrived = new Set(); // names of arrays since the last drawing: a panel is drawn when its own are among them
    this.drawings = 0;
    this.owed = 0; // frames that are drawn; credit for them goes back as soon as they are enough
    this.enough = 1;
    this.calm = matchMedia(MEDIA.calm);
    this.dark = matchMedia(MEDIA.dark);
    this.colours = palette(root);
    this.dark.addEventListener("change", () => { this.colours = palette(root); this.redraw(); });
    this.build();
    // after a click with the mouse the keys are the page's again, not the button's or the slider's
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button, input[type=range]");
      if (event.detail && button && button === document.activeElement && !button.closest("dialog")) button.blur();
    });
    (options.keys || document).addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("visibilitychange", () => this.visibility());
    root.addEventListener("cmlp-resized", () => this.redraw());
    for (const name of ["dragover", "drop"]) root.addEventListener(name, (event) => this.dropped(event));
    new ResizeObserver(() => { this.fit(); this.redraw(); }).observe(root);
  }

  // The frame of the page

  build() {
    this.live = h("p", { class: "unseen", "aria-live": "polite", id: "live" });
    this.lamp = h("span", { class: "lamp", title: T.lampHelp }, T.lamp.off);
    this.seed = h("span", { class: "soft" });
    this.fault = h("div", { class: "fault", role: "alert", hidden: true },
      h("p"), h("button", { onclick: () => { this.fault.hidden = true; } }, T.close));
    this.tabs = {};
    const tabs = Object.entries(T.stories).map(([name, text]) =>
      (this.tabs[name] = h("button", { title: T.storyHelp[name], onclick: () => this.choose(name) }, text)));
    this.columns = { left: h("div", { class: "column left" }), middle: h("div", { class: "column middle" }), right: h("div", { class: "column right" }) };
    this.panels = [];
    this.net = netPanel(this);
    this.stories = { draw: draw(this), train: train(this), step: step(this), plane: plane(this), table: tables(this) };
    this.sharing = sharing(this);
    this.keysDialog = h("dialog", { "aria-label": T.help }, table([T.help, ""], T.keys), h("div", { class: "row" },
      h("p", { class: "soft core" }), h("button", { onclick: () => this.keysDialog.close() }, T.close)));
    this.numbers = h("dialog", { "aria-label": T.numbers.title });
    const parts = [
      h("header", {}, h("h1", {}, T.title), h("nav", { "aria-label": "stories" }, tabs), h("span", { class: "spring" }), this.lamp, this.seed,
        h("button", { onclick: () => this.keysDialog.showModal(), "aria-label": T.help }, "?"),
        h("button", { onclick: () => this.sharing.open() }, T.share)),
      this.fault, h("div", { class: "columns" }, this.columns.left, this.columns.middle, this.columns.right),
      this.transport(), this.live, this.keysDialog, this.sharing.dialog, this.numbers,
    ];
    // laid out once, with the first frame; a slow engine's page comes without it
    this.attach = () => { this.attach = () => {}; fill(this.root, parts); this.fit(); };
    setTimeout(() => this.attach(), 300);
    this.arrange();
    this.show("draw");
    this.say(T.connecting);
  }

  /** Add a panel to a column; `stories` show it, `look` are the parts of a frame that it needs, `order` is its place on a phone. */
  panel(column, order, title, stories, look, ...children) {
    const id = `panel-${this.panels.length}`;
    const element = h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), ...children);
    const panel = { column, order, element, stories: stories.split(" "), look, title, draw: null };
    this.panels.push(panel);
    return panel;
  }

  /** Choose the layout for the width of the page. */
  fit() {
    for (const [name, most] of Object.entries(WIDTHS)) this.root.classList.toggle(name, this.root.clientWidth <= most);
    if (this.root.classList.contains("thin") !== this.narrow) this.arrange();
  }

  /** Three columns, or on a narrow screen one, in the order of reading. */
  arrange() {
    const narrow = this.narrow = this.root.classList.contains("thin");
    const panels = narrow ? [...this.panels].sort((a, b) => a.order - b.order) : this.panels;
    for (const panel of panels) this.columns[narrow ? "middle" : panel.column].append(panel.element);
    this.showColumns();
  }

  showColumns() {
    for (const column of Object.values(this.columns)) column.hidden = [...column.children].every((panel) => panel.hidden);
  }

  transport() {
    const C = T.controls;
    const button = (name, text, act) => h("button", { title: C[name], "aria-label": C[name], onclick: act, "data-control": name }, text);
    this.runButton = button("run", "▶", () => this.toggle());
    this.speed = h("input", { type: "range", min: 0, max: SPEEDS.length - 1, step: 1, "aria-label": C.speed,
      oninput: () => this.setSpeed() });
    this.timeline = h("input", { type: "range", min: 0, max: 1, value: 0, "aria-label": C.timeline, onchange: () => this.send("seek", { step: Number(this.timeline.value) }) });
    this.statusText = h("span", { class: "status" });
    this.footer = h("footer", {},
      button("first", "«", () => this.send("back", { n: 1, epochs: true })), button("back", "‹", () => this.send("back", { n: 1 })),
      this.runButton, button("step", "›", () => this.send("step", { n: 1 })), button("epoch", "»", () => this.send("step", { n: 1, epochs: true })),
      h("label", {}, this.speed, this.pace = h("span", { class: "soft pace" })), this.statusText,
      h("span", { class: "timeline", title: C.timeline }, this.timeline),
      h("span", {}, button("again", T.again, () => this.send("reset")), " ", button("fresh", T.fresh, () => this.newSeed())));
    return this.footer;
  }

  // The wire

  connect(wire) {
    this.wire = wire;
    const setup = this.options.kept || (this.options.link ? decodeSetup(this.options.link) : undefined);
    if (setup === null) this.error(T.badLink);
    this.wire.open(setup || undefined, (data) => this.receive(data), (code) => {
      this.about = { ...this.about, playing: false };
      this.playing(false);
      if (code !== 1013) this.error(code === 1008 ? T.refused : T.closed); // 1013: too many pages, as it has told
    }, () => this.look()); // so that the first frame has what is on view
  }

  /** Begin anew with the set-up of an address. */
  use(link) {
    const fields = link && decodeSetup(link);
    if (fields) this.send("setup", { fields, new: true });
    else if (link) this.error(T.badLink);
  }

  send(type, fields = {}) { this.wire.send(JSON.stringify({ type, ...fields })); }

  receive(data) {
    if (typeof data === "string") {
      const event = JSON.parse(data);
      if (this[`on_${event.type}`]) this[`on_${event.type}`](event);
      for (const story of Object.values(this.stories)) story.event?.(event);
      this.sharing.event(event);
      return;
    }
    const { arrays, about } = readFrame(data);
    if (about.kind === "frame") this.frame(arrays, about);
    else if (about.kind === "data") { this.points = { ...arrays, extent: about.extent }; this.redraw(); }
    else this.sharing.file(about.name, arrays.bytes);
  }

  frame(arrays, about) {
    Object.assign(this.arrays, arrays);
    const was = this.about.playing;
    this.about = about;
    this.takeCurve(arrays.curve, about.curve_from);
    for (const name of Object.keys(arrays)) this.arrived.add(name);
    this.owed += 1;
    this.framed = true;
    if (was !== about.playing) this.playing(about.playing);
    this.redraw(false);
  }

  takeCurve(rows, from) {
    const names = ["epoch", "step", "loss", "held", "score"];
    if (this.curve.epoch.length > from) for (const name of names) this.curve[name].length = from;
    for (let i = 0; i < rows.shape[0]; i++) names.forEach((name, k) => this.curve[name].push(rows[5 * i + k]));
  }

  /** Draw at the next tick; a hidden page answers once a second, without drawing. */
  redraw(wholly = true) {
    this.wholly ||= wholly;
    if (this.waiting) return;
    this.waiting = true;
    const wait = this.calm.matches && this.about.playing ? 500 - (performance.now() - (this.drawnAt || 0)) : 0;
    if (document.hidden) setTimeout(() => this.tick(false), 1000);
    else if (wait > 0) setTimeout(() => requestAnimationFrame(() => this.tick(true)), wait);
    else requestAnimationFrame(() => this.tick(true));
  }

  tick(shows) {
    this.waiting = false;
    const credit = shows ? this.owed : Math.min(1, this.owed); // hidden: a frame a second
    if (credit && (credit >= this.enough || !shows)) {
      this.send("more", { credit });
      this.owed -= credit;
    }
    if (!shows || !this.setup || !this.framed) return;
    this.attach();
    this.drawnAt = performance.now();
    const { arrived, wholly } = this;
    this.arrived = new Set();
    this.wholly = false;
    for (const panel of this.panels) {
      if (!panel.element.hidden && panel.draw && (wholly || !panel.on || arrived.has(panel.on))) panel.draw();
    }
    this.status();
    if (!this.drawings) performance.mark("cmlp-first-picture");
    this.drawings += 1;
  }

  // Events of the engine

  on_welcome(event) {
    this.vocabulary = event.vocabulary;
    this.limits = event.limits;
    this.byHand = event.by_hand;
    this.enough = event.credit / 2;
    this.keysDialog.querySelector(".core").textContent = T.core(event.core) + (event.core.startsWith("python") ? ` ${T.slow}` : "");
    this.say("");
  }

  on_state(event) {
    const anew = !this.setup;
    this.setup = event.setup;
    Object.assign(this, { family: event.family, sizes: event.sizes, classes: event.classes, kind: event.kind, plain: event.plain });
    for (const name of Object.keys(this.arrays)) if (name !== "curve") delete this.arrays[name];
    this.off.clear();
    this.unit = [Math.min(this.unit[0], this.sizes.length - 1), 0];
    this.seed.textContent = T.seed(this.setup.seed);
    this.speed.value = Math.max(0, SPEEDS.indexOf(this.setup.speed));
    this.setSpeed(true);
    if (event.setup.data === "own") this.ownKind = event.kind;
    this.sharing.apply();
    this.options.keep?.(this.setup);
    if (anew || this.setup.story !== this.story) this.show(this.setup.story);
    else this.look();
    if (this.unit[0] > 1) this.chooseUnit(...this.unit); // (1, 0) is where each run begins
    else this.chosen();
  }

  on_changed(event) {
    Object.assign(this.setup, event.fields);
    this.options.keep?.(this.setup);
  }

  on_error(event) { this.error(event.field && !event.text.startsWith(event.field) ? `${event.field}: ${event.text}` : event.text); }

  on_note(event) { const text = T.notes[event.code]?.(event); if (text) this.say(text, true); }

  on_off(event) { this.off = new Set(event.units.map((unit) => unit.join(","))); this.redraw(); }

  error(text) {
    this.attach();
    this.fault.querySelector("p").textContent = text;
    this.fault.hidden = false;
  }

  /** Tell those who listen; with `shown` also those who look. */
  say(text, shown = false) {
    this.live.textContent = text;
    if (shown) this.error(text);
  }

  /** Light the lamp. */
  learning(now) {
    this.lamp.textContent = now ? T.lamp.on : T.lamp.off;
    this.lamp.classList.toggle("on", now);
  }

  playing(now) {
    this.learning(now);
    this.runButton.textContent = now ? "❚❚" : "▶";
    const label = now ? T.controls.pause : T.controls.run;
    this.runButton.title = label;
    this.runButton.setAttribute("aria-label", label);
    this.spokenAt = performance.now();
    if (!now) this.stories.train.paused();
  }

  status() {
    const { about } = this;
    const text = T.status({ ...about, rate: about.playing && about.rate ? count(about.rate) : "" });
    if (this.statusText.textContent !== text) this.statusText.textContent = text;
    this.timeline.min = about.earliest;
    this.timeline.max = Math.max(1, about.furthest);
    if (document.activeElement !== this.timeline || about.playing) this.timeline.value = about.step;
    if (about.playing && performance.now() - this.spokenAt > SPOKEN_EVERY) {
      this.spokenAt = performance.now();
      const at = this.curve.loss.length - 1;
      if (at >= 0) this.say(T.spoken({ epoch: about.epoch, loss: digits(this.curve.loss[at]), score: Number.isFinite(this.curve.score[at]) ? Math.round(100 * this.curve.score[at]) : "" }));
    }
  }

  // What the user does

  /** Go to a story, which may be about other data. */
  choose(name) {
    const own = this.ownKind && "own"; // rows of a program may be digits or points, too
    let family = { draw: "digits", plane: "plane", train: own, step: own }[name];
    if (family && family === this.ownKind) family = "own";
    if (family && family !== this.family) this.send("use", { family, story: name });
    else this.send("change", { fields: { story: name } });
    this.show(name);
  }

  show(name) {
    this.story = name;
    for (const [key, tab] of Object.entries(this.tabs)) {
      if (key === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    const hidden = new Set(this.setup?.hidden_panels || []);
    for (const panel of this.panels) {
      panel.element.hidden = !panel.stories.includes(name) || hidden.has(panel.title);
    }
    this.showColumns();
    this.footer.hidden = name === "table";
    this.footer.classList.toggle("quiet", name === "draw" || name === "step");
    this.look();
    if (this.sizes) this.net.chosen();
    this.stories[name].shown?.();
    this.redraw();
  }

  look() {
    const panels = new Set(this.panels.filter((panel) => !panel.element.hidden).flatMap((panel) => panel.look));
    const wanted = JSON.stringify([...panels]);
    if (!this.wire || wanted === this.looked) return;
    this.looked = wanted;
    this.send("look", { panels: [...panels] });
  }

  chooseUnit(layer, unit) {
    if (!this.sizes || layer < 1) return;
    layer = Math.min(layer, this.sizes.length - 1);
    this.unit = [layer, Math.min(Math.max(0, unit), this.sizes[layer] - 1)];
    this.send("look", { layer: this.unit[0], unit: this.unit[1] });
    this.chosen();
  }

  chosen() {
    this.net.chosen();
    this.stories[this.story].unit?.();
    this.redraw();
  }

  toggle() {
    if (this.about.playing) this.send("pause");
    else this.send("run", { speed: SPEEDS[this.speed.value] });
  }

  setSpeed(quiet) {
    const speed = SPEEDS[this.speed.value];
    this.speed.setAttribute("aria-valuetext", T.controls.speedText(speed));
    this.pace.textContent = T.controls.speedText(speed);
    if (!quiet && this.about.playing) this.send("run", { speed });
  }

  /** Take a file that is dropped anywhere: a browser would leave the page to show it. */
  dropped(event) {
    const { types, files: [file] } = event.dataTransfer;
    if (!types.includes("Files")) return;
    event.preventDefault();
    if (!file || !this.setup) return;
    if (/\.json$/i.test(file.name)) { this.sharing.load(file); return; }
    if (!this.stories[this.story].take) this.choose("table");
    this.stories[this.story].take(file);
  }

  /** Whether a file is larger than so many bytes, which is then told. */
  tooLarge(file, most) {
    if (file.size > most) this.error(T.largeFile(file.name, most / 1e6));
    return file.size > most;
  }

  newSeed() { this.send("reset", { seed: Math.floor(Math.random() * 100000) }); }

  visibility() {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) this.hiddenTimer = setTimeout(() => this.send("pause"), HIDDEN_PAUSE);
    this.redraw();
  }

  showNumbers() {
    const out = this.arrays[`a${this.sizes.length - 1}`] || [];
    const { curve } = this;
    const from = Math.max(0, curve.epoch.length - 20);
    fill(this.numbers, h("h2", {}, T.numbers.title),
      table(T.numbers.heads, [...out].map((value, i) => [this.classes[i] ?? i, digits(value, 4)]), T.numbers.outputs),
      table(T.numbers.epochHeads, curve.epoch.slice(from).map((epoch, i) => [epoch, ...["loss", "held", "score"].map((name) => digits(curve[name][from + i], 4))]), T.numbers.epochs),
      h("div", { class: "row" }, h("button", { onclick: () => this.numbers.close() }, T.close)));
    this.numbers.showModal();
  }

  key(event) {
    const target = event.target;
    const takes = target.type === "range" ? /^(Arrow|Home|End|Page)/.test(event.key) : target.closest("dialog, select, textarea, input:not([type=checkbox])");
    if (!this.setup || takes) return;
    if (this.stories[this.story].key?.(event)) { event.preventDefault(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      " ": () => target.closest("button") ? null : this.toggle(),
      ArrowRight: () => this.send("step", { n: 1, epochs: event.shiftKey }),
      ArrowLeft: () => this.send("back", { n: 1, epochs: event.shiftKey }),
      r: () => this.send("reset"), n: () => this.newSeed(), a: () => this.showNumbers(), "?": () => this.keysDialog.showModal(),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (event.key === " " && target.closest("button"))) return;
    event.preventDefault();
    act();
  }

  /** What is on the page, for tests. */
  summary() {
    const out = this.sizes ? this.arrays[`a${this.sizes.length - 1}`] : null;
    return {
      story: this.story, ready: Boolean(this.setup && this.framed), ...this.about, sizes: this.sizes, seed: this.setup?.seed, setup: this.setup,
      outputs: out ? [...out] : [], curve: this.curve.epoch.length, loss: this.curve.loss.at(-1), score: this.curve.score.at(-1), drawings: this.drawings,
      fault: this.fault.hidden ? "" : this.fault.textContent, live: this.live.textContent, points: this.points.X ? this.points.X.shape[0] : 0,
      drawn: this.setup ? [...this.arrays.x || []] : [], ...this.stories[this.story].summary?.(),
    };
  }
}
