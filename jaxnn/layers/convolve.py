"""The convolution of an image and a kernel, and its two derivatives, in one and two dimensions, channels last.

B batch, H and W height and width (or T time), C input channels, O output channels, g groups.

A convolution is linear in its input and in its kernel,
and both of its derivatives are convolutions too::

    y  = conv(x, w)                slide w over x
    dx = conv_input(dy, w)         slide the flipped, transposed w over the spread-out dy
    dw = conv_kernel(x, dy)        slide the spread-out dy over x, the batch as the channel summed over
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pairs = tuple[tuple[int, int], ...]


class Geometry(NamedTuple):
    """How a kernel moves over an image: plain numbers, one entry an axis of space."""

    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int


def conv(x: Float[Array, "B *S C"], w: Float[Array, "*k C_g O"], at: Geometry) -> Float[Array, "B *R O"]:
    """Return y[b, r, o] = Σ_{k, c} x[b, r · stride + k · dilation - padding, c] w[k, c, o]."""
    space = "HW"[: len(at.stride)]
    return lax.conv_general_dilated(
        x,
        w,
        window_strides=at.stride,
        padding=at.padding,
        rhs_dilation=at.dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=at.groups,
    )


def conv_input(
    dy: Float[Array, "B *R O"], w: Float[Array, "*k C_g O"], at: Geometry, size: tuple[int, ...]
) -> Float[Array, "B *S C"]:
    """Return dx of ``conv``, for x with ``size`` points along each axis of space.

    Where x[s] met w[k] to give y[r], that is s = r · stride + k · dilation - padding, dy[r] now meets
    w[k] to give dx[s]: dy is spread out by the stride, and w is flipped, with its channels exchanged.
    """
    space = "HW"[: len(at.stride)]
    kernel = w.shape[:-2]
    padding = []
    for n, k, r, s, d, (low, _) in zip(size, kernel, dy.shape[1:-1], at.stride, at.dilation, at.padding, strict=True):
        reach, spread = d * (k - 1) + 1, (r - 1) * s + 1
        before = reach - 1 - low
        padding.append((before, n + reach - 1 - spread - before))
    # (k, C/g, g·O/g) -> (k, O/g, g·C/g): within each group, inputs and outputs change places
    outputs = w.shape[-1] // at.groups
    grouped = w.reshape(*w.shape[:-1], at.groups, outputs)
    exchanged = jnp.swapaxes(grouped, -3, -1).reshape(*kernel, outputs, at.groups * w.shape[-2])
    return lax.conv_general_dilated(
        dy,
        jnp.flip(exchanged, range(len(kernel))),
        window_strides=(1,) * len(kernel),
        padding=padding,
        lhs_dilation=at.stride,
        rhs_dilation=at.dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=at.groups,
    )


def conv_kernel(
    x: Float[Array, "B *S C"], dy: Float[Array, "B *R O"], at: Geometry, kernel: tuple[int, ...]
) -> Float[Array, "*k C_g O"]:
    """Return dw of ``conv``: x and dy slid over one another, summed over the batch.

    Stride and dilation change places: dy is spread out by the stride, and the steps from one entry of
    the kernel to the next are those of the dilation.
    """
    space = "HW"[: len(at.stride)]
    padding = []
    for n, k, r, s, d, (low, _) in zip(
        x.shape[1:-1], kernel, dy.shape[1:-1], at.stride, at.dilation, at.padding, strict=True
    ):
        reach, spread = d * (k - 1) + 1, (r - 1) * s + 1
        padding.append((low, spread - n + reach - 1 - low))
    return lax.conv_general_dilated(
        x,
        dy,
        window_strides=at.dilation,
        padding=padding,
        rhs_dilation=at.stride,
        dimension_numbers=(f"C{space}N", f"I{space}O", f"{space}NC"),  # the batch takes the place of the channels
        batch_group_count=at.groups,
    )
