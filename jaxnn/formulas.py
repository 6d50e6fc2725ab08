"""Formulas: the mathematics of a layer in index notation, beside the code that computes it.

A layer or loss states its formulas in one attribute, ``formulas``. The functions that explain a
network read it; the functions that train a network do not::

    formulas = Formulas("y = σ(x)", "dx = y * (1 - y) * dy")

There is one equation on each line, in Python's notation.

* **A name** stands for an array. It is one of the input ``x`` (or the fields of a tuple in its
  place), the output ``y``, the fields of the parameters, ``dz`` for the derivative of the loss by
  z, settings such as ``slope``, and the names that an equation above defines. In a loss, ``y`` is
  the prediction, ``t`` the target, ``J`` the value, and ``dy`` the derivative. In a combinator,
  ``f1`` is the output of its first child, and ``df1`` the derivative that this child returns;
  ``x1`` and ``dy1`` are the input and the output derivative of the child, if they differ from those
  of the combinator.
* **An entry** is ``y[n, o]``. The letters on the left side are free; there, ``j:3`` states that j
  has 3 values, in case no array determines that number. ``n`` is the index of the batch.
* **A sum** is ``sum(x[n, i] * w[i, o] for i in I)``, over all i that fit the arrays, or over
  ``range(3)``; ``max`` and ``min`` are written likewise.
* If an array has more axes than letters, the first letter stands for the additional axes too: ``n``
  then indexes batch and time, as in the code. An equation without brackets holds entry by entry.
* An entry outside an array is 0, as with zero padding. ``guard(y)`` is y, or a tiny number where y
  is 0.

No formula is trusted: the tests evaluate each one independently, and compare it with the output of
the layer. Formulas from outside this library are evaluated and compared when they are explained.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, PyTree

NOTHING: Mapping[str, Array | np.ndarray] = MappingProxyType({})


class Formulas(NamedTuple):
    """The equations of both passes.

    Attributes:
        forward: the equations that define ``y`` (for a loss ``J``), one on each line.
        backward: the equations that define ``dx``, and ``dw`` for each parameter w (for a loss
            ``dy``).
        given: the arrays that the equations use besides input, output, parameters and settings, by
            name, such as a random mask.
    """

    forward: str
    backward: str
    given: Mapping[str, Array | np.ndarray] = NOTHING


def formulas_of(op: object, x: PyTree, context: PyTree) -> Formulas | None:
    """Return the formulas of a layer or loss, or None if it states none.

    They may depend on sizes and on the training mode; ``formulas`` is then a method.

    Args:
        op: a layer or a loss.
        x: the input of the layer, or the prediction.
        context: the cache of the layer, or the target of the loss.
    """
    stated = getattr(op, "formulas", None)
    return stated(x, context) if callable(stated) else stated
