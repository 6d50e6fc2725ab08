// The functions of formulas.
"use strict";

const FUNCTIONS = {
  exp: Math.exp, log: Math.log, sqrt: Math.sqrt, tanh: Math.tanh, log1p: Math.log1p, expm1: Math.expm1,
  abs: Math.abs, sign: Math.sign, max: Math.max, min: Math.min, cos: Math.cos, sin: Math.sin,
  σ: (x) => 1 / (1 + Math.exp(-x)),
  Φ: (x) => complementaryError(-x / Math.SQRT2) / 2,
  φ: (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI),
  guard: (x) => Math.max(x, 2.2250738585072014e-308), // the smallest normal number
  modulo: (a, b) => a - b * Math.floor(a / b),
  over: (kind, counts, term) => {
    let total = { sum: 0, max: -Infinity, min: Infinity }[kind];
    countUp(counts, (letters) => { total = kind === "sum" ? total + term(...letters) : Math[kind](total, term(...letters)); });
    return total;
  },
  inside: (index, size) => index >= 0 && index < size && Number.isInteger(index),
};

function complementaryError(x) {
  if (x < 0) return 2 - complementaryError(-x);
  if (x < 3) {
    // erf(x) = 2/√π exp(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!, whose terms are all positive
    let term = x, sum = x;
    for (let n = 1; n < 200 && term > sum * 1e-17; n++) sum += term *= (2 * x * x) / (2 * n + 1);
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let tail = 0; // the continued fraction of the tail, from its far end
  for (let n = 80; n > 0; n--) tail = n / 2 / (x + tail);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + tail);
}

// Go through all values of some letters, the last one first.
function countUp(counts, visit, letters = []) {
  if (letters.length === counts.length) return visit(letters);
  for (let value = 0; value < counts[letters.length]; value++) countUp(counts, visit, [...letters, value]);
}
