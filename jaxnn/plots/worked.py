"""The worked example: both passes of backpropagation, every number on the graph of the network."""

from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxnn.checks import InputError
from jaxnn.compose import chain
from jaxnn.plots.diagram import columns_of, draw_neuron, frame, node_name, positions
from jaxnn.plots.display import DERIVATIVE, VALUE, WEIGHT, WEIGHT_DERIVATIVES, Display
from jaxnn.trace import Trace

STEP = 5.0  # between columns
SPACING = 2.6  # between neurons
RADIUS = 0.52
MOST = 3  # neurons a layer; with more, the labels would cover one another


class BackpropDisplay(Display):
    """A network with its values, weights and all their derivatives, for one sample."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @classmethod
    def from_trace(cls, trace: Trace, *, ax: Axes | None = None) -> Self:
        """Draw one sample's pass through a small network of Dense layers and activations.

        Args:
            trace: of a batch of one, see :func:`jaxnn.trace`.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for a batch of several samples, a layer of another kind, or too many neurons.
        """
        batch = len(trace.stages[0].x)
        if batch != 1:
            raise InputError(f"BackpropDisplay: expected the trace of a single sample, got a batch of {batch}.")
        return cls(trace).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the graph and its legend."""
        stages = self.trace.stages
        columns = columns_of(chain(*(stage.layer for stage in stages)), stages[0].x.shape[1])
        tallest = max(column.size for column in columns)
        if tallest > MOST:
            raise InputError(f"BackpropDisplay: expected at most {MOST} neurons a layer, got {tallest}.")
        height = SPACING * tallest
        ax = self._draw_in(ax, figsize=(2.45 * (len(columns) + 0.6), 0.58 * height + 1.3))

        names = weight_names(len(columns) - 1)
        for c in range(1, len(columns)):
            stage = stages[columns[c].dense or 0]
            self._draw_weights(ax, c, np.asarray(stage.params.w), np.asarray(stage.dparams.w))
        for c, column in enumerate(columns):
            if column.last is None:
                values, slopes = stages[0].x[0], stages[0].dx[0]
            else:
                values, slopes = stages[column.last].y[0], stages[column.last].dy[0]
            for k, y in enumerate(positions(column.size, SPACING)):
                center = (c * STEP, y)
                draw_neuron(ax, center, RADIUS, node_name(columns, c, k), fontsize=12)
                ax.text(c * STEP, y + RADIUS + 0.1, digits(values[k]), ha="center", va="bottom", color=VALUE)
                ax.text(c * STEP, y - RADIUS - 0.1, digits(slopes[k]), ha="center", va="top", color=DERIVATIVE)
        self._draw_loss(ax, len(columns) - 1)
        self._draw_legend(ax, names)
        frame(ax, (-1.3, len(columns) * STEP - 1.2), (-height / 2 - 1.4, height / 2 + 0.3))
        return self

    def _draw_weights(self, ax: Axes, c: int, w: np.ndarray, dw: np.ndarray) -> None:
        color = WEIGHT_DERIVATIVES[(c - 1) % len(WEIGHT_DERIVATIVES)]
        sources, targets = positions(w.shape[0], SPACING), positions(w.shape[1], SPACING)
        x0, x1 = (c - 1) * STEP, c * STEP
        for i, y0 in enumerate(sources):
            # where edges fan out they are far apart; each source's labels get a place of their own
            along = place(i, len(sources), len(targets))
            for j, y1 in enumerate(targets):
                ax.plot([x0, x1], [y0, y1], color="0.75", lw=1, zorder=1)
                x, y = x0 + along * (x1 - x0), y0 + along * (y1 - y0)
                for text, ink, align in ((digits(w[i, j]), WEIGHT, "bottom"), (digits(dw[i, j]), color, "top")):
                    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
                    ax.text(x, y, text, color=ink, ha="center", va=align, fontsize=8.5, zorder=2, bbox=box)

    def _draw_loss(self, ax: Axes, c: int) -> None:
        x = c * STEP
        ax.annotate("", (x + 2.0, 0), (x + RADIUS, 0), arrowprops={"arrowstyle": "->", "color": "0.5"})
        ax.text(x + 2.1, 0.08, f"$J$ = {digits(float(self.trace.value))}", ha="left", va="bottom")
        label = ", ".join(f"{v:g}" for v in np.ravel(self.trace.target))
        ax.text(x + 2.1, -0.08, f"label {label}", ha="left", va="top", color="0.35")

    def _draw_legend(self, ax: Axes, names: list[str]) -> None:
        entries = [("value", VALUE), ("weight", WEIGHT), (r"$\partial J/\partial\,$node", DERIVATIVE)]
        entries += [
            (rf"$\partial J/\partial {name}$", WEIGHT_DERIVATIVES[i % len(WEIGHT_DERIVATIVES)])
            for i, name in enumerate(names)
        ]
        keys = [Line2D([], [], marker="s", ls="", color=color, label=name) for name, color in entries]
        legend = ax.legend(handles=keys, loc="lower center", ncols=len(keys), frameon=False, handletextpad=0.2)
        for text, (_, color) in zip(legend.get_texts(), entries, strict=True):
            text.set_color(color)


def weight_names(layers: int) -> list[str]:
    """Name the matrices: W and V for two layers, as the lecture does, W₁ … W_L otherwise."""
    return ["W", "V"] if layers == 2 else ["W"] if layers == 1 else [f"W_{{{i + 1}}}" for i in range(layers)]


def place(i: int, sources: int, targets: int) -> float:
    """Say where along its edges source i has its labels, as a fraction of the way."""
    if targets == 1:  # edges only converge: stay near the sources, where they are apart
        return 0.36
    if sources == 1:
        return 0.62
    return 0.3 + 0.42 * i / (sources - 1)


def digits(value: float) -> str:
    """Write a number with five significant digits, a small one in scientific notation with three."""
    value = float(value)
    return f"{value:.5g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.2e}"
