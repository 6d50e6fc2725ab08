"""Formulas: what a layer computes, in index notation, beside the code that computes it.

A layer or loss states its formulas in one attribute, ``formulas``, read by what explains a network and
by nothing that trains one::

    formulas = Formulas("y = σ(x)", "dx = y * (1 - y) * dy")

One equation a line, in Python's notation.

* **A name** is an array: the input ``x`` (or the fields of a tuple that comes in its place), the output
  ``y``, the parameters by their fields, ``dz`` for the derivative of the loss by z, settings such as
  ``slope``, and whatever an equation above has defined. A loss says ``y`` for the prediction, ``t`` for the
  target, ``J`` and ``dy``. A combinator says ``f1`` for what its first child gives and ``df1`` for what that
  child hands back; ``x1`` and ``dy1`` for what the child is given, where it is not the combinator's own.
* **An entry** is ``y[n, o]``. What stands on the left says which letters are free; ``j:3`` there says that
  j counts to 3, where no array tells. ``n`` is the batch.
* **A sum** is ``sum(x[n, i] * w[i, o] for i in I)``, over all i that fit the arrays, or over ``range(3)``;
  ``max`` and ``min`` likewise.
* Where an array has more axes than letters, the first letter stands for the surplus: ``n`` runs over batch
  and time, as in the code. An equation without brackets holds entry by entry.
* An entry outside an array is 0, which is what padding means. ``guard(y)`` is y, kept from being 0.

No formula is trusted: the tests evaluate each one by itself, and compare with what the layer gives; those from
outside this library are evaluated and compared when they are explained.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Formulas(NamedTuple):
    """The equations of both passes.

    Attributes:
        forward: those that give ``y`` (for a loss ``J``), one a line.
        backward: those that give ``dx`` and ``dw`` for each parameter w (for a loss ``dy``).
        given: arrays by name that they use besides input, output, parameters and settings, such as a
            mask that was drawn.
    """

    forward: str
    backward: str
    given: Mapping[str, Any] = NOTHING


def formulas_of(op: Any, x: Any, context: Any) -> Formulas | None:
    """Give the formulas of a layer for an input and its cache, or of a loss for a prediction and target.

    They may depend on both (sizes, training mode): ``formulas`` is then a method. None if there are none.
    """
    stated = getattr(op, "formulas", None)
    return stated(x, context) if callable(stated) else stated
