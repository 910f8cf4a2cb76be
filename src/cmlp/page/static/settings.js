// The form of a set-up: what takes effect at the next batch, and what begins a new run.

import { T } from "./texts.js";
import { fill, h } from "./dom.js";

const FIRST = ["layers", "activation", "solver", "learning_rate", "batch_size"];
const MORE = ["loss", "out_activation", "weight_init", "momentum", "dropout", "weight_decay", "l1", "l2", "input_noise", "label_smoothing", "clip_norm", "patience", "seed"];
const BEGINS = new Set(["layers", "activation", "loss", "out_activation", "weight_init", "seed"]);

export function settings(app, stories) {
  const S = T.settings;
  const fields = {};
  const help = h("p", { class: "help", id: "settings-help" });
  const begin = h("button", { onclick: apply, hidden: true }, S.begin);
  const line = (name) => {
    const id = `set-${name}`;
    const field = control(name, id);
    fields[name] = field;
    field.addEventListener("focus", () => { help.textContent = S.help[name]; });
    field.addEventListener("keydown", (event) => { if (event.key === "Enter" && field.tagName === "INPUT" && !begin.hidden) apply(); });
    field.addEventListener(BEGINS.has(name) ? "input" : "change", () => changed(name));
    return [h("label", { for: id }, S.labels[name]), field];
  };
  const form = h("div", { class: "form" });
  const more = h("details", {}, h("summary", {}, S.more));
  const panel = app.panel("left", 6, S.title, stories, [], form, more, help, begin);

  function control(name, id) {
    const about = { id, "aria-describedby": "settings-help", "data-field": name };
    const options = app.vocabulary[name];
    if (options) return h("select", about, options.map((option) => h("option", { value: option }, option || "–")));
    if (name === "layers") return h("input", { ...about, inputmode: "text", autocomplete: "off" });
    const whole = ["batch_size", "patience", "seed"].includes(name);
    return h("input", { ...about, type: "number", step: whole ? 1 : "any", min: name === "batch_size" ? 1 : 0 });
  }

  function value(name) {
    const text = fields[name].value.trim();
    if (name === "layers") return text ? text.split(/[\s,;-]+/).map(Number) : [];
    if (fields[name].tagName === "SELECT") return text;
    return text ? Number(text) : app.setup[name]; // emptied: what it was
  }

  function changed(name) {
    if (fields[name].type === "number" && !fields[name].value) show([name]);
    if (!BEGINS.has(name)) { app.send("change", { fields: { [name]: value(name) } }); return; }
    begin.hidden = JSON.stringify(pending()) === "{}";
    help.textContent = begin.hidden ? S.help[name] : S.pending;
  }

  function pending() {
    const found = {};
    for (const name of BEGINS) if (!fields[name].disabled && JSON.stringify(value(name)) !== JSON.stringify(app.setup[name])) found[name] = value(name);
    return found;
  }

  function apply() {
    app.send("setup", { fields: { ...pending(), epochs: 0, parameters: [] } });
    begin.hidden = true;
  }

  /** Show the values of some fields, or of all; what was typed into the others stays. */
  function show(names) {
    if (!fields.layers) {
      fill(form, FIRST.map(line));
      more.append(h("div", { class: "form" }, MORE.map(line)));
    }
    const locked = new Set(app.setup.locked);
    for (const [name, field] of Object.entries(fields)) {
      if (document.activeElement !== field && (!names || names.includes(name))) field.value = name === "layers" ? app.setup.layers.join(", ") : app.setup[name];
      field.disabled = locked.has(name) || locked.has("settings") || (app.setup.data === "own" && BEGINS.has(name));
    }
    begin.hidden = JSON.stringify(pending()) === "{}";
  }

  return { panel, event(event) {
    if (event.type === "state") show();
    else if (event.type === "changed") show(Object.keys(event.fields));
    else if (event.type === "error" && fields[event.field] && !BEGINS.has(event.field)) fields[event.field].value = app.setup[event.field];
  } };
}
