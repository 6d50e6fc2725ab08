"""Probabilities from logits, along the last axis.   K classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxnn.checks import InputError, check_shape
from jaxnn.formulas import Formulas
from jaxnn.layers.activations import Activation
from jaxnn.numerics import upcast
from jaxnn.values import layer


class Exponentials(NamedTuple):
    """The softmax as a quotient, so that no second matrix is needed to go back.

    Attributes:
        e: exp(x - max x), the numerators (*n, K).
        total: their sum along the last axis, (*n, 1), at least 1.
    """

    e: Array
    total: Array


class OfRows(Activation):
    """An activation that acts along the last axis."""

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Return no parameters, ``()``, and refuse rows of one entry, which become a constant."""
        check_shape(self, "x", x, ("...", "K"))
        if x.shape[-1] == 1:
            raise InputError(
                f"{self}: expected rows of at least two logits, got shape {x.shape}. "
                "For two classes and one logit use Sigmoid()."
            )
        return ()

    def _check_forward(self, params: tuple[()], x: Array) -> None:
        super()._check_forward(params, x)
        check_shape(self, "x", x, ("...", "K"))
        if not x.shape[-1]:
            raise InputError(f"{self}: expected rows of at least two logits, got shape {x.shape}.")


@layer
class Softmax(OfRows):
    """Probabilities from logits along the last axis: y_i = exp(x_i) / Σ_j exp(x_j) (Bridle, 1990).

    Not entry by entry: ∂y_i/∂x_j = y_i (δ_ij - y_j). In front of a cross-entropy use the loss on
    logits.
    """

    formulas = Formulas(
        "y[n, i] = exp(x[n, i]) / sum(exp(x[n, j]) for j in K)",
        "dx[n, i] = y[n, i] * (dy[n, i] - sum(y[n, j] * dy[n, j] for j in K))",
    )

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Exponentials]:
        """Return the softmax of each row."""
        self._check_forward(params, x)
        e, total = _exponentials(x)
        return (e / total).astype(x.dtype), Exponentials(e, total)

    def backward(
        self, params: tuple[()], cache: Exponentials, dy: Float[Array, "*n"]
    ) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return y (dy - Σ_j y_j dy_j): dy times diag(y) - y yᵀ, which is never formed."""
        e, total = cache
        self._check_backward(dy, e)
        g = upcast(dy)
        mean = (e * g).sum(axis=-1, keepdims=True) / total  # Σ_j y_j dy_j, with y = e / total
        return (), (e * ((g - mean) / total)).astype(dy.dtype)


@layer
class LogSoftmax(OfRows):
    """Log-probabilities from logits along the last axis: y_i = x_i - log Σ_j exp(x_j)."""

    formulas = Formulas(
        "y[n, i] = x[n, i] - log(sum(exp(x[n, j]) for j in K))",
        "dx[n, i] = dy[n, i] - exp(y[n, i]) * sum(dy[n, j] for j in K)",
    )

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Exponentials]:
        """Return the log-softmax of each row."""
        self._check_forward(params, x)
        y = jax.nn.log_softmax(upcast(x), axis=-1).astype(x.dtype)
        return y, _exponentials(x)  # their quotient is the softmax

    def backward(
        self, params: tuple[()], cache: Exponentials, dy: Float[Array, "*n"]
    ) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return dy - softmax(x) Σ_j dy_j."""
        e, total = cache
        self._check_backward(dy, e)
        g = upcast(dy)
        return (), (g - e * (g.sum(axis=-1, keepdims=True) / total)).astype(dy.dtype)


def _exponentials(x: Array) -> Exponentials:
    z = upcast(x)
    e = jnp.exp(z - jax.lax.stop_gradient(z.max(axis=-1, keepdims=True)))
    return Exponentials(e, e.sum(axis=-1, keepdims=True))
