"""A trace as one self-contained HTML page.

A reader can go through its steps one by one and change its numbers; the page then computes
everything again, by JavaScript that is compiled from the equations of the trace. It knows
nothing about layers, so that every layer with formulas works in it. Nothing is fetched from a
network: the page opens from disk and in a frame, and its security policy forbids all else.
"""

import base64
import hashlib
import html
import json
import math
import re
from importlib import resources
from typing import Any

import numpy as np

from jaxnn.checks import InputError
from jaxnn.equations import TARGET, ArrayId, Equations, Step
from jaxnn.explanation.labels import allowed_integers, key, pointers
from jaxnn.explanation.pictures import Names, pictures_of
from jaxnn.explanation.text import formula
from jaxnn.explanation.verify import verified_equations
from jaxnn.formulas import note_on
from jaxnn.formulas.expressions import Choice, refs, walk
from jaxnn.formulas.javascript import compiled_equation
from jaxnn.mlp_columns import MOST as WIDEST
from jaxnn.mlp_columns import columns_of
from jaxnn.notation import Notation
from jaxnn.tracing import Trace

MOST = 400  # entries up to which each one is a step; with more, each equation is a step
CELLS = 64  # entries of one array that are shown
SCRIPTS = ("engine.js", "writing.js", "asking.js", "graph.js", "grids.js", "page.js")
LARGEST = 200_000  # numbers in a page


def as_page(trace: Trace, names: Names) -> str:
    """Write the page.

    Raises:
        InputError: for a network with a layer that states no formulas, or with more numbers than a
            page can hold.
    """
    equations = verified_equations(trace)
    if equations.silent:
        silent = ", ".join(equations.silent)
        raise InputError(f"explain: expected formulas for a page, got none of {silent}.")
    if (numbers := sum(np.size(value) for value in equations.values.values())) > LARGEST:
        raise InputError(
            f"explain: expected at most {LARGEST:,} numbers for a page, got {numbers:,}."
        )
    assets = resources.files("jaxnn.explanation").joinpath("assets")
    asset = lambda name: assets.joinpath(name).read_text(encoding="utf-8")  # noqa: E731
    data = json.dumps(_data(equations, trace, names), ensure_ascii=False, allow_nan=False)
    script = "".join([asset("functions.js"), compiled_steps(equations), *map(asset, SCRIPTS)])
    parts = {
        "/*CSS*/": asset("page.css"),
        "/*HASH*/": base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode(),
        "<!--NET-->": html.escape(f"{trace.net!r}, {trace.loss!r}"),
        "/*JS*/": script,
        "/*TRACE*/": data.replace("<", "\\u003c"),  # so that no text in it ends the script
    }
    # in one pass, so that a mark inside a setting stays the text that it is
    return re.sub("|".join(map(re.escape, parts)), lambda mark: parts[mark[0]], asset("page.html"))


def _data(equations: Equations, trace: Trace, names: Names) -> dict[str, Any]:
    """Return all data of the page, ready for JSON."""
    notation = Notation(equations)
    graph, reason = _graph(equations, trace)
    known = [
        id_ for id_ in equations.values if id_ in equations.free or _is_defined(equations, id_)
    ]
    parameters = [id_ for id_, kind in equations.free.items() if kind == "parameter"]
    return {
        "steps": [
            {
                "defines": key(step.defines),
                "letters": step.equation.letters,
                "sizes": step.equation.shape,
                "direction": step.direction,
                "number": notation.layer(step.number),
                "layer": step.number,
                "op": repr(step.op),
                "note": _note(equations, notation, step),
            }
            for step in equations.steps
        ],
        "arrays": {key(id_): _array(equations.values[id_]) for id_ in known},
        "symbols": {key(id_): _symbol(equations, notation, id_) for id_ in known},
        "parameters": [
            (key(id_), key(id_.gradient))
            for id_ in parameters
            if _is_defined(equations, id_.gradient)
        ],
        "groups": _groups(equations, notation),
        "graph": graph,
        "pictures": [] if graph else pictures_of(equations, notation, names),
        "names": names._asdict(),
        "reason": reason,
        "allowed": {
            key(id_): list(values)
            for id_, values in allowed_integers(equations, trace.loss).items()
        },
        "most": MOST,
        "cells": CELLS,
    }


def _note(equations: Equations, notation: Notation, step: Step) -> str:
    """Say what an unusual array is, and the rule of which the step shows one case."""
    body, defined = step.equation.body, step.equation.name
    mentioned = dict.fromkeys([defined, *(ref.name for ref in refs(body))])
    notes = [
        f"{notation[step.ids[name]].text()} is {note}."
        for name in mentioned
        if (note := note_on(step.op, name))
    ]
    if any(isinstance(node, Choice) for node in walk(body)) and not note_on(step.op, defined):
        notes.append(f"In general, {formula(equations, notation, step)}.")
    return " ".join(notes)


def compiled_steps(equations: Equations) -> str:
    """Compile all equations into JavaScript: a list ``STEPS`` with an object for each."""
    objects = []
    for step in equations.steps:
        mentioned = {step.equation.name, *(ref.name for ref in refs(step.equation.body))}
        shapes = {name: np.shape(equations.values[step.ids[name]]) for name in mentioned}
        keys = {name: key(step.ids[name]) for name in sorted(mentioned)}
        objects.append(compiled_equation(step.equation, shapes, keys))
    remark = "// Made of the formulas that the layers and the loss state."
    return "\n".join([remark, "const STEPS = [", ",\n".join(objects), "];\n"])


def _is_defined(equations: Equations, identity: ArrayId) -> bool:
    return identity in equations.by_definition


def _array(value: np.ndarray) -> dict[str, Any]:
    """Return an array as its shape and flat data; JSON cannot represent infinities and NaN."""
    flat = np.ravel(value).astype(float if value.dtype != int else int).tolist()
    encoded = [
        x if math.isfinite(x) else None if math.isnan(x) else "inf" if x > 0 else "-inf"
        for x in flat
    ]
    return {"shape": list(np.shape(value)), "data": encoded}


def _symbol(equations: Equations, notation: Notation, identity: ArrayId) -> dict[str, Any]:
    symbol = notation[identity]
    return {
        "name": symbol.html,
        "number": symbol.layer,
        "slope": symbol.is_gradient,
        "backward": identity.is_gradient,
        "batched": identity in equations.batched,
    }


def _groups(equations: Equations, notation: Notation) -> list[dict[str, Any]]:
    """Return the parts of the page: the arrays in each, and whether they can be edited."""

    def shown(identity: ArrayId) -> dict[str, Any]:
        slope = identity.gradient if _is_defined(equations, identity.gradient) else None
        editable = equations.free.get(identity) in ("input", "parameter", "target")
        return {"id": key(identity), "slope": slope and key(slope), "editable": editable}

    used = {step.ids[ref.name] for step in equations.steps for ref in refs(step.equation.body)}
    inputs = [id_ for id_, kind in equations.free.items() if kind == "input" and id_ in used]
    groups: list[dict[str, Any]] = [
        {
            "title": "Input and label" + "; classes count from 0" * bool(pointers(equations)),
            "arrays": [shown(id_) for id_ in [*inputs, TARGET]],
            "details": [],
        }
    ]
    for number, path in equations.paths.items():
        steps = [step for step in equations.steps if step.number == number]
        if not steps:
            continue
        own = [
            id_
            for id_, kind in equations.free.items()
            if kind == "parameter" and id_.layer == number
        ]
        mine = list(dict.fromkeys(step.defines for step in steps if step.direction == "forward"))
        outputs, between = mine[-1:], mine[:-1]
        groups.append(
            {
                "title": f"Layer {notation.layer(number)}: {steps[0].op!r} at {path}",
                "arrays": [shown(id_) for id_ in [*own, *outputs]],
                "details": [shown(id_) for id_ in between],
            }
        )
    return groups


def _graph(equations: Equations, trace: Trace) -> tuple[dict[str, Any] | None, str]:
    """Describe the graph of a small multilayer perceptron, or return why there is none."""
    try:
        columns = columns_of(trace.net, np.shape(trace.x)[-1])
    except (InputError, IndexError):
        return None, "not all layers are Dense layers and activations"
    if np.ndim(trace.x) != 2 or max(column.size for column in columns) > WIDEST:
        return None, f"a graph is drawn for up to {WIDEST} neurons in a layer"
    described: list[dict[str, Any]] = []
    for column in columns:
        if column.dense is None or column.last is None:
            described.append({"size": column.size, "a": "x", "activation": ""})
            continue
        first, last = str(column.dense + 1), str(column.last + 1)
        bias = ArrayId("b", first)
        described.append({
            "size": column.size,
            "activation": column.activation,
            "z": key(ArrayId("y", first)),
            "a": key(ArrayId("y", last)),
            "w": key(ArrayId("w", first)),
            "b": key(bias) if bias in equations.values else None,
        })  # fmt: skip
    return {"columns": described}, ""
