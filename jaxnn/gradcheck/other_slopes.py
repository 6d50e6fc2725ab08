"""The slope of one activation in the place of that of another."""

import functools
from collections.abc import Iterator

from jaxnn.formulas import Formulas
from jaxnn.formulas.expressions import Equation, Ref, refs, replace
from jaxnn.formulas.names import Names
from jaxnn.formulas.reading import read
from jaxnn.gradcheck.edits import Edit
from jaxnn.layers import ReLU, Sigmoid, SiLU, Softplus, Tanh
from jaxnn.layers.activations import Entrywise

COMMON = (Sigmoid(), Tanh(), ReLU(), Softplus(), SiLU())


@functools.cache
def _slope(activation: Entrywise) -> Equation:
    """Return the stated derivative, entry by entry, of arrays of any shape."""
    stated: Formulas = activation.formulas  # type: ignore[attr-defined]
    shapes = dict.fromkeys(("x", "y", "dx", "dy"), (1,))
    return read(stated.backward, Names(shapes, {}))[0]


def other_slopes(op: object, equation: Equation) -> Iterator[Edit]:
    """Enumerate the derivatives of other activations, for the line that has that of ``op``."""
    if not isinstance(op, Entrywise) or equation.name != "dx":
        return
    for other in COMMON:
        if type(other) is not type(op):
            body = replace(_slope(other).body, lambda ref: Ref(ref.name, equation.at))
            if {ref.name for ref in refs(body)} <= {"x", "y", "dy"}:
                name = type(other).__name__
                yield Edit("slope", f"it is the derivative of {name}", equation._replace(body=body))
