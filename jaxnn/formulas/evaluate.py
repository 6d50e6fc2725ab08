"""Evaluate formulas with NumPy.

Nothing here knows about JAX or the layers, so that its results are an independent check of theirs.
"""

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
)

Numbers: TypeAlias = float | np.ndarray

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
    bound = [letter for over in overs(equation.body) for letter in over.letters]
    letters = list(dict.fromkeys((*equation.letters, *bound)))
    scope = _scope(letters, equation.sizes)
    axes = {letter: i for i, letter in enumerate(letters)}
    with np.errstate(all="ignore"):  # a branch that is not taken may be anything
        result = np.asarray(_evaluate(equation.body, scope, axes, values))
    result = result.reshape(result.shape[: len(equation.letters)] or ())
    return np.broadcast_to(result, equation.shape).copy()


def places(equation: Equation) -> tuple[np.ndarray, ...]:
    """Return the index of every entry that an equation defines, one array for each axis."""
    letters = equation.letters
    scope = _scope(letters, equation.sizes)
    axes = {letter: i for i, letter in enumerate(letters)}
    each = [np.asarray(_evaluate(part, scope, axes, {}), int) for part in equation.at]
    return tuple(np.broadcast_to(part, equation.shape) for part in each)


def compute(equation: Equation, values: dict[Any, np.ndarray], shape: tuple[int, ...]) -> None:
    """Compute what an equation defines, and put it into the array of that shape in ``values``."""
    result = evaluate(equation, values)
    if all(isinstance(part, Index) for part in equation.at) and result.shape == shape:
        values[equation.name] = result
        return
    values.setdefault(equation.name, np.zeros(shape))[places(equation)] = result


def _scope(letters: Sequence[str], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    counts = np.ogrid[tuple(slice(sizes[letter]) for letter in letters)] if letters else []
    return dict(zip(letters, counts, strict=True))


def _evaluate(
    node: Expr,
    scope: Mapping[str, np.ndarray],
    axes: Mapping[str, int],
    values: Mapping[Any, np.ndarray],
) -> Numbers:
    of = lambda part: _evaluate(part, scope, axes, values)  # noqa: E731
    if isinstance(node, Num):
        return node.value
    if isinstance(node, Index):
        return scope[node.name]
    if isinstance(node, Ref):
        return entry(np.asarray(values[node.name]), [of(part) for part in node.at or ()])
    if isinstance(node, Choice):
        return np.where(of(node.condition), of(node.then), of(node.otherwise))
    if isinstance(node, Op):
        if (stable := quotient_of_exponentials(node)) is not None:
            return np.exp(of(stable[0]) - _log_sum_exp(stable[1], of, axes, scope))
        return OPERATIONS[node.sign](of(node.left), of(node.right))
    if isinstance(node, Call):
        if (over := log_of_exponentials(node)) is not None:
            return _log_sum_exp(over, of, axes, scope)
        return FUNCTIONS[node.name](*map(of, node.args))
    if isinstance(node, Over):
        return _reduce(REDUCTIONS[node.kind], node, of(node.body), axes, scope)
    raise TypeError(node)


def _reduce(
    function: Callable[..., np.ndarray],
    over: Over,
    terms: Numbers,
    axes: Mapping[str, int],
    scope: Mapping[str, np.ndarray],
) -> np.ndarray:
    shape = np.broadcast_shapes(np.shape(terms), *(scope[letter].shape for letter in over.letters))
    return function(
        np.broadcast_to(terms, shape),
        axis=tuple(axes[letter] for letter in over.letters),
        keepdims=True,
    )


def _log_sum_exp(
    over: Over,
    of: Callable[[Expr], Numbers],
    axes: Mapping[str, int],
    scope: Mapping[str, np.ndarray],
) -> np.ndarray:
    match over.body:
        case Choice(condition, Call("exp", (exponent,)), _):
            exponents = np.where(of(condition), of(exponent), -np.inf)
        case body:
            (exponent,) = children(body)
            exponents = np.asarray(of(exponent))
    return _reduce(special.logsumexp, over, exponents, axes, scope)


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
    if not parts:
        return array
    at = [part.astype(int) for part in parts]
    inside = np.logical_and.reduce(np.broadcast_arrays(*(
        (part >= 0) & (part < size) & (part == whole)
        for part, whole, size in zip(parts, at, array.shape, strict=True)
    )))  # fmt: skip
    clipped = tuple(np.clip(part, 0, size - 1) for part, size in zip(at, array.shape, strict=True))
    return np.where(inside, array[clipped], 0)
