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
        """Return no parameters: ``()``."""
        self._window(x)
        return ()

    def _window(self, x: PyTree) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
        """Return window, stride and padding along each axis of space."""
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

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return the windows: their sizes, steps and padding along each axis of space."""
        window, stride, padding = self._window(x)
        size = x.shape[1:-1]
        return {
            "rank": len(size),
            "size": tuple(size),
            "window": window,
            "stride": stride,
            "padding": tuple(low for low, _ in padding),
        }

    def _reduce(self, x: Array, start: float, function: Any) -> Array:
        window, stride, padding = self._window(x)
        pad = ((0, 0), *padding, (0, 0))
        return lax.reduce_window(
            x, np.asarray(start, x.dtype), function, (1, *window, 1), (1, *stride, 1), pad
        )


def places(window: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Return each place in a window, in row-major order."""
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

    formula_notes: ClassVar[dict[str, str]] = {
        "first": "the place of the first largest entry in its window, counted from 0 row by row",
        "dx": "the sum of ∂J/∂y over the windows of which the entry is the first largest",
    }
    formulas = Formulas(
        """
        if rank == 1:
            y[n, r, c] = max(
                x[n, r * stride[0] + k - padding[0], c]
                for k in range(window[0])
                if 0 <= r * stride[0] + k - padding[0] < size[0]
            )
        else:
            y[n, r, s, c] = max(
                x[n, r * stride[0] + k - padding[0], s * stride[1] + l - padding[1], c]
                for k in range(window[0])
                for l in range(window[1])
                if 0 <= r * stride[0] + k - padding[0] < size[0]
                and 0 <= s * stride[1] + l - padding[1] < size[1]
            )
        """,
        """
        if rank == 1:
            first[n, r, c] = min(
                k
                for k in range(window[0])
                if 0 <= r * stride[0] + k - padding[0] < size[0]
                and x[n, r * stride[0] + k - padding[0], c] == y[n, r, c]
            )
            dx[n, p, c] = sum(
                dy[n, r, c]
                for r in R
                if 0 <= p + padding[0] - r * stride[0] < window[0]
                and first[n, r, c] == p + padding[0] - r * stride[0]
            )
        else:
            first[n, r, s, c] = min(
                k * window[1] + l
                for k in range(window[0])
                for l in range(window[1])
                if 0 <= r * stride[0] + k - padding[0] < size[0]
                and 0 <= s * stride[1] + l - padding[1] < size[1]
                and x[n, r * stride[0] + k - padding[0], s * stride[1] + l - padding[1], c]
                == y[n, r, s, c]
            )
            dx[n, p, q, c] = sum(
                dy[n, r, s, c]
                for r in R
                for s in S
                if 0 <= p + padding[0] - r * stride[0] < window[0]
                and 0 <= q + padding[1] - s * stride[1] < window[1]
                and first[n, r, s, c]
                == (p + padding[0] - r * stride[0]) * window[1] + q + padding[1] - s * stride[1]
            )
        """,
    )

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

    formulas = Formulas(
        """
        if rank == 1:
            y[n, r, c] = (
                sum(x[n, r * stride[0] + k - padding[0], c] for k in range(window[0])) / count[r]
            )
        else:
            y[n, r, s, c] = (
                sum(
                    x[n, r * stride[0] + k - padding[0], s * stride[1] + l - padding[1], c]
                    for k in range(window[0])
                    for l in range(window[1])
                )
                / count[r, s]
            )
        """,
        """
        if rank == 1:
            dx[n, p, c] = sum(
                dy[n, r, c] / count[r]
                for r in R
                if 0 <= p + padding[0] - r * stride[0] < window[0]
            )
        else:
            dx[n, p, q, c] = sum(
                dy[n, r, s, c] / count[r, s]
                for r in R
                for s in S
                if 0 <= p + padding[0] - r * stride[0] < window[0]
                and 0 <= q + padding[1] - s * stride[1] < window[1]
            )
        """,
    )

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

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return the windows, and the number of entries of each that are not padding."""
        return super().formula_values(x, cache) | {"count": self._count(x)[0, ..., 0]}

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

    formulas = Formulas(
        """
        if masked:
            count[n] = max(sum(mask[n, t] for t in T), 1)
            y[n, c] = sum(x[n, t, c] for t in T if mask[n, t]) / count[n]
        else:
            y[n, c] = mean(x[n, *p, c] for p in P)
        """,
        """
        if masked:
            dx[n, t, c] = dy[n, c] / count[n] if mask[n, t] else 0
        else:
            dx[n, *p, c] = dy[n, c] / P
        """,
    )

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

    def formula_values(self, x: PyTree, cache: GlobalAverageCache) -> dict[str, Any]:
        """Return which steps count."""
        if cache.mask is None:
            return {"masked": False}
        return {"masked": True, "mask": cache.mask[..., 0]}

    def _count(self, cache: GlobalAverageCache, dtype: Any) -> Any:
        """Count the points that each mean is over, at least 1."""
        if cache.mask is None:
            return math.prod(cache.shape.value[1:-1])
        return jnp.maximum(cache.mask.sum(axis=1), 1).astype(dtype)
