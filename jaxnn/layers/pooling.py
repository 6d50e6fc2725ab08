"""Pooling over windows, in one or two dimensions, channels last.   B batch, H, W space, C channels.

MaxPool's backward walks over the places in a window, not over the windows: for each place, the
inputs that stand there are a strided slice of x, and the derivatives that belong to them are put
back by the transpose of that slice.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_floating,
    check_lengths,
    check_no_params,
    check_positive_int,
    check_shape,
)
from jaxnn.formulas import Formulas
from jaxnn.numerics import upcast
from jaxnn.padding import Sequences, apart, check_beside, in_form
from jaxnn.types import Cache, Static
from jaxnn.values import layer

Sizes = int | tuple[int, ...]


class _Windowed:
    """What both kinds of pooling share: windows, their places, and how to go back from them."""

    window: Sizes
    stride: Sizes | None
    padding: str

    def __post_init__(self) -> None:
        if self.window is None:
            raise InputError(f"{type(self).__name__}: expected a window, got None.")
        for name in ("window", "stride"):
            value = getattr(self, name)
            for size in value if isinstance(value, tuple) else () if value is None else (value,):
                check_positive_int(type(self).__name__, name, size)
        if self.padding not in ("SAME", "VALID"):
            raise InputError(
                f"{type(self).__name__}: expected padding 'SAME' or 'VALID', got {self.padding!r}."
            )

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Give no parameters: ``()``."""
        self._window(x)
        return ()

    def _window(self, x: PyTree) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
        """Give window, stride and padding along each axis of space."""
        check_floating(self, "x", x)
        if x.ndim not in (3, 4):
            raise InputError(
                f"{self}: expected x of shape (B, T, C) or (B, H, W, C), got {x.shape}."
            )
        size = x.shape[1:-1]
        window = self.window if isinstance(self.window, tuple) else (self.window,) * len(size)
        stride = window if self.stride is None else self.stride
        stride = stride if isinstance(stride, tuple) else (stride,) * len(size)
        if len(window) != len(size) or len(stride) != len(size):
            raise InputError(
                f"{self}: expected x with {len(window)} axes of space, got shape {x.shape}."
            )
        if self.padding == "VALID" and any(k > n for k, n in zip(window, size, strict=True)):
            raise InputError(f"{self}: expected an input of at least {window} points, got {size}.")
        return window, stride, lax.padtype_to_pads(size, window, stride, self.padding)

    def _reduce(self, x: Array, start: float, function: Any) -> Array:
        window, stride, padding = self._window(x)
        pad = ((0, 0), *padding, (0, 0))
        return lax.reduce_window(
            x, np.asarray(start, x.dtype), function, (1, *window, 1), (1, *stride, 1), pad
        )


def places(window: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Give each place in a window, in row-major order."""
    return itertools.product(*map(range, window))


def take(
    padded: Array, place: tuple[int, ...], stride: tuple[int, ...], size: tuple[int, ...]
) -> Array:
    """Slice out what stands at one place of every window."""
    stop = [p + (n - 1) * s + 1 for p, n, s in zip(place, size, stride, strict=True)]
    return lax.slice(
        padded, (0, *place, 0), (len(padded), *stop, padded.shape[-1]), (1, *stride, 1)
    )


def put_back(
    dy: Array, place: tuple[int, ...], stride: tuple[int, ...], size: tuple[int, ...]
) -> Array:
    """Transpose of ``take``: spread dy out over a padded image of this size, zero elsewhere."""
    spread = [
        (p, n - p - ((r - 1) * s + 1), s - 1)
        for p, n, r, s in zip(place, size, dy.shape[1:-1], stride, strict=True)
    ]
    return lax.pad(dy, np.zeros((), dy.dtype), ((0, 0, 0), *spread, (0, 0, 0)))


def crop(padded: Array, padding: list[tuple[int, int]], size: tuple[int, ...]) -> Array:
    """Cut the padding off."""
    start = [low for low, _ in padding]
    stop = [low + n for (low, _), n in zip(padding, size, strict=True)]
    return lax.slice(padded, (0, *start, 0), (len(padded), *stop, padded.shape[-1]))


class _Windows:
    """How formulas speak of windows: output r sees entry k of its window at p, axis by axis."""

    def __init__(self, window: Any, stride: Any, padding: Any, size: Any) -> None:
        rank = len(window)
        self.r, self.k, self.p = "rs"[:rank], "kl"[:rank], "pq"[:rank]
        seen = [
            f"{r} * {s} + {k} - {low}"
            for r, k, s, (low, _) in zip(self.r, self.k, stride, padding, strict=True)
        ]
        self.slide = ", ".join(seen)
        self.real = " and ".join(f"0 <= {at} < {n}" for at, n in zip(seen, size, strict=True))
        self.back = [
            f"{p} - {r} * {s} + {low}"
            for p, r, s, (low, _) in zip(self.p, self.r, stride, padding, strict=True)
        ]
        self.within = " and ".join(
            f"0 <= {back} < {n}" for back, n in zip(self.back, window, strict=True)
        )
        self.over_k = " ".join(
            f"for {k} in range({n})" for k, n in zip(self.k, window, strict=True)
        )
        self.over_r = " ".join(f"for {r} in R" for r in self.r)


@layer
class MaxPool(_Windowed):
    """The largest entry of each window.

    Where several are equal, the first in row-major order gets the derivative.

    That convention is XLA's and PyTorch's. The rank comes with the input: (B, T, C) or (B, H, W,
    C).

    Args:
        window: points along each axis of space, an int or a tuple.
        stride: points from one window to the next; by default the window, so that they do not
            overlap.
        padding: "VALID", or "SAME", which pads with minus infinity.
    """

    window: Sizes
    stride: Sizes | None = None
    _: dataclasses.KW_ONLY
    padding: str = "VALID"
    kinks: ClassVar[str] = "ties within a window"

    def forward(
        self, params: tuple[()], x: Float[Array, "B *S C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B *R C"], Any]:
        """Return the maximum of each window."""
        check_no_params(self, params)
        y = self._reduce(x, -math.inf, lax.max)
        return y, (x, y)  # both: the winner of a window is the first of its x that equals y

    def backward(
        self, params: tuple[()], cache: Cache, dy: Float[Array, "B *R C"]
    ) -> tuple[tuple[()], Float[Array, "B *S C"]]:
        """Give each dy to the first entry of its window that is the maximum."""
        x, y = cache
        check_shape(self, "dy", dy, y.shape)
        window, stride, padding = self._window(x)
        padded = lax.pad(
            x, np.asarray(-math.inf, x.dtype), ((0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0))
        )
        dx, waiting = jnp.zeros_like(padded), jnp.ones(y.shape, bool)
        for place in places(window):
            wins = waiting & (take(padded, place, stride, y.shape[1:-1]) == y)
            waiting = waiting & ~wins
            dx = dx + put_back(jnp.where(wins, dy, 0), place, stride, padded.shape[1:-1])
        return (), crop(dx, padding, x.shape[1:-1])

    def formulas(self, x: PyTree, cache: Cache) -> Formulas:
        """State the maximum, the place of its first occurrence, and that this entry receives dy."""
        window, stride, padding = self._window(x)
        at = _Windows(window, stride, padding, x.shape[1:-1])
        number = " + ".join(f"{k} * {math.prod(window[i + 1 :])}" for i, k in enumerate(at.k))
        reached = " + ".join(
            f"({back}) * {math.prod(window[i + 1 :])}" for i, back in enumerate(at.back)
        )
        r, p, k = ", ".join(at.r), ", ".join(at.p), at.over_k
        backward = (
            f"first[n, {r}, c] = "
            f"min({number} if {at.real} and x[n, {at.slide}, c] == y[n, {r}, c] else 1e9 {k})\n"
            f"dx[n, {p}, c] = sum("
            f"dy[n, {r}, c] if {at.within} and first[n, {r}, c] == {reached} else 0 {at.over_r})"
        )
        return Formulas(
            f"y[n, {r}, c] = max(x[n, {at.slide}, c] if {at.real} else -1e300 {k})", backward
        )


@layer
class AveragePool(_Windowed):
    """The mean of each window, over the entries that are not padding.

    Args:
        window: points along each axis of space, an int or a tuple.
        stride: points from one window to the next; by default the window, so that they do not
            overlap.
        padding: "VALID", or "SAME"; padding is not counted.
    """

    window: Sizes
    stride: Sizes | None = None
    _: dataclasses.KW_ONLY
    padding: str = "VALID"

    def forward(
        self, params: tuple[()], x: Float[Array, "B *S C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B *R C"], Static[tuple[int, ...]]]:
        """Return the mean of each window."""
        check_no_params(self, params)
        total = self._reduce(upcast(x), 0.0, lax.add)
        return (total / self._count(x)).astype(x.dtype), Static(
            x.shape
        )  # the shape: the derivative is a constant

    def backward(
        self, params: tuple[()], cache: Static[tuple[int, ...]], dy: Float[Array, "B *R C"]
    ) -> tuple[tuple[()], Float[Array, "B *S C"]]:
        """Share each dy out among the entries of its window."""
        x = jax.ShapeDtypeStruct(cache.value, dy.dtype)
        window, stride, padding = self._window(x)
        expected = jax.eval_shape(lambda x: self._reduce(x, 0.0, lax.add), x)
        check_shape(self, "dy", dy, expected.shape)
        share = upcast(dy) / self._count(x)
        # what slid over x to add up slides back over the spread-out dy, as in a convolution by a
        # constant
        back = []
        for n, k, r, s, (low, _) in zip(
            x.shape[1:-1], window, dy.shape[1:-1], stride, padding, strict=True
        ):
            before, spread = k - 1 - low, (r - 1) * s + 1
            back.append((before, n + k - 1 - spread - before))
        dx = lax.reduce_window(
            share,
            np.asarray(0, share.dtype),
            lax.add,
            (1, *window, 1),
            (1,) * dy.ndim,
            ((0, 0), *back, (0, 0)),
            base_dilation=(1, *stride, 1),
        )
        return (), dx.astype(dy.dtype)

    def formulas(self, x: PyTree, cache: Cache) -> Formulas:
        """State the mean over the entries of a window that are not padding, ``count`` of them."""
        window, stride, padding = self._window(x)
        at = _Windows(window, stride, padding, x.shape[1:-1])
        r, p = ", ".join(at.r), ", ".join(at.p)
        return Formulas(
            f"y[n, {r}, c] = sum(x[n, {at.slide}, c] {at.over_k}) / count[{r}]",
            f"dx[n, {p}, c] = sum(dy[n, {r}, c] / count[{r}] if {at.within} else 0 {at.over_r})",
            {"count": self._count(x)[0, ..., 0]},
        )

    def _count(self, x: PyTree) -> Array:
        """Count the real entries of each window."""
        ones = jnp.ones((1, *x.shape[1:-1], 1), upcast(jnp.zeros((), x.dtype)).dtype)
        return self._reduce(ones, 0.0, lax.add)


class GlobalAverageCache(NamedTuple):
    """What the mean keeps: it is linear, so that only its weights matter.

    Attributes:
        shape: of the input.
        mask: which steps count (B, T, 1), or None where all do.
        form: the type of the input, where it came with lengths, or None.
    """

    shape: Static[tuple[int, ...]]
    mask: Array | None
    form: Static[type | None]


@layer
class GlobalAveragePool:
    """The mean of each channel over all of space: (B, …, C) to (B, C) (Lin et al., 2014).

    Of padded sequences, given as :class:`~jaxnn.Sequences` with lengths, only the steps that count
    are averaged; a sequence of length 0 has the mean 0.
    """

    takes: ClassVar[type] = Sequences

    def check_input(self, x: PyTree) -> None:
        """Check that no length exceeds the sequence."""
        check_beside(self, x)

    def init(self, key: PRNGKeyArray, x: PyTree) -> tuple[()]:
        """Return no parameters: ``()``."""
        return ()

    def forward(
        self, params: tuple[()], x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B C"], GlobalAverageCache]:
        """Return the mean over space, or over the steps that count."""
        check_no_params(self, params)
        array, beside = apart(x)
        check_floating(self, "x", array)
        if array.ndim < 3:
            raise InputError(f"{self}: expected x of shape (B, *space, C), got {array.shape}.")
        mask = None
        if beside.form is not None and x.lengths is not None:
            check_shape(self, "x", array, ("B", "T", "C"))
            check_lengths(self, x.lengths, *array.shape[:2])
            steps = jnp.expand_dims(jnp.arange(array.shape[1]), (0, 2))
            mask = steps < jnp.expand_dims(x.lengths, (1, 2))
        cache = GlobalAverageCache(Static(array.shape), mask, Static(beside.form))
        total = upcast(array if mask is None else jnp.where(mask, array, 0))
        y = total.sum(axis=tuple(range(1, array.ndim - 1))) / self._count(cache, total.dtype)
        return y.astype(array.dtype), cache

    def backward(
        self, params: tuple[()], cache: GlobalAverageCache, dy: Float[Array, "B C"]
    ) -> tuple[tuple[()], PyTree]:
        """Share each dy out evenly over space, or over the steps that count."""
        shape, mask = cache.shape.value, cache.mask
        check_shape(self, "dy", dy, (shape[0], shape[-1]))
        share = dy / self._count(cache, dy.dtype)
        dx = jnp.broadcast_to(jnp.expand_dims(share, range(1, len(shape) - 1)), shape)
        dx = dx if mask is None else jnp.where(mask, dx, 0)
        return (), in_form(cache.form.value, dx, {})

    def formulas(self, x: PyTree, cache: GlobalAverageCache) -> Formulas:
        """State the mean."""
        shape = cache.shape.value
        space = [f"p{k}" for k in range(len(shape) - 2)]
        at, over = ", ".join(space), " ".join(f"for {p} in S" for p in space)
        if cache.mask is None:
            n = math.prod(shape[1:-1])
            return Formulas(
                f"y[n, c] = sum(x[n, {at}, c] {over}) / {n}", f"dx[n, {at}, c] = dy[n, c] / {n}"
            )
        return Formulas(
            "count[n] = max(sum(mask[n, t] for t in T), 1)\n"
            "y[n, c] = sum(x[n, t, c] if mask[n, t] else 0 for t in T) / count[n]",
            "dx[n, t, c] = dy[n, c] / count[n] if mask[n, t] else 0",
            {"mask": cache.mask[..., 0]},
        )

    def _count(self, cache: GlobalAverageCache, dtype: Any) -> Any:
        """Count the points that each mean is over, at least 1."""
        if cache.mask is None:
            return math.prod(cache.shape.value[1:-1])
        return jnp.maximum(cache.mask.sum(axis=1), 1).astype(dtype)
