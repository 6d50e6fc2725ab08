"""The rows of a table of steps.

Each row contains an entry, its expression in symbols and in numbers, and the result.
"""

import itertools
from typing import NamedTuple, TypeVar

import numpy as np

from jaxnn.equations import ArrayId, Equations, Step
from jaxnn.formulas.expand import SHOWN, place_at, write_out
from jaxnn.formulas.expressions import Equation, Expr, Num, Spot, replace

Place = TypeVar("Place")  # an index: a number, or an expression


class WorkedLine(NamedTuple):
    """One entry of one equation.

    Attributes:
        step: the equation.
        at: the values of the free letters.
        left: the entry.
        right: the expression for the entry, written out, in the layer's own names.
        value: the value of the entry.
    """

    step: Step
    at: tuple[int, ...]
    left: Spot
    right: Expr
    value: float

    @property
    def is_plain(self) -> bool:
        """Whether the expression is a single number or entry, which in numbers is the result."""
        return isinstance(self.right, (Num, Spot))


def rows_of(
    equations: Equations, step: Step, most: int, undecided: bool = False
) -> tuple[list[WorkedLine], int]:
    """Return the first ``most`` rows of a step, and the total number of its rows.

    With ``undecided`` a choice that depends on a computed array is left open.
    """
    unknown = (
        {name for name, key in step.ids.items() if key not in equations.free} if undecided else ()
    )
    values = equations.local_values(step.ids)
    rows = []
    for at in itertools.islice(np.ndindex(step.equation.shape), most):
        left = Spot(step.equation.name, place_at(step.equation, at))
        right = write_out(step.equation, at, values, SHOWN, unknown)
        rows.append(WorkedLine(step, at, left, right, float(values[left.name][left.at])))
    return rows, int(np.prod(step.equation.shape))


def place(equations: Equations, identity: ArrayId, at: tuple[Place, ...]) -> tuple[Place, ...]:
    """Return the indices of an entry that are worth writing.

    The index into a batch of one, and the index of an array's only number, are left out.
    """
    shape = np.shape(equations.values[identity])
    if identity in equations.batched and shape[:1] == (1,):
        return () if all(size == 1 for size in shape) else at[1:]
    return at


def entry_value(equations: Equations, identity: ArrayId, spot: Spot) -> float:
    """Look up the number for which an entry stands."""
    return float(np.asarray(equations.values[identity])[spot.at])


def without_batch_of_one(equation: Equation) -> Expr:
    """Return the right side of an equation without sums over a batch of one."""
    sizes = equation.sizes

    def drop(letters: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(n for n in letters if not (n.startswith("n") and sizes[n] == 1))

    return replace(equation.body, lambda ref: ref, drop)
