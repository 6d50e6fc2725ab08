"""The code that the drawings of both passes share: their frames, numbers and legend."""

import ast
import re
import textwrap
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jaxnn.formulas import formulas_of
from jaxnn.layers.softmax import OfRows
from jaxnn.mlp_columns import Column
from jaxnn.plots.display import palette
from jaxnn.tracing import Trace

LINE = 110  # letters of a formula in a line


class Frame(NamedTuple):
    """The content of one picture of an animation.

    Columns and gaps have numbers: the inputs are column 0, and gap 1 lies before column 1.

    Attributes:
        title: the title of the step.
        formula: how its numbers are computed.
        values: the columns whose values are known.
        slopes: the columns whose derivatives are known.
        dweights: the gaps for whose weights the derivatives are known.
        loss: whether J is known.
        lit: what this step computes: "values", "slopes" or "dweights" and a number, or ("loss", 0).
    """

    title: str
    formula: str
    values: frozenset[int]
    slopes: frozenset[int]
    dweights: frozenset[int]
    loss: bool
    lit: frozenset[tuple[str, int]] = frozenset()


def frames_of_graph(columns: list[Column], trace: Trace) -> list[Frame]:
    """Return the steps of both passes through columns of neurons, including the inputs."""
    last, none, everything = len(columns) - 1, frozenset[int](), frozenset(range(len(columns)))
    names, formulas = [name_of(columns, c) for c in range(len(columns))], _Formulas(columns, trace)
    frames = [Frame("The inputs and the weights", "", frozenset({0}), none, none, False)]
    for c in range(1, len(columns)):
        known = frozenset(range(c + 1))
        frames.append(Frame(f"Forward: layer {c}", formulas.forward(c), known, none, none, False))
    loss = rf"$J = \mathrm{{{type(trace.loss).__name__}}}({names[last]},\ t)$"
    frames.append(Frame("The loss", loss, everything, none, none, True))
    for c in range(last, -1, -1):
        reached, passed = frozenset(range(c, len(columns))), frozenset(range(c + 1, len(columns)))
        where = f"at the outputs of layer {c}" if c else "at the inputs"
        slope = formulas.slopes(c) if c < last else "the derivative of the loss"
        frames.append(Frame(f"Backward: ∂J/∂ {where}", slope, everything, reached, passed, True))
        if c:
            title = f"Backward: ∂J/∂ the weights of layer {c}"
            slope = formulas.weights(c)
            frames.append(Frame(title, slope, everything, reached, reached, True))
    return _lit(frames)


class _Formulas:
    """The formulas of both passes through a multilayer perceptron, in mathematical notation."""

    def __init__(self, columns: list[Column], trace: Trace) -> None:
        self._columns, self._stages = columns, trace.stages
        self._biased = [
            column.dense is not None and trace.stages[column.dense].params.b is not None
            for column in columns
        ]

    def forward(self, c: int) -> str:
        """Return that of the values of layer c."""
        bias = f" + b^{{({c})}}" if self._biased[c] else ""
        weighted = f"$z^{{({c})}} = {name_of(self._columns, c - 1)}\\, W^{{({c})}}{bias}$"
        name = self._columns[c].activation
        return weighted + (f",   $a^{{({c})}} = \\mathrm{{{name}}}(z^{{({c})}})$" if name else "")

    def slopes(self, c: int) -> str:
        """Return that of ∂J/∂ the values of layer c, or of the inputs."""
        delta, meaning = self._delta(c + 1)
        name = name_of(self._columns, c)
        return f"$\\partial J/\\partial {name} = {delta}\\, W^{{({c + 1})\\top}}${meaning}"

    def weights(self, c: int) -> str:
        """Return that of ∂J/∂ the weights of layer c."""
        delta, meaning = self._delta(c)
        source = name_of(self._columns, c - 1)
        bias = f",   $\\partial J/\\partial b^{{({c})}} = {delta}$" if self._biased[c] else ""
        product = f"$\\partial J/\\partial W^{{({c})}} = {{{source}}}^{{\\top}}\\, {delta}$"
        return product + bias + meaning

    def _delta(self, c: int) -> tuple[str, str]:
        """Return the name of ∂J/∂z of layer c, and what it is."""
        z = f"z^{{({c})}}"
        if not self._columns[c].activation:
            return rf"\partial J/\partial {z}", ""
        delta, slope = rf"\delta^{{({c})}}", rf"\partial J/\partial a^{{({c})}}"
        name = self._columns[c].activation
        last = self._columns[c].last
        if last is not None and isinstance(self._stages[last].layer, OfRows):
            jacobian = rf"\partial\,\mathrm{{{name}}}/\partial {z}"
            return delta, f",   ${delta} = {slope}\\, {jacobian}$"
        return delta, rf",   ${delta} = {slope} \odot \mathrm{{{name}}}'({z})$"


def frames_of_blocks(trace: Trace) -> list[Frame]:
    """Return the steps of both passes through layers that are drawn as blocks."""
    stages = trace.stages
    none, everything = frozenset[int](), frozenset(range(len(stages)))
    frames = []
    for i, stage in enumerate(stages):
        formula, known = _stated(stage.layer, "y"), frozenset(range(i + 1))
        frames.append(Frame(f"Forward: {stage.path}", formula, known, none, none, False))
    frames.append(Frame("The loss", "", everything, none, none, True))
    for i in reversed(range(len(stages))):
        formula, reached = _stated(stages[i].layer, "dx"), frozenset(range(i, len(stages)))
        title = f"Backward: {stages[i].path}"
        frames.append(Frame(title, formula, everything, reached, reached, True))
    return _lit(frames)


def _lit(frames: list[Frame]) -> list[Frame]:
    """Note in each frame what is known since then."""
    known: frozenset[tuple[str, int]] = frozenset()
    noted = []
    for frame in frames:
        now = frozenset(
            (kind, c) for kind in ("values", "slopes", "dweights") for c in getattr(frame, kind)
        )
        now |= {("loss", 0)} if frame.loss else set()
        noted.append(frame._replace(lit=now - known))
        known = now
    return noted


def _stated(layer: Any, name: str) -> str:
    """Return the equation by which a layer states y or dx, in at most three lines.

    Where its settings choose between several, or where it is longer, that is nothing.
    """
    stated = formulas_of(layer)
    if stated is None:
        return ""
    text = textwrap.dedent(stated.forward if name == "y" else stated.backward)
    statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign)]
    sources = [ast.get_source_segment(text, node) or "" for node in statements]
    written = [re.sub(r"(?<=[\[(]) |,? (?=[\])])", "", " ".join(each.split())) for each in sources]
    own = [equation for equation in written if re.match(rf"{name}\b", equation)]
    lines = textwrap.wrap(own[0], LINE) if len(own) == 1 else []
    return "\n".join(lines) if len(lines) <= 3 else ""


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


def name_of(columns: list[Column], c: int) -> str:
    """Return the name of a column's values: x, or a or z with the number of its layer."""
    letter = "a" if columns[c].activation else "z"
    return f"{letter}^{{({c})}}" if c else "x"


def lit_box(ax: Axes, lit: bool, **usual: Any) -> dict[str, Any]:
    """Return what lies behind a number: light, if this step computes it."""
    colors = palette(ax)
    usual = {"facecolor": colors.paper, "edgecolor": "none", "pad": 0.6} | usual
    return usual | {"facecolor": colors.lit, "alpha": 1.0} if lit else usual


def weight_names(layers: int) -> list[str]:
    """Return the names of the matrices, W⁽¹⁾ … W⁽ᴸ⁾."""
    return [f"W^{{({i + 1})}}" for i in range(layers)]


def label_of(trace: Trace) -> str:
    """Write the label and, for a class, its neuron: classes count from 0, neurons from 1."""
    target = trace.target
    label = ", ".join(f"{v:g}" for v in np.ravel(target))
    is_class = target.dtype.kind == "i" and target.shape == trace.dprediction.shape[:-1]
    return f"label {label}: output {target[0] + 1}" if is_class else f"label {label}"
