"""Layers that only move numbers: their backward moves them back.   B batch."""

import math

import jax
from jaxtyping import Array, Num, PRNGKeyArray, PyTree

from jaxnn.checks import InputError, check_array, check_no_params, check_shape
from jaxnn.formulas import Formulas
from jaxnn.types import Static
from jaxnn.values import layer


@layer
class Flatten:
    """Lay out each sample as one row: (B, …) to (B, n)."""

    formulas = Formulas("y.flat[m] = x.flat[m]", "dx.flat[m] = dy.flat[m]")

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Return no parameters: ``()``."""
        return ()

    def forward(
        self, params: tuple[()], x: Num[Array, "B ..."], key: PRNGKeyArray | None = None
    ) -> tuple[Num[Array, "B n"], Static[tuple[int, ...]]]:
        """Return x as rows."""
        check_no_params(self, params)
        _check_samples(self, x)
        return x.reshape(x.shape[0], math.prod(x.shape[1:])), Static(
            x.shape
        )  # the shape, to go back to

    def backward(
        self, params: tuple[()], cache: Static[tuple[int, ...]], dy: Num[Array, "B n"]
    ) -> tuple[tuple[()], Num[Array, "B ..."]]:
        """Return dy in the shape of x."""
        check_shape(self, "dy", dy, (cache.value[0], math.prod(cache.value[1:])))
        return (), dy.reshape(cache.value)


@layer
class Reshape:
    """Give each sample another shape: (B, …) to (B, *shape).

    Args:
        shape: of a sample, without the batch axis.
    """

    shape: tuple[int, ...]

    formulas = Formulas("y.flat[m] = x.flat[m]", "dx.flat[m] = dy.flat[m]")

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or not all(
            isinstance(n, int) and n > 0 for n in self.shape
        ):
            raise InputError(
                f"Reshape: expected shape to be a tuple of positive integers, got {self.shape!r}."
            )

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Return no parameters: ``()``."""
        return ()

    def forward(
        self, params: tuple[()], x: Num[Array, "B ..."], key: PRNGKeyArray | None = None
    ) -> tuple[Num[Array, "B ..."], Static[tuple[int, ...]]]:
        """Return x with samples of the new shape."""
        check_no_params(self, params)
        _check_samples(self, x)
        if math.prod(x.shape[1:]) != math.prod(self.shape):
            raise InputError(
                f"{self}: expected samples of {math.prod(self.shape)} numbers, got shape {x.shape}."
            )
        return x.reshape(x.shape[0], *self.shape), Static(x.shape)  # the shape, to go back to

    def backward(
        self, params: tuple[()], cache: Static[tuple[int, ...]], dy: Num[Array, "B ..."]
    ) -> tuple[tuple[()], Num[Array, "B ..."]]:
        """Return dy in the shape of x."""
        check_shape(self, "dy", dy, (cache.value[0], *self.shape))
        return (), dy.reshape(cache.value)


def _check_samples(who: object, x: PyTree) -> None:
    check_array(who, "x", x)
    if not x.ndim:
        raise InputError(f"{who}: expected x of shape (B, ...), got ().")
