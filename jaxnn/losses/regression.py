"""Losses for regression: of numbers against numbers."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.checks import check_positive
from jaxnn.formulas import Formulas
from jaxnn.losses.mean import EntrywiseLoss
from jaxnn.values import loss


@loss
class MeanSquaredError(EntrywiseLoss):
    """The mean of (prediction - target)²."""

    formulas = Formulas(
        "J = mean((y[n] - t[n])**2 for n in B)",
        "dy[n] = 2 * (y[n] - t[n]) / B",
    )

    def _cost(self, y: Array, t: Array) -> Array:
        return (y - t) ** 2

    def _slope(self, y: Array, t: Array) -> Array:
        return 2 * (y - t)


@loss
class MeanAbsoluteError(EntrywiseLoss):
    """The mean of |prediction - target|.

    Where the two are equal the derivative is taken to be 0, as in PyTorch.
    """

    kinks: ClassVar[str] = "prediction = target"
    formulas = Formulas(
        "J = mean(abs(y[n] - t[n]) for n in B)",
        "dy[n] = sign(y[n] - t[n]) / B",
    )

    def _cost(self, y: Array, t: Array) -> Array:
        return jnp.abs(y - t)

    def _slope(self, y: Array, t: Array) -> Array:
        return jnp.sign(y - t)


@loss
class Huber(EntrywiseLoss):
    """The loss of Huber (1964), which is quadratic for small errors and linear for large ones.

    The cost of an error e is e²/2 up to |e| = δ, and δ (|e| - δ/2) beyond.

    Args:
        delta: δ, the error at which one formula passes into the other; both have the same slope
            there.

    Raises:
        InputError: if delta is not a finite number above 0.
    """

    delta: float = 1.0
    formulas = Formulas(
        """
        J = mean(
            (y[n] - t[n])**2 / 2
            if abs(y[n] - t[n]) <= delta
            else delta * (abs(y[n] - t[n]) - delta / 2)
            for n in B
        )
        """,
        """
        dy[n] = (
            y[n] - t[n] if abs(y[n] - t[n]) <= delta else delta * sign(y[n] - t[n])
        ) / B
        """,
    )

    def __post_init__(self) -> None:
        check_positive("Huber", "delta", self.delta)

    def _cost(self, y: Array, t: Array) -> Array:
        size = jnp.abs(y - t)
        inner = jnp.minimum(size, self.delta)
        return inner * (size - inner / 2)

    def _slope(self, y: Array, t: Array) -> Array:
        return jnp.clip(y - t, -self.delta, self.delta)
