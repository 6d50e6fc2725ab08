// The page asks for a number before it shows it, and says what went wrong: the usual mistakes are changes of the
// expression, each of which is computed and compared with the answer.

const OPERATIONS = {
  "+": (a, b) => a + b, "-": (a, b) => a - b, "*": (a, b) => a * b, "/": (a, b) => a / b, "**": Math.pow,
  "//": (a, b) => Math.floor(a / b), "%": FUNCTIONS.modulo, "<": (a, b) => a < b, "<=": (a, b) => a <= b,
  ">": (a, b) => a > b, ">=": (a, b) => a >= b, "==": (a, b) => a === b, "!=": (a, b) => a !== b,
  and: (a, b) => Boolean(a && b), or: (a, b) => Boolean(a || b),
};

function valueOfWritten(node, valueOf) {
  const of = (part) => valueOfWritten(part, valueOf);
  switch (node[0]) {
    case "n": return node[1];
    case "r": return valueOf(node[1], node[2]);
    case "t": return node[2].map(of).reduce({ sum: (a, b) => a + b, max: Math.max, min: Math.min }[node[1]]);
    case "c": return FUNCTIONS[node[1]](...node[2].map(of));
    case "o": return OPERATIONS[node[1]](of(node[2]), of(node[3]));
  }
  return NaN;
}

// Each change of an expression, with what it means.
function* changes(node) {
  yield [["o", "-", ["n", 0], node], "the sign is wrong"];
  yield* within(node);
}

function* within(node) {
  if (node[0] === "t" && node[1] === "sum") {
    for (let k = 0; k < node[2].length; k++)
      yield [["t", "sum", node[2].filter((_, i) => i !== k)], "a term of the sum is missing"];
  }
  if (node[0] === "o") {
    const [, operation, left, right] = node;
    if (operation === "*") { yield [left, "a factor is missing"]; yield [right, "a factor is missing"]; }
    if (operation === "/") { yield [left, "the division is missing"]; yield [["o", "/", right, left], "the fraction is upside down"]; }
    if (operation === "+" || operation === "-") {
      yield [left, "a term is missing"];
      yield [right, "a term is missing"];
      yield [["o", operation === "+" ? "-" : "+", left, right], "the sign of a term is wrong"];
    }
    if (operation === "**") yield [left, "the power is missing"];
  }
  if (node[0] === "c" && node[2].length === 1) yield [node[2][0], `${node[1]} is not applied`];
  const parts = node[0] === "o" ? [2, 3] : [];
  for (const k of parts)
    for (const [part, words] of within(node[k])) yield [node.map((old, i) => (i === k ? part : old)), words];
  if (node[0] === "c" || node[0] === "t")
    for (let k = 0; k < node[2].length; k++)
      for (const [part, words] of within(node[2][k]))
        yield [[node[0], node[1], node[2].map((old, i) => (i === k ? part : old))], words];
}

// Two numbers agree to three digits, which is what a reader rounds to.
const agrees = (answer, value) => Math.abs(answer - value) <= 5e-3 * Math.abs(value) + 1e-12;

function mistakeIn(answer, node, valueOf) {
  for (const [changed, words] of changes(node)) if (agrees(answer, valueOfWritten(changed, valueOf))) return words;
  return "";
}
