// A network of dense layers, and its training, by the library's own formulas.
//
// OPS holds what the formulas of each layer and loss were compiled to. Arrays are Float64Arrays in
// row-major order, with one row for each sample. z and a are before and after an activation, and
// dz and da are the derivatives of J by them.
"use strict";

const MOMENTUM = 0.9, ADAM = { first: 0.9, second: 0.999, epsilon: 1e-8 }; // as in optax

// Random numbers in [0, 1) that depend on a seed only (mulberry32).
function makeRandom(seed) {
  let state = (seed + 1) * 0x9e3779b1 >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(items, random) {
  const result = items.slice();
  for (let k = result.length - 1; k > 0; k--) {
    const other = Math.floor(random() * (k + 1));
    [result[k], result[other]] = [result[other], result[k]];
  }
  return result;
}

// ── A network ──

// sizes: the number of inputs, of the neurons of each hidden layer, and of outputs.
function makeNetwork(sizes, activation, loss) {
  const layers = sizes.slice(1).map((outputs, l) => {
    const inputs = sizes[l], weights = () => new Float64Array(inputs * outputs), biases = () => new Float64Array(outputs);
    return { inputs, outputs, w: weights(), b: biases(), dw: weights(), db: biases() };
  });
  return { sizes, activation, loss, layers };
}

// Uniform with the variance of Glorot and Bengio (2010), or for rectifiers that of He et al. (2015).
function drawWeights(network, seed) {
  const random = makeRandom(seed), rectified = network.activation.includes("relu");
  network.layers.forEach((layer, l) => {
    const isHidden = l < network.layers.length - 1;
    const bound = Math.sqrt(6 / (rectified && isHidden ? layer.inputs : layer.inputs + layer.outputs));
    for (let k = 0; k < layer.w.length; k++) layer.w[k] = bound * (2 * random() - 1);
    layer.b.fill(0);
  });
}

function copyParameters(from, to) {
  from.layers.forEach((layer, l) => { to.layers[l].w.set(layer.w); to.layers[l].b.set(layer.b); });
}

// The arrays of both passes, for up to a number of samples.
function makeRoom(network, rows) {
  const array = (width) => new Float64Array(rows * width);
  const last = network.layers.length - 1, op = OPS[network.activation];
  const x = array(network.sizes[0]), dx = array(network.sizes[0]), t = array(network.sizes[last + 1]);
  const room = { rows, x, dx, t, J: new Float64Array(1), layers: [] };
  network.layers.forEach(({ outputs }, l) => {
    const z = array(outputs), dz = array(outputs), hasActivation = l < last && op !== undefined;
    const own = { z, dz, a: hasActivation ? array(outputs) : z, da: hasActivation ? array(outputs) : dz };
    if (hasActivation) own.activation = { ...extraArrays(op, rows, outputs), x: own.z, y: own.a, dy: own.da, dx: own.dz };
    room.layers.push(own);
  });
  return room;
}

// What only the formulas of an activation mention.
function extraArrays(op, rows, width) {
  const extra = Object.keys(op.shapes).filter((name) => !["x", "y", "dx", "dy"].includes(name));
  return Object.fromEntries(extra.map((name) => [name, new Float64Array(rows * width)]));
}

// The names that the formulas of a dense layer use, and the arrays for which they stand.
function denseArrays(network, room, l) {
  const { w, b, dw, db } = network.layers[l], before = l ? room.layers[l - 1] : { a: room.x, da: room.dx };
  return { x: before.a, w, b, y: room.layers[l].z, dy: room.layers[l].dz, dw, db, dx: before.da };
}

function lossArrays(network, room) {
  const { z, dz } = room.layers[network.layers.length - 1];
  return { y: z, dy: dz, t: room.t, J: room.J };
}

const denseSizes = (network, B, l) => ({ B, I: network.sizes[l], O: network.sizes[l + 1] });
const activationSizes = (network, B, l) => ({ B, F: network.sizes[l + 1] });
const lossSizes = (network, B) => ({ B, K: network.sizes[network.sizes.length - 1] });

function forward(network, room, rows) {
  room.layers.forEach(({ activation }, l) => {
    OPS.dense.forward(denseArrays(network, room, l), denseSizes(network, rows, l));
    if (activation) OPS[network.activation].forward(activation, activationSizes(network, rows, l));
  });
}

function lossOf(network, room, rows) {
  OPS[network.loss].forward(lossArrays(network, room), lossSizes(network, rows));
  return room.J[0];
}

function backward(network, room, rows) {
  OPS[network.loss].backward(lossArrays(network, room), lossSizes(network, rows));
  for (let l = network.layers.length - 1; l >= 0; l--) {
    const { activation } = room.layers[l];
    if (activation) OPS[network.activation].backward(activation, activationSizes(network, rows, l));
    OPS.dense.backward(denseArrays(network, room, l), denseSizes(network, rows, l));
  }
}

// ── Data: points is a list of [x₁, x₂, class] ──

// Puts the points with these numbers into the first rows of the arrays.
function load(network, room, points, chosen) {
  const outputs = network.sizes[network.sizes.length - 1], asClass = network.loss === "softmax";
  chosen.forEach((number, row) => {
    const [first, second, label] = points[number];
    room.x[2 * row] = first;
    room.x[2 * row + 1] = second;
    if (asClass) room.t[row] = label;
    else for (let k = 0; k < outputs; k++) room.t[row * outputs + k] = Number(outputs === 1 ? label === 1 : label === k);
  });
}

// The class that a row of outputs stands for.
function classOf(network, outputs, row) {
  const count = network.sizes[network.sizes.length - 1];
  if (count === 1) return Number(outputs[row] > (network.loss === "squared" ? 0.5 : 0));
  let best = 0;
  for (let k = 1; k < count; k++) if (outputs[row * count + k] > outputs[row * count + best]) best = k;
  return best;
}

// J and the accuracy on the points with these numbers.
function evaluate(network, room, points, chosen) {
  if (!chosen.length) return { J: NaN, accuracy: NaN };
  load(network, room, points, chosen);
  forward(network, room, chosen.length);
  const outputs = room.layers[network.layers.length - 1].z;
  const hits = chosen.filter((number, row) => classOf(network, outputs, row) === points[number][2]).length;
  return { J: lossOf(network, room, chosen.length), accuracy: hits / chosen.length };
}

// ── Training ──

const moments = (network) => network.layers.map(({ w, b }) => ({
  w: { m: new Float64Array(w.length), v: new Float64Array(w.length) },
  b: { m: new Float64Array(b.length), v: new Float64Array(b.length) },
}));

// setting: optimizer, rate, l2, batch (the number of points, or 0 for all), and seed.
function makeTraining(network, setting) {
  return { network, setting, moments: moments(network), count: 0, epoch: 0, queue: [], room: null, before: null };
}

// The numbers of the points of the next batch. Each epoch goes through all points once.
function nextBatch(training, numbers) {
  const { batch, seed } = training.setting;
  if (!batch || batch >= numbers.length) { training.epoch++; training.queue = []; return numbers; }
  if (!training.queue.length) {
    training.queue = shuffled(numbers, makeRandom(1000003 * (seed + 1) + training.epoch));
    training.epoch++;
  }
  return training.queue.splice(0, batch);
}

const UPDATES = {
  sgd(p, g, _, rate) { for (let k = 0; k < p.length; k++) p[k] -= rate * g[k]; },
  momentum(p, g, { m }, rate) {
    for (let k = 0; k < p.length; k++) {
      m[k] = g[k] + MOMENTUM * m[k];
      p[k] -= rate * m[k];
    }
  },
  adam(p, g, { m, v }, rate, count) {
    const first = 1 - ADAM.first ** count, second = 1 - ADAM.second ** count;
    for (let k = 0; k < p.length; k++) {
      m[k] = (1 - ADAM.first) * g[k] + ADAM.first * m[k];
      v[k] = (1 - ADAM.second) * g[k] * g[k] + ADAM.second * v[k];
      p[k] -= (rate * (m[k] / first)) / (Math.sqrt(v[k] / second) + ADAM.epsilon);
    }
  },
};

// One step on the next batch. What it started from is kept, so that it can be shown.
function takeStep(training, points, numbers) {
  const { network, setting } = training, chosen = nextBatch(training, numbers), rows = chosen.length;
  keepBefore(training, chosen);
  if (!training.room || training.room.rows < rows) training.room = makeRoom(network, rows);
  load(network, training.room, points, chosen);
  forward(network, training.room, rows);
  backward(network, training.room, rows);
  training.count++;
  network.layers.forEach((layer, l) => {
    for (let k = 0; k < layer.w.length; k++) layer.dw[k] += setting.l2 * layer.w[k];
    const update = UPDATES[setting.optimizer], state = training.moments[l];
    update(layer.w, layer.dw, state.w, setting.rate, training.count);
    update(layer.b, layer.db, state.b, setting.rate, training.count);
  });
}

function keepBefore(training, chosen) {
  const { network, before } = training, { sizes, activation, loss } = network;
  const kept = before ?? { network: makeNetwork(sizes, activation, loss), moments: moments(network) };
  copyParameters(network, kept.network);
  training.moments.forEach((layer, l) => {
    for (const name of ["w", "b"])
      for (const which of ["m", "v"]) kept.moments[l][name][which].set(layer[name][which]);
  });
  training.before = Object.assign(kept, { chosen: chosen.slice(), setting: { ...training.setting } });
}

// The size of the gradient of each layer's weights, in the last step.
function gradientSizes(network) {
  return network.layers.map(({ dw }) => Math.sqrt(dw.reduce((sum, d) => sum + d * d, 0)));
}
