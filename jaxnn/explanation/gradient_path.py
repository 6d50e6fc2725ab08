"""The chain rule for one number: from the loss back to a weight, factor by factor."""

import re
from typing import Any, NamedTuple

import numpy as np

from jaxnn.checks import InputError
from jaxnn.explanation.equations import Equations, Step, parts_of
from jaxnn.explanation.language.expand import ZERO, Spot, coefficient, mentions, number, write_out
from jaxnn.explanation.rows import place
from jaxnn.tracing import Trace

LONGEST = 200  # links; a longer chain is for nobody to read


class Factor(NamedTuple):
    """One local derivative: of what comes next in the network, by the number at hand.

    Attributes:
        name: of what comes next.
        expression: the local derivative, in the names of the layer that gives it.
        value: of the local derivative.
        upstream: dJ/d(what comes next).
    """

    name: str
    expression: Any
    value: float
    upstream: float


class Link(NamedTuple):
    """dJ/d(a number), as the sum over its ways on of upstream times local derivative.

    Attributes:
        name: of the number.
        step: the equation that gives its derivative.
        right: its right side, written out.
        factors: one a way; none for what the loss differentiates itself.
        value: dJ/d(the number).
    """

    name: str
    step: Step
    right: Any
    factors: tuple[Factor, ...]
    value: float


def path_to(equations: Equations, trace: Trace, of: str) -> list[Link]:
    """Collect the links between the loss and the number ``of``, those next to the loss first.

    Raises:
        InputError: for a place that is not in the trace, not a single number, or without a derivative; for
            a chain that goes through a layer without formulas, or is too long to read.
    """
    stage, (part, name), at = trace.find(of)
    numbers = {path: number for number, path in equations.paths.items()}
    identity = _identity(equations, numbers[stage.path], part, name)
    array = np.asarray(equations.values[identity])
    if len(at) != array.ndim:
        raise InputError(
            f"explain: expected the place of one number, got {of!r}, which has shape {array.shape[len(at) :]}."
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
    base, _, number = identity.partition("@")
    return f"d{base}@{number}" if number else f"d{base}"


def _collect(equations: Equations, entry: Spot, links: dict[Spot, Link]) -> None:
    step = equations.by_definition.get(entry.name)
    if step is None or step.direction == "forward":
        raise InputError(
            f"explain: expected a number with a derivative that formulas give, got {_name(equations, entry)}."
        )
    values = {
        name: equations.values[key] for name, key in step.ids.items() if key in equations.values
    }
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
                silent = (
                    f"; no formulas are stated by {', '.join(equations.silent)}"
                    if equations.silent
                    else ""
                )
                raise InputError(
                    f"explain: expected a formula for the derivative by {_name(equations, upstream)}{silent}."
                )
            continue
        if upstream not in links:
            _collect(equations, upstream, links)
        if links[upstream].right == ZERO:
            continue  # nothing comes back this way
        local = coefficient(right, mention, slopes)
        factors.append(
            Factor(
                _name_at(equations, step, mention),
                local,
                float(number(local, values)),
                links[upstream].value,
            )
        )
    if len(links) > LONGEST:
        raise InputError(
            f"explain: expected a chain of at most {LONGEST} numbers, this one is longer."
        )
    value = float(np.asarray(equations.values[entry.name])[entry.at])
    links[entry] = Link(_name(equations, entry), step, right, tuple(factors), value)


def _name(equations: Equations, slope: Spot) -> str:
    """Name the number whose derivative an entry is, by its place in the network."""
    base, _, number = slope.name.partition("@")
    parts = parts_of(equations, slope.name)
    path, name = (
        equations.paths.get(parts.number, ""),
        base[1:] if parts.number == number else parts.name,
    )
    return _written(equations, f"{path}.{name}".lstrip("."), slope)


def _name_at(equations: Equations, step: Step, mention: Spot) -> str:
    """Name the same as the layer at hand sees it: inside a Residual, its y is not the sum's."""
    upstream = mention._replace(name=step.ids[mention.name])
    is_output = re.fullmatch(r"dy(_.*)?", mention.name) and step.path != "loss"
    return (
        _written(equations, f"{step.path}.{mention.name[1:]}", upstream)
        if is_output
        else _name(equations, upstream)
    )


def _written(equations: Equations, name: str, slope: Spot) -> str:
    at = ", ".join(map(str, place(equations, slope.name, slope)))
    return name + (f"[{at}]" if at else "")
