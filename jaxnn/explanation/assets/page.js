// The page: steps through both passes, and computes everything again when a number is changed.
"use strict";

(() => {
  const DATA = JSON.parse(document.getElementById("trace").textContent);
  const arrays = {}, original = {};
  for (const [id, array] of Object.entries(DATA.arrays)) {
    const data = array.data.map((x) => (x === null ? NaN : x === "inf" ? Infinity : x === "-inf" ? -Infinity : x));
    arrays[id] = { shape: array.shape, data };
    original[id] = data.slice();
  }
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

  // ── Numbers and names ──

  function digits(x, significant = 6) {
    if (Number.isNaN(x)) return "not a number";
    if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
    if (x === 0) return "0";
    const size = Math.abs(x);
    const text = size < 1e-4 || size >= 1e6 ? x.toExponential(significant - 1) : x.toPrecision(significant);
    const [mantissa, exponent] = text.split("e");
    const short = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return (exponent ? `${short}e${Number(exponent)}` : short).replaceAll("-", "−");
  }

  const short = (x) => Number(x.toPrecision(6)); // of a number that may be edited

  // The indices that are worth writing, from 1: not that of a batch of one, nor of a lone number.
  function place(id, at) {
    const shape = arrays[id].shape;
    if (!DATA.symbols[id].batched || shape[0] !== 1) return at.map((i) => i + 1);
    return shape.slice(1).every((size) => size === 1) ? [] : at.slice(1).map((i) => i + 1);
  }

  function symbol(id, at) {
    const { name, number, time, slope } = DATA.symbols[id];
    const indices = [...(time === null ? [] : [time]), ...(at ? place(id, at) : [])];
    const whole = `<i>${name}</i>${number ? `<sup>(${number})</sup>` : ""}${indices.length ? `<sub>${indices.join(",")}</sub>` : ""}`;
    return slope ? `<span class="slope">∂J/∂${whole}</span>` : whole;
  }

  function spoken(id, at) {
    const { name, number, time, slope } = DATA.symbols[id];
    const indices = [...(time === null ? [] : [time]), ...(at ? place(id, at) : [])];
    const of = `${name}${number ? ` of layer ${number}` : ""}${indices.length ? `, entry ${indices.join(", ")}` : ""}`;
    return slope ? `derivative of J by ${of}` : of;
  }

  const valueOf = (id, at) => arrays[id].data[offset(arrays[id].shape, at)];

  // Writes an expression that has been written out; entry says how an entry is written.
  const LEVEL = { "+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 3 };
  const SHOWN = 10;

  function write(node, entry, times, around = 0) {
    const [text, level] = writeNode(node, entry, times);
    return level < around ? `(${text})` : text;
  }

  const startsNegative = (text) => /^(<[^>]*>)*−/.test(text);
  const joined = (left, sign, right) =>
    !startsNegative(right) ? `${left} ${sign} ${right}`
      : sign === "+" ? `${left} − ${right.replace("−", "")}` : `${left} − (${right})`;

  function writeNode(node, entry, times) {
    const of = (part, level) => write(part, entry, times, level);
    switch (node[0]) {
      case "n": return [digits(node[1]), node[1] < 0 ? 2 : 4];
      case "r": { const text = entry(node[1], node[2]); return [text, startsNegative(text) ? 2 : 4]; }
      case "t": {
        let parts = node[2].map((part) => of(part, 1));
        if (parts.length > SHOWN) parts = [...parts.slice(0, SHOWN - 1), "…", parts[parts.length - 1]];
        return node[1] === "sum" ? [parts.reduce((sum, term) => joined(sum, "+", term)), 1] : [`${node[1]}(${parts.join(", ")})`, 4];
      }
      case "c": return [node[1] === "sqrt" ? `√(${of(node[2][0])})` : `${node[1]}(${node[2].map((part) => of(part)).join(", ")})`, 4];
      case "o": {
        const [, sign, left, right] = node;
        if (sign === "-" && isNumber(left, 0)) return [`−${of(right, 2)}`, 2];
        if (sign === "/") return [`${of(left, 2)} / ${of(right, 3)}`, 2];
        if (sign === "**") return [`${of(left, 4)}<sup>${of(right)}</sup>`, 3];
        if (sign === "+" || sign === "-") return [joined(of(left, 1), sign === "-" ? "−" : "+", of(right, sign === "+" ? 1 : 2)), 1];
        if (sign === "*") return [`${of(left, 2)}${times}${of(right, 3)}`, 2];
        return [`${of(left, 1)} ${sign} ${of(right, 2)}`, LEVEL[sign] ?? 0];
      }
    }
    return ["?", 4];
  }

  // ── Moments: one an entry of an equation, or one an equation where there are very many ──

  const sizeOf = (step) => arrays[step.defines].data.length;
  const total = DATA.steps.reduce((sum, step) => sum + sizeOf(step), 0);
  const moments = [];
  DATA.steps.forEach((step, s) => {
    const entries = total <= DATA.most ? sizeOf(step) : 1;
    for (let e = 0; e < entries; e++) moments.push({ s, e, whole: entries < sizeOf(step) });
  });
  const firstMoment = DATA.steps.map((_, s) => moments.findIndex((moment) => moment.s === s));
  let now = 0, rate = 0.1, losses = [], timer = null;

  function unravel(shape, flat) {
    const at = [];
    for (let axis = shape.length - 1; axis >= 0; axis--) { at.unshift(flat % shape[axis]); flat = Math.floor(flat / shape[axis]); }
    return at;
  }

  const stepOf = {};
  DATA.steps.forEach((step, s) => { stepOf[step.defines] = s; });

  // Whether an entry is known by now.
  function isKnown(id, flat) {
    if (!(id in stepOf)) return true;
    const moment = moments[now], s = stepOf[id];
    return s < moment.s || (s === moment.s && (moment.whole || flat <= moment.e));
  }

  function current() {
    const moment = moments[now], step = DATA.steps[moment.s];
    const at = unravel(arrays[step.defines].shape, moment.e);
    const scope = Object.fromEntries(step.letters.map((letter, axis) => [letter, at[axis]]));
    const right = writeOut(step.body, scope, step.sizes, arrays);
    return { moment, step, at, right, used: mentions(right) };
  }

  // ── The step at hand ──

  function renderStep({ moment, step, at, right }) {
    const id = step.defines, value = digits(valueOf(id, at));
    const symbols = write(right, symbol, " · ");
    const numbers = write(right, (of, place) => `<b>${digits(valueOf(of, place))}</b>`, " × ");
    const plain = right[0] === "n" || right[0] === "r";
    by("where").textContent = `${step.direction === "forward" ? "Forward" : "Backward"} · ${step.number ? `layer ${step.number}: ` : "loss: "}${step.op}`;
    by("formula").innerHTML = `${symbol(id, at)} = ${symbols}`;
    by("numbers").innerHTML = plain ? "" : `= ${numbers}`;
    by("result").innerHTML = `= <b>${value}</b>`;
    by("more").textContent = moment.whole ? `and the other ${sizeOf(step) - 1} entries likewise` : "";
    by("said").textContent = `Step ${now + 1} of ${moments.length}. ${spoken(id, at)} is ${value}.`;
    by("count").textContent = `${now + 1} / ${moments.length}`;
    by("slider").value = now;
    by("slider").setAttribute("aria-valuetext", `step ${now + 1} of ${moments.length}, ${step.direction}`);
    by("loss").textContent = digits(arrays.J.data[0]);
  }

  // ── Tables: every array, the free ones to be edited ──

  const cells = {}; // by identity, a list of elements
  function table(id, editable, slopeId) {
    const { shape, data } = arrays[id];
    const axes = shape.filter((size) => size > 1); // an axis of one is no row and no column
    const columns = axes.length ? axes[axes.length - 1] : 1;
    const shown = Math.min(data.length, DATA.cells);
    const body = make("tbody");
    for (let row = 0; row * columns < shown; row++) {
      const line = make("tr");
      for (let column = 0; column < columns && row * columns + column < shown; column++) {
        const flat = row * columns + column, at = unravel(shape, flat);
        const cell = make("td");
        if (editable) {
          const allowed = DATA.allowed[id];
          const input = make("input", { type: "number", step: allowed ? 1 : "any", value: data[flat], "aria-label": spoken(id, at) });
          input.addEventListener("input", () => edit(id, flat, input));
          input.addEventListener("focus", () => { input.value = arrays[id].data[flat]; }); // all its digits
          input.addEventListener("blur", () => {
            input.value = short(arrays[id].data[flat]);
            if (input.getAttribute("aria-invalid")) { input.removeAttribute("aria-invalid"); by("problem").textContent = ""; }
          });
          cell.append(input);
          (cells[id] ??= []).push(input);
        } else {
          const text = make("span", { class: "value" });
          cell.append(text);
          (cells[id] ??= []).push(text);
        }
        if (slopeId) {
          const slope = make("span", { class: "slope" });
          cell.append(slope);
          (cells[slopeId] ??= []).push(slope);
        }
        line.append(cell);
      }
      body.append(line);
    }
    const caption = make("caption");
    caption.innerHTML = `${symbol(id)}${slopeId ? ` and <span class="slope">∂J/∂<i>${DATA.symbols[id].name}</i></span>` : ""}${shape.length ? ` <small>${shape.join(" × ")}</small>` : ""}`;
    const element = make("table", {}, caption, body);
    const box = make("div", { class: "array", tabindex: "0", role: "region", "aria-label": spoken(id) }, element);
    if (shown < data.length) box.append(make("p", { class: "note" }, `the first ${shown} of ${data.length}`));
    return box;
  }

  function buildTables() {
    for (const group of DATA.groups) {
      const boxes = group.arrays.map(({ id, slope, editable }) => table(id, editable, slope));
      const body = make("div", { class: "arrays" }, ...boxes);
      const extra = group.details.map(({ id, slope }) => table(id, false, slope));
      const section = make("section", {}, make("h3", {}, group.title), body);
      if (extra.length) section.append(make("details", {}, make("summary", {}, "in between"), make("div", { class: "arrays" }, ...extra)));
      by("tables").append(section);
    }
  }

  function renderTables({ step, at, used }) {
    const lit = new Set(used.map(([id, place]) => `${id} ${offset(arrays[id].shape, place)}`));
    const here = `${step.defines} ${offset(arrays[step.defines].shape, at)}`;
    for (const [id, elements] of Object.entries(cells)) {
      elements.forEach((element, flat) => {
        const value = arrays[id].data[flat];
        if (element.tagName === "INPUT") { if (document.activeElement !== element) element.value = short(value); }
        else element.textContent = isKnown(id, flat) ? digits(value) : "·";
        element.classList.toggle("used", lit.has(`${id} ${flat}`));
        element.classList.toggle("now", here === `${id} ${flat}`);
      });
    }
  }

  // ── The graph ──

  const marks = []; // what is drawn for which entries: {ids: [[identity, flat]…], element, label?}
  function buildGraph() {
    const graph = DATA.graph, svg = by("graph");
    if (!graph) { by("diagram").replaceWith(make("p", { class: "note" }, `No graph is drawn: ${DATA.reason}.`)); return; }
    const tallest = Math.max(...graph.columns.map((column) => column.size));
    const gap = 200, spacing = tallest > 4 ? 94 : 104, radius = 25;
    const width = gap * (graph.columns.length - 1) + 240, height = spacing * tallest + 50;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.minWidth = `${Math.min(width, 560)}px`;
    const x = (c) => 50 + c * gap, y = (c, k) => height / 2 + (k - (graph.columns[c].size - 1) / 2) * spacing;
    graph.columns.forEach((column, c) => {
      if (!column.w) return;
      const [sources, targets] = arrays[column.w].shape;
      for (let i = 0; i < sources; i++) for (let j = 0; j < targets; j++) {
        const flat = i * targets + j, along = { x1: x(c - 1), y1: y(c - 1, i), x2: x(c), y2: y(c, j) };
        const ids = [[column.w, flat], [column.dw, flat]];
        const line = draw("line", { ...along, class: "edge" }), touch = draw("line", { ...along, class: "touch" });
        const near = 0.36, label = draw("text", {
          x: x(c - 1) + near * gap, y: y(c - 1, i) + near * (y(c, j) - y(c - 1, i)) - 5, class: "weight" });
        svg.append(line, touch, label);
        marks.push({ ids, element: line, label });
        hover(touch, ids);
      }
    });
    graph.columns.forEach((column, c) => {
      for (let k = 0; k < column.size; k++) {
        const group = draw("g", { class: "node" });
        const name = draw("text", { x: x(c), y: y(c, k) + 5, class: "name" });
        name.innerHTML = svgSymbol(column.value, k);
        const value = draw("text", { x: x(c), y: y(c, k) - radius - 6, class: "value" });
        const slope = draw("text", { x: x(c), y: y(c, k) + radius + 15, class: "slope" });
        group.append(draw("circle", { cx: x(c), cy: y(c, k), r: radius }), name, value, slope);
        svg.append(group);
        const ids = column.ids.map((id) => [id, k]);
        marks.push({ ids, element: group, name, value, slope, valueId: column.value, slopeId: column.slope, before: column.before, flat: k });
        hover(group, ids);
      }
    });
    const last = graph.columns.length - 1;
    svg.append(draw("line", { x1: x(last) + radius, y1: height / 2, x2: x(last) + 70, y2: height / 2, class: "arrow" }));
    const loss = draw("g", { class: "node" }), text = draw("text", { x: x(last) + 78, y: height / 2 + 5, class: "j" });
    loss.append(text);
    svg.append(loss);
    marks.push({ ids: [["J", 0]], element: loss, j: text });
  }

  function svgSymbol(id, k) {
    const { name, number } = DATA.symbols[id];
    const index = place(id, [0, k]);
    return `<tspan font-style="italic">${name}</tspan>${number ? `<tspan dy="-6" font-size="9">(${number})</tspan>` : ""}${index.length ? `<tspan dy="${number ? 11 : 5}" font-size="10">${index.join(",")}</tspan>` : ""}`;
  }

  function hover(element, ids) {
    const show = (event) => {
      const lines = ids.filter(([id, flat]) => isKnown(id, flat)).map(([id, flat]) => {
        return `${symbol(id, unravel(arrays[id].shape, flat))} = ${digits(arrays[id].data[flat])}`;
      });
      const tip = by("tip");
      tip.innerHTML = lines.join("<br>");
      tip.hidden = false;
      tip.style.left = `${Math.min(event.pageX + 14, document.documentElement.scrollWidth - 190)}px`;
      tip.style.top = `${event.pageY + 14}px`;
    };
    element.addEventListener("pointermove", show);
    element.addEventListener("pointerleave", () => { by("tip").hidden = true; });
  }

  function renderGraph({ step, at, used }) {
    const lit = new Set(used.map(([id, place]) => `${id} ${offset(arrays[id].shape, place)}`));
    const here = `${step.defines} ${offset(arrays[step.defines].shape, at)}`;
    for (const mark of marks) {
      const keys = mark.ids.map(([id, flat]) => `${id} ${flat}`);
      mark.element.classList.toggle("used", keys.some((key) => lit.has(key)));
      mark.element.classList.toggle("now", keys.includes(here));
      if (mark.label) {
        const lively = mark.element.classList.contains("used") || mark.element.classList.contains("now");
        const [[w, flat], [dw]] = mark.ids;
        const shown = lit.has(`${dw} ${flat}`) || here === `${dw} ${flat}` ? dw : w;
        mark.label.textContent = lively ? digits(arrays[shown].data[flat], 4) : "";
        mark.label.classList.toggle("slope", shown === dw);
      }
      if (mark.value) {
        const best = [mark.valueId, mark.before].find((id) => id && isKnown(id, mark.flat));
        mark.name.innerHTML = svgSymbol(best ?? mark.valueId, mark.flat); // the sum, until the activation is applied
        mark.value.textContent = best ? digits(arrays[best].data[mark.flat], 5) : "";
        const slopeKnown = mark.slopeId && isKnown(mark.slopeId, mark.flat);
        mark.slope.textContent = slopeKnown ? digits(arrays[mark.slopeId].data[mark.flat], 5) : "";
      }
      if (mark.j) mark.j.textContent = isKnown("J", 0) ? `J = ${digits(arrays.J.data[0], 5)}` : "J";
    }
  }

  // ── The loss over steps of descent ──

  function renderCurve() {
    const svg = by("curve"), finite = losses.filter(Number.isFinite);
    svg.replaceChildren();
    svg.style.display = finite.length < 2 ? "none" : "";
    if (finite.length < 2) return;
    const highest = Math.max(...finite), lowest = Math.min(0, ...finite), range = highest - lowest || 1;
    const points = losses.map((loss, k) => `${4 + (192 * k) / (losses.length - 1)},${56 - (50 * (loss - lowest)) / range}`);
    svg.append(draw("polyline", { points: points.join(" ") }));
    by("curve-note").textContent = `J from ${digits(losses[0], 4)} to ${digits(losses[losses.length - 1], 4)} in ${losses.length - 1} steps`;
  }

  // ── What the reader does ──

  function render() {
    const at = current();
    renderStep(at);
    renderTables(at);
    renderGraph(at);
    renderCurve();
    for (const [id, end] of [["first", 0], ["back", 0], ["forward", moments.length - 1], ["last", moments.length - 1]])
      by(id).disabled = now === end;
  }

  function go(to) {
    now = Math.max(0, Math.min(moments.length - 1, to));
    render();
  }

  function edit(id, flat, input) {
    const value = input.valueAsNumber, allowed = DATA.allowed[id];
    if (!Number.isFinite(value) || (allowed && !allowed.includes(value))) {
      input.setAttribute("aria-invalid", "true");
      const expected = !allowed ? "a number" : allowed.length > 4 ? `a whole number from ${allowed[0]} to ${allowed[allowed.length - 1]}` : `one of ${allowed.join(", ")}`;
      by("problem").textContent = `Expected ${expected} for ${spoken(id)}; the last good value stays.`;
      return;
    }
    input.removeAttribute("aria-invalid");
    by("problem").textContent = "";
    arrays[id].data[flat] = value;
    recompute(DATA.steps, arrays);
    losses = [arrays.J.data[0]];
    by("curve-note").textContent = "";
    render();
  }

  function descend() {
    for (const [id, slope] of DATA.parameters)
      arrays[id].data.forEach((_, k) => { arrays[id].data[k] -= rate * arrays[slope].data[k]; });
    recompute(DATA.steps, arrays);
    losses.push(arrays.J.data[0]);
    render();
  }

  function reset() {
    for (const [id, data] of Object.entries(original)) arrays[id].data = data.slice();
    recompute(DATA.steps, arrays);
    losses = [arrays.J.data[0]];
    by("curve-note").textContent = "";
    go(0);
  }

  function play() {
    if (timer) { clearInterval(timer); timer = null; }
    else {
      if (now === moments.length - 1) go(0);
      timer = setInterval(() => { go(now + 1); if (now === moments.length - 1) play(); }, 1200);
    }
    by("play").textContent = timer ? "Pause" : "Play";
    by("play").setAttribute("aria-pressed", String(Boolean(timer)));
  }

  by("first").addEventListener("click", () => go(0));
  by("back").addEventListener("click", () => go(now - 1));
  by("forward").addEventListener("click", () => go(now + 1));
  by("last").addEventListener("click", () => go(moments.length - 1));
  by("to-backward").addEventListener("click", () => go(firstMoment[DATA.steps.findIndex((step) => step.direction === "backward")]));
  by("play").addEventListener("click", play);
  by("slider").max = moments.length - 1;
  by("slider").addEventListener("input", () => go(Number(by("slider").value)));
  by("descend").addEventListener("click", descend);
  by("reset").addEventListener("click", reset);
  by("rate").addEventListener("input", () => {
    const value = by("rate").valueAsNumber, good = Number.isFinite(value) && value > 0;
    if (good) { rate = value; by("rate").removeAttribute("aria-invalid"); by("problem").textContent = ""; }
    else { by("rate").setAttribute("aria-invalid", "true"); by("problem").textContent = "Expected a learning rate above 0; the last good value stays."; }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: moments.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to);
  });

  buildTables();
  buildGraph();
  recompute(DATA.steps, arrays);
  losses = [arrays.J.data[0]];
  render();
  window.backprop = { arrays, go, descend, reset, moments }; // for whoever wants to look behind the page
})();
