"""Two classes: probabilities, logits and margins."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxnn.checks import (
    InputError,
    is_concrete,
)
from jaxnn.formulas import Formulas
from jaxnn.losses.mean import (
    check_binary,
    mean_formulas,
    mean_of,
    share_of,
    smallest,
)
from jaxnn.numerics import upcast
from jaxnn.types import AnyArray
from jaxnn.values import loss


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
        check_binary(self, prediction, target)
        if is_concrete(prediction):
            p = np.asarray(prediction)
            if ((p < 0) | (p > 1)).any():
                raise InputError(f"{self}: expected probabilities in [0, 1], got {p[(p < 0) | (p > 1)][0]}.")

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of -log q, with q the probability that the prediction gives to the label."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        p = upcast(prediction)
        q = jnp.where(target == 1, p, 1 - p)
        cost = jnp.where(q == 0, jnp.inf, -jnp.log(jnp.maximum(q, smallest(q))))
        # prediction: for q, one subtraction away; target: which of p and 1 - p it was
        return mean_of(share, cost), (prediction, target, share)

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · (-1/p) where the label is 1, share · 1/(1 - p) where it is 0."""
        prediction, target, share = cache
        p = upcast(prediction)
        q = jnp.where(target == 1, p, 1 - p)
        dq = -share / jnp.maximum(q, smallest(q))
        return jnp.where(target == 1, dq, -dq).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            "-log(y[n]) if t[n] == 1 else -log(1 - y[n])",
            "-1 / guard(y[n]) if t[n] == 1 else 1 / guard(1 - y[n])",
            prediction.shape,
        )


@loss
class SigmoidBinaryCrossEntropy:
    """Binary cross-entropy of a logit z, that is of p = σ(z), in the stable fused form.

    With m = (1 - 2t) z, the margin by which the logit is on the wrong side, the cost is
    softplus(m) = log(1 + exp(m)), finite for any finite z.
    """

    def check(self, prediction: Any, target: Any) -> None:
        """Require labels in {0, 1} of the same shape as the logits."""
        check_binary(self, prediction, target)

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of softplus(m)."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        z = upcast(prediction)
        m = jnp.where(target == 1, -z, z)
        return mean_of(share, jnp.logaddexp(m, 0)), (prediction, target, share)  # each needed; m is one select away

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · (σ(z) - t), written as ±σ(m), which does not cancel when both are near 1."""
        prediction, target, share = cache
        z = upcast(prediction)
        dm = share * jax.nn.sigmoid(jnp.where(target == 1, -z, z))
        return jnp.where(target == 1, -dm, dm).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            "max(y[n], 0) - t[n] * y[n] + log1p(exp(-abs(y[n])))",
            "σ(y[n]) - t[n]",
            prediction.shape,
        )


@loss
class Hinge:
    """The support vector machine's loss, max(0, 1 - t z), for labels t of -1 and 1 (Cortes and Vapnik, 1995).

    At the kink, t z = 1, the derivative is taken as 0.
    """

    kinks: ClassVar[str] = "t z = 1"

    def check(self, prediction: Any, target: Any) -> None:
        """Require labels -1 and 1 of the prediction's shape."""
        check_binary(self, prediction, target, labels=(-1, 1))

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of max(0, 1 - t z)."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        margin = 1 - jnp.asarray(target) * upcast(prediction)
        return mean_of(share, jnp.where(margin > 0, margin, 0)), (prediction, target, share)  # both: for the margin

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · (-t) where the margin is violated."""
        prediction, target, share = cache
        violated = target * upcast(prediction) < 1
        return (share * jnp.where(violated, -target, 0)).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            "max(0, 1 - t[n] * y[n])",
            "-t[n] if t[n] * y[n] < 1 else 0",
            prediction.shape,
        )


@loss
class PerceptronCriterion:
    """max(0, -t z) for labels t of -1 and 1: only mistakes cost (Rosenblatt, 1958).

    Its derivative is the Perceptron's learning rule. At the kink, z = 0, the derivative is taken as 0.
    """

    kinks: ClassVar[str] = "z = 0"

    def check(self, prediction: Any, target: Any) -> None:
        """Require labels -1 and 1 of the prediction's shape."""
        check_binary(self, prediction, target, labels=(-1, 1))

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of max(0, -t z)."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        miss = -jnp.asarray(target) * upcast(prediction)
        return mean_of(share, jnp.where(miss > 0, miss, 0)), (prediction, target, share)  # both: which were missed

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · (-t) where the sign is wrong."""
        prediction, target, share = cache
        missed = target * upcast(prediction) < 0
        return (share * jnp.where(missed, -target, 0)).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            "max(0, -t[n] * y[n])",
            "-t[n] if t[n] * y[n] < 0 else 0",
            prediction.shape,
        )
