"""The weighted mean, the base class of entrywise losses, and the checks that losses share."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

from jaxnn.checks import (
    InputError,
    check_array,
    check_floating,
    check_labels,
    check_like,
    check_not_empty,
    check_shape,
    check_weights,
    is_concrete,
    is_kind,
    kind_of,
)
from jaxnn.numerics import upcast
from jaxnn.types import AnyArray

# ── Entrywise losses ────────────────────────────────────────────────────────────────────────────


class EntryCache(NamedTuple):
    """The values that an entrywise loss keeps for its backward pass.

    Attributes:
        prediction: the predictions, at which the slope is taken, (*n).
        target: the values with which the predictions were compared, (*n).
        share: the share of each entry in the mean, (*n), or one number for all.
    """

    prediction: Array
    target: AnyArray
    share: Any


class EntrywiseLoss:
    """The (weighted) mean over all entries of a cost ℓ(y, t), for a prediction y and a target t.

    Each loss only has to define two equations: ``_cost`` computes ℓ, and ``_slope`` computes ∂ℓ/∂y.
    """

    def check(self, prediction: PyTree, target: AnyArray) -> None:
        """Require a target of real numbers with the prediction's shape."""
        check_entries(self, prediction, target)

    def forward(
        self,
        prediction: Float[Array, "*n"],
        target: Num[AnyArray, "*n"],
        weights: Num[AnyArray, "..."] | None = None,
    ) -> tuple[Float[Array, ""], EntryCache]:
        """Return the mean cost."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        cost = self._cost(upcast(prediction), as_numbers(target, prediction))
        return mean_of(share, cost), EntryCache(prediction, target, share)

    def backward(self, cache: EntryCache) -> Float[Array, "*n"]:
        """Return share · ∂ℓ/∂y."""
        prediction, target, share = cache
        slope = self._slope(upcast(prediction), as_numbers(target, prediction))
        return shared(share, slope).astype(prediction.dtype)

    def _cost(self, y: Array, t: Array) -> Array:
        raise NotImplementedError

    def _slope(self, y: Array, t: Array) -> Array:
        raise NotImplementedError


# ── The mean ────────────────────────────────────────────────────────────────────────────────────


def share_of(
    who: object,
    shape: tuple[int, ...],
    weights: AnyArray | None,
    prediction: PyTree,
    counted: Any = None,
) -> Any:
    """Return the share of each position in the mean.

    It is 1/n without weights and w / Σ w with weights; if every weight is 0, all shares are 0.
    """
    if weights is None and counted is None:
        return 1 / math.prod(shape)
    if weights is None:
        weights = jnp.ones(shape[:1], prediction.dtype)
    check_array(who, "weights", weights)
    check_shape(who, "weights", weights, shape[: max(1, jnp.ndim(weights))])
    check_weights(who, weights)
    w = upcast(jnp.asarray(weights, prediction.dtype))
    w = jnp.broadcast_to(w.reshape(w.shape + (1,) * (len(shape) - w.ndim)), shape)
    w = w if counted is None else jnp.where(counted, w, 0)
    w = w / _or_one(w.max())  # so that the sum neither overflows nor vanishes
    return w / _or_one(w.sum())


def _or_one(total: Array) -> Array:
    return jnp.where(total > 0, total, 1)


def mean_of(share: Any, cost: Array) -> Array:
    """Return Σ share · cost, where entries of share 0 do not count, even if they cost infinity."""
    return share * cost.sum() if isinstance(share, float) else shared(share, cost).sum()


def shared(share: Any, values: Array) -> Array:
    """Return share · values, which is 0 wherever the share is 0, whatever the value there."""
    if isinstance(share, float):
        return share * values
    return jnp.where(share > 0, share * jnp.where(share > 0, values, 0), 0)


def over_entries(share: Any) -> Any:
    """Return the shares with a new last axis, so that they broadcast over the entries along it."""
    return share if isinstance(share, float) else share[..., None]


# ── Checks, and targets as numbers ──────────────────────────────────────────────────────────────


def check_entries(who: object, prediction: PyTree, target: AnyArray) -> None:
    """Check for a floating prediction that is not empty, and a real target of the same shape."""
    check_prediction(who, prediction)
    check_like(who, "target", target, prediction, "the prediction")
    if is_kind(target, jnp.complexfloating):
        raise InputError(f"{who}: expected a real target, got {jnp.result_type(target)}.")


def check_prediction(who: object, prediction: PyTree) -> None:
    """Check that a prediction is one floating array that is not empty."""
    if not hasattr(prediction, "shape"):
        raise InputError(
            f"{who}: expected the prediction to be one array, got {kind_of(prediction)}. "
            "A recurrent layer with return_state=True returns its output and its state."
        )
    check_not_empty(who, "prediction", prediction)
    check_floating(who, "prediction", prediction)


def check_binary(
    who: object, prediction: PyTree, target: AnyArray, labels: tuple[int, ...]
) -> None:
    """Check that the target has the prediction's shape and holds only the two labels."""
    check_entries(who, prediction, target)
    check_labels(who, "target", target, labels)


def check_distribution(who: object, target: AnyArray) -> None:
    """Check that each row of a target holds probabilities, where values are concrete."""
    if is_concrete(target):
        sums, lowest = np.asarray(target).sum(axis=-1), np.asarray(target).min()
        if lowest < 0 or np.abs(sums - 1).max() > 1e-2:
            worst = sums.flat[np.abs(sums - 1).argmax()]
            raise InputError(
                f"{who}: expected target rows of probabilities, got one that sums to {worst:g}."
            )


def as_numbers(target: AnyArray, prediction: Array) -> Array:
    """Return a target in the precision of the loss: the prediction's, but at least float32."""
    return jnp.asarray(target, upcast(prediction).dtype)


def is_integer(target: AnyArray) -> bool:
    """Return whether a target has an integer dtype, which means that it holds classes."""
    return is_kind(target, jnp.integer)


def valid_classes(classes: Array, z: Array) -> Array:
    """Return classes that can be looked up at every position.

    An ignored label may lie outside [0, K). It is clipped into this range; any class will do there,
    as ignored positions have no share in the mean.
    """
    return jnp.clip(classes, 0, z.shape[-1] - 1)
