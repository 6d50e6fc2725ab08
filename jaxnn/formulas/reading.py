"""Read formulas: the text that a layer states, and the shapes of its arrays, become equations.

The notation is described in :mod:`jaxnn.formulas`. It is a part of Python's, so that Python's own
parser reads it; what is done here is to give each name its meaning: an array, a setting, a letter,
or the number of values of a letter.
"""

import ast
import functools
import textwrap
from collections.abc import Iterator, Mapping

from jaxnn.checks import InputError
from jaxnn.formulas.equation_reader import EquationReader
from jaxnn.formulas.expressions import (
    ZERO,
    Equation,
    Expr,
    Num,
    Ref,
    replace,
    substitute,
)
from jaxnn.formulas.folding import fold
from jaxnn.formulas.names import (
    Names,
    Shape,
    UnknownShapeError,
    constant,
    not_in_notation,
    range_of,
)


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
    statements: list[ast.stmt], names: Names, letters_of: Mapping[str, set[str]]
) -> Iterator[Equation]:
    for statement in statements:
        match statement:
            case ast.Assign(targets=[left], value=right):
                equation = EquationReader(statement, names, letters_of).equation(left, right)
                if equation is not None:
                    yield equation
            case ast.If(test=test, body=body, orelse=otherwise):
                chosen = body if constant(test, names) else otherwise
                yield from _equations(chosen, names, letters_of)
            case ast.For(target=ast.Name(id=name), iter=ast.Call() as numbers, body=body):
                for value in range_of(numbers, names):
                    with_value = names.with_setting(name, value)
                    yield from _equations(body, with_value, letters_of)
            case ast.For(target=ast.Name(id=letter), iter=walk_, body=body):
                lines = [line for _, line in _flat(body, names)]
                yield from _step_by_step(lines, letter, walk_, names, letters_of)
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
    letters_of: Mapping[str, set[str]],
) -> Iterator[Equation]:
    """Write the equations of a recurrence for each step in turn."""
    lines = [EquationReader(s, names, letters_of).equation(s.targets[0], s.value) for s in body]
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
    letters_of = _letters_of_names(statements)
    waiting = list(_flat(statements, names))
    while True:
        left_over = []
        for scope, statement in waiting:
            line = EquationReader(statement, scope, letters_of)
            try:
                name, shape = line.defined(statement.targets[0], statement.value)
            except UnknownShapeError:  # of an array that another equation defines
                left_over.append((scope, statement))
                continue
            if name not in names.shapes and shape is not None:
                names.shapes[name] = shape
            elif name not in names.shapes:
                left_over.append((scope, statement))
        if len(left_over) in (0, len(waiting)):
            return
        waiting = left_over
