// The network as a graph: each neuron as what it computes, Σ with z and ∂J/∂z, then its activation with a and ∂J/∂a;
// each edge with its weight, whose size and sign its width and colour show, and the gradient once that is known.
"use strict";

const ACTIVATION_SIGNS = { Sigmoid: "σ", Tanh: "tanh", ReLU: "relu", LeakyReLU: "lrelu", Softmax: "soft", Softplus: "soft+", Heaviside: "step" };
const CHIPS = 9; // edges between two columns, up to which every edge bears its numbers all the time

function drawInto(svg, tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  svg.append(element);
  return element;
}

// Where the numbers of each edge stand, as a fraction of its length: as far as can be from the other edges and their numbers.
function placesOfNumbers(edges) {
  const at = ({ from, to }, part) => ({ x: from.x + part * (to.x - from.x), y: from.y + part * (to.y - from.y) });
  const heightAt = ({ from, to }, x) => from.y + ((x - from.x) / (to.x - from.x)) * (to.y - from.y);
  const near = (distance, room) => Math.max(0, 1 - distance / room) ** 2, taken = [];
  return edges.map((edge) => {
    const cost = (part) => {
      const { x, y } = at(edge, part);
      const lines = edges.filter((other) => other !== edge).map((other) =>
        near(Math.min(...[-18, 0, 18].map((by) => Math.abs(heightAt(other, x + by) - y))), 30));
      const numbers = taken.map((other) => near(Math.hypot((other.x - x) / 2, other.y - y), 34));
      return [...lines, ...numbers, 0.3 * (part - 0.5) ** 2].reduce((sum, one) => sum + one, 0);
    };
    const parts = Array.from({ length: 15 }, (_, k) => 0.22 + 0.04 * k), best = parts.reduce((a, b) => (cost(b) < cost(a) ? b : a));
    taken.push(at(edge, best));
    return at(edge, best);
  });
}

// Build the graph. The host says what a mark stands for: see page.js.
function buildGraph(svg, graph, host) {
  const columns = graph.columns, tallest = Math.max(...columns.map((column) => column.size));
  const crowded = columns.some((column, c) => c > 0 && column.size * columns[c - 1].size > CHIPS), spacing = tallest > 4 ? 92 : 100, radius = 19, gap = 215, inner = 92;
  const x = []; // of the first node of each column
  let right = 56;
  columns.forEach((column, c) => {
    x.push(right);
    right += gap + (hasActivation(column) ? inner : 0);
  });
  const end = right - gap, height = spacing * tallest + 66;
  svg.setAttribute("viewBox", `0 0 ${end + 190} ${height}`);
  svg.style.minWidth = `${Math.min(end + 190, 620)}px`;
  const y = (c, k) => height / 2 + 12 + (k - (columns[c].size - 1) / 2) * spacing;
  const out = (c) => x[c] + (hasActivation(columns[c]) ? inner : 0); // where a column hands its values on

  const edges = drawInto(svg, "g"); // below all numbers
  columns.forEach((column, c) => {
    if (!column.w) return;
    const sources = columns[c - 1].size, targets = column.size;
    const each = Array.from({ length: sources * targets }, (_, flat) => ({
      from: { x: out(c - 1) + radius, y: y(c - 1, Math.floor(flat / targets)) }, to: { x: x[c] - radius, y: y(c, flat % targets) },
    }));
    const quiet = crowded ? " quiet" : "";
    placesOfNumbers(each).forEach((place, flat) => {
      const { from, to } = each[flat];
      host.edge(drawInto(edges, "line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: "edge" }), column.w, flat);
      host.editable(drawInto(svg, "text", { x: place.x, y: place.y - 3, class: `chip${quiet}` }), column.w, [flat]);
      host.known(drawInto(svg, "text", { x: place.x, y: place.y + 11, class: `chip slope${quiet}` }), `d${column.w}`, [flat]);
    });
  });
  columns.forEach((column, c) => {
    for (let k = 0; k < column.size; k++) {
      if (!column.z) {
        node(svg, host, x[c], y(c, k), radius, `x${lowered(k + 1)}`, column.a, k, true);
        continue;
      }
      node(svg, host, x[c], y(c, k), radius, "Σ", column.z, k, false);
      if (column.b) {
        const bias = drawInto(svg, "text", { x: x[c] - 26, y: y(c, k) - radius - 20, class: "chip" });
        host.editable(bias, column.b, [k], "b");
        host.known(drawInto(svg, "text", { x: x[c] + 32, y: y(c, k) - radius - 20, class: "chip slope" }), `d${column.b}`, [k]);
      }
      if (!hasActivation(column)) continue;
      drawInto(svg, "line", { x1: x[c] + radius, y1: y(c, k), x2: x[c] + inner - radius, y2: y(c, k), class: "arrow" });
      node(svg, host, x[c] + inner, y(c, k), radius, ACTIVATION_SIGNS[column.activation] ?? "f", column.a, k, false);
    }
    if (column.z) drawInto(svg, "text", { x: (x[c] + out(c)) / 2, y: 14, class: "chip" }, `layer ${c}`);
    else drawInto(svg, "text", { x: x[c], y: 14, class: "chip" }, "input");
  });
  drawInto(svg, "line", { x1: end + radius, y1: height / 2 + 12, x2: end + 62, y2: height / 2 + 12, class: "arrow" });
  host.crowded(crowded);
  host.loss(drawInto(svg, "g", { class: "node" }), end + 68, height / 2 + 16);
}

const lowered = (index) => Array.from(String(index), (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]).join("");

function hasActivation(column) {
  return Boolean(column.activation);
}

function node(svg, host, x, y, radius, label, id, k, editable) {
  const group = drawInto(svg, "g", { class: "node" });
  drawInto(group, "circle", { cx: x, cy: y, r: radius });
  const size = label.length > 2 ? 10.5 : 14;
  drawInto(group, "text", { x, y: y + 5, class: "name", style: `font-size:${size}px` }, label);
  const value = drawInto(group, "text", { x, y: y - radius - 5, class: "value" });
  if (editable) host.editable(value, id, ["sample", k]);
  else host.known(value, id, ["sample", k]);
  host.known(drawInto(group, "text", { x, y: y + radius + 14, class: "value slope" }), `d${id}`, ["sample", k]);
  host.node(group, id, ["sample", k]);
}
