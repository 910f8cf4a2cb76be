// Take it away: a link, a file, Python, the network, a picture; and what a teacher hides or locks.

import { T } from "./texts.js";
import { fill, h } from "./dom.js";

const MOST_LINK = 2000;

/** The set-up of an address, or null. */
export function decodeSetup(text) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch { return null; }
}

export function encodeSetup(setup) {
  const bytes = new TextEncoder().encode(JSON.stringify(setup));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

export function sharing(app) {
  const S = T.sharing;
  let wanted = "";
  const said = h("p", { role: "status" });
  const code = h("pre", { tabindex: 0, hidden: true });
  const copy = h("button", { hidden: true, onclick: () => put(code.textContent, S.copied) }, S.copy);
  const hidden = h("select", { multiple: true, size: 5, "aria-label": S.hide, onchange: () => change({ hidden_panels: [...hidden.selectedOptions].map((o) => o.value) }) });
  const lock = h("input", { type: "checkbox", onchange: () => change({ locked: lock.checked ? ["settings"] : [] }) });
  const open = h("input", { type: "file", accept: ".json,application/json", class: "unseen", tabindex: -1, "aria-hidden": "true", onchange: async () => load(open.files[0]) });
  const dialog = h("dialog", { "aria-label": S.title }, h("h2", {}, S.title),
    h("div", { class: "row" }, button(S.link, "link"), button(S.file, "setup"), button(S.python, "python"), button(S.model, "model"), h("button", { onclick: picture }, S.png), h("button", { onclick: () => open.click() }, S.open), open),
    said, code, copy, h("p", {}, h("label", {}, S.hide, hidden)), h("p", {}, h("label", {}, lock, " ", S.lock)),
    h("div", { class: "row" }, h("button", { onclick: () => dialog.close() }, T.close)));

  function button(text, kind) {
    return h("button", { onclick: () => { wanted = kind; app.send("export", { kind: kind === "link" ? "setup" : kind }); } }, text);
  }

  function change(fields) {
    app.send("change", { fields });
    Object.assign(app.setup, fields);
    app.show(app.story);
  }

  async function load(file) {
    if (!file) return;
    dialog.close();
    if (app.tooLarge(file, app.limits.setup)) return;
    try { app.send("setup", { fields: JSON.parse(await file.text()), new: true }); } catch { app.error(S.noSetup(file.name)); }
  }

  async function put(text, message) {
    try { await navigator.clipboard.writeText(text); said.textContent = message; } catch { said.textContent = ""; code.hidden = false; code.textContent = text; }
  }

  function picture() {
    app.net.canvas.toBlob((blob) => save("network.png", blob));
  }

  function save(name, blob) {
    const url = URL.createObjectURL(blob);
    h("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  return {
    dialog, load,
    open() {
      fill(hidden, app.panels.map((panel) => h("option", { value: panel.title, selected: app.setup.hidden_panels.includes(panel.title) }, panel.title)));
      lock.checked = app.setup.locked.includes("settings");
      said.textContent = "";
      code.hidden = copy.hidden = true;
      dialog.showModal();
    },
    /** Show a set-up's hidden panels and its title. */
    apply() {
      if (app.setup.title) document.title = `${app.setup.title} - ${T.title}`;
    },
    event(event) {
      if (event.type !== "file") return;
      if (wanted === "link") {
        const link = encodeSetup(JSON.parse(event.text));
        if (link.length < MOST_LINK) { put(`${location.origin}/#setup=${link}`, S.linked); return; }
      }
      if (wanted === "python") {
        code.hidden = copy.hidden = false;
        code.textContent = event.text;
        return;
      }
      save(event.name, new Blob([event.text], { type: "application/json" }));
    },
    file(name, bytes) { save(name, new Blob([bytes])); },
    summary: () => code.textContent,
  };
}
