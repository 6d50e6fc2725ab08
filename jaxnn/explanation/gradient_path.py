"""The chain rule for one number: from the loss back to a weight, factor by factor."""

from typing import NamedTuple

import numpy as np

from jaxnn.checks import InputError
from jaxnn.equations import ArrayId, Equations, Step
from jaxnn.explanation.rows import place
from jaxnn.formulas.expand import coefficient, mentions, number, write_out
from jaxnn.formulas.expressions import ZERO, Expr, Spot
from jaxnn.notation import Notation
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


def path_to(equations: Equations, notation: Notation, trace: Trace, of: str) -> list[Link]:
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
    _collect(equations, notation, Spot(identity.gradient, at), links)
    return [link for link in links.values() if link.right != ZERO] or list(links.values())


def _identity(equations: Equations, number: str, part: str, name: str) -> ArrayId:
    step = next((s for s in equations.steps if s.number == number), None)
    local = name or part
    if step is None or local not in step.ids:
        raise InputError(
            f"explain: expected a layer that states formulas, got {equations.paths[number]}."
        )
    return step.ids[local]


def _collect(
    equations: Equations, notation: Notation, entry: Spot, links: dict[Spot, Link]
) -> None:
    found = equations.definition(entry.name, entry.at)
    name = _name(equations, notation, entry)
    if found is None or found[0].direction == "forward":
        raise InputError(
            f"explain: expected a number whose derivative is defined by formulas, got {name}."
        )
    step, scope = found
    values = equations.local_values(step.ids)
    right = write_out(step.equation, scope, values)
    slopes = frozenset(
        local
        for local, key in step.ids.items()
        if any(s.direction == "backward" for s in equations.by_definition.get(key, ()))
    )
    factors = []
    for mention in mentions(right):
        upstream = mention._replace(name=step.ids[mention.name])
        to = _name(equations, notation, upstream)
        if mention.name not in slopes:
            if upstream.name.is_gradient and upstream.name not in equations.free:
                silent = ", ".join(equations.silent)
                raise InputError(
                    f"explain: expected a formula for the derivative by {to}"
                    + (f"; no formulas are stated by {silent}." if silent else ".")
                )
            continue
        if upstream not in links:
            _collect(equations, notation, upstream, links)
        if links[upstream].right == ZERO:
            continue  # the derivative along this path is 0
        local = coefficient(right, mention, slopes)
        factors.append(Factor(to, local, float(number(local, values)), links[upstream].value))
    if len(links) > LONGEST:
        raise InputError(
            f"explain: expected a chain of at most {LONGEST} numbers, this one is longer."
        )
    value = float(np.asarray(equations.values[entry.name])[entry.at])
    links[entry] = Link(name, step, right, tuple(factors), value)


def _name(equations: Equations, notation: Notation, slope: Spot) -> str:
    """Return the symbol of the number whose derivative the entry is."""
    of = slope.name._replace(is_gradient=False)
    return notation[of].text(*(i + 1 for i in place(equations, slope.name, slope.at)))
