// What the page knows, and the setting in the fragment of its address.
"use strict";

const GIVEN = JSON.parse(document.getElementById("given").textContent);
const GRID = 48; // points along a side of the large picture; the small ones have half of them
const MOST_MOMENTS = 200; // of the curve
const SHADES = 128; // of one colour
const by = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const draw = (tag, attributes = {}, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
};

// setting: what the fragment of the address holds, and points if they are the reader's own.
const state = {
  setting: { ...GIVEN.setting }, points: [], axes: [], classes: [], train: [], held: [], radius: 1,
  network: null, training: null, rooms: {}, steps: 0, history: [], every: 1, now: null,
  running: false, drawings: 0, large: null, chosen: 0, picked: null, cross: null, shown: null,
};

// ── The setting, and the fragment of the address ──

const isWhole = (low, high) => (value) => Number.isInteger(value) && value >= low && value <= high;
const isOneOf = (names) => (value) => names.includes(value);
const FIELDS = {
  data: { read: String, good: (name) => name in GIVEN.sets || name === "own" },
  hidden: {
    read: (text) => (text ? text.split("-").map(Number) : []), write: (widths) => widths.join("-"),
    good: (widths) => widths.length <= GIVEN.deepest && widths.every(isWhole(1, GIVEN.widest)),
  },
  activation: { read: String, good: isOneOf(GIVEN.activations) },
  loss: { read: String, good: isOneOf(GIVEN.losses) },
  rate: { read: Number, good: (value) => Number.isFinite(value) && value > 0, expected: "a learning rate above 0" },
  optimizer: { read: String, good: isOneOf(GIVEN.optimizers) },
  batch: { read: Number, good: isWhole(0, 2 ** 31), expected: "a whole number of points, or 0 for all" },
  l2: { read: Number, good: (value) => Number.isFinite(value) && value >= 0, expected: "a λ of at least 0" },
  seed: { read: Number, good: isWhole(0, 2 ** 31), expected: "a seed of at least 0" },
  speed: { read: Number, good: isOneOf(GIVEN.speeds) },
};

function fragment() {
  const parts = Object.entries(FIELDS).map(([name, { write = String }]) => [name, write(state.setting[name])]);
  if (state.setting.data === "own") parts.push(["points", writeRows(state.points)]);
  const encoded = (text) => encodeURIComponent(text).replaceAll("%2C", ",").replaceAll("%3B", ";");
  return parts.map(([name, text]) => `${name}=${encoded(text)}`).join("&");
}

function writeFragment() {
  try { history.replaceState(null, "", `#${fragment()}`); } catch { /* a frame without an address of its own */ }
}

// What a fragment says, as far as it makes sense; whatever else it says is left out.
function readFragment(text) {
  const found = { ...GIVEN.setting };
  const parts = new URLSearchParams(text.replace(/^#/, ""));
  for (const [name, { read, good }] of Object.entries(FIELDS)) {
    const value = parts.has(name) ? read(parts.get(name)) : undefined;
    if (value !== undefined && good(value)) found[name] = value;
  }
  const points = readRows((parts.get("points") ?? "").replaceAll(";", "\n"), 0);
  if (found.data === "own" && points.rows.length < 2) found.data = GIVEN.setting.data;
  return { setting: found, points: points.rows };
}

const rounded = (x) => Number(x.toFixed(3));
const writeRows = (points) => points.map((point) => point.map(rounded).join(",")).join(";");

// Rows of "x, y, class"; the classes count from first.
function readRows(text, first) {
  const rows = [], lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  for (const line of lines) {
    const [x, y, label, ...rest] = line.split(/[\s,;]+/).filter(Boolean).map(Number);
    const isClass = isWhole(first, first + GIVEN.mostClasses - 1)(label);
    if (!Number.isFinite(x) || !Number.isFinite(y) || !isClass || rest.length) return { rows, wrong: line };
    rows.push([x, y, label - first]);
  }
  return { rows: rows.slice(0, GIVEN.mostPoints), wrong: null };
}

// The same points with mean 0 and deviation 1 along each axis.
function scaled(points) {
  const columns = [0, 1].map((k) => {
    const values = points.map((point) => point[k]), mean = values.reduce((a, b) => a + b, 0) / values.length;
    const spread = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length) || 1;
    return (x) => (x - mean) / spread;
  });
  return points.map(([x, y, label]) => [columns[0](x), columns[1](y), label]);
}
