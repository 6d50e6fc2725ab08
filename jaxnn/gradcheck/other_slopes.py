"""The slope of one activation in the place of that of another."""

import functools
from collections.abc import Iterator
from dataclasses import fields

from jaxnn.formulas import Formulas
from jaxnn.formulas.expressions import Equation, Expr, Ref, replace
from jaxnn.formulas.names import Names
from jaxnn.formulas.reading import read
from jaxnn.gradcheck.edits import Edit
from jaxnn.layers import LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from jaxnn.layers.activations import Entrywise

COMMON = (Sigmoid(), Tanh(), ReLU(), LeakyReLU(), Softplus(), SiLU())


@functools.cache
def _slopes(activation: Entrywise) -> tuple[Expr, ...]:
    """Return the stated derivative of y, and the same with the activation's own value for y."""
    stated: Formulas = activation.formulas  # type: ignore[attr-defined]
    settings = {field.name: getattr(activation, field.name) for field in fields(activation)}  # type: ignore[arg-type]
    names = Names(dict.fromkeys(("x", "y", "dx", "dy"), (1,)), settings)
    (forward,), (backward,) = read(stated.forward, names), read(stated.backward, names)
    own = replace(backward.body, lambda ref: forward.body if ref.name == "y" else ref)
    return backward.body, own


def other_slopes(op: object, equation: Equation) -> Iterator[Edit]:
    """Enumerate the derivatives of other activations, for the line that has that of ``op``."""
    if not isinstance(op, Entrywise) or equation.name != "dx":
        return
    for other in COMMON:
        if type(other) is not type(op):
            words = f"it is the derivative of {type(other).__name__}"
            for stated in _slopes(other):
                body = replace(stated, lambda ref: Ref(ref.name, equation.at))
                yield Edit("slope", words, equation._replace(body=body))
