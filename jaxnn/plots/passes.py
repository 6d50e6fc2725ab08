"""What the drawings of both passes share: their frames, their numbers, their legend."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxnn.mlp_columns import Column
from jaxnn.plots.display import DERIVATIVE, VALUE, WEIGHT, WEIGHT_DERIVATIVES
from jaxnn.tracing import Trace


class Frame(NamedTuple):
    """What one picture of an animation shows: columns and gaps by number, the first gap before column 1.

    Attributes:
        title: what happens in it.
        values: columns whose values are known.
        slopes: columns whose derivatives are known.
        dweights: gaps whose weights' derivatives are known.
        loss: whether J is known.
    """

    title: str
    values: frozenset[int]
    slopes: frozenset[int]
    dweights: frozenset[int]
    loss: bool


def frames_of_graph(columns: int) -> list[Frame]:
    """Give the steps of both passes through so many columns of neurons, the inputs being the first."""
    last, none, all_columns = columns - 1, frozenset[int](), frozenset(range(columns))
    frames = [Frame("The inputs and the weights", frozenset({0}), none, none, False)]
    for c in range(1, columns):
        frames.append(Frame(f"Forward: layer {c}", frozenset(range(c + 1)), none, none, False))
    frames.append(Frame("The loss", all_columns, none, none, True))
    for c in range(last, -1, -1):
        reached, passed = frozenset(range(c, columns)), frozenset(range(c + 1, columns))
        where = f"at the outputs of layer {c}" if c else "at the inputs"
        frames.append(Frame(f"Backward: ∂J/∂ {where}", all_columns, reached, passed, True))
        if c:
            frames.append(
                Frame(
                    f"Backward: ∂J/∂ the weights of layer {c}", all_columns, reached, reached, True
                )
            )
    return frames


def frames_of_blocks(paths: list[str]) -> list[Frame]:
    """Give the steps of both passes through layers drawn as blocks, each known by its number."""
    none, all_blocks = frozenset[int](), frozenset(range(len(paths)))
    frames = [
        Frame(f"Forward: {path}", frozenset(range(i + 1)), none, none, False)
        for i, path in enumerate(paths)
    ]
    frames.append(Frame("The loss", all_blocks, none, none, True))
    for i in reversed(range(len(paths))):
        reached = frozenset(range(i, len(paths)))
        frames.append(Frame(f"Backward: {paths[i]}", all_blocks, reached, reached, True))
    return frames


def column_numbers(trace: Trace, column: Column) -> tuple[np.ndarray, np.ndarray]:
    """Give the values of a column's neurons, and their derivatives."""
    if column.last is None:
        return trace.stages[0].x[0], trace.stages[0].dx[0]
    return trace.stages[column.last].y[0], trace.stages[column.last].dy[0]


def draw_legend(ax: Axes, names: list[str]) -> None:
    """Say which colour is what."""
    entries = [("value", VALUE), ("weight", WEIGHT), (r"$\partial J/\partial\,$node", DERIVATIVE)]
    entries += [
        (rf"$\partial J/\partial {name}$", WEIGHT_DERIVATIVES[i % len(WEIGHT_DERIVATIVES)])
        for i, name in enumerate(names)
    ]
    keys = [Line2D([], [], marker="s", ls="", color=color, label=name) for name, color in entries]
    legend = ax.legend(
        handles=keys, loc="lower center", ncols=len(keys), frameon=False, handletextpad=0.2
    )
    for text, (_, color) in zip(legend.get_texts(), entries, strict=True):
        text.set_color(color)


def weight_names(layers: int) -> list[str]:
    """Name the matrices: W and V for two layers, as the lecture does, W₁ … W_L otherwise."""
    return (
        ["W", "V"]
        if layers == 2
        else ["W"]
        if layers == 1
        else [f"W_{{{i + 1}}}" for i in range(layers)]
    )


def label_of(trace: Trace) -> str:
    """Write the label, and which neuron a class belongs to: classes count from 0, neurons from 1."""
    target = trace.target
    label = ", ".join(f"{v:g}" for v in np.ravel(target))
    is_class = target.dtype.kind == "i" and target.shape == trace.dprediction.shape[:-1]
    return f"label {label}: $y_{target[0] + 1}$" if is_class else f"label {label}"
