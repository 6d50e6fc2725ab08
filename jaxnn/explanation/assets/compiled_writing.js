// Writes a formula as MathML, with symbols or with numbers.
//
// A part of a formula is { markup, level, value, negative, bare }: how strongly it binds, the number
// that it is, and for one that begins with a minus the markup without it.
"use strict";

const SUM = 1, PRODUCT = 2, POWER = 3, ATOM = 4;
const SHOWN = 6; // terms of a sum

function digits(x, significant = 4) {
  if (Number.isNaN(x)) return "not a number";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x), isPlain = size >= 1e-3 && size < 1e5;
  const text = isPlain ? x.toPrecision(significant) : x.toExponential(significant - 1);
  const [mantissa, exponent] = text.split("e");
  const short = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
  return (exponent ? `${short}×10${raisedNumber(Number(exponent))}` : short).replaceAll("-", "−");
}

const raisedDigit = (digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
const raisedNumber = (exponent) => Array.from(String(exponent), raisedDigit).join("");

const sign = (text) => `<mo>${text}</mo>`;
const row = (...parts) => `<mrow>${parts.join("")}</mrow>`;
const inParentheses = (markup) => row(sign("("), markup, sign(")"));
const math = (markup) => `<math>${markup}</math>`;

function atom(markup, value) {
  return { markup, level: ATOM, value, negative: false, bare: markup };
}

function numberPart(value, significant) {
  const text = digits(value, significant), negative = text.startsWith("−");
  const bare = `<mn>${text.replace(/^−/, "")}</mn>`;
  const level = negative || text.includes("×") ? PRODUCT : ATOM;
  return { markup: negative ? row(sign("−"), bare) : bare, level, value, negative, bare };
}

const around = (part, level) => (part.level < level ? inParentheses(part.markup) : part.markup);

// A number that is negative turns the sign around; a sum that begins with a minus is put into parentheses.
function joinedBySum(left, operator, right) {
  if (right.negative && operator === "+") return sumPart(left, "−", right.bare);
  const loose = right.negative || right.leads || (operator === "-" && right.level < PRODUCT);
  return sumPart(left, operator === "-" ? "−" : "+", loose ? inParentheses(right.markup) : right.markup);
}

function sumPart(left, operator, right) {
  return { ...atom(row(left.markup, sign(operator), right)), level: SUM, leads: left.negative || left.leads };
}

function negated(part) {
  const bare = part.negative ? inParentheses(part.markup) : around(part, PRODUCT);
  return { markup: row(sign("−"), bare), level: PRODUCT, negative: true, bare };
}

// The first factor carries its minus; any other one is put into parentheses.
function product(left, right, times) {
  const second = right.negative ? inParentheses(right.markup) : around(right, PRODUCT);
  const first = around(left, PRODUCT), { negative } = left;
  const bare = row(negative ? left.bare : first, sign(times), second);
  return { markup: row(first, sign(times), second), level: PRODUCT, negative, bare };
}

// A fraction in one line; one that is written with a bar would be small inside another.
function inline(left, right) {
  return { ...atom(row(around(left, PRODUCT), sign("/"), right.markup)), level: PRODUCT };
}

function over(tag, first, second) {
  return { ...atom(`<${tag}>${row(first)}${row(second)}</${tag}>`), level: POWER };
}

// entry(name, indices, value): how an entry of an array is written; keep: a term that is never left out.
function makeWriter(entry, times, keep = 0) {
  const is = (part, value) => part.level === ATOM && part.isNumber && part.value === value;
  const number = (value) => Object.assign(numberPart(value, 6), { isNumber: true });

  function op(operator, left, right) {
    if (operator === "*" && (is(left, 0) || is(right, 0))) return number(0);
    if ((operator === "*" && is(left, 1)) || (operator === "+" && is(left, 0))) return right;
    if (("*/".includes(operator) && is(right, 1)) || ("+-".includes(operator) && is(right, 0))) return left;
    if (operator === "-" && is(left, 0)) return negated(right);
    if (operator === "+" || operator === "-") return joinedBySum(left, operator, right);
    if (operator === "*") return product(left, right, times);
    if (operator === "/" && right.level === ATOM) return inline(left, right);
    if (operator === "/") return over("mfrac", left.markup, right.markup);
    if (operator === "**") return over("msup", around(left, ATOM), right.markup);
    return { ...atom(row(left.markup, sign(operator), right.markup)), level: 0 };
  }

  function call(name, parts) {
    if (name === "sqrt") return atom(`<msqrt>${parts[0].markup}</msqrt>`);
    if (name === "abs") return atom(row(sign("|"), parts[0].markup, sign("|")));
    const list = parts.map((part) => part.markup).join(sign(","));
    return atom(row(`<mi>${name}</mi>`, inParentheses(list)));
  }

  // All values of some letters, in order, or those that are shown, with null for a gap.
  function shownTerms(counts) {
    const extended = (tuple, count) => Array.from({ length: count }, (_, k) => [...tuple, k]);
    const all = counts.reduce((tuples, count) => tuples.flatMap((tuple) => extended(tuple, count)), [[]]);
    if (all.length <= SHOWN) return all;
    const shown = new Set([0, 1, keep, all.length - 1]);
    return all.flatMap((tuple, k) => (shown.has(k) ? [tuple] : shown.has(k - 1) ? [null] : []));
  }

  function total(kind, counts, term) {
    const parts = shownTerms(counts).map((tuple) => (tuple ? term(...tuple) : atom("<mo>…</mo>")));
    if (kind !== "sum") return call(kind, parts);
    const [first, ...others] = parts.filter((part) => !is(part, 0));
    return others.reduce((sum, part) => joinedBySum(sum, "+", part), first ?? number(0));
  }

  return { number, entry, op, call, total, decided: (part) => part };
}
