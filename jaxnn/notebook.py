"""HTML for notebooks: networks that can be folded, tables, and curves.

These functions take plain data and return HTML. They know nothing about layers, so that every
module may use them.
"""

import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

STYLE = (
    "<style>.jaxnn{font:14px/1.5 system-ui,sans-serif}"
    ".jaxnn table{border-collapse:collapse;margin:4px 0}"
    ".jaxnn th,.jaxnn td{border-bottom:1px solid #8884;padding:2px 10px;text-align:right}"
    ".jaxnn th:first-child,.jaxnn td:first-child{text-align:left;font-family:monospace}"
    ".jaxnn details{margin-left:1.1em}.jaxnn summary{cursor:pointer}.jaxnn .leaf{margin-left:1.1em}"
    ".jaxnn code{background:none}.jaxnn .bad{color:#b71c2b;font-weight:600}</style>"
)


def fragment(*parts: str) -> str:
    """Join parts, and add the style that they need."""
    return f'<div class="jaxnn">{STYLE}{"".join(parts)}</div>'


def line(text: str) -> str:
    """Write a line of text."""
    return f"<div>{html.escape(text)}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], bad: Sequence[bool] = ()) -> str:
    """Write a table, in which the bad rows are highlighted."""
    cells = lambda tag, row: "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)  # noqa: E731
    body = []
    for i, row in enumerate(rows):
        mark = ' class="bad"' if i < len(bad) and bad[i] else ""
        body.append(f"<tr{mark}>{cells('td', row)}</tr>")
    return (
        f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    )


class Tree(NamedTuple):
    """A node with a path and a name, and the nodes inside it."""

    path: str
    name: str
    inner: "list[Tree]"


def tree(node: Tree) -> str:
    """Write a tree, each part of which can be folded."""
    place = f"<code>{html.escape(node.path)}</code> " if node.path else ""
    if not node.inner:
        return f'<div class="leaf">{place}<code>{html.escape(node.name)}</code></div>'
    inside = "".join(map(tree, node.inner))
    return (
        f"<details open><summary>{place}<b>{html.escape(node.name)}</b></summary>{inside}</details>"
    )


def curve(values: Sequence[float], name: str, width: int = 260, height: int = 70) -> str:
    """Draw the finite values of a curve over their indices."""
    points = [(i, float(v)) for i, v in enumerate(values) if math.isfinite(v)]
    if len(points) < 2:
        return ""
    low, high = min(v for _, v in points), max(v for _, v in points)
    span = (high - low) or 1.0
    x = [4 + (width - 8) * i / (len(values) - 1) for i, _ in points]
    y = [height - 4 - (height - 8) * (v - low) / span for _, v in points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    label = html.escape(f"{name}, from {points[0][1]:.4g} to {points[-1][1]:.4g}")
    return (
        f'<figure style="margin:4px 0">'
        f'<svg width="{width}" height="{height}" role="img" aria-label="{label}">'
        f'<polyline points="{path}" fill="none" stroke="#2f6fb7" stroke-width="1.6"/></svg>'
        f"<figcaption>{label}</figcaption></figure>"
    )
