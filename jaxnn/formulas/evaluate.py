"""Evaluate formulas with NumPy.

Nothing here knows about JAX or the layers, so that its results are an independent check of theirs.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy import special

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
    children,
    overs,
    substitute,
)

Numbers: TypeAlias = float | np.ndarray
Values: TypeAlias = Mapping[Any, np.ndarray]
Compute: TypeAlias = Callable[[Values], Any]

FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "σ": special.expit,
    "Φ": special.ndtr,  # the distribution function of the standard normal
    "φ": lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi),  # and its density
    "log1p": np.log1p,
    "expm1": np.expm1,
    "abs": np.abs,
    "sign": np.sign,
    "max": np.maximum,
    "min": np.minimum,
    "cos": np.cos,
    "sin": np.sin,
    "guard": lambda x: np.maximum(x, np.finfo(float).tiny),  # a divisor that is never 0
}

OPERATIONS: dict[str, Callable[..., np.ndarray]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power,
    "//": np.floor_divide, "%": np.mod,
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
    "==": np.equal, "!=": np.not_equal, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip

REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {"sum": np.sum, "max": np.max, "min": np.min}


def evaluate(equation: Equation, values: Mapping[Any, np.ndarray]) -> np.ndarray:
    """Compute all entries that an equation defines at once; each free letter is an axis."""
    return prepare(equation)(values)


def prepare(equation: Equation, fixed: Mapping[str, int] | None = None) -> Compute:
    """Return a function of the values that computes all entries that an equation defines.

    What does not depend on the values, the indices above all, is computed here, once.

    Args:
        equation: the equation.
        fixed: the values of letters on the right side that are no axes.
    """
    bound = [letter for over in overs(equation.body) for letter in over.letters]
    letters = list(dict.fromkeys((*equation.letters, *bound)))
    body = _Preparing(letters, equation.sizes, fixed or {}).of(equation.body)
    free, shape = len(equation.letters), equation.shape

    def run(values: Values) -> np.ndarray:
        with np.errstate(all="ignore"):  # a branch that is not taken may be anything
            result = np.asarray(body(values))
        result = result.reshape(result.shape[:free] or ())
        return np.broadcast_to(result, shape).copy()

    return run


def places(equation: Equation) -> tuple[np.ndarray, ...]:
    """Return the index of every entry that an equation defines, one array for each axis."""
    preparing = _Preparing(equation.letters, equation.sizes, {})
    each = [np.asarray(preparing.of(part)({}), int) for part in equation.at]
    return tuple(np.broadcast_to(part, equation.shape) for part in each)


def compute(equation: Equation, values: dict[Any, np.ndarray], shape: tuple[int, ...]) -> None:
    """Compute what an equation defines, and put it into the array of that shape in ``values``."""
    prepare_step(equation)(values, shape)


def prepare_step(
    equation: Equation, step: tuple[str, int] | None = None
) -> Callable[[dict[Any, np.ndarray], tuple[int, ...]], None]:
    """Return :func:`compute` for one equation, with everything computed that is always the same.

    Args:
        equation: the equation.
        step: for one step of a recurrence, the letter and its number, if they are not in it yet.
    """
    fixed = dict([step] if step else [])
    put_in = {letter: Num(value) for letter, value in fixed.items()}
    equation = equation._replace(at=tuple(substitute(part, put_in) for part in equation.at))
    result_of = prepare(equation, fixed)
    whole = all(isinstance(part, Index) for part in equation.at)
    where = functools.cache(lambda: places(equation))

    def run(values: dict[Any, np.ndarray], shape: tuple[int, ...]) -> None:
        result = result_of(values)
        if whole and result.shape == shape:
            values[equation.name] = result
        else:
            values.setdefault(equation.name, np.zeros(shape))[where()] = result

    return run


class _Preparing:
    """Turns nodes into functions of the values; each letter is an axis.

    Args:
        letters: the letters, in the order of their axes.
        sizes: the size of each.
        fixed: the values of other letters.
    """

    def __init__(
        self, letters: Sequence[str], sizes: Mapping[str, int], fixed: Mapping[str, int]
    ) -> None:
        self._fixed = fixed
        self._axes = {letter: i for i, letter in enumerate(letters)}
        self._scope = {
            letter: _along(i, len(letters), sizes[letter]) for i, letter in enumerate(letters)
        }

    def of(self, node: Expr) -> Compute:
        """Return the function of a node; a constant one where the node depends on no values."""
        if isinstance(node, Num):
            return _Constant(node.value)
        if isinstance(node, Index):
            known: Any = self._fixed if node.name in self._fixed else self._scope
            return _Constant(known[node.name])
        if isinstance(node, Ref):
            return self._entries(node)
        run, parts = self._function(node)
        if all(isinstance(part, _Constant) for part in parts):
            with np.errstate(all="ignore"):
                return _Constant(run({}))
        return run

    def _function(self, node: Expr) -> tuple[Compute, list[Compute]]:
        """Return the function of a node, and those of its parts."""
        if isinstance(node, Choice):
            condition, then, otherwise = parts = [*map(self.of, children(node))]
            return lambda v: np.where(condition(v), then(v), otherwise(v)), parts
        if isinstance(node, Op):
            if (stable := quotient_of_exponentials(node)) is not None:
                exponent, total = self.of(stable[0]), self._log_sum_exp(stable[1])
                return lambda v: np.exp(exponent(v) - total(v)), [exponent, total]
            operation, left, right = OPERATIONS[node.sign], self.of(node.left), self.of(node.right)
            return lambda v: operation(left(v), right(v)), [left, right]
        if isinstance(node, Call):
            if (over := log_of_exponentials(node)) is not None:
                total = self._log_sum_exp(over)
                return total, [total]
            function, arguments = FUNCTIONS[node.name], [*map(self.of, node.args)]
            return lambda v: function(*(of(v) for of in arguments)), arguments
        if isinstance(node, Over):
            body = self.of(node.body)
            return self._reduced(REDUCTIONS[node.kind], node, body), [body]
        raise TypeError(node)

    def _entries(self, node: Ref) -> Compute:
        parts, name = [*map(self.of, node.at or ())], node.name
        if not parts:
            return lambda v: np.asarray(v[name])
        if not all(isinstance(part, _Constant) for part in parts):
            return lambda v: entry(np.asarray(v[name]), [part(v) for part in parts])
        at = [np.asarray(part({})) for part in parts]
        known: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = {}

        def run(values: Values) -> np.ndarray:
            array = np.asarray(values[name])
            if array.shape not in known:
                known[array.shape] = _lookup(array.shape, at)
            return known[array.shape](array)

        return run

    def _reduced(self, function: Callable[..., np.ndarray], over: Over, terms: Compute) -> Compute:
        axes = tuple(self._axes[letter] for letter in over.letters)
        scope = [self._scope[letter].shape for letter in over.letters]

        def run(values: Values) -> np.ndarray:
            each = terms(values)
            shape = np.broadcast_shapes(np.shape(each), *scope)
            whole = each if np.shape(each) == shape else np.broadcast_to(each, shape)
            return function(whole, axis=axes, keepdims=True)

        return run

    def _log_sum_exp(self, over: Over) -> Compute:
        match over.body:
            case Choice(condition, Call("exp", (exponent,)), _):
                allowed, each = self.of(condition), self.of(exponent)
                exponents: Compute = lambda v: np.where(allowed(v), each(v), -np.inf)  # noqa: E731
            case body:
                (exponent,) = children(body)
                exponents = self.of(exponent)
        return self._reduced(special.logsumexp, over, exponents)


class _Constant:
    """The function of the values that is always the same."""

    def __init__(self, value: Numbers) -> None:
        self._value = value

    def __call__(self, values: Values) -> Numbers:
        """Return the constant."""
        return self._value


@functools.lru_cache(maxsize=1024)
def _along(axis: int, axes: int, size: int) -> np.ndarray:
    """Return 0 … size - 1 along one of several axes."""
    counts = np.arange(size).reshape([size if i == axis else 1 for i in range(axes)])
    counts.flags.writeable = False  # it is shared
    return counts


def _is_sum_of_exponentials(node: Expr) -> bool:
    match node:
        case Over("sum", _, Call("exp") | Choice(_, Call("exp"), Num(0))):
            return True
    return False


def log_of_exponentials(node: Expr) -> Over | None:
    """Return the sum in log Σ exp(…), to be computed without overflow, or None for other nodes."""
    match node:
        case Call("log", (Over() as over,)) if _is_sum_of_exponentials(over):
            return over
    return None


def quotient_of_exponentials(node: Expr) -> tuple[Expr, Over] | None:
    """Return the exponent and the sum in exp(…) / Σ exp(…), or None for other nodes.

    The quotient is to be computed without overflow.
    """
    match node:
        case Op("/", Call("exp", (exponent,)), Over() as over) if _is_sum_of_exponentials(over):
            return exponent, over
    return None


def entry(array: np.ndarray, at: Iterable[Numbers]) -> np.ndarray:
    """Look up entries of an array; an entry outside the array, or between two others, is 0."""
    parts = [np.asarray(part) for part in at]
    return _lookup(array.shape, parts)(array) if parts else array


def _lookup(
    shape: tuple[int, ...], parts: Sequence[np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that looks up these entries of an array of this shape."""
    at = tuple(part.astype(int) for part in parts)
    inside = np.logical_and.reduce(np.broadcast_arrays(*(
        (part >= 0) & (part < size) & (part == whole)
        for part, whole, size in zip(parts, at, shape, strict=True)
    )))  # fmt: skip
    if inside.all():
        return lambda array: array[at]
    clipped = tuple(np.clip(part, 0, size - 1) for part, size in zip(at, shape, strict=True))
    return lambda array: np.where(inside, array[clipped], 0)
