// The formulas, evaluated in the page: the same trees that the library checks, and nothing else.
//
// A node is a list: ["n", number], ["i", letter], ["r", array, [indices]], ["o", sign, left, right],
// ["c", function, [arguments]], ["?", condition, then, otherwise], ["s", kind, [letters], body].
"use strict";

const OPERATIONS = {
  "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b,
  "**": (a, b) => Math.pow(a, b), "//": (a, b) => Math.floor(a / b), "%": (a, b) => a - b * Math.floor(a / b),
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  "==": (a, b) => a === b, "!=": (a, b) => a !== b, and: (a, b) => Boolean(a) && Boolean(b),
};

// Where an entry lies in the flat data of its array, or -1 for one that is not there, or between two others.
function offset(shape, at) {
  let place = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    if (!(at[axis] >= 0 && at[axis] < shape[axis] && Number.isInteger(at[axis]))) return -1;
    place = place * shape[axis] + at[axis];
  }
  return place;
}

// Go through all values of some letters.
function count(letters, sizes, scope, visit, axis = 0) {
  if (axis === letters.length) return visit();
  for (let value = 0; value < sizes[letters[axis]]; value++) {
    scope[letters[axis]] = value;
    count(letters, sizes, scope, visit, axis + 1);
  }
}

// The body of a sum is exp(…), or exp(…) where a condition holds and 0 elsewhere.
function isSumOfExponentials(node) {
  if (node[0] !== "s" || node[1] !== "sum") return false;
  const body = node[3][0] === "?" && isNumber(node[3][3], 0) ? node[3][2] : node[3];
  return body[0] === "c" && body[1] === "exp";
}

function logSumExp(node, scope, sizes, arrays) {
  const terms = [], choice = node[3][0] === "?", body = choice ? node[3][2] : node[3];
  count(node[2], sizes, scope, () => {
    const counts = !choice || evaluate(node[3][1], scope, sizes, arrays);
    terms.push(counts ? evaluate(body[2][0], scope, sizes, arrays) : -Infinity);
  });
  const highest = Math.max(...terms);
  return highest + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - highest), 0));
}

function evaluate(node, scope, sizes, arrays) {
  const of = (part) => evaluate(part, scope, sizes, arrays);
  switch (node[0]) {
    case "n": return node[1];
    case "i": return scope[node[1]];
    case "r": {
      const array = arrays[node[1]];
      const place = offset(array.shape, node[2].map(of));
      return place < 0 ? 0 : array.data[place];
    }
    case "?": return of(node[1]) ? of(node[2]) : of(node[3]);
    case "o":
      if (node[1] === "/" && node[2][0] === "c" && node[2][1] === "exp" && isSumOfExponentials(node[3]))
        return Math.exp(of(node[2][2][0]) - logSumExp(node[3], { ...scope }, sizes, arrays));
      return OPERATIONS[node[1]](of(node[2]), of(node[3]));
    case "c":
      if (node[1] === "log" && isSumOfExponentials(node[2][0]))
        return logSumExp(node[2][0], { ...scope }, sizes, arrays);
      return FUNCTIONS[node[1]](...node[2].map(of));
    case "s": {
      const inner = { ...scope };
      let total = node[1] === "sum" ? 0 : node[1] === "max" ? -Infinity : Infinity;
      count(node[2], sizes, inner, () => {
        const value = evaluate(node[3], inner, sizes, arrays);
        total = node[1] === "sum" ? total + value : Math[node[1]](total, value);
      });
      return total;
    }
  }
  throw new Error(`unknown node ${node[0]}`);
}

// The entry that a step defines for some values of its letters.
function placeOf(step, scope) {
  return step.at.map((part) => evaluate(part, scope, step.sizes, {}));
}

// Compute everything that has a formula, in order, from the arrays that have none.
function recompute(steps, arrays) {
  for (const step of steps) {
    const { shape, data } = arrays[step.defines], scope = {};
    count(step.letters, step.sizes, scope, () => {
      data[offset(shape, placeOf(step, scope))] = evaluate(step.body, scope, step.sizes, arrays);
    });
  }
}

// ── One entry, written out: sums term by term, choices made, letters as numbers ──

const isNumber = (node, value) => node[0] === "n" && node[1] === value;

function simple(sign, left, right) {
  if (sign === "*" && (isNumber(left, 0) || isNumber(right, 0))) return ["n", 0];
  if ((sign === "*" && isNumber(left, 1)) || (sign === "+" && isNumber(left, 0))) return right;
  if (("*/".includes(sign) && isNumber(right, 1)) || ("+-".includes(sign) && isNumber(right, 0))) return left;
  if (sign === "/" && isNumber(left, 0)) return ["n", 0];
  return ["o", sign, left, right];
}

function writeOut(node, scope, sizes, arrays) {
  const again = (part) => writeOut(part, scope, sizes, arrays);
  switch (node[0]) {
    case "i": return ["n", scope[node[1]]];
    case "r": {
      const at = node[2].map((part) => evaluate(part, scope, sizes, arrays));
      return offset(arrays[node[1]].shape, at) < 0 ? ["n", 0] : ["r", node[1], at];
    }
    case "?": return again(evaluate(node[1], scope, sizes, arrays) ? node[2] : node[3]);
    case "o": return simple(node[1], again(node[2]), again(node[3]));
    case "c": return node[1] === "guard" ? again(node[2][0]) : ["c", node[1], node[2].map(again)];
    case "s": {
      const inner = { ...scope }, parts = [];
      count(node[2], sizes, inner, () => parts.push(writeOut(node[3], inner, sizes, arrays)));
      const nothing = { sum: 0, max: -1e300, min: 1e300 }[node[1]]; // what a condition leaves out
      const left = parts.filter((part) => !isNumber(part, nothing));
      return left.length === 0 ? ["n", 0] : left.length === 1 ? left[0] : ["t", node[1], left];
    }
  }
  return node;
}

function mentions(node, found = []) {
  if (node[0] === "r") found.push([node[1], node[2]]);
  if (node[0] === "o") { mentions(node[2], found); mentions(node[3], found); }
  if (node[0] === "c" || node[0] === "t") node[2].forEach((part) => mentions(part, found));
  return found;
}
