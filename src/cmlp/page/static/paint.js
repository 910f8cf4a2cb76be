// Pictures on canvas: cells, curves, histograms, a network, regions of a plane.

const stops = (text) => text.match(/.{6}/g).map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const AMOUNTS = stops("00224e1a386f434e6c61656f7d7c789b9476bcae6cdec958fee838"); // cividis
const DIFFERENCES = stops("0530612a71b26bacd1c2ddecf7f6f6fbccb4e48066ba283267001f"); // RdBu, blue first

function mix(map, x) {
  const at = Math.min(Math.max(x, 0), 1) * (map.length - 1);
  const low = Math.min(Math.floor(at), map.length - 2);
  const part = at - low;
  return map[low].map((value, i) => Math.round(value + part * (map[low + 1][i] - value)));
}
const table = (map) => Array.from({ length: 256 }, (_, i) => mix(map, i / 255));
const AMOUNT_TABLE = table(AMOUNTS);
const DIFFERENCE_TABLE = table(DIFFERENCES);
const css = ([r, g, b]) => `rgb(${r},${g},${b})`;
export const amount = (x) => css(AMOUNT_TABLE[Math.round(Math.min(Math.max(x || 0, 0), 1) * 255)]);
export const difference = (x) => css(DIFFERENCE_TABLE[Math.round(Math.min(Math.max((x || 0) / 2 + 0.5, 0), 1) * 255)]);

/** The page's colours, read once for each theme. */
export function palette(root) {
  const style = getComputedStyle(root);
  const get = (name) => style.getPropertyValue(name).trim();
  return {
    ink: get("--ink"), soft: get("--soft"), line: get("--line"), back: get("--panel"),
    accent: get("--accent"), classes: Array.from({ length: 8 }, (_, i) => get(`--c${i}`)),
  };
}

const measured = new WeakMap(); // canvases and their sizes: to ask for one may lay out the page anew
const resized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const known = measured.get(target);
    if (!known || Math.abs(known.width - contentRect.width) < 1 && Math.abs(known.height - contentRect.height) < 1) continue;
    measured.delete(target);
    target.dispatchEvent(new Event("cmlp-resized", { bubbles: true }));
  }
});

/** The width and height of an element in CSS pixels. */
export function sizeOf(element) {
  let size = measured.get(element);
  if (!size) {
    size = { width: element.clientWidth, height: element.clientHeight };
    measured.set(element, size);
    resized.observe(element);
  }
  return size;
}

/** Fit a canvas to its place on the screen, and clear it; coordinates are CSS pixels. */
export function fresh(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const { width, height } = sizeOf(canvas);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  return { context, width, height };
}

/** Set the height of a canvas, if it is another one. */
export function setHeight(canvas, height) {
  const text = `${Math.round(height)}px`;
  if (canvas.style.height === text) return;
  canvas.style.height = text;
  measured.delete(canvas);
}

/** Draw numbers as square cells, `columns` to a row. */
export function cells(context, values, columns, x, y, size, colour) {
  for (let i = 0; i < values.length; i++) {
    context.fillStyle = colour(values[i]);
    context.fillRect(x + (i % columns) * size, y + Math.floor(i / columns) * size, size + 0.4, size + 0.4);
  }
}

let small = null;

/** Draw weights (n_in, n_out) as one picture for each of `n` units, `across` in a row, `size` wide. */
export function mosaic(context, W, n, side, across, size) {
  const [nIn, nOut] = W.shape;
  const width = across * (side + 1), height = Math.ceil(n / across) * (side + 1);
  if (!small || small.width !== width || small.height !== height) small = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  const half = 127.5 / most(W);
  for (let j = 0; j < n; j++) {
    const corner = Math.floor(j / across) * (side + 1) * width + (j % across) * (side + 1);
    for (let i = 0; i < nIn; i++) {
      const [r, g, b] = DIFFERENCE_TABLE[Math.round(127.5 + half * W[i * nOut + j])] || DIFFERENCE_TABLE[127];
      const at = 4 * (corner + Math.floor(i / side) * width + (i % side));
      image.data[at] = r; image.data[at + 1] = g; image.data[at + 2] = b; image.data[at + 3] = 255;
    }
  }
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, across * size, height / (side + 1) * size);
}

export const most = (values) => {
  let found = 1e-9;
  for (const value of values) if (Math.abs(value) > found) found = Math.abs(value);
  return found;
};

// Markers tell classes apart where colours do not.
const MARKERS = ["circle", "square", "diamond", "up", "down", "cross", "plus", "star"];

export function marker(context, kind, x, y, r) {
  context.beginPath();
  const shape = MARKERS[kind % 8];
  if (shape === "circle") context.arc(x, y, r, 0, 7);
  else if (shape === "square") context.rect(x - r, y - r, 2 * r, 2 * r);
  else if (shape === "cross" || shape === "plus") {
    const d = shape === "cross" ? r : 0;
    context.moveTo(x - r, y - d); context.lineTo(x + r, y + d);
    context.moveTo(x - d, y + r); context.lineTo(x + d, y - r);
  } else {
    const corners = { diamond: [[0, -1.8], [0.9, 0], [0, 1.8], [-0.9, 0]], up: [[0, -1.4], [1.4, 1], [-1.4, 1]],
      down: [[0, 1.4], [1.4, -1], [-1.4, -1]], star: [[0, -1.4], [0.4, -0.3], [1.4, 0], [0.4, 0.3], [0, 1.4], [-0.4, 0.3], [-1.4, 0], [-0.4, -0.3]] }[shape];
    corners.forEach(([dx, dy], i) => (i ? context.lineTo : context.moveTo).call(context, x + dx * r, y + dy * r));
    context.closePath();
  }
}

// Curves ------------------------------------------------------------------------------------------

const LEFT = 44, BOTTOM = 20, TOP = 8, RIGHT = 10;

/** Draw lines over x: each {x, y, colour, dash, width}. Few numbers on the axes. */
export function lines(canvas, series, { log = false, low = null, high = null, xlabel = "", colours, point = null, tangent = null }) {
  const { context, width, height } = fresh(canvas);
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  const scale = (y) => (log ? Math.log10(Math.max(y, 1e-12)) : y);
  for (const line of series) {
    for (let i = 0; i < line.x.length; i++) {
      const y = scale(line.y[i]);
      if (!Number.isFinite(y)) continue;
      if (line.x[i] < x0) x0 = line.x[i];
      if (line.x[i] > x1) x1 = line.x[i];
      if (y < y0) y0 = y;
      if (y > y1) y1 = y;
    }
  }
  if (!Number.isFinite(y0)) [x0, x1, y0, y1] = [0, 1, 0, 1];
  if (low !== null) y0 = Math.min(y0, low);
  if (high !== null) y1 = Math.max(y1, high);
  if (y1 - y0 < 1e-9) { y0 -= 0.5; y1 += 0.5; }
  if (x1 - x0 < 1e-9) x1 = x0 + 1;
  const X = (x) => LEFT + ((x - x0) / (x1 - x0)) * (width - LEFT - RIGHT);
  const Y = (y) => height - BOTTOM - ((scale(y) - y0) / (y1 - y0)) * (height - BOTTOM - TOP);
  context.strokeStyle = colours.line;
  context.fillStyle = colours.soft;
  context.lineWidth = 1;
  context.textAlign = "right";
  const marks = ticks(y0, y1, log), names = [2, 3, 4].map((n) => marks.map((y) => short(log ? 10 ** y : y, n)));
  const apart = names.find((texts) => new Set(texts).size === texts.length) || names[2];
  marks.forEach((y, i) => {
    const at = height - BOTTOM - ((y - y0) / (y1 - y0)) * (height - BOTTOM - TOP);
    context.beginPath(); context.moveTo(LEFT, at); context.lineTo(width - RIGHT, at); context.stroke();
    context.fillText(apart[i], LEFT - 5, at);
  });
  context.textAlign = "center";
  context.fillText(short(x0), LEFT, height - 9);
  context.fillText(short(x1), width - RIGHT - 8, height - 9);
  context.fillText(xlabel, (LEFT + width - RIGHT) / 2, height - 9);
  for (const line of series) polyline(context, line, X, Y, width);
  if (tangent) {
    context.setLineDash([]); context.strokeStyle = colours.accent; context.lineWidth = 1.5;
    const d = (x1 - x0) * 0.22;
    context.beginPath();
    context.moveTo(X(point.x - d), Y(point.y - d * tangent)); context.lineTo(X(point.x + d), Y(point.y + d * tangent));
    context.stroke();
  }
  if (point) {
    context.fillStyle = colours.accent;
    context.beginPath(); context.arc(X(point.x), Y(point.y), 5, 0, 7); context.fill();
  }
  return { x0, x1, X };
}

function polyline(context, line, X, Y, width) {
  context.strokeStyle = line.colour;
  context.lineWidth = line.width || 1.8;
  context.setLineDash(line.dash || []);
  context.beginPath();
  const step = Math.max(1, Math.floor(line.x.length / (2 * width)));
  let begun = false;
  for (let i = 0; i < line.x.length; i += step) {
    const y = Y(line.y[i]);
    if (!Number.isFinite(y) || !Number.isFinite(line.y[i])) continue;
    if (begun) context.lineTo(X(line.x[i]), y);
    else context.moveTo(X(line.x[i]), y);
    begun = true;
  }
  if (line.x.length === 1) context.arc(X(line.x[0]), Y(line.y[0]), 2, 0, 7);
  context.stroke();
  context.setLineDash([]);
}

function ticks(low, high, log) {
  const found = [];
  if (log) {
    if (high - low < 0.8) return ticks(10 ** low, 10 ** high, false).filter((y) => y > 0).map(Math.log10);
    const parts = high - low > 2.5 ? [1] : high - low > 1.2 ? [1, 3] : [1, 2, 5];
    for (let k = Math.floor(low); k <= high; k++) found.push(...parts.map((part) => k + Math.log10(part)));
    return found.filter((at) => at >= low && at <= high);
  }
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  for (let at = Math.ceil(low / step) * step; at <= high + 1e-9; at += step) found.push(at);
  return found;
}

const short = (value, n = 2) => {
  if (value === 0 || Math.abs(value) < 1e-12) return "0";
  if (Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3) return value.toExponential(1).replace(".0e", "e").replace("e-", "e−").replace("e+", "e").replace(/^-/, "−");
  return String(Number(value.toPrecision(n))).replace("-", "−");
};

/** A histogram of now, over one of the beginning in grey. */
export function histogram(canvas, now, first, edge, colours) {
  const { context, width, height } = fresh(canvas);
  const top = Math.max(1, ...now, ...first);
  const w = width / now.length;
  for (const [values, colour] of [[first, colours.line], [now, colours.accent]]) {
    context.fillStyle = colour;
    for (let i = 0; i < values.length; i++) {
      const y = (values[i] / top) * (height - 14);
      context.fillRect(i * w, height - 12 - y, w - 0.5, y);
    }
  }
  context.fillStyle = colours.soft;
  context.textAlign = "left"; context.fillText(short(-edge), 0, height - 5);
  context.textAlign = "right"; context.fillText(short(edge), width, height - 5);
  context.textAlign = "center"; context.fillText("0", width / 2, height - 5);
}

// The network -------------------------------------------------------------------------------------

const weightsOf = (sizes) => sizes.reduce((sum, n, i) => sum + (i ? n * sizes[i - 1] : 0), 0);

/** Whether a network is so small that every number of it has room. */
export const isTiny = (sizes) => weightsOf(sizes) <= 12;

/** Where each unit is: inputs as an image or a column, other layers as columns of cells. */
export function places(sizes, width, height) {
  const wide = sizes[0] === 64;
  const image = wide ? Math.min(120, width * 0.24) : 26;
  const gap = (width - image - 58) / (sizes.length - 1), most = isTiny(sizes) ? 74 : 26;
  return sizes.map((n, layer) => {
    if (wide && layer === 0) {
      const size = image / 8, top = (height - image) / 2;
      return Array.from({ length: 64 }, (_, i) => ({ x: 4 + (i % 8) * size, y: top + Math.floor(i / 8) * size, size }));
    }
    const shown = Math.min(n, 32);
    const pitch = Math.min(most, (height - 10) / shown), size = Math.min(26, pitch);
    const x = layer ? image + gap * layer : 4, top = (height - shown * pitch + pitch - size) / 2;
    return Array.from({ length: shown }, (_, i) => ({ x, y: top + i * pitch, size: size - Math.min(3, size * 0.15) }));
  });
}

/** The lines of a network, [layer, from, to, x, y, x, y]: of all weights, or of many those of one unit; from is -1 for a bias. */
function edges(sizes, at, unit) {
  const found = [], all = weightsOf(sizes) <= 220;
  for (let layer = 1; layer < sizes.length; layer++) {
    at[layer].forEach((to, j) => {
      const y = to.y + to.size / 2;
      found.push([layer, -1, j, to.x - 14, y - Math.min(12, to.size / 2), to.x, y]);
      if (all || (unit && unit[0] === layer && unit[1] === j)) {
        at[layer - 1].forEach((from, i) => found.push([layer, i, j, from.x + from.size, from.y + from.size / 2, to.x, y]));
      }
    });
  }
  return found;
}

/** Draw a network: activations as cells, weights and biases as lines (negative ones dashed), one unit marked. */
export function network(canvas, net, colours) {
  const { context, width, height } = fresh(canvas);
  const { sizes, arrays, unit, classes, off, mark } = net;
  const at = places(sizes, width, height), tiny = isTiny(sizes);
  const labels = [];
  const tops = sizes.map((_, layer) => (arrays[`W${layer}`] ? Math.max(most(arrays[`W${layer}`]), most(arrays[`b${layer}`] || [])) : 1));
  for (const [layer, i, j, x0, y0, x1, y1] of edges(sizes, at, unit)) {
    const W = arrays[`W${layer}`], b = arrays[`b${layer}`];
    if (!W || !b || j >= W.shape[1] || i >= W.shape[0]) continue;
    const value = i < 0 ? b[j] : W[i * W.shape[1] + j], w = value / tops[layer];
    const chosen = unit && unit[0] === layer && unit[1] === j;
    if (Math.abs(w) < 0.04 && !chosen) continue;
    context.strokeStyle = w < 0 ? colours.classes[0] : colours.classes[1];
    context.globalAlpha = chosen ? 0.95 : 0.25 + 0.5 * Math.abs(w);
    context.lineWidth = 0.4 + 3 * Math.abs(w);
    context.setLineDash(w < 0 ? [5, 3] : []);
    context.beginPath(); context.moveTo(x0, y0); context.lineTo(x1, y1); context.stroke();
    if (!tiny) continue;
    if (i < 0) labels.push(["right", `b ${short(value)}`, x0 - 3, y0 - 2]);
    else labels.push(["center", short(value), x0 + 0.28 * (x1 - x0), y0 + 0.28 * (y1 - y0)]);
  }
  context.globalAlpha = 1;
  context.setLineDash([]);
  for (const [align, text, x, y] of labels) { context.textAlign = align; write(context, text, x, y, colours); }
  for (let layer = 0; layer < sizes.length; layer++) {
    const values = layer ? arrays[`a${layer}`] : arrays.x;
    if (!values) continue;
    const last = layer === sizes.length - 1;
    const top = last ? 1 : layer ? most(values) : Math.max(1, most(values));
    const signed = values.some((value) => value < 0);
    at[layer].forEach((place, i) => {
      context.fillStyle = signed ? difference(values[i] / top) : amount(values[i] / top);
      context.fillRect(place.x, place.y, place.size, place.size);
      if (layer && place.size > 9) outline(context, place, colours.line, 1, -0.5);
      if (off.has(`${layer},${i}`)) {
        context.strokeStyle = colours.ink; context.lineWidth = 2;
        context.beginPath(); context.moveTo(place.x, place.y); context.lineTo(place.x + place.size, place.y + place.size); context.stroke();
      }
      context.fillStyle = colours.ink;
      if (last) {
        context.textAlign = "left";
        context.font = place.size < 14 ? "10px system-ui" : "12px system-ui";
        context.fillText(classes[i] ?? "", place.x + place.size + 5, place.y + place.size / 2);
      }
      if (tiny) {
        context.textAlign = "center";
        write(context, short(values[i]), place.x + place.size / 2, place.y + place.size + 9, colours);
      }
      const chosen = unit && unit[0] === layer && unit[1] === i;
      if (chosen || (mark === layer && layer)) outline(context, place, colours.accent, chosen ? 3 : 1.5, 1.5);
    });
    if (mark === 0 && layer === 0) {
      const [first, end] = [at[0][0], at[0].at(-1)];
      context.strokeStyle = colours.accent; context.lineWidth = 2;
      context.strokeRect(first.x - 1, first.y - 1, end.x + end.size - first.x + 2, end.y + end.size - first.y + 2);
    }
    if (sizes[layer] > at[layer].length) {
      context.fillStyle = colours.soft; context.textAlign = "left";
      context.fillText(`+${sizes[layer] - at[layer].length}`, at[layer][0].x, height - 6);
    }
  }
}

function outline(context, { x, y, size }, colour, width, out) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.strokeRect(x - out, y - out, size + 2 * out, size + 2 * out);
}

/** Write a number over lines. */
function write(context, text, x, y, colours) {
  context.strokeStyle = colours.back; context.lineWidth = 4; context.fillStyle = colours.ink;
  context.strokeText(text, x, y); context.fillText(text, x, y);
}

/** What is at a place of the picture: [layer, unit] or [layer, unit, from] of a weight (-1: the bias), or null. */
export function netAt(sizes, canvas, x, y, chosen) {
  const { width, height } = sizeOf(canvas);
  const at = places(sizes, width, height);
  for (let layer = 0; layer < at.length; layer++) {
    const unit = at[layer].findIndex((p) => x >= p.x - 3 && x <= p.x + p.size + 3 && y >= p.y - 1 && y <= p.y + p.size + 1);
    if (unit >= 0) return [layer, unit];
  }
  let found = null, least = 7;
  for (const [layer, i, j, x0, y0, x1, y1] of edges(sizes, at, chosen)) {
    const part = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2);
    const away = Math.hypot(x - x0 - part * (x1 - x0), y - y0 - part * (y1 - y0));
    if (part >= 0 && part <= 1 && away < least) [found, least] = [[layer, j, i], away];
  }
  return found;
}

// The plane ---------------------------------------------------------------------------------------

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** Draw regions by class, paler where the network is unsure. */
export function regions(context, classes, sure, side, colours, dark) {
  const n = classes.shape[0];
  const small = new OffscreenCanvas(n, n);
  const image = small.getContext("2d").createImageData(n, n);
  const base = rgb(colours.back.length === 7 ? colours.back : dark ? "#1b1f26" : "#ffffff");
  const inks = colours.classes.map(rgb);
  for (let i = 0; i < n * n; i++) {
    const part = 0.08 + 0.42 * (sure[i] / 255);
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = base[k] + part * (inks[classes[i] % 8][k] - base[k]);
    image.data[4 * i + 3] = 255;
  }
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, side, side);
}

/** Draw one unit's activation over the plane. */
export function unitPlane(context, values, n, x, y, side) {
  const small = new OffscreenCanvas(n, n);
  const image = small.getContext("2d").createImageData(n, n);
  for (let i = 0; i < n * n; i++) {
    const c = AMOUNT_TABLE[values[i]];
    image.data.set([c[0], c[1], c[2], 255], 4 * i);
  }
  small.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(small, x, y, side, side);
}
