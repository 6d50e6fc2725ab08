"""The contract of the library. Read this file first.

Everything is built from two kinds of thing, and this page defines both.

A **layer** is three functions that belong together::

    init(key, x)                  -> params
    forward(params, x, key=None)  -> (y, cache)
    backward(params, cache, dy)   -> (dparams, dx)

A **loss** is two::

    forward(prediction, target, weights=None) -> (value, cache)
    backward(cache)                           -> dprediction

The rules that hold everywhere:

* **A layer is a value.** It holds plain settings and nothing else: no arrays, no state, no
  parameters. ``Dense(3) == Dense(3)``, it hashes, pickles, prints as the code that builds it, and
  goes to JSON and back. JAX treats it as a static part of the program, so it passes through
  ``jit``, ``vmap`` and ``scan`` as it is.
* **Parameters are pytrees**, made by ``init`` and passed in; ``()`` where there are none.
* **The cache** is a pytree that holds exactly what ``backward`` needs and nothing it could take
  from ``params``.
* **``backward`` is derived by hand.** ``dparams`` has the structure, shapes and dtypes of
  ``params``; ``dx`` has those of ``x`` (``None`` when ``x`` is integer).
* **The batch comes first.** A layer *sums* its parameter gradients over the batch. The ``1/B`` of
  a mean belongs to the loss, and to nothing else.
* ``key=None`` means inference; a key means training (dropout draws from it).

**Running statistics** (BatchNorm's mean and variance) are state that is not trained. They live among
the parameters, wrapped in :class:`Running`, where their gradient is 0. A layer that has some, or has
children that do, adds one method, and no signature of a layer without them is any wider for it::

    update_running(params, cache) -> params

which returns the parameters with the statistics updated by what that forward pass saw. The function
:func:`update_running` calls it where there is one; :func:`split_running` takes the trained parameters and
the statistics apart, so that no optimizer touches the latter (weight decay would).

**What predictions mean** a loss may say itself, for metrics and labels: ``probabilities(prediction)``,
``classes(prediction)`` and ``true_classes(target)`` give a probability or a class for each position,
``counted(target)`` says which positions count (None for all), and ``labels`` names the labels allowed.

**Formulas** are what a layer says of itself, for whoever wants to see the numbers worked out: an optional
attribute ``formulas``, described in ``jaxnn.formulas``. Nothing that trains reads it.

The shape legend, used in every file::

    B  batch          T  time or sequence      I  input features
    O  output features  H, W  height, width    C  channels

``dz`` always means the derivative of the loss with respect to ``z``: ``x, dx``; ``w, dw``; ``y, dy``.
"""

import dataclasses
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

Params: TypeAlias = Any  # a pytree of arrays
Cache: TypeAlias = Any
AnyArray: TypeAlias = Array | np.ndarray  # what functions take that users call with their data


@runtime_checkable
class Layer(Protocol):
    """A differentiable function with parameters, and its hand-derived derivative."""

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        """Draw parameters for inputs shaped like ``x``, an example batch or its ShapeDtypeStruct."""

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        """Compute the output, and keep what ``backward`` will need."""

    def backward(self, params: Params, cache: Cache, dy: PyTree) -> tuple[Params, PyTree]:
        """Take the derivative with respect to the output to those of parameters and input."""


@runtime_checkable
class Loss(Protocol):
    """A scalar objective of predictions and targets, and its hand-derived derivative."""

    def check(self, prediction: PyTree, target: PyTree) -> None:
        """Raise InputError for a target outside the loss's domain (values only where concrete)."""

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
    """State among the parameters that is carried along, not trained: any pytree of arrays."""

    value: T


def update_running(layer: Any, params: Params, cache: Cache) -> Params:
    """Return the parameters with their running statistics updated by one forward pass."""
    return layer.update_running(params, cache) if hasattr(layer, "update_running") else params


advance = update_running  # its earlier name


def split_running(params: Params) -> tuple[Params, Params]:
    """Split parameters into the trained ones and the running statistics, each with None for the other."""
    is_running = lambda node: isinstance(node, Running)  # noqa: E731
    trained = jax.tree.map(
        lambda node: None if is_running(node) else node, params, is_leaf=is_running
    )
    running = jax.tree.map(
        lambda node: node if is_running(node) else None, params, is_leaf=is_running
    )
    return trained, running


def join_running(trained: Params, running: Params) -> Params:
    """Put together again what :func:`split_running` took apart."""
    is_gap = lambda node: node is None or isinstance(node, Running)  # noqa: E731
    return jax.tree.map(lambda a, b: b if a is None else a, trained, running, is_leaf=is_gap)


def check_input(layer: Any, x: PyTree) -> None:
    """Check an input's values where they are known: for callers that are about to trace it.

    A layer for which shapes do not tell everything (token ids, lengths) adds a method ``check_input(x)``;
    combinators hand it on to whoever sees x first.
    """
    if hasattr(layer, "check_input"):
        layer.check_input(x)
