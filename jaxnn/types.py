"""The contract of the library. Read this file first.

Everything is built from two kinds of objects, and this file defines both.

A **layer** is three functions that belong together::

    init(key, x)                  -> params
    forward(params, x, key=None)  -> (y, cache)
    backward(params, cache, dy)   -> (dparams, dx)

A **loss** is two functions::

    forward(prediction, target, weights=None) -> (value, cache)
    backward(cache)                           -> dprediction

The rules that hold everywhere:

* **A layer is a value.** It holds plain settings and nothing else: no arrays, no state, no
  parameters. ``Dense(3) == Dense(3)``; a layer can be hashed, pickled, and converted to JSON and
  back, and it prints as the code that builds it. JAX treats it as a static part of the program, so
  it passes through ``jit``, ``vmap`` and ``scan`` unchanged.
* **Parameters are pytrees**. They are made by ``init`` and passed to the other functions; they are
  ``()`` where there are none.
* **The cache** is a pytree that holds exactly what ``backward`` needs and nothing that it could
  take from ``params``.
* **``backward`` is derived by hand.** ``dparams`` has the structure, shapes and dtypes of
  ``params``; ``dx`` has those of ``x`` (``None`` when ``x`` has an integer dtype).
* **The batch comes first.** A layer *sums* its parameter gradients over the batch. The ``1/B`` of
  a mean belongs to the loss, and to nothing else.
* ``key=None`` means inference; a key means training (dropout draws from it).

**Running statistics** (BatchNorm's mean and variance) are state that is not trained. They are
stored among the parameters, wrapped in :class:`Running`, and their gradient is 0. A layer that has
some, or whose children have some, adds one method; layers without them need no further argument or
method::

    update_running(params, cache) -> params

This method returns the parameters with the statistics updated from the forward pass that made the
cache. The function :func:`update_running` calls it on layers that have it. :func:`split_running`
separates the trained parameters from the statistics, so that no optimizer changes the latter
(weight decay, for example, would).

**The meaning of predictions** may be defined by the loss itself, for metrics and labels. The
methods ``probabilities(prediction)``, ``classes(prediction)`` and ``true_classes(target)`` return a
probability or a class for each position, ``counted(target)`` returns which positions count (None
for all), and the attribute ``labels`` lists the labels that are allowed.

**Formulas** describe what a layer computes, for readers who want to see the numbers worked out.
They are an optional attribute ``formulas``, described in ``jaxnn.formulas``, and training never
reads it.

The shape legend, used in every file::

    B  batch          T  time or sequence      I  input features
    O  output features  H, W  height, width    C  channels

``dz`` always means the derivative of the loss with respect to ``z``, as in ``x, dx``, in ``w, dw``
and in ``y, dy``.
"""

import dataclasses
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.checks import InputError

Params: TypeAlias = Any  # a pytree of arrays
Cache: TypeAlias = Any
AnyArray: TypeAlias = Array | np.ndarray  # for functions that users call with their own data


@runtime_checkable
class Layer(Protocol):
    """A differentiable function with parameters, and its hand-derived derivative."""

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        """Draw parameters for inputs like ``x``, an example batch or its ShapeDtypeStruct."""

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        """Compute the output, and keep what ``backward`` will need."""

    def backward(self, params: Params, cache: Cache, dy: PyTree) -> tuple[Params, PyTree]:
        """Compute the derivatives for parameters and input from that for the output."""


@runtime_checkable
class Loss(Protocol):
    """A scalar objective of predictions and targets, and its hand-derived derivative."""

    def check(self, prediction: PyTree, target: PyTree) -> None:
        """Raise InputError for a target outside the loss's domain.

        Values are checked only where they are concrete.
        """

    def forward(
        self, prediction: Array, target: AnyArray, weights: AnyArray | None = None
    ) -> tuple[Array, Cache]:
        """Compute the (weighted) mean loss over the batch, and keep what ``backward`` will need."""

    def backward(self, cache: Cache) -> Array:
        """Return the derivative of the value with respect to the prediction."""


T = TypeVar("T")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static(Generic[T]):
    """A plain hashable value carried in a cache as part of the program, not as an array.

    A bare shape tuple in a cache would turn into traced integers when the cache leaves one ``jit``
    and enters another. Wrapped in ``Static`` it stays a Python value.
    """

    value: T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Running(Generic[T]):
    """State among the parameters that is carried along but not trained: any pytree of arrays."""

    value: T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kept(Generic[T]):
    """Parameters that stay in their own precision where those around them are cast."""

    value: T


def update_running(layer: Any, params: Params, cache: Cache) -> Params:
    """Return the parameters with their running statistics updated by one forward pass."""
    return layer.update_running(params, cache) if hasattr(layer, "update_running") else params


advance = update_running  # its earlier name


def split_running(params: Params) -> tuple[Params, Params]:
    """Split parameters into the trained ones and the running statistics.

    Both parts keep the structure of the parameters, with None in the places of the other part.
    """
    is_running = lambda node: isinstance(node, Running)  # noqa: E731
    trained = jax.tree.map(
        lambda node: None if is_running(node) else node, params, is_leaf=is_running
    )
    running = jax.tree.map(
        lambda node: node if is_running(node) else None, params, is_leaf=is_running
    )
    return trained, running


def join_running(trained: Params, running: Params) -> Params:
    """Join the two parts into which :func:`split_running` separated the parameters."""
    is_gap = lambda node: node is None or isinstance(node, Running)  # noqa: E731
    structures = [str(jax.tree.structure(part, is_leaf=is_gap)) for part in (trained, running)]
    if structures[0] != structures[1]:
        raise InputError(
            "join_running: expected the two parts into which split_running separated parameters, "
            f"got the structures {structures[0]} and {structures[1]}."
        )
    return jax.tree.map(lambda a, b: b if a is None else a, trained, running, is_leaf=is_gap)


def check_input(layer: Any, x: PyTree) -> None:
    """Check the values of an input where they are known, before the input is traced.

    A layer whose input can be wrong in more than its shape (token ids, lengths) adds a method
    ``check_input(x)``. Combinators pass the check on to the layers that receive x first.
    """
    if hasattr(layer, "check_input"):
        layer.check_input(x)
