"""Read formulas: the text that a layer states, and the shapes of its arrays, become equations.

The notation is described in :mod:`jaxnn.formulas`. It is a part of Python's, so that Python's own
parser reads it; what is done here is to give each name its meaning: an array, a setting, a letter,
or the number of values of a letter.
"""

import ast
import functools
import math
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from jaxnn.checks import InputError
from jaxnn.formulas.evaluate import FUNCTIONS
from jaxnn.formulas.expressions import (
    ONE,
    ZERO,
    Call,
    Choice,
    Equation,
    Expr,
    Index,
    Num,
    Op,
    Over,
    Ref,
    overs,
    rebuild,
    refs,
    replace,
    substitute,
    walk,
)
from jaxnn.formulas.folding import fold
from jaxnn.formulas.names import (
    KINDS,
    Names,
    Shape,
    Size,
    constant,
    constant_or_none,
    not_in_notation,
    range_of,
)

SIGNS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Eq: "==", ast.NotEq: "!=", ast.And: "and", ast.Or: "or",
}  # fmt: skip


def read(text: str, names: Names) -> list[Equation]:
    """Read the formulas of one pass.

    Raises:
        InputError: for a text that is not in the notation, an unknown name, or a letter whose
            number of values is not known.
    """
    statements = _parsed(text)
    _infer_shapes(statements, names)
    return list(_equations(statements, names, _letters_of_names(statements)))


@functools.cache
def _parsed(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(textwrap.dedent(text)).body
    except SyntaxError as error:
        raise not_in_notation(text) from error


def _letters_of_names(statements: list[ast.stmt]) -> dict[str, set[str]]:
    """Return the letters whose number of values each name stands for, as in ``for i in I``."""
    found: dict[str, set[str]] = {}
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, (ast.comprehension, ast.For)):
                match node.target, node.iter:
                    case ast.Name(id=letter), (
                        ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name))
                    ):
                        found.setdefault(name, set()).add(letter)
    return found


# ── Statements ──────────────────────────────────────────────────────────────────────────────────


def _equations(
    statements: list[ast.stmt], names: Names, counted: Mapping[str, set[str]]
) -> Iterator[Equation]:
    for statement in statements:
        match statement:
            case ast.Assign(targets=[left], value=right):
                equation = _Line(statement, names, counted).equation(left, right)
                if equation is not None:
                    yield equation
            case ast.If(test=test, body=body, orelse=otherwise):
                chosen = body if constant(test, names) else otherwise
                yield from _equations(chosen, names, counted)
            case ast.For(target=ast.Name(id=name), iter=ast.Call() as numbers, body=body):
                for value in range_of(numbers, names):
                    with_value = names.with_setting(name, value)
                    yield from _equations(body, with_value, counted)
            case ast.For(target=ast.Name(id=letter), iter=walk_, body=body):
                lines = [line for _, line in _flat(body, names)]
                yield from _step_by_step(lines, letter, walk_, names, counted)
            case ast.Expr(value=ast.Constant()):  # a remark
                pass
            case _:
                raise not_in_notation(ast.unparse(statement))


def _flat(statements: list[ast.stmt], names: Names) -> Iterator[tuple[Names, ast.Assign]]:
    """Iterate over the equations, of which conditions on settings choose some."""
    for statement in statements:
        match statement:
            case ast.Assign():
                yield names, statement
            case ast.If(test=test, body=body, orelse=otherwise):
                yield from _flat(body if constant(test, names) else otherwise, names)
            case ast.For(target=ast.Name(id=name), iter=ast.Call() as numbers, body=body):
                for value in range_of(numbers, names):
                    yield from _flat(body, names.with_setting(name, value))
            case ast.For(body=body):
                yield from _flat(body, names)


def _step_by_step(
    body: list[ast.Assign],
    letter: str,
    order: ast.expr,
    names: Names,
    counted: Mapping[str, set[str]],
) -> Iterator[Equation]:
    """Write the equations of a recurrence for each step in turn."""
    lines = [_Line(s, names, counted).equation(s.targets[0], s.value) for s in body]
    equations = [line for line in lines if line is not None]
    steps = next((e.sizes[letter] for e in equations if letter in e.sizes), None)
    if steps is None:
        raise InputError(f"formulas: expected an array that says how far {letter} counts.")
    walk_ = range(steps)
    if isinstance(order, ast.Subscript) and isinstance(order.slice, ast.Slice):
        step = order.slice.step
        walk_ = walk_[:: int(constant(step, names))] if step is not None else walk_
    for value in walk_:
        for equation in equations:
            yield at_step(equation, letter, value, names.shapes)


def at_step(equation: Equation, letter: str, value: int, shapes: Mapping[str, Shape]) -> Equation:
    """Put the number of a step into an equation."""
    put_in = lambda node: substitute(node, {letter: Num(value)})  # noqa: E731
    sizes = {name: size for name, size in equation.sizes.items() if name != letter}
    body = fold(put_in(equation.body), sizes)
    body = fold(replace(body, lambda ref: _inside(ref, shapes)), sizes)
    at = tuple(fold(put_in(part), sizes) for part in equation.at)
    return Equation(equation.name, at, body, sizes, (letter, value), equation)


def _inside(ref: Ref, shapes: Mapping[str, Shape]) -> Expr:
    """Return 0 for an entry that is known to lie outside its array."""
    if ref.at is None:
        return ref
    for part, size in zip(ref.at, shapes[ref.name], strict=True):
        if isinstance(part, Num) and not 0 <= part.value < size:
            return ZERO
    return ref


def _infer_shapes(statements: list[ast.stmt], names: Names) -> None:
    """Find the shapes of the arrays that equations define, in whatever order they refer to them."""
    counted = _letters_of_names(statements)
    waiting = list(_flat(statements, names))
    while True:
        left_over = []
        for scope, statement in waiting:
            line = _Line(statement, scope, counted)
            try:
                name, shape = line.defined(statement.targets[0], statement.value)
            except KeyError:  # it mentions an array whose shape is not known yet
                left_over.append((scope, statement))
                continue
            if name not in names.shapes and shape is not None:
                names.shapes[name] = shape
            elif name not in names.shapes:
                left_over.append((scope, statement))
        if len(left_over) in (0, len(waiting)):
            return
        waiting = left_over


# ── One equation ────────────────────────────────────────────────────────────────────────────────


class _Line:
    """Reads one equation."""

    def __init__(
        self, statement: ast.Assign, names: Names, counted: Mapping[str, set[str]]
    ) -> None:
        self.text = ast.unparse(statement)
        self.names, self.counted = names, counted
        self.letters: list[str] = []
        self.stated: dict[str, int] = {}  # the numbers of values that the line states
        self.starred: set[str] = set()  # the letters that stand for any number of axes
        self.spread: dict[str, tuple[str, ...]] = {}  # and the letters of the single axes
        self.flat_place: dict[str, Expr] = {}  # what m means in y.flat[m]

    def equation(self, left: ast.expr, right: ast.expr) -> Equation | None:
        """Return the equation, or None if it defines an array that this layer has not."""
        name, at = self._left(left)
        if self._is_absent(name):
            return None
        body = self._right(right)
        if body is None:
            if not self._is_outside(name, at):
                self.names.absent.add(name)
            return None
        self._check_names(body)
        equation = self._complete(name, at, body)
        if at is not None and self._is_outside(name, at):
            self.names.starts[name] = equation.left, equation.body
            return None
        self._count(equation.sizes)
        return equation

    def _count(self, sizes: Mapping[str, int]) -> None:
        """Remember the numbers of values for which names such as ``I`` stand."""
        for name, letters in self.counted.items():
            for letter in letters:
                axes = self.spread.get(letter, (letter,))
                if all(axis in sizes for axis in axes):
                    self.names.counts[name] = math.prod(sizes[axis] for axis in axes)

    def defined(self, left: ast.expr, right: ast.expr) -> tuple[str, Shape | None]:
        """Return the array that the equation defines, and its shape, if that is known by now."""
        name, at = self._left(left)
        if name in self.names.shapes or self._is_absent(name):
            return name, self.names.shapes.get(name, ())
        if name.startswith("d") and name[1:] in self.names.shapes:
            return name, self.names.shapes[name[1:]]  # a derivative, of the shape of its array
        body = self._right(right)
        if body is None:
            return name, None
        known = self.names.shapes
        body = replace(body, lambda ref: ref if ref.name in known else ZERO)
        if at is None:
            return name, _entry_by_entry(name, body, known).shape if refs(body) else None
        at, body = self._spread(name, at, body)
        sizes = self._sizes(name, at, body)
        self._count(sizes)
        letters = [part.name for part in at if isinstance(part, Index)]
        if len(letters) != len(at) or not all(letter in sizes for letter in letters):
            return name, None
        return name, tuple(sizes[letter] for letter in letters)

    def _right(self, node: ast.expr) -> Expr | None:
        try:
            return self.read(node)
        except InputError:
            raise
        except (ValueError, AttributeError) as error:
            raise not_in_notation(self.text) from error

    def _is_absent(self, name: str) -> bool:
        absent = self.names.absent
        return name in absent or (name.startswith("d") and name[1:] in absent)

    def _is_outside(self, name: str, at: tuple[Expr, ...] | None) -> bool:
        """Return whether the left side is an entry outside the array, the start of a recurrence."""
        shape = self.names.shapes.get(name)
        return at is not None and shape is not None and len(at) == len(shape) and any(
            isinstance(part, Num) and not 0 <= part.value < size
            for part, size in zip(at, shape, strict=True)
        )  # fmt: skip

    def _check_names(self, body: Expr) -> None:
        for ref in refs(body):
            if ref.name not in self.names.shapes:
                raise InputError(
                    f"formulas: expected a known name, got {ref.name!r} in {self.text!r}."
                )

    # ── The left side ──

    def _left(self, target: ast.expr) -> tuple[str, tuple[Expr, ...] | None]:
        """Return the name and the indices of the left side; its letters are free."""
        match target:
            case ast.Name(id=name):
                return self._named(name), None
            case ast.Subscript(value=ast.Attribute(value=ast.Name(id=name), attr="flat")):
                name = self._named(name)
                if name not in self.names.shapes:
                    raise KeyError(name)
                return name, self._flat_left(target.slice, self.names.shapes[name])
            case ast.Subscript(value=ast.Subscript(value=ast.Name(id=family), slice=child)):
                name = self._child(family, child)
            case ast.Subscript(value=ast.Name(id=family)) if self._is_family(family):
                return self._child(family, target.slice), None
            case ast.Subscript(value=ast.Name(id=name)):
                name = self._named(name)
            case _:
                raise not_in_notation(self.text)
        parts = target.slice.elts if isinstance(target.slice, ast.Tuple) else [target.slice]
        for part in parts:
            self._declare(part)
        at = [self.read(_letter_of(part)) for part in parts]
        if any(part is None for part in at):
            raise not_in_notation(self.text)
        return name, tuple(fold(Ref(name, tuple(at)), {}).at)  # type: ignore[arg-type, union-attr]

    def _declare(self, part: ast.expr | None) -> None:
        """Make the names in an index letters, with the number of values that it may state."""
        if isinstance(part, ast.Slice):
            letter, count = part.lower, part.upper
            if not isinstance(letter, ast.Name) or count is None:
                raise not_in_notation(self.text)
            self.stated[letter.id] = int(constant(count, self.names))
            part = letter
        for node in ast.walk(part) if part is not None else ():
            if isinstance(node, ast.Starred) and isinstance(node.value, ast.Name):
                self.starred.add(node.value.id)
            if isinstance(node, ast.Name) and not self._is_known(node.id):
                self.letters.append(node.id)

    def _flat_left(self, index: ast.expr, shape: Shape) -> tuple[Expr, ...]:
        """Give each axis of ``y.flat[m]`` a letter, and take m for the place that they make."""
        if not isinstance(index, ast.Name):
            raise not_in_notation(self.text)
        letters = ("n", "i", "j", "k", "l", "m")[: len(shape)]
        self.letters += letters
        steps = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        place: Expr = ZERO
        for letter, step in zip(letters, steps, strict=True):
            place = Op("+", place, Op("*", Num(step), Index(letter)))
        self.flat_place = {index.id: place}
        self.letters.append(index.id)
        return tuple(map(Index, letters))

    # ── The right side ──

    def read(self, node: ast.AST) -> Expr | None:
        """Read an expression; None stands for one of an array that this layer has not.

        A sum is then that of its other terms, and a product is absent too.
        """
        if isinstance(node, ast.expr):
            value = constant_or_none(node, self.names)
            if isinstance(value, (int, float)):
                return Num(value + 0)
        match node:
            case ast.Starred(value=inner):
                return self.read(inner)
            case ast.Name(id=name):
                return self._name(name)
            case ast.Subscript(value=ast.Attribute(value=ast.Name(id=name), attr="flat")):
                return self._flat_entry(self._named(name), self.read(node.slice))
            case ast.Subscript(value=ast.Subscript(value=ast.Name(id=family), slice=child)):
                return self._entry(self._child(family, child), node.slice)
            case ast.Subscript(value=ast.Name(id=family)) if self._is_family(family):
                return Ref(self._child(family, node.slice), None)
            case ast.Subscript(value=ast.Name(id=name)):
                return self._entry(self._named(name), node.slice)
        return self._operation(node)

    def _operation(self, node: ast.AST) -> Expr | None:
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                return _joined(SIGNS[type(op)], self.read(left), self.read(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _joined("-", ZERO, self.read(operand))
            case ast.Compare(left=first, ops=signs, comparators=others):
                sides = [self.read(side) for side in (first, *others)]
                pairs = zip(signs, sides, sides[1:], strict=False)
                return _all([_joined(SIGNS[type(sign)], a, b) for sign, a, b in pairs])
            case ast.BoolOp(op=ast.And(), values=values):
                return _all([self.read(value) for value in values])
            case ast.IfExp(test=test, body=then, orelse=otherwise):
                return self._choice(test, then, otherwise)
            case ast.Call(
                func=ast.Name(id=kind), args=[ast.GeneratorExp(elt=body, generators=loops)]
            ) if kind in KINDS:
                return self._over(kind, body, loops)
            case ast.Call(func=ast.Name(id=name), args=args) if name in FUNCTIONS:
                parts = [self.read(arg) for arg in args]
                return None if None in parts else Call(name, tuple(parts))  # type: ignore[arg-type]
        raise ValueError(type(node).__name__)

    def _name(self, name: str) -> Any:
        if name in self.flat_place:
            return self.flat_place[name]
        if name in self.letters:
            return Index(name)
        named = self._named(name)
        if named in self.names.absent:
            return None
        if named in self.names.shapes:
            return Ref(named, None)
        letters = self.counted.get(name) or {name.lower()} & set(self.letters)
        if letters:
            return Size(tuple(letters), name)
        return Num(self.names.counts[name]) if name in self.names.counts else Ref(named, None)

    def _named(self, name: str) -> str:
        return self.names.aliases.get(name, name)

    def _is_known(self, name: str) -> bool:
        return any(
            name in known for known in (self.names.settings, self.counted, self.names.counts)
        )

    def _is_family(self, name: str) -> bool:
        shapes = self.names.shapes
        return name not in shapes and f"{name}1" in shapes

    def _child(self, family: str, child: ast.expr) -> str:
        return f"{family}{int(constant(child, self.names)) + 1}"

    def _entry(self, name: str, index: ast.expr) -> Expr | None:
        parts = index.elts if isinstance(index, ast.Tuple) else [index]
        for part in parts:
            if isinstance(part, ast.Starred) and isinstance(part.value, ast.Name):
                self.starred.add(part.value.id)
        at = [self.read(part) for part in parts]
        if name in self.names.absent or None in at:
            return None
        rank = len(self.names.shapes.get(name, at))
        if len(at) > rank + any(isinstance(part, ast.Starred) for part in parts):
            raise InputError(
                f"formulas: expected at most {rank} letters for {name} in {self.text!r}."
            )
        return self._or_start(Ref(name, tuple(at)))  # type: ignore[arg-type]

    def _or_start(self, ref: Ref) -> Expr:
        """Return an entry, or what stands for it before the first step of a recurrence."""
        if ref.name not in self.names.starts or ref.at is None:
            return ref
        left, body = self.names.starts[ref.name]
        assert left.at is not None
        pairs = list(zip(left.at, ref.at, strict=True))
        start = substitute(body, {a.name: b for a, b in pairs if isinstance(a, Index)})
        at_start = [Op("==", b, a) for a, b in pairs if isinstance(a, Num)]
        if all(isinstance(condition.left, Index) for condition in at_start):
            return ref  # a letter alone never counts beyond the array
        return Choice(at_start[0], start, ref)

    def _flat_entry(self, name: str, place: Expr | None) -> Expr | None:
        if name in self.names.absent or place is None:
            return None
        shape = self.names.shapes[name]
        at: list[Expr] = []
        for axis, size in enumerate(shape):
            step = math.prod(shape[axis + 1 :])
            whole = place if step == 1 else Op("//", place, Num(step))
            at.append(whole if axis == 0 else Op("%", whole, Num(size)))
        return Ref(name, tuple(at))

    def _choice(self, test: ast.expr, then: ast.expr, otherwise: ast.expr) -> Expr | None:
        value = constant_or_none(test, self.names)
        if value is not None:
            return self.read(then if value else otherwise)
        condition = self.read(test)
        if condition is None:  # nothing says that some do not count
            return self.read(then)
        first, second = self.read(then), self.read(otherwise)
        if {first, second} <= {None, ZERO}:
            return None if None in (first, second) else ZERO
        return Choice(condition, ZERO if first is None else first, second or ZERO)

    def _over(self, kind: str, body: ast.expr, loops: list[ast.comprehension]) -> Expr | None:
        names = [loop.target.id for loop in loops if isinstance(loop.target, ast.Name)]
        children = [
            part.slice.id
            for part in ast.walk(body)
            if isinstance(part, ast.Subscript)
            and isinstance(part.value, ast.Name)
            and isinstance(part.slice, ast.Name)
            and self._is_family(part.value.id)
        ]
        if names and names[0] in children:  # over the layers inside a combinator
            return self._over_children(names[0], body, loops[0].iter)
        outer, self.letters = self.letters, [*self.letters, *names]
        for name, loop in zip(names, loops, strict=True):
            if isinstance(loop.iter, ast.Call):
                self.stated[name] = len(range_of(loop.iter, self.names))
        inner = self.read(body)
        condition = _all([self.read(test) for loop in loops for test in loop.ifs])
        self.letters = outer
        if inner is None:
            return None
        letters = tuple(names)
        counted: Expr = Size(letters, "")  # type: ignore[assignment]
        if condition is not None:
            inner = Choice(condition, inner, KINDS[kind])
            counted = Over("sum", letters, Choice(condition, ONE, ZERO))
        if kind == "mean":
            return Op("/", Over("sum", letters, inner), counted)
        return Over(kind, letters, inner)

    def _over_children(self, name: str, body: ast.expr, numbers: ast.expr) -> Expr | None:
        if not isinstance(numbers, ast.Call):
            raise not_in_notation(self.text)
        total: Expr | None = None
        outer = self.names
        for value in range_of(numbers, outer):
            self.names = outer.with_setting(name, value)
            total = _joined("+", total, self.read(body))
        self.names = outer
        return total

    # ── Letters and their numbers of values ──

    def _complete(self, name: str, at: tuple[Expr, ...] | None, body: Expr) -> Equation:
        shapes = self.names.shapes
        if at is None and all(ref.at is None for ref in refs(body)):
            equation = _entry_by_entry(name, body, shapes)
            return equation._replace(body=self._settled(equation.body, equation.sizes))
        at = at or ()
        at, body = self._spread(name, at, body)
        sizes = self._sizes(name, at, body)
        body = self._settled(body, sizes)
        at = tuple(self._settled(Ref(name, at), sizes).at)  # type: ignore[union-attr, arg-type]
        used = [index for part in at for index in walk(part) if isinstance(index, Index)]
        for letter in (*(index.name for index in used), *_bound(body)):
            if letter not in sizes:
                raise InputError(
                    f"formulas: expected an array that says how far {letter} counts "
                    f"in {self.text!r}."
                )
        for ref in self._mentions(name, at, body):
            if len(ref.at or ()) != len(shapes[ref.name]):
                raise InputError(
                    f"formulas: expected {len(shapes[ref.name])} letters for {ref.name} "
                    f"in {self.text!r}."
                )
        return Equation(name, at, body, sizes)

    def _mentions(self, name: str, at: tuple[Expr, ...], body: Expr) -> list[Ref]:
        left = [Ref(name, at)] if name in self.names.shapes else []
        return left + [ref for ref in refs(body) if ref.name in self.names.shapes]

    def _spread(self, name: str, at: tuple[Expr, ...], body: Expr) -> tuple[tuple[Expr, ...], Expr]:
        """Replace a letter that stands for several axes by one letter for each axis.

        It is a letter with a star, or the first one of an array with more axes than letters.
        """
        counts: dict[str, int] = {}
        for ref in self._mentions(name, at, body):
            letters = [part.name for part in ref.at or () if isinstance(part, Index)]
            starred = [letter for letter in letters if letter in self.starred]
            first = ref.at and isinstance(ref.at[0], Index) and ref.at[0].name
            letter = starred[0] if starred else first
            if letter and (letter not in counts or counts[letter] == 1):
                counts[letter] = len(self.names.shapes[ref.name]) - len(ref.at or ()) + 1
        self.spread = {
            letter: tuple(f"{letter}{k}" for k in range(count))
            for letter, count in counts.items()
            if count != 1
        }

        def widen(letters: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(part for letter in letters for part in self.spread.get(letter, (letter,)))

        def indices(parts: tuple[Expr, ...]) -> tuple[Expr, ...]:
            wide: list[Expr] = []
            for part in parts:
                names = self.spread.get(part.name) if isinstance(part, Index) else None
                wide += [part] if names is None else map(Index, names)
            return tuple(wide)

        def respell(ref: Ref) -> Ref:
            return ref._replace(at=indices(ref.at or ()))

        return indices(at), replace(body, respell, widen)

    def _sizes(self, name: str, at: tuple[Expr, ...], body: Expr) -> dict[str, int]:
        """Find the number of values of each letter: the size of an axis that it indexes alone."""
        sizes: dict[str, int] = {}
        for ref in self._mentions(name, at, body):
            for part, size in zip(ref.at or (), self.names.shapes[ref.name], strict=False):
                if isinstance(part, Index):
                    sizes.setdefault(part.name, size)
        for count, letters in self.counted.items():
            if count in self.names.counts and len(letters) == 1:  # as in ``for t in T``
                sizes.setdefault(next(iter(letters)), self.names.counts[count])
        return sizes | self.stated

    def _settled(self, body: Expr, sizes: Mapping[str, int]) -> Expr:
        """Put in the numbers that names such as ``I`` stand for, and simplify."""

        def put_in(node: Any) -> Expr:
            if not isinstance(node, Size):
                return rebuild(node, put_in)
            for letters in [node.letters] if not node.name else [(one,) for one in node.letters]:
                wide = [part for one in letters for part in self.spread.get(one, (one,))]
                if all(letter in sizes for letter in wide):
                    return Num(math.prod(sizes[letter] for letter in wide))
            if node.name not in self.names.counts:
                raise InputError(
                    f"formulas: expected a known name, got {node.name!r} in {self.text!r}."
                )
            return Num(self.names.counts[node.name])

        return fold(put_in(body), sizes)


def _letter_of(index: ast.expr) -> ast.AST:
    """Return the index without the number of values that it may state, as in ``j:3``."""
    return index.lower if isinstance(index, ast.Slice) and index.lower is not None else index


def _joined(sign: str, left: Expr | None, right: Expr | None) -> Expr | None:
    """Join two expressions; of a sum, a term that is absent is left out."""
    if sign in ("+", "-") and (left is None) != (right is None):
        return left if right is None else right if sign == "+" else Op("-", ZERO, right)
    return None if left is None or right is None else Op(sign, left, right)


def _all(conditions: list[Expr | None]) -> Expr | None:
    """Return the condition that all hold; those of arrays that are absent say nothing."""
    total: Expr | None = None
    for condition in conditions:
        if condition is not None:
            total = condition if total is None else Op("and", total, condition)
    return total


def _bound(body: Expr) -> list[str]:
    return [letter for over in overs(body) for letter in over.letters]


def _entry_by_entry(name: str, body: Expr, shapes: Mapping[str, Shape]) -> Equation:
    """Index all arrays of the full shape by the same letters."""
    shape = shapes.get(name, max((shapes[ref.name] for ref in refs(body)), key=len, default=()))
    free = ("n", "i", "j", "k", "l", "m")[: len(shape)]
    whole = tuple(map(Index, free))

    def respell(ref: Ref) -> Ref:
        return ref._replace(at=whole if shapes[ref.name] == shape else ())

    return Equation(name, whole, replace(body, respell), dict(zip(free, shape, strict=True)))
