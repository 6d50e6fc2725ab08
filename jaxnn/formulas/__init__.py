"""Formulas: the mathematics of a layer in index notation, beside the code that computes it.

A layer or loss states its formulas once, as text, in one attribute, ``formulas``. ``help()`` shows
them, and the functions that explain a network or grade a gradient read them; the functions that
train a network do not::

    formulas = Formulas("y = σ(x)", "dx = y * (1 - y) * dy")

There is one equation on each line, in Python's notation.

* **A name** stands for an array. It is one of the input ``x`` (or the fields of a tuple in its
  place), the output ``y``, the fields of the parameters, ``dz`` for the derivative of the loss by
  z, and the names that equations define. In a loss, ``y`` is the prediction, ``t`` the target,
  ``J`` the value, and ``dy`` the derivative. Settings are called by their names: ``slope``,
  ``stride[0]``.
* **An entry** is ``y[n, o]``. The letters on the left side are free; there, ``j:3`` states that j
  has 3 values, in case no array determines that number. ``n`` is the index of the batch. The left
  side may also be a part of an array: ``z[n, H + j]`` is the second block of H columns.
* **A sum** is ``sum(x[n, i] * w[i, o] for i in I)``, over all i that fit the arrays, or over
  ``range(3)``. I is then the number of values of i, in the other equations too. ``mean``, ``max``
  and ``min`` are written likewise, and ``for n in B if x[n] == v`` restricts them.
* **More axes than letters**: ``x[n, *p, c]`` lets p stand for any number of axes. If an array has
  more axes than letters, the first letter stands for the additional axes too: ``n`` then indexes
  batch and time, as in the code. An equation without brackets holds entry by entry, and
  ``y.flat[m] = x.flat[m]`` in row-major order, whatever the shapes.
* **An entry outside an array is 0**, as with zero padding, and so is one at an index that is no
  integer. ``guard(y)`` is y, or a tiny number where y is 0.
* **An array that is absent**, such as the bias of a layer without one, takes the terms with it in
  which it is a factor. A condition on it holds, since nothing is excluded.
* **A recurrence** is ``for t in T:`` with the equations of a step below it, and
  ``for t in T[::-1]:`` one that begins at the last step. ``h[n, -1, j] = state[n, j]`` states what
  comes before the first step; without it, that is 0.
* **A choice between formulas** is ``if output == "last":``, with settings only.
* **In a combinator**, ``f[0]`` is the output of its first child, and ``df[0]`` the derivative that
  this child returns; ``x[0]`` and ``dy[0]`` are the input and the output derivative of the child,
  if they differ from those of the combinator. ``for b in range(branches)`` goes through several.

What else the equations use, such as a random mask, a layer returns by name from a method
``formula_values(x, cache)``, and a loss from ``formula_values(prediction, target)``. A value is an
array, a number, a text, a tuple of numbers, None for an array that is absent, or the
:class:`SameAs` another array.

A layer can say what an array in its equations means that has no usual name: ``formula_notes``, a
class attribute, is a dictionary from names to words.

No formula is trusted: the tests evaluate each one independently, and compare it with the output of
the layer. Formulas from outside this library are evaluated and compared when they are explained.
"""

import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import PyTree


class Formulas(NamedTuple):
    """The equations of both passes.

    Attributes:
        forward: the equations that define ``y`` (for a loss ``J``), one on each line.
        backward: the equations that define ``dx``, and ``dw`` for each parameter w (for a loss
            ``dy``).
    """

    forward: str
    backward: str

    def __str__(self) -> str:
        """Return both passes as text."""
        forward, backward = (textwrap.dedent(text).strip("\n") for text in self)
        return f"{forward}\n\n{backward}"


class SameAs(NamedTuple):
    """Another array, which has one more name in the formulas."""

    name: str


def formulas_of(op: object) -> Formulas | None:
    """Return the formulas of a layer or loss, or None if it states none."""
    return getattr(op, "formulas", None)


def formula_values_of(op: object, x: PyTree, context: PyTree) -> Mapping[str, Any]:
    """Return what the formulas of a layer or loss use besides its arrays and settings.

    Args:
        op: a layer or a loss.
        x: the input of the layer, or the prediction.
        context: the cache of the layer, or the target of the loss.
    """
    values = getattr(op, "formula_values", None)
    return {} if values is None else values(x, context)


def note_on(op: object, name: str) -> str:
    """Return what a layer says of an array in its formulas, or nothing."""
    return getattr(op, "formula_notes", {}).get(name, "")


def documented(doc: str | None, formulas: object) -> str | None:
    """Return a docstring with the formulas below it."""
    if not isinstance(formulas, Formulas) or doc is None:
        return doc
    text = textwrap.indent(str(formulas), "        ")
    return f"{doc.rstrip()}\n\n    Formulas, in the notation of :mod:`jaxnn.formulas`::\n\n{text}\n"
