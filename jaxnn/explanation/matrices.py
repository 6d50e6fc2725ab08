"""The arrays of a trace as matrices in LaTeX, whole or with some numbers left out."""

import math
import re
from collections.abc import Collection, Iterator

import numpy as np

from jaxnn.equations import ArrayId, Equations
from jaxnn.formulas.printing import format_number, latex_number
from jaxnn.notation import Notation

HIGHEST = 36  # rows that fit on a page
WIDEST = 66  # characters of a row that fit on a line
BLANK = "?"


def matrices(
    equations: Equations,
    notation: Notation,
    identity: ArrayId,
    significant: int,
    blank: Collection[tuple[int, ...]] = (),
) -> list[str]:
    """Write an array as matrices: its two longest axes, for each index into the others.

    Args:
        equations: the equations of a trace.
        notation: its symbols.
        identity: the array.
        significant: the digits of each number.
        blank: the places of the numbers for which a question mark stands.

    Returns:
        One equation for each matrix, or for each part of one whose rows are too long for a line.
    """
    array = np.asarray(equations.values[identity])
    cells = np.empty(array.shape, object)
    for at, value in np.ndenumerate(array):
        cells[at] = BLANK if at in blank else latex_number(format_number(value, significant))
    if identity in equations.batched and array.shape[:1] == (1,):
        cells = cells.reshape(array.shape[1:])
    name = notation[identity].latex()
    if not cells.ndim:
        return [f"{name} &= {cells.item()}"]
    if cells.ndim == 1:
        return list(_parts(name, [r"\cdot"], cells[None]))
    axes = sorted(np.argsort(-np.array(cells.shape), kind="stable")[:2])
    apart = np.moveaxis(cells, axes, (-2, -1))
    lines: list[str] = []
    for at in np.ndindex(apart.shape[:-2]):
        index = [str(i + 1) for i in at]
        for axis in axes:
            index.insert(axis, r"\cdot")
        lines += _parts(name, index, apart[at])
    return lines


def _parts(name: str, index: list[str], cells: np.ndarray) -> Iterator[str]:
    """Write one matrix, or parts of it if its rows are too long for a line.

    Args:
        name: the name of the array.
        index: the place of the matrix in it, with a dot for each axis of the matrix.
        cells: the numbers.
    """
    longest = max((len(re.sub(r"\\[a-z]+|[{}^ ]", "", cell)) for cell in cells.flat), default=0)
    number = max(1, math.ceil(cells.shape[1] * (longest + 2) / WIDEST))
    shown = max(1, HIGHEST // max(1, len(cells)))
    first = 1
    for i, part in enumerate(np.array_split(cells, number, axis=1)[:shown]):
        end = first + part.shape[1]
        place = index.copy()
        if number > 1:
            columns = len(index) - 1 - index[::-1].index(r"\cdot")
            place[columns] = rf"{first} \ldots {end - 1}"
        rows = [" & ".join(row) for row in part[:HIGHEST]]
        rows += [r"\vdots"] if len(part) > HIGHEST else []
        rows += [r"\cdots"] if i + 1 == shown < number else []
        below = "" if set(place) == {r"\cdot"} else f"_{{{', '.join(place)}}}"
        inside = r" \\ ".join(rows)
        yield f"{name}{below} &= \\begin{{pmatrix}} {inside} \\end{{pmatrix}}"
        first = end
