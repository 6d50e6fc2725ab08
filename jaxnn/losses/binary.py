"""Two classes: probabilities, logits and margins."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnn.checks import InputError, is_concrete
from jaxnn.losses.mean import EntrywiseLoss, check_binary
from jaxnn.values import loss


class BinaryLoss(EntrywiseLoss):
    """A loss of labels among two; it says itself which class a prediction means."""

    labels: ClassVar[tuple[int, int]] = (0, 1)
    threshold: ClassVar[float] = 0.0  # above it, a prediction means the positive class

    def check(self, prediction: Any, target: Any) -> None:
        """Require labels of the prediction's shape, among the two."""
        check_binary(self, prediction, target, self.labels)

    def classes(self, prediction: Array) -> Array:
        """Return 1 where the prediction means the positive class, 0 elsewhere."""
        return (prediction > self.threshold).astype(jnp.int32)

    def true_classes(self, target: Array) -> Array:
        """Return 1 where the label is the positive one, 0 elsewhere."""
        return (target > 0).astype(jnp.int32)


@loss
class BinaryCrossEntropy(BinaryLoss):
    """The cross-entropy of a probability p with a label t in {0, 1}: -log p for 1, -log(1 - p) for 0.

    Exact at both ends: a certain and right prediction costs 0, a certain and wrong one infinity. There
    the derivative, infinite too, is given as the largest finite slope, so that a saturated sigmoid in
    front of it yields 0 and not 0 · ∞. What is no probability costs NaN. Prefer
    :class:`SigmoidBinaryCrossEntropy` for training: it takes the logit, and never saturates.
    """

    threshold: ClassVar[float] = 0.5
    bounded: ClassVar[bool] = (
        True  # predictions outside of [0, 1] are refused, where they can be seen
    )
    formula: ClassVar[tuple[str, str]] = (
        "-log(y[n]) if t[n] == 1 else -log(1 - y[n])",
        "-1 / guard(y[n]) if t[n] == 1 else 1 / guard(1 - y[n])",
    )

    def check(self, prediction: Any, target: Any) -> None:
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
        """Return the prediction, which is the probability of the positive class."""
        return prediction

    def _cost(self, y: Array, t: Array) -> Array:
        q = jnp.where(t == 1, y, 1 - y)  # the probability that the prediction gives to the label
        cost = jnp.where(q == 0, jnp.inf, -jnp.log(_guarded(q)))
        return jnp.where((y >= 0) & (y <= 1), cost, jnp.nan)

    def _slope(self, y: Array, t: Array) -> Array:
        dq = -1 / _guarded(jnp.where(t == 1, y, 1 - y))
        return jnp.where(t == 1, dq, -dq)


def _guarded(q: Array) -> Array:
    """Return q, kept from being 0 by the smallest normal number of its dtype."""
    return jnp.maximum(q, float(jnp.finfo(q.dtype).tiny))


@loss
class SigmoidBinaryCrossEntropy(BinaryLoss):
    """Binary cross-entropy of a logit z, that is of p = σ(z), in the stable fused form.

    With m = (1 - 2t) z, the margin by which the logit is on the wrong side, the cost is
    softplus(m) = log(1 + exp(m)), finite for any finite z, and the slope is σ(z) - t. It is written as
    ±σ(m), which does not cancel when both are near 1.
    """

    formula: ClassVar[tuple[str, str]] = (
        "max(y[n], 0) - t[n] * y[n] + log1p(exp(-abs(y[n])))",
        "σ(y[n]) - t[n]",
    )

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
    """The support vector machine's loss, max(0, 1 - t z), for labels t of -1 and 1 (Cortes and Vapnik, 1995).

    At the kink, t z = 1, the derivative is taken as 0.
    """

    labels: ClassVar[tuple[int, int]] = (-1, 1)
    kinks: ClassVar[str] = "t z = 1"
    formula: ClassVar[tuple[str, str]] = (
        "max(0, 1 - t[n] * y[n])",
        "-t[n] if t[n] * y[n] < 1 else 0",
    )

    def _cost(self, y: Array, t: Array) -> Array:
        margin = 1 - t * y
        return jnp.where(margin > 0, margin, 0)

    def _slope(self, y: Array, t: Array) -> Array:
        return jnp.where(t * y < 1, -t, 0)


@loss
class PerceptronCriterion(BinaryLoss):
    """max(0, -t z) for labels t of -1 and 1: only mistakes cost (Rosenblatt, 1958).

    Its derivative is the Perceptron's learning rule. At the kink, z = 0, the derivative is taken as 0.
    """

    labels: ClassVar[tuple[int, int]] = (-1, 1)
    kinks: ClassVar[str] = "z = 0"
    formula: ClassVar[tuple[str, str]] = (
        "max(0, -t[n] * y[n])",
        "-t[n] if t[n] * y[n] < 0 else 0",
    )

    def _cost(self, y: Array, t: Array) -> Array:
        miss = -t * y
        return jnp.where(miss > 0, miss, 0)

    def _slope(self, y: Array, t: Array) -> Array:
        return jnp.where(t * y < 0, -t, 0)
