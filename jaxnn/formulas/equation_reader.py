"""Read one line of a formula: the nodes of Python's syntax tree become an equation.

Its left side says which letters are free, its right side is read with the meaning that each name
has, and then the number of values of each letter is found from the arrays that it indexes.
"""

import ast
import math
from collections.abc import Mapping
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
    refs,
    replace,
    substitute,
)
from jaxnn.formulas.folding import fold
from jaxnn.formulas.letters import Letters, entry_by_entry, letters_for_axes
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
    ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


class EquationReader:
    """Reads one equation."""

    def __init__(
        self, statement: ast.Assign, names: Names, letters_of: Mapping[str, set[str]]
    ) -> None:
        self.text = ast.unparse(statement)
        self.names, self.letters_of = names, letters_of
        self.letters = Letters(self.text, names, letters_of)
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
        equation = self.letters.complete(name, at, body)
        if at is not None and self._is_outside(name, at):
            self.names.starts[name] = equation.left, equation.body
            return None
        self.letters.note_sizes(equation.sizes)
        return equation

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
            return name, entry_by_entry(name, body, known).shape if refs(body) else None
        at, body = self.letters.one_for_each_axis(name, at, body)
        sizes = self.letters.sizes(name, at, body)
        self.letters.note_sizes(sizes)
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

    def _declare(self, part: ast.expr) -> None:
        """Make the names in an index letters, with the number of values that it may state."""
        if isinstance(part, ast.Slice):
            letter, count = part.lower, part.upper
            if not isinstance(letter, ast.Name) or count is None:
                raise not_in_notation(self.text)
            self.letters.stated_sizes[letter.id] = int(constant(count, self.names))
            part = letter
        for node in ast.walk(part):
            if isinstance(node, ast.Starred) and isinstance(node.value, ast.Name):
                self.letters.starred.add(node.value.id)
            if isinstance(node, ast.Name) and not self._is_known(node.id):
                self.letters.free.append(node.id)

    def _flat_left(self, index: ast.expr, shape: Shape) -> tuple[Expr, ...]:
        """Give each axis of ``y.flat[m]`` a letter, and take m for the place that they make."""
        if not isinstance(index, ast.Name):
            raise not_in_notation(self.text)
        letters = letters_for_axes(len(shape), self.text)
        self.letters.free += letters
        steps = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        place: Expr = ZERO
        for letter, step in zip(letters, steps, strict=True):
            place = Op("+", place, Op("*", Num(step), Index(letter)))
        self.flat_place = {index.id: place}
        self.letters.free.append(index.id)
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
                return _joined(_sign(op), self.read(left), self.read(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _joined("-", ZERO, self.read(operand))
            case ast.Compare(left=first, ops=signs, comparators=others):
                sides = [self.read(side) for side in (first, *others)]
                pairs = zip(signs, sides, sides[1:], strict=False)
                return _all([_joined(_sign(sign), a, b) for sign, a, b in pairs])
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
        if name in self.letters.free:
            return Index(name)
        named = self._named(name)
        if named in self.names.absent:
            return None
        if named in self.names.shapes:
            return Ref(named, None)
        letters = self.letters_of.get(name) or {name.lower()} & set(self.letters.free)
        if letters:
            return Size(tuple(letters), name)
        size = self.names.named_sizes.get(name)
        return Ref(named, None) if size is None else Num(size)

    def _named(self, name: str) -> str:
        return self.names.aliases.get(name, name)

    def _is_known(self, name: str) -> bool:
        names = self.names
        return any(name in known for known in (names.settings, self.letters_of, names.named_sizes))

    def _is_family(self, name: str) -> bool:
        shapes = self.names.shapes
        return name not in shapes and f"{name}1" in shapes

    def _child(self, family: str, child: ast.expr) -> str:
        return f"{family}{int(constant(child, self.names)) + 1}"

    def _entry(self, name: str, index: ast.expr) -> Expr | None:
        parts = index.elts if isinstance(index, ast.Tuple) else [index]
        for part in parts:
            if isinstance(part, ast.Starred) and isinstance(part.value, ast.Name):
                self.letters.starred.add(part.value.id)
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
        outer, self.letters.free = self.letters.free, [*self.letters.free, *names]
        for name, loop in zip(names, loops, strict=True):
            if isinstance(loop.iter, ast.Call):
                self.letters.stated_sizes[name] = len(range_of(loop.iter, self.names))
        inner = self.read(body)
        condition = _all([self.read(test) for loop in loops for test in loop.ifs])
        self.letters.free = outer
        if inner is None:
            return None
        letters = tuple(names)
        count: Expr = Size(letters, "")  # type: ignore[assignment]
        if condition is not None:
            inner = Choice(condition, inner, KINDS[kind])
            count = Over("sum", letters, Choice(condition, ONE, ZERO))
        if kind == "mean":
            return Op("/", Over("sum", letters, inner), count)
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


def _letter_of(index: ast.expr) -> ast.AST:
    """Return the index without the number of values that it may state, as in ``j:3``."""
    return index.lower if isinstance(index, ast.Slice) and index.lower is not None else index


def _sign(operator: ast.AST) -> str:
    if type(operator) not in SIGNS:
        raise ValueError(type(operator).__name__)
    return SIGNS[type(operator)]


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
