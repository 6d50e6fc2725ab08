"""Compile formulas into JavaScript: plain loops over flat arrays, for a page that computes.

``compiled`` turns the formulas of one layer or loss into a JavaScript object with three parts:

* ``shapes``: the axes of each array by name, such as ``y: ["B", "O"]``;
* ``forward(arrays, sizes)`` and ``backward(arrays, sizes)``: the equations of each pass. They read
  and fill arrays of type Float64Array in row-major order. ``sizes`` says how many values each axis
  has, so that the same code serves a network of any width;
* ``written``: for each array that an equation defines, a function that writes out the right side
  for one entry, with the help of an object ``write``; one such object makes MathML of it.

This is the equation of ``Dense``, and the code that is made of it::

    y[n, o] = sum(x[n, i] * w[i, o] for i in I) + b[o]

    for (let n = 0; n < B; n++) {
      for (let o = 0; o < O; o++) {
        let sum1 = 0;
        for (let i = 0; i < I; i++) {
          sum1 += x[n * I + i] * w[i * O + o];
        }
        y[n * O + o] = sum1 + b[o];
      }
    }

Equations are read for arrays of known shapes. Here each axis gets a prime number as its size, from
which its name is then recognised. A second reading, for other primes in another order, must give
the same code: otherwise the code would depend on the sizes, and is refused.

``compiled_equation`` does the same for one equation of a trace, where all shapes are known.

The code uses the object FUNCTIONS of ``explanation/assets/functions.js``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxnn.checks import InputError
from jaxnn.formulas import Formulas
from jaxnn.formulas.evaluate import log_of_exponentials, quotient_of_exponentials
from jaxnn.formulas.expressions import (
    Call,
    Choice,
    Equation,
    Expr,
    Index,
    Num,
    Op,
    Over,
    Ref,
    rebuild,
    refs,
    rename,
    walk,
)
from jaxnn.formulas.names import Names
from jaxnn.formulas.reading import read

Axes = tuple[str, ...]

PRIMES = (1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049)
OTHER_PRIMES = (1999, 1997, 1993, 1987, 1979, 1973, 1951, 1949)  # in the opposite order

CHOICE, OR, AND, COMPARED, SUM, PRODUCT, POWER, ATOM = range(8)  # from the weakest binding
SIGNS = {
    "+": ("+", SUM), "-": ("-", SUM), "*": ("*", PRODUCT), "/": ("/", PRODUCT),
    "<": ("<", COMPARED), "<=": ("<=", COMPARED), ">": (">", COMPARED), ">=": (">=", COMPARED),
    "==": ("===", COMPARED), "!=": ("!==", COMPARED), "and": ("&&", AND), "or": ("||", OR),
}  # fmt: skip
STARTS = {"sum": "0", "max": "-Infinity", "min": "Infinity"}
LOWEST = Num(-1e300)  # an exponent that does not count


def compiled(
    formulas: Formulas,
    shapes: Mapping[str, Axes],
    settings: Mapping[str, Any] | None = None,
    *,
    absent: Sequence[str] = (),
    counts: Mapping[str, str] | None = None,
) -> str:
    """Compile the formulas of a layer or loss into the text of a JavaScript object.

    Args:
        formulas: the equations of both passes.
        shapes: the axes of each array by letters, such as ``{"x": ("B", "I")}``, for all arrays
            but those whose shapes follow from the equations.
        settings: numbers and texts by their names in the formulas.
        absent: the arrays that this layer has not, such as the bias.
        counts: other names of axes in the formulas, such as ``{"N": "B"}``.

    Raises:
        InputError: for a recurrence, or for code that depends on the sizes.
    """
    axes = tuple(dict.fromkeys(axis for shape in shapes.values() for axis in shape))
    if len(axes) > len(PRIMES):
        raise InputError(f"javascript: expected at most {len(PRIMES)} axes, got {len(axes)}.")
    given = settings or {}, absent, counts or {}
    code, other = (
        _Reading(dict(zip(axes, primes, strict=False)), shapes, *given).code(formulas)
        for primes in (PRIMES, OTHER_PRIMES)
    )
    if code != other:
        raise InputError(
            "javascript: expected formulas that hold for arrays of all sizes, got\n" + str(formulas)
        )
    return code


def compiled_equation(
    equation: Equation, shapes: Mapping[str, tuple[int, ...]], keys: Mapping[str, str]
) -> str:
    """Compile one equation of known shapes into the text of a JavaScript object.

    Its three parts are ``compute(arrays)``, which fills the entries that the equation defines;
    ``written(write, arrays, letters)``, which writes out the right side for one entry; and
    ``place(letters)``, which returns the index of that entry. ``arrays`` holds flat arrays.

    Args:
        equation: the equation, in the names that a layer uses.
        shapes: the shape of each array, by these names.
        keys: the names of the arrays in ``arrays``, by these names.
    """
    # the sign tells arrays from letters and from JavaScript's own words, such as do
    signed = {name: f"${name}" for name in keys}
    reading = _Known(
        {signed[name]: shape for name, shape in shapes.items()},
        {signed[name]: key for name, key in keys.items()},
    )
    renamed = rename(equation, signed)
    names = dict.fromkeys([*(ref.name for ref in refs(renamed.body)), renamed.name])
    pairs = [f"{json.dumps(reading.label(name))}: {name}" for name in names]
    arrays = f"{{ {', '.join(pairs)} }}"
    letters = f"[{', '.join(equation.letters)}]"
    written = _Written(reading, renamed)
    place = ", ".join(map(written.loops.text, equation.at))
    return "\n".join([
        "{",
        f"  compute({arrays}) {{",
        *_indented(_indented(_Loops(reading, renamed).statement())),
        "  },",
        f"  written(write, {arrays}, {letters}) {{",
        f"    return {written.text(renamed.body)};",
        "  },",
        f"  place({letters}) {{",
        f"    return [{place}];",
        "  },",
        "}",
    ])  # fmt: skip


class _Known:
    """Arrays whose shapes are known."""

    primes: Mapping[str, int] = {}

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], labels: Mapping[str, str]) -> None:
        self._shapes, self._labels = shapes, labels

    def size(self, value: float) -> str:
        """Write a number."""
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)

    def axes(self, name: str) -> list[str]:
        """Return the sizes of the axes of an array, as they are written."""
        return [str(size) for size in self._shapes[name]]

    def label(self, name: str) -> str:
        """Return the name of an array, as a reader of the page knows it."""
        return self._labels[name]

    def is_below(self, value: float, size: str) -> bool:
        """Return whether a number is surely less than a size that is written."""
        return value < int(size)


class _Reading:
    """The equations for one assignment of primes to axes, and the code made of them."""

    def __init__(
        self,
        primes: Mapping[str, int],
        shapes: Mapping[str, Axes],
        settings: Mapping[str, Any],
        absent: Sequence[str],
        counts: Mapping[str, str],
    ) -> None:
        self.primes = primes
        sizes = {name: tuple(primes[axis] for axis in shape) for name, shape in shapes.items()}
        known = dict(settings) | {name: primes[axis] for name, axis in counts.items()}
        self.names = Names(sizes, known, absent)

    def code(self, formulas: Formulas) -> str:
        passes = {name: read(getattr(formulas, name), self.names) for name in formulas._fields}
        equations = [equation for lines in passes.values() for equation in lines]
        if any(equation.step is not None for equation in equations):
            raise InputError(f"javascript: expected formulas without recurrence, got\n{formulas}")
        return "\n".join([
            "{",
            *_indented(self._shapes()),
            *_indented(line for name, part in passes.items() for line in self._pass(name, part)),
            *_indented(self._written(equations)),
            "}",
        ])  # fmt: skip

    def _shapes(self) -> Iterator[str]:
        yield "shapes: {"
        for name, shape in self.names.shapes.items():
            yield f"  {name}: {json.dumps([self.size(size) for size in shape])},"
        yield "},"

    def _pass(self, name: str, equations: Sequence[Equation]) -> Iterator[str]:
        body = [line for equation in equations for line in _Loops(self, equation).statement()]
        yield f"{name}({self._arguments(equations, left=True)}) {{"
        yield from _indented(body)
        yield "},"

    def _written(self, equations: Sequence[Equation]) -> Iterator[str]:
        yield "written: {"
        for equation in equations:
            arguments = self._arguments([equation], left=False)
            letters = ", ".join(equation.letters)
            yield f"  {equation.name}(write, {arguments}, [{letters}]) {{"
            yield f"    return {_Written(self, equation).text(equation.body)};"
            yield "  },"
        yield "},"

    def _arguments(self, equations: Sequence[Equation], *, left: bool) -> str:
        """Name the arrays and the sizes that a function uses."""
        mentioned = [ref.name for equation in equations for ref in refs(equation.body)]
        arrays = [*mentioned, *(equation.name for equation in equations if left)]
        braces = lambda names: f"{{ {', '.join(dict.fromkeys(names))} }}"  # noqa: E731
        return f"{braces(arrays)}, {braces(self.primes)}"

    def size(self, value: float) -> str:
        """Write a number; the primes that it contains as factors are sizes of axes."""
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        if value != int(value) or abs(value) > max(OTHER_PRIMES) ** 3:
            return repr(value)
        left, found = int(value), []
        for axis, prime in self.primes.items():
            while left and left % prime == 0:
                left //= prime
                found.append(axis)
        return " * ".join(([] if left == 1 and found else [str(left)]) + found)

    def axes(self, name: str) -> list[str]:
        """Return the sizes of the axes of an array, as they are written."""
        return [self.size(size) for size in self.names.shapes[name]]

    def label(self, name: str) -> str:
        """Return the name of an array, as a reader of the page knows it."""
        return name

    def is_below(self, value: float, size: str) -> bool:
        """Return whether a number is surely less than a size that is written."""
        return value == 0


class _Level(NamedTuple):
    """The inside of one loop.

    Attributes:
        letter: the letter over which the loop goes, or "" outside of all loops.
        lines: the statements so far.
        known: the variables that hold sums, by the sums.
    """

    letter: str
    lines: list[str]
    known: dict[Expr, str]


class _Loops:
    """The code of one equation.

    A sum is computed in the outermost loop in which all its letters are known, and only once.
    """

    def __init__(self, reading: "_Reading | _Known", equation: Equation) -> None:
        self.reading, self.equation = reading, equation
        self.levels = [_Level("", [], {}), *self._inside(equation.letters)]
        self.count = 0
        arrays = {equation.name, *(ref.name for ref in refs(equation.body)), *reading.primes}
        if clash := arrays & set(equation.sizes):
            raise InputError(f"javascript: expected letters that name no array, got {clash}.")

    def statement(self) -> list[str]:
        """Return the loops that compute every entry which the equation defines."""
        equation = self.equation
        right = self.text(_stable(equation.body))
        left = self.entry(equation.left)
        self.levels[-1].lines.append(f"{left} = {right};")
        first, *loops = self.levels
        return [*first.lines, *self._nested(loops)]

    def text(self, node: Expr, around: int = CHOICE) -> str:
        """Write an expression, in parentheses if it binds less strongly than its surroundings."""
        text, level = self._text(node)
        return f"({text})" if level < around else text

    def entry(self, ref: Ref) -> str:
        """Write the place of an entry in the flat array."""
        return f"{ref.name}[{self._place(ref)}]"

    def _text(self, node: Expr) -> tuple[str, int]:
        match node:
            case Num(value):
                text = self.reading.size(value)
                return text, PRODUCT if "*" in text or text.startswith("-") else ATOM
            case Index(name):
                return name, ATOM
            case Ref():
                return self.looked_up(node)
            case Op(sign, left, right) if sign in SIGNS:
                symbol, level = SIGNS[sign]
                if sign == "-" and left == Num(0):
                    return f"-{self.text(right, ATOM)}", PRODUCT
                return f"{self.text(left, level)} {symbol} {self.text(right, level + 1)}", level
            case Op("**", left, right):
                return f"{self.text(left, ATOM)} ** {self.text(right, POWER)}", POWER
            case Op("//", left, right):
                return f"Math.floor({self.text(left, PRODUCT)} / {self.text(right, POWER)})", ATOM
            case Op("%", left, right):
                return f"FUNCTIONS.modulo({self.text(left)}, {self.text(right)})", ATOM
            case Call(name, args):
                return f"FUNCTIONS.{name}({', '.join(map(self.text, args))})", ATOM
            case Choice(condition, then, otherwise):
                test, first = self.text(condition, OR), self.text(then, OR)
                return f"{test} ? {first} : {self.text(otherwise)}", CHOICE
            case Over():
                return self._over(node), ATOM
        raise TypeError(node)

    def looked_up(self, ref: Ref) -> tuple[str, int]:
        """Write an entry; where its indices may lie outside of the array, it is 0 there."""
        checks = [
            f"FUNCTIONS.inside({self.text(part)}, {size})"
            for part, size in zip(ref.at or (), self.reading.axes(ref.name), strict=True)
            if not self._surely_inside(part, size)
        ]
        if not checks:
            return self.entry(ref), ATOM
        return f"{' && '.join(checks)} ? {self.entry(ref)} : 0", CHOICE

    def _surely_inside(self, part: Expr, size: str) -> bool:
        match part:
            case Index(letter):
                return self.reading.size(self.equation.sizes[letter]) == size
            case Num(value):
                return value >= 0 and value == int(value) and self.reading.is_below(value, size)
        return False

    def _place(self, ref: Ref) -> str:
        place = ""
        for part, size in zip(ref.at or (), self.reading.axes(ref.name), strict=True):
            index = self.text(part, PRODUCT)
            sized = size if size.isidentifier() or size.isdigit() else f"({size})"
            outer = f"({place})" if " + " in place else place
            place = index if not place else f"{outer} * {sized} + {index}"
        return place or "0"

    def _over(self, over: Over) -> str:
        """Write the loops of a sum before they are needed, and return the name of the result."""
        for level in self.levels:
            if over in level.known:
                return level.known[over]
        bound = set(over.letters)
        used = {part.name for part in walk(over) if isinstance(part, Index)} - bound
        depth = max(k for k, level in enumerate(self.levels) if level.letter in {"", *used})
        self.count += 1
        name = f"{over.kind}{self.count}"
        outer, inner = self.levels, self._inside(over.letters)
        self.levels = [*outer[: depth + 1], *inner]
        body = self.text(over.body)
        update = f"+= {body}" if over.kind == "sum" else f"= Math.{over.kind}({name}, {body})"
        inner[-1].lines.append(f"{name} {update};")
        self.levels = outer
        lines = [f"let {name} = {STARTS[over.kind]};", *self._nested(inner)]
        outer[depth].lines.extend(lines)
        outer[depth].known[over] = name
        return name

    def _inside(self, letters: Sequence[str]) -> list[_Level]:
        return [_Level(letter, [], {}) for letter in letters]

    def _nested(self, levels: Sequence[_Level]) -> list[str]:
        """Write loops, each inside the one before it."""
        if not levels:
            return []
        (letter, lines, _), *inner = levels
        size = self.reading.size(self.equation.sizes[letter])
        head = f"for (let {letter} = 0; {letter} < {size}; {letter}++) {{"
        return [head, *_indented([*lines, *self._nested(inner)]), "}"]


class _InPlace(_Loops):
    """The code of an expression without any statement before it."""

    def _over(self, over: Over) -> str:
        counts = ", ".join(
            self.reading.size(self.equation.sizes[letter]) for letter in over.letters
        )
        term = f"({', '.join(over.letters)}) => {self.text(over.body)}"
        return f'FUNCTIONS.over("{over.kind}", [{counts}], {term})'


class _Written:
    """The code that writes out the right side of an equation, with its numbers or symbols."""

    def __init__(self, reading: _Reading | _Known, equation: Equation) -> None:
        self.reading = reading
        self.loops = _InPlace(reading, equation)
        self.sizes = equation.sizes

    def text(self, node: Expr) -> str:
        match node:
            case Num() | Index():
                return f"write.number({self.loops.text(node)})"
            case Ref(name, at):
                indices = ", ".join(self.loops.text(part) for part in at or ())
                value = self.loops.looked_up(node)[0]
                label = json.dumps(self.reading.label(name))
                return f"write.entry({label}, [{indices}], {value})"
            case Op(sign, left, right):
                return f'write.op("{sign}", {self.text(left)}, {self.text(right)})'
            case Call("guard", (inner,)):
                return self.text(inner)
            case Call(name, args):
                return f'write.call("{name}", [{", ".join(map(self.text, args))}])'
            case Choice(condition, then, otherwise):
                test = self.loops.text(condition, OR)
                choice = f"({test} ? {self.text(then)} : {self.text(otherwise)})"
                looked_at = self._looked_at(condition)
                return f"write.decided({choice}, {looked_at})" if looked_at else choice
            case Over(kind, letters, body):
                counts = ", ".join(self.reading.size(self.sizes[letter]) for letter in letters)
                term = f"({', '.join(letters)}) => {self.text(body)}"
                return f'write.total("{kind}", [{counts}], {term})'
        raise TypeError(node)

    def _looked_at(self, condition: Expr) -> str:
        """Write the list of the entries on which a condition depends, or "" if on none."""
        entries = list(refs(condition))
        match condition:
            case Op("and", left, right) if entries and not any(refs(left)):
                return f"({self.loops.text(left, OR)} ? {self._looked_at(right)} : [])"
        return f"[{', '.join(map(self.text, entries))}]" if entries else ""


def _stable(node: Expr) -> Expr:
    """Rewrite logarithms and quotients of sums of exponentials, so that none overflows."""
    if isinstance(node, Op) and (quotient := quotient_of_exponentials(node)) is not None:
        exponent, over = quotient
        return Call("exp", (Op("-", _stable(exponent), _log_sum_exp(over)),))
    if isinstance(node, Call) and (over_ := log_of_exponentials(node)) is not None:
        return _log_sum_exp(over_)
    return rebuild(node, _stable)


def _log_sum_exp(over: Over) -> Expr:
    """Return log Σ exp(e) as m + log Σ exp(e - m), where m is the largest e."""
    match over.body:
        case Choice(condition, Call("exp", (inner,)), _):
            exponent: Expr = Choice(condition, inner, LOWEST)
        case Call(_, (inner,)):
            exponent = inner
        case body:
            raise TypeError(body)
    highest = Over("max", over.letters, exponent)
    shifted = Call("exp", (Op("-", exponent, highest),))
    return Op("+", highest, Call("log", (Over("sum", over.letters, shifted),)))


def _indented(lines: Any) -> list[str]:
    return [f"  {line}" for line in lines]
