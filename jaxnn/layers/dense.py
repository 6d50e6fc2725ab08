"""The fully connected layer.   B batch, I input features, O output features."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxnn.checks import InputError, check_floating, check_params, check_positive_int, check_shape
from jaxnn.formulas import Formulas
from jaxnn.layers.initializers import Initializer, check_initializer, initialize
from jaxnn.numerics import broadcast_last, flatten_batch
from jaxnn.values import layer


class DenseParams(NamedTuple):
    """Weights ``w`` (I, O), column k those of neuron k, and bias ``b`` (O,) or None."""

    w: Float[Array, "I O"]
    b: Float[Array, "O"] | None


@layer
class Dense:
    """A layer of O linear neurons in parallel: y = x W + b.

    Args:
        features: O, the number of neurons.
        bias: whether to add b, which starts at 0.
        w_init: how the weights are drawn, a name from ``jax.nn.initializers`` or a tuple of the
            name and its arguments. The default is that of Glorot and Bengio (2010).

    Raises:
        InputError: for a number of features below 1, or an unknown initialiser.
    """

    features: int
    _: dataclasses.KW_ONLY
    bias: bool = True
    w_init: Initializer = "glorot_uniform"
    per_position: ClassVar[bool] = True

    formulas = Formulas(
        "y[n, o] = sum(x[n, i] * w[i, o] for i in I) + b[o]",
        """
        dw[i, o] = sum(x[n, i] * dy[n, o] for n in B)
        db[o] = sum(dy[n, o] for n in B)
        dx[n, i] = sum(dy[n, o] * w[i, o] for o in O)
        """,
    )

    def __post_init__(self) -> None:
        check_positive_int("Dense", "features", self.features)
        check_initializer("Dense", "w_init", self.w_init)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> DenseParams:
        """Draw W for inputs of shape (..., I), in the dtype of ``x``."""
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("...", "B", "I"))
        w = initialize(self.w_init, key, (x.shape[-1], self.features), x.dtype)
        return DenseParams(w, jnp.zeros(self.features, x.dtype) if self.bias else None)

    def forward(
        self, params: DenseParams, x: Float[Array, "*B I"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*B O"], Array]:
        """Return x W + b for x of shape (B, I), or with more leading axes (B, T, I)."""
        self._check(params, x)
        w, b = params
        y = x @ w if b is None else x @ w + broadcast_last(b, x.ndim)
        return y, x  # x: dw is a product with it

    def backward(
        self, params: DenseParams, cache: Float[Array, "*B I"], dy: Float[Array, "*B O"]
    ) -> tuple[DenseParams, Float[Array, "*B I"]]:
        """Return dW = xᵀ dy and db = Σ dy, both summed over the batch, and dx = dy Wᵀ."""
        x, (w, b) = cache, params
        check_shape(self, "dy", dy, (*x.shape[:-1], self.features))
        dw = flatten_batch(x).T @ flatten_batch(
            dy
        )  # x.T @ dy, with any leading axes part of the batch
        db = None if b is None else flatten_batch(dy).sum(axis=0)
        dx = dy @ w.T
        return DenseParams(dw, db), dx

    def _check(self, params: DenseParams, x: Array) -> None:
        check_params(self, params, DenseParams)
        check_shape(self, "x", x, ("...", "B", params.w.shape[0]))
        check_floating(self, "x", x, like=params.w)
        check_shape(self, "w", params.w, ("I", self.features))
        if params.b is not None:
            check_shape(self, "b", params.b, (self.features,))
        if (params.b is None) == self.bias:
            raise InputError(
                f"{self}: expected parameters {'with' if self.bias else 'without'} a bias b."
            )
