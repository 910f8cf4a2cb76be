"""Text of the JavaScript files that leave: the arithmetic, in doubles."""

from __future__ import annotations

ACTIVATIONS = {
    "identity": "function identity(z) {\n  return z;\n}",
    "logistic": (
        "function logistic(z) {\n"
        "  const e = Math.exp(-Math.abs(z));\n"
        "  return (z >= 0 ? 1 : e) / (1 + e);\n}"
    ),
    "tanh": "function tanh(z) {\n  return Math.tanh(z);\n}",
    "relu": "function relu(z) {\n  return z > 0 ? z : 0;\n}",
    "leaky_relu": "function leaky_relu(z) {\n  return z > 0 ? z : @ * z;\n}",
    "elu": "function elu(z) {\n  return z > 0 ? z : @ * Math.expm1(z);\n}",
    "selu": (
        "function selu(z) {\n"
        "  const scale = 1.0507009873554805, alpha = 1.6732632423543772;\n"
        "  return z > 0 ? scale * z : scale * alpha * Math.expm1(z);\n}"
    ),
    "gelu": ("function gelu(z) {\n  return Math.max(z, -1e308) * 0.5 * erfc(-z / Math.SQRT2);\n}"),
    "silu": "function silu(z) {\n  return Math.max(z, -1e308) * logistic(z);\n}",
    "mish": "function mish(z) {\n  return Math.max(z, -1e308) * Math.tanh(softplus(z));\n}",
    "softplus": (
        "function softplus(z) {\n  return Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));\n}"
    ),
    "hard_sigmoid": (
        "function hard_sigmoid(z) {\n  return Math.min(Math.max(z / 6 + 0.5, 0), 1);\n}"
    ),
    "exp": "function exp(z) {\n  return Math.exp(z);\n}",
    "softmax": (
        "function softmax(z) {\n"
        "  const top = Math.max(...z);\n"
        "  const e = z.map((each) => Math.exp(each - top));\n"
        "  const total = e.reduce((sum, each) => sum + each, 0);\n"
        "  return e.map((each) => each / total);\n}"
    ),
}
"""A function of a number for each activation, @ is its parameter; softmax is one of a row."""

ERFC = """\
function erfc(x) {
  // A series of terms of one sign near 0, a continued fraction far from it.
  const far = Math.abs(x);
  if (!(far < 30)) return x > 0 ? 0 : 2;
  const e = Math.exp(-x * x) / Math.sqrt(Math.PI);
  if (far < 2.5) {
    let term = 2 * x, sum = term;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return 1 - e * sum;
  }
  let f = far;
  for (let n = 80; n > 0; n--) f = far + n / 2 / f;
  return x > 0 ? e / f : 2 - e / f;
}"""

NEEDS = {"silu": ("logistic",), "mish": ("softplus",)}
"""Activations whose text calls others."""

TAKE = """\
const data = (function () {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const end = text.length - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0);
  const bytes = new Uint8Array(Math.floor((end * 3) / 4));
  let bits = 0, held = 0, at = 0;
  for (let i = 0; i < end; i++) {
    held = ((held << 6) | digits.indexOf(text[i])) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (held >> bits) & 255;
    }
  }
  return new DataView(bytes.buffer);
})();
let at = 0;

// The next array of the data, which is little-endian on every machine.
function take(code, n) {
  const single = code === "f4";
  const array = single ? new Float32Array(n) : new Float64Array(n);
  for (let i = 0; i < n; i++) {
    array[i] = single ? data.getFloat32(at, true) : data.getFloat64(at, true);
    at += single ? 4 : 8;
  }
  return array;
}"""

FRONT = """\
// The first layer's inputs, and what is added to its sums, or null.
function expand(front, x) {
  const values = [];
  let sums = null;
  for (const part of front) {
    if (part.kind === "plain") {
      for (let i = 0; i < part.count; i++) values.push(x[part.first + i]);
    } else if (part.kind === "periodic") {
      const n = part.frequencies;
      for (let i = 0; i < part.count; i++) {
        const number = x[part.first + i];
        for (let j = 0; j < part.width; j++) {
          let sum = part.d[i * part.width + j];
          for (let k = 0; k < n; k++) {
            const u = 2 * Math.PI * number * part.w[i * n + k] + part.b[i * n + k];
            sum += part.V[(i * part.width + j) * n + k] * Math.cos(u);
          }
          values.push(sum);
        }
        values.push(number);
      }
    } else {
      const row = between(part, x[part.first]);
      if (!part.summed) values.push(...row);
      else if (sums === null) sums = row;
      else for (let j = 0; j < row.length; j++) sums[j] += row[j];
    }
  }
  return [values.length ? values : [0], sums];
}

// A row of a table for a whole number, a place between two rows for others.
function between(table, x) {
  x = Math.min(Math.max(x, 0), table.rows - 1);
  const c = Math.floor(x), f = x - c, width = table.width, row = [];
  for (let j = 0; j < width; j++) {
    const here = table.values[c * width + j];
    row.push(f > 0 ? (1 - f) * here + f * table.values[(c + 1) * width + j] : here);
  }
  return row;
}"""

RUN = """\
// The outputs of a network.
function run(member, x) {
  let a = x, sums = null;
  @EXPAND@for (const step of member.steps) {
    if (step.kind === "affine") {
      const width = step.width, z = new Array(width);
      for (let j = 0; j < width; j++) z[j] = step.bias === null ? 0 : step.bias[j];
      if (sums !== null) for (let j = 0; j < width; j++) z[j] += sums[j];
      for (let i = 0; i < a.length; i++) {
        const value = a[i];
        if (value !== 0) {
          const row = i * width;
          for (let j = 0; j < width; j++) z[j] += value * step.weights[row + j];
        }
      }
      sums = null;
      a = z;
    } else if (step.kind === "norm") {
      const n = a.length;
      let mean = 0, variance = 0;
      for (let j = 0; j < n; j++) mean += a[j] / n;
      for (let j = 0; j < n; j++) variance += ((a[j] - mean) * (a[j] - mean)) / n;
      const root = Math.sqrt(variance + step.epsilon);
      a = a.map((z, j) => (step.gamma[j] * (z - mean)) / root + step.beta[j]);
    } else {
      const f = @SOFTMAX@a.map((z) => step.f(z));
      const alphas = step.alphas;
      a = alphas === null ? f : f.map((f1, j) => a[j] + alphas[j] * (f1 - a[j]));
    }
  }
  return a;
}"""

INPUTS = """\
function numbersOf(x) {
  if (!x || typeof x === "string" || x.length !== nInputs) {
    throw new TypeError("a row of " + nInputs + " numbers expected");
  }
  return finite(Array.from(x, (value, i) => numberOf(value)@MEAN@));
}

// Number of null, of an empty text and of an empty array is 0, but these are gaps.
function numberOf(value) {
  const gap = typeof value === "object" || (typeof value === "string" && value.trim() === "");
  return gap ? NaN : Number(value);
}"""

FINITE = """\
function finite(x) {
  @ROUND@if (!x.every((value) => Number.isFinite(value))) {
    throw new RangeError("a row holds NaN, infinity, or a number too large");
  }
  return x;
}"""

ENCODED = """\
function numbersOf(row) {
  return finite(encode(row));
}"""

OUTPUTS = """\
// The outputs of a row, nOutputs numbers@OF@.
function outputs(x) {
  const values = numbersOf(x);
  const parts = members.map((member) => answer(member, values));
  return parts[0].map((_, j) => parts.reduce((sum, part) => sum + part[j], 0) / parts.length);
}"""

ANSWERS = {
    "plain": "function answer(member, x) {\n  return run(member, x);\n}",
    "softmax": (
        "function answer(member, x) {\n"
        "  const p = run(member, x).slice(0, classes.length);\n"
        "  const total = p.reduce((sum, each) => sum + each, 0);\n"
        "  return p.map((each) => each / total);\n}"
    ),
    "labels": "function answer(member, x) {\n  return run(member, x);\n}",
    "unit": (
        "function answer(member, x) {\n"
        "  const { spread, centre, low, high } = member.unit;\n"
        "  return run(member, x).map((y, j) =>\n"
        "    Math.min(Math.max(y * spread[j] + centre[j], low[j]), high[j]));\n}"
    ),
}
"""What a member's outputs become before the mean."""

PROBABILITIES = {
    "wide": "  return outputs(x);",
    "both": "  const p = outputs(x)[0];\n  return [1 - p, p];",
    "softmax": "  return outputs(x);",
    "each": "  return outputs(x);",
}

PREDICT = {
    "labels": "  return outputs(x).map((p) => (p > 0.5 ? 1 : 0));",
    "one": "  outputs(x);\n  return classes[0];",
    "both": "  return classes[outputs(x)[0] > 0.5 ? 1 : 0];",
    "several": (
        "  const p = outputs(x);\n"
        "  let best = 0;\n"
        "  for (let j = 1; j < p.length; j++) if (p[j] > p[best]) best = j;\n"
        "  return classes[best];"
    ),
    "numbers": "  const y = outputs(x);\n  return nOutputs === 1 ? y[0] : y;",
}
