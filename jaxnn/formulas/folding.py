"""Simplify expressions: what can be computed before any array is known, is computed.

Indices are brought into a form that a reader would write: ``r * 1 + k * 1 - 0`` becomes ``r + k``,
and a quotient or remainder that follows from the ranges of the letters disappears.
"""

import operator
from collections.abc import Callable, Mapping
from typing import TypeAlias

from jaxnn.formulas.expressions import (
    ONE,
    ZERO,
    Choice,
    Expr,
    Index,
    Num,
    Op,
    Over,
    Ref,
    rebuild,
)

Linear: TypeAlias = dict[str, float]  # the factor of each letter; that of "" is the constant

EXACT: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv,
    "%": operator.mod, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
    "and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b),
}  # fmt: skip

ORDER = ("<", "<=", ">", ">=")
COMPARISONS = (*ORDER, "==", "!=")


def fold(node: Expr, sizes: Mapping[str, int]) -> Expr:
    """Simplify an expression, given the number of values of each letter."""
    node = rebuild(node, lambda part: fold(part, sizes))
    match node:
        case Ref(name, at) if at is not None:
            return Ref(name, tuple(_index(part, sizes) for part in at))
        case Choice(Num(value), then, otherwise):
            return then if value else otherwise
        case Choice(_, then, otherwise) if then == otherwise:
            return then
        case Over("sum", _, Num(0)):
            return ZERO
        case Op(sign, left, right) if sign in COMPARISONS:
            return _compared(sign, left, right, sizes)
        case Op():
            return simple(node)
    return node


def _compared(sign: str, left: Expr, right: Expr, sizes: Mapping[str, int]) -> Expr:
    """Compare two expressions, where the ranges of the letters decide it at once."""
    first, second = linear(left), linear(right)
    if first is None or second is None:
        return Op(sign, left, right)
    difference = first | {k: first.get(k, 0) - f for k, f in second.items()}
    ends = {EXACT[sign](end, 0) for end in _range(difference, sizes)}
    if len(ends) == 1 and sign in ORDER:
        return ONE if ends.pop() else ZERO
    return simple(Op(sign, _written(first), _written(second)))


def simple(op: Op) -> Expr:
    """Compute an operation on numbers, and leave out the addition of 0 and the factors 0 and 1."""
    sign, left, right = op
    match sign, left, right:
        case _, Num(a), Num(b) if sign in EXACT and not (b == 0 and sign in "//%"):
            return Num(EXACT[sign](a, b) + 0)
        case ("*", Num(0), _) | ("*", _, Num(0)) | ("/", Num(0), _):
            return ZERO
        case ("*", Num(1), kept) | ("+", Num(0), kept):
            return kept
        case ("*" | "/" | "**", kept, Num(1)) | ("+" | "-", kept, Num(0)):
            return kept
        case ("and", Num(a), other) | ("and", other, Num(a)):
            return other if a else ZERO
        case ("or", Num(a), other) | ("or", other, Num(a)):
            return ONE if a else other
    return op


# ── Indices ─────────────────────────────────────────────────────────────────────────────────────


def _index(node: Expr, sizes: Mapping[str, int]) -> Expr:
    match node:
        case Op("//" | "%" as sign, left, Num(divisor)):
            terms = linear(left)
            if terms is None:
                return node
            low, high = _range(terms, sizes)
            if low >= 0 and high < divisor:
                return ZERO if sign == "//" else _written(terms)
            whole = {letter: f for letter, f in terms.items() if f % divisor == 0}
            rest = {letter: f for letter, f in terms.items() if letter not in whole}
            low, high = _range(rest, sizes)
            if low >= 0 and high < divisor:  # the quotient and the remainder can be read off
                kept = {k: f // divisor for k, f in whole.items()} if sign == "//" else rest
                return _written(kept)
            if sign == "%":
                return Op(sign, _written(rest), Num(divisor))
            return Op(sign, _written(terms), Num(divisor))
    node = rebuild(node, lambda part: _index(part, sizes))
    terms = linear(node)
    return node if terms is None else _written(terms)


def linear(node: Expr) -> Linear | None:
    """Return the factors of the letters in an expression, or None if it is not linear in them."""
    match node:
        case Num(value):
            return {"": value}
        case Index(name):
            return {name: 1}
        case Op("+" | "-" as sign, left, right):
            first, second = linear(left), linear(right)
            if first is None or second is None:
                return None
            factor = 1 if sign == "+" else -1
            return first | {k: first.get(k, 0) + factor * f for k, f in second.items()}
        case Op("*", left, right):
            first, second = linear(left), linear(right)
            for number, other in ((first, second), (second, first)):
                if number is not None and other is not None and not set(number) - {""}:
                    return {k: f * number.get("", 0) for k, f in other.items()}
    return None


def _range(terms: Linear, sizes: Mapping[str, int]) -> tuple[float, float]:
    """Return the lowest and the highest value of a linear expression."""
    ends = [
        (f, f) if not letter else sorted((0, f * (sizes.get(letter, 10**9) - 1)))
        for letter, f in terms.items()
    ]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def _written(terms: Linear) -> Expr:
    """Write a linear expression: the letters in order, those with a minus and the number last."""
    order = sorted(terms, key=lambda letter: (letter == "", terms[letter] < 0))
    node: Expr = ZERO
    for letter in order:
        factor = terms[letter]
        size: Expr = Num(abs(factor))
        term = size if not letter else simple(Op("*", size, Index(letter)))
        node = simple(Op("-" if factor < 0 else "+", node, term))
    return node


def counted_from_one(node: Expr) -> Expr:
    """Rewrite an expression for letters and indices that count from 1 instead of 0."""
    return fold(_from_one(node), {})


def _from_one(node: Expr) -> Expr:
    match node:
        case Index():
            return Op("-", node, ONE)
        case Ref(name, at) if at is not None:
            return Ref(name, tuple(Op("+", _from_one(part), ONE) for part in at))
    return rebuild(node, _from_one)
