// A step by its numbers: every number of both passes, with its formula.
"use strict";

// What is picked is { kind, l, at }: z, a or δ (dz) of a neuron, the derivative by a (da), a weight
// (dw) or a bias (db), or J. Layers and indices count from 0 here, and from 1 in what is shown.

// ── Symbols ──

const PARENTHESES = ['<mo stretchy="false">(</mo>', '<mo stretchy="false">)</mo>'];
const raised = (l) => row(PARENTHESES[0], `<mn>${l + 1}</mn>`, PARENTHESES[1]);
const lowered = (at) => row(at.map((k) => `<mn>${k + 1}</mn>`).join(sign(",")));

// letter⁽ˡ⁾ with indices; l is null for what belongs to no layer.
function symbol(letter, l, at) {
  const name = `<mi>${letter}</mi>`;
  if (l === null) return at.length ? `<msub>${name}${lowered(at)}</msub>` : name;
  return at.length ? `<msubsup>${name}${lowered(at)}${raised(l)}</msubsup>` : `<msup>${name}${raised(l)}</msup>`;
}

const SLASH = '<mo lspace="0" rspace="0">/</mo>';
const slopeOf = (markup) => row("<mi>∂</mi>", "<mi>J</mi>", SLASH, "<mi>∂</mi>", markup);

const SYMBOLS = {
  z: (l, at) => symbol("z", l, at),
  a: (l, at) => symbol("a", l, at),
  da: (l, at) => slopeOf(symbol("a", l, at)),
  dz: (l, at) => symbol("δ", l, at),
  dw: (l, at) => slopeOf(symbol("W", l, at)),
  db: (l, at) => slopeOf(symbol("b", l, at)),
  J: () => "<mi>J</mi>",
};

// The arrays by the names that a formula uses: x, y, dy and so on mean others in each layer.
const NAMED = {
  dense: {
    x: (l, at) => (l ? SYMBOLS.a(l - 1, at) : symbol("x", null, at)),
    w: (l, at) => symbol("W", l, at),
    b: (l, at) => symbol("b", l, at),
    dy: SYMBOLS.dz,
  },
  activation: { x: SYMBOLS.z, y: SYMBOLS.a, dy: SYMBOLS.da },
  loss: {
    y: SYMBOLS.z,
    t: (l, at) => symbol("t", null, state.network.sizes.at(-1) === 1 ? at.slice(0, -1) : at),
  },
};

const BATCHED = ["x", "y", "dy", "t"]; // arrays with a row for each point

// ── Formulas ──

// Where the formula of what is picked stands: in a dense layer, in its activation, or in the loss.
function sourceOf({ kind, l }) {
  const { network, room, rows } = state.shown, isLast = l === network.layers.length - 1;
  const dense = (layer) => ({
    owner: "dense", l: layer, op: OPS.dense,
    arrays: denseArrays(network, room, layer), sizes: denseSizes(network, rows, layer),
  });
  if (kind === "da") return dense(l + 1);
  if (["z", "dw", "db"].includes(kind)) return dense(l);
  if (kind === "J" || (kind === "dz" && isLast)) return {
    owner: "loss", l: network.layers.length - 1, op: OPS[network.loss],
    arrays: lossArrays(network, room), sizes: lossSizes(network, rows),
  };
  return {
    owner: "activation", l, op: OPS[network.activation],
    arrays: room.layers[l].activation, sizes: activationSizes(network, rows, l),
  };
}

// The name that the formula defines.
function definedBy({ kind }, owner) {
  return { z: "y", a: "y", da: "dx", dz: owner === "loss" ? "dy" : "dx" }[kind] ?? kind;
}

const isOfBatch = (kind) => ["dw", "db", "J"].includes(kind);

function valueOf({ kind, l, at }) {
  const { network, room } = state.shown, width = network.sizes[l + 1];
  if (kind === "J") return room.J[0];
  if (kind === "dw") return network.layers[l].dw[at[0] * width + at[1]];
  if (kind === "db") return network.layers[l].db[at[0]];
  return room.layers[l][kind][state.chosen * width + at[0]];
}

function renderFormula() {
  const { picked } = state, left = SYMBOLS[picked.kind](picked.l, picked.at), value = valueOf(picked);
  by("formula").replaceChildren(
    make("p", { class: "where" }, whereOf(picked)),
    mathLine("", row(left, sign("="), written(picked, "symbols"))),
    mathLine("numbers-line", row(sign("="), written(picked, "numbers"))),
    mathLine("numbers-line", row(sign("="), `<mn>${digits(value, 6)}</mn>`)),
    ...(picked.kind === "dw" || picked.kind === "db" ? updateLines(picked, value) : []),
  );
}

// The right side of the formula. The index of the point is left out where it is the chosen one.
function written(picked, form) {
  const { owner, l, op, arrays, sizes } = sourceOf(picked), ofBatch = isOfBatch(picked.kind);
  if (!op) return form === "symbols" ? SYMBOLS.da(l, picked.at) : numberPart(valueOf(picked), 5).markup; // linear
  const shownAt = (array, at) => (ofBatch || !BATCHED.includes(array) ? at : at.slice(1));
  const entry = form === "symbols"
    ? (array, at) => atom(NAMED[owner][array](l, shownAt(array, at)), NaN)
    : (array, at, value) => numberPart(value, 5);
  const writer = makeWriter(entry, form === "symbols" ? "⋅" : "×", state.chosen);
  const at = ofBatch ? picked.at : [state.chosen, ...picked.at];
  return op.written[definedBy(picked, owner)](writer, arrays, sizes, at).markup;
}

function mathLine(kind, markup) {
  const element = make("p", { class: kind });
  element.innerHTML = math(`<mstyle displaystyle="true">${markup}</mstyle>`);
  return element;
}

function sentence(text, ...markup) {
  const element = mathLine("", row(...markup));
  element.prepend(`${text} `);
  return element;
}

function whereOf({ kind, l, at }) {
  const { network, rows } = state.shown, layer = `layer ${l + 1}`, isLast = l === network.layers.length - 1;
  const neuron = `neuron ${at[0] + 1}`, from = l ? `neuron ${at[0] + 1} of layer ${l}` : `input ${at[0] + 1}`;
  const points = `the ${rows} points of this step, which the first index counts`, over = `the sum over ${points}`;
  switch (kind) {
    case "z": return `Forward, ${layer}: the weighted sum of ${neuron}`;
    case "a": return `Forward, ${layer}: the activation of ${neuron}, ${network.activation}`;
    case "da": return `Backward, from layer ${l + 2} to ${neuron} of ${layer}: over all weights that leave it`;
    case "dw": return `Gradient, ${layer}: the weight from ${from} to neuron ${at[1] + 1}; ${over}`;
    case "db": return `Gradient, ${layer}: the bias of ${neuron}; ${over}`;
    case "J": return `Forward, loss: ${state.setting.loss}, the mean over ${points}`;
  }
  return isLast ? `Backward, loss: ${state.setting.loss}, the mean over ${rows} points`
    : `Backward, ${layer}: through the activation of ${neuron}, ${network.activation}`;
}

// ── What a gradient does to its weight ──

// The term of the chosen point, the regularisation, and what the optimizer makes of the gradient.
function updateLines({ kind, l, at }, gradient) {
  const { network, setting, count } = state.shown, layer = network.layers[l], isWeight = kind === "dw";
  const place = isWeight ? at[0] * layer.outputs + at[1] : at[0], name = isWeight ? "w" : "b";
  const w = layer[name][place], lines = [];
  if (isWeight) lines.push(termOfPoint(l, at));
  let g = gradient;
  if (isWeight && setting.l2) {
    g += setting.l2 * w;
    const sum = add(number5(gradient), times(number5(setting.l2), number5(w)));
    lines.push(sentence("With λ times the weight:", "<mi>g</mi>", sign("="), sum.markup, sign("="), number5(g).markup));
  }
  const kept = state.shown.moments[l][name], past = { m: kept.m[place], v: kept.v[place] };
  const parameter = symbol(isWeight ? "W" : "b", l, at);
  return [...lines, ...WRITTEN_UPDATES[setting.optimizer]({ parameter, w, g, past, rate: setting.rate, count })];
}

const number5 = (value) => numberPart(value, 5);
const { op: operation } = makeWriter(null, "×");
const add = (left, right) => operation("+", left, right);
const times = (left, right) => operation("*", left, right);

function termOfPoint(l, [i, j]) {
  const { network, room } = state.shown, n = state.chosen, { inputs, outputs } = network.layers[l];
  const input = (l ? room.layers[l - 1].a : room.x)[n * inputs + i], delta = room.layers[l].dz[n * outputs + j];
  const term = times(number5(input), number5(delta)).markup;
  return sentence("Of it, the chosen point's term:", term, sign("="), number5(input * delta).markup);
}

// parameter ← w - rate × direction
function becomes(parameter, w, rate, direction, after) {
  const difference = operation("-", number5(w), times(number5(rate), direction)).markup;
  return sentence("The step:", parameter, sign("←"), difference, sign("="), numberPart(after, 6).markup);
}

const WRITTEN_UPDATES = {
  sgd({ parameter, w, g, rate }) {
    return [becomes(parameter, w, rate, number5(g), w - rate * g)];
  },
  momentum({ parameter, w, g, past, rate }) {
    const m = MOMENTUM * past.m + g, sum = add(times(number5(MOMENTUM), number5(past.m)), number5(g)).markup;
    return [
      sentence("Momentum:", "<mi>m</mi>", sign("←"), sum, sign("="), number5(m).markup),
      becomes(parameter, w, rate, number5(m), w - rate * m),
    ];
  },
  adam({ parameter, w, g, past, rate, count }) {
    const { first, second, epsilon } = ADAM;
    const m = first * past.m + (1 - first) * g, v = second * past.v + (1 - second) * g * g;
    const mean = m / (1 - first ** count), square = v / (1 - second ** count);
    const root = atom(`<msqrt>${number5(square).markup}</msqrt>`, Math.sqrt(square));
    const direction = atom(`<mfrac>${row(number5(mean).markup)}${add(root, number5(epsilon)).markup}</mfrac>`, NaN);
    return [
      moment("Adam, the mean:", "m", first, number5(g), past.m, m, count),
      moment("and the mean square:", "v", second, operation("**", number5(g), number5(2)), past.v, v, count),
      becomes(parameter, w, rate, direction, w - (rate * mean) / (Math.sqrt(square) + epsilon)),
    ];
  },
};

// letter ← β old + (1 - β) part = now, and without the bias towards 0 of the first steps.
function moment(text, letter, beta, part, old, now, count) {
  const sum = add(times(number5(beta), number5(old)), times(number5(1 - beta), part)).markup;
  const power = `<msup><mn>${beta}</mn><mn>${count}</mn></msup>`;
  const fraction = `<mfrac><mi>${letter}</mi>${row("<mn>1</mn>", sign("−"), power)}</mfrac>`;
  const unbiased = number5(now / (1 - beta ** count)).markup;
  return sentence(
    text, `<mi>${letter}</mi>`, sign("←"), sum, sign("="), number5(now).markup, sign(","),
    `<mover><mi>${letter}</mi><mo>^</mo></mover>`, sign("="), fraction, sign("="), unbiased,
  );
}

// ── The step ──

function openStep() {
  pause();
  if (!state.steps) { step(); render(); }
  by("shown").hidden = false;
  by("show").setAttribute("aria-expanded", "true");
  by("show").textContent = "Close the step";
  renderStep();
  by("shown").scrollIntoView({ block: "nearest" });
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
  const place = `x = (${digits(x)}, ${digits(y)}), ${state.classes[label]}`;
  by("shown-title").textContent = `Step ${state.steps}: backpropagation by its numbers`;
  by("chosen").textContent = `point ${state.chosen + 1} of the ${rows} in this step: ${place}`;
}

function chooseRow(by_) {
  state.chosen = (state.chosen + by_ + state.shown.rows) % state.shown.rows;
  renderStep();
}

// ── Tables of numbers, each of which can be picked ──

const counted = (count) => Array.from({ length: count }, (_, k) => k);

function buildTables() {
  const { network } = state.shown, last = network.layers.length - 1;
  const sections = network.layers.map((_, l) => {
    const title = make("h3", {}, l === last ? `Layer ${l + 1}, the output` : `Layer ${l + 1}`);
    const kinds = l === last ? ["z", "dz"] : OPS[network.activation] ? ["z", "a", "da", "dz"] : ["z", "da"];
    return make("section", { class: "layer" }, title, pointTable(l, kinds), weightTable(l));
  });
  const J = tableOf([{ name: SYMBOLS.J(), cells: [{ kind: "J", l: last, at: [] }] }], [], "the mean, before the step");
  by("tables").replaceChildren(...sections, make("section", { class: "layer" }, make("h3", {}, "Loss"), J));
}

function pointTable(l, kinds) {
  const neurons_ = counted(state.shown.network.sizes[l + 1]);
  const rows = kinds.map((kind) => ({ name: SYMBOLS[kind](l, []), cells: neurons_.map((j) => ({ kind, l, at: [j] })) }));
  return tableOf(rows, neurons_.map((j) => `neuron ${j + 1}`), `of the chosen point; derivatives contain 1/${state.shown.rows}`);
}

function weightTable(l) {
  const { inputs, outputs } = state.shown.network.layers[l], targets = counted(outputs);
  const rows = counted(inputs).map((i) => ({
    name: `${SYMBOLS.dw(l, [])}<mtext> from ${i + 1}</mtext>`, cells: targets.map((j) => ({ kind: "dw", l, at: [i, j] })),
  }));
  rows.push({ name: SYMBOLS.db(l, []), cells: targets.map((j) => ({ kind: "db", l, at: [j] })) });
  return tableOf(rows, targets.map((j) => `to ${j + 1}`), `the sum over the ${state.shown.rows} points of this step`);
}

// A table of buttons. One of them is reached by the tabulator, the others by the arrow keys.
function tableOf(rows, heads, caption = "") {
  const body = make("tbody");
  rows.forEach(({ name, cells }, r) => {
    const label = make("th", { scope: "row" });
    label.innerHTML = math(row(name));
    const line = make("tr", cells[0].kind.startsWith("d") ? { class: "slope-row" } : {}, label);
    cells.forEach((cell, c) => line.append(make("td", {}, cellButton(cell, r === 0 && c === 0))));
    body.append(line);
  });
  const table = make("table", {}, body);
  if (caption) table.prepend(make("caption", {}, caption));
  if (heads.length) {
    const cells = heads.map((text) => make("th", { scope: "col" }, text));
    body.before(make("thead", {}, make("tr", {}, make("td"), ...cells)));
  }
  table.addEventListener("keydown", moveInTable);
  return make("div", { class: "scroll" }, table);
}

const isSame = (one, other) => one.kind === other.kind && one.l === other.l && String(one.at) === String(other.at);

function cellButton(cell, isFirst) {
  const pressed = String(isSame(cell, state.picked));
  const attributes = { type: "button", tabindex: isFirst ? 0 : -1, "aria-pressed": pressed };
  const button = make("button", attributes, digits(valueOf(cell)));
  button.addEventListener("click", () => {
    for (const other of by("tables").querySelectorAll("[aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", "true");
    state.picked = cell;
    renderFormula();
    markPicked();
  });
  return button;
}

function moveInTable(event) {
  const [right, up] = ARROWS[event.key] ?? [0, 0], cell = event.target.closest("td");
  if (!cell || (!right && !up)) return;
  event.preventDefault();
  const rows = [...event.currentTarget.querySelectorAll("tbody tr")], r = rows.indexOf(cell.parentElement);
  const next = rows[r - up]?.children[cell.cellIndex + right]?.querySelector("button");
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
