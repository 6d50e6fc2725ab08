"""The weighted mean that every loss is, and the checks that losses share."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnn.checks import (
    InputError,
    check_floating,
    check_labels,
    check_like,
    check_not_empty,
    check_shape,
    is_concrete,
)
from jaxnn.formulas import Formulas
from jaxnn.numerics import upcast


def check_binary(who: Any, prediction: Any, target: Any, labels: tuple[int, ...] = (0, 1)) -> None:
    """Check labels of the prediction's shape, among two."""
    check_not_empty(who, "prediction", prediction)
    check_floating(who, "prediction", prediction)
    check_like(who, "target", target, prediction, "the prediction")
    check_labels(who, "target", target, labels)


def check_regression(who: Any, prediction: Any, target: Any) -> None:
    """Check a target of the prediction's shape."""
    check_not_empty(who, "prediction", prediction)
    check_floating(who, "prediction", prediction)
    check_like(who, "target", target, prediction, "the prediction")


def check_distribution(who: Any, target: Any) -> None:
    """Check that rows are probabilities, where values are concrete."""
    if is_concrete(target):
        sums, lowest = np.asarray(target).sum(axis=-1), np.asarray(target).min()
        if lowest < 0 or np.abs(sums - 1).max() > 1e-2:
            worst = sums.flat[np.abs(sums - 1).argmax()]
            raise InputError(f"{who}: expected target rows of probabilities, got one that sums to {worst:g}.")


def as_numbers(target: Any, prediction: Array) -> Array:
    """Give a target in the precision in which the loss is computed, that of the prediction or float32."""
    return jnp.asarray(target, upcast(prediction).dtype)


def is_integer(target: Any) -> bool:
    """Whether a target is of an integer dtype, that is of classes."""
    return jnp.issubdtype(jnp.result_type(target), jnp.integer)


def valid_classes(classes: Array, z: Array) -> Array:
    """Give ignored positions, which have no share, some class to look up."""
    return jnp.clip(classes, 0, z.shape[-1] - 1)


def over_entries(share: Any) -> Any:
    """Let a position's share stand for all entries along the last axis."""
    return share if isinstance(share, float) or jnp.ndim(share) == 0 else share[..., None]


def share_of(who: Any, shape: tuple[int, ...], weights: Any, prediction: Any, counted: Any = None) -> Any:
    """Give each position's share of the mean: 1/n, or w / Σ w (all 0 where every weight is 0)."""
    if weights is None and counted is None:
        return 1 / math.prod(shape)
    weights = jnp.ones((), prediction.dtype) if weights is None else weights
    check_shape(who, "weights", weights, shape[: jnp.ndim(weights)])
    if is_concrete(weights) and not (np.asarray(weights) >= 0).all():
        raise InputError(f"{who}: expected weights of at least 0, got {np.asarray(weights).min()}.")
    w = upcast(jnp.asarray(weights, prediction.dtype))
    w = jnp.broadcast_to(w.reshape(w.shape + (1,) * (len(shape) - w.ndim)), shape)
    w = w if counted is None else jnp.where(counted, w, 0)
    total = w.sum()
    return jnp.where(total > 0, w / jnp.where(total > 0, total, 1), 0)


def mean_of(share: Any, cost: Array) -> Array:
    """Return Σ share · cost, where an entry without a share does not count, be it infinite."""
    if isinstance(share, float):
        return share * cost.sum()
    return jnp.where(share > 0, share * jnp.where(share > 0, cost, 0), 0).sum()


def smallest(x: Array) -> float:
    """Give the smallest normal number of an array's dtype."""
    return float(jnp.finfo(x.dtype).tiny)


def mean_formulas(cost: str, slope: str, positions: tuple[int, ...], entry: str = "n") -> Formulas:
    """State J, the mean of a cost over all positions n, and dy, its slope."""
    count = math.prod(positions)
    mean = "" if count == 1 else f" / {count}"
    return Formulas(f"J = sum({cost} for n in B){mean}", f"dy[{entry}] = {f'({slope}){mean}' if mean else slope}")
