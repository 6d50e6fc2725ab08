"""Both passes on a graph of up to eight neurons in a layer, with the weights in matrices below it.

All lengths are in inches.
"""

import numpy as np
from matplotlib.axes import Axes

from jaxnn.layers.dense import DenseParams
from jaxnn.mlp_columns import Column
from jaxnn.plots.diagram import draw_neuron, node_name, positions, set_view
from jaxnn.plots.display import palette
from jaxnn.plots.passes import (
    Frame,
    column_numbers,
    draw_legend,
    label_of,
    lit_box,
    weight_names,
)
from jaxnn.tracing import Trace

RADIUS = 0.2  # of a neuron
SPACING = 0.86  # between neurons
CELL, LINE = 0.64, 0.38  # of a matrix
SMALL = 7.5  # points


def _gaps(columns: list[Column]) -> list[float]:
    """Return the distance from each column to the next: the width of the matrix below it."""
    return [max(2.0, CELL * (column.size + 1) + 0.5) for column in columns[1:]]


def _extent(columns: list[Column], biased: bool = True) -> tuple[float, float, float, float]:
    tallest = max(column.size for column in columns)
    lines = max(column.size for column in columns[:-1]) + biased
    top = SPACING * tallest / 2 + 0.3
    return -0.7, sum(_gaps(columns)) + 1.5, -top - LINE * (lines + 1) - 1.0, top + 0.1


def size_of_matrices(columns: list[Column]) -> tuple[float, float]:
    """Return the size of the figure."""
    left, right, bottom, top = _extent(columns)
    return right - left, top - bottom


def draw_matrices(ax: Axes, trace: Trace, columns: list[Column], shown: Frame) -> None:
    """Draw the neurons with their values and derivatives, the edges, and the matrices.

    The style of an edge shows the sign and the size of its weight.
    """
    left, right, bottom, top = _extent(columns)
    xs = np.concatenate([[0.0], np.cumsum(_gaps(columns))])
    names, colors = weight_names(len(columns) - 1), palette(ax)
    for c in range(1, len(columns)):
        stage = trace.stages[columns[c].dense or 0]
        w, dw = stage.params, stage.dparams if c in shown.dweights else None
        lit = ("dweights", c) in shown.lit
        _draw_edges(ax, xs[c - 1], xs[c], w.w)
        center = ((xs[c - 1] + xs[c]) / 2, -top - 0.35)
        slopes_ink = colors.weight_derivatives[(c - 1) % len(colors.weight_derivatives)]
        _draw_matrix(ax, center, names[c - 1], w, dw, slopes_ink, lit)
    for c, column in enumerate(columns):
        values, slopes = column_numbers(trace, column)
        for k, y in enumerate(positions(column.size, SPACING)):
            draw_neuron(ax, (xs[c], y), RADIUS, node_name(columns, c, k), fontsize=8.5)
            if c in shown.values:
                lit = ("values", c) in shown.lit
                _number(ax, xs[c], y + RADIUS + 0.095, values[k], colors.value, lit)
            if c in shown.slopes:
                lit = ("slopes", c) in shown.lit
                _number(ax, xs[c], y - RADIUS - 0.095, slopes[k], colors.derivative, lit)
    ax.annotate(
        "", (xs[-1] + 0.6, 0), (xs[-1] + RADIUS, 0), arrowprops={"arrowstyle": "->", "color": "0.5"}
    )
    if shown.loss:
        value, box = f"$J$ = {float(trace.value):.4g}", lit_box(ax, ("loss", 0) in shown.lit)
        ax.text(xs[-1] + 0.65, 0.04, value, ha="left", va="bottom", fontsize=8, bbox=box)
    ax.text(xs[-1] + 0.65, -0.04, label_of(trace), ha="left", va="top", color="0.35", fontsize=8)
    key = "edges: the thicker the larger, dashed where negative"
    ax.text(left + 0.1, top - 0.05, key, ha="left", va="top", fontsize=7.5, color="0.45")
    draw_legend(ax, names)
    set_view(ax, (left, right), (bottom, top))


def _draw_edges(ax: Axes, x0: float, x1: float, w: np.ndarray) -> None:
    largest = np.abs(w).max() or 1.0
    for i, y0 in enumerate(positions(w.shape[0], SPACING)):
        for j, y1 in enumerate(positions(w.shape[1], SPACING)):
            style = "-" if w[i, j] >= 0 else (0, (3, 2))  # a negative weight is dashed
            width = 0.3 + 1.2 * abs(w[i, j]) / largest
            ax.plot([x0, x1], [y0, y1], color="0.6", lw=width, ls=style, zorder=1)


def _draw_matrix(
    ax: Axes,
    at: tuple[float, float],
    name: str,
    params: DenseParams,
    dparams: DenseParams | None,
    color: str,
    lit: bool,
) -> None:
    """Draw a matrix, and the biases in a row below it, each weight above its derivative.

    A row of the matrix belongs to a source, and a column to a target.
    """
    w, b = np.asarray(params.w), params.b
    dw, db = (None, None) if dparams is None else dparams
    rows = [*w] if b is None else [*w, b]
    drows = [None] * len(rows) if dw is None else [*dw] if db is None else [*dw, db]
    left = at[0] - CELL * (w.shape[1] - 1) / 2
    title = f"${name}$" + ("" if b is None else ", and $b$ in the last row")
    ax.text(*at, title, ha="center", va="center", fontsize=8)
    for i, (row, drow) in enumerate(zip(rows, drows, strict=True)):
        y = at[1] - LINE * (i + 0.85) - (0.08 if b is not None and i == len(w) else 0)
        for j, value in enumerate(row):
            _number(ax, left + CELL * j, y + 0.07, value, palette(ax).weight)
            if drow is not None:
                _number(ax, left + CELL * j, y - 0.07, drow[j], color, lit)


def _number(ax: Axes, x: float, y: float, value: float, color: str, lit: bool = False) -> None:
    text = f"{float(value) + 0.0:.3g}"
    box = lit_box(ax, lit, pad=0.3, alpha=0.85)
    ax.text(x, y, text, color=color, ha="center", va="center", fontsize=SMALL, zorder=2, bbox=box)
