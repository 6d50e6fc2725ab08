"""The integers that an input or a target may contain, as read from the formulas."""

import numpy as np

from jaxnn.explanation.equations import Equations
from jaxnn.explanation.language.expressions import Ref, refs
from jaxnn.types import Loss


def allowed_integers(equations: Equations, loss: Loss) -> dict[str, tuple[int, ...]]:
    """Return the allowed values of each integer array that no equation defines."""
    labels = getattr(loss, "labels", None)
    stated = {"t": labels} if labels and "t" in _integers(equations) else {}
    return stated | pointers(equations)


def _integers(equations: Equations) -> list[str]:
    return [
        name
        for name in equations.free
        if np.issubdtype(np.asarray(equations.values[name]).dtype, np.integer)
    ]


def pointers(equations: Equations) -> dict[str, tuple[int, ...]]:
    """Return the allowed values of integer arrays that index an axis, such as classes and tokens.

    There are as many values as the axis has entries.
    """
    integers, allowed = _integers(equations), {}
    for step in equations.steps:
        for ref in refs(step.renamed.body):
            for part, size in zip(ref.at or (), np.shape(equations.values[ref.name]), strict=True):
                if isinstance(part, Ref) and part.name in integers:
                    allowed[part.name] = tuple(range(size))
    return allowed
