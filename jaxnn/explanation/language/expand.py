"""One entry of an equation, written out: every sum term by term, every choice made, every letter a number."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxnn.explanation.language.evaluate import FUNCTIONS, OPERATIONS, REDUCTIONS
from jaxnn.explanation.language.expressions import (
    Call,
    Choice,
    Equation,
    Expr,
    Index,
    Num,
    Op,
    Over,
    Ref,
    refs,
)

ZERO, ONE = Num(0), Num(1)
SHOWN = 10  # terms of a longer sum that are written out, the last one included
LONG = 64  # terms: with more, the others are not even worked out


class Spot(NamedTuple):
    """One entry of an array."""

    name: str
    at: tuple[int, ...]


class Terms(NamedTuple):
    """A sum, or a maximum, of expressions written out."""

    kind: str
    parts: tuple[Any, ...]


class Gap(NamedTuple):
    """Where terms of a long sum are left out."""


def write_out(
    equation: Equation,
    at: tuple[int, ...],
    values: Mapping[str, np.ndarray],
    shown: int | None = None,
    unknown: Collection[str] = (),
) -> Any:
    """Write out the entry ``at`` of what an equation defines; an array is then mentioned by its entries alone.

    Of a sum of more than ``LONG`` terms only the first ``shown - 1`` and the last are written out, and a
    :class:`Gap` between them, unless ``shown`` is None. A choice that depends on an array in ``unknown`` is left open.
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

    def expand(self, node: Expr, scope: Mapping[str, int]) -> Any:
        again = lambda part: self.expand(part, scope)  # noqa: E731
        match node:
            case Index(name):
                return Num(scope[name])
            case Ref(name, at):
                place = tuple(int(number(again(part), self.values)) for part in at or ())
                inside = all(
                    0 <= i < n for i, n in zip(place, np.shape(self.values[name]), strict=True)
                )
                return Spot(name, place) if inside else ZERO
            case Choice(condition, _, _) if any(
                ref.name in self.unknown for ref in refs(condition)
            ):
                return Choice(*map(again, node))
            case Choice(condition, then, otherwise):
                return again(then if number(again(condition), self.values) else otherwise)
            case Call(name, args):
                return again(args[0]) if name == "guard" else Call(name, tuple(map(again, args)))
            case Op(sign, left, right):
                return _simple(Op(sign, again(left), again(right)))
            case Over():
                return self._terms(node, scope)
        return node

    def _terms(self, over: Over, scope: Mapping[str, int]) -> Any:
        ranges = [range(self.sizes[letter]) for letter in over.letters]
        parts = None
        if self.shown is not None and math.prod(map(len, ranges)) > LONG:
            parts = self._ends(over, scope, ranges, self.shown)
        if parts is None:
            parts = [part for _, part in self._each(over, scope, ranges)]
        return parts[0] if len(parts) == 1 else Terms(over.kind, tuple(parts)) if parts else ZERO

    def _ends(
        self, over: Over, scope: Mapping[str, int], ranges: list[range], shown: int
    ) -> list[Any] | None:
        """Give the first terms and the last, or None for a sum that has no more, the others being 0."""
        first = list(itertools.islice(self._each(over, scope, ranges), shown - 1))
        last = list(itertools.islice(self._each(over, scope, [r[::-1] for r in ranges]), 1))
        if not last or not first[-1][0] < last[0][0]:
            return None
        return [*(part for _, part in first), Gap(), last[0][1]]

    def _each(
        self, over: Over, scope: Mapping[str, int], ranges: list[range]
    ) -> Iterator[tuple[tuple[int, ...], Any]]:
        for at in itertools.product(*ranges):
            part = self.expand(over.body, {**scope, **dict(zip(over.letters, at, strict=True))})
            if over.kind != "sum" or part != ZERO:
                yield at, part


def _simple(op: Op) -> Any:
    """Leave out what adds 0, and what multiplies by 0 or 1."""
    sign, left, right = op
    if sign == "*" and ZERO in (left, right):
        return ZERO
    if (sign == "*" and left == ONE) or (sign == "+" and left == ZERO):
        return right
    if (sign in ("*", "/") and right == ONE) or (sign in ("+", "-") and right == ZERO):
        return left
    if sign == "/" and left == ZERO:
        return ZERO
    return op


def number(node: Any, values: Mapping[str, np.ndarray]) -> Any:
    """Compute an expression that has been written out."""
    of = lambda part: number(part, values)  # noqa: E731
    match node:
        case Num(value):
            return np.float64(value)
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


def mentions(node: Any) -> list[Spot]:
    """Give the entries that an expression written out mentions, each once."""
    found = []
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, Spot):
            found.append(part)
        elif isinstance(part, Terms):
            stack += part.parts[::-1]
        elif isinstance(part, Op):
            stack += [part.right, part.left]
        elif isinstance(part, Call):
            stack += part.args[::-1]
    return list(dict.fromkeys(found))


def coefficient(node: Any, of: Spot, others: frozenset[str]) -> Any:
    """Give what ``of`` is multiplied by in an expression that is linear in it: the local derivative.

    Args:
        node: an expression written out.
        of: the entry whose factor to give.
        others: names of arrays that the expression is linear in too; their other entries are set to 0.
    """
    again = lambda part: coefficient(part, of, others)  # noqa: E731
    match node:
        case Spot(name, _):
            return ONE if node == of else ZERO if name in others else node
        case Terms(kind, parts):
            left = [part for part in map(again, parts) if part != ZERO]
            return left[0] if len(left) == 1 else Terms(kind, tuple(left)) if left else ZERO
        case Op(sign, left, right):
            return _simple(Op(sign, again(left), again(right)))
        case Call(name, args):
            return Call(name, tuple(map(again, args)))
    return node
