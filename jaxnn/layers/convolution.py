"""Convolutions and their transposes, in one and two dimensions, channels last.

B batch, H and W height and width (or T time), C input channels, O output channels, g groups.

The three functions ``conv``, ``conv_input`` and ``conv_kernel`` carry all four layers. A transposed
convolution is ``conv_input`` used forward, so its backward is made of the other two.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import InputError, check_floating, check_params, check_positive_int, check_shape
from jaxnn.formulas import Formulas
from jaxnn.layers.initializers import Initializer, check_initializer, initialize
from jaxnn.numerics import broadcast_last, flatten_batch, upcast
from jaxnn.types import Cache
from jaxnn.values import layer

Sizes = int | tuple[int, ...]
Padding = str | int | tuple[tuple[int, int], ...]


class ConvParams(NamedTuple):
    """The kernel ``w`` (*kernel_size, C/g, O), and bias ``b`` (O,), or None without one."""

    w: Float[Array, "*k C_g O"]
    b: Float[Array, "O"] | None


# ── The convolution of an image and a kernel, and its two derivatives ───────────────────────────

Pairs = tuple[tuple[int, int], ...]


class Geometry(NamedTuple):
    """How a kernel moves over an image: plain numbers, one entry an axis of space."""

    stride: tuple[int, ...]
    padding: Pairs
    dilation: tuple[int, ...]
    groups: int


def conv(
    x: Float[Array, "B *S C"], w: Float[Array, "*k C_g O"], at: Geometry
) -> Float[Array, "B *R O"]:
    """Return y[b, r, o] = Σ_{k, c} x[b, r · stride + k · dilation - padding, c] w[k, c, o]."""
    return _slide(x, w, at, (1,) * len(at.stride))


def conv_input(
    dy: Float[Array, "B *R O"], w: Float[Array, "*k C_g O"], at: Geometry, size: tuple[int, ...]
) -> Float[Array, "B *S C"]:
    """Return dx of ``conv``, for x with ``size`` points along each axis of space.

    Where x[s] met w[k] to give y[r], that is s = r · stride + k · dilation - padding, dy[r] now
    meets w[k] to give dx[s]: dy is spread out by the stride, and w is flipped, with its channels
    exchanged.
    """
    kernel = w.shape[:-2]
    padding = []
    for n, k, r, s, d, (low, _) in zip(
        size, kernel, dy.shape[1:-1], at.stride, at.dilation, at.padding, strict=True
    ):
        reach, spread = d * (k - 1) + 1, (r - 1) * s + 1
        before = reach - 1 - low
        padding.append((before, n + reach - 1 - spread - before))
    # (k, C/g, g·O/g) -> (k, O/g, g·C/g): within each group, inputs and outputs change places
    outputs = w.shape[-1] // at.groups
    grouped = w.reshape(*w.shape[:-1], at.groups, outputs)
    exchanged = jnp.swapaxes(grouped, -3, -1).reshape(*kernel, outputs, at.groups * w.shape[-2])
    back = Geometry((1,) * len(kernel), tuple(padding), at.dilation, at.groups)
    return _slide(dy, jnp.flip(exchanged, range(len(kernel))), back, at.stride)


def conv_kernel(
    x: Float[Array, "B *S C"], dy: Float[Array, "B *R O"], at: Geometry, kernel: tuple[int, ...]
) -> Float[Array, "*k C_g O"]:
    """Return dw of ``conv``: x and dy slid over one another, summed over the batch.

    Stride and dilation change places: dy is spread out by the stride, and the steps from one entry
    of the kernel to the next are those of the dilation.
    """
    padding = []
    for n, k, r, s, d, (low, _) in zip(
        x.shape[1:-1], kernel, dy.shape[1:-1], at.stride, at.dilation, at.padding, strict=True
    ):
        reach, spread = d * (k - 1) + 1, (r - 1) * s + 1
        padding.append((low, spread - n + reach - 1 - low))
    return _slide_over(x, dy, Geometry(at.dilation, tuple(padding), at.stride, at.groups), kernel)


# ── Each in the form in which a device runs it fast ───────────────────────────────────────────────
#
# GPUs and TPUs have a fast form of every convolution and get it as one operation. On a CPU, XLA
# hands a convolution to Eigen if its axes are in the usual order and it has no groups; all others
# run in plain loops, up to a hundred times slower. Outside of a loop XLA turns the axes round by
# itself; in the body of one, such as that of ``fit``, it does not
# (https://github.com/jax-ml/jax/issues/12868). Both functions are jitted so that a call outside of
# ``jit`` does not compile its branches anew each time.

FEW = (
    64  # multiplications for an output, up to which products of whole images are faster than Eigen
)
MANY = 8  # channels, from which on a derivative for the kernel is faster as a few matrix products


def _in_groups(function: Any, a: Array, b: Array, groups: int) -> Array:
    """Apply a function of two arrays to the channels of one group after another."""
    parts = (
        jnp.moveaxis(z.reshape(*z.shape[:-1], groups, z.shape[-1] // groups), -2, 0) for z in (a, b)
    )
    y = jnp.moveaxis(lax.map(lambda pair: function(*pair), tuple(parts)), 0, -2)
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1])


@functools.partial(jax.jit, static_argnums=(2, 3), inline=True)
def _slide(x: Array, w: Array, at: Geometry, spread: tuple[int, ...]) -> Array:
    """Slide w over x, whose points are spread out: ``conv`` and ``conv_input`` in one."""
    space = "HW"[: len(spread)]
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=at.stride,
        padding=at.padding,
        lhs_dilation=spread,
        rhs_dilation=at.dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=at.groups,
    )

    def widen(x: Array) -> Array:
        space = ((*pair, s - 1) for pair, s in zip(at.padding, spread, strict=True))
        return lax.pad(x, np.zeros((), x.dtype), ((0, 0, 0), *space, (0, 0, 0)))

    def by_products(x: Array, w: Array) -> Array:
        """Multiply each entry of the kernel by all inputs that meet it, and add up."""
        dtype, x, w = x.dtype, upcast(widen(x)), upcast(w)
        x = x.reshape(*x.shape[:-1], at.groups, w.shape[-2])
        w = w.reshape(*w.shape[:-1], at.groups, w.shape[-1] // at.groups)
        y: Any = 0
        for place in itertools.product(*map(range, w.shape[:-3])):
            ends = zip(x.shape[1:-2], w.shape[:-3], place, at.stride, at.dilation, strict=True)
            met = x[:, *(slice(p * d, n - (k - 1 - p) * d, s) for n, k, p, s, d in ends)]
            for c in range(w.shape[-3]):
                y = y + met[..., c : c + 1] * jnp.expand_dims(w[*place, c], range(x.ndim - 2))
        return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1]).astype(dtype)

    def pointwise(x: Array, w: Array) -> Array:
        """Multiply by the only entry, before the zeros between and around the points come in."""
        return widen(x[:, *(slice(None, None, s) for s in at.stride)] @ w.reshape(w.shape[-2:]))

    def on_cpu(x: Array, w: Array) -> Array:
        alone = set(at.stride) == {1} or not (
            np.any(at.padding) or set(spread) != {1}
        )  # stride, or zeros, not both
        if math.prod(w.shape[:-2]) == at.groups == 1 and alone:
            return pointwise(x, w)
        if math.prod(w.shape[:-1]) <= FEW * min(at.groups, 2):
            return by_products(x, w)
        one = functools.partial(convolve, feature_group_count=1)
        return one(x, w) if at.groups == 1 else _in_groups(one, x, w, at.groups)

    return lax.platform_dependent(x, w, cpu=on_cpu, default=convolve)


@functools.partial(jax.jit, static_argnums=(2, 3), inline=True)
def _slide_over(x: Array, dy: Array, at: Geometry, kernel: tuple[int, ...]) -> Array:
    """Slide dy over x: ``conv_kernel``, in which the batch takes the place of the channels."""
    space = "HW"[: len(kernel)]
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=at.stride,
        padding=at.padding,
        rhs_dilation=at.dilation,
        dimension_numbers=(f"C{space}N", f"I{space}O", f"{space}NC"),
        batch_group_count=at.groups,
    )

    def turned(x: Array, dy: Array) -> Array:
        """Put the axes into the usual order; the barrier keeps the compiler from undoing it."""
        x, dy = lax.optimization_barrier((jnp.swapaxes(x, 0, -1), jnp.moveaxis(dy, 0, -2)))
        dw = _slide(
            x, dy, at._replace(groups=1), (1,) * len(kernel)
        )  # (C, *S, B) and (*R, B, O) give (C, *k, O)
        return jnp.moveaxis(dw, 0, -2)

    def by_rows(x: Array, dy: Array) -> Array:
        """Multiply x by copies of dy, one for each column of the kernel; a product for each row.

        The copy for column k is dy moved by k to the right, so that it stands where it meets x.
        """
        *rows, columns = kernel
        (*_, (low, _)), (*_, step) = at.padding, at.stride
        zero, room = np.zeros((), dy.dtype), x.shape[-2] - dy.shape[-2]
        moves = [k * step - low for k in range(columns)]
        edges = [[(0, 0, 0)] * len(kernel) + [(m, room - m, 0), (0, 0, 0)] for m in moves]
        copies = jnp.concatenate([lax.pad(dy, zero, edge) for edge in edges], -1)
        tall = [(low, high, 0) for low, high in at.padding[:-1]]
        x = lax.pad(x, zero, [(0, 0, 0), *tall, (0, 0, 0), (0, 0, 0)])
        products = []
        for place in itertools.product(*map(range, rows)):
            ends = zip(place, at.stride, at.dilation, dy.shape[1:-2], strict=False)
            met = x[:, *(slice(p * s, p * s + d * (r - 1) + 1, d) for p, s, d, r in ends)]
            products.append(flatten_batch(met).T @ flatten_batch(copies))
        dw = jnp.stack(products).reshape(*rows, x.shape[-1], columns, dy.shape[-1])
        return jnp.swapaxes(dw, -3, -2)

    def pointwise(x: Array, dy: Array) -> Array:
        met = x[:, *(slice(None, None, s) for s in at.dilation)]
        return (flatten_batch(met).T @ flatten_batch(dy)).reshape(
            *kernel, x.shape[-1], dy.shape[-1]
        )

    def on_cpu(x: Array, dy: Array) -> Array:
        fastest = turned
        if at.dilation[-1] == 1 and min(x.shape[-1], dy.shape[-1]) // at.groups >= MANY:
            fastest = by_rows
        if at.groups > 1:
            return _in_groups(fastest, x, dy, at.groups)
        unpadded = all(low == 0 >= high for low, high in at.padding)
        return pointwise(x, dy) if math.prod(kernel) == 1 and unpadded else fastest(x, dy)

    return lax.platform_dependent(x, dy, cpu=on_cpu, default=convolve)


# ── What they share ───────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True, repr=False)
class _Convolution:
    """What the four layers share: their settings, and the checks of them."""

    rank: ClassVar[int]
    features: int
    kernel_size: Sizes
    _: dataclasses.KW_ONLY
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
    bias: bool = True
    w_init: Initializer = "glorot_uniform"

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_positive_int(name, "features", self.features)
        check_positive_int(name, "groups", self.groups)
        for setting in ("kernel_size", "stride", "dilation"):
            for size in self._sizes(setting):
                check_positive_int(name, setting, size)
        if isinstance(self.padding, str):
            if self.padding not in ("SAME", "VALID"):
                raise InputError(
                    f"{name}: expected padding 'SAME', 'VALID', an int or pairs, "
                    f"got {self.padding!r}."
                )
        else:
            pairs = self._padding_pairs()
            if any(
                isinstance(p, bool) or not isinstance(p, int) or p < 0
                for pair in pairs
                for p in pair
            ):
                raise InputError(f"{name}: expected padding of at least 0, got {self.padding!r}.")
        if self.features % self.groups:
            raise InputError(
                f"{name}: expected features divisible by groups {self.groups}, got {self.features}."
            )
        check_initializer(name, "w_init", self.w_init)

    def _sizes(self, setting: str) -> tuple[int, ...]:
        value = getattr(self, setting)
        sizes = value if isinstance(value, tuple) else (value,) * self.rank
        if len(sizes) != self.rank:
            raise InputError(
                f"{type(self).__name__}: expected {setting} with {self.rank} entries, "
                f"got {value!r}."
            )
        return sizes

    def _padding_pairs(self) -> Pairs:
        if isinstance(self.padding, int):
            return ((self.padding, self.padding),) * self.rank
        pairs = self.padding
        if (
            not isinstance(pairs, tuple)
            or len(pairs) != self.rank
            or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
        ):
            raise InputError(
                f"{type(self).__name__}: expected padding as {self.rank} pairs (before, after), "
                f"got {pairs!r}."
            )
        return pairs

    def _geometry(self, size: tuple[int, ...]) -> Geometry:
        """Work the padding out, for an image of this size under the kernel."""
        stride, dilation = self._sizes("stride"), self._sizes("dilation")
        if isinstance(self.padding, str):
            reach = [
                d * (k - 1) + 1 for k, d in zip(self._sizes("kernel_size"), dilation, strict=True)
            ]
            padding = tuple(lax.padtype_to_pads(size, reach, stride, self.padding))
        else:
            padding = self._padding_pairs()
        return Geometry(stride, padding, dilation, self.groups)

    def _check_x(self, x: PyTree) -> None:
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("B", *"HW"[: self.rank], "C"))
        if x.shape[-1] % self.groups:
            raise InputError(
                f"{self}: expected channels divisible by groups {self.groups}, got {x.shape[-1]}."
            )

    def _check_params(self, params: ConvParams, x: Array, w_shape: tuple[str | int, ...]) -> None:
        check_params(self, params, ConvParams)
        check_shape(self, "w", params.w, w_shape)
        check_floating(self, "x", x, like=params.w)
        if params.b is not None:
            check_shape(self, "b", params.b, (self.features,))
        if (params.b is None) == self.bias:
            raise InputError(
                f"{self}: expected parameters {'with' if self.bias else 'without'} a bias b."
            )

    def _check_fits(self, size: tuple[int, ...], at: Geometry) -> None:
        for n, k, d, (low, high) in zip(
            size, self._sizes("kernel_size"), at.dilation, at.padding, strict=True
        ):
            if d * (k - 1) + 1 > n + low + high:
                raise InputError(
                    f"{self}: expected an input of at least {d * (k - 1) + 1} points "
                    "along each axis under the kernel, "
                    f"padding included, got {n + low + high}."
                )


class _Forward(_Convolution):
    """A convolution forward."""

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> ConvParams:
        """Draw the kernel for inputs (B, *space, C), in the dtype of ``x``."""
        self._check_x(x)
        self._check_fits(x.shape[1:-1], self._geometry(x.shape[1:-1]))
        shape = (*self._sizes("kernel_size"), x.shape[-1] // self.groups, self.features)
        w = initialize(self.w_init, key, shape, x.dtype)
        return ConvParams(w, jnp.zeros(self.features, x.dtype) if self.bias else None)

    def forward(
        self, params: ConvParams, x: Float[Array, "B *S C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B *R O"], Array]:
        """Return the convolution of x with the kernel, plus the bias."""
        self._check_x(x)
        self._check_params(
            params, x, (*self._sizes("kernel_size"), x.shape[-1] // self.groups, self.features)
        )
        at = self._geometry(x.shape[1:-1])
        self._check_fits(x.shape[1:-1], at)
        y = conv(x, params.w, at)
        return y if params.b is None else y + broadcast_last(
            params.b, y.ndim
        ), x  # x: dw slides over it

    def backward(
        self, params: ConvParams, cache: Float[Array, "B *S C"], dy: Float[Array, "B *R O"]
    ) -> tuple[ConvParams, Float[Array, "B *S C"]]:
        """Return dw and db, summed over batch and space, and dx."""
        x, (w, b) = cache, params
        at = self._geometry(x.shape[1:-1])
        check_shape(self, "dy", dy, jax.eval_shape(lambda x, w: conv(x, w, at), x, w).shape)
        dw = conv_kernel(x, dy, at, w.shape[:-2])
        db = None if b is None else dy.sum(axis=tuple(range(dy.ndim - 1)))
        dx = conv_input(dy, w, at, x.shape[1:-1])
        return ConvParams(dw, db), dx

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return the geometry along each axis of space, and M, the input channels of a group."""
        at = self._geometry(x.shape[1:-1])
        first = tuple(low for low, _ in at.padding)
        geometry = {"stride": at.stride, "dilation": at.dilation, "padding": first}
        return geometry | {"M": x.shape[-1] // self.groups}


class _Transposed(_Convolution):
    """A convolution's derivative by its input, used as a layer: it enlarges."""

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> ConvParams:
        """Draw the kernel (*kernel_size, O/g, C) for inputs (B, *space, C), in x's dtype."""
        self._check_x(x)
        shape = (*self._sizes("kernel_size"), self.features // self.groups, x.shape[-1])
        w = initialize(self.w_init, key, shape, x.dtype)
        return ConvParams(w, jnp.zeros(self.features, x.dtype) if self.bias else None)

    def forward(
        self, params: ConvParams, x: Float[Array, "B *R C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B *S O"], Array]:
        """Return the sum of copies of the kernel, one for each point of x, plus the bias."""
        self._check_x(x)
        self._check_params(
            params, x, (*self._sizes("kernel_size"), self.features // self.groups, x.shape[-1])
        )
        size = self._output_size(x.shape[1:-1])
        y = conv_input(x, params.w, self._geometry(size), size)
        return y if params.b is None else y + broadcast_last(
            params.b, y.ndim
        ), x  # x: dw slides over it

    def backward(
        self, params: ConvParams, cache: Float[Array, "B *R C"], dy: Float[Array, "B *S O"]
    ) -> tuple[ConvParams, Float[Array, "B *R C"]]:
        """Return dw and db, summed over batch and space, and dx, which is a convolution."""
        x, (w, b) = cache, params
        size = self._output_size(x.shape[1:-1])
        at = self._geometry(size)
        check_shape(self, "dy", dy, (len(x), *size, self.features))
        dw = conv_kernel(dy, x, at, w.shape[:-2])
        db = None if b is None else dy.sum(axis=tuple(range(dy.ndim - 1)))
        dx = conv(dy, w, at)
        return ConvParams(dw, db), dx

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return the geometry along each axis of space, and M, the output channels of a group."""
        at = self._geometry(self._output_size(x.shape[1:-1]))
        first = tuple(low for low, _ in at.padding)
        geometry = {"stride": at.stride, "dilation": at.dilation, "padding": first}
        return geometry | {"M": self.features // self.groups}

    def _output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        stride, dilation, kernel = (
            self._sizes(name) for name in ("stride", "dilation", "kernel_size")
        )
        if self.padding == "SAME":
            return tuple(n * s for n, s in zip(size, stride, strict=True))
        pairs = ((0, 0),) * self.rank if self.padding == "VALID" else self._padding_pairs()
        output = tuple(
            (n - 1) * s + d * (k - 1) + 1 - low - high
            for n, s, d, k, (low, high) in zip(size, stride, dilation, kernel, pairs, strict=True)
        )
        if min(output) < 1:
            raise InputError(
                f"{self}: expected padding that leaves an output, got one of size {output}."
            )
        return output


# ── The four layers ─────────────────────────────────────────────────────────────────────────────


@layer
class Conv1D(_Forward):
    """y[t] = Σ_k x[t · stride + k · dilation - padding] w[k] + b, over sequences (B, T, C).

    Args:
        features: O, the output channels.
        kernel_size: points of the kernel, an int or a tuple of one.
        stride: points from one output to the next.
        padding: "SAME" (T / stride outputs), "VALID" (none), an int, or a pair of them in a tuple.
        dilation: points of the input from one entry of the kernel to the next.
        groups: g; output channels see only the input channels of their group (g = C: depthwise).
        bias: whether to add b.
        w_init: how the kernel is drawn, by a name from ``jax.nn.initializers``.
    """

    rank: ClassVar[int] = 1

    formulas = Formulas(
        """
        y[n, r, o] = sum(
            x[n, r * stride[0] + k * dilation[0] - padding[0], c + C * (o * groups // O)]
            * w[k, c, o]
            for k in K for c in C
        ) + b[o]
        """,
        """
        dw[k, c, o] = sum(
            x[n, r * stride[0] + k * dilation[0] - padding[0], c + C * (o * groups // O)]
            * dy[n, r, o]
            for n in B for r in R
        )
        db[o] = sum(dy[n, r, o] for n in B for r in R)
        dx[n, p, c] = sum(
            dy[n, r, o]
            * w[(p - r * stride[0] + padding[0]) / dilation[0], c - M * (o * groups // O), o]
            for r in R for o in O
        )
        """,
    )


@layer
class Conv2D(_Forward):
    """A convolution over images (B, H, W, C), along both H and W (LeCun et al., 1989).

    Args:
        features: O, the output channels.
        kernel_size: points of the kernel, an int or a tuple of two, as all sizes here.
        stride: points from one output to the next.
        padding: "SAME" (size / stride outputs), "VALID" (none), an int, or two pairs (before,
            after).
        dilation: points of the input from one entry of the kernel to the next.
        groups: g; output channels see only the input channels of their group (g = C: depthwise).
        bias: whether to add b.
        w_init: how the kernel is drawn, by a name from ``jax.nn.initializers``.
    """

    rank: ClassVar[int] = 2

    formulas = Formulas(
        """
        y[n, r, s, o] = sum(
            x[
                n,
                r * stride[0] + k * dilation[0] - padding[0],
                s * stride[1] + l * dilation[1] - padding[1],
                c + C * (o * groups // O),
            ]
            * w[k, l, c, o]
            for k in K for l in L for c in C
        ) + b[o]
        """,
        """
        dw[k, l, c, o] = sum(
            x[
                n,
                r * stride[0] + k * dilation[0] - padding[0],
                s * stride[1] + l * dilation[1] - padding[1],
                c + C * (o * groups // O),
            ]
            * dy[n, r, s, o]
            for n in B for r in R for s in S
        )
        db[o] = sum(dy[n, r, s, o] for n in B for r in R for s in S)
        dx[n, p, q, c] = sum(
            dy[n, r, s, o]
            * w[
                (p - r * stride[0] + padding[0]) / dilation[0],
                (q - s * stride[1] + padding[1]) / dilation[1],
                c - M * (o * groups // O),
                o,
            ]
            for r in R for s in S for o in O
        )
        """,
    )


@layer
class ConvTranspose1D(_Transposed):
    """The transpose of a :class:`Conv1D`: (B, T, C) to (B, T · stride, O) for "SAME".

    Settings as in :class:`Conv1D`; ``padding`` is that of the convolution it transposes, so it is
    cut off here: "VALID" gives (T - 1) · stride + dilation · (kernel_size - 1) + 1 points.
    """

    rank: ClassVar[int] = 1

    formulas = Formulas(
        """
        y[n, p, o] = sum(
            x[n, r, c]
            * w[(p - r * stride[0] + padding[0]) / dilation[0], o - M * (c * groups // C), c]
            for r in R for c in C
        ) + b[o]
        """,
        """
        dw[k, o, c] = sum(
            dy[n, r * stride[0] + k * dilation[0] - padding[0], o + O * (c * groups // C)]
            * x[n, r, c]
            for n in B for r in R
        )
        db[o] = sum(dy[n, p, o] for n in B for p in P)
        dx[n, r, c] = sum(
            dy[n, r * stride[0] + k * dilation[0] - padding[0], o + O * (c * groups // C)]
            * w[k, o, c]
            for k in K for o in O
        )
        """,
    )


@layer
class ConvTranspose2D(_Transposed):
    """The transpose of a :class:`Conv2D` from O to C channels (Zeiler et al., 2010).

    Settings as in :class:`Conv2D`; ``padding`` is that of the convolution it transposes, so it is
    cut off here.
    """

    rank: ClassVar[int] = 2

    formulas = Formulas(
        """
        y[n, p, q, o] = sum(
            x[n, r, s, c]
            * w[
                (p - r * stride[0] + padding[0]) / dilation[0],
                (q - s * stride[1] + padding[1]) / dilation[1],
                o - M * (c * groups // C),
                c,
            ]
            for r in R for s in S for c in C
        ) + b[o]
        """,
        """
        dw[k, l, o, c] = sum(
            dy[
                n,
                r * stride[0] + k * dilation[0] - padding[0],
                s * stride[1] + l * dilation[1] - padding[1],
                o + O * (c * groups // C),
            ]
            * x[n, r, s, c]
            for n in B for r in R for s in S
        )
        db[o] = sum(dy[n, p, q, o] for n in B for p in P for q in Q)
        dx[n, r, s, c] = sum(
            dy[
                n,
                r * stride[0] + k * dilation[0] - padding[0],
                s * stride[1] + l * dilation[1] - padding[1],
                o + O * (c * groups // C),
            ]
            * w[k, l, o, c]
            for k in K for l in L for o in O
        )
        """,
    )


CONVOLUTIONS = (Conv1D, Conv2D, ConvTranspose1D, ConvTranspose2D)
