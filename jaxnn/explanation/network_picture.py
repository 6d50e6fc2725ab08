"""The graph of a small multilayer perceptron, for a worksheet: in LaTeX, or as an SVG image."""

import base64
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxnn.checks import InputError
from jaxnn.mlp_columns import MOST, Column, columns_of
from jaxnn.tracing import Trace

STEP, SPACING, RADIUS = 80, 34, 12  # points between columns, between neurons, and of a neuron


class Node(NamedTuple):
    """A neuron at its place, counted from the lower left corner, with its symbol.

    Attributes:
        x: points to the right.
        y: points upwards.
        letter: x for an input, a for an activation, z without one.
        layer: the number of the layer, 0 for the inputs.
        k: the number of the neuron, from 1.
    """

    x: float
    y: float
    letter: str
    layer: int
    k: int


def columns_of_nodes(trace: Trace) -> list[list[Node]]:
    """Return the neurons of each layer; none for a network that is not drawn as a graph."""
    try:
        columns = columns_of(trace.net, np.shape(trace.x)[-1])
    except (InputError, IndexError):
        return []
    if np.ndim(trace.x) != 2 or max(column.size for column in columns) > MOST:
        return []
    height = SPACING * max(column.size for column in columns)
    return [
        [
            Node(
                RADIUS + STEP * c,
                height / 2 + SPACING * ((column.size - 1) / 2 - k),
                _letter(c, column),
                c,
                k + 1,
            )
            for k in range(column.size)
        ]
        for c, column in enumerate(columns)
    ]


def _letter(c: int, column: Column) -> str:
    return "x" if c == 0 else "a" if column.activation else "z"


def _edges(columns: list[list[Node]]) -> Iterator[tuple[float, float, float, float]]:
    """Yield the ends of each edge, which lie on the circles of its neurons."""
    for left, right in itertools.pairwise(columns):
        for a in left:
            for b in right:
                length = math.hypot(b.x - a.x, b.y - a.y)
                dx, dy = RADIUS * (b.x - a.x) / length, RADIUS * (b.y - a.y) / length
                yield a.x + dx, a.y + dy, b.x - dx, b.y - dy


def _size(columns: list[list[Node]]) -> tuple[float, float]:
    nodes = [node for column in columns for node in column]
    return max(node.x for node in nodes) + RADIUS, SPACING * max(map(len, columns))


def latex_picture(columns: list[list[Node]]) -> str:
    """Draw the graph in LaTeX's own picture environment."""
    width, height = _size(columns)
    lines = [r"\begin{center}", r"\setlength{\unitlength}{1pt}",
             rf"\begin{{picture}}({width:g},{height:g})"]  # fmt: skip
    for x0, y0, x1, y1 in _edges(columns):
        middle = f"{(x0 + x1) / 2:.1f},{(y0 + y1) / 2:.1f}"
        lines.append(rf"\qbezier({x0:.1f},{y0:.1f})({middle})({x1:.1f},{y1:.1f})")
    for node in (node for column in columns for node in column):
        above = f"^{{({node.layer})}}" if node.layer else ""
        symbol = f"{node.letter}_{{{node.k}}}{above}"
        lines.append(rf"\put({node.x:g},{node.y:g}){{\circle{{{2 * RADIUS}}}}}")
        lines.append(rf"\put({node.x:g},{node.y:g}){{\makebox(0,0){{\footnotesize ${symbol}$}}}}")
    return "\n".join([*lines, r"\end{picture}", r"\end{center}"])


def svg_image(columns: list[list[Node]]) -> str:
    """Draw the graph as an image that HTML and Markdown hold in themselves."""
    width, height = _size(columns)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{1.5 * width:g}" '
        f'height="{1.5 * height:g}" viewBox="0 0 {width:g} {height:g}">'
    ]
    for x0, y0, x1, y1 in _edges(columns):
        ends = f'x1="{x0:.1f}" y1="{height - y0:.1f}" x2="{x1:.1f}" y2="{height - y1:.1f}"'
        parts.append(f'<line {ends} stroke="#777" stroke-width=".7"/>')
    for node in (node for column in columns for node in column):
        x, y = node.x, height - node.y
        above = f'<tspan dy="-7" font-size="6">({node.layer})</tspan>' if node.layer else ""
        parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS - 0.5}" fill="#fff" stroke="#333"/>'
            f'<text x="{x - 3 * bool(above):g}" y="{y + 3:g}" font-size="10" '
            f'text-anchor="middle" font-family="serif" font-style="italic">{node.letter}'
            f'<tspan dy="3" font-size="6">{node.k}</tspan>{above}</text>'
        )
    picture = base64.b64encode("".join([*parts, "</svg>"]).encode()).decode()
    return f'<img alt="The network as a graph" src="data:image/svg+xml;base64,{picture}">'
