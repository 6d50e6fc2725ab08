"""What the names in formulas mean: arrays, settings, and the numbers of values of letters."""

import ast
import copy
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from jaxnn.checks import InputError
from jaxnn.formulas.expressions import ZERO, Expr, Num, Ref

Shape = tuple[int, ...]

# a reduction, and what it is over no values: terms that a condition excludes have that value
KINDS = {"sum": ZERO, "mean": ZERO, "max": Num(-1e300), "min": Num(1e300)}

CONSTANT = (
    ast.Constant, ast.Name, ast.Subscript, ast.Slice, ast.Tuple, ast.Compare, ast.BoolOp, ast.BinOp,
    ast.UnaryOp, ast.IfExp, ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop,
)  # fmt: skip


class Size(NamedTuple):
    """The number of values of a letter, or of several together, while it is not known yet.

    Attributes:
        letters: the letters.
        name: the name by which the formula calls the number, or "" for that of a mean.
    """

    letters: tuple[str, ...]
    name: str


class UnknownShapeError(InputError):
    """An equation mentions an array whose shape is not known, or not known yet."""


class Shapes(dict[str, Shape]):
    """The shapes of arrays by name."""

    def __missing__(self, name: str) -> Shape:
        """Say that there is no such array."""
        raise UnknownShapeError(f"formulas: expected a known array, got {name!r}.")


class Names:
    """What the names in the formulas of one layer or loss mean.

    Attributes:
        shapes: the shape of each array. Those of the arrays that equations define are added.
        settings: numbers, texts, and tuples of numbers.
        absent: the arrays that this layer could have and has not, such as the bias.
        aliases: other names of arrays.
        named_sizes: the numbers of values that equations have given to names such as ``I``.
        starts: for an array that is defined step by step, what its entry before the first step is.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        settings: Mapping[str, Any],
        absent: Collection[str] = (),
    ) -> None:
        self.shapes = Shapes(shapes)
        self.settings = {name: value for name, value in settings.items() if name not in shapes}
        self.absent, self.aliases = set(absent), dict[str, str]()
        self.named_sizes: dict[str, int] = {}
        self.starts: dict[str, tuple[Ref, Expr]] = {}

    def with_setting(self, name: str, value: float) -> "Names":
        """Return the same names and one more setting; what is learnt of arrays is shared."""
        inner = copy.copy(self)
        inner.settings = self.settings | {name: value}
        return inner


def constant(node: ast.expr, names: Names) -> Any:
    """Compute an expression of settings, such as ``output == "last"`` or ``stride[0]``."""
    value = constant_or_none(node, names)
    if value is None:
        raise InputError(f"formulas: expected a setting, got {ast.unparse(node)!r}.")
    return value


def constant_or_none(node: ast.expr, names: Names) -> Any:
    """Compute an expression of settings, or return None if it mentions anything else."""
    parts = list(ast.walk(node))
    mentioned = [part.id for part in parts if isinstance(part, ast.Name)]
    if not all(isinstance(part, CONSTANT) for part in parts):
        return None
    if not all(name in names.settings for name in mentioned):
        return None
    code = compile(ast.Expression(node), "formulas", "eval")  # of the nodes above, and no others
    return eval(code, {"__builtins__": {}}, dict(names.settings))


def range_of(node: ast.Call, names: Names) -> range:
    """Return the numbers of ``range(n)``."""
    match node:
        case ast.Call(func=ast.Name(id="range"), args=[count]):
            return range(int(constant(count, names)))
    raise not_in_notation(ast.unparse(node))


def not_in_notation(text: str) -> InputError:
    """Return the error for a text that cannot be read."""
    return InputError(
        f"formulas: expected an equation in the notation of jaxnn.formulas, got {text!r}."
    )
