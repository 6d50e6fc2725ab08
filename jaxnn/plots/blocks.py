"""Both passes through any network, with a row for each layer.

A row contains the shapes, and the norms of values, weights and derivatives.
"""

import re
from collections.abc import Iterable

import jax
import numpy as np
from matplotlib.axes import Axes

from jaxnn.layers import Conv2D
from jaxnn.plots.display import palette
from jaxnn.plots.passes import Frame, lit_box
from jaxnn.tracing import Trace, norm_of, same_arrays, shapes_of

PLACES = (5.3, 6.4, 7.4, 8.4, 9.5)  # the positions of the columns of numbers
KINDS = ("", "values", "slopes", "", "dweights")  # of the numbers in them, as in a frame
INDENT = 0.2  # of layers inside another, which are drawn above it
KERNELS, ROOM = 10.2, 1.7  # where the kernels of convolutions begin, and the room for five of them
SHOWN, TILE = 5, 0.27  # kernels of a layer, and the width of each
LONGEST = 56  # the number of letters of a layer's name that fit in its box


def draw_blocks(ax: Axes, trace: Trace, reason: str, shown: Frame) -> None:
    """Draw the layers from top to bottom, with the numbers that are known.

    Args:
        ax: where to draw.
        trace: both passes.
        reason: the reason why the network is drawn as blocks, a note above them.
        shown: what is known.
    """
    stages = trace.own_work()
    known, sloped = (_paths(trace, which) for which in (shown.values, shown.slopes))
    lit = {kind: _paths(trace, {i for of, i in shown.lit if of == kind}) for kind in KINDS}
    norms = ("y", r"\partial J/\partial y", r"\theta", r"\partial J/\partial\theta")
    heads = ("output", *(rf"$\Vert {norm}\Vert$" for norm in norms))
    colors = palette(ax)
    inks = (
        colors.faint,
        colors.value,
        colors.derivative,
        colors.weight,
        colors.weight_derivatives[0],
    )
    for place, head, ink in zip(PLACES, heads, inks, strict=True):
        ax.text(place, 0.75, head, color=ink, ha="center", va="center", fontsize=9)
    ax.text(0, 0.75, reason, ha="left", va="center", fontsize=8, color=colors.faint, style="italic")
    ax.text(0.1, 0, f"input {shapes_of(trace.x)}", ha="left", va="center", fontsize=9)
    before = trace.x
    for row, stage in enumerate(stages, start=1):
        active = stage.path in known or stage.path in sloped
        face = colors.panel if active else colors.paper
        box = {"facecolor": face, "edgecolor": "0.7", "boxstyle": "round,pad=0.25", "lw": 0.8}
        name = f"{stage.path}  {stage.layer!r}"
        name = name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        left = 0.1 + INDENT * (len(re.findall(r"\.|\]\[", stage.path)) > 0)
        ax.text(left, -row, name, ha="left", va="center", fontsize=8, bbox=box, family="monospace")
        # the branches of a Parallel are not inputs of one another
        if stage.inner or same_arrays(stage.x, before):
            _draw_arrow(ax, row)
        before = stage.y
        trained = bool(jax.tree.leaves(stage.params))
        cells = (
            shapes_of(stage.y),
            norm_of(stage.y) if stage.path in known else "",
            norm_of(stage.dy) if stage.path in sloped else "",
            norm_of(stage.params) if trained else "",
            norm_of(stage.dparams) if trained and stage.path in sloped else "",
        )
        if isinstance(stage.layer, Conv2D):
            _draw_kernels(ax, KERNELS, row, stage.params.w)
            if stage.path in sloped:
                _draw_kernels(ax, KERNELS + ROOM, row, stage.dparams.w)
        for place, cell, ink, kind in zip(PLACES, cells, inks, KINDS, strict=True):
            box = lit_box(ax, bool(cell) and stage.path in lit[kind], pad=2)
            ax.text(place, -row, cell, color=ink, ha="center", va="center", fontsize=8.5, bbox=box)
    last = len(stages) + 1
    value = f"  $J$ = {float(trace.value):.5g}" if shown.loss else ""
    box = lit_box(ax, ("loss", 0) in shown.lit, pad=2)
    ax.text(0.1, -last, f"{trace.loss!r}{value}", ha="left", va="center", fontsize=9, bbox=box)
    _draw_arrow(ax, last)
    right = 10.2
    if any(isinstance(stage.layer, Conv2D) for stage in stages):
        right = KERNELS + 2 * ROOM
        ax.text(KERNELS, 0.75, "kernels, blue above 0", color=inks[3], va="center", fontsize=9)
        slopes = r"$\partial J/\partial\,$kernels"
        ax.text(KERNELS + ROOM, 0.75, slopes, color=inks[4], va="center", fontsize=9)
    ax.set(xlim=(-0.1, right), ylim=(-last - 0.6, 1.2), aspect="auto")
    ax.axis("off")


def size_of_blocks(trace: Trace) -> tuple[float, float]:
    """Return the size of the figure, in inches."""
    stages = trace.own_work()
    has_kernels = any(isinstance(stage.layer, Conv2D) for stage in stages)
    width = 11 * (KERNELS + 2 * ROOM) / 10.2 if has_kernels else 11.0
    return width, 0.36 * (len(stages) + 2) + 1.0


def _draw_kernels(ax: Axes, left: float, row: int, w: np.ndarray) -> None:
    """Draw the first kernels of a layer, of its first input channel: blue above 0, red below."""
    largest = np.abs(w).max() or 1.0
    for k in range(min(w.shape[-1], SHOWN)):
        kernel = np.asarray(w[..., 0, k], float)
        x = left + k * 1.15 * TILE
        ax.imshow(
            kernel, extent=(x, x + TILE, -row - 0.4, -row + 0.4), cmap="RdBu",
            vmin=-largest, vmax=largest, aspect="auto", zorder=2,
        )  # fmt: skip


def _paths(trace: Trace, numbers: Iterable[int]) -> set[str]:
    """Return the paths of some stages, and of all layers inside them."""
    return {stage.path for i in numbers for stage in trace.stages[i]}


def _draw_arrow(ax: Axes, row: int) -> None:
    """Draw an arrow from the row above to this one."""
    arrow = {"arrowstyle": "->", "color": "0.6"}
    ax.annotate("", (0.3, -row + 0.33), (0.3, -row + 0.67), arrowprops=arrow)
