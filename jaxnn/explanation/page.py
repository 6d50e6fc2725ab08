"""A trace as one self-contained HTML page.

A reader can go through its steps one by one and change its numbers; the page then computes
everything again. It contains the equations of the trace as trees and evaluates these. It knows
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
from jaxnn.explanation.equations import Equations, parts_of
from jaxnn.explanation.labels import allowed_integers, pointers
from jaxnn.explanation.language.expressions import (
    Call,
    Choice,
    Expr,
    Index,
    Num,
    Op,
    Over,
    Ref,
    refs,
)
from jaxnn.explanation.verify import verified_equations
from jaxnn.mlp_columns import columns_or_reason
from jaxnn.tracing import Trace

MOST = 400  # entries up to which each one is a step; with more, each equation is a step
CELLS = 64  # entries of one array that are shown
LARGEST = 200_000  # numbers in a page


def as_page(trace: Trace) -> str:
    """Write the page.

    Raises:
        InputError: for a network with a layer that states no formulas, or with more numbers than a
            page can hold.
    """
    equations = verified_equations(trace)
    if equations.silent:
        silent = ", ".join(equations.silent)
        raise InputError(
            f"explain: expected layers that state formulas for a page, got {silent} without."
        )
    if (numbers := sum(np.size(value) for value in equations.values.values())) > LARGEST:
        raise InputError(
            f"explain: expected at most {LARGEST:,} numbers for a page, got {numbers:,}."
        )
    assets = resources.files("jaxnn.explanation").joinpath("assets")
    asset = lambda name: assets.joinpath(name).read_text(encoding="utf-8")  # noqa: E731
    data = json.dumps(_data(equations, trace), ensure_ascii=False, allow_nan=False)
    script = asset("engine.js") + asset("page.js")
    parts = {
        "/*CSS*/": asset("page.css"),
        "/*HASH*/": base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode(),
        "<!--NET-->": html.escape(f"{trace.net!r}, {trace.loss!r}"),
        "/*JS*/": script,
        "/*TRACE*/": data.replace("<", "\\u003c"),  # so that no text in it ends the script
    }
    # in one pass, so that a mark inside a setting stays the text that it is
    return re.sub("|".join(map(re.escape, parts)), lambda mark: parts[mark[0]], asset("page.html"))


def _data(equations: Equations, trace: Trace) -> dict[str, Any]:
    """Return all data of the page, ready for JSON."""
    graph, reason = _graph(equations, trace)
    identities = [
        name
        for name in equations.values
        if name in equations.free or name in equations.by_definition
    ]
    parameters = [
        (name, _slope(name)) for name, kind in equations.free.items() if kind == "parameter"
    ]
    return {
        "steps": [
            {
                "defines": step.defines,
                "letters": step.equation.letters,
                "sizes": step.equation.sizes,
                "body": tree(step.renamed.body),
                "direction": step.direction,
                "number": step.number,
                "op": repr(step.op),
            }
            for step in equations.steps
        ],
        "arrays": {name: _array(equations.values[name]) for name in identities},
        "symbols": {name: _symbol(equations, name) for name in identities},
        "parameters": [pair for pair in parameters if pair[1] in equations.by_definition],
        "groups": _groups(equations, trace),
        "graph": graph,
        "reason": reason.partition(": ")[2],
        "allowed": {
            name: list(values) for name, values in allowed_integers(equations, trace.loss).items()
        },
        "most": MOST,
        "cells": CELLS,
    }


def tree(node: Expr) -> list[Any]:
    """Return an expression as nested lists, the form that ``engine.js`` reads."""
    match node:
        case Num(value):
            return ["n", value]
        case Index(name):
            return ["i", name]
        case Ref(name, at):
            return ["r", name, [tree(part) for part in at or ()]]
        case Op(sign, left, right):
            return ["o", sign, tree(left), tree(right)]
        case Call(name, args):
            return ["c", name, [tree(arg) for arg in args]]
        case Choice(condition, then, otherwise):
            return ["?", tree(condition), tree(then), tree(otherwise)]
        case Over(kind, letters, body):
            return ["s", kind, list(letters), tree(body)]
    raise TypeError(node)


def _slope(identity: str) -> str:
    return f"d{identity}"


def _array(value: np.ndarray) -> dict[str, Any]:
    """Return an array as its shape and flat data; JSON cannot represent infinities and NaN."""
    flat = np.ravel(value).astype(float if value.dtype != int else int).tolist()
    encoded = [
        x if math.isfinite(x) else None if math.isnan(x) else "inf" if x > 0 else "-inf"
        for x in flat
    ]
    return {"shape": list(np.shape(value)), "data": encoded}


def _symbol(equations: Equations, identity: str) -> dict[str, Any]:
    name, number, time, is_slope = parts_of(equations, identity)
    return {
        "name": html.escape(name),  # the key of a dict may hold anything
        "number": number,
        "time": time,
        "slope": is_slope,
        "batched": identity in equations.batched,
    }


def _groups(equations: Equations, trace: Trace) -> list[dict[str, Any]]:
    """Return the parts of the page: the arrays in each, and whether they can be edited."""
    known = lambda name: name if name in equations.by_definition else None  # noqa: E731
    editable = lambda name: equations.free.get(name) in ("input", "parameter", "target")  # noqa: E731
    used = {step.ids[ref.name] for step in equations.steps for ref in refs(step.equation.body)}
    inputs = [name for name, kind in equations.free.items() if kind == "input" and name in used]
    shown = lambda name: {"id": name, "slope": known(_slope(name))}  # noqa: E731
    groups: list[dict[str, Any]] = [
        {
            "title": "Input and label" + "; classes count from 0" * bool(pointers(equations)),
            "arrays": [shown(n) | {"editable": editable(n)} for n in [*inputs, "t"]],
            "details": [],
        }
    ]
    for number, path in equations.paths.items():
        steps = [step for step in equations.steps if step.number == number]
        own = [
            n
            for n, kind in equations.free.items()
            if kind == "parameter" and n.endswith(f"@{number}")
        ]
        mine = list(dict.fromkeys(step.defines for step in steps if step.direction == "forward"))
        outputs, between = mine[-1:], mine[:-1]
        if not steps:
            continue
        groups.append(
            {
                "title": f"Layer {number}: {steps[0].op!r} at {path}",
                "arrays": [shown(n) | {"editable": editable(n)} for n in [*own, *outputs]],
                "details": [shown(n) for n in between],
            }
        )
    return groups


def _graph(equations: Equations, trace: Trace) -> tuple[dict[str, Any] | None, str]:
    """Describe the graph of a small multilayer perceptron, or return why there is none."""
    columns, reason = columns_or_reason(trace)
    if columns is None:
        return None, reason
    described: list[dict[str, Any]] = []
    for column in columns:
        if column.dense is None or column.last is None:
            described.append(
                {
                    "size": column.size,
                    "value": "x",
                    "slope": "dx",
                    "before": None,
                    "ids": ["x", "dx"],
                    "w": None,
                }
            )
            continue
        layers = range(column.dense + 1, column.last + 2)
        ids = [f"{kind}@{number}" for number in layers for kind in ("y", "dy")]
        bias = [f"b@{layers[0]}", f"db@{layers[0]}"] if f"b@{layers[0]}" in equations.values else []
        described.append({
            "size": column.size,
            "value": f"y@{layers[-1]}",
            "slope": f"dy@{layers[-1]}",
            "before": f"y@{layers[0]}" if len(layers) > 1 else None,
            "ids": [*ids, *bias],
            "w": f"w@{layers[0]}",
            "dw": f"dw@{layers[0]}",
        })  # fmt: skip
    return {"columns": described}, ""
