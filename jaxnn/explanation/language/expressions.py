"""Read the language of formulas: an equation becomes a tree of the small nodes below."""

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from jaxnn.checks import InputError

FUNCTIONS = (
    "exp",
    "log",
    "sqrt",
    "tanh",
    "σ",
    "Φ",
    "φ",
    "log1p",
    "expm1",
    "abs",
    "sign",
    "max",
    "min",
    "cos",
    "sin",
    "guard",
)
KINDS = ("sum", "max", "min")  # the reductions over letters


class Num(NamedTuple):
    """A number."""

    value: float


class Index(NamedTuple):
    """A letter that serves as an index: free on the left of the equation, or bound by a sum."""

    name: str


class Ref(NamedTuple):
    """An array, or, with ``at``, one of its entries."""

    name: str
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

    name: str
    at: tuple[int, ...]


class Terms(NamedTuple):
    """A sum, or a maximum, of several terms: an Over in an equation that is written out."""

    kind: str
    parts: "tuple[Expr, ...]"


class Gap(NamedTuple):
    """The place where terms of a long sum are left out."""


Expr: TypeAlias = Num | Index | Ref | Op | Call | Choice | Over | Spot | Terms | Gap


class Equation(NamedTuple):
    """``name[letters] = body``, with the number of values of each letter."""

    name: str
    letters: tuple[str, ...]
    body: Expr
    sizes: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that the equation defines."""
        return tuple(self.sizes[letter] for letter in self.letters)


SIGNS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Eq: "==", ast.NotEq: "!=",
    ast.And: "and", ast.Or: "or",
}  # fmt: skip


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────


def parse(line: str, shapes: Mapping[str, tuple[int, ...]]) -> Equation:
    """Read one equation.

    Args:
        line: such as ``y[n, o] = sum(x[n, i] * w[i, o] for i in I)``.
        shapes: the shape of every array that the equation may use, and of the one that it defines
            if that shape is known.

    Raises:
        InputError: for a line that is not in the language, an unknown name, or a letter whose
            number of values is not known.
    """
    try:
        (statement,) = ast.parse(line).body
        if not isinstance(statement, ast.Assign):
            raise ValueError("no equation")
        name, free, counted = _left(statement.targets[0])
        reader = _Reader(free or ())
        body = reader.read(statement.value)
    except (SyntaxError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"formulas: expected an equation in the notation of jaxnn.formulas, got {line!r}."
        ) from error
    for ref in refs(body):
        if ref.name not in shapes:
            raise InputError(f"formulas: expected a known name, got {ref.name!r} in {line!r}.")
    if free is None and all(ref.at is None for ref in refs(body)):
        return _entry_by_entry(name, body, shapes)
    for ref in _mentions(name, free or (), body, shapes):
        if len(ref.at or ()) > len(shapes[ref.name]):
            raise InputError(
                f"formulas: expected at most {len(shapes[ref.name])} letters for {ref.name} "
                f"in {line!r}."
            )
    free, body = _spread(name, free or (), body, shapes)
    sizes = _sizes(name, free, body, shapes, line) | reader.ranges | counted
    for letter in (*free, *(one for over in overs(body) for one in over.letters)):
        if letter not in sizes:
            raise InputError(
                f"formulas: expected an array that says how far {letter} counts in {line!r}."
            )
    return Equation(name, free, body, sizes)


def _left(target: ast.expr) -> tuple[str, tuple[str, ...] | None, dict[str, int]]:
    """Split the left side into a name, its letters, and the sizes that it states, as in ``j:3``."""
    match target:
        case ast.Name(id=name):
            return name, None, {}
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=parts)):
            pass
        case ast.Subscript(value=ast.Name(id=name), slice=part):
            parts = [part]
        case _:
            raise ValueError(type(target).__name__)
    letters, sizes = [], dict[str, int]()
    for part in parts:
        match part:
            case ast.Name(id=letter):
                letters.append(letter)
            case ast.Slice(lower=ast.Name(id=letter), upper=ast.Constant(value=int(size))):
                letters.append(letter)
                sizes[letter] = size
            case _:
                raise ValueError(type(part).__name__)
    return name, tuple(letters), sizes


class _Reader:
    """Turn Python's syntax tree into ours, and record the bound letters and their stated sizes."""

    def __init__(self, free: tuple[str, ...]) -> None:
        self.letters = list(free)
        self.ranges: dict[str, int] = {}

    def read(self, node: ast.AST) -> Expr:
        match node:
            case ast.Constant(value=int(value) | float(value)):
                return Num(value)
            case ast.Name(id=name):
                return Index(name) if name in self.letters else Ref(name, None)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=parts)):
                return Ref(name, tuple(map(self.read, parts)))
            case ast.Subscript(value=ast.Name(id=name), slice=part):
                return Ref(name, (self.read(part),))
            case ast.BinOp(left=left, op=op, right=right):
                return Op(SIGNS[type(op)], self.read(left), self.read(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Op("-", Num(0), self.read(operand))
            case ast.Compare(left=first, ops=signs, comparators=others):
                sides = [first, *others]
                pairs = zip(signs, sides, sides[1:], strict=False)
                return _all(
                    [Op(SIGNS[type(sign)], self.read(a), self.read(b)) for sign, a, b in pairs]
                )
            case ast.BoolOp(op=ast.And(), values=values):
                return _all([self.read(value) for value in values])
            case ast.IfExp(test=test, body=then, orelse=otherwise):
                return Choice(self.read(test), self.read(then), self.read(otherwise))
            case ast.Call(
                func=ast.Name(id=kind), args=[ast.GeneratorExp(elt=body, generators=loops)]
            ) if kind in KINDS:
                return self._over(kind, body, loops)
            case ast.Call(func=ast.Name(id=name), args=args) if name in FUNCTIONS:
                return Call(name, tuple(map(self.read, args)))
        raise ValueError(type(node).__name__)

    def _over(self, kind: str, body: ast.expr, loops: list[ast.comprehension]) -> Over:
        names = tuple(loop.target.id for loop in loops if isinstance(loop.target, ast.Name))
        outer, self.letters = self.letters, [*self.letters, *names]
        for name, loop in zip(names, loops, strict=True):
            match loop.iter:
                case ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int(count))]):
                    self.ranges[name] = count
        inner = self.read(body)
        self.letters = outer
        return Over(kind, names, inner)


def _all(conditions: list[Expr]) -> Expr:
    first, *others = conditions
    for other in others:
        first = Op("and", first, other)
    return first


def _entry_by_entry(name: str, body: Expr, shapes: Mapping[str, tuple[int, ...]]) -> Equation:
    """Index all arrays of the full shape by the same letters."""
    shape = shapes.get(name, max((shapes[ref.name] for ref in refs(body)), key=len, default=()))
    free = ("n", "i", "j", "k", "l")[: len(shape)]
    whole = tuple(map(Index, free))

    def respell(ref: Ref) -> Ref:
        return (
            ref._replace(at=whole if shapes[ref.name] == shape else ()) if ref.at is None else ref
        )

    return Equation(name, free, replace(body, respell), dict(zip(free, shape, strict=True)))


def _spread(
    name: str, free: tuple[str, ...], body: Expr, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[str, ...], Expr]:
    """Replace a first letter that stands for several axes by one letter for each axis."""
    counts: dict[str, int] = {}
    for ref in _mentions(name, free, body, shapes):
        if ref.at and isinstance(ref.at[0], Index):
            letter, count = ref.at[0].name, len(shapes[ref.name]) - len(ref.at) + 1
            if counts.get(letter, 1) == 1:
                counts[letter] = count
    spread = {
        letter: tuple(f"{letter}{k}" for k in range(count))
        for letter, count in counts.items()
        if count != 1
    }

    def widen(letters: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part for letter in letters for part in spread.get(letter, (letter,)))

    def respell(ref: Ref) -> Ref:
        at: list[Expr] = []
        for part in ref.at or ():
            names = spread.get(part.name) if isinstance(part, Index) else None
            at += [part] if names is None else map(Index, names)
        return ref._replace(at=tuple(at))

    return widen(free), replace(body, respell, widen)


def _sizes(
    name: str, free: tuple[str, ...], body: Expr, shapes: Mapping[str, tuple[int, ...]], line: str
) -> dict[str, int]:
    """Find the number of values of each letter: the size of an axis that it indexes by itself."""
    sizes: dict[str, int] = {}
    for ref in _mentions(name, free, body, shapes):
        if len(ref.at or ()) != len(shapes[ref.name]):
            raise InputError(
                f"formulas: expected {len(shapes[ref.name])} letters for {ref.name} in {line!r}."
            )
        for part, size in zip(ref.at or (), shapes[ref.name], strict=True):
            if isinstance(part, Index):
                sizes.setdefault(part.name, size)
    return sizes


def _mentions(
    name: str, free: tuple[str, ...], body: Expr, shapes: Mapping[str, tuple[int, ...]]
) -> list[Ref]:
    left = [Ref(name, tuple(map(Index, free)))] if name in shapes else []
    return left + refs(body)


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
    again = lambda part: replace(part, respell, widen)  # noqa: E731
    if isinstance(node, Ref):
        return respell(Ref(node.name, None if node.at is None else tuple(map(again, node.at))))
    if isinstance(node, Op):
        return Op(node.sign, again(node.left), again(node.right))
    if isinstance(node, Call):
        return Call(node.name, tuple(map(again, node.args)))
    if isinstance(node, Choice):
        return Choice(*map(again, node))
    if isinstance(node, Over):
        letters, body = widen(node.letters), again(node.body)
        return Over(node.kind, letters, body) if letters else body
    return node


def rename(equation: Equation, names: Mapping[str, str]) -> Equation:
    """Rename the arrays of an equation."""
    body = replace(equation.body, lambda ref: ref._replace(name=names.get(ref.name, ref.name)))
    return equation._replace(name=names.get(equation.name, equation.name), body=body)
