"""Numbers against numbers."""

from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxnn.checks import (
    check_positive,
)
from jaxnn.formulas import Formulas
from jaxnn.losses.mean import (
    as_numbers,
    check_regression,
    mean_formulas,
    mean_of,
    share_of,
)
from jaxnn.numerics import upcast
from jaxnn.types import AnyArray
from jaxnn.values import loss


@loss
class MeanSquaredError:
    """The mean of (prediction - target)²."""

    def check(self, prediction: Any, target: Any) -> None:
        """Require numbers of the prediction's shape."""
        check_regression(self, prediction, target)

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean square."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        error = upcast(prediction) - as_numbers(target, prediction)
        return mean_of(share, error**2), (prediction, target, share)  # both: their difference is the derivative

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · 2 (prediction - target)."""
        prediction, target, share = cache
        return (share * 2 * (upcast(prediction) - as_numbers(target, prediction))).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            "(y[n] - t[n])**2",
            "2 * (y[n] - t[n])",
            prediction.shape,
        )


@loss
class MeanAbsoluteError:
    """The mean of |prediction - target|. Where they are equal the derivative is taken as 0, as PyTorch does."""

    kinks: ClassVar[str] = "prediction = target"

    def check(self, prediction: Any, target: Any) -> None:
        """Require numbers of the prediction's shape."""
        check_regression(self, prediction, target)

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean distance."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        error = upcast(prediction) - as_numbers(target, prediction)
        return mean_of(share, jnp.abs(error)), (prediction, target, share)  # both: for the sign of their difference

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · sign(prediction - target)."""
        prediction, target, share = cache
        return (share * jnp.sign(upcast(prediction) - as_numbers(target, prediction))).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            "abs(y[n] - t[n])",
            "sign(y[n] - t[n])",
            prediction.shape,
        )


@loss
class Huber:
    """Squared for small errors, linear for large: e²/2 up to |e| = δ, δ (|e| - δ/2) beyond (Huber, 1964).

    Args:
        delta: δ, where the one becomes the other; both have the same slope there.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        check_positive("Huber", "delta", self.delta)

    def check(self, prediction: Any, target: Any) -> None:
        """Require numbers of the prediction's shape."""
        check_regression(self, prediction, target)

    def forward(
        self, prediction: Float[Array, "*n"], target: Num[AnyArray, "*n"], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean cost."""
        self.check(prediction, target)
        share = share_of(self, prediction.shape, weights, prediction)
        size = jnp.abs(upcast(prediction) - as_numbers(target, prediction))
        inner = jnp.minimum(size, self.delta)
        return mean_of(share, inner * (size - inner / 2)), (prediction, target, share)  # both: for their difference

    def backward(self, cache: Any) -> Float[Array, "*n"]:
        """Return share · (prediction - target), cut off at ±δ."""
        prediction, target, share = cache
        error = upcast(prediction) - as_numbers(target, prediction)
        return (share * jnp.clip(error, -self.delta, self.delta)).astype(prediction.dtype)

    def formulas(self, prediction: AnyArray, target: AnyArray) -> Formulas:
        """State the mean and its slope, for a prediction y and a target t."""
        return mean_formulas(
            f"(y[n] - t[n])**2 / 2 if abs(y[n] - t[n]) <= {self.delta} "
            f"else {self.delta} * (abs(y[n] - t[n]) - {self.delta} / 2)",
            f"max(-{self.delta}, min({self.delta}, y[n] - t[n]))",
            prediction.shape,
        )
