"""Layers that only move numbers: their backward moves them back.   B batch."""

import math

import jax
from jaxtyping import Array, Num, PRNGKeyArray, PyTree

from jaxnn.checks import InputError, check_array, check_no_params, check_shape
from jaxnn.formulas import Formulas
from jaxnn.types import Cache, Static
from jaxnn.values import layer


@layer
class Flatten:
    """Lay out each sample as one row: (B, …) to (B, n)."""

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Give no parameters: ``()``."""
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

    def formulas(self, x: PyTree, cache: Cache) -> Formulas:
        """State which number goes where."""
        return _moves(x.shape[1:], (math.prod(x.shape[1:]),))


@layer
class Reshape:
    """Give each sample another shape: (B, …) to (B, *shape).

    Args:
        shape: of a sample, without the batch axis.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or not all(
            isinstance(n, int) and n > 0 for n in self.shape
        ):
            raise InputError(
                f"Reshape: expected shape to be a tuple of positive integers, got {self.shape!r}."
            )

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Give no parameters: ``()``."""
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

    def formulas(self, x: PyTree, cache: Cache) -> Formulas:
        """State which number goes where."""
        return _moves(x.shape[1:], self.shape)


def _check_samples(who: object, x: PyTree) -> None:
    check_array(who, "x", x)
    if not x.ndim:
        raise InputError(f"{who}: expected x of shape (B, ...), got ().")


def _moves(before: tuple[int, ...], after: tuple[int, ...]) -> Formulas:
    """State a change of shape: an entry keeps its place in row-major order."""
    return Formulas(_move("y", "x", after, before), _move("dx", "dy", before, after))


def _move(left: str, right: str, shape: tuple[int, ...], source: tuple[int, ...]) -> str:
    letters = [f"i{k}" for k in range(len(shape))]
    strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
    place = (
        " + ".join(i if s == 1 else f"{i} * {s}" for i, s in zip(letters, strides, strict=True))
        or "0"
    )
    steps = [math.prod(source[k + 1 :]) for k in range(len(source))]
    place = f"({place})" if len(letters) > 1 else place
    at = [
        _digit(place, step, size, first=i == 0)
        for i, (step, size) in enumerate(zip(steps, source, strict=True))
    ]
    return f"{left}[{', '.join(['n', *letters])}] = {right}[{', '.join(['n', *at])}]"


def _digit(place: str, step: int, size: int, first: bool) -> str:
    """Write one index of a place in row-major order."""
    if size == 1:
        return "0"
    index = place if step == 1 else f"{place} // {step}"
    return index if first else f"{index} % {size}"
