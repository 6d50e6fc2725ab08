// The page: trains a network while one looks, and does what the reader wants.
"use strict";

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
  const set = setting.data === "own" ? { points, axes: ["x₁", "x₂"], classes: [] } : GIVEN.sets[setting.data];
  takePoints(set.points, set.axes, set.classes);
  rebuild();
}

function lossName() {
  if (state.setting.loss === "squared error") return "squared";
  return state.classes.length > 2 ? "softmax" : "sigmoid cross-entropy";
}

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
  const on = (numbers) => evaluate(state.network, state.rooms.points, state.points, numbers);
  state.now = { train: on(state.train), held: on(state.held) };
  remember();
  if (!state.steps || Number.isFinite(state.now.train.J)) return;
  pause();
  tell("J is no finite number any more: the learning rate is too large. Take a smaller one, and reset.");
}

const thisMoment = () => [state.steps, state.now.train.J, state.now.held.J];

// The curve has a limited number of moments; where there are too many, every other one is left out.
function remember() {
  const last = state.history.at(-1);
  if (!last || state.steps - last[0] >= state.every) state.history.push(thisMoment());
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
  const { J, accuracy } = state.now.train;
  const result = `J is ${digits(J)}, and ${percent(accuracy)} of the points are right.`;
  by("said").textContent = `${what} at step ${state.steps}. ${result}`;
}

function tell(problem) { by("problem").textContent = problem; }

const percent = (share) => (Number.isNaN(share) ? "–" : `${(100 * share).toFixed(0)} %`);

// ── Points ──

function addPoint([x, y], label) {
  if (state.points.length >= GIVEN.mostPoints) { tell(`There are ${GIVEN.mostPoints} points already.`); return; }
  state.points.push([rounded(x), rounded(y), label]);
  state.setting.data = "own";
  divide();
  if (label >= state.classes.length) { // one more output
    state.classes.push(`class ${label + 1}`);
    rebuild();
    return;
  }
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
    const expected = `Expected "x, y, class" with a class from 1 to ${GIVEN.mostClasses}, got "${wrong}".`;
    tell(wrong === null ? "Expected two rows or more." : expected);
    return;
  }
  const points = by("scale").checked ? scaled(rows) : rows;
  takeSetting({ setting: { ...state.setting, data: "own" }, points });
  by("said").textContent = `${rows.length} points are used.`;
}

// ── Controls ──

function offer(id, names, text = String) {
  by(id).replaceChildren(...names.map((name) => make("option", { value: name }, text(name))));
}

function buildControls() {
  offer("activation", GIVEN.activations);
  offer("loss-kind", GIVEN.losses);
  offer("optimizer", GIVEN.optimizers);
  offer("speed", GIVEN.speeds, (count) => (count === 1 ? "1 step a picture" : `${count} steps a picture`));
  const choose = (id, after) => by(id).addEventListener("change", () => after(by(id).value));
  choose("data", (data) => takeSetting({ setting: { ...state.setting, data }, points: state.points }));
  choose("activation", (activation) => { state.setting.activation = activation; rebuild(); });
  choose("loss-kind", (loss) => { state.setting.loss = loss; rebuild(); });
  choose("speed", (speed) => { state.setting.speed = Number(speed); writeFragment(); });
  choose("optimizer", (optimizer) => {
    state.setting.optimizer = optimizer;
    state.training.moments = moments(state.network);
    state.training.count = 0;
    writeFragment();
  });
  for (const name of ["rate", "batch", "l2", "seed"]) by(name).addEventListener("input", () => typed(name));
  by("paste").addEventListener("click", usePasted);
  const depth = (hidden) => () => { state.setting.hidden = hidden(state.setting.hidden); rebuild(); };
  by("deeper").addEventListener("click", depth((hidden) => [...hidden, hidden.at(-1) ?? 4]));
  by("shallower").addEventListener("click", depth((hidden) => hidden.slice(0, -1)));
}

function typed(name) {
  const input = by(name), value = input.valueAsNumber, { good, expected } = FIELDS[name];
  input.toggleAttribute("aria-invalid", !good(value));
  tell(good(value) ? "" : `Expected ${expected}; the last good value stays.`);
  if (!good(value)) return;
  state.setting[name] = value;
  state.training.queue = [];
  if (name === "seed") rebuild();
  else writeFragment();
}

function showControls() {
  const { setting } = state, own = setting.data === "own" ? ["own"] : [];
  offer("data", [...Object.keys(GIVEN.sets), ...own], (name) => (name === "own" ? "your points" : name));
  by("data").value = setting.data;
  by("activation").value = setting.activation;
  by("loss-kind").value = setting.loss;
  by("optimizer").value = setting.optimizer;
  by("speed").value = setting.speed;
  for (const name of ["rate", "batch", "l2", "seed"])
    if (document.activeElement !== by(name)) by(name).value = setting[name];
  const depth = setting.hidden.length;
  by("depth").textContent = `${depth} hidden layer${depth === 1 ? "" : "s"}`;
  by("shallower").disabled = depth === 0;
  by("deeper").disabled = depth === GIVEN.deepest;
  showClasses();
}

const ICONS = ["M6,1.5a4.5,4.5 0 1,0 .01,0z", "M2,2h8v8h-8z", "M6,1l5,9h-10z", "M6,0l5,6l-5,6l-5,-6z"];

function classIcon(label, isHeld) {
  const colour = `var(--${CLASS_COLOURS[label]})`, svg = draw("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" });
  const paint_ = isHeld ? { fill: "none", stroke: colour, "stroke-width": 1.6 } : { fill: colour };
  svg.append(draw("path", { d: ICONS[label], ...paint_ }));
  return svg;
}

// The meaning of the shapes, and what a click does.
function showClasses() {
  const entries = state.classes.map((name, k) => make("span", {}, classIcon(k, false), name));
  by("keys").replaceChildren(...entries, make("span", {}, classIcon(0, true), "held out"));
  const before = document.querySelector("#adds input:checked")?.value;
  const choices = state.classes.map((name, k) => [String(k), `adds ${name}`]);
  const count = choices.length;
  if (count < GIVEN.mostClasses) choices.push([String(count), `adds class ${count + 1} (new)`]);
  choices.push(["choose", "chooses a point"]);
  by("adds").replaceChildren(by("adds").querySelector("legend"), ...choices.map(([value, text]) => {
    const input = make("input", { type: "radio", name: "adds", value });
    input.checked = value === (before ?? "0");
    return make("label", {}, input, ` ${text}`);
  }));
  if (!document.querySelector("#adds input:checked")) document.querySelector("#adds input").checked = true;
  const plane = `The plane of ${state.axes.join(" and ")}, with ${state.points.length} points.`;
  by("plane").setAttribute("aria-label", `${plane} The arrow keys move a cross, and Enter acts there.`);
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
    const { left, top, width, height } = by("plane").getBoundingClientRect();
    const along = (share) => (2 * share - 1) * state.radius;
    actAt([along((event.clientX - left) / width), -along((event.clientY - top) / height)]);
  });
  by("plane").addEventListener("keydown", moveCross);
  by("plane").addEventListener("focus", () => { state.cross ??= [0, 0]; renderPlane(); });
  by("plane").addEventListener("blur", renderPlane);
  window.addEventListener("hashchange", () => {
    if (location.hash.slice(1) !== fragment()) takeSetting(readFragment(location.hash));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readPalette(); render(); });
  new ResizeObserver(() => { layOut(); render(); }).observe(by("net"));
}

function moveCross(event) {
  const [right, up] = ARROWS[event.key] ?? [0, 0];
  if (!right && !up && event.key !== "Enter") return;
  event.preventDefault();
  if (event.key === "Enter") { actAt(state.cross); return; }
  const { radius } = state, moved = (x, by_) => Math.max(-radius, Math.min(radius, x + (by_ * radius) / 20));
  state.cross = [moved(state.cross[0], right), moved(state.cross[1], up)];
  by("said").textContent = `The cross is at ${state.cross.map((x) => digits(x, 3)).join(", ")}.`;
  renderPlane();
}

readPalette();
buildControls();
buildLegend();
takeSetting(readFragment(location.hash));
listen();
// for whoever wants to look behind the page
window.playground = { state, step, render, measure, fragment, takeSetting, readFragment };
