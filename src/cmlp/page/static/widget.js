// The page in a notebook: anywidget calls `render` for each display.

import { start } from "./app.js";
import { widgetTransport } from "./wire.js";

export function render({ model, el }) {
  const root = document.createElement("div");
  el.append(root);
  root.classList.add("inside");
  root.tabIndex = -1;
  start(root, () => widgetTransport(model), { keys: root });
}
