"""Composition: the only place where the chain rule is written.

``Sequential.forward`` and ``Sequential.backward`` are the lecture's two loops. Forward keeps every
layer's cache; backward walks the layers in reverse and hands each the derivative of the loss with
respect to its output, which is the one with respect to the next layer's input.
"""

from typing import Any

import jax
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn.checks import InputError, inside
from jaxnn.types import Layer, Params, layer


@layer
class Sequential:
    """Layers applied one after another: f = f_L ∘ … ∘ f_2 ∘ f_1. Parameters: a tuple, one entry a layer.

    Args:
        layers: f_1 … f_L, in the order in which they are applied.

    Raises:
        InputError: if there are none, or one of them is not a layer.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not self.layers:
            raise InputError(f"Sequential: expected a tuple of at least one layer, got {self.layers!r}.")
        for i, child in enumerate(self.layers):
            if not isinstance(child, Layer):
                raise InputError(f"Sequential: expected layers[{i}] to be a layer, got {child!r}.")

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.layers))})"

    def init(self, key: PRNGKeyArray, x: PyTree) -> tuple[Params, ...]:
        """Draw the parameters of each layer, for inputs shaped like the output of the one before."""
        params = []
        for i, (child, child_key) in enumerate(zip(self.layers, split_key(key, len(self.layers)), strict=True)):
            with inside(f"[{i}]"):
                params.append(child.init(child_key, x))
                x = output_shape(child, params[-1], x)
        return tuple(params)

    def forward(
        self, params: tuple[Params, ...], x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, tuple[Any, ...]]:
        """Return y_L, and the caches of all layers."""
        self.check_params(params)
        y, caches = x, []
        for i, (child, child_key) in enumerate(zip(self.layers, split_key(key, len(self.layers)), strict=True)):
            with inside(f"[{i}]"):
                y, cache = child.forward(params[i], y, child_key)
            caches.append(cache)
        return y, tuple(caches)

    def backward(
        self, params: tuple[Params, ...], cache: tuple[Any, ...], dy: PyTree
    ) -> tuple[tuple[Params, ...], PyTree]:
        """Return dJ/dθ of every layer, and dJ/dx: the chain rule, from the last layer to the first."""
        self.check_params(params)
        dparams = list(params)
        for i in reversed(range(len(self.layers))):
            with inside(f"[{i}]"):
                dparams[i], dy = self.layers[i].backward(params[i], cache[i], dy)
        return tuple(dparams), dy

    def check_params(self, params: Any) -> None:
        """Check that there is one entry of parameters a layer."""
        if not isinstance(params, tuple) or len(params) != len(self.layers):
            got = f"one of {len(params)}" if isinstance(params, tuple) else type(params).__name__
            raise InputError(f"Sequential: expected parameters as a tuple of {len(self.layers)}, got {got}.")


def chain(*layers: Layer) -> Sequential:
    """Compose layers in the order in which they are applied: ``chain(Dense(3), Sigmoid())``.

    Raises:
        InputError: if there are none, or one of them is not a layer.
    """
    return Sequential(layers)


def output_shape(net: Layer, params: Params, x: PyTree) -> PyTree:
    """Give the shape and dtype of ``net``'s output for inputs like ``x``, computing nothing."""
    return jax.eval_shape(lambda params, x: net.forward(params, x)[0], params, x)


def split_key(key: PRNGKeyArray | None, n: int) -> Any:
    """Give each of n layers a key of its own, or None to all at inference."""
    return [None] * n if key is None else jax.random.split(key, n)
