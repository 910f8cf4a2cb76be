"""Text of the JavaScript files that leave: how a raw row becomes numbers."""

from __future__ import annotations

ENCODE = r"""
// The numbers of a row: an object of raw values, or an array of all values in order.
function encode(row) {
  const out = [];
  if (row === null || typeof row !== "object") {
    throw new TypeError("a row must be an object or an array");
  }
  const inOrder = Array.isArray(row);
  if (inOrder && row.length !== nInputs) {
    throw new RangeError("a row of " + nInputs + " values expected, " + row.length + " came");
  }
  for (const [place, name, add] of columns) {
    if (!inOrder && !Object.prototype.hasOwnProperty.call(row, name)) {
      throw new RangeError("the row lacks " + JSON.stringify(name));
    }
    try {
      add(inOrder ? row[place] : row[name], out);
    } catch (error) {
      throw new RangeError("column " + JSON.stringify(name) + ": " + error.message);
    }
  }
  return out.length ? out : [0];
}

// What Python takes for a space.
const space = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a" +
  "\\u2028\\u2029\\u202f\\u205f\\u3000]+";
const edges = new RegExp("^" + space + "|" + space + "$", "g");

function strip(text) {
  return text.replace(edges, "");
}

const signOfGap = new RegExp(
  "^([+-]?(nan|inf|infinity)|n/?a|<na>|null|none|\\?|\\.|-{1,3}" +
  "|#(n/?a|div/0!|value!|ref!|name\\?|num!|null!)|)$", "i");

function shown(value) {
  return JSON.stringify(String(value).slice(0, 40));
}""".strip().replace("<na>", "\\x3cna>")

NUMBER = r"""
// What appends the outputs of a number to an array.
function number(scale, flag, knots, gap, read) {
  const halves = (knots || []).map((knot) => knot / 2);
  const last = halves.length - 1;
  function place(value) {
    value /= 2;
    if (value >= halves[last]) return last;
    if (value <= halves[0]) return 0;
    let low = 0, high = last;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (value >= halves[middle]) low = middle;
      else high = middle;
    }
    return (1 / (halves[low + 1] - halves[low])) * (value - halves[low]) + low;
  }
  return function (value, out) {
    value = read(value);
    const missing = Number.isNaN(value);
    if (!missing && !Number.isFinite(value)) throw new RangeError(value + " is not finite");
    if (scale !== null) {
      let u = missing ? 0 : (value - scale[0]) * scale[1];
      u = Math.min(Math.max(u, -1e9), 1e9);
      out.push(scale[2] ? u / Math.sqrt((u / 3) * (u / 3) + 1) : u);
    }
    if (halves.length) out.push(place(missing ? gap : value));
    if (flag) out.push(missing ? 1 : 0);
  };
}

function same(value) {
  return value;
}""".strip()

NUMBER_OF = r"""
// What reads a number in a cell; some words stand for a missing one.
function numberOf(markers) {
  return function (value) {
    if (value === null || value === undefined) return NaN;
    if (typeof value === "string") {
      if (/^[ \t\n\r\f\v]*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?[ \t\n\r\f\v]*$/i.test(value)) {
        return Number(value);
      }
      const word = strip(value).toLowerCase();
      if (word === "true" || word === "false") return word === "true" ? 1 : 0;
      if (markers.includes(value) || (signOfGap.test(word) && !word.includes("inf"))) return NaN;
    } else if (["number", "boolean", "bigint"].includes(typeof value)) {
      return Number(value);
    }
    throw new RangeError("a number expected, " + shown(value) + " came");
  };
}""".strip()

DURATION_OF = r"""
// A duration is a number of seconds here.
function durationOf(value) {
  if (value === null || value === undefined) return NaN;
  if (typeof value === "string" && strip(value) === "") return NaN;
  if (typeof value === "number") return value;
  throw new RangeError("a duration in seconds expected, " + shown(value) + " came");
}""".strip()

CATEGORY = r"""
// What appends the outputs of a level, which is known by its text.
function category(levels, unseen) {
  const rows = new Map(levels);
  return function (value, out) {
    const key = keyOf(value);
    out.push(...(key !== null && rows.has(key) ? rows.get(key) : unseen));
  };
}

// The text of a level, the same for 1 and "1"; null for a missing value.
function keyOf(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return null;
  if (typeof value === "string") return strip(value) === "" ? null : value;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "bigint") return String(value);
  if (typeof value === "number") {
    if (Number.isInteger(value)) return String(BigInt(value));
    if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
    if (Math.abs(value) >= 1e-4) return String(value);
    return value.toExponential().replace(/e-(\d)$/, "e-0$1");
  }
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) return null;
    return value.toISOString().replace("T00:00:00.000Z", "").replace(".000Z", "")
      .replace(/(\.\d{3})Z$/, "$1000");
  }
  throw new TypeError("a category expected, " + shown(value) + " came");
}""".strip()

DATE = r"""
// What appends the outputs of a date.
function date(addSeconds, zone, numeric, parts) {
  return function (value, out) {
    const [seconds, zoned] = momentOf(value, numeric);
    const clock = typeof value === "string" || value instanceof Date;
    if (zoned !== (zone !== null) && !Number.isNaN(seconds) && clock) {
      const one = zoned ? "a" : "no";
      throw new RangeError(
        shown(value) + " has " + one + " time zone, unlike the column in training");
    }
    addSeconds(seconds, out);
    const found = parts.length ? partsOf(seconds, zone) : [];
    for (const [place, cycle, add] of parts) {
      if (cycle === null) add(found[place], out);
      else if (Number.isNaN(seconds)) out.push(0, 0);
      else {
        const angle = found[place] * ((2 * Math.PI) / cycle);
        out.push(Math.sin(angle), Math.cos(angle));
      }
    }
  };
}

// Month, day, weekday (0 is Monday) and hour, with its fraction.
function partsOf(seconds, zone) {
  if (!(Math.abs(seconds) < 1e15)) return [NaN, NaN, NaN, NaN];
  if (zone !== null) seconds += offsetOf(zone, Math.floor(seconds));
  const day = Math.floor(seconds / 86400);
  const shifted = day + 719468;
  const era = Math.floor(shifted / 146097);
  const ofEra = shifted - era * 146097;
  const year = Math.floor((ofEra - Math.floor(ofEra / 1460) + Math.floor(ofEra / 36524)
    - Math.floor(ofEra / 146096)) / 365);
  const ofYear = ofEra - (365 * year + Math.floor(year / 4) - Math.floor(year / 100));
  const month = Math.floor((5 * ofYear + 2) / 153);
  return [
    ((month + 2) % 12) + 1,
    ofYear - Math.floor((153 * month + 2) / 5) + 1,
    (((day + 3) % 7) + 7) % 7,
    (seconds - day * 86400) / 3600,
  ];
}

// How many seconds a zone is ahead of UTC.
function offsetOf(zone, second) {
  const fixed = fixedOffset(zone);
  if (fixed !== null) return fixed;
  second = Math.min(Math.max(second, -62135510400), 253402214400);
  let format = formats.get(zone);
  if (format === undefined) {
    const digits = "numeric";
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone, hourCycle: "h23", calendar: "gregory", era: "short",
      year: digits, month: digits, day: digits, hour: digits, minute: digits, second: digits,
    });
    formats.set(zone, format);
  }
  const part = {};
  for (const { type, value } of format.formatToParts(new Date(second * 1000))) part[type] = value;
  const year = part.era === "BC" ? 1 - Number(part.year) : Number(part.year);
  const local = new Date(0);
  local.setUTCFullYear(year, Number(part.month) - 1, Number(part.day));
  local.setUTCHours(Number(part.hour), Number(part.minute), Number(part.second));
  return local.getTime() / 1000 - second;
}

const formats = new Map();

function fixedOffset(zone) {
  if (["UTC", "Z", "GMT", "Etc/UTC"].includes(zone)) return 0;
  const found = /^(?:UTC|GMT)?([+-])(\d\d):?(\d\d)?(?::?(\d\d))?$/.exec(zone);
  if (!found) return null;
  const seconds = Number(found[2]) * 3600 + Number(found[3] || 0) * 60 + Number(found[4] || 0);
  return found[1] === "-" ? -seconds : seconds;
}

// The seconds since 1970 of a date or its ISO text, and whether it has a zone.
function momentOf(value, numeric) {
  if (value === null || value === undefined) return [NaN, false];
  if (value instanceof Date && !Number.isNaN(value.getTime())) {
    return [value.getTime() / 1000, true];
  }
  if (typeof value === "number" && (numeric || Number.isNaN(value))) return [value, false];
  const text = typeof value === "string" ? strip(value) : null;
  if (text !== null && signOfGap.test(text)) return [NaN, false];
  const found = new RegExp(
    "^(\\d{4})(-?)(\\d\\d)\\2(\\d\\d)" +
    "(?:[T ](\\d\\d)(?::?(\\d\\d)(?::?(\\d\\d)(?:[.,](\\d{1,6})\\d*)?)?)?" +
    "(Z|[+-]\\d\\d(?::?\\d\\d(?::?\\d\\d)?)?)?)?$").exec(text === null ? "" : text);
  if (found) {
    const [year, month, day, hour, minute, second] =
      [1, 3, 4, 5, 6, 7].map((place) => Number(found[place] || 0));
    const clock = new Date(0);
    clock.setUTCFullYear(year, month - 1, day);
    const real = year > 0 && clock.getUTCMonth() === month - 1 && clock.getUTCDate() === day;
    if (real && hour < 24 && minute < 60 && second < 60) {
      const micro = Number((found[8] || "0").padEnd(6, "0"));
      const whole = clock.getTime() / 1000 + hour * 3600 + minute * 60 + second;
      const zoned = found[9] !== undefined;
      return [whole - (zoned ? fixedOffset(found[9]) : 0) + micro / 1e6, zoned];
    }
  }
  throw new RangeError(
    "a date as 2024-05-31 or 2024-05-31T09:30 expected, " + shown(value) + " came");
}""".strip()
