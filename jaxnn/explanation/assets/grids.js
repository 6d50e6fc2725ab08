// Layers that are not dense, as grids of numbers with arrows between them; each cell has a value and, in red below
// it, the derivative of J.
"use strict";

const CELL = { width: 60, height: 32 }, BETWEEN = { across: 36, down: 34 }, NAMES = 26, LANE = 14;

// Where each grid stands: each row and column of the picture is as large as its largest grid; below the first row
// there is space for the lanes of the arrows that go round.
function layout({ grids, around }) {
  const widths = [], heights = [];
  const width = ({ shape, rows }) => shape[1] * CELL.width + (rows.length ? NAMES : 0);
  const height = ({ shape, columns }) => shape[0] * CELL.height + (columns.length ? 16 : 0);
  for (const grid of grids) {
    const [r, c] = grid.place;
    heights[r] = Math.max(heights[r] ?? 0, height(grid));
    widths[c] = Math.max(widths[c] ?? 0, width(grid));
  }
  const starts = (sizes, between, first) => {
    let at = first;
    return Array.from(sizes, (size) => { const here = at; at += size === undefined ? 0 : size + between; return here; }).concat(at);
  };
  const x = starts(widths, BETWEEN.across, 10), y = starts(heights, BETWEEN.down, 24);
  const lanes = Math.max(0, ...around.map(([from, to, lane]) => lane));
  for (let r = 1; r < y.length; r++) y[r] += lanes * LANE;
  const boxes = grids.map((grid) => {
    const [r, c] = grid.place;
    const left = x[c] + (grid.rows.length ? NAMES : 0), top = y[r] + (grid.columns.length ? 16 : 0);
    return { left, top, width: grid.shape[1] * CELL.width, height: grid.shape[0] * CELL.height };
  });
  return { boxes, width: x[x.length - 1] - BETWEEN.across + 10, height: y[y.length - 1] - BETWEEN.down + 10 };
}

// With the names of the rows.
function outer({ rows }, box) {
  const names = rows.length ? NAMES - 4 : 0;
  return { ...box, left: box.left - names, width: box.width + names };
}

// From the side of one box that is the nearest to the other; a corner, where they share neither row nor column.
function between(from, to) {
  const right = to.left >= from.left + from.width, left = from.left >= to.left + to.width;
  const low = Math.max(from.top, to.top), high = Math.min(from.top + from.height, to.top + to.height);
  if ((right || left) && low < high) {
    const level = (low + high) / 2;
    return [[right ? from.left + from.width + 2 : from.left - 2, level], [right ? to.left - 4 : to.left + to.width + 4, level]];
  }
  const down = to.top > from.top, level = [down ? from.top + from.height + 2 : from.top - 2, down ? to.top - 4 : to.top + to.height + 4];
  if (right && down) return [[from.left + from.width + 2, from.top + from.height / 2], [to.left - 4, to.top + to.height / 2]];
  if (right) return [[from.left + from.width, level[0]], [to.left + 12, level[1]]];
  if (left) { // past the name above the box
    const x = from.left + from.width - 8;
    return [[x, level[0]], [x, level[0] - 22], [to.left + to.width + 4, to.top + 0.5 * to.height]];
  }
  const x = Math.min(from.left + from.width, to.left + to.width) - 8;
  return [[x, level[0]], [x, level[1]]];
}

// Below the first box, in a lane of its own, and along the free space beside the second box, to its side.
function around(from, to, lane) {
  const right = to.left > from.left, x = right ? to.left - 17 : to.left + to.width + 17;
  const start = from.top + 0.75 * from.height, end = to.top + 0.75 * to.height, below = from.top + from.height + lane * LANE;
  const side = right ? from.left + from.width + 2 : from.left - 2, out = right ? side + 8 : side - 8;
  return [[side, start], [out, start], [out, below], [x, below], [x, end], [right ? to.left - 4 : to.left + to.width + 4, end]];
}

function arrow(svg, points, kind) {
  const [[x1, y1], [x2, y2]] = points.slice(-2), angle = Math.atan2(y2 - y1, x2 - x1);
  const wing = (turn) => `${x2 - 8 * Math.cos(angle + turn)} ${y2 - 8 * Math.sin(angle + turn)}`;
  const line = points.map(([x, y]) => `${x} ${y}`).join(" L ");
  return drawInto(svg, "path", { d: `M ${line} M ${wing(0.45)} L ${x2} ${y2} L ${wing(-0.45)}`, class: kind });
}

const moved = (points, by) => points.map(([x, y]) => [x + by[0], y + by[1]]);

// Draw a picture; the host says what the cells stand for, see page.js. Returns a function that brings it up to date.
function buildPicture(svg, picture, host) {
  svg.replaceChildren();
  const { boxes, width, height } = layout(picture), updates = [];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "xMinYMin");
  svg.style.minWidth = `${width * 0.8}px`;
  svg.style.maxWidth = `${width * 1.3}px`;
  const draw = (from, to, points, by) => {
    arrow(svg, moved(points, by.map((d) => -d / 2)), "flow");
    const { slope } = picture.grids[to];
    if (!slope || !picture.grids[from].slope) return;
    const back = arrow(svg, moved(points, by.map((d) => d / 2)).reverse(), "flow slope");
    updates.push(() => back.classList.toggle("unknown", !host.isReached(picture.grids[to])));
  };
  for (const [from, to] of picture.arrows) {
    const points = between(boxes[from], outer(picture.grids[to], boxes[to])), flat = Math.abs(points[0][1] - points[1][1]) < 1;
    draw(from, to, points, flat ? [0, 5] : [6, 0]);
  }
  for (const [from, to, lane] of picture.around) draw(from, to, around(boxes[from], boxes[to], lane), [6, 5]);
  picture.grids.forEach((grid, g) => updates.push(drawGrid(svg, grid, boxes[g], host)));
  return (state) => updates.forEach((update) => update(state));
}

function drawGrid(svg, grid, box, host) {
  const { left, top } = box, [rows, columns] = grid.shape, cells = [];
  const head = drawInto(svg, "foreignObject", { x: left - 4, y: top - (grid.columns.length ? 38 : 23), width: Math.max(box.width + 30, 110), height: 22 });
  const title = document.createElement("div"); // of HTML, for the sake of MathML in it
  title.className = "head";
  title.innerHTML = host.title(grid);
  head.append(title);
  grid.rows.forEach((name, r) => drawInto(svg, "text", { x: left - 6, y: top + (r + 0.5) * CELL.height + 5, class: "token" }, shownToken(name)));
  grid.columns.forEach((name, c) => drawInto(svg, "text", { x: left + (c + 0.5) * CELL.width, y: top - 4, class: "token above" }, shownToken(name)));
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
    const x = left + c * CELL.width, y = top + r * CELL.height, group = drawInto(svg, "g", { class: "cell" });
    const back = drawInto(group, "rect", { x, y, width: CELL.width, height: CELL.height });
    const value = drawInto(group, "text", { x: x + CELL.width - 4, y: y + (grid.slope ? 13 : 20) });
    const slope = grid.slope ? drawInto(group, "text", { x: x + CELL.width - 4, y: y + 27, class: "slope" }) : null;
    host.cell(group, value, grid, r, c);
    cells.push({ r, c, group, back, value, slope });
  }
  const frame = drawInto(svg, "rect", { class: "window" });
  return (state) => {
    const used = [];
    for (const cell of cells) if (host.show(cell, grid, state)) used.push(cell);
    frame.style.display = used.length > 1 && used.length < cells.length ? "" : "none";
    if (frame.style.display === "none") return;
    const low = (axis) => Math.min(...used.map((cell) => cell[axis])), high = (axis) => Math.max(...used.map((cell) => cell[axis])) + 1;
    for (const [name, value] of Object.entries({ x: left + low("c") * CELL.width, y: top + low("r") * CELL.height,
      width: (high("c") - low("c")) * CELL.width, height: (high("r") - low("r")) * CELL.height })) frame.setAttribute(name, value);
  };
}

const shownToken = (name) => (name === " " ? "␣" : name);
