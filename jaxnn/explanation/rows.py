"""The rows of a table of steps: what is computed, in symbols, with the numbers put in, and the result."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxnn.explanation.equations import Equations, Step
from jaxnn.explanation.language.expand import SHOWN, Spot, write_out
from jaxnn.explanation.language.expressions import Equation, Expr, Num, Ref, replace


class WorkedLine(NamedTuple):
    """One entry of one equation.

    Attributes:
        step: the equation.
        at: which entry.
        left: the entry.
        right: the expression for it, written out, in the layer's own names.
        value: its value.
    """

    step: Step
    at: tuple[int, ...]
    left: Spot
    right: Any
    value: float

    @property
    def is_plain(self) -> bool:
        """Whether the expression is a lone number or entry, so that putting the number in says nothing new."""
        return isinstance(self.right, (Num, Spot))


def rows_of(
    equations: Equations, step: Step, most: int, undecided: bool = False
) -> tuple[list[WorkedLine], int]:
    """Give the first ``most`` rows of a step, and how many there are in all.

    With ``undecided`` a choice that depends on what is yet to be computed is left open.
    """
    unknown = (
        {name for name, key in step.ids.items() if key not in equations.free} if undecided else ()
    )
    values = {
        name: equations.values[key] for name, key in step.ids.items() if key in equations.values
    }
    rows = []
    for at in _first(step.equation.shape, most):
        left = Spot(step.equation.name, at)
        right = write_out(step.equation, at, values, SHOWN, unknown)
        rows.append(WorkedLine(step, at, left, right, float(values[step.equation.name][at])))
    return rows, int(np.prod(step.equation.shape))


def _first(shape: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    for k, at in enumerate(np.ndindex(shape)):
        if k == most:
            return
        yield at


def place(equations: Equations, identity: str, ref: Spot | Ref) -> tuple[Any, ...]:
    """Give the indices that are worth writing: not that of a batch of one, nor of a lone number."""
    at, shape = ref.at or (), np.shape(equations.values[identity])
    if identity in equations.batched and shape[:1] == (1,):
        return () if all(size == 1 for size in shape) else at[1:]
    return at


def entry_value(equations: Equations, identity: str, spot: Spot) -> float:
    """Look the number up that an entry stands for."""
    return float(np.asarray(equations.values[identity])[spot.at])


def without_batch_of_one(equation: Equation) -> Expr:
    """Give an equation's right side without sums over a batch of one."""
    lone = {
        letter for letter, size in equation.sizes.items() if letter.startswith("n") and size == 1
    }
    return replace(
        equation.body, lambda ref: ref, lambda letters: tuple(n for n in letters if n not in lone)
    )
