"""Which whole numbers an input or a target may be, read from the formulas."""

from typing import Any

import numpy as np

from jaxnn.explanation.equations import Equations
from jaxnn.explanation.language.expressions import Ref, refs


def allowed_integers(equations: Equations, loss: Any) -> dict[str, tuple[int, ...]]:
    """Give the allowed values of each integer array that nothing defines."""
    labels = getattr(loss, "labels", None)
    told = {"t": labels} if labels and "t" in _integers(equations) else {}
    return told | pointers(equations)


def _integers(equations: Equations) -> list[str]:
    return [
        name
        for name in equations.free
        if np.issubdtype(np.asarray(equations.values[name]).dtype, np.integer)
    ]


def pointers(equations: Equations) -> dict[str, tuple[int, ...]]:
    """Give the integers that point into an axis, such as classes and tokens: as many as that has."""
    integers, allowed = _integers(equations), {}
    for step in equations.steps:
        for ref in refs(step.renamed.body):
            for part, size in zip(ref.at or (), np.shape(equations.values[ref.name]), strict=True):
                if isinstance(part, Ref) and part.name in integers:
                    allowed[part.name] = tuple(range(size))
    return allowed
