// The page: steps through both passes, and computes everything again when a number is changed.
"use strict";

(() => {
  const DATA = JSON.parse(document.getElementById("trace").textContent);
  const arrays = {}, original = {}, buffers = {}; // buffers: the data of each array
  for (const [id, array] of Object.entries(DATA.arrays)) {
    const data = array.data.map((x) => (x === null ? NaN : x === "inf" ? Infinity : x === "-inf" ? -Infinity : x));
    buffers[id] = Float64Array.from(data);
    arrays[id] = { shape: array.shape, data: buffers[id] };
    original[id] = buffers[id].slice();
  }
  const trees = treesOf(Object.fromEntries(Object.entries(arrays).map(([id, { shape }]) => [id, shape])));
  const by = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // ── Numbers and names ──

  const valueOf = (id, at) => arrays[id].data[offset(arrays[id].shape, at)];
  const isBatch = (id) => DATA.symbols[id].batched && arrays[id].shape[0] > 1;

  // The indices that are worth writing, from 1: not that of a batch of one, nor of a lone number.
  function place(id, at) {
    const shape = arrays[id].shape;
    if (!DATA.symbols[id].batched || shape[0] !== 1) return at.map((i) => i + 1);
    return shape.slice(1).every((size) => size === 1) ? [] : at.slice(1).map((i) => i + 1);
  }

  // The derivative in a grid, where its name is not made from the grid's: δ, or that of a sum for the body's output.
  function slopeOfAnother({ identity, slope }) {
    const own = DATA.symbols[identity], of = DATA.symbols[slope];
    if (!slope || (own.name === of.name && own.number === of.number)) return "";
    const letters = symbolMath({ ...of, slope: false }, []);
    return `<small>and</small> <span class="slope">${math(of.slope ? sign("∂J/∂") : "", letters)}</span>`;
  }

  const symbol = (id, at) => symbolMath(DATA.symbols[id], at ? place(id, at) : []);

  function spoken(id, at) {
    const { name, number: layer, slope } = DATA.symbols[id];
    const indices = at ? place(id, at) : [];
    const of = `${name.replace("_", " ")}${layer ? ` of layer ${layer}` : ""}${indices.length ? `, entry ${indices.join(", ")}` : ""}`;
    return slope ? `derivative of J by ${of}` : of;
  }

  function unravel(shape, flat) {
    const at = [];
    for (let axis = shape.length - 1; axis >= 0; axis--) { at.unshift(flat % shape[axis]); flat = Math.floor(flat / shape[axis]); }
    return at;
  }

  // ── Moments: one an entry of an equation, or one an equation where there are very many ──

  let now = 0, rate = 0.1, losses = [], playing = null, running = null, sample = 0, moments = [], asked = -1, score = [0, 0];
  let focus = null; // an entry that the reader has chosen, where it is not that of the moment
  const knownAt = {}, definedBy = {}; // by identity, for each entry: when it is known, the moment and letters of its step

  const isOfBatch = (step) => step.letters.length > 0 && /^n0?$/.test(step.letters[0]) && step.sizes[0] > 1;
  const hasSamples = DATA.steps.some(isOfBatch);
  const total = DATA.steps.reduce((sum, step) => sum + step.sizes.reduce((product, size) => product * size, 1), 0);

  function buildMoments() {
    moments = [];
    for (const id of Object.keys(arrays)) { delete knownAt[id]; definedBy[id] = []; }
    DATA.steps.forEach((step, s) => {
      const known = (knownAt[step.defines] ??= new Array(arrays[step.defines].data.length).fill(-1));
      const first = moments.length;
      // of many entries one in the middle, where no window is cut and no query has a single key
      const isMiddle = (k, i) => k === (i === 0 && isOfBatch(step) ? sample : Math.floor(step.sizes[i] / 2));
      countUp(step.sizes, (letters) => {
        const at = STEPS[s].place(letters);
        const shown = !isOfBatch(step) || letters[0] === sample;
        if (shown && (total <= DATA.most || letters.every(isMiddle))) moments.push({ s, letters, at });
        const flat = offset(arrays[step.defines].shape, at);
        known[flat] = Math.max(first, moments.length - 1);
        definedBy[step.defines][flat] = { moment: known[flat], s, letters, at };
      });
    });
  }

  const isKnown = (id, flat) => !(id in knownAt) || knownAt[id][flat] < now || (knownAt[id][flat] === now && !asking());
  const whole = () => total > DATA.most;

  function current() {
    const { s, letters, at } = focus ?? moments[now], step = DATA.steps[s];
    const right = STEPS[s].written(trees, buffers, letters);
    return { step, at, right, used: mentions(right) };
  }

  // ── The step at hand ──

  const asking = () => by("ask").checked && asked !== now;

  function renderStep({ step, at, right }) {
    const id = step.defines, value = digits(valueOf(id, at)), plain = right[0] === "n" || right[0] === "r";
    by("where").textContent = `${step.direction === "forward" ? "Forward" : "Backward"} · ${step.number ? `layer ${step.number}: ` : "loss: "}${step.op}`;
    by("formula").innerHTML = inTerms([symbol(id, at), sign("=")], right, symbol, "·");
    const numbers = inTerms([sign("=")], right, (of, where) => number(valueOf(of, where)), "×");
    by("numbers").innerHTML = plain ? "" : numbers;
    by("result").innerHTML = asking() ? "" : math(sign("="), `<mstyle style="font-weight:bold">${number(valueOf(id, at))}</mstyle>`);
    by("question").hidden = !asking();
    if (asking()) { by("answer").value = ""; by("verdict").textContent = ""; }
    const others = whole() && step.sizes.length ? "The other entries are computed likewise: click one to see its numbers." : "";
    by("more").textContent = [step.note, others].filter(Boolean).join(" ");
    by("said").textContent = asking() ? `Step ${now + 1}. What is ${spoken(id, at)}?` : `Step ${now + 1} of ${moments.length}. ${spoken(id, at)} is ${value}.`;
    by("count").textContent = `${now + 1} / ${moments.length}`;
    by("slider").max = moments.length - 1;
    by("slider").value = now;
    by("slider").setAttribute("aria-valuetext", `step ${now + 1} of ${moments.length}, ${step.direction}`);
    by("loss").textContent = isKnown("J", 0) ? digits(arrays.J.data[0]) : "?";
    by("score").hidden = !by("ask").checked;
    by("score").textContent = `${score[0]} of ${score[1]} right at the first try`;
  }

  let firstTry = true;
  function check(event) {
    event.preventDefault();
    const { step, at, right } = current(), value = valueOf(step.defines, at);
    const answer = Number(by("answer").value.trim().replace("−", "-").replace(",", "."));
    if (by("answer").value.trim() === "" || Number.isNaN(answer)) { by("verdict").textContent = "Expected a number."; return; }
    const right_ = agrees(answer, value);
    if (firstTry) { score[1]++; if (right_) score[0]++; }
    firstTry = false;
    if (right_) return reveal();
    const why = mistakeIn(answer, right, valueOf);
    by("verdict").textContent = why ? `No: it seems that ${why}.` : "No.";
    by("score").textContent = `${score[0]} of ${score[1]} right at the first try`;
  }

  function reveal() { asked = now; firstTry = true; render(); by("forward").focus(); }

  // ── Numbers that can be changed, in tables and in the graph ──

  function set(id, flat, value) {
    const allowed = DATA.allowed[id];
    if (!Number.isFinite(value) || (allowed && !allowed.includes(value))) {
      const expected = !allowed ? "a number" : allowed.length > 4 ? `a whole number from ${allowed[0]} to ${allowed[allowed.length - 1]}` : `one of ${allowed.join(", ")}`;
      by("problem").textContent = `Expected ${expected} for ${spoken(id, unravel(arrays[id].shape, flat))}; the last good value stays.`;
      return false;
    }
    by("problem").textContent = "";
    arrays[id].data[flat] = value;
    recompute(STEPS, buffers);
    losses = [arrays.J.data[0]];
    by("curve-note").textContent = "";
    render();
    return true;
  }

  function numberInput(id, flat) {
    const input = make("input", { type: "number", step: DATA.allowed[id] ? 1 : "any", value: short(arrays[id].data[flat]), "aria-label": spoken(id, unravel(arrays[id].shape, flat)) });
    input.addEventListener("input", () => {
      if (set(id, flat, input.valueAsNumber)) input.removeAttribute("aria-invalid");
      else input.setAttribute("aria-invalid", "true");
    });
    input.addEventListener("focus", () => { input.value = arrays[id].data[flat]; }); // all its digits
    input.addEventListener("blur", () => {
      input.value = short(arrays[id].data[flat]);
      if (input.getAttribute("aria-invalid")) { input.removeAttribute("aria-invalid"); by("problem").textContent = ""; }
    });
    return input;
  }

  // Typing over a number of the graph.
  function typeOver(element, id, flat) {
    by("over")?.remove();
    const box = element.getBoundingClientRect(), input = numberInput(id, flat);
    input.id = "over";
    input.style.left = `${window.scrollX + box.left - 18}px`;
    input.style.top = `${window.scrollY + box.top - 4}px`;
    const close = () => { input.remove(); by("problem").textContent = ""; };
    input.addEventListener("blur", close);
    input.addEventListener("keydown", (event) => { if (["Enter", "Escape"].includes(event.key)) { input.blur(); element.focus(); } });
    document.body.append(input);
    input.focus();
    input.select();
  }

  function makeEditable(element, id, flatNow) {
    element.classList.add("editable");
    element.setAttribute("tabindex", "0");
    element.setAttribute("role", "spinbutton");
    const step = () => (DATA.allowed[id] ? 1 : 0.1);
    element.addEventListener("keydown", (event) => {
      const by_ = { ArrowUp: step(), ArrowDown: -step() }[event.key];
      if (by_ !== undefined) { event.preventDefault(); event.stopPropagation(); set(id, flatNow(), exact(arrays[id].data[flatNow()] + by_)); }
      if (event.key === "Enter") typeOver(element, id, flatNow());
    });
    let start = null, moved = false;
    element.addEventListener("pointerdown", (event) => {
      start = { x: event.clientX, value: arrays[id].data[flatNow()] };
      moved = false;
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", (event) => {
      if (!start || DATA.allowed[id] || Math.abs(event.clientX - start.x) < 4) return;
      moved = true;
      set(id, flatNow(), exact(start.value + (event.clientX - start.x) * 0.01));
    });
    element.addEventListener("pointerup", () => { if (start && !moved) typeOver(element, id, flatNow()); start = null; });
    element.addEventListener("pointercancel", () => { start = null; });
  }

  // ── The graph ──

  const marks = []; // functions that bring what is drawn up to date
  const flatOf = (id, [first, k]) => {
    if (first === "row") return arrays[id].shape.length ? sample : 0; // of an array with one number a sample
    return first === "sample" ? sample * arrays[id].shape[1] + k : first;
  };
  const host = {
    edge(line, id, flat) {
      hover(line, () => [[id, flat], [`d${id}`, flat]]);
      marks.push(({ lit, here, largest }) => {
        const value = arrays[id].data[flat], size = Math.abs(value) / (largest[id] ||= Math.max(...arrays[id].data.map(Math.abs)) || 1);
        line.style.stroke = `rgb(var(--${value < 0 ? "minus" : "plus"}))`;
        const used = lit.has(`${id} ${flat}`);
        line.style.strokeWidth = 1 + 4 * size + (used ? 2 : 0);
        line.style.strokeOpacity = used ? 1 : 0.25 + 0.45 * size;
        line.classList.toggle("used", used);
        line.classList.toggle("now", here === `d${id} ${flat}`);
      });
    },
    editable(text, id, at, name = "") {
      makeEditable(text, id, () => flatOf(id, at));
      marks.push(({ lit }) => {
        const flat = flatOf(id, at), key = `${id} ${flat}`;
        text.textContent = quiet(text, lit.has(key)) ? "" : `${name ? `${name} ` : ""}${digits(arrays[id].data[flat], 4)}`;
        text.setAttribute("aria-label", spoken(id, unravel(arrays[id].shape, flat)));
        text.setAttribute("aria-valuenow", arrays[id].data[flat]);
        text.classList.toggle("used", lit.has(key));
      });
    },
    known(text, id, at) {
      if (!(id in arrays)) return;
      text.addEventListener("click", () => show(id, flatOf(id, at)));
      marks.push(({ lit, here }) => {
        const flat = flatOf(id, at), known = isKnown(id, flat), key = `${id} ${flat}`;
        text.textContent = known && !quiet(text, lit.has(key) || here === key) ? digits(arrays[id].data[flat], 4) : "";
        text.classList.toggle("known", known);
        text.classList.toggle("used", lit.has(key));
        text.classList.toggle("now", here === key);
      });
    },
    node(group, id, at) {
      hover(group, () => [[id, flatOf(id, at)], [`d${id}`, flatOf(id, at)]]);
      marks.push(({ lit, here }) => {
        const keys = [id, `d${id}`].map((one) => `${one} ${flatOf(id, at)}`);
        group.classList.toggle("used", keys.some((key) => lit.has(key)));
        group.classList.toggle("now", keys.includes(here));
      });
    },
    crowded(is) {
      by("legend").textContent = "Blue edges have positive weights, orange ones negative; the wider, the larger. Above a node is its value, below it, in red, "
        + `the derivative of J; b is a bias, beside it its derivative.${hasSamples ? " The numbers at nodes are those of one sample; J, and the derivatives at edges, are those of the whole batch." : ""}${is ? " An edge shows its numbers when they are used, and when the pointer is on it; the tables show all." : ""}`;
    },
    loss(group, x, y) {
      const text = drawInto(group, "text", { x, y: y - 12, class: "j" });
      text.addEventListener("click", () => go(knownAt.J[0]));
      const name = drawInto(group, "text", { x, y: y + 12, class: "j" }, "target");
      const columns = arrays.t.shape.length > 1 ? arrays.t.shape[1] : 1;
      for (let k = 0; k < columns; k++) {
        const target = drawInto(group, "text", { x: x + 46 + 40 * k, y: y + 12, class: "j" });
        host.editable(target, "t", columns > 1 || arrays.t.shape.length > 1 ? ["sample", k] : ["row"]);
      }
      hover(name, () => []);
      marks.push(({ here }) => {
        text.textContent = isKnown("J", 0) ? `J = ${digits(arrays.J.data[0], 5)}` : "J";
        group.classList.toggle("now", here === "J 0");
      });
    },
  };

  const quiet = (text, lit) => text.classList.contains("quiet") && !lit;

  function hover(element, entries) {
    element.addEventListener("pointermove", (event) => {
      const lines = entries().filter(([id, flat]) => id in arrays && isKnown(id, flat)).map(([id, flat]) =>
        math(symbol(id, unravel(arrays[id].shape, flat)), sign("="), number(arrays[id].data[flat])));
      const tip = by("tip");
      tip.innerHTML = lines.join("<br>");
      tip.hidden = lines.length === 0;
      tip.style.left = `${Math.min(event.pageX + 14, document.documentElement.scrollWidth - 190)}px`;
      tip.style.top = `${event.pageY + 14}px`;
    });
    element.addEventListener("pointerleave", () => { by("tip").hidden = true; });
  }

  // ── Pictures of layers that are not dense ──

  const flatIn = ({ identity, at }, r, c) => offset(arrays[identity].shape, at.map((part) =>
    part === "sample" ? sample : Array.isArray(part) ? part[1] + { r, c }[part[0]] : part));
  let drawn = null, updatePicture = () => {};
  const pictureHost = {
    title: (grid) => [math(symbol(grid.identity)), slopeOfAnother(grid), grid.note && `<small>${grid.note}</small>`].filter(Boolean).join(" "),
    isReached: (grid) => isKnown(grid.slope, flatIn(grid, 0, 0)),
    cell(group, value, grid, r, c) {
      if (grid.editable) makeEditable(value, grid.identity, () => flatIn(grid, r, c));
      group.addEventListener("click", (event) => { // once for the value, once more for the derivative
        if (grid.editable && event.target === value) return;
        const flat = flatIn(grid, r, c), step = current();
        const isHere = step.step.defines === grid.identity && offset(arrays[grid.identity].shape, step.at) === flat;
        const backward = step.step.direction === "backward" && step.step.defines !== grid.slope;
        const wanted = grid.slope && (isHere || backward || !(grid.identity in knownAt)) ? grid.slope : grid.identity;
        show(wanted, flat);
      });
    },
    show({ r, c, group, back, value, slope }, grid, { lit, here, largest }) {
      const { identity: id } = grid, flat = flatIn(grid, r, c), number_ = arrays[id].data[flat], known = isKnown(id, flat);
      value.textContent = known ? named(id, number_) : "·";
      if (grid.editable) { value.setAttribute("aria-label", spoken(id, unravel(arrays[id].shape, flat))); value.setAttribute("aria-valuenow", number_); }
      const keys = [`${id} ${flat}`, `${grid.slope} ${flat}`];
      if (slope) {
        slope.textContent = isKnown(grid.slope, flat) ? brief(arrays[grid.slope].data[flat]) : "";
        slope.classList.toggle("now", here === keys[1]);
        slope.classList.toggle("used", lit.has(keys[1]));
      }
      value.classList.toggle("now", here === keys[0]);
      value.classList.toggle("used", lit.has(keys[0]));
      const used = keys.some((key) => lit.has(key)), isNow = keys.includes(here);
      group.classList.toggle("used", used);
      group.classList.toggle("now", isNow);
      const size = Math.abs(number_) / (largest[id] ||= Math.max(...arrays[id].data.map(Math.abs)) || 1);
      back.style.fill = used || isNow || !known || !Number.isFinite(size) ? "" : `rgb(var(--${number_ < 0 ? "minus" : "plus"}) / ${(0.38 * size).toFixed(3)})`;
      return used;
    },
  };

  // A class by its name, where the reader has given names.
  function named(id, value) {
    const { vocabulary } = DATA.names;
    return vocabulary.length && DATA.allowed[id] ? shownToken(vocabulary[value] ?? String(value)) : brief(value);
  }

  function renderPicture(state) {
    const { layer, direction } = current().step, picture = DATA.pictures.find(({ number }) => number === layer);
    if (picture !== drawn) {
      drawn = picture;
      updatePicture = buildPicture(by("graph"), picture, pictureHost);
      by("graph").setAttribute("aria-label", `${picture.label} as grids of numbers. The tables below hold the same numbers.`);
    }
    for (const button of by("layers").children) button.setAttribute("aria-pressed", String(button.dataset.layer === layer));
    by("layers").dataset.direction = direction;
    updatePicture(state);
  }

  function buildLayerButtons() {
    by("layers").hidden = false;
    by("work").classList.add("pictures");
    for (const { number: layer, label } of DATA.pictures) {
      const button = make("button", { type: "button", "aria-pressed": "false" }, label || "loss");
      button.dataset.layer = layer;
      button.addEventListener("click", () => {
        const { direction } = current().step;
        go(moments.findIndex(({ s }) => DATA.steps[s].layer === layer && DATA.steps[s].direction === direction));
      });
      by("layers").append(button);
    }
    by("legend").textContent = "Numbers on blue are positive, on orange negative; below each, in red, is the derivative of J. "
      + "A first click on a cell shows how its number was computed, a second click its derivative.";
  }

  // ── Tables: every array, the free ones to be edited ──

  const cells = {}; // by identity, the elements that show its entries
  function table({ id, editable, slope }) {
    const { shape, data } = arrays[id];
    const axes = shape.filter((size) => size > 1); // an axis of one is no row and no column
    const columns = shape.length === 2 ? shape[1] : axes.length ? axes[axes.length - 1] : 1, shown = Math.min(data.length, DATA.cells);
    const body = make("tbody");
    for (let first = 0; first < shown; first += columns) {
      const line = make("tr");
      for (let flat = first; flat < Math.min(first + columns, shown); flat++) {
        const cell = make("td", {}, editable ? numberInput(id, flat) : numberButton(id, flat));
        (cells[id] ??= []).push(cell.firstChild);
        if (slope) { cell.append(numberButton(slope, flat)); (cells[slope] ??= []).push(cell.lastChild); }
        line.append(cell);
      }
      body.append(line);
    }
    const caption = make("caption");
    caption.innerHTML = `${math(symbol(id))}${slope ? ` and <span class="slope">${math(symbol(slope))}</span>` : ""}${shape.length ? ` <small>${shape.join(" × ")}</small>` : ""}`;
    const box = make("div", { class: "array", tabindex: "0", role: "region", "aria-label": spoken(id) }, make("table", {}, caption, body));
    if (shown < data.length) box.append(make("p", { class: "note" }, `the first ${shown} of ${data.length}`));
    return box;
  }

  function numberButton(id, flat) {
    const button = make("button", { type: "button", class: DATA.symbols[id].backward ? "value slope" : "value", "aria-label": spoken(id, unravel(arrays[id].shape, flat)) });
    button.addEventListener("click", () => show(id, flat));
    return button;
  }

  function buildTables() {
    for (const group of DATA.groups) {
      const section = make("section", {}, make("h3", {}, group.title), make("div", { class: "arrays" }, ...group.arrays.map(table)));
      if (group.details.length) {
        const details = make("details", {}, make("summary", {}, "in between"), make("div", { class: "arrays" }, ...group.details.map(table)));
        section.append(details);
      }
      by("tables").append(section);
    }
  }

  function renderTables({ lit, here }) {
    for (const [id, elements] of Object.entries(cells)) {
      const largest = Math.max(...arrays[id].data.map(Math.abs)) || 1;
      elements.forEach((element, flat) => {
        const value = arrays[id].data[flat], known = isKnown(id, flat), key = `${id} ${flat}`;
        if (element.tagName === "INPUT") { if (document.activeElement !== element) element.value = short(value); }
        else element.textContent = known ? digits(value) : "·";
        const used = lit.has(key), current_ = here === key;
        element.classList.toggle("used", used);
        element.classList.toggle("now", current_);
        const tint = known && !used && !current_ && Number.isFinite(value) ? (0.38 * Math.abs(value)) / largest : 0;
        element.style.background = tint > 0.01 ? `rgb(var(--${value < 0 ? "minus" : "plus"}) / ${tint.toFixed(3)})` : "";
      });
    }
  }

  // ── The loss over steps of descent ──

  function renderCurve() {
    const svg = by("curve"), finite = losses.filter(Number.isFinite);
    svg.replaceChildren();
    if (finite.length < 2) return;
    const highest = Math.max(...finite), lowest = Math.min(0, ...finite), range = highest - lowest || 1;
    const points = losses.map((loss, k) => `${4 + (192 * k) / (losses.length - 1)},${86 - (80 * (loss - lowest)) / range}`);
    drawInto(svg, "polyline", { points: points.join(" ") });
    by("curve-note").textContent = `J from ${digits(losses[0], 4)} to ${digits(losses[losses.length - 1], 4)} in ${losses.length - 1} steps`;
  }

  // ── What the reader does ──

  function render() {
    const step = current();
    const state = {
      lit: new Set(step.used.map(([id, at]) => `${id} ${offset(arrays[id].shape, at)}`)),
      here: `${step.step.defines} ${offset(arrays[step.step.defines].shape, step.at)}`,
      largest: {},
    };
    renderStep(step);
    renderTables(state);
    if (DATA.graph) marks.forEach((update) => update(state));
    else renderPicture(state);
    renderCurve();
    for (const [id, end] of [["first", 0], ["back", 0], ["forward", moments.length - 1], ["last", moments.length - 1]])
      by(id).disabled = now === end;
  }

  // Go to the step that computes an entry, and show it for that entry.
  function show(id, flat) {
    const found = definedBy[id]?.[flat];
    if (found) go(found.moment, found);
  }

  function go(to, chosen = null) {
    now = Math.max(0, Math.min(moments.length - 1, to));
    focus = chosen;
    firstTry = true;
    render();
  }

  function descend() {
    for (const [id, slope] of DATA.parameters)
      arrays[id].data.forEach((_, k) => { arrays[id].data[k] -= rate * arrays[slope].data[k]; });
    recompute(STEPS, buffers);
    losses.push(arrays.J.data[0]);
    render();
  }

  function reset() {
    for (const [id, data] of Object.entries(original)) buffers[id].set(data);
    recompute(STEPS, buffers);
    losses = [arrays.J.data[0]];
    by("curve-note").textContent = "";
    go(0);
  }

  function press(button, on, names) {
    button.textContent = names[on ? 1 : 0];
    button.setAttribute("aria-pressed", String(on));
  }

  function play() {
    if (playing) { clearInterval(playing); playing = null; }
    else {
      if (now === moments.length - 1) go(0);
      playing = setInterval(() => { go(now + 1); if (now === moments.length - 1) play(); }, 1200);
    }
    press(by("play"), Boolean(playing), ["Play", "Pause"]);
  }

  function run() {
    if (running) { clearInterval(running); running = null; } else running = setInterval(descend, 60);
    press(by("run"), Boolean(running), ["Run", "Pause"]);
  }

  function choose(k) {
    sample = k;
    by("sample").value = k + 1;
    buildMoments();
    go(Math.min(now, moments.length - 1));
  }

  by("first").addEventListener("click", () => go(0));
  by("back").addEventListener("click", () => go(now - 1));
  by("forward").addEventListener("click", () => go(now + 1));
  by("last").addEventListener("click", () => go(moments.length - 1));
  by("to-backward").addEventListener("click", () => go(moments.findIndex(({ s }) => DATA.steps[s].direction === "backward")));
  by("play").addEventListener("click", play);
  by("slider").addEventListener("input", () => go(Number(by("slider").value)));
  by("descend").addEventListener("click", descend);
  by("run").addEventListener("click", run);
  by("reset").addEventListener("click", reset);
  by("ask").addEventListener("change", () => { asked = -1; score = [0, 0]; render(); });
  by("question").addEventListener("submit", check);
  by("show").addEventListener("click", () => { if (firstTry) score[1]++; reveal(); });
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

  const batch = Math.max(1, ...Object.keys(arrays).filter(isBatch).map((id) => arrays[id].shape[0]));
  if (batch > 1) {
    by("samples").hidden = false;
    by("of").textContent = `of ${batch}`;
    by("sample").max = batch;
    by("sample").addEventListener("input", () => {
      const k = by("sample").valueAsNumber - 1;
      if (Number.isInteger(k) && k >= 0 && k < batch) choose(k);
    });
  }
  buildMoments();
  buildTables();
  if (DATA.graph) buildGraph(by("graph"), DATA.graph, host);
  else buildLayerButtons();
  recompute(STEPS, buffers);
  losses = [arrays.J.data[0]];
  render();
  window.backprop = { arrays, go, show, descend, reset, choose, get moments() { return moments; } }; // for whoever wants to look behind the page
})();
