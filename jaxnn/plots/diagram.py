"""The network as a graph: a column of neurons for each layer, an edge for each weight."""

from typing import Any, Self

from matplotlib.axes import Axes
from matplotlib.patches import Circle

from jaxnn.checks import InputError, check_positive_int
from jaxnn.mlp_columns import Column, columns_of
from jaxnn.plots.display import Display, palette
from jaxnn.types import Layer

RADIUS = 0.28  # of a neuron, in units of the distance between neighbours


def positions(size: int, spacing: float = 1.0) -> list[float]:
    """Return the heights of a column's neurons, the first on top, centred around 0."""
    return [spacing * ((size - 1) / 2 - k) for k in range(size)]


class NetworkDisplay(Display):
    """A multilayer perceptron, drawn as in a textbook."""

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns

    @classmethod
    def from_network(cls, net: Layer, inputs: int, *, ax: Axes | None = None) -> Self:
        """Draw a network of Dense layers and activations.

        Args:
            net: the network.
            inputs: I, the number of input features.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: if ``net`` has other layers, or a layer of more than 16 neurons.
        """
        check_positive_int("NetworkDisplay", "inputs", inputs)
        columns = columns_of(net, inputs)
        if (widest := max(column.size for column in columns)) > 16:
            raise InputError(f"A diagram expects at most 16 neurons a layer, got {widest}.")
        return cls(columns).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw edges, neurons and the name of each layer."""
        tallest = max(column.size for column in self.columns)
        ax = self._draw_in(ax, figsize=(1.9 * len(self.columns) + 0.6, 0.75 * tallest + 0.9))
        step = 2.2
        for c, (left, right) in enumerate(zip(self.columns, self.columns[1:], strict=False)):
            for y0 in positions(left.size):
                for y1 in positions(right.size):
                    x = [c * step, (c + 1) * step]
                    ax.plot(x, [y0, y1], color=palette(ax).weight, lw=0.9, alpha=0.7, zorder=1)
        for c, column in enumerate(self.columns):
            for k, y in enumerate(positions(column.size)):
                draw_neuron(ax, (c * step, y), RADIUS, node_name(self.columns, c, k))
            name = layer_name(self.columns, c)
            ax.text(c * step, -(tallest - 1) / 2 - 0.5, name, ha="center", va="top", fontsize=9)
        set_view(
            ax, (-0.9, (len(self.columns) - 1) * step + 0.9), (-tallest / 2 - 0.75, tallest / 2)
        )
        return self


def draw_neuron(
    ax: Axes, center: tuple[float, float], radius: float, name: str, **text: Any
) -> None:
    """Draw a circle with a name in it."""
    colors = palette(ax)
    circle = Circle(
        center, radius, facecolor=colors.paper, edgecolor=colors.value, lw=1.2, zorder=3
    )
    ax.add_patch(circle)
    ax.text(*center, name, ha="center", va="center", zorder=4, **({"fontsize": 10} | text))


def node_name(columns: list[Column], c: int, k: int) -> str:
    """Return the name of a neuron: x₁ for an input, a for an activation, z without one."""
    if c == 0:
        return f"$x_{{{k + 1}}}$"
    letter = "a" if columns[c].activation else "z"
    below = "" if columns[c].size == 1 else f"_{{{k + 1}}}"
    return f"${letter}^{{({c})}}{below}$"


def layer_name(columns: list[Column], c: int) -> str:
    """Return the name of a column: its role, its size, and its activation."""
    role = "input" if c == 0 else "output" if c == len(columns) - 1 else "hidden"
    return f"{role}, {columns[c].size}" + (
        f"\n{columns[c].activation}" if columns[c].activation else ""
    )


def set_view(ax: Axes, xlim: tuple[float, float], ylim: tuple[float, float]) -> None:
    """Set the limits, hide the axes, and give both axes the same scale."""
    ax.set(xlim=xlim, ylim=ylim, aspect="equal")
    ax.axis("off")
