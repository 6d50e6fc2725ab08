"""Which whole numbers an input or a target may be, read from the formulas."""

from typing import Any

import numpy as np

from jaxnn.explanation.equations import Equations
from jaxnn.explanation.language.expressions import Ref, refs
from jaxnn.losses import BinaryCrossEntropy, Hinge, PerceptronCriterion, SigmoidBinaryCrossEntropy

BINARY = {BinaryCrossEntropy: (0, 1), SigmoidBinaryCrossEntropy: (0, 1), Hinge: (-1, 1), PerceptronCriterion: (-1, 1)}


def allowed_integers(equations: Equations, loss: Any) -> dict[str, tuple[int, ...]]:
    """Give the allowed values of each integer array that nothing defines."""
    binary = {"t": BINARY[type(loss)]} if type(loss) in BINARY and "t" in _integers(equations) else {}
    return binary | pointers(equations)


def _integers(equations: Equations) -> list[str]:
    return [name for name in equations.free if np.issubdtype(np.asarray(equations.values[name]).dtype, np.integer)]


def pointers(equations: Equations) -> dict[str, tuple[int, ...]]:
    """Give the integers that point into an axis, such as classes and tokens: as many as that has."""
    integers, allowed = _integers(equations), {}
    for step in equations.steps:
        for ref in refs(step.renamed.body):
            for part, size in zip(ref.at or (), np.shape(equations.values[ref.name]), strict=True):
                if isinstance(part, Ref) and part.name in integers:
                    allowed[part.name] = tuple(range(size))
    return allowed
