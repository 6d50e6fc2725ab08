"""Write out one entry of an equation.

Every sum is written term by term, every choice is made, and every letter is replaced by its number.
"""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from jaxnn.formulas.evaluate import FUNCTIONS, OPERATIONS, REDUCTIONS
from jaxnn.formulas.expressions import (
    ONE,
    ZERO,
    Call,
    Choice,
    Equation,
    Expr,
    Gap,
    Index,
    Num,
    Op,
    Over,
    Ref,
    Spot,
    Terms,
    refs,
    substitute,
    walk,
)
from jaxnn.formulas.folding import linear, simple
from jaxnn.formulas.names import KINDS

SHOWN = 10  # terms of a longer sum that are written out, including the last one
LONG = 64  # terms of a sum; beyond this number, those that are not shown are not computed either


def write_out(
    equation: Equation,
    at: tuple[int, ...],
    values: Mapping[str, np.ndarray],
    shown: int | None = None,
    unknown: Collection[str] = (),
) -> Expr:
    """Write out the entry at which the free letters of an equation have the values ``at``.

    In the result, arrays are mentioned only by single entries. Of a sum of more than ``LONG`` terms
    only the first ``shown - 1`` and the last are written out, with a :class:`Gap` between them,
    unless ``shown`` is None. A choice that depends on an array in ``unknown`` is left open.
    """
    scope = dict(zip(equation.letters, at, strict=True))
    return _Expansion(equation.sizes, values, shown, unknown).expand(equation.body, scope)


class _Expansion:
    def __init__(
        self,
        sizes: Mapping[str, int],
        values: Mapping[str, np.ndarray],
        shown: int | None,
        unknown: Collection[str],
    ) -> None:
        self.sizes, self.values, self.shown, self.unknown = sizes, values, shown, unknown

    def expand(self, node: Expr, scope: Mapping[str, int]) -> Expr:
        again = lambda part: self.expand(part, scope)  # noqa: E731
        match node:
            case Index(name):
                return Num(scope[name])
            case Ref(name, at):
                place = [float(number(again(part), self.values)) for part in at or ()]
                inside = all(
                    0 <= i < n and i.is_integer()
                    for i, n in zip(place, np.shape(self.values[name]), strict=True)
                )
                return Spot(name, tuple(map(int, place))) if inside else ZERO
            case Choice(condition, then, otherwise) if any(
                ref.name in self.unknown for ref in refs(condition)
            ):
                decided = again(condition)
                if isinstance(decided, Num):  # where the entry is, say, decides it already
                    return again(then if decided.value else otherwise)
                return Choice(decided, again(then), again(otherwise))
            case Choice(condition, then, otherwise):
                return again(then if number(again(condition), self.values) else otherwise)
            case Call(name, args):
                return again(args[0]) if name == "guard" else Call(name, tuple(map(again, args)))
            case Op(sign, left, right):
                return simple(Op(sign, again(left), again(right)))
            case Over():
                return self._terms(node, scope)
        return node

    def _terms(self, over: Over, scope: Mapping[str, int]) -> Expr:
        ranges = [range(self.sizes[letter]) for letter in over.letters]
        parts = None
        if self.shown is not None and math.prod(map(len, ranges)) > LONG:
            parts = self._ends(over, scope, ranges, self.shown)
        if parts is None:
            parts = [part for _, part in self._each(over, scope, ranges)]
        return _joined(over.kind, parts)

    def _ends(
        self, over: Over, scope: Mapping[str, int], ranges: list[range], shown: int
    ) -> list[Expr] | None:
        """Return the first terms and the last, or None if all other terms are 0."""
        first = list(itertools.islice(self._each(over, scope, ranges), shown - 1))
        last = list(itertools.islice(self._each(over, scope, [r[::-1] for r in ranges]), 1))
        if not last or not first[-1][0] < last[0][0]:
            return None
        return [*(part for _, part in first), Gap(), last[0][1]]

    def _each(
        self, over: Over, scope: Mapping[str, int], ranges: list[range]
    ) -> Iterator[tuple[tuple[int, ...], Expr]]:
        for at in itertools.product(*ranges):
            part = self.expand(over.body, {**scope, **dict(zip(over.letters, at, strict=True))})
            if part != KINDS[over.kind]:
                yield at, part


def _joined(kind: str, parts: list[Expr]) -> Expr:
    """Return the sum or maximum of the parts: a single part itself, 0 if there are none."""
    return parts[0] if len(parts) == 1 else Terms(kind, tuple(parts)) if parts else ZERO


def number(node: Expr, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute the value of an expression that is written out, a scalar."""
    of = lambda part: number(part, values)  # noqa: E731
    match node:
        case Num(value):
            return np.asarray(value, np.float64)
        case Spot(name, at):
            return np.asarray(values[name])[at]
        case Terms(kind, parts):
            return REDUCTIONS[kind]([of(part) for part in parts])
        case Op(sign, left, right):
            with np.errstate(all="ignore"):
                return OPERATIONS[sign](of(left), of(right))
        case Call(name, args):
            with np.errstate(all="ignore"):
                return FUNCTIONS[name](*map(of, args))
    raise TypeError(node)


def mentions(node: Expr) -> list[Spot]:
    """Return the entries that an expression mentions when it is written out, each once."""
    return list(dict.fromkeys(part for part in walk(node) if isinstance(part, Spot)))


def letters_at(equation: Equation, place: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the values of the free letters for an entry; None if the equation does not define it.

    An index of a part of an array is a letter plus a number, or a number.
    """
    found: dict[str, int] = {}
    for part, i in zip(equation.at, place, strict=True):
        terms = linear(part) or {}
        for letter, factor in terms.items():
            if letter and factor == 1:
                found[letter] = i - int(terms.get("", 0))
    scope = [found.get(letter, -1) for letter in equation.letters]
    if not all(0 <= i < n for i, n in zip(scope, equation.shape, strict=True)):
        return None
    return tuple(scope) if place_at(equation, tuple(scope)) == place else None


def place_at(equation: Equation, scope: tuple[int, ...]) -> tuple[int, ...]:
    """Return the entry that an equation defines for some values of its free letters."""
    letters = dict(zip(equation.letters, map(Num, scope), strict=True))
    return tuple(int(number(substitute(part, letters), {})) for part in equation.at)


def coefficient(node: Expr, of: Spot, others: frozenset[str]) -> Expr:
    """Return the factor of ``of`` in an expression that is linear in it: the local derivative.

    Args:
        node: an expression that is written out.
        of: the entry whose factor is wanted.
        others: the names of arrays in which the expression is linear too; their other entries are
            set to 0.
    """
    again = lambda part: coefficient(part, of, others)  # noqa: E731
    match node:
        case Spot(name, _):
            return ONE if node == of else ZERO if name in others else node
        case Terms(kind, parts):
            return _joined(kind, [part for part in map(again, parts) if part != ZERO])
        case Op(sign, left, right):
            return simple(Op(sign, again(left), again(right)))
        case Call(name, args):
            return Call(name, tuple(map(again, args)))
    return node
