"""Which whole numbers an input or a target may be, read from the formulas."""

from typing import Any

import numpy as np

from jaxnn.explanation.expressions import Ref, refs
from jaxnn.explanation.tape import Tape
from jaxnn.losses import BinaryCrossEntropy, Hinge, PerceptronCriterion, SigmoidBinaryCrossEntropy

BINARY = {BinaryCrossEntropy: (0, 1), SigmoidBinaryCrossEntropy: (0, 1), Hinge: (-1, 1), PerceptronCriterion: (-1, 1)}


def allowed_integers(tape: Tape, loss: Any) -> dict[str, tuple[int, ...]]:
    """Give the allowed values of each integer array that nothing defines."""
    binary = {"t": BINARY[type(loss)]} if type(loss) in BINARY and "t" in _integers(tape) else {}
    return binary | pointers(tape)


def _integers(tape: Tape) -> list[str]:
    return [name for name in tape.free if np.issubdtype(np.asarray(tape.values[name]).dtype, np.integer)]


def pointers(tape: Tape) -> dict[str, tuple[int, ...]]:
    """Give the integers that point into an axis, such as classes and tokens: as many as that has."""
    integers, allowed = _integers(tape), {}
    for step in tape.steps:
        for ref in refs(step.renamed.body):
            for part, size in zip(ref.at or (), np.shape(tape.values[ref.name]), strict=True):
                if isinstance(part, Ref) and part.name in integers:
                    allowed[part.name] = tuple(range(size))
    return allowed
