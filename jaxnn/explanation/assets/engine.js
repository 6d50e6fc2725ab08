// The numbers of the page. Each step of STEPS, compiled from a formula, computes an array or a part of one, and
// writes out the right side for one entry. Written out, an expression is a tree of lists: ["n", number],
// ["r", array, indices], ["o", sign, left, right], ["c", function, arguments], ["t", "sum", terms]. A list bears as
// `deciders` the entries on which it depended that just this was written, though they do not stand in it.
"use strict";

// Where an entry lies in the flat data of its array, or -1 for one that is not there, or between two others.
function offset(shape, at) {
  let place = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    if (!FUNCTIONS.inside(at[axis], shape[axis])) return -1;
    place = place * shape[axis] + at[axis];
  }
  return place;
}

// Compute everything that has a formula, in order, from the arrays that have none.
function recompute(steps, buffers) {
  for (const step of steps) step.compute(buffers);
}

const isNumber = (node, value) => node[0] === "n" && node[1] === value;
const NOTHING = { sum: 0, max: -1e300, min: 1e300 }; // what a condition leaves out

const withDeciders = (node, entries) => (entries.length ? Object.assign([...node], { deciders: entries }) : node);
const decidersOf = (...nodes) => nodes.flatMap((node) => node.deciders ?? []);

// What makes such trees: sums term by term, without the parts that change nothing.
function treesOf(shapes) {
  function joined(sign, left, right) {
    if (sign === "*" && (isNumber(left, 0) || isNumber(right, 0))) return ["n", 0];
    if ((sign === "*" && isNumber(left, 1)) || (sign === "+" && isNumber(left, 0))) return right;
    if (("*/".includes(sign) && isNumber(right, 1)) || ("+-".includes(sign) && isNumber(right, 0))) return left;
    if (sign === "/" && isNumber(left, 0)) return ["n", 0];
    return ["o", sign, left, right];
  }
  function totalOf(kind, parts) {
    const left = parts.filter((part) => !isNumber(part, NOTHING[kind]));
    return left.length === 0 ? ["n", 0] : left.length === 1 ? left[0] : ["t", kind, left];
  }
  return {
    number: (value) => ["n", value],
    entry: (id, at) => (offset(shapes[id], at) < 0 ? ["n", 0] : ["r", id, at]),
    call: (name, parts) => ["c", name, parts],
    total(kind, counts, term) {
      const parts = [];
      countUp(counts, (letters) => parts.push(term(...letters)));
      return withDeciders(totalOf(kind, parts), decidersOf(...parts));
    },
    op: (sign, left, right) => withDeciders(joined(sign, left, right), decidersOf(left, right)),
    decided: (node, entries) => withDeciders(node, [...decidersOf(node), ...entries]),
  };
}

// The entries that stand in an expression or decided what it is.
function mentions(node, found = []) {
  node.deciders?.forEach((part) => mentions(part, found));
  if (node[0] === "r") found.push([node[1], node[2]]);
  if (node[0] === "o") { mentions(node[2], found); mentions(node[3], found); }
  if (node[0] === "c" || node[0] === "t") node[2].forEach((part) => mentions(part, found));
  return found;
}
