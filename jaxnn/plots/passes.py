"""The code that the drawings of both passes share: their frames, numbers and legend."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxnn.mlp_columns import Column
from jaxnn.plots.display import palette
from jaxnn.tracing import Trace


class Frame(NamedTuple):
    """The content of one picture of an animation.

    Columns and gaps have numbers: the inputs are column 0, and gap 1 lies before column 1.

    Attributes:
        title: the title of the step.
        values: the columns whose values are known.
        slopes: the columns whose derivatives are known.
        dweights: the gaps for whose weights the derivatives are known.
        loss: whether J is known.
    """

    title: str
    values: frozenset[int]
    slopes: frozenset[int]
    dweights: frozenset[int]
    loss: bool


def frames_of_graph(columns: int) -> list[Frame]:
    """Return the steps of both passes through columns of neurons, including the inputs."""
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
            title = f"Backward: ∂J/∂ the weights of layer {c}"
            frames.append(Frame(title, all_columns, reached, reached, True))
    return frames


def frames_of_blocks(paths: list[str]) -> list[Frame]:
    """Return the steps of both passes through layers that are drawn as blocks."""
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
    """Return the values of a column's neurons, and their derivatives."""
    if column.last is None:
        return trace.stages[0].x[0], trace.stages[0].dx[0]
    return trace.stages[column.last].y[0], trace.stages[column.last].dy[0]


def draw_legend(ax: Axes, names: list[str]) -> None:
    """Draw a legend with the meaning of each colour."""
    colors = palette(ax)
    entries = [
        ("value", colors.value),
        ("weight", colors.weight),
        (r"$\partial J/\partial\,$node", colors.derivative),
    ]
    entries += [
        (
            rf"$\partial J/\partial {name}$",
            colors.weight_derivatives[i % len(colors.weight_derivatives)],
        )
        for i, name in enumerate(names)
    ]
    keys = [Line2D([], [], marker="s", ls="", color=color, label=name) for name, color in entries]
    legend = ax.legend(
        handles=keys, loc="lower center", ncols=len(keys), frameon=False, handletextpad=0.2
    )
    for text, (_, color) in zip(legend.get_texts(), entries, strict=True):
        text.set_color(color)


def weight_names(layers: int) -> list[str]:
    """Return the names of the matrices, W⁽¹⁾ … W⁽ᴸ⁾."""
    return [f"W^{{({i + 1})}}" for i in range(layers)]


def label_of(trace: Trace) -> str:
    """Write the label and, for a class, its neuron: classes count from 0, neurons from 1."""
    target = trace.target
    label = ", ".join(f"{v:g}" for v in np.ravel(target))
    is_class = target.dtype.kind == "i" and target.shape == trace.dprediction.shape[:-1]
    return f"label {label}: output {target[0] + 1}" if is_class else f"label {label}"
