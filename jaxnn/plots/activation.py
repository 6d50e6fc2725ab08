"""An activation function and its derivative."""

from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.axes import Axes

from jaxnn.checks import InputError
from jaxnn.networks import check_activation
from jaxnn.plots.display import Display, palette
from jaxnn.types import Layer


class ActivationDisplay(Display):
    """The graph of an activation, with the derivative as its own backward pass computes it."""

    def __init__(self, name: str, x: np.ndarray, y: np.ndarray, dy_dx: np.ndarray) -> None:
        self.name, self.x, self.y, self.dy_dx = name, x, y, dy_dx

    @classmethod
    def from_layer(
        cls, layer: Layer, *, limits: tuple[float, float] = (-5, 5), ax: Axes | None = None
    ) -> Self:
        """Draw an elementwise layer over an interval, its derivative taken from ``layer.backward``.

        Args:
            layer: an activation, such as ``Sigmoid()``.
            limits: the interval of inputs.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for a layer that is no activation, or limits that are not in order.
        """
        who = "ActivationDisplay"
        check_activation(who, layer)
        ends = np.asarray(limits)
        if ends.shape != (2,) or ends.dtype.kind not in "iuf" or not ends[0] < ends[1]:
            raise InputError(f"{who}: expected limits as two numbers in order, got {limits!r}.")
        x = np.linspace(*limits, 501)
        y, dy_dx = _value_and_slope(layer, x)
        return cls(repr(layer).removesuffix("()"), x, np.asarray(y), np.asarray(dy_dx)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the graph of the activation and that of its derivative."""
        ax = self._draw_in(ax, figsize=(4, 3))
        y = self.y.astype(float)
        y[1:][np.abs(np.diff(y)) > 0.5] = np.nan  # a jump is drawn as a gap, not as a steep line
        ax.axhline(0, color="0.85", lw=0.8, zorder=0)
        colors = palette(ax)
        ax.axvline(0, color="0.85", lw=0.8, zorder=0)
        ax.plot(self.x, y, color=colors.weight, lw=2, label="value")
        ax.plot(self.x, self.dy_dx, color=colors.derivative, lw=1.5, ls="--", label="derivative")
        ax.set(title=self.name, xlabel="z", xlim=(self.x[0], self.x[-1]))
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
        ax.legend(loc="upper left", frameon=False)
        return self


@jax.jit
def _value_and_slope(layer: Layer, x: Array) -> tuple[Array, Array]:
    y, cache = layer.forward((), x)
    return y, layer.backward((), cache, jnp.ones_like(y))[1]
