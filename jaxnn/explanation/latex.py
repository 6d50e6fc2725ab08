r"""A trace as a worksheet of equations in LaTeX or Markdown, with the answers or without.

The notation is that of :mod:`jaxnn.notation`.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jaxnn.equations import ArrayId, Equations, Step
from jaxnn.explanation.labels import pointers
from jaxnn.explanation.matrices import matrices
from jaxnn.explanation.network_picture import Node, columns_of_nodes, latex_picture, svg_image
from jaxnn.explanation.rows import WorkedLine, entry_value, is_long, place, selected_rows
from jaxnn.explanation.verify import verified_equations
from jaxnn.formulas import note_on
from jaxnn.formulas.expressions import Call, Spot, walk
from jaxnn.formulas.printing import LatexWriter, format_number, latex_number
from jaxnn.notation import Notation, latex_code
from jaxnn.tracing import Trace

ACROSS = 58  # characters of a formula that fit on a line
NEXT = " \\\\\n"  # line of an aligned formula
TOGETHER_WITH = " \\\\*\n"  # the same, on the same page
ROOMY = " \\\\[3.5ex]\n"  # the same, with room for a pencil
ROUNDING = 1e-13  # the size up to which a number is rounding error
TOGETHER = 16  # lines that are kept on one page
ROOM = 5  # the width in em of what is left blank for a number
MOST_ROOM = 26  # and the most, for a formula with many numbers in it
DEFINED = {  # functions that a reader may not know, or not by their base
    "σ": r"$\sigma(z) = 1 / (1 + e^{-z})$",
    "log": r"$\log$ is the natural logarithm",
    "tanh": r"$\tanh(z) = (e^z - e^{-z}) / (e^z + e^{-z})$",
}

HEAD = r"""\documentclass{article}
\usepackage[a4paper, margin=2cm]{geometry}
\usepackage{amsmath}
\allowdisplaybreaks
\setcounter{MaxMatrixCols}{40}
\setlength{\parindent}{0pt}
\raggedright
\begin{document}
"""


def _markdown_code(text: str) -> str:
    # a code span ends at a run of as many backticks as began it
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{' '.join(text.splitlines())}{space}{fence}"


def _latex_display(lines: list[str], roomy: bool = False) -> str:
    kept = [line.replace(NEXT, TOGETHER_WITH) for line in lines]  # a formula and its numbers
    body = (ROOMY if roomy else NEXT).join(kept)
    equations = f"\\begin{{align*}}\n{body}\n\\end{{align*}}"
    if body.count(r"\\") >= TOGETHER:
        return equations  # too long for a page of its own
    return f"\\begin{{minipage}}{{\\textwidth}}\n{equations}\n\\end{{minipage}}"


def _markdown_display(lines: list[str], roomy: bool = False) -> str:
    body = (ROOMY if roomy else NEXT).join(lines)
    return f"$$\n\\begin{{aligned}}\n{body}\n\\end{{aligned}}\n$$"


class Layout(NamedTuple):
    """The markup of a document.

    Attributes:
        head: the beginning of the document.
        heading: a function from a level, 1 or 2, and a text to a heading.
        code: a function that sets a text in a typewriter font.
        display: a function that displays equations, one on each line, each with its &, and with
            room for a pencil between the lines if that is asked for.
        graph: a function that draws the network as a graph.
        name: the line for the name of the reader and the date.
        page: the start of a new page.
        tail: the end of the document.
    """

    head: str
    heading: Callable[[int, str], str]
    code: Callable[[str], str]
    display: Callable[[list[str], bool], str]
    graph: Callable[[list[list[Node]]], str]
    name: str
    page: str
    tail: str


LATEX = Layout(
    head=HEAD,
    heading=lambda level, text: rf"\{'sub' * (level - 1)}section*{{{text}}}",
    code=latex_code,
    display=_latex_display,
    graph=latex_picture,
    name=r"\noindent Name: \rule{6cm}{.4pt} \hfill Date: \rule{3cm}{.4pt}",
    page=r"\newpage",
    tail="\\end{document}\n",
)
MARKDOWN = Layout(
    head="",
    heading=lambda level, text: f"{'#' * level} {text}",
    code=_markdown_code,
    display=_markdown_display,
    graph=svg_image,
    name="Name: ______________________ Date: ____________",
    page='<div style="page-break-before: always"></div>',
    tail="",
)


def as_document(
    trace: Trace, layout: Layout, significant: int, blanks: bool, seed: int | None
) -> str:
    """Write the whole derivation.

    With ``blanks`` it comes first without its numbers, and the answers follow on a separate page.
    The seed of its numbers, if there is one, stands in both headings.
    """
    sheet = "" if seed is None else f", sheet {seed}"
    equations = verified_equations(trace)
    if seed is not None:  # the numbers are moderate, so that one so small is a sum that is 0
        equations.values = {
            identity: np.where(np.abs(value) < ROUNDING, 0, value)
            for identity, value in equations.values.items()
        }
    notation = Notation(equations)
    graph = columns_of_nodes(trace)
    parts = [
        layout.heading(1, f"Backpropagation by hand{sheet}"),
        *([layout.name] if blanks else []),
        *([layout.graph(graph)] if graph else []),
        *_given(equations, notation, trace, layout, significant),
    ]
    if blanks:
        parts += [
            f"Compute to {significant} significant digits, and keep more where two nearly equal "
            "numbers are subtracted, as in $1 - a^2$ for $a$ near 1. The answers were computed "
            "without rounding in between.",
            *_passes(equations, notation, layout, significant, blanks=True),
            layout.page,
            layout.heading(1, f"Answers{sheet}"),
        ]
    parts += _passes(equations, notation, layout, significant, blanks=False)
    return layout.head + "\n\n".join(parts) + "\n" + layout.tail


def _given(
    equations: Equations, notation: Notation, trace: Trace, layout: Layout, significant: int
) -> Iterator[str]:
    net, loss = layout.code(repr(trace.net)), layout.code(repr(trace.loss))
    yield f"The network is {net}, the loss {loss}."
    nodes = [node for step in equations.steps for node in walk(step.equation.body)]
    used = {node.name for node in nodes if isinstance(node, Call)}
    if defined := [text for name, text in DEFINED.items() if name in used]:
        yield f"Here {', and '.join(defined)}."
    lines = []
    for identity, kind in equations.free.items():
        if kind != "given":
            lines += matrices(equations, notation, identity, significant)
    yield layout.display(lines, False)
    if is_long(equations):
        yield "Of each array a few entries are computed here. The others are given in its matrix."
    yield (
        r"For layer $l$: $z^{(l)}$ before its activation, $a^{(l)}$ after it, "
        r"$\delta^{(l)} = \partial J / \partial z^{(l)}$."
    )
    if counted := [notation[name].latex() for name in pointers(equations)]:
        yield (
            f"Indices count from 1; the numbers in ${', '.join(counted)}$ from 0, "
            "which stands for the first class."
        )


def _passes(
    equations: Equations, notation: Notation, layout: Layout, significant: int, blanks: bool
) -> Iterator[str]:
    # which case of a choice applies is part of the answer
    steps = zip(equations.steps, selected_rows(equations, undecided=blanks), strict=True)
    by_pass = itertools.groupby(steps, lambda pair: pair[0].direction)
    for direction, own in by_pass:
        yield layout.heading(1, direction.capitalize())
        for _, group in itertools.groupby(own, lambda pair: pair[0].path):
            rows_of_steps = list(group)
            step = rows_of_steps[0][0]
            number = f"Layer {notation.layer(step.number)}" if step.number else "Loss"
            yield layout.heading(2, f"{number}: {layout.code(repr(step.op))}")
            written = [rows for _, rows in rows_of_steps if rows]
            defined = dict.fromkeys(step.defines for step, _ in rows_of_steps)
            for name in defined:
                note = "" if name.is_gradient else note_on(step.op, name.name)
                if note:
                    yield f"${notation[name].latex()}$ is {note}."
            if others := _others(equations, notation, written, significant, blanks):
                yield layout.display(others, False)
            for rows in written:
                lines = [_line(equations, notation, row, significant, blanks) for row in rows]
                yield layout.display(lines, blanks)
    if equations.silent and not blanks:
        silent = ", ".join(equations.silent)
        yield f"No formulas are stated by {silent}, so that part is not written out."


def _others(
    equations: Equations,
    notation: Notation,
    written: list[list[WorkedLine]],
    significant: int,
    blanks: bool,
) -> list[str]:
    """Return the arrays of which only some entries are written out, as matrices.

    With ``blanks``, the matrices have gaps where these entries stand.
    """
    places: dict[ArrayId, set[tuple[int, ...]]] = {}
    for row in itertools.chain.from_iterable(written):
        places.setdefault(row.step.defines, set()).add(row.left.at)
    lines = []
    for identity, at in places.items():
        if len(at) < np.size(equations.values[identity]):
            gaps = at if blanks else ()
            lines += matrices(equations, notation, identity, significant, gaps)
    return lines


def _line(
    equations: Equations, notation: Notation, row: WorkedLine, significant: int, blanks: bool
) -> str:
    write = LatexWriter(lambda ref: _entry(equations, notation, row.step, ref))
    numbers = LatexWriter(
        lambda ref: latex_number(
            format_number(entry_value(equations, row.step.ids[ref.name], ref), significant)
        ),
        r" \times ",
    )
    parts = [write(row.right)]
    if not row.is_plain:
        mentioned = sum(isinstance(node, Spot) for node in walk(row.right))
        parts.append(_blanks(2 + 3 * mentioned) if blanks else numbers(row.right))
    result = latex_number(format_number(row.value, significant))
    parts.append(_blank(ROOM) if blanks else result)
    parts = parts[1:] if parts[0] == parts[1] else parts
    lines, width = [f"{write(row.left)} &= {_broken(parts[0])}"], _width(parts[0])
    for part in parts[1:]:
        if width + _width(part) > ACROSS:
            lines.append(f"&= {_broken(part)}")
            width = 0
        else:
            lines[-1] += f" = {part}"
        width += _width(part)
    return NEXT.join(lines)


def _blank(ems: int) -> str:
    return rf"\underline{{\hspace{{{min(max(ems, ROOM), MOST_ROOM)}em}}}}"


def _blanks(ems: int) -> str:
    """Return lines to write on, as many as a long formula needs."""
    lines = range(0, max(ems, 1), MOST_ROOM)
    return f"{NEXT}&\\quad ".join(_blank(ems - start) for start in lines)


def _width(latex: str) -> int:
    """Estimate the width of a typeset formula in characters.

    A command counts as one character, a derivative as four.
    """
    latex = re.sub(r"\\underline{\\hspace{(\d+)em}}", lambda blank: "d" * 2 * int(blank[1]), latex)
    text = re.sub(r"\\frac{\\partial J}{\\partial [^}]*}(_{[^}]*})?}", "dddd", latex)
    return len(re.sub(r"[{}_^ ]|\(\d\)", "", re.sub(r"\\[a-z]+", "x", text)))


def _broken(latex: str) -> str:
    """Break a long sum into several lines, at places where no bracket is open.

    A long sum over a number is first rewritten as a factor in front of the sum.
    """
    over = re.fullmatch(r"\\frac{(.*)}{(\d+)}", latex)
    if over and _width(latex) > ACROSS:
        latex = rf"\frac{{1}}{{{over[2]}}} \bigl({over[1]}\bigr)"
    terms, depth = [""], 0
    for token in re.split(r"(\\left|\\right|[{}]| [+-] )", latex):
        depth += {"{": 1, r"\left": 1, "}": -1, r"\right": -1}.get(token, 0)
        if token in (" + ", " - ") and depth == 0:
            terms.append("")
        terms[-1] += token
    lines = [terms[0]]
    for term in terms[1:]:
        if _width(lines[-1]) + _width(term) > ACROSS:
            lines.append(r"\quad" + term)
        else:
            lines[-1] += term
    return f"{NEXT}&".join(lines)


def _entry(equations: Equations, notation: Notation, step: Step, spot: Spot) -> str:
    identity = step.ids[spot.name]
    return notation[identity].latex(*(i + 1 for i in place(equations, identity, spot.at)))
