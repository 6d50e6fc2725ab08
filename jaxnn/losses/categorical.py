"""Many classes: logits against classes, distributions against distributions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxnn.checks import InputError, check_floating, check_like, check_not_empty, check_shape, is_concrete
from jaxnn.formulas import Formulas
from jaxnn.losses.mean import (
    as_numbers,
    check_distribution,
    is_integer,
    mean_formulas,
    mean_of,
    over_entries,
    share_of,
    valid_classes,
)
from jaxnn.numerics import upcast
from jaxnn.types import AnyArray, Static
from jaxnn.values import loss


@loss
class SoftmaxCrossEntropy:
    """Cross-entropy of logits z (…, K) with classes: integers (…) in [0, K), or probabilities (…, K).

    ℓ = log Σ_k exp(z_k) - Σ_k t_k z_k, computed without ever forming exp(z) of a large z. The mean is over
    all positions but the ignored ones.

    Args:
        smoothing: ε; the target becomes (1 - ε) t + ε / K (Szegedy et al., 2016).
        ignore: an integer label whose positions do not count, such as that of padding, or None.
    """

    smoothing: float = 0.0
    ignore: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.smoothing, bool) or not 0 <= self.smoothing < 1:
            raise InputError(f"SoftmaxCrossEntropy: expected smoothing in [0, 1), got {self.smoothing!r}.")

    def check(self, prediction: Any, target: Any) -> None:
        """Require classes in [0, K), or rows of probabilities."""
        check_not_empty(self, "prediction", prediction)
        check_floating(self, "prediction", prediction)
        check_shape(self, "prediction", prediction, ("...", "K"))
        if not is_integer(target):
            check_like(self, "target", target, prediction, "the prediction")
            check_distribution(self, target)
            return
        check_shape(self, "target", target, prediction.shape[:-1])
        if is_concrete(target):
            classes = np.asarray(target)
            wrong = ((classes < 0) | (classes >= prediction.shape[-1])) & (classes != self.ignore)
            if wrong.any():
                raise InputError(
                    f"{self}: expected classes in [0, {prediction.shape[-1]}), got {classes[wrong].flat[0]}."
                )

    def forward(
        self,
        prediction: Float[Array, "*n K"],
        target: Num[AnyArray, "..."],
        weights: Num[AnyArray, "..."] | None = None,
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of log Σ exp(z) - Σ t z."""
        self.check(prediction, target)
        target = jnp.asarray(target)
        counted = target != self.ignore if self.ignore is not None and is_integer(target) else None
        share = share_of(self, prediction.shape[:-1], weights, prediction, counted)
        z = upcast(prediction)
        log_sum = jax.nn.logsumexp(z, axis=-1)
        if is_integer(target):
            hit = jnp.take_along_axis(z, valid_classes(target, z)[..., None], axis=-1)[..., 0]
        else:
            hit = (target.astype(z.dtype) * z).sum(axis=-1)
        cost = log_sum - (1 - self.smoothing) * hit - self.smoothing * z.mean(axis=-1)
        # prediction and log_sum: exp of their difference is the softmax
        return mean_of(share, cost), (prediction, log_sum, target, share)

    def backward(self, cache: Any) -> Float[Array, "*n K"]:
        """Return share · (softmax(z) - t), the derivatives of logarithm and softmax having cancelled."""
        prediction, log_sum, target, share = cache
        z = upcast(prediction)
        if is_integer(target):
            t = jax.nn.one_hot(valid_classes(target, z), z.shape[-1], dtype=z.dtype)
        else:
            t = target.astype(z.dtype)
        t = (1 - self.smoothing) * t + self.smoothing / z.shape[-1]
        dz = jnp.exp(z - log_sum[..., None]) - t
        return (over_entries(share) * dz).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        classes = prediction.shape[-1]
        if is_integer(target):
            hit, label = "y[n, t[n]]", "(1 if t[n] == k else 0)"
        else:
            hit, label = "sum(t[n, k] * y[n, k] for k in K)", "t[n, k]"
        if self.smoothing:
            hit = f"{1 - self.smoothing} * {hit} - {self.smoothing} / {classes} * sum(y[n, k] for k in K)"
            label = f"{1 - self.smoothing} * {label} - {self.smoothing} / {classes}"
        cost = f"log(sum(exp(y[n, k]) for k in K)) - {hit}"
        slope = f"exp(y[n, k]) / sum(exp(y[n, j]) for j in K) - {label}"
        if self.ignore is None or not is_integer(target):
            return mean_formulas(cost, slope, prediction.shape[:-1], entry="n, k")
        counted = jnp.asarray(target) != self.ignore
        share = counted / jnp.maximum(counted.sum(), 1)
        return Formulas(
            f"J = sum(share[n] * ({cost}) for n in B)", f"dy[n, k] = share[n] * ({slope})", {"share": share}
        )


@loss
class KLDivergence:
    """The divergence Σ_k t_k (log t_k - q_k) of log-probabilities q (…, K) from probabilities t (…, K).

    Summed over K, and averaged over all positions (Kullback and Leibler, 1951). 0 · log 0 is 0.
    """

    def check(self, prediction: Any, target: Any) -> None:
        """Require probabilities of the prediction's shape."""
        check_not_empty(self, "prediction", prediction)
        check_floating(self, "prediction", prediction)
        check_like(self, "target", target, prediction, "the prediction")
        check_floating(self, "target", target)
        check_distribution(self, target)

    def forward(
        self,
        prediction: Float[Array, "*n K"],
        target: Float[AnyArray, "*n K"],
        weights: Num[AnyArray, "..."] | None = None,
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean divergence."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape[:-1], weights, prediction)
        t = as_numbers(target, prediction)
        entropy = jax.scipy.special.xlogy(t, t)
        # the target alone: the loss is linear in the prediction, of which only the dtype is needed
        return mean_of(share, (entropy - t * upcast(prediction)).sum(axis=-1)), (t, share, Static(prediction.dtype))

    def backward(self, cache: Any) -> Float[Array, "*n K"]:
        """Return share · (-t)."""
        t, share, dtype = cache
        return (over_entries(share) * -t).astype(dtype.value)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            "sum(t[n, k] * (log(t[n, k]) - y[n, k]) if t[n, k] > 0 else 0 for k in K)",
            "-t[n, k]",
            prediction.shape[:-1],
            entry="n, k",
        )
