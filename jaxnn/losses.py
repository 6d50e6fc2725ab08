"""Losses: the value, and the derivative with respect to the prediction, derived by hand.

Each is a mean over all entries of the prediction, so the ``1/B`` of the batch is in here and
nowhere else. With sample weights it is the weighted mean ``Σ w ℓ / Σ w``::

    value       = Σ share ℓ(prediction, target)        share = w / Σ w, or 1/n without weights
    dprediction = share ℓ'(prediction, target)

Values and sums are computed in at least float32; the gradient has the dtype of the prediction.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxnn.checks import (
    InputError,
    check_floating,
    check_labels,
    check_like,
    check_not_empty,
    check_shape,
    is_concrete,
)
from jaxnn.types import AnyArray, loss


@loss
class BinaryCrossEntropy:
    """The cross-entropy of a probability p with a label t in {0, 1}: -log p for 1, -log(1 - p) for 0.

    Exact at both ends: a certain and right prediction costs 0, a certain and wrong one infinity.
    There the derivative, infinite too, is given as the largest finite slope, so that a saturated
    sigmoid in front of it yields 0 and not 0 · ∞. Prefer :class:`SigmoidBinaryCrossEntropy` for
    training: it takes the logit, and never saturates.
    """

    def check(self, prediction: Any, target: Any) -> None:
        """Require probabilities, and labels in {0, 1} of the same shape."""
        _check_binary(self, prediction, target)
        if is_concrete(prediction):
            p = np.asarray(prediction)
            if ((p < 0) | (p > 1)).any():
                raise InputError(f"{self}: expected probabilities in [0, 1], got {p[(p < 0) | (p > 1)][0]}.")

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of -log q, with q the probability that the prediction gives to the label."""
        self.check(prediction, target)
        share = _share(self, prediction.shape, weights, prediction)
        p = _wide(prediction)
        q = jnp.where(target == 1, p, 1 - p)
        cost = jnp.where(q == 0, jnp.inf, -jnp.log(jnp.maximum(q, _smallest(q))))
        # prediction: for q, one subtraction away; target: which of p and 1 - p it was
        return _mean(share, cost), (prediction, target, share)

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · (-1/p) where the label is 1, share · 1/(1 - p) where it is 0."""
        prediction, target, share = cache
        p = _wide(prediction)
        q = jnp.where(target == 1, p, 1 - p)
        dq = -share / jnp.maximum(q, _smallest(q))
        return jnp.where(target == 1, dq, -dq).astype(prediction.dtype)


@loss
class SigmoidBinaryCrossEntropy:
    """Binary cross-entropy of a logit z, that is of p = σ(z), in the stable fused form.

    With m = (1 - 2t) z, the margin by which the logit is on the wrong side, the cost is
    softplus(m) = log(1 + exp(m)), finite for any finite z.
    """

    def check(self, prediction: Any, target: Any) -> None:
        """Require labels in {0, 1} of the same shape as the logits."""
        _check_binary(self, prediction, target)

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of softplus(m)."""
        self.check(prediction, target)
        share = _share(self, prediction.shape, weights, prediction)
        z = _wide(prediction)
        m = jnp.where(target == 1, -z, z)
        return _mean(share, jnp.logaddexp(m, 0)), (prediction, target, share)  # each needed; m is one select away

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · (σ(z) - t), written as ±σ(m), which does not cancel when both are near 1."""
        prediction, target, share = cache
        z = _wide(prediction)
        dm = share * jax.nn.sigmoid(jnp.where(target == 1, -z, z))
        return jnp.where(target == 1, -dm, dm).astype(prediction.dtype)


# ── What losses share ───────────────────────────────────────────────────────────────────────────


def _check_binary(who: Any, prediction: Any, target: Any) -> None:
    check_not_empty(who, "prediction", prediction)
    check_floating(who, "prediction", prediction)
    check_like(who, "target", target, prediction, "the prediction")
    check_labels(who, "target", target, (0, 1))


def _share(who: Any, shape: tuple[int, ...], weights: Any, prediction: Any) -> Any:
    """Give each entry's share of the mean: 1/n, or w / Σ w (all 0 where every weight is 0)."""
    if weights is None:
        return 1 / math.prod(shape)
    check_shape(who, "weights", weights, shape[: jnp.ndim(weights)])
    if is_concrete(weights) and not (np.asarray(weights) >= 0).all():
        raise InputError(f"{who}: expected weights of at least 0, got {np.asarray(weights).min()}.")
    w = _wide(jnp.asarray(weights, prediction.dtype))
    w = jnp.broadcast_to(w.reshape(w.shape + (1,) * (len(shape) - w.ndim)), shape)
    total = w.sum()
    return jnp.where(total > 0, w / jnp.where(total > 0, total, 1), 0)


def _mean(share: Any, cost: Array) -> Array:
    """Return Σ share · cost, where an entry without a share does not count, be it infinite."""
    if isinstance(share, float):
        return share * cost.sum()
    return jnp.where(share > 0, share * jnp.where(share > 0, cost, 0), 0).sum()


def _wide(x: Array) -> Array:
    """Raise half precision to float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _smallest(x: Array) -> float:
    return float(jnp.finfo(x.dtype).tiny)
