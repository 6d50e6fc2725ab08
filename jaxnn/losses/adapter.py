"""Losses from optax, differentiated by JAX."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num, PyTree

from jaxnn.checks import InputError, check_array, check_labels, check_like, check_shape
from jaxnn.losses.mean import as_numbers, check_prediction, is_integer, mean_of, share_of
from jaxnn.numerics import upcast
from jaxnn.types import AnyArray
from jaxnn.values import loss


class OptaxCache(NamedTuple):
    """The arguments of the forward pass, at which JAX differentiates the function."""

    prediction: Array
    target: AnyArray
    weights: AnyArray | None


@loss
class OptaxLoss:
    """Any loss function of optax, by name. Its derivative is JAX's, **not** derived by hand.

    Shapes are checked, and classes where the function takes indices of them. Which other values of
    targets make sense is not known here: see the function's own documentation.

    Args:
        name: the name of a function ``optax.losses.<name>(predictions, targets, **options)``.
        options: further arguments, as a tuple of (name, value) pairs.

    Raises:
        InputError: if optax has no public loss function of this name.
    """

    name: str
    options: tuple[tuple[str, bool | int | float | str], ...] = ()

    def __post_init__(self) -> None:
        is_name = isinstance(self.name, str) and self.name[:1].isalpha()
        if not (is_name and _is_function(self.name)):
            raise InputError(
                f"OptaxLoss: expected the name of a function in optax.losses, got {self.name!r}."
            )
        known = inspect.signature(getattr(optax.losses, self.name)).parameters
        for option in self.options if isinstance(self.options, tuple) else (self.options,):
            is_pair = isinstance(option, tuple) and len(option) == 2
            if not is_pair or option[0] not in known or isinstance(option[1], str):
                raise InputError(
                    f"OptaxLoss: expected options as pairs of a name among {list(known)[2:]} and a "
                    f"value, got {option!r}."
                )

    def check(self, prediction: PyTree, target: AnyArray) -> None:
        """Require a target of the prediction's shape, or one class per row.

        Anything else about the target is left to optax to check.
        """
        check_prediction(self, prediction)
        check_array(self, "target", target)
        if self.name.endswith("with_integer_labels"):
            check_shape(self, "target", target, jnp.shape(prediction)[:-1])
            check_labels(self, "target", target, tuple(range(jnp.shape(prediction)[-1])))
        else:
            check_like(self, "target", target, prediction, "the prediction")

    def forward(
        self,
        prediction: Float[Array, "..."],
        target: Num[AnyArray, "..."],
        weights: Num[AnyArray, "..."] | None = None,
    ) -> tuple[Float[Array, ""], OptaxCache]:
        """Return the mean of the costs that optax computes for each entry or sample."""
        self.check(prediction, target)
        cache = OptaxCache(prediction, target, weights)
        return self._value(*cache), cache

    def backward(self, cache: OptaxCache) -> Float[Array, "..."]:
        """Return the gradient that ``jax.grad`` computes from the forward pass."""
        return jax.grad(self._value)(*cache)

    def _value(self, prediction: Array, target: AnyArray, weights: AnyArray | None) -> Array:
        given = target if is_integer(target) else as_numbers(target, prediction)
        function = getattr(optax.losses, self.name)
        try:
            cost = function(upcast(prediction), given, **dict(self.options))
        except TypeError as error:
            raise InputError(f"{self}: expected options that optax takes, got {error}.") from error
        return mean_of(share_of(self, jnp.shape(cost), weights, prediction), cost)


def _is_function(name: str) -> bool:
    found = getattr(optax.losses, name, None)
    return callable(found) and not isinstance(found, type)
