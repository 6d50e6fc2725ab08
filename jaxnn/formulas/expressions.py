"""The parts of an equation: a tree of the small nodes below, and how to walk and change it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias


class Num(NamedTuple):
    """A number."""

    value: float


class Index(NamedTuple):
    """A letter that serves as an index: free on the left of the equation, or bound by a sum."""

    name: str


class Ref(NamedTuple):
    """An array, or, with ``at``, one of its entries.

    The name is the one that the formulas of a layer use, or the identity in the whole network.
    """

    name: Any
    at: "tuple[Expr, ...] | None"


class Op(NamedTuple):
    """``left sign right``; the negation of an operand is 0 - operand."""

    sign: str
    left: "Expr"
    right: "Expr"


class Call(NamedTuple):
    """A function applied to numbers."""

    name: str
    args: "tuple[Expr, ...]"


class Choice(NamedTuple):
    """``then`` where the condition holds, ``otherwise`` elsewhere."""

    condition: "Expr"
    then: "Expr"
    otherwise: "Expr"


class Over(NamedTuple):
    """A sum, or a maximum, over all values of some letters."""

    kind: str
    letters: tuple[str, ...]
    body: "Expr"


class Spot(NamedTuple):
    """One entry of an array, at known indices: a Ref in an equation that is written out."""

    name: Any
    at: tuple[int, ...]


class Terms(NamedTuple):
    """A sum, or a maximum, of several terms: an Over in an equation that is written out."""

    kind: str
    parts: "tuple[Expr, ...]"


class Gap(NamedTuple):
    """The place where terms of a long sum are left out."""


Expr: TypeAlias = Num | Index | Ref | Op | Call | Choice | Over | Spot | Terms | Gap


ZERO, ONE = Num(0), Num(1)


class Equation(NamedTuple):
    """``name[at] = body``, for all values of the letters.

    Attributes:
        name: the array that the equation defines, or a part of it.
        at: the index along each axis: a letter, or for a part of the array an expression in
            letters, such as ``2`` or ``H + j``.
        body: the right side.
        sizes: the number of values of each letter.
        step: for one step of a recurrence, its letter and its number, or None.
        general: for one step of a recurrence, the equation as it holds for every step.
    """

    name: Any
    at: tuple[Expr, ...]
    body: Expr
    sizes: Mapping[str, int]
    step: tuple[str, int] | None = None
    general: "Equation | None" = None

    @property
    def letters(self) -> tuple[str, ...]:
        """The free letters, in the order of their axes."""
        found = [part.name for index in self.at for part in walk(index) if isinstance(part, Index)]
        return tuple(dict.fromkeys(found))

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values of each free letter."""
        return tuple(self.sizes[letter] for letter in self.letters)

    @property
    def left(self) -> Ref:
        """The left side."""
        return Ref(self.name, self.at)


# ── Walking ─────────────────────────────────────────────────────────────────────────────────────


def children(node: Expr) -> tuple[Expr, ...]:
    """Return the parts of an expression."""
    match node:
        case Ref(_, at):
            return at or ()
        case Op(_, left, right):
            return left, right
        case Call(_, parts) | Terms(_, parts):
            return parts
        case Choice():
            return tuple(node)
        case Over(_, _, body):
            return (body,)
    return ()


def walk(node: Expr) -> Iterator[Expr]:
    """Iterate over an expression and all its parts."""
    yield node
    for part in children(node):
        yield from walk(part)


def refs(node: Expr) -> list[Ref]:
    """Return all mentions of arrays in an expression."""
    return [part for part in walk(node) if isinstance(part, Ref)]


def overs(node: Expr) -> list[Over]:
    """Return all sums and maxima over letters in an expression."""
    return [part for part in walk(node) if isinstance(part, Over)]


def replace(
    node: Expr,
    respell: Callable[[Ref], Expr],
    widen: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda letters: letters,
) -> Expr:
    """Return a copy of an expression in which some parts are replaced.

    Args:
        node: the expression.
        respell: the replacement of each mention of an array.
        widen: the replacement of the letters of each sum or maximum; one that has no letters left
            is replaced by its body.
    """
    node = rebuild(node, lambda part: replace(part, respell, widen))
    if isinstance(node, Ref):
        return respell(node)
    if isinstance(node, Over):
        letters = widen(node.letters)
        return node._replace(letters=letters) if letters else node.body
    return node


def rename(equation: Equation, names: Mapping[Any, Any]) -> Equation:
    """Rename the arrays of an equation."""
    body = replace(equation.body, lambda ref: ref._replace(name=names.get(ref.name, ref.name)))
    return equation._replace(name=names.get(equation.name, equation.name), body=body)


def substitute(node: Expr, letters: Mapping[str, Expr]) -> Expr:
    """Put expressions in the place of letters."""
    if isinstance(node, Index):
        return letters.get(node.name, node)
    return rebuild(node, lambda part: substitute(part, letters))


def rebuild(node: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """Return a copy of a node with each of its parts changed."""
    match node:
        case Ref(name, at):
            return Ref(name, None if at is None else tuple(map(change, at)))
        case Op(sign, left, right):
            return Op(sign, change(left), change(right))
        case Call(name, args):
            return Call(name, tuple(map(change, args)))
        case Terms(kind, parts):
            return Terms(kind, tuple(map(change, parts)))
        case Choice():
            return Choice(*map(change, node))
        case Over(kind, letters, body):
            return Over(kind, letters, change(body))
    return node
