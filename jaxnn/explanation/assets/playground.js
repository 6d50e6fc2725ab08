// The page: trains a network while one looks, and shows any step by its numbers.
"use strict";

(() => {
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
    if (state.setting.data === "own") parts.push(["points", state.points.map((point) => point.map((x) => Number(x.toFixed(3))).join(",")).join(";")]);
    return parts.map(([name, text]) => `${name}=${encodeURIComponent(text).replaceAll("%2C", ",").replaceAll("%3B", ";")}`).join("&");
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

  // Rows of "x, y, class"; the classes count from first.
  function readRows(text, first) {
    const rows = [], lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
    for (const line of lines) {
      const [x, y, label, ...rest] = line.split(/[\s,;]+/).filter(Boolean).map(Number);
      const good = Number.isFinite(x) && Number.isFinite(y) && isWhole(first, first + GIVEN.mostClasses - 1)(label) && !rest.length;
      if (!good) return { rows, wrong: line };
      rows.push([x, y, label - first]);
    }
    return { rows: rows.slice(0, GIVEN.mostPoints), wrong: null };
  }

  function scaled(points) {
    const columns = [0, 1].map((k) => {
      const values = points.map((point) => point[k]), mean = values.reduce((a, b) => a + b, 0) / values.length;
      const spread = Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length) || 1;
      return (x) => (x - mean) / spread;
    });
    return points.map(([x, y, label]) => [columns[0](x), columns[1](y), label]);
  }

  // ── Building ──

  function takePoints(points, axes, classes) {
    const count = Math.max(2, ...points.map((point) => point[2] + 1), classes.length);
    state.points = points.map((point) => point.slice());
    state.axes = axes;
    state.classes = Array.from({ length: count }, (_, k) => classes[k] ?? `class ${k + 1}`);
    state.radius = 1.12 * Math.max(1.2, ...points.flatMap(([x, y]) => [Math.abs(x), Math.abs(y)]));
    divide();
  }

  // Every fifth point is held out.
  function divide() {
    const numbers = state.points.map((_, k) => k);
    state.held = numbers.filter((k) => k % 5 === 4);
    state.train = numbers.filter((k) => k % 5 !== 4);
    if (state.training) state.training.queue = [];
  }

  function takeSetting({ setting, points }) {
    state.setting = setting;
    if (setting.data === "own") takePoints(points, ["x₁", "x₂"], []);
    else { const set = GIVEN.sets[setting.data]; takePoints(set.points, set.axes, set.classes); }
    rebuild();
  }

  const lossName = () => (state.setting.loss === "squared error" ? "squared" : state.classes.length > 2 ? "softmax" : "sigmoid cross-entropy");

  // A new network with new weights, before its first step.
  function rebuild() {
    const count = state.classes.length, sizes = [2, ...state.setting.hidden, count === 2 ? 1 : count];
    state.network = makeNetwork(sizes, state.setting.activation, lossName());
    drawWeights(state.network, state.setting.seed);
    state.training = makeTraining(state.network, state.setting);
    state.rooms = { grid: makeRoom(state.network, GRID * GRID), points: makeRoom(state.network, GIVEN.mostPoints) };
    fillGrid();
    Object.assign(state, { steps: 0, history: [], every: 1, large: null, picked: null, chosen: 0 });
    by("problem").textContent = "";
    showControls();
    buildNetwork();
    record();
    if (!by("shown").hidden) closeStep();
    render();
    writeFragment();
  }

  function fillGrid() {
    const { x } = state.rooms.grid;
    for (let k = 0; k < GRID * GRID; k++) [x[2 * k], x[2 * k + 1]] = gridPoint(k);
  }

  function gridPoint(k) {
    const along = (index) => ((index + 0.5) / GRID) * 2 - 1;
    return [state.radius * along(k % GRID), -state.radius * along(Math.floor(k / GRID))];
  }

  // ── Training ──

  function step(count = 1) {
    if (!state.train.length) return;
    for (let k = 0; k < count; k++) takeStep(state.training, state.points, state.train);
    state.steps += count;
    record();
  }

  function record() {
    const { network, rooms, points } = state;
    state.now = { train: evaluate(network, rooms.points, points, state.train), held: evaluate(network, rooms.points, points, state.held) };
    remember();
    if (state.steps && !Number.isFinite(state.now.train.J)) {
      pause();
      by("problem").textContent = "J is no finite number any more: the learning rate is too large for this network. Reset, and take a smaller one.";
    }
  }

  // The curve has a limited number of moments; where there are too many, every other one is left out.
  function remember() {
    const last = state.history.at(-1);
    if (!last || state.steps - last[0] >= state.every) state.history.push([state.steps, state.now.train.J, state.now.held.J]);
    if (state.history.length <= MOST_MOMENTS) return;
    state.history = state.history.filter((_, k) => k % 2 === 0);
    state.every = (2 * state.steps) / MOST_MOMENTS;
  }

  function frame() {
    if (!state.running) return;
    step(state.setting.speed);
    render();
    state.drawings++;
    requestAnimationFrame(frame);
  }

  // Runs for some seconds, and counts the steps and the drawings of a second.
  async function measure(seconds = 3) {
    const before = { steps: state.steps, drawings: state.drawings, time: performance.now() };
    run();
    await new Promise((done) => setTimeout(done, 1000 * seconds));
    pause();
    const passed = (performance.now() - before.time) / 1000;
    return { steps: (state.steps - before.steps) / passed, drawings: (state.drawings - before.drawings) / passed };
  }

  function run() {
    state.running = true;
    showRunning();
    requestAnimationFrame(frame);
  }

  function pause() {
    if (!state.running) return;
    state.running = false;
    showRunning();
    announce("Paused");
    if (!by("shown").hidden) renderStep();
  }

  function showRunning() {
    by("run").textContent = state.running ? "❚❚ Pause" : "▶ Run";
    by("run").setAttribute("aria-pressed", String(state.running));
  }

  function announce(what) {
    by("said").textContent = `${what} at step ${state.steps}. J is ${digits(state.now.train.J)}, and ${percent(state.now.train.accuracy)} of the points are right.`;
  }

  const percent = (share) => (Number.isNaN(share) ? "–" : `${(100 * share).toFixed(0)} %`);

  // ── Colours ──

  let palette = {};
  function readPalette() {
    const style = getComputedStyle(document.documentElement);
    const rgb = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((pair) => parseInt(pair, 16));
    palette = Object.fromEntries(["ink", "soft", "paper", "positive", "negative", "third", "fourth", "slope"].map((name) => [name, rgb(`--${name}`)]));
    palette.classes = [palette.negative, palette.positive, palette.third, palette.fourth];
    const towards = (colour) => Array.from({ length: SHADES + 1 }, (_, k) => mixed(palette.paper, colour, (0.72 * k) / SHADES));
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
    const sizes = Array.from(z, (value) => (state.network.loss === "squared" ? Math.max(value, 1e-9) : Math.exp(value - highest)));
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
  function shape(context, x, y, size, label) {
    const corners = [null, [[-1, -1], [1, -1], [1, 1], [-1, 1]], [[0, -1.3], [1.2, 0.9], [-1.2, 0.9]], [[0, -1.4], [1.2, 0], [0, 1.4], [-1.2, 0]]][label];
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
    const corners = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([dx, dy]) => [column + dx + 0.5, row + dy + 0.5, values[(row + dy) * GRID + column + dx]]);
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
      const { w, dw } = state.network.layers[l], place = i * state.network.layers[l].outputs + j;
      tip(event, `${math(symbol("W", l, [i, j]))} = ${digits(w[place])}${state.steps ? `, ${math(slopeOf(symbol("W", l, [i, j])))} = ${digits(dw[place])}` : ""}`);
    });
    touch.addEventListener("pointerleave", hideTip);
    touch.addEventListener("click", () => { hideTip(); pick({ kind: "dw", l, at: [i, j] }); openStep(); });
  }

  function buildNeuron(l, j) {
    const canvas = make("canvas", { width: GRID / 2, height: GRID / 2 });
    const button = make("button", { type: "button", class: "neuron", "aria-label": `response of ${neuronName(l, j)}` }, canvas);
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
    if (l >= 0) button.addEventListener("click", () => { pick({ kind: "z", l, at: [j] }); openStep(); });
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
    const fewer = make("button", { type: "button", "data-layer": column, "aria-label": `layer ${column}: one neuron fewer` }, "−");
    const more = make("button", { type: "button", "data-layer": column, "aria-label": `layer ${column}: one neuron more` }, "+");
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
    const x = (column) => gap * (column + 0.5), y = (column, j) => top + ((tallest - sizes[column]) / 2 + j + 0.5) * spacing;
    by("net").style.height = `${height}px`;
    by("net").classList.toggle("tight", gap < 90);
    by("edges").setAttribute("viewBox", `0 0 ${width} ${height}`);
    by("net").querySelectorAll(".head").forEach((head, column) => { head.style.left = `${x(column)}px`; });
    for (const { l, j, button } of neurons)
      Object.assign(button.style, { left: `${x(l + 1) - side / 2}px`, top: `${y(l + 1, j) - side / 2}px`, width: `${side}px`, height: `${side}px` });
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
      const { picked } = state;
      line.classList.toggle("lit", Boolean(state.shown) && picked?.kind === "dw" && picked.l === l && picked.at[0] === i && picked.at[1] === j);
    }
  }

  function buildLegend() {
    const weights = [-2, -0.5, -0.1, 0.1, 0.5, 2];
    weights.forEach((w, k) => {
      const x = 54 + 58 * k;
      by("legend").append(draw("line", { x1: x, x2: x + 18, y1: 11, y2: 11, stroke: edgeColour(w), "stroke-width": thickness(w) }));
      by("legend").append(draw("text", { x: x + 23, y: 15 }, String(w).replace("-", "−")));
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
    const moments_ = [...state.history, [state.steps, state.now.train.J, state.now.held.J]];
    const values = moments_.flatMap(([, train, held]) => [train, held]).filter(Number.isFinite);
    const highest = Math.max(1e-9, ...values), last = Math.max(1, state.steps);
    const place = (at, J) => `${(left + ((width - left - 6) * at) / last).toFixed(1)},${(bottom - ((bottom - 8) * J) / highest).toFixed(1)}`;
    const line = (column) => moments_.filter((moment) => Number.isFinite(moment[column])).map((moment) => place(moment[0], moment[column])).join(" ");
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
    svg.querySelector(".held").setAttribute("points", line(2));
    svg.querySelector(".train").setAttribute("points", line(1));
    svg.setAttribute("aria-label", `J over the steps: ${digits(state.history[0][1])} at first, ${digits(state.now.train.J)} after ${state.steps} steps`);
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
    name.innerHTML = `‖${math(slopeOf(symbol("W", l, [])))}‖`;
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

  // ── Points ──

  function addPoint([x, y], label) {
    if (state.points.length >= GIVEN.mostPoints) { by("problem").textContent = `There are ${GIVEN.mostPoints} points already.`; return; }
    const round = (value) => Number(value.toFixed(3));
    state.points.push([round(x), round(y), label]);
    state.setting.data = "own";
    if (label >= state.classes.length) {
      state.classes.push(`class ${label + 1}`);
      divide();
      rebuild();
      return;
    }
    divide();
    closeStep();
    record();
    showControls();
    render();
    writeFragment();
  }

  function choosePoint([x, y]) {
    const distance = (number) => Math.hypot(state.points[number][0] - x, state.points[number][1] - y);
    if (!state.shown) openStep();
    const best = state.shown.chosen.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    state.chosen = state.shown.chosen.indexOf(best);
    renderStep();
  }

  const clickMode = () => document.querySelector("#adds input:checked").value;

  function actAt(place) {
    if (clickMode() === "choose") choosePoint(place);
    else addPoint(place, Number(clickMode()));
  }

  function usePasted() {
    const { rows, wrong } = readRows(by("pasted").value, 1);
    if (wrong !== null || rows.length < 2) {
      by("problem").textContent = wrong === null ? "Expected two rows or more." : `Expected "x, y, class" with a class from 1 to ${GIVEN.mostClasses}, got "${wrong}".`;
      return;
    }
    takeSetting({ setting: { ...state.setting, data: "own" }, points: by("scale").checked ? scaled(rows) : rows });
    by("said").textContent = `${rows.length} points are used.`;
  }

  // ── The numbers of a step ──

  const index = (at) => at.map((k) => `<mn>${k + 1}</mn>`).join(sign(","));
  const raised = (l) => row('<mo stretchy="false">(</mo>', `<mn>${l + 1}</mn>`, '<mo stretchy="false">)</mo>');

  // letter⁽ˡ⁾ with indices; layers are counted from 0 in the code and from 1 in what is shown.
  function symbol(letter, l, at) {
    const name = `<mi>${letter}</mi>`;
    if (l === null) return at.length ? `<msub>${name}${row(index(at))}</msub>` : name;
    return at.length ? `<msubsup>${name}${row(index(at))}${raised(l)}</msubsup>` : `<msup>${name}${raised(l)}</msup>`;
  }

  const slopeOf = (markup) => row("<mi>∂</mi>", "<mi>J</mi>", '<mo lspace="0" rspace="0">/</mo>', "<mi>∂</mi>", markup);

  // The symbol of an array that a formula of a layer calls by a name of its own.
  function namedSymbol(owner, l, name, at) {
    const last = state.network.layers.length - 1;
    if (owner === "loss") return name === "t" ? symbol("t", null, state.network.sizes.at(-1) === 1 ? at.slice(0, -1) : at) : symbol("z", last, at);
    if (owner === "activation") return { x: () => symbol("z", l, at), y: () => symbol("a", l, at), dy: () => slopeOf(symbol("a", l, at)) }[name]();
    return {
      x: () => (l ? symbol("a", l - 1, at) : symbol("x", null, at)),
      w: () => symbol("W", l, at), b: () => symbol("b", l, at), dy: () => symbol("δ", l, at),
    }[name]();
  }

  // What can be picked: how it is written, which formula gives it, and its number.
  function described({ kind, l, at }) {
    const { network, room, rows } = state.shown, last = network.layers.length - 1, n = state.chosen;
    const dense = (layer) => ({ owner: "dense", l: layer, op: OPS.dense, arrays: denseArrays(network, room, layer), sizes: denseSizes(network, rows, layer) });
    const activation = () => ({ owner: "activation", l, op: OPS[network.activation], arrays: room.layers[l].activation, sizes: activationSizes(network, rows, l) });
    const loss = { owner: "loss", l: last, op: OPS[network.loss], arrays: lossArrays(network, room), sizes: lossSizes(network, rows) };
    const width = network.sizes[l + 1], ofPoint = { at: [n, ...at], samples: false }, ofBatch = { at, samples: true };
    const own = room.layers[l], layer = network.layers[l];
    switch (kind) {
      case "z": return { ...dense(l), ...ofPoint, name: "y", left: symbol("z", l, at), value: own.z[n * width + at[0]] };
      case "a": return { ...activation(), ...ofPoint, name: "y", left: symbol("a", l, at), value: own.a[n * width + at[0]] };
      case "da": return { ...dense(l + 1), ...ofPoint, name: "dx", left: slopeOf(symbol("a", l, at)), value: own.da[n * width + at[0]] };
      case "dz": return { ...(l === last ? loss : activation()), ...ofPoint, name: l === last ? "dy" : "dx", left: symbol("δ", l, at), value: own.dz[n * width + at[0]] };
      case "dw": return { ...dense(l), ...ofBatch, name: "dw", left: slopeOf(symbol("W", l, at)), value: layer.dw[at[0] * width + at[1]] };
      case "db": return { ...dense(l), ...ofBatch, name: "db", left: slopeOf(symbol("b", l, at)), value: layer.db[at[0]] };
      default: return { ...loss, ...ofBatch, name: "J", left: "<mi>J</mi>", value: room.J[0] };
    }
  }

  const BATCHED = ["x", "y", "dy", "t"]; // arrays with a row for each point

  function renderFormula() {
    const { picked } = state, box = by("formula");
    const { owner, l, op, arrays, sizes, name, at, left, value, samples } = described(picked);
    const isLinear = owner === "activation" && !op;
    const shownAt = (array, place) => (samples || !BATCHED.includes(array) ? place : place.slice(1));
    const write = (entry, times) => op.written[name](makeWriter(entry, times, state.chosen), arrays, sizes, at).markup;
    const symbols = (array, place) => atom(namedSymbol(owner, l, array, shownAt(array, place)), NaN);
    const numbers = (array, place, number) => numberPart(number, 5);
    const lines = isLinear ? [] : [["", write(symbols, "⋅")], ["numbers-line", write(numbers, "×")]];
    box.replaceChildren(
      make("p", { class: "where" }, whereOf(picked)),
      ...lines.map(([kind, markup], k) => line(kind, row(k ? "" : left, sign("="), markup))),
      line(lines.length ? "numbers-line" : "", row(lines.length ? "" : left, sign("="), `<mn>${digits(value, 6)}</mn>`)),
      ...(picked.kind === "dw" || picked.kind === "db" ? updateLines(picked, value) : []),
    );
  }

  function line(kind, markup) {
    const element = make("p", { class: kind });
    element.innerHTML = math(`<mstyle displaystyle="true">${markup}</mstyle>`);
    return element;
  }

  function sentence(text, markup) {
    const element = line("", markup);
    element.prepend(`${text} `);
    return element;
  }

  function whereOf({ kind, l, at }) {
    const layer = `layer ${l + 1}`, { network, rows } = state.shown, name = network.activation;
    switch (kind) {
      case "z": return `Forward, ${layer}: the weighted sum of neuron ${at[0] + 1}`;
      case "a": return `Forward, ${layer}: the activation of neuron ${at[0] + 1}, ${name}`;
      case "da": return `Backward, from layer ${l + 2} to neuron ${at[0] + 1} of ${layer}: the chain rule over all weights that leave it`;
      case "dz": return l === network.layers.length - 1 ? `Backward, loss: ${state.setting.loss}, the mean over ${rows} points` : `Backward, ${layer}: through the activation of neuron ${at[0] + 1}, ${name}`;
      case "dw": return `Gradient, ${layer}: the weight from ${l ? `neuron ${at[0] + 1} of layer ${l}` : `input ${at[0] + 1}`} to neuron ${at[1] + 1}; the sum over the ${rows} points of this step, the first index`;
      case "db": return `Gradient, ${layer}: the bias of neuron ${at[0] + 1}; the sum over the ${rows} points of this step, the first index`;
      default: return `Forward, loss: ${state.setting.loss}, the mean over the ${rows} points of this step, the first index`;
    }
  }

  // The term of the chosen point, the regularisation, and what the optimizer makes of the gradient.
  function updateLines({ kind, l, at }, gradient) {
    const { network, room, setting } = state.shown, n = state.chosen, isWeight = kind === "dw";
    const layer = network.layers[l], j = at[isWeight ? 1 : 0], width = layer.outputs;
    const before = l ? room.layers[l - 1].a : room.x, place = isWeight ? at[0] * width + j : j;
    const parameter = isWeight ? symbol("W", l, at) : symbol("b", l, at), w = (isWeight ? layer.w : layer.b)[place];
    const write = makeWriter(null, "×"), number = (value) => numberPart(value, 5), { op } = write;
    const lines = [], delta = room.layers[l].dz[n * width + j];
    if (isWeight) {
      const input = before[n * layer.inputs + at[0]];
      lines.push(sentence("Of it, the chosen point's term:", row(op("*", number(input), number(delta)).markup, sign("="), number(input * delta).markup)));
    }
    let g = gradient;
    if (isWeight && setting.l2) {
      g += setting.l2 * w;
      lines.push(sentence("With λ times the weight:", row("<mi>g</mi>", sign("="), op("+", number(gradient), op("*", number(setting.l2), number(w))).markup, sign("="), number(g).markup)));
    }
    return [...lines, ...UPDATES_WRITTEN[setting.optimizer]({ parameter, w, g, setting, op, number, state: state.shown.moments[l][isWeight ? "w" : "b"], place, count: state.shown.count })];
  }

  const becomes = (parameter, now, markup, after) => sentence("The step:", row(parameter, sign("←"), now, markup, sign("="), numberPart(after, 6).markup));

  const UPDATES_WRITTEN = {
    sgd({ parameter, w, g, setting, op, number }) {
      const markup = op("-", number(w), op("*", number(setting.rate), number(g))).markup;
      return [becomes(parameter, "", markup, w - setting.rate * g)];
    },
    momentum({ parameter, w, g, setting, op, number, state: { m }, place }) {
      const velocity = g + MOMENTUM * m[place];
      const sum = op("+", op("*", number(MOMENTUM), number(m[place])), number(g)).markup;
      const markup = op("-", number(w), op("*", number(setting.rate), number(velocity))).markup;
      return [sentence("Momentum:", row("<mi>m</mi>", sign("←"), sum, sign("="), number(velocity).markup)), becomes(parameter, "", markup, w - setting.rate * velocity)];
    },
    adam({ parameter, w, g, setting, op, number, state: { m, v }, place, count }) {
      const first = ADAM.first * m[place] + (1 - ADAM.first) * g, second = ADAM.second * v[place] + (1 - ADAM.second) * g * g;
      const mean = first / (1 - ADAM.first ** count), square = second / (1 - ADAM.second ** count);
      const firstSum = op("+", op("*", number(ADAM.first), number(m[place])), op("*", number(0.1), number(g))).markup;
      const secondSum = op("+", op("*", number(ADAM.second), number(v[place])), op("*", number(0.001), op("**", number(g), number(2)))).markup;
      const hat = (letter, power, moment, result) => row(sign(","), `<mover><mi>${letter}</mi><mo>^</mo></mover>`, sign("="), `<mfrac>${row(letter === "m" ? "<mi>m</mi>" : "<mi>v</mi>")}${row("<mn>1</mn>", sign("−"), `<msup><mn>${power}</mn><mn>${count}</mn></msup>`)}</mfrac>`, sign("="), number(result).markup);
      const ratio = op("/", number(mean), op("+", { ...number(0), markup: `<msqrt>${number(square).markup}</msqrt>` }, number(ADAM.epsilon)));
      const after = w - (setting.rate * mean) / (Math.sqrt(square) + ADAM.epsilon);
      return [
        sentence("Adam, the mean:", row("<mi>m</mi>", sign("←"), firstSum, sign("="), number(first).markup, hat("m", ADAM.first, first, mean))),
        sentence("and the mean square:", row("<mi>v</mi>", sign("←"), secondSum, sign("="), number(second).markup, hat("v", ADAM.second, second, square))),
        becomes(parameter, "", op("-", number(w), op("*", number(setting.rate), ratio)).markup, after),
      ];
    },
  };

  // ── The tables of a step: rows of numbers, each of which can be picked ──

  function pick(picked) { state.picked = picked; }

  function openStep() {
    pause();
    if (!state.steps) { step(); render(); }
    by("shown").hidden = false;
    by("show").setAttribute("aria-expanded", "true");
    by("show").textContent = "Close the step";
    renderStep();
    by("shown").scrollIntoView?.({ block: "nearest" });
    by("shown-title").focus({ preventScroll: true });
  }

  function closeStep() {
    by("shown").hidden = true;
    by("show").setAttribute("aria-expanded", "false");
    by("show").textContent = "Show this step";
    state.shown = null;
  }

  // Computes the last step again, from what it started with.
  function renderStep() {
    const { network, moments: kept, chosen, setting } = state.training.before, rows = chosen.length;
    const room = makeRoom(network, rows);
    load(network, room, state.points, chosen);
    forward(network, room, rows);
    lossOf(network, room, rows);
    backward(network, room, rows);
    state.shown = { network, moments: kept, chosen, setting, room, rows, count: state.training.count };
    state.chosen = Math.min(state.chosen, rows - 1);
    state.picked ??= { kind: "dw", l: network.layers.length - 1, at: [0, 0] };
    renderChooser();
    buildTables();
    renderFormula();
    renderPlane();
    renderNetwork();
  }

  function renderChooser() {
    const { chosen, rows } = state.shown, [x, y, label] = state.points[chosen[state.chosen]];
    by("shown-title").textContent = `Step ${state.steps}: backpropagation by its numbers`;
    by("chosen").textContent = `point ${state.chosen + 1} of the ${rows} in this step: x = (${digits(x)}, ${digits(y)}), ${state.classes[label]}`;
  }

  function buildTables() {
    const { network } = state.shown, last = network.layers.length - 1;
    const sections = network.layers.map((_, l) => {
      const isLast = l === last, hasActivation = !isLast && OPS[network.activation];
      const kinds = isLast ? ["z", "dz"] : hasActivation ? ["z", "a", "da", "dz"] : ["z", "da"];
      const section = make("section", { class: "layer" }, make("h3", {}, isLast ? `Layer ${l + 1}, the output` : `Layer ${l + 1}`));
      section.append(pointTable(l, kinds), weightTable(l));
      return section;
    });
    const loss = make("section", { class: "layer" }, make("h3", {}, "Loss"), grid([["J", [{ kind: "J", l: last, at: [] }]]], [""], () => false));
    by("tables").replaceChildren(...sections, loss);
  }

  const ROW_NAMES = { z: (l) => symbol("z", l, []), a: (l) => symbol("a", l, []), da: (l) => slopeOf(symbol("a", l, [])), dz: (l) => symbol("δ", l, []) };

  function pointTable(l, kinds) {
    const neurons_ = Array.from({ length: state.shown.network.sizes[l + 1] }, (_, j) => j);
    const rows = kinds.map((kind) => [ROW_NAMES[kind](l), neurons_.map((j) => ({ kind, l, at: [j] }))]);
    return grid(rows, neurons_.map((j) => `neuron ${j + 1}`), (kind) => kind.startsWith("d"));
  }

  function weightTable(l) {
    const { inputs, outputs } = state.shown.network.layers[l], targets = Array.from({ length: outputs }, (_, j) => j);
    const rows = Array.from({ length: inputs }, (_, i) => [slopeOf(symbol("W", l, [])) + `<mtext> from ${i + 1}</mtext>`, targets.map((j) => ({ kind: "dw", l, at: [i, j] }))]);
    rows.push([slopeOf(symbol("b", l, [])), targets.map((j) => ({ kind: "db", l, at: [j] }))]);
    return grid(rows, targets.map((j) => `to ${j + 1}`), () => true);
  }

  // A table of buttons. One of them is reached by the tabulator, the others by the arrow keys.
  function grid(rows, heads, isSlope) {
    const head = make("tr", {}, make("td"), ...heads.map((text) => make("th", { scope: "col" }, text)));
    const body = make("tbody");
    rows.forEach(([name, cells], r) => {
      const label = make("th", { scope: "row" });
      label.innerHTML = math(name === "J" ? "<mi>J</mi>" : row(name));
      const line_ = make("tr", isSlope(cells[0].kind) ? { class: "slope-row" } : {}, label);
      cells.forEach((cell, c) => line_.append(make("td", {}, cellButton(cell, r === 0 && c === 0))));
      body.append(line_);
    });
    const table = make("table", {}, make("thead", {}, head), body);
    table.addEventListener("keydown", moveInTable);
    return make("div", { class: "scroll" }, table);
  }

  function cellButton(cell, isFirst) {
    const button = make("button", { type: "button", tabindex: isFirst ? 0 : -1 }, digits(described(cell).value));
    const same = (other) => other.kind === cell.kind && other.l === cell.l && String(other.at) === String(cell.at);
    const mark = () => button.setAttribute("aria-pressed", String(same(state.picked)));
    mark();
    button.addEventListener("click", () => {
      by("tables").querySelectorAll("[aria-pressed=true]").forEach((other) => other.setAttribute("aria-pressed", "false"));
      pick(cell);
      mark();
      renderFormula();
      renderNetwork();
    });
    return button;
  }

  function moveInTable(event) {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [0, 0];
    const cell = event.target.closest("td");
    if (!cell || (!down && !right)) return;
    event.preventDefault();
    const rows = [...event.currentTarget.querySelectorAll("tbody tr")], r = rows.indexOf(cell.parentElement);
    const next = rows[r + down]?.children[cell.cellIndex + right]?.querySelector("button");
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  // ── Controls ──

  function buildControls() {
    const options = (id, names) => by(id).replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    options("activation", GIVEN.activations);
    options("loss-kind", GIVEN.losses);
    options("optimizer", GIVEN.optimizers);
    by("speed").replaceChildren(...GIVEN.speeds.map((count) => make("option", { value: count }, count === 1 ? "1 step a picture" : `${count} steps a picture`)));
    by("speed").addEventListener("change", () => { state.setting.speed = Number(by("speed").value); writeFragment(); });
    const choose = (id, name, after) => by(id).addEventListener("change", () => { state.setting[name] = by(id).value; after(); });
    choose("activation", "activation", rebuild);
    choose("loss-kind", "loss", rebuild);
    choose("optimizer", "optimizer", () => {
      state.training.moments = moments(state.network);
      state.training.count = 0;
      writeFragment();
    });
    by("data").addEventListener("change", () => takeSetting({ setting: { ...state.setting, data: by("data").value }, points: state.points }));
    for (const name of ["rate", "batch", "l2", "seed"]) by(name).addEventListener("input", () => typed(name));
    by("paste").addEventListener("click", usePasted);
    const depth = (hidden) => () => { state.setting.hidden = hidden(state.setting.hidden); rebuild(); };
    by("deeper").addEventListener("click", depth((hidden) => [...hidden, hidden.at(-1) ?? 4]));
    by("shallower").addEventListener("click", depth((hidden) => hidden.slice(0, -1)));
  }

  function typed(name) {
    const input = by(name), value = input.valueAsNumber, { good, expected } = FIELDS[name];
    input.toggleAttribute("aria-invalid", !good(value));
    by("problem").textContent = good(value) ? "" : `Expected ${expected}; the last good value stays.`;
    if (!good(value)) return;
    state.setting[name] = value;
    state.training.queue = [];
    if (name === "seed") rebuild();
    else writeFragment();
  }

  function showControls() {
    const { setting } = state, names = [...Object.keys(GIVEN.sets), ...(setting.data === "own" ? ["own"] : [])];
    by("data").replaceChildren(...names.map((name) => make("option", { value: name }, name === "own" ? "your points" : name)));
    by("data").value = setting.data;
    by("activation").value = setting.activation;
    by("loss-kind").value = setting.loss;
    by("optimizer").value = setting.optimizer;
    by("speed").value = setting.speed;
    for (const name of ["rate", "batch", "l2", "seed"]) if (document.activeElement !== by(name)) by(name).value = setting[name];
    const depth = setting.hidden.length;
    by("depth").textContent = `${depth} hidden layer${depth === 1 ? "" : "s"}`;
    by("shallower").disabled = depth === 0;
    by("deeper").disabled = depth === GIVEN.deepest;
    showClasses();
  }

  // The meaning of the shapes, and what a click does.
  function showClasses() {
    const icon = (label, isHeld) => {
      const names = ["negative", "positive", "third", "fourth"], colour = `var(--${names[label]})`;
      const path = ["M6,1.5a4.5,4.5 0 1,0 .01,0z", "M2,2h8v8h-8z", "M6,1l5,9h-10z", "M6,0l5,6l-5,6l-5,-6z"][label];
      const svg = draw("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
      svg.append(draw("path", { d: path, fill: isHeld ? "none" : colour, stroke: isHeld ? colour : "none", "stroke-width": 1.6 }));
      return svg;
    };
    const entry = (icons, text) => make("span", {}, ...icons, text);
    by("keys").replaceChildren(...state.classes.map((name, k) => entry([icon(k, false)], name)), entry([icon(0, true)], "held out"));
    const before = document.querySelector("#adds input:checked")?.value;
    const choices = state.classes.map((name, k) => [String(k), `adds ${name}`]);
    if (choices.length < GIVEN.mostClasses) choices.push([String(choices.length), `adds class ${choices.length + 1} (new)`]);
    choices.push(["choose", "chooses a point"]);
    by("adds").replaceChildren(by("adds").querySelector("legend"), ...choices.map(([value, text]) => {
      const input = make("input", { type: "radio", name: "adds", value });
      input.checked = value === (before ?? "0");
      return make("label", {}, input, ` ${text}`);
    }));
    if (!document.querySelector("#adds input:checked")) document.querySelector("#adds input").checked = true;
    by("plane").setAttribute("aria-label", `The plane of ${state.axes.join(" and ")}, with ${state.points.length} points. The arrow keys move a cross, and Enter acts there.`);
  }

  function listen() {
    by("run").addEventListener("click", () => (state.running ? pause() : run()));
    by("step").addEventListener("click", () => {
      pause();
      step();
      render();
      announce("One step taken, now");
      if (!by("shown").hidden) renderStep();
    });
    by("reset").addEventListener("click", () => { pause(); rebuild(); announce("Reset"); });
    by("renew").addEventListener("click", () => { state.setting.seed += 1; rebuild(); announce("New weights"); });
    by("show").addEventListener("click", () => { if (by("shown").hidden) openStep(); else { closeStep(); render(); } });
    by("before").addEventListener("click", () => chooseRow(-1));
    by("after").addEventListener("click", () => chooseRow(1));
    by("plane").addEventListener("click", (event) => {
      const box = by("plane").getBoundingClientRect();
      actAt([((event.clientX - box.left) / box.width * 2 - 1) * state.radius, (1 - (event.clientY - box.top) / box.height * 2) * state.radius]);
    });
    by("plane").addEventListener("keydown", moveCross);
    for (const event of ["focus", "blur"]) by("plane").addEventListener(event, () => { state.cross ??= [0, 0]; renderPlane(); });
    window.addEventListener("hashchange", () => { if (location.hash.slice(1) !== fragment()) takeSetting(readFragment(location.hash)); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readPalette(); render(); });
    new ResizeObserver(() => { layOut(); render(); }).observe(by("net"));
  }

  function chooseRow(by_) {
    const { rows } = state.shown;
    state.chosen = (state.chosen + by_ + rows) % rows;
    renderStep();
  }

  function moveCross(event) {
    const [right, up] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [0, 0];
    if (!right && !up && event.key !== "Enter") return;
    event.preventDefault();
    if (event.key === "Enter") { actAt(state.cross); return; }
    const within = (x) => Math.max(-state.radius, Math.min(state.radius, x));
    state.cross = [within(state.cross[0] + (right * state.radius) / 20), within(state.cross[1] + (up * state.radius) / 20)];
    by("said").textContent = `The cross is at ${state.cross.map((x) => digits(x, 3)).join(", ")}.`;
    renderPlane();
  }

  readPalette();
  buildControls();
  buildLegend();
  takeSetting(readFragment(location.hash));
  listen();
  window.playground = { state, step, render, measure, fragment, takeSetting, readFragment }; // for whoever wants to look behind the page
})();
