"""Losses of optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from jaxnn.checks import InputError, check_floating, check_not_empty
from jaxnn.losses.mean import (
    as_numbers,
    is_integer,
    mean_of,
    share_of,
)
from jaxnn.numerics import upcast
from jaxnn.types import AnyArray
from jaxnn.values import loss


@loss
class OptaxLoss:
    """Any loss function of optax, by name. Its derivative is JAX's, **not** derived by hand.

    Args:
        name: of a function ``optax.losses.<name>(predictions, targets, **options)``.
        options: further arguments, as a tuple of (name, value) pairs.
    """

    name: str
    options: tuple[tuple[str, bool | int | float | str], ...] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name[:1].isalpha() and _is_function(self.name)):
            raise InputError(f"OptaxLoss: expected the name of a function in optax.losses, got {self.name!r}.")

    def check(self, prediction: Any, target: Any) -> None:
        """Require a prediction that is not empty; the rest is optax's to check."""
        check_not_empty(self, "prediction", prediction)
        check_floating(self, "prediction", prediction)

    def forward(
        self, prediction: Float[Array, "..."], target: Num[AnyArray, "..."], weights: Num[AnyArray, "..."] | None = None
    ) -> tuple[Float[Array, ""], Any]:
        """Return the mean of what optax gives for each entry or sample."""
        self.check(prediction, target)
        return self._value(prediction, target, weights), (prediction, target, weights)  # all: JAX runs it again

    def backward(self, cache: Any) -> Float[Array, "..."]:
        """Return ``jax.grad`` of the forward."""
        return jax.grad(self._value)(*cache)

    def _value(self, prediction: Array, target: Any, weights: Any) -> Array:
        given = target if is_integer(target) else as_numbers(target, prediction)
        cost = getattr(optax.losses, self.name)(upcast(prediction), given, **dict(self.options))
        return mean_of(share_of(self, jnp.shape(cost), weights, prediction), cost)


def _is_function(name: str) -> bool:
    found = getattr(optax.losses, name, None)
    return callable(found) and not isinstance(found, type)
