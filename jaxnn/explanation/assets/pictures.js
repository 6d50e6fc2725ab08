// The pictures: the plane, the network, the curve and the sizes of the gradients.
"use strict";

// ── Colours ──

const CLASS_COLOURS = ["negative", "positive", "third", "fourth"]; // of two classes, those of the signs
let palette = {};

function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((pair) => parseInt(pair, 16));
  palette = { ink: rgb("--ink"), paper: rgb("--paper"), classes: CLASS_COLOURS.map((name) => rgb(`--${name}`)) };
  const steps = Array.from({ length: SHADES + 1 }, (_, k) => (0.72 * k) / SHADES);
  const towards = (colour) => steps.map((share) => mixed(palette.paper, colour, share));
  palette.shades = palette.classes.map(towards); // made once, since a picture asks for thousands of colours
}

const css = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;
const mixed = (from, to, share) => from.map((value, k) => Math.round(value + (to[k] - value) * share));

// The colour of a class, the more of it the greater the share.
const shade = (label, share) => palette.shades[label][Math.round(SHADES * Math.min(1, share)) || 0];

// value in [-1, 1]: orange below 0, blue above it.
const diverging = (value) => (value < 0 ? shade(0, -value) : shade(1, value));

// ── Responses over the plane ──

// The response of a neuron at a point of the grid, scaled to [-1, 1].
function response(l, j) {
  if (l < 0) return (k) => gridPoint(k)[j] / state.radius;
  const { a } = state.rooms.grid.layers[l], width = state.network.sizes[l + 1];
  if (l === state.network.layers.length - 1) return (k) => outputShare(k, j);
  if (state.network.activation === "sigmoid") return (k) => 2 * a[k * width + j] - 1;
  let highest = 1e-12;
  for (let k = 0; k < GRID * GRID; k++) highest = Math.max(highest, Math.abs(a[k * width + j]));
  return (k) => a[k * width + j] / highest;
}

// Of two classes, the probability of the second one as a number in [-1, 1].
function outputShare(k, j) {
  const z = state.rooms.grid.layers.at(-1).z, count = state.network.sizes.at(-1);
  if (count > 1) return 2 * shares(k)[j] - 1;
  return state.network.loss === "squared" ? 2 * z[k] - 1 : 2 * FUNCTIONS.σ(z[k]) - 1;
}

// Of more classes, the probability of each.
function shares(k) {
  const count = state.network.sizes.at(-1), z = state.rooms.grid.layers.at(-1).z.subarray(k * count, (k + 1) * count);
  const highest = Math.max(...z);
  const isSquared = state.network.loss === "squared";
  const sizes = Array.from(z, (value) => (isSquared ? Math.max(value, 1e-9) : Math.exp(value - highest)));
  const total = sizes.reduce((a, b) => a + b, 0);
  return sizes.map((size) => size / total);
}

function classMixture(k) {
  const colour = [0, 0, 0];
  shares(k).forEach((share, c) => palette.classes[c].forEach((value, channel) => { colour[channel] += share * value; }));
  return mixed(palette.paper, colour, 0.62);
}

function colourOf(l, j) {
  const isOutput = l === state.network.layers.length - 1, count = state.network.sizes.at(-1);
  if (isOutput && count > 1) {
    if (j === null) return classMixture;
    return (k) => shade(j, shares(k)[j]);
  }
  const value = response(l, j ?? 0);
  return (k) => diverging(value(k));
}

const images = new WeakMap(); // the pixels of each canvas

function paint(canvas, colour, every) {
  const side = GRID / every, context = canvas.getContext("2d");
  if (!images.has(canvas)) images.set(canvas, context.createImageData(side, side));
  const image = images.get(canvas), { data } = image;
  for (let row = 0, place = 0; row < side; row++) for (let column = 0; column < side; column++, place += 4) {
    const rgb = colour(row * every * GRID + column * every);
    data[place] = rgb[0];
    data[place + 1] = rgb[1];
    data[place + 2] = rgb[2];
    data[place + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// ── The large picture ──

const small = make("canvas", { width: GRID, height: GRID });

function renderPlane() {
  const canvas = by("plane"), side = Math.round(canvas.clientWidth * devicePixelRatio) || 340;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d"), { large } = state, last = state.network.layers.length - 1;
  paint(small, large ? colourOf(large.l, large.j) : colourOf(last, null), 1);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, side, side);
  const scale = side / 340;
  if (!large) renderBoundary(context, side, scale);
  state.held.forEach((number) => drawPoint(context, state.points[number], scale, true));
  state.train.forEach((number) => drawPoint(context, state.points[number], scale, false));
  drawMarks(context, side, scale);
  by("result-title").textContent = large ? `Response of ${neuronName(large.l, large.j)}` : "Output and boundary";
}

const toCanvas = ([x, y]) => {
  const side = by("plane").width;
  return [((x / state.radius + 1) / 2) * side, ((1 - y / state.radius) / 2) * side];
};

function drawPoint(context, point, scale, isHeld) {
  const [x, y] = toCanvas(point), colour = palette.classes[point[2]];
  context.beginPath();
  shape(context, x, y, 3.8 * scale, point[2]);
  context.lineWidth = (isHeld ? 1.7 : 1) * scale;
  context.fillStyle = css(isHeld ? palette.paper : colour);
  context.strokeStyle = css(isHeld ? mixed(colour, palette.ink, 0.25) : palette.paper);
  context.fill();
  context.stroke();
}

// A circle, a square, a triangle and a diamond: the classes are told apart without colours, too.
const SHAPES = [
  null,
  [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  [[0, -1.3], [1.2, 0.9], [-1.2, 0.9]],
  [[0, -1.4], [1.2, 0], [0, 1.4], [-1.2, 0]],
];

function shape(context, x, y, size, label) {
  const corners = SHAPES[label];
  if (!corners) { context.arc(x, y, size, 0, 7); return; }
  corners.forEach(([dx, dy], k) => context[k ? "lineTo" : "moveTo"](x + 0.95 * size * dx, y + 0.95 * size * dy));
  context.closePath();
}

// The lines on which two classes are equally likely.
function renderBoundary(context, side, scale) {
  const count = state.network.sizes.at(-1), z = state.rooms.grid.layers.at(-1).z;
  const middle = state.network.loss === "squared" ? 0.5 : 0;
  context.strokeStyle = css(palette.ink);
  context.lineWidth = 1.4 * scale;
  context.beginPath();
  if (count === 1) contour(context, side, (k) => z[k] - middle);
  else for (let c = 0; c < count; c++) contour(context, side, (k) => lead(z, k, c, count));
  context.stroke();
}

// How far an output is above all others.
function lead(z, k, c, count) {
  let other = -Infinity;
  for (let j = 0; j < count; j++) if (j !== c) other = Math.max(other, z[k * count + j]);
  return z[k * count + c] - other;
}

// The line on which a function over the grid is 0, cell by cell.
function contour(context, side, value) {
  const cell = side / GRID, values = Float64Array.from({ length: GRID * GRID }, (_, k) => value(k));
  for (let row = 0; row + 1 < GRID; row++) for (let column = 0; column + 1 < GRID; column++) {
    const k = row * GRID + column, above = [k, k + 1, k + GRID + 1, k + GRID].map((corner) => values[corner] >= 0);
    if (above[0] === above[1] && above[1] === above[2] && above[2] === above[3]) continue;
    crossings(values, row, column).forEach(([x, y], end) => context[end % 2 ? "lineTo" : "moveTo"](x * cell, y * cell));
  }
}

// Where the line crosses the sides of a cell.
function crossings(values, row, column) {
  const corner = ([dx, dy]) => [column + dx + 0.5, row + dy + 0.5, values[(row + dy) * GRID + column + dx]];
  const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(corner);
  return corners.flatMap(([x0, y0, v0], k) => {
    const [x1, y1, v1] = corners[(k + 1) % 4], share = v0 / (v0 - v1);
    return v0 >= 0 === v1 >= 0 ? [] : [[x0 + share * (x1 - x0), y0 + share * (y1 - y0)]];
  });
}

// The names of the axes, the cross of the keyboard, and the point whose numbers are shown.
function drawMarks(context, side, scale) {
  context.fillStyle = css(palette.ink);
  context.font = `${12 * scale}px system-ui, sans-serif`;
  context.textAlign = "right";
  context.fillText(`${state.axes[0]} →`, side - 6 * scale, side - 7 * scale);
  context.textAlign = "left";
  context.fillText(`↑ ${state.axes[1]}`, 6 * scale, 16 * scale);
  context.strokeStyle = css(palette.ink);
  context.lineWidth = 2 * scale;
  context.beginPath();
  if (state.shown) {
    const [x, y] = toCanvas(state.points[state.shown.chosen[state.chosen]] ?? [NaN, NaN]);
    context.moveTo(x + 9 * scale, y);
    context.arc(x, y, 9 * scale, 0, 7);
  }
  if (state.cross && document.activeElement === by("plane")) {
    const [x, y] = toCanvas(state.cross), arm = 8 * scale;
    context.moveTo(x - arm, y); context.lineTo(x + arm, y);
    context.moveTo(x, y - arm); context.lineTo(x, y + arm);
  }
  context.stroke();
}

// ── The network ──

const neurons = []; // {l, j, canvas, button}; the inputs have l = -1
const edges = []; // {l, i, j, line}

const neuronName = (l, j) => (l < 0 ? `input ${state.axes[j]}`
  : l < state.network.layers.length - 1 ? `neuron ${j + 1} of layer ${l + 1}`
    : state.network.sizes.at(-1) === 1 ? "the output" : `the output for ${state.classes[j]}`);

function buildNetwork() {
  neurons.length = edges.length = 0;
  by("net").replaceChildren(by("edges"));
  by("edges").replaceChildren();
  const { sizes } = state.network;
  for (let l = 0; l + 1 < sizes.length; l++)
    for (let i = 0; i < sizes[l]; i++) for (let j = 0; j < sizes[l + 1]; j++) buildEdge(l, i, j);
  sizes.forEach((size, column) => {
    by("net").append(columnHead(column));
    for (let j = 0; j < size; j++) buildNeuron(column - 1, j);
  });
  layOut();
}

function buildEdge(l, i, j) {
  const line = draw("line", { class: "edge" }), touch = draw("line", { class: "touch" });
  by("edges").append(line, touch);
  edges.push({ l, i, j, line, touch });
  touch.addEventListener("pointermove", (event) => {
    const { w, dw, outputs } = state.network.layers[l], place = i * outputs + j;
    const slope = state.steps ? `, ${math(SYMBOLS.dw(l, [i, j]))} = ${digits(dw[place])}` : "";
    tip(event, `${math(symbol("W", l, [i, j]))} = ${digits(w[place])}${slope}`);
  });
  touch.addEventListener("pointerleave", hideTip);
  touch.addEventListener("click", () => { hideTip(); state.picked = { kind: "dw", l, at: [i, j] }; openStep(); });
}

function buildNeuron(l, j) {
  const canvas = make("canvas", { width: GRID / 2, height: GRID / 2 });
  const label = `response of ${neuronName(l, j)}`;
  const button = make("button", { type: "button", class: "neuron", "aria-label": label }, canvas);
  if (l < 0) button.append(make("span", {}, `x${"₁₂"[j]}`));
  const show = () => { state.large = { l, j }; render(); };
  const hide = () => { state.large = null; hideTip(); render(); };
  button.addEventListener("pointerenter", show);
  button.addEventListener("pointerleave", hide);
  button.addEventListener("focus", show);
  button.addEventListener("blur", hide);
  button.addEventListener("pointermove", (event) => {
    if (l >= 0) tip(event, `${neuronName(l, j)}, ${math(symbol("b", l, [j]))} = ${digits(state.network.layers[l].b[j])}`);
  });
  if (l >= 0) button.addEventListener("click", () => { state.picked = { kind: "z", l, at: [j] }; openStep(); });
  by("net").append(button);
  neurons.push({ l, j, canvas, button });
}

function columnHead(column) {
  const { sizes } = state.network, isHidden = column > 0 && column < sizes.length - 1;
  const name = column === 0 ? "inputs" : isHidden ? `layer ${column}` : "output";
  const head = make("div", { class: "head" }, make("span", { class: isHidden ? "word" : "" }, name));
  if (!isHidden) return head;
  const change = (by_) => () => {
    state.setting.hidden = state.setting.hidden.map((width, k) => width + (k === column - 1 ? by_ : 0));
    rebuild();
    by("net").querySelectorAll(`[data-layer="${column}"]`)[by_ > 0 ? 1 : 0].focus();
  };
  const button = (change_, sign_) => make("button", {
    type: "button", "data-layer": column, "aria-label": `layer ${column}: one neuron ${change_}`,
  }, sign_);
  const fewer = button("fewer", "−"), more = button("more", "+");
  fewer.disabled = sizes[column] === 1;
  more.disabled = sizes[column] === GIVEN.widest;
  fewer.addEventListener("click", change(-1));
  more.addEventListener("click", change(1));
  head.append(fewer, make("span", { class: "width" }, String(sizes[column])), more);
  return head;
}

// Puts neurons, lines and heads where the width of the page has room for them.
function layOut() {
  const { sizes } = state.network, width = by("net").clientWidth || 600, tallest = Math.max(...sizes);
  const gap = width / sizes.length, side = Math.max(22, Math.min(tallest > 8 ? 32 : 42, gap - 18));
  const spacing = side + (tallest > 8 ? 7 : 10), top = 56, height = top + spacing * tallest;
  const x = (column) => gap * (column + 0.5);
  const y = (column, j) => top + ((tallest - sizes[column]) / 2 + j + 0.5) * spacing;
  by("net").style.height = `${height}px`;
  by("net").classList.toggle("tight", gap < 90);
  by("edges").setAttribute("viewBox", `0 0 ${width} ${height}`);
  by("net").querySelectorAll(".head").forEach((head, column) => { head.style.left = `${x(column)}px`; });
  const pixels = (place) => Object.fromEntries(Object.entries(place).map(([name, value]) => [name, `${value}px`]));
  for (const { l, j, button } of neurons) {
    const place = { left: x(l + 1) - side / 2, top: y(l + 1, j) - side / 2, width: side, height: side };
    Object.assign(button.style, pixels(place));
  }
  for (const { l, i, j, line, touch } of edges)
    for (const element of [line, touch]) {
      element.setAttribute("x1", x(l) + side / 2); element.setAttribute("y1", y(l, i));
      element.setAttribute("x2", x(l + 1) - side / 2); element.setAttribute("y2", y(l + 1, j));
    }
}

// What has not changed is not drawn anew.
function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const thickness = (w) => 0.4 + (6.5 * Math.abs(w)) / (1.5 + Math.abs(w));
const edgeColour = (w) => (w < 0 ? "var(--negative)" : "var(--positive)");

function renderNetwork() {
  for (const { l, j, canvas, button } of neurons) {
    paint(canvas, colourOf(l, j), 2);
    button.classList.toggle("lit", state.large?.l === l && state.large?.j === j);
  }
  for (const { l, i, j, line } of edges) {
    const w = state.network.layers[l].w[i * state.network.sizes[l + 1] + j];
    set(line, "stroke", edgeColour(w));
    set(line, "stroke-width", thickness(w).toFixed(1));
  }
  markPicked();
}

// The line of the weight whose gradient is shown.
function markPicked() {
  for (const { l, i, j, line } of edges)
    line.classList.toggle("lit", Boolean(state.shown) && isSame(state.picked, { kind: "dw", l, at: [i, j] }));
}

function buildLegend() {
  const weights = [-2, -0.5, -0.1, 0.1, 0.5, 2];
  weights.forEach((w, k) => {
    const x = 54 + 58 * k;
    const line = { x1: x, x2: x + 18, y1: 11, y2: 11, stroke: edgeColour(w), "stroke-width": thickness(w) };
    by("legend").append(draw("line", line), draw("text", { x: x + 23, y: 15 }, String(w).replace("-", "−")));
  });
  by("legend").append(draw("text", { x: 0, y: 15 }, "weight"));
}

function tip(event, markup) {
  by("tip").innerHTML = markup;
  by("tip").hidden = false;
  by("tip").style.left = `${Math.min(event.pageX + 14, document.documentElement.scrollWidth - 210)}px`;
  by("tip").style.top = `${event.pageY + 14}px`;
}

function hideTip() { by("tip").hidden = true; }

// ── Curve, gradients, numbers ──

function renderCurve() {
  const svg = by("curve"), width = svg.clientWidth || 480, height = 130, left = 44, bottom = height - 18;
  const shown = [...state.history, thisMoment()];
  const values = shown.flatMap(([, train, held]) => [train, held]).filter(Number.isFinite);
  const highest = Math.max(1e-9, ...values), last = Math.max(1, state.steps);
  const x = (at) => (left + ((width - left - 6) * at) / last).toFixed(1);
  const y = (J) => (bottom - ((bottom - 8) * J) / highest).toFixed(1);
  const finite = (k) => shown.filter((one) => Number.isFinite(one[k]));
  const points = (k) => finite(k).map((one) => `${x(one[0])},${y(one[k])}`).join(" ");
  if (svg.getAttribute("viewBox") !== `0 0 ${width} ${height}`) {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren(
      draw("path", { d: `M${left},4V${bottom}H${width - 4}` }),
      draw("text", { class: "highest", x: left - 6, y: 14, "text-anchor": "end" }),
      draw("text", { x: left - 6, y: bottom, "text-anchor": "end" }, "0"),
      draw("text", { x: left, y: height - 3 }, "0"),
      draw("text", { class: "last", x: width - 4, y: height - 3, "text-anchor": "end" }),
      draw("polyline", { class: "held" }),
      draw("polyline", { class: "train" }),
    );
  }
  svg.querySelector(".highest").textContent = digits(highest, 3);
  svg.querySelector(".last").textContent = `step ${state.steps}`;
  svg.querySelector(".held").setAttribute("points", points(2));
  svg.querySelector(".train").setAttribute("points", points(1));
  const [first, now] = [state.history[0][1], state.now.train.J].map((J) => digits(J));
  svg.setAttribute("aria-label", `J over the steps: ${first} at first, ${now} after ${state.steps} steps`);
}

// On a logarithmic scale, from 10⁻⁶ to 10.
function renderGradients() {
  const sizes = state.steps ? gradientSizes(state.network) : state.network.layers.map(() => NaN);
  const box = by("gradients");
  if (box.children.length !== sizes.length) box.replaceChildren(...sizes.map((_, l) => gradientRow(l)));
  sizes.forEach((size, l) => {
    const share = Math.min(1, Math.max(0, (Math.log10(size) + 6) / 7)) || 0;
    box.children[l].querySelector(".bar div").style.width = `${100 * share}%`;
    box.children[l].lastChild.textContent = state.steps ? digits(size, 3) : "–";
  });
}

function gradientRow(l) {
  const name = make("span");
  name.innerHTML = `‖${math(SYMBOLS.dw(l, []))}‖`;
  return make("div", { class: "gradient" }, name, make("div", { class: "bar" }, make("div")), make("span"));
}

function renderNumbers() {
  by("count").textContent = state.steps;
  by("loss").textContent = digits(state.now.train.J);
  by("loss-held").textContent = Number.isNaN(state.now.held.J) ? "–" : digits(state.now.held.J);
  by("right").textContent = percent(state.now.train.accuracy);
  by("right-held").textContent = percent(state.now.held.accuracy);
}

function render() {
  forward(state.network, state.rooms.grid, GRID * GRID);
  renderPlane();
  renderNetwork();
  renderCurve();
  renderGradients();
  renderNumbers();
}
