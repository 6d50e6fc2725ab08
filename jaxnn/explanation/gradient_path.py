"""The chain rule for one number: from the loss back to a weight, factor by factor."""

import re
from typing import NamedTuple

import numpy as np

from jaxnn.checks import InputError
from jaxnn.explanation.equations import Equations, Step, parts_of
from jaxnn.explanation.language.expand import ZERO, coefficient, mentions, number, write_out
from jaxnn.explanation.language.expressions import Expr, Spot
from jaxnn.explanation.rows import place
from jaxnn.tracing import Trace

LONGEST = 200  # links; nobody would read a longer chain


class Factor(NamedTuple):
    """One local derivative: that of the next number in the network by the current one.

    Attributes:
        name: the name of the next number.
        expression: the local derivative, in the names of the layer whose formulas state it.
        value: the value of the local derivative.
        upstream: dJ/d(the next number).
    """

    name: str
    expression: Expr
    value: float
    upstream: float


class Link(NamedTuple):
    """dJ/d(a number): the sum of upstream derivative times local derivative over its paths.

    Attributes:
        name: the name of the number.
        step: the equation that defines its derivative.
        right: the right side of that equation, written out.
        factors: one for each path to a next number; none where the loss states the derivative
            itself.
        value: dJ/d(the number).
    """

    name: str
    step: Step
    right: Expr
    factors: tuple[Factor, ...]
    value: float


def path_to(equations: Equations, trace: Trace, of: str) -> list[Link]:
    """Collect the links from the loss to the number ``of``, starting at the loss.

    Raises:
        InputError: for a place that is not in the trace, is not a single number, or has no
            derivative; for a chain that passes through a layer without formulas, or is too long.
    """
    stage, (part, name), at = trace.find(of)
    numbers = {path: number for number, path in equations.paths.items()}
    identity = _identity(equations, numbers[stage.path], part, name)
    array = np.asarray(equations.values[identity])
    if len(at) != array.ndim:
        raise InputError(
            f"explain: expected the place of one number, got {of!r}, "
            f"which has shape {array.shape[len(at) :]}."
        )
    at = tuple(i % n for i, n in zip(at, array.shape, strict=True))
    links: dict[Spot, Link] = {}
    _collect(equations, Spot(_slope(identity), at), links)
    return [link for link in links.values() if link.right != ZERO] or list(links.values())


def _identity(equations: Equations, number: str, part: str, name: str) -> str:
    step = next((s for s in equations.steps if s.number == number), None)
    local = name or part
    if step is None or local not in step.ids:
        raise InputError(
            f"explain: expected a layer that states formulas, got {equations.paths[number]}."
        )
    return step.ids[local]


def _slope(identity: str) -> str:
    return f"d{identity}"


def _collect(equations: Equations, entry: Spot, links: dict[Spot, Link]) -> None:
    step = equations.by_definition.get(entry.name)
    if step is None or step.direction == "forward":
        raise InputError(
            "explain: expected a number whose derivative is defined by formulas, "
            f"got {_name(equations, entry)}."
        )
    values = equations.local_values(step.ids)
    right = write_out(step.equation, entry.at, values)
    slopes = frozenset(
        name
        for name, key in step.ids.items()
        if (s := equations.by_definition.get(key)) and s.direction == "backward"
    )
    factors = []
    for mention in mentions(right):
        upstream = mention._replace(name=step.ids[mention.name])
        if mention.name not in slopes:
            if parts_of(equations, upstream.name).is_slope and upstream.name not in equations.free:
                silent = ", ".join(equations.silent)
                raise InputError(
                    "explain: expected a formula for the derivative by "
                    f"{_name(equations, upstream)}"
                    + (f"; no formulas are stated by {silent}." if silent else ".")
                )
            continue
        if upstream not in links:
            _collect(equations, upstream, links)
        if links[upstream].right == ZERO:
            continue  # the derivative along this path is 0
        local = coefficient(right, mention, slopes)
        name = _name_at(equations, step, mention)
        factors.append(Factor(name, local, float(number(local, values)), links[upstream].value))
    if len(links) > LONGEST:
        raise InputError(
            f"explain: expected a chain of at most {LONGEST} numbers, this one is longer."
        )
    value = float(np.asarray(equations.values[entry.name])[entry.at])
    links[entry] = Link(_name(equations, entry), step, right, tuple(factors), value)


def _name(equations: Equations, slope: Spot) -> str:
    """Return the place in the network of the number whose derivative the entry is."""
    base, _, number = slope.name.partition("@")
    parts = parts_of(equations, slope.name)
    path = equations.paths.get(parts.number, "")
    name = base[1:] if parts.number == number else parts.name
    return _written(equations, f"{path}.{name}".lstrip("."), slope)


def _name_at(equations: Equations, step: Step, mention: Spot) -> str:
    """Return the same place as the current layer sees it.

    Inside a Residual, y is the output of the layer, not the sum.
    """
    upstream = mention._replace(name=step.ids[mention.name])
    is_output = re.fullmatch(r"dy(_.*)?", mention.name) and step.path != "loss"
    return (
        _written(equations, f"{step.path}.{mention.name[1:]}", upstream)
        if is_output
        else _name(equations, upstream)
    )


def _written(equations: Equations, name: str, slope: Spot) -> str:
    at = ", ".join(map(str, place(equations, slope.name, slope.at)))
    return name + (f"[{at}]" if at else "")
