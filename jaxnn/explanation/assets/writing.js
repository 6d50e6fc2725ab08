// Numbers and formulas as MathML, which browsers typeset and screen readers speak.

function digits(x, significant = 6) {
  if (Number.isNaN(x)) return "not a number";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  // near 1, so many that a calculator finds 1 - x from them
  if (significant >= 6 && size > 0.99 && size < 1) significant = Math.min(15, significant - 2 + Math.ceil(-Math.log10(1 - size)));
  const text = size < 1e-4 || size >= 1e6 ? x.toExponential(significant - 1) : x.toPrecision(significant);
  const [mantissa, exponent] = text.split("e");
  const short = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
  return (exponent ? `${short}e${Number(exponent)}` : short).replaceAll("-", "−");
}

// In at most seven characters.
function brief(x) {
  const size = Math.abs(x);
  if (size === 0 || (size >= 0.01 && size < 1000) || !Number.isFinite(x)) return digits(x, 3);
  return x.toExponential(1).replaceAll("-", "−").replace("+", "");
}

const exact = (x) => Number(x.toPrecision(12)); // without the rounding errors of a sum
const short = (x) => Number(x.toPrecision(6)); // of a number that may be edited

const row = (...parts) => `<mrow>${parts.join("")}</mrow>`;
const sign = (text) => `<mo>${{ "<": "&lt;", ">": "&gt;", "<=": "≤", ">=": "≥", "!=": "≠", "==": "=", "-": "−" }[text] ?? text}</mo>`;
const inParentheses = (math) => row("<mo>(</mo>", math, "<mo>)</mo>");

// Negative numbers begin with a minus, so that they need parentheses behind another sign.
function number(x, significant = 6) {
  const [mantissa, exponent] = digits(x, significant).split("e");
  const negative = mantissa.startsWith("−"), plain = `<mn>${negative ? mantissa.slice(1) : mantissa}</mn>`;
  const power = exponent === undefined ? "" : `<mo>×</mo><msup><mn>10</mn><mn>${exponent}</mn></msup>`;
  return negative || power ? row(negative ? "<mo>−</mo>" : "", plain, power) : plain;
}

// An array, or one of its entries, of which the indices that are worth writing are given.
function symbolMath({ name, number: layer, slope }, indices) {
  const [first, ...rest] = name.split("_");
  const letter = `<mi>${first}</mi>`, below = [...rest.map((part) => `<mi>${part}</mi>`), ...indices.map((i) => `<mn>${i}</mn>`)];
  const under = below.length ? row(below.join("<mo>,</mo>")) : "", over = layer ? row("<mo>(</mo>", `<mn>${layer}</mn>`, "<mo>)</mo>") : "";
  const whole = under && over ? `<msubsup>${letter}${under}${over}</msubsup>` : under ? `<msub>${letter}${under}</msub>`
    : over ? `<msup>${letter}${over}</msup>` : letter;
  return slope ? `<mfrac class="slope"><mrow><mo>∂</mo><mi>J</mi></mrow><mrow><mo>∂</mo>${whole}</mrow></mfrac>` : whole;
}

// Writes an expression that has been written out; entry says how an entry is written. The level says how
// strongly an expression binds: 0 for a comparison, 1 for a sum, 2 for a product, 3 for a power, 4 for the rest.
const SHOWN = 10;

function write(node, entry, times, around = 0) {
  const [math, level] = writeNode(node, entry, times);
  return level < around ? inParentheses(math) : math;
}

const startsNegative = (math) => /^(<mrow>)*<mo>−/.test(math);
const joined = (left, operation, right) =>
  !startsNegative(right) ? row(left, sign(operation), right)
    : operation === "+" ? row(left, sign("-"), right.replace("<mo>−</mo>", ""))
    : row(left, sign(operation), inParentheses(right));

function writeNode(node, entry, times) {
  const of = (part, level) => write(part, entry, times, level);
  switch (node[0]) {
    case "n": return [number(node[1]), node[1] < 0 ? 2 : 4];
    case "r": { const math = entry(node[1], node[2]); return [math, startsNegative(math) ? 2 : 4]; }
    case "t": {
      let parts = node[2].map((part) => of(part, 1));
      if (parts.length > SHOWN) parts = [...parts.slice(0, SHOWN - 1), "<mo>…</mo>", parts[parts.length - 1]];
      if (node[1] === "sum") return [parts.reduce((sum, term) => joined(sum, "+", term)), 1];
      return [row(`<mi>${node[1]}</mi>`, inParentheses(parts.join("<mo>,</mo>"))), 4];
    }
    case "c": {
      if (node[1] === "sqrt") return [`<msqrt>${of(node[2][0])}</msqrt>`, 4];
      return [row(`<mi>${node[1]}</mi>`, inParentheses(node[2].map((part) => of(part)).join("<mo>,</mo>"))), 4];
    }
    case "o": {
      const [, operation, left, right] = node;
      if (operation === "-" && isNumber(left, 0)) return [row("<mo>−</mo>", of(right, 2)), 2];
      if (operation === "/") return [`<mfrac>${of(left)}${of(right)}</mfrac>`, 4];
      if (operation === "**") return [`<msup>${of(left, 4)}${of(right)}</msup>`, 3];
      if (operation === "+" || operation === "-") return [joined(of(left, 1), operation, of(right, operation === "+" ? 1 : 2)), 1];
      if (operation === "*") return [row(of(left, 2), `<mo>${times}</mo>`, of(right, 3)), 2];
      return [row(of(left, 1), sign(operation), of(right, 2)), 0];
    }
  }
  return ["<mi>?</mi>", 4];
}

// The terms of a sum, each with the sign before it.
function summands(node) {
  const plus = (part) => ["+", part];
  if (node[0] === "t" && node[1] === "sum") {
    const shown = node[2].length > SHOWN ? [...node[2].slice(0, SHOWN - 1), null, node[2][node[2].length - 1]] : node[2];
    return shown.map(plus);
  }
  const [kind, operation, left, right] = node;
  if (kind !== "o" || !["+", "-"].includes(operation) || isNumber(left, 0)) return [plus(node)];
  return [...summands(left), ...(operation === "+" ? summands(right) : [[operation, right]])];
}

// An expression behind what stands before it, each term of a sum by itself, so that a long line can break before it.
function inTerms(before, node, entry, times) {
  if (node[0] === "o" && node[1] === "/" && summands(node[2]).length > 2) { // as a factor before the sum
    const over = `<mfrac><mn>1</mn>${write(node[3], entry, times)}</mfrac>`;
    return `${inTerms([...before, over, "<mo>(</mo>"], node[2], entry, times)} ${displayed("<mo>)</mo>")}`;
  }
  const [[, first], ...rest] = summands(node), sum = rest.length ? 1 : 0;
  const term = ([operation, part]) => {
    if (part === null) return displayed('<mo form="infix">+</mo>', "<mi>…</mi>");
    const signed = joined("", operation, write(part, entry, times, operation === "+" ? 1 : 2));
    return displayed(signed.replace("<mo>", '<mo form="infix">'));
  };
  return [displayed(...before, write(first, entry, times, sum)), ...rest.map(term)].join(" ");
}

const math = (...parts) => `<math>${parts.join("")}</math>`;
const displayed = (...parts) => `<math displaystyle="true">${parts.join("")}</math>`;
