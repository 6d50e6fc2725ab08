"""The worked example: both passes of backpropagation, every number on the graph of the network."""

from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes

from jaxnn.checks import InputError
from jaxnn.layers import Dense
from jaxnn.mlp_columns import Column, columns_or_reason
from jaxnn.plots.blocks import draw_blocks, size_of_blocks
from jaxnn.plots.diagram import draw_neuron, node_name, positions, set_view
from jaxnn.plots.display import Display, format_number, palette
from jaxnn.plots.matrices import draw_matrices, size_of_matrices
from jaxnn.plots.passes import (
    Frame,
    column_numbers,
    draw_legend,
    frames_of_blocks,
    frames_of_graph,
    label_of,
    lit_box,
    weight_names,
)
from jaxnn.tracing import Trace

STEP = 5.0  # between columns
SPACING = 2.6  # between neurons
RADIUS = 0.52
LABELLED = 3  # neurons in a layer, up to which weights are written on edges, not in matrices


class BackpropDisplay(Display):
    """A network with its values, weights and all their derivatives.

    With up to three neurons in a layer the weights are written on their edges, with up to eight in
    matrices below the graph. Larger layers, layers other than Dense layers and activations, and
    batches of several samples are drawn as blocks with shapes and norms, and the picture says so.
    """

    def __init__(self, trace: Trace, columns: list[Column] | None, reason: str) -> None:
        self.trace, self.columns, self.reason = trace, columns, reason

    @classmethod
    def from_trace(
        cls,
        trace: Trace,
        *,
        frame: int | None = None,
        title: str | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw both passes.

        Args:
            trace: the result of :func:`jaxnn.trace`; for a graph, of one sample.
            frame: the number of a step, after which the known numbers are drawn; by default all
                are.
            title: the title; by default that of the step, if ``frame`` is given.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for a frame that does not exist.
        """
        columns, reason = columns_or_reason(trace)
        display = cls(trace, columns, reason)
        if frame is not None and frame not in range(len(display.frames)):
            raise InputError(
                f"BackpropDisplay: expected a frame below {len(display.frames)}, got {frame!r}."
            )
        return display.plot(frame=frame, title=title, ax=ax)

    @classmethod
    def steps(cls, trace: Trace) -> list[Frame]:
        """Return the steps that ``frame`` counts."""
        return cls(trace, *columns_or_reason(trace)).frames

    @property
    def frames(self) -> list[Frame]:
        """The steps of both passes, in order."""
        if self.columns is None:
            return frames_of_blocks(self.trace)
        return frames_of_graph(self.columns, self.trace)

    def plot(
        self, *, frame: int | None = None, title: str | None = None, ax: Axes | None = None
    ) -> Self:
        """Draw the graph and its legend, or the blocks."""
        whole = self.frames[-1]._replace(formula="", lit=frozenset())
        shown = whole if frame is None else self.frames[frame]
        if self.columns is None:
            ax = self._draw_in(ax, figsize=size_of_blocks(self.trace))
            draw_blocks(ax, self.trace, self.reason, shown)
        elif max(column.size for column in self.columns) > LABELLED:
            ax = self._draw_in(ax, figsize=size_of_matrices(self.columns))
            draw_matrices(ax, self.trace, self.columns, shown)
        else:
            ax = self._draw_graph(ax, self.columns, shown)
        if title is not None or frame is not None:
            title = shown.title if title is None else title
            ax.set_title(f"{title}\n{shown.formula}".rstrip(), fontsize=11)
        return self

    def _draw_graph(self, ax: Axes | None, columns: list[Column], shown: Frame) -> Axes:
        stages = self.trace.stages
        biased = any(leaf.params.b is not None for leaf in stages if isinstance(leaf.layer, Dense))
        spacing = SPACING + 0.8 * biased  # room for b above a neuron
        height = spacing * max(column.size for column in columns)
        ax = self._draw_in(ax, figsize=(2.45 * (len(columns) + 0.6), 0.58 * height + 1.3))
        names, colors = weight_names(len(columns) - 1), palette(ax)
        for c in range(1, len(columns)):
            stage = stages[columns[c].dense or 0]
            dw = stage.dparams.w if c in shown.dweights else None
            lit = ("dweights", c) in shown.lit
            self._draw_weights(ax, c, stage.params.w, dw, spacing, lit)
        for c, column in enumerate(columns):
            values, slopes = column_numbers(self.trace, column)
            for k, y in enumerate(positions(column.size, spacing)):
                x = c * STEP
                draw_neuron(ax, (x, y), RADIUS, node_name(columns, c, k), fontsize=12)
                above, below = y + RADIUS + 0.1, y - RADIUS - 0.1
                if c in shown.values:
                    value = format_number(values[k])
                    box = lit_box(ax, ("values", c) in shown.lit)
                    ax.text(x, above, value, ha="center", va="bottom", color=colors.value, bbox=box)
                if c in shown.slopes:
                    slope = format_number(slopes[k])
                    box, ink = lit_box(ax, ("slopes", c) in shown.lit), colors.derivative
                    ax.text(x, below, slope, ha="center", va="top", color=ink, bbox=box)
                dense = None if column.dense is None else stages[column.dense]
                if dense is not None and dense.params.b is not None:
                    small: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8.5}
                    bias = f"b {format_number(dense.params.b[k])}"
                    ax.text(x, y + RADIUS + 0.95, bias, color=colors.weight, **small)
                    if c in shown.dweights:
                        color = colors.weight_derivatives[(c - 1) % len(colors.weight_derivatives)]
                        slope = format_number(dense.dparams.b[k])
                        box = lit_box(ax, ("dweights", c) in shown.lit)
                        ax.text(x, y + RADIUS + 0.56, slope, color=color, bbox=box, **small)
        self._draw_loss(ax, len(columns) - 1, shown)
        draw_legend(ax, names)
        set_view(ax, (-1.3, len(columns) * STEP - 1.2), (-height / 2 - 1.4, height / 2 + 0.5))
        return ax

    def _draw_weights(
        self, ax: Axes, c: int, w: np.ndarray, dw: np.ndarray | None, spacing: float, lit: bool
    ) -> None:
        colors = palette(ax)
        color = colors.weight_derivatives[(c - 1) % len(colors.weight_derivatives)]
        sources, targets = positions(w.shape[0], spacing), positions(w.shape[1], spacing)
        x0, x1 = (c - 1) * STEP, c * STEP
        for i, y0 in enumerate(sources):
            # the labels of each source have a place of their own, so that they do not overlap
            along = place(i, len(sources), len(targets))
            for j, y1 in enumerate(targets):
                ax.plot([x0, x1], [y0, y1], color="0.75", lw=1, zorder=1)
                x, y = x0 + along * (x1 - x0), y0 + along * (y1 - y0)
                label: dict[str, Any] = {"ha": "center", "fontsize": 8.5, "zorder": 2}
                weight, box = format_number(w[i, j]), lit_box(ax, False)
                ax.text(x, y, weight, color=colors.weight, va="bottom", bbox=box, **label)
                if dw is not None:
                    slope, box = format_number(dw[i, j]), lit_box(ax, lit)
                    ax.text(x, y, slope, color=color, va="top", bbox=box, **label)

    def _draw_loss(self, ax: Axes, c: int, shown: Frame) -> None:
        x = c * STEP
        ax.annotate(
            "", (x + 2.0, 0), (x + RADIUS, 0), arrowprops={"arrowstyle": "->", "color": "0.5"}
        )
        if shown.loss:
            value = f"$J$ = {format_number(float(self.trace.value))}"
            box = lit_box(ax, ("loss", 0) in shown.lit)
            ax.text(x + 2.1, 0.08, value, ha="left", va="bottom", bbox=box)
        ax.text(x + 2.1, -0.08, label_of(self.trace), ha="left", va="top", color="0.35")


def place(i: int, sources: int, targets: int) -> float:
    """Return the place of the labels of source i along its edges, as a fraction of their length."""
    if targets == 1:  # all edges end in one point: the labels stay near the sources
        return 0.36
    if sources == 1:
        return 0.62
    return 0.3 + 0.42 * i / (sources - 1)
