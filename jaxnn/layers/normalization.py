"""Normalisation: subtract a mean, divide by a standard deviation, then scale and shift.

B batch, C channels or features (the last axis), n the entries that share one mean and variance.

    x̂ = (x - μ) / √(σ² + ε)        y = γ x̂ + β

Layers differ in which entries share their statistics: one sample's features (LayerNorm), its groups
of channels (GroupNorm), or a channel over the whole batch (BatchNorm). The derivative of x̂ is the
same::

    dx = (dx̂ - mean(dx̂) - x̂ · mean(dx̂ · x̂)) / √(σ² + ε)

The two means are the paths through μ and through σ²: what x̂ cannot change, its own mean and
variance, is taken out of dx̂. Statistics are computed in at least float32.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_floating,
    check_fraction,
    check_params,
    check_positive,
    check_positive_int,
    check_shape,
)
from jaxnn.formulas import Formulas
from jaxnn.numerics import broadcast_last, upcast
from jaxnn.types import Cache, Params, Running, Static
from jaxnn.values import layer

MEANS = {  # what the formulas call the two means of the module's docstring
    "m_1": "the mean of the derivative by xhat over the entries that share their statistics",
    "m_2": "the mean of that derivative times xhat, over the same entries",
}


class NormParams(NamedTuple):
    """The gain γ, ``scale`` (C,), at first 1, and the shift β, ``bias`` (C,), at first 0."""

    scale: Float[Array, "C"]
    bias: Float[Array, "C"]


class NormCache(NamedTuple):
    """What LayerNorm and GroupNorm keep for the backward pass: two numbers make x̂ of x again.

    Attributes:
        x: the input.
        mean: μ of each sample or group, its axes kept with size 1.
        rstd: 1 / √(σ² + ε) likewise.
    """

    x: Array
    mean: Array
    rstd: Array


def statistics(x: Array, axes: Any, epsilon: float) -> tuple[Array, Array, Array]:
    """Return μ, σ² and 1/√(σ² + ε) over some axes, which are kept with size 1."""
    mean = x.mean(axis=axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    return mean, variance, lax.rsqrt(variance + epsilon)


def normalized_backward(dxhat: Array, xhat: Array, rstd: Array, axes: Any) -> Array:
    """Take the derivative by x̂ to the one by x, through the mean and the variance of x."""
    through_mean = dxhat.mean(axis=axes, keepdims=True)
    through_variance = xhat * (dxhat * xhat).mean(axis=axes, keepdims=True)
    return rstd * (dxhat - through_mean - through_variance)


def _check(who: object, params: Params, kind: type, x: Array) -> None:
    check_params(who, params, kind)
    check_shape(who, "x", x, ("...", "B", params.scale.shape[0]))
    check_floating(who, "x", x, like=params.scale)
    for name, leaf in zip(params._fields, params, strict=True):
        if not isinstance(leaf, Running):
            check_shape(who, name, leaf, (x.shape[-1],))


def _check_entries(who: object, count: int, x: PyTree) -> None:
    """Check that several entries share a mean; of a single one nothing but 0 would remain."""
    if count == 1:
        raise InputError(
            f"{who}: expected at least two entries to normalise together, got one, in shape "
            f"{x.shape}."
        )


def _sum_to_channels(x: Array, dtype: Any) -> Array:
    return x.sum(axis=tuple(range(x.ndim - 1))).astype(dtype)


@layer
class LayerNorm:
    """Normalise each sample over its last axis (Ba et al., 2016).

    Args:
        epsilon: ε, added to the variance.
    """

    _: dataclasses.KW_ONLY
    epsilon: float = 1e-5
    per_position: ClassVar[bool] = True

    formula_notes = MEANS
    formulas = Formulas(
        """
        μ[n] = mean(x[n, c] for c in C)
        v[n] = mean((x[n, c] - μ[n])**2 for c in C)
        xhat[n, c] = (x[n, c] - μ[n]) / sqrt(v[n] + epsilon)
        y[n, c] = scale[c] * xhat[n, c] + bias[c]
        """,
        """
        dxhat[n, c] = scale[c] * dy[n, c]
        m_1[n] = mean(dxhat[n, j] for j in C)
        m_2[n] = mean(dxhat[n, j] * xhat[n, j] for j in C)
        dx[n, c] = (dxhat[n, c] - m_1[n] - xhat[n, c] * m_2[n]) / sqrt(v[n] + epsilon)
        dscale[c] = sum(dy[n, c] * xhat[n, c] for n in B)
        dbias[c] = sum(dy[n, c] for n in B)
        """,
    )

    def __post_init__(self) -> None:
        check_positive("LayerNorm", "epsilon", self.epsilon)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> NormParams:
        """Start with γ = 1 and β = 0."""
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("...", "B", "C"))
        _check_entries(self, x.shape[-1], x)
        return NormParams(jnp.ones(x.shape[-1], x.dtype), jnp.zeros(x.shape[-1], x.dtype))

    def forward(
        self, params: NormParams, x: Float[Array, "*B C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*B C"], NormCache]:
        """Return γ x̂ + β."""
        _check(self, params, NormParams, x)
        scale, bias = (broadcast_last(upcast(p), x.ndim) for p in params)
        mean, _, rstd = statistics(upcast(x), -1, self.epsilon)
        y = (upcast(x) - mean) * rstd * scale + bias
        return y.astype(x.dtype), NormCache(x, mean, rstd)

    def backward(
        self, params: NormParams, cache: NormCache, dy: Float[Array, "*B C"]
    ) -> tuple[NormParams, Float[Array, "*B C"]]:
        """Return dγ = Σ dy x̂ and dβ = Σ dy over all samples, and dx."""
        x, mean, rstd = cache
        check_shape(self, "dy", dy, x.shape)
        g = upcast(dy)
        xhat = (upcast(x) - mean) * rstd
        dx = normalized_backward(g * broadcast_last(upcast(params.scale), x.ndim), xhat, rstd, -1)
        dscale, dbias = _sum_to_channels(g * xhat, x.dtype), _sum_to_channels(g, x.dtype)
        return NormParams(dscale, dbias), dx.astype(x.dtype)


class RMSNormParams(NamedTuple):
    """The gain γ, ``scale`` (C,), which starts at 1."""

    scale: Float[Array, "C"]


@layer
class RMSNorm:
    """Divide by the root mean square: y = γ x / √(mean(x²) + ε) (Zhang and Sennrich, 2019).

    Args:
        epsilon: ε, added to the mean square.
    """

    _: dataclasses.KW_ONLY
    epsilon: float = 1e-6
    per_position: ClassVar[bool] = True

    formula_notes = MEANS
    formulas = Formulas(
        """
        m[n] = mean(x[n, c]**2 for c in C)
        xhat[n, c] = x[n, c] / sqrt(m[n] + epsilon)
        y[n, c] = scale[c] * xhat[n, c]
        """,
        """
        dxhat[n, c] = scale[c] * dy[n, c]
        m_2[n] = mean(dxhat[n, j] * xhat[n, j] for j in C)
        dx[n, c] = (dxhat[n, c] - xhat[n, c] * m_2[n]) / sqrt(m[n] + epsilon)
        dscale[c] = sum(dy[n, c] * xhat[n, c] for n in B)
        """,
    )

    def __post_init__(self) -> None:
        check_positive("RMSNorm", "epsilon", self.epsilon)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> RMSNormParams:
        """Start with γ = 1."""
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("...", "B", "C"))
        return RMSNormParams(jnp.ones(x.shape[-1], x.dtype))

    def forward(
        self, params: RMSNormParams, x: Float[Array, "*B C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*B C"], Any]:
        """Return γ x / √(mean(x²) + ε)."""
        _check(self, params, RMSNormParams, x)
        rrms = lax.rsqrt((upcast(x) ** 2).mean(axis=-1, keepdims=True) + self.epsilon)
        y = upcast(x) * rrms * broadcast_last(upcast(params.scale), x.ndim)
        return y.astype(x.dtype), (x, rrms)  # rrms: one number a sample makes x̂ of x again

    def backward(
        self, params: RMSNormParams, cache: Cache, dy: Float[Array, "*B C"]
    ) -> tuple[RMSNormParams, Float[Array, "*B C"]]:
        """Return dγ = Σ dy x̂ and dx = (dx̂ - x̂ mean(dx̂ x̂)) / √(mean(x²) + ε)."""
        x, rrms = cache
        check_shape(self, "dy", dy, x.shape)
        g, z = upcast(dy), upcast(x)
        dscale = _sum_to_channels(g * (z * rrms), x.dtype)
        dscale, rrms = lax.optimization_barrier(
            (dscale, rrms)
        )  # dγ first: dx then takes the memory that it needed
        dxhat = g * broadcast_last(upcast(params.scale), x.ndim)
        through_square = z * (
            rrms * rrms * (dxhat * z).mean(axis=-1, keepdims=True)
        )  # x̂ mean(dx̂ x̂)
        dx = rrms * (dxhat - through_square)
        return RMSNormParams(dscale), dx.astype(x.dtype)


@layer
class GroupNorm:
    """Normalise each sample (*space, C) over space and groups of channels (Wu and He, 2018).

    Args:
        groups: how many groups to part the channels into, neighbours together; 1 takes all of a
            sample.
        epsilon: ε, added to the variance.
    """

    groups: int
    _: dataclasses.KW_ONLY
    epsilon: float = 1e-5

    formula_notes = MEANS
    formulas = Formulas(
        """
        μ[n, g:groups] = mean(x[n, *q, g * W + j] for q in Q for j in range(W))
        v[n, g:groups] = mean((x[n, *q, g * W + j] - μ[n, g])**2 for q in Q for j in range(W))
        xhat[n, *p, c] = (x[n, *p, c] - μ[n, c // W]) / sqrt(v[n, c // W] + epsilon)
        y[n, *p, c] = scale[c] * xhat[n, *p, c] + bias[c]
        """,
        """
        dxhat[n, *p, c] = scale[c] * dy[n, *p, c]
        m_1[n, g:groups] = mean(dxhat[n, *q, g * W + j] for q in Q for j in range(W))
        m_2[n, g:groups] = mean(
            dxhat[n, *q, g * W + j] * xhat[n, *q, g * W + j] for q in Q for j in range(W)
        )
        dx[n, *p, c] = (
            dxhat[n, *p, c] - m_1[n, c // W] - xhat[n, *p, c] * m_2[n, c // W]
        ) / sqrt(v[n, c // W] + epsilon)
        dscale[c] = sum(dy[n, c] * xhat[n, c] for n in B)
        dbias[c] = sum(dy[n, c] for n in B)
        """,
    )

    def __post_init__(self) -> None:
        check_positive_int("GroupNorm", "groups", self.groups)
        check_positive("GroupNorm", "epsilon", self.epsilon)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> NormParams:
        """Start with γ = 1 and β = 0."""
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("...", "B", "C"))
        _, space, _, channels = self._grouped(x)
        _check_entries(self, space * channels if x.shape[0] else channels, x)
        return NormParams(jnp.ones(x.shape[-1], x.dtype), jnp.zeros(x.shape[-1], x.dtype))

    def forward(
        self, params: NormParams, x: Float[Array, "B *S C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B *S C"], NormCache]:
        """Return γ x̂ + β."""
        _check(self, params, NormParams, x)
        scale, bias = (broadcast_last(upcast(p), x.ndim) for p in params)
        grouped = upcast(x).reshape(self._grouped(x))
        mean, _, rstd = statistics(grouped, (1, 3), self.epsilon)
        y = ((grouped - mean) * rstd).reshape(x.shape) * scale + bias
        return y.astype(x.dtype), NormCache(x, mean, rstd)

    def backward(
        self, params: NormParams, cache: NormCache, dy: Float[Array, "B *S C"]
    ) -> tuple[NormParams, Float[Array, "B *S C"]]:
        """Return dγ = Σ dy x̂ and dβ = Σ dy over batch and space, and dx."""
        x, mean, rstd = cache
        check_shape(self, "dy", dy, x.shape)
        g, shape = upcast(dy), self._grouped(x)
        xhat = (upcast(x).reshape(shape) - mean) * rstd
        dxhat = (g * broadcast_last(upcast(params.scale), x.ndim)).reshape(shape)
        dx = normalized_backward(dxhat, xhat, rstd, (1, 3)).reshape(x.shape)
        dscale, dbias = (
            _sum_to_channels(g * xhat.reshape(x.shape), x.dtype),
            _sum_to_channels(g, x.dtype),
        )
        return NormParams(dscale, dbias), dx.astype(x.dtype)

    def formula_values(self, x: PyTree, cache: NormCache) -> dict[str, Any]:
        """Return W, the number of channels of a group."""
        return {"W": x.shape[-1] // self.groups}

    def _grouped(self, x: PyTree) -> tuple[int, int, int, int]:
        """Return the shape (B, space, groups, channels of a group)."""
        if x.shape[-1] % self.groups:
            raise InputError(
                f"{self}: expected channels divisible by groups {self.groups}, got {x.shape[-1]}."
            )
        channels = x.shape[-1] // self.groups
        return (
            x.shape[0],
            x.size // (x.shape[0] * x.shape[-1]) if x.shape[0] else 0,
            self.groups,
            channels,
        )


class Moments(NamedTuple):
    """Running estimates of the ``mean`` and the ``variance`` of each channel, (C,)."""

    mean: Float[Array, "C"]
    variance: Float[Array, "C"]


class BatchNormParams(NamedTuple):
    """The gain γ and the shift β, (C,), and the running moments, which are not trained."""

    scale: Float[Array, "C"]
    bias: Float[Array, "C"]
    moments: Running[Moments]


class BatchNormCache(NamedTuple):
    """What BatchNorm keeps for the backward pass, and for its running estimates.

    Attributes:
        x: the input: with the moments it makes x̂ again.
        mean: μ of each channel.
        variance: σ² of each channel, by which the running estimates are updated.
        training: whether the moments are the batch's own, through which the gradient flows.
    """

    x: Array
    mean: Array
    variance: Array
    training: Static[bool]


@layer
class BatchNorm:
    """Normalise each channel over the batch and space (Ioffe and Szegedy, 2015).

    In training (with a key) by the batch's own mean and variance, through which the gradient flows;
    at inference by their running estimates, which are constants. ``update_running`` updates the
    estimates. A training batch with a single value of each channel, such as one row, is refused:
    its outputs would be β, whatever the values are.

    Args:
        momentum: the weight of the old estimate in the new one. (PyTorch's ``momentum`` is 1 minus
            this.)
        epsilon: ε, added to the variance.
    """

    _: dataclasses.KW_ONLY
    momentum: float = 0.9
    epsilon: float = 1e-5

    formula_notes = MEANS
    formulas = Formulas(
        """
        if training:
            μ[c] = mean(x[n, c] for n in B)
            v[c] = mean((x[n, c] - μ[c])**2 for n in B)
        else:
            μ[c] = moments_mean[c]
            v[c] = moments_variance[c]
        xhat[n, c] = (x[n, c] - μ[c]) / sqrt(v[c] + epsilon)
        y[n, c] = scale[c] * xhat[n, c] + bias[c]
        """,
        """
        dxhat[n, c] = scale[c] * dy[n, c]
        dscale[c] = sum(dy[n, c] * xhat[n, c] for n in B)
        dbias[c] = sum(dy[n, c] for n in B)
        dmoments_mean[c] = 0 * moments_mean[c]
        dmoments_variance[c] = 0 * moments_variance[c]
        if training:
            m_1[c] = mean(dxhat[n, c] for n in B)
            m_2[c] = mean(dxhat[n, c] * xhat[n, c] for n in B)
            dx[n, c] = (dxhat[n, c] - m_1[c] - xhat[n, c] * m_2[c]) / sqrt(v[c] + epsilon)
        else:
            dx[n, c] = dxhat[n, c] / sqrt(v[c] + epsilon)
        """,
    )

    def __post_init__(self) -> None:
        check_positive("BatchNorm", "epsilon", self.epsilon)
        check_fraction("BatchNorm", "momentum", self.momentum)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> BatchNormParams:
        """Start with γ = 1, β = 0, and running estimates of mean 0 and variance 1."""
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("...", "B", "C"))
        ones, zeros = jnp.ones(x.shape[-1], x.dtype), jnp.zeros(x.shape[-1], x.dtype)
        return BatchNormParams(ones, zeros, Running(Moments(zeros, ones)))

    def forward(
        self, params: BatchNormParams, x: Float[Array, "B *S C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B *S C"], BatchNormCache]:
        """Return γ x̂ + β, with the batch's moments given a key and the running ones without."""
        _check(self, params, BatchNormParams, x)
        training = key is not None and x.size > 0  # of no samples there is no mean
        if training and x.size == x.shape[-1]:
            raise InputError(
                f"{self}: expected at least two values of each channel in training, as one has no "
                f"variance, got shape {x.shape}."
            )
        if training:
            mean, variance, _ = statistics(upcast(x), tuple(range(x.ndim - 1)), self.epsilon)
        else:
            kept = lax.stop_gradient(params.moments.value)  # constants: they are not trained
            mean, variance = (broadcast_last(upcast(moment), x.ndim) for moment in kept)
        rstd = lax.rsqrt(variance + self.epsilon)
        y = (upcast(x) - mean) * rstd * broadcast_last(
            upcast(params.scale), x.ndim
        ) + broadcast_last(upcast(params.bias), x.ndim)
        return y.astype(x.dtype), BatchNormCache(x, mean, variance, Static(training))

    def backward(
        self, params: BatchNormParams, cache: BatchNormCache, dy: Float[Array, "B *S C"]
    ) -> tuple[BatchNormParams, Float[Array, "B *S C"]]:
        """Return dγ = Σ dy x̂ and dβ = Σ dy over batch and space, 0 for the moments, and dx."""
        x, mean, variance, training = cache
        check_shape(self, "dy", dy, x.shape)
        g, rstd, over = upcast(dy), lax.rsqrt(variance + self.epsilon), range(x.ndim - 1)
        xhat = (upcast(x) - mean) * rstd
        dscale, dbias = (g * xhat).sum(axis=over, keepdims=True), g.sum(axis=over, keepdims=True)
        if training.value:
            # A channel has one γ, so γ comes out of both means in dx: what is left of them is dβ
            # and dγ over n.
            g = g - (dbias + xhat * dscale) / (x.size // x.shape[-1])
        dx = g * rstd * broadcast_last(upcast(params.scale), x.ndim)
        dscale, dbias = (d.reshape(params.scale.shape).astype(x.dtype) for d in (dscale, dbias))
        return BatchNormParams(
            dscale, dbias, jax.tree.map(jnp.zeros_like, params.moments)
        ), dx.astype(x.dtype)

    def formula_values(self, x: PyTree, cache: BatchNormCache) -> dict[str, Any]:
        """Return whether the statistics are those of the batch."""
        return {"training": cache.training.value}

    def update_running(self, params: BatchNormParams, cache: BatchNormCache) -> BatchNormParams:
        """Move the estimates towards the batch's moments; the variance by its unbiased estimate."""
        x, mean, variance, training = cache
        if not training.value:
            return params
        n = x.size // x.shape[-1]
        seen = Moments(mean.ravel(), variance.ravel() * (n / max(n - 1, 1)))
        blend = lambda old, new: (self.momentum * old + (1 - self.momentum) * new).astype(old.dtype)  # noqa: E731
        return params._replace(moments=Running(jax.tree.map(blend, params.moments.value, seen)))
