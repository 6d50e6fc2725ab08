"""Losses for two classes: on probabilities, logits and margins."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxnn.checks import InputError, is_concrete
from jaxnn.formulas import Formulas
from jaxnn.losses.mean import EntrywiseLoss, check_binary
from jaxnn.types import AnyArray
from jaxnn.values import loss


class BinaryLoss(EntrywiseLoss):
    """A loss for two labels, which also defines the class that a prediction stands for."""

    labels: ClassVar[tuple[int, int]] = (0, 1)
    threshold: ClassVar[float] = 0.0  # a prediction above it stands for the positive class

    def check(self, prediction: PyTree, target: AnyArray) -> None:
        """Require a target of the prediction's shape that holds only the two labels."""
        check_binary(self, prediction, target, self.labels)

    def classes(self, prediction: Array) -> Array:
        """Return 1 where the prediction stands for the positive class, and 0 elsewhere."""
        return (prediction > self.threshold).astype(jnp.int32)

    def true_classes(self, target: Array) -> Array:
        """Return 1 where the label is the positive one, and 0 elsewhere."""
        return (target > 0).astype(jnp.int32)


@loss
class BinaryCrossEntropy(BinaryLoss):
    """The cross-entropy of a probability p with a label t in {0, 1}.

    The cost is -log p for the label 1 and -log(1 - p) for the label 0. It is exact at both ends: a
    certain and correct prediction costs 0, and a certain but wrong one costs infinity. In the
    latter case the derivative is infinite as well; it is returned as the largest finite slope, so
    that the backward pass of a saturated sigmoid before the loss yields 0 and not 0 · ∞. A
    prediction that is not a probability costs NaN. For training, prefer
    :class:`SigmoidBinaryCrossEntropy`, which takes the logit and never saturates.
    """

    threshold: ClassVar[float] = 0.5
    bounded: ClassVar[bool] = True  # concrete predictions outside of [0, 1] are refused
    formulas = Formulas(
        "J = mean(-log(y[n]) if t[n] == 1 else -log(1 - y[n]) for n in B)",
        "dy[n] = (-1 / guard(y[n]) if t[n] == 1 else 1 / guard(1 - y[n])) / B",
    )

    def check(self, prediction: PyTree, target: AnyArray) -> None:
        """Require probabilities, and labels in {0, 1} of the same shape."""
        super().check(prediction, target)
        if is_concrete(prediction):
            p = np.asarray(prediction)
            if (outside := (p < 0) | (p > 1)).any():
                raise InputError(
                    f"{self}: expected probabilities in [0, 1], got {p[outside][0]}. "
                    "Logits go to SigmoidBinaryCrossEntropy()."
                )

    def probabilities(self, prediction: Array) -> Array:
        """Return the prediction, which already is the probability of the positive class."""
        return prediction

    def _cost(self, y: Array, t: Array) -> Array:
        q = jnp.where(t == 1, y, 1 - y)  # the probability that is predicted for the true label
        cost = jnp.where(q == 0, jnp.inf, -jnp.log(_guarded(q)))
        return jnp.where((y >= 0) & (y <= 1), cost, jnp.nan)

    def _slope(self, y: Array, t: Array) -> Array:
        dq = -1 / _guarded(jnp.where(t == 1, y, 1 - y))
        return jnp.where(t == 1, dq, -dq)


def _guarded(q: Array) -> Array:
    """Return q, bounded from below by the smallest normal number of its dtype."""
    return jnp.maximum(q, float(jnp.finfo(q.dtype).tiny))


@loss
class SigmoidBinaryCrossEntropy(BinaryLoss):
    """The binary cross-entropy of a logit z, that is of p = σ(z), in the stable fused form.

    Let m = (1 - 2t) z be the margin by which the logit lies on the wrong side. The cost is
    softplus(m) = log(1 + exp(m)), which is finite for any finite z, and the slope is σ(z) - t. The
    slope is computed as ±σ(m), which avoids the cancellation when σ(z) and t are both near 1.
    """

    formulas = Formulas(
        "J = mean(max(y[n], 0) - t[n] * y[n] + log1p(exp(-abs(y[n]))) for n in B)",
        "dy[n] = (σ(y[n]) - t[n]) / B",
    )
    takes_logits: ClassVar[bool] = True  # so a network that ends with a Sigmoid earns a warning

    def probabilities(self, prediction: Array) -> Array:
        """Return σ of the logit, the probability of the positive class."""
        return jax.nn.sigmoid(prediction)

    def _cost(self, y: Array, t: Array) -> Array:
        return jnp.logaddexp(jnp.where(t == 1, -y, y), 0)

    def _slope(self, y: Array, t: Array) -> Array:
        dm = jax.nn.sigmoid(jnp.where(t == 1, -y, y))
        return jnp.where(t == 1, -dm, dm)


@loss
class Hinge(BinaryLoss):
    """The hinge loss max(0, 1 - t z) of support vector machines (Cortes and Vapnik, 1995).

    The labels t are -1 and 1. At the kink, where t z = 1, the derivative is taken to be 0.
    """

    labels: ClassVar[tuple[int, int]] = (-1, 1)
    kinks: ClassVar[str] = "t z = 1"
    formulas = Formulas(
        "J = mean(max(0, 1 - t[n] * y[n]) for n in B)",
        "dy[n] = (-t[n] if t[n] * y[n] < 1 else 0) / B",
    )

    def _cost(self, y: Array, t: Array) -> Array:
        margin = 1 - t * y
        return jnp.where(margin > 0, margin, 0)

    def _slope(self, y: Array, t: Array) -> Array:
        return jnp.where(t * y < 1, -t, 0)


@loss
class PerceptronCriterion(BinaryLoss):
    """The perceptron criterion max(0, -t z), under which only mistakes cost (Rosenblatt, 1958).

    The labels t are -1 and 1. The derivative is the learning rule of the perceptron. At the kink,
    where z = 0, the derivative is taken to be 0.
    """

    labels: ClassVar[tuple[int, int]] = (-1, 1)
    kinks: ClassVar[str] = "z = 0"
    formulas = Formulas(
        "J = mean(max(0, -t[n] * y[n]) for n in B)",
        "dy[n] = (-t[n] if t[n] * y[n] < 0 else 0) / B",
    )

    def _cost(self, y: Array, t: Array) -> Array:
        miss = -t * y
        return jnp.where(miss > 0, miss, 0)

    def _slope(self, y: Array, t: Array) -> Array:
        return jnp.where(t * y < 0, -t, 0)
