"""The integers that an input or a target may contain, as read from the formulas."""

import numpy as np

from jaxnn.equations import TARGET, ArrayId, Equations
from jaxnn.formulas.expressions import Ref, refs
from jaxnn.types import Loss


def allowed_integers(equations: Equations, loss: Loss) -> dict[ArrayId, tuple[int, ...]]:
    """Return the allowed values of each integer array that no equation defines."""
    labels = getattr(loss, "labels", None)
    stated = {TARGET: labels} if labels and TARGET in _integers(equations) else {}
    return stated | pointers(equations)


def _integers(equations: Equations) -> list[ArrayId]:
    return [
        name
        for name in equations.free
        if np.issubdtype(np.asarray(equations.values[name]).dtype, np.integer)
    ]


def pointers(equations: Equations) -> dict[ArrayId, tuple[int, ...]]:
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


def key(identity: ArrayId) -> str:
    """Return the name of an array in the page's data, such as ``dw@2``."""
    name, layer, is_gradient = identity
    return f"{'d' if is_gradient else ''}{name}" + (f"@{layer}" if layer else "")
