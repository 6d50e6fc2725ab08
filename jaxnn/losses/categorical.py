"""Losses for many classes: of logits against classes, and between distributions."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num, PyTree

from jaxnn.checks import (
    InputError,
    check_array,
    check_floating,
    check_fraction,
    check_shape,
    is_concrete,
)
from jaxnn.formulas import Formulas
from jaxnn.losses.mean import (
    as_numbers,
    check_distribution,
    check_entries,
    check_prediction,
    is_integer,
    mean_of,
    over_entries,
    share_of,
    shared,
    valid_classes,
)
from jaxnn.numerics import upcast
from jaxnn.types import AnyArray, Static
from jaxnn.values import loss


class CrossEntropyCache(NamedTuple):
    """The values that the cross-entropy of logits keeps for its backward pass.

    Attributes:
        prediction: the logits z (*n, K).
        highest: the maximum of z at each position (*n, 1); z - highest is exact, however large z
            is.
        log_total: log Σ exp(z - highest) (*n, 1); the softmax is exp(z - highest - log_total).
        target: the classes (*n), or the probabilities (*n, K).
        share: the share of each position in the mean, (*n), or one number for all.
    """

    prediction: Array
    highest: Array
    log_total: Array
    target: Array
    share: Any


@loss
class SoftmaxCrossEntropy:
    """The cross-entropy of logits z (…, K) with classes or with probabilities.

    The target holds classes, which are integers (…) in [0, K), or probabilities (…, K). The cost is
    ℓ = log Σ_k exp(z_k) - Σ_k t_k z_k. It is computed without ever forming exp(z) of a large z, and
    adding a constant c to all logits does not change it. A class that is masked by z = -∞ has
    probability 0. The mean is taken over all positions except the ignored ones. Classes outside of
    [0, K) are refused; where their values are not known, inside of a program of your own, they make
    the mean NaN.

    Args:
        smoothing: ε; the target becomes (1 - ε) t + ε / K (Szegedy et al., 2016).
        ignore: an integer label, such as that of padding, whose positions do not count, or None.

    Raises:
        InputError: if the smoothing is not in [0, 1).
    """

    _: dataclasses.KW_ONLY
    smoothing: float = 0.0
    ignore: int | None = None

    takes_logits: ClassVar[bool] = True  # so a network that ends with a Softmax earns a warning

    formulas = Formulas(
        """
        if holds_classes:
            J = mean(
                log(sum(exp(y[n, k]) for k in K))
                - (1 - smoothing) * y[n, t[n]]
                - smoothing * mean(y[n, k] for k in K)
                for n in B
                if counted[n]
            )
        else:
            J = mean(
                log(sum(exp(y[n, k]) for k in K))
                - sum(((1 - smoothing) * t[n, k] + smoothing / K) * y[n, k] for k in K)
                for n in B
            )
        """,
        """
        if holds_classes:
            dy[n, k] = (
                exp(y[n, k]) / sum(exp(y[n, j]) for j in K)
                - (1 - smoothing) * (1 if t[n] == k else 0)
                - smoothing / K
            ) / N if counted[n] else 0
        else:
            dy[n, k] = (
                exp(y[n, k]) / sum(exp(y[n, j]) for j in K)
                - (1 - smoothing) * t[n, k]
                - smoothing / K
            ) / N
        """,
    )

    def __post_init__(self) -> None:
        check_fraction("SoftmaxCrossEntropy", "smoothing", self.smoothing)

    def check(self, prediction: PyTree, target: AnyArray) -> None:
        """Require classes in [0, K), or rows of probabilities."""
        check_prediction(self, prediction)
        check_array(self, "target", target)
        if not is_integer(target):
            if jnp.shape(target) == jnp.shape(prediction)[:-1]:
                raise InputError(
                    f"{self}: expected classes of an integer dtype, or probabilities of shape "
                    f"{jnp.shape(prediction)}, got {target.dtype}{list(jnp.shape(target))}: "
                    "write target.astype(int)."
                )
            check_entries(self, prediction, target)
            check_distribution(self, target)
            if self.ignore is not None:
                raise InputError(
                    f"{self}: expected classes, one of which to ignore, got probabilities."
                )
            return
        check_shape(self, "prediction", prediction, ("...", "K"))
        if prediction.shape[-1] == 1:
            raise InputError(
                f"{self}: expected logits of at least two classes, got shape {prediction.shape}. "
                "For two classes and one logit use SigmoidBinaryCrossEntropy."
            )
        check_shape(self, "target", target, prediction.shape[:-1])
        if is_concrete(target):
            classes, count = np.asarray(target), prediction.shape[-1]
            if classes.min() >= 0 and classes.max() < count:
                return
            wrong = ((classes < 0) | (classes >= count)) & (classes != self.ignore)
            if wrong.any():
                raise InputError(
                    f"{self}: expected classes in [0, {count}), got {classes[wrong].flat[0]}."
                )

    def forward(
        self,
        prediction: Float[Array, "*n K"],
        target: Num[AnyArray, "..."],
        weights: Num[AnyArray, "..."] | None = None,
    ) -> tuple[Float[Array, ""], CrossEntropyCache]:
        """Return the mean of log Σ exp(z) - Σ t z."""
        self.check(prediction, target)
        target = jnp.asarray(target)
        share = share_of(
            self, prediction.shape[:-1], weights, prediction, counted=self.counted(target)
        )
        z = upcast(prediction)
        # the cost does not depend on the shift, so that it needs no derivative
        highest = lax.stop_gradient(z.max(axis=-1, keepdims=True))
        shifted = z - highest
        log_total = jnp.log(jnp.exp(shifted).sum(axis=-1, keepdims=True))
        if is_integer(target) and not self.smoothing:
            label = valid_classes(target, z)
            hit = jnp.take_along_axis(shifted, label[..., None], axis=-1)
            # a class that cannot be is found by ``check``, but not where the target is traced
            possible = (label == target) | (target == self.ignore)
            hit = jnp.where(possible[..., None], hit, jnp.nan)
        else:
            t = self._probabilities_of(target, z)
            hit = jnp.where(t > 0, t * shifted, 0).sum(axis=-1, keepdims=True)
        cache = CrossEntropyCache(prediction, highest, log_total, target, share)
        return mean_of(share, (log_total - hit)[..., 0]), cache

    def backward(self, cache: CrossEntropyCache) -> Float[Array, "*n K"]:
        """Return share · (softmax(z) - t).

        The derivatives of the logarithm and of the softmax have cancelled in this expression.
        """
        prediction, highest, log_total, target, share = cache
        z = upcast(prediction)
        dz = jnp.exp((z - highest) - log_total) - self._probabilities_of(target, z)
        return shared(over_entries(share), dz).astype(prediction.dtype)

    def probabilities(self, prediction: Array) -> Array:
        """Return the softmax of the logits."""
        return jax.nn.softmax(prediction, axis=-1)

    def classes(self, prediction: Array) -> Array:
        """Return the most probable class of each position."""
        return prediction.argmax(axis=-1)

    def true_classes(self, target: Array) -> Array:
        """Return the class of each position; for probabilities, the most probable one."""
        return target if is_integer(target) else target.argmax(axis=-1)

    def counted(self, target: AnyArray) -> Array | None:
        """Return which positions count, or None where all do."""
        if self.ignore is None or not is_integer(target):
            return None
        return jnp.asarray(target) != self.ignore

    def _probabilities_of(self, target: Array, z: Array) -> Array:
        """Return a target as smoothed probabilities."""
        if is_integer(target):
            target = jax.nn.one_hot(valid_classes(target, z), z.shape[-1], dtype=z.dtype)
        return (1 - self.smoothing) * target.astype(z.dtype) + self.smoothing / z.shape[-1]

    def formula_values(self, prediction: AnyArray, target: AnyArray) -> dict[str, Any]:
        """Return what the target holds, and how many positions count."""
        counted = self.counted(jnp.asarray(target))
        positions = math.prod(prediction.shape[:-1])
        if counted is None:
            return {"holds_classes": is_integer(target), "counted": None, "N": positions}
        number = max(int(np.asarray(counted).sum()), 1)
        return {"holds_classes": True, "counted": np.asarray(counted), "N": number}


class DivergenceCache(NamedTuple):
    """The values that the divergence keeps for its backward pass.

    The divergence is linear in the prediction, so that the prediction itself is not needed.

    Attributes:
        target: the probabilities t (*n, K).
        share: the share of each position in the mean, (*n), or one number for all.
        dtype: the dtype of the prediction.
    """

    target: Array
    share: Any
    dtype: Static[Any]


@loss
class KLDivergence:
    """The divergence Σ_k t_k (log t_k - q_k) (Kullback and Leibler, 1951).

    It measures how far log-probabilities q (…, K) are from probabilities t (…, K). It is summed
    over K and averaged over all positions, and 0 · log 0 is taken to be 0.
    """

    formulas = Formulas(
        "J = mean(sum(t[n, k] * (log(t[n, k]) - y[n, k]) for k in K if t[n, k] > 0) for n in B)",
        "dy[n, k] = -t[n, k] / B",
    )

    def check(self, prediction: PyTree, target: AnyArray) -> None:
        """Require probabilities of the prediction's shape, and log-probabilities as predictions."""
        check_entries(self, prediction, target)
        check_floating(self, "target", target)
        if is_concrete(prediction) and _are_probabilities(np.asarray(prediction)):
            raise InputError(
                f"{self}: expected log-probabilities as predictions, got probabilities: "
                "end the network with LogSoftmax()."
            )
        check_distribution(self, target)

    def check_outputs(self, prediction: AnyArray) -> None:
        """Check that the first outputs of a network are logarithms of probabilities."""
        total = np.log(np.exp(np.asarray(prediction, float)).sum(axis=-1))
        if np.abs(total).max() > 1e-2:
            raise InputError(
                f"{self}: expected log-probabilities as predictions, got rows whose exponentials "
                f"sum to {np.exp(total.flat[0]):.3g}: end the network with LogSoftmax()."
            )

    def forward(
        self,
        prediction: Float[Array, "*n K"],
        target: Float[AnyArray, "*n K"],
        weights: Num[AnyArray, "..."] | None = None,
    ) -> tuple[Float[Array, ""], DivergenceCache]:
        """Return the mean divergence."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape[:-1], weights, prediction)
        t = as_numbers(target, prediction)
        entropy = jax.scipy.special.xlogy(t, t)
        crossed = jnp.where(t > 0, t * upcast(prediction), 0)  # 0 · -∞ is taken to be 0, too
        cache = DivergenceCache(t, share, Static(prediction.dtype))
        return mean_of(share, (entropy - crossed).sum(axis=-1)), cache

    def backward(self, cache: DivergenceCache) -> Float[Array, "*n K"]:
        """Return share · (-t)."""
        t, share, dtype = cache
        return shared(over_entries(share), -t).astype(dtype.value)


def _are_probabilities(rows: np.ndarray) -> bool:
    """Return whether all rows sum to 1 without negative numbers, as logarithms never do."""
    return bool(rows.min() >= 0 and np.abs(rows.sum(axis=-1, dtype=float) - 1).max() < 1e-3)
