"""A trace as text: a table for each pass, with every entry in symbols and in numbers."""

import functools
import math

from jaxnn.equations import Equations, Step
from jaxnn.explanation.gradient_path import Link, path_to
from jaxnn.explanation.labels import pointers
from jaxnn.explanation.rows import WorkedLine, entry_value, place, rows_of, without_batch_of_one
from jaxnn.explanation.verify import verified_equations
from jaxnn.formulas.expand import SHOWN
from jaxnn.formulas.expressions import Ref, Spot
from jaxnn.formulas.folding import counted_from_one
from jaxnn.formulas.printing import Writer, format_number
from jaxnn.notation import HEAD, Notation
from jaxnn.tracing import Trace

LONGEST = 32  # letters of a cell in a chain; longer cells do not widen their column
MOST = 16  # entries of one array that are shown


def as_text(trace: Trace, significant: int) -> str:
    """Write the table of the forward pass and that of the backward pass."""
    equations = verified_equations(trace)
    notation = Notation(equations)
    counted = " Classes and tokens count from 0." if pointers(equations) else ""
    lines = [f"{trace.net!r}, {trace.loss!r}", HEAD + counted]
    for direction in ("forward", "backward"):
        lines += ["", direction.capitalize()]
        heading = None
        for k, step in enumerate((*equations.steps, None)):
            silent = [path for way, at, path in equations.gaps if (way, at) == (direction, k)]
            lines += [
                f"{path}: states no formulas, so its part is not written out." for path in silent
            ]
            if step is None or step.direction != direction:
                continue
            if step.path != heading:
                lines.append(_heading(equations, notation, step))
                heading = step.path
            lines += _table(equations, notation, step, significant)
    return "\n".join(lines) + "\n"


def _heading(equations: Equations, notation: Notation, step: Step) -> str:
    """Name a layer by its number and its path, and say which symbols stand for its parameters."""
    if not step.number:
        return f"Loss: {step.op!r}"
    own = [
        f"{notation[identity].text()} = {step.path}.{identity.name}"
        for identity, kind in equations.free.items()
        if kind == "parameter" and identity.layer == step.number
    ]
    layer = f"Layer {notation.layer(step.number)}: {step.path} {step.op!r}"
    return f"{layer}; {', '.join(own)}" if own else layer


def _table(equations: Equations, notation: Notation, step: Step, significant: int) -> list[str]:
    rows, total = rows_of(equations, step, MOST)
    cells = [_cells(equations, notation, row, significant) for row in rows]
    lines = [f"    {line}" for line in _aligned(cells)]
    if total > 1:
        lines.insert(0, f"  {formula(equations, notation, step)}")
    if total > len(rows):
        lines.append(f"    … {total - len(rows)} more")
    return lines


def _aligned(cells: list[list[str]], longest: float = math.inf) -> list[str]:
    """Align cells in columns, each as wide as its widest cell.

    Right sides of more than ``longest`` letters do not count towards the width.
    """
    names, *rights = zip(*cells, strict=True)
    widths = [max(map(len, names))]
    widths += [
        max((len(cell) for cell in column if len(cell) <= longest), default=0) for column in rights
    ]
    lines = []
    for first, *others in cells:
        line = first.ljust(widths[0])
        for part, width in zip(others, widths[1:], strict=True):
            line += f" = {part.ljust(width)}" if part else " " * (width + 3 if width else 0)
        lines.append(line.rstrip())
    return lines


def _cells(
    equations: Equations, notation: Notation, row: WorkedLine, significant: int
) -> list[str]:
    symbols, numbers = writers(equations, notation, row.step, significant)
    written = symbols(row.right)
    put_in = "" if row.is_plain else numbers(row.right)
    value = format_number(row.value, significant)
    return [
        symbols(row.left),
        "" if written == value else written,
        "" if put_in == written else put_in,
        value,
    ]


def writers(
    equations: Equations, notation: Notation, step: Step, significant: int
) -> tuple[Writer, Writer]:
    """Return the writer of the symbols of a step, and that of its numbers."""

    def name(spot: Spot) -> str:
        identity = step.ids[spot.name]
        return notation[identity].text(*(i + 1 for i in place(equations, identity, spot.at)))

    return Writer(name), Writer(
        lambda spot: format_number(entry_value(equations, step.ids[spot.name], spot), significant),
        "×",
    )


def formula(equations: Equations, notation: Notation, step: Step) -> str:
    """Write the equation of a step with letters as indices."""

    def name(ref: Ref) -> str:
        identity = step.ids[ref.name]
        return notation[identity].text(*map(write, place(equations, identity, ref.at or ())))

    write = Writer(name)
    right = counted_from_one(without_batch_of_one(step.equation))
    return f"{write(counted_from_one(step.left))} = {write(right)}"


def gradient_path_as_text(trace: Trace, of: str, significant: int) -> str:
    """Write the chain of derivatives from the loss to one weight or input, factor by factor."""
    equations = verified_equations(trace)
    notation = Notation(equations)
    links = path_to(equations, notation, trace, of)
    is_one_way = all(len(link.factors) <= 1 for link in links)
    cells = [
        cell
        for link in links
        for cell in _link(equations, notation, link, significant, with_sum=not is_one_way)
    ]
    if is_one_way:
        factors = [link.factors[0].value if link.factors else link.value for link in links]
        cells.append(
            [
                f"∂J/∂{links[-1].name}",
                _product(factors, significant),
                "",
                format_number(links[-1].value, significant),
            ]
        )
    head = f"∂J/∂{links[-1].name}, back from the loss; in the code, this number is {of}"
    return "\n".join([head, *(f"  {line}" for line in _aligned(cells, LONGEST))]) + "\n"


def _product(factors: list[float], significant: int) -> str:
    first, *others = (format_number(factor, significant) for factor in factors)
    return "×".join(
        [first, *(f"({other})" if other.startswith("-") else other for other in others)]
    )


def _link(
    equations: Equations, notation: Notation, link: Link, significant: int, with_sum: bool
) -> list[list[str]]:
    symbols, numbers = writers(equations, notation, link.step, significant)
    if not link.factors:
        value = format_number(link.value, significant)
        right = [
            text if text != value else "" for text in (symbols(link.right), numbers(link.right))
        ]
        return [[f"∂J/∂{link.name}", *right, value]]
    cells = []
    for factor in link.factors:
        left = f"∂{factor.name}/∂{link.name}"
        plain = symbols(factor.expression)
        put_in = numbers(factor.expression)
        value = format_number(factor.value, significant)
        plain = "" if plain == value else plain
        put_in = "" if put_in in (plain, value) else put_in
        cells.append([left, plain, put_in, value])
    if with_sum:
        terms = [f"∂J/∂{factor.name}·∂{factor.name}/∂{link.name}" for factor in link.factors]
        products = [
            _product([factor.upstream, factor.value], significant) for factor in link.factors
        ]
        left = f"∂J/∂{link.name}"
        cells.append([left, _sum(terms), _sum(products), format_number(link.value, significant)])
    return cells


def _sum(terms: list[str]) -> str:
    """Write a sum; of a long one only the first terms and the last."""
    shown = terms if len(terms) <= SHOWN else [*terms[: SHOWN - 1], "…", terms[-1]]
    return functools.reduce(lambda total, term: Writer(str).joined(total, "+", term), shown)
