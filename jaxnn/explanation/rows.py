"""The rows of a table of steps.

Each row contains an entry, its expression in symbols and in numbers, and the result.
"""

import itertools
import math
from collections import Counter
from typing import NamedTuple, TypeVar

import numpy as np

from jaxnn.equations import ArrayId, Equations, Step
from jaxnn.formulas.expand import SHOWN, place_at, write_out
from jaxnn.formulas.expressions import Equation, Expr, Num, Ref, Spot, replace

MOST = 100  # entries that are all selected
FEW = 4  # of each array if there are more
TERMS = 32  # of a sum that are written out where entries are selected
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
    equations: Equations, step: Step, most: int, undecided: bool = False, shown: int = SHOWN
) -> tuple[list[WorkedLine], int]:
    """Return the first ``most`` rows of a step, and the total number of its rows.

    With ``undecided`` a choice that depends on a computed array is left open. Of a long sum as many
    terms as ``shown`` are written out.
    """
    unknown = (
        {name for name, key in step.ids.items() if key not in equations.free} if undecided else ()
    )
    values = equations.local_values(step.ids)
    rows = []
    for at in itertools.islice(np.ndindex(step.equation.shape), most):
        left = Spot(step.equation.name, place_at(step.equation, at))
        right = write_out(step.equation, at, values, shown, unknown)
        rows.append(WorkedLine(step, at, left, right, float(values[left.name][left.at])))
    return rows, int(np.prod(step.equation.shape))


def is_long(equations: Equations) -> bool:
    """Whether there are too many entries to write out all of them."""
    return sum(math.prod(step.equation.shape) for step in equations.steps) > MOST


def selected_rows(equations: Equations, undecided: bool) -> list[list[WorkedLine]]:
    """Return the rows of each step: all of them, or a few if there are too many.

    The few are the first of each array. In a recurrence a step computes a part of an array, its
    entries at one time; the first two of these steps are enough, of which the second has a state
    before it. Of a copy, they are those that are selected of the original.
    """
    sizes = [math.prod(step.equation.shape) for step in equations.steps]
    if not is_long(equations):
        pairs = zip(equations.steps, sizes, strict=True)
        return [rows_of(equations, step, size, undecided, TERMS)[0] for step, size in pairs]
    seen = Counter[ArrayId]()
    selected: set[tuple[ArrayId, tuple[int, ...]] | None] = set()
    rows_of_steps = []
    for step, size in zip(equations.steps, sizes, strict=True):
        seen[step.defines] += 1
        is_whole = len(equations.by_definition[step.defines]) == 1
        count = FEW if is_whole else FEW // 2 if seen[step.defines] <= 2 else 0
        is_copy = isinstance(step.equation.body, Ref)
        rows, _ = rows_of(equations, step, size if is_copy else count, undecided, TERMS)
        copied = [row for row in rows if is_copy and _original(row) in selected]
        rows = copied or rows[:count]
        selected |= {(step.defines, row.left.at) for row in rows}
        rows_of_steps.append(rows)
    return rows_of_steps


def _original(row: WorkedLine) -> tuple[ArrayId, tuple[int, ...]] | None:
    """Return the array and the place of the entry that a row copies, if it is one."""
    return (row.step.ids[row.right.name], row.right.at) if isinstance(row.right, Spot) else None


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
