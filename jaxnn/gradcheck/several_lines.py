"""Mistakes that change several lines of a backward pass at once.

A setting or a mask is ignored in every line that asks for it, two arrays have changed places in
two lines, all gates have the same wrong slope, a residual path enters at another layer.
"""

import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from jaxnn.compose import Residual
from jaxnn.formulas.expressions import (
    ONE,
    ZERO,
    Expr,
    Num,
    Op,
    Ref,
    rebuild,
    refs,
    replace,
    substitute,
)
from jaxnn.formulas.names import Names
from jaxnn.formulas.reading import read
from jaxnn.gradcheck.edits import Edit, renamed, slopes, written
from jaxnn.gradcheck.stated_backward import BackwardEquation, StatedBackward
from jaxnn.gradcheck.wrong_programs import wrong_programs
from jaxnn.layers.activations import Entrywise

Changes = Sequence[tuple[int, Edit]]  # the numbers of lines, and what is made of each


def in_several_lines(stated: StatedBackward) -> Iterator[Changes]:
    """Enumerate the mistakes that show in more than one line, or in none of them as a formula."""
    yield from _wrong_programs(stated)
    yield from _other_settings(stated)
    yield from _other_ways_round(stated)
    yield from _exchanged(stated)
    yield from _other_gate_convention(stated)
    yield from _moved_slopes(stated)


def _lines_by_layer(stated: StatedBackward) -> Iterator[tuple[str, Names, list[int]]]:
    for number, names in stated.equations.names.items():
        mine = [k for k, line in enumerate(stated.lines) if line.of.number == number]
        if mine:
            yield number, names, mine


def _wrong_programs(stated: StatedBackward) -> Iterator[Changes]:
    """Put what a wrong program computes in the place of what lines define."""
    for _, names, mine in _lines_by_layer(stated):
        by_name = {stated.lines[k].equation.name: k for k in mine}
        for kind, words, results in wrong_programs(stated.lines[mine[0]].of.op, names):
            numbers = [by_name[name] for name in results]
            equations = [stated.lines[k].equation for k in numbers]
            programs = zip(numbers, equations, results.values(), strict=True)
            yield [(k, Edit(kind, words, equation, run)) for k, equation, run in programs]


def _other_settings(stated: StatedBackward) -> Iterator[Changes]:
    """Read the formulas again with a setting, or an array such as a mask, ignored."""
    for _, names, mine in _lines_by_layer(stated):
        op: Any = stated.lines[mine[0]].of.op
        for words, changed in _without_one(op, names):
            equations = [e.general or e for e in read(op.formulas.backward, changed)]
            lines = [*{id(equation): equation for equation in equations}.values()]
            if len(lines) == len(mine):
                different = [
                    (k, Edit("setting", words, line))
                    for k, line in zip(mine, lines, strict=True)
                    if line != stated.lines[k].equation
                ]
                if different:
                    yield different


def _without_one(op: Any, names: Names) -> Iterator[tuple[str, Names]]:
    """Enumerate the names with one setting at its default, or with one given array absent."""
    fields = dataclasses.fields(op) if dataclasses.is_dataclass(op) else ()
    for field in fields:
        value = names.settings.get(field.name)
        if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
            continue
        default = field.default if isinstance(field.default, (int, float)) else 0.0
        for other in {float(default), 0.0, 1.0} - {float(value)}:
            words = f"{field.name} is taken to be {other:g}, not {value:g}"
            yield words, names.with_setting(field.name, other)
    for name, value in names.settings.items():
        if isinstance(value, tuple) and value and all(isinstance(n, int) for n in value):
            for plain in {(0,) * len(value), (1,) * len(value)} - {value}:
                changed = copy.copy(names)
                changed.settings = names.settings | {name: plain}
                yield f"{name} is taken to be {plain}, not {value}", changed
    for name in ("counted", "mask", "allowed", "kept"):
        if name in names.shapes:
            changed = copy.copy(names)
            changed.absent = names.absent | {name}
            yield f"{name}, which says what counts, is not asked", changed


def _other_ways_round(stated: StatedBackward) -> Iterator[Changes]:
    """Let what goes round the body of a residual layer enter at a layer inside it."""
    for k, line in enumerate(stated.lines):
        if not isinstance(line.of.op, Residual) or line.equation.name != "dx":
            continue
        alone = line.equation._replace(body=Ref("df1", line.equation.at))
        for j, inner in enumerate(stated.lines[:k]):
            inside = inner.of.number.startswith(f"{line.of.number}.")
            is_dx = inner.equation.name == "dx" and inner.equation.general is None
            if inside and is_dx and stated.shape_of(inner) == stated.shape_of(line):
                words = f"what goes round the body is added after {inner.of.path}, not at the end"
                around = Ref(f"dy of {line.of.path}", inner.equation.at)
                entered = inner.equation._replace(body=Op("+", inner.equation.body, around))
                yield [(j, Edit("term", words, entered)), (k, Edit("term", words, alone))]


def _exchanged(stated: StatedBackward) -> Iterator[Changes]:
    """Let two arrays change places where each stands in a line of its own."""
    for pair in itertools.combinations(enumerate(stated.lines), 2):
        one, other = (line for _, line in pair)
        if one.of.number != other.of.number:
            continue
        shapes, first, second = stated.shapes(one), _names(one), _names(other)
        for a, b in itertools.product(first, second):
            if a not in second and b not in first and shapes.get(a) == shapes.get(b):
                words = f"{a} and {b} have changed places"
                bodies = renamed(one.equation.body, {a: b}), renamed(other.equation.body, {b: a})
                yield [
                    (number, Edit("exchanged", words, line.equation._replace(body=body)))
                    for (number, line), body in zip(pair, bodies, strict=True)
                ]


def _other_gate_convention(stated: StatedBackward) -> Iterator[Changes]:
    """Let the gate u and 1 - u change places, as in a GRU of the other convention."""
    words = "u and 1 - u have changed places"
    for _, _, mine in _lines_by_layer(stated):
        lines = {k: stated.lines[k].equation for k in mine}
        slopes_ = {k for k, line in lines.items() if line.name == "dz"}  # these stay as they are
        using = [k for k, line in lines.items() if "u" in {ref.name for ref in refs(line.body)}]
        other = {k: _complemented(lines[k].body, "u") for k in using if k not in slopes_}
        minus = {k: Op("-", ZERO, line.body) for k, line in lines.items() if line.name == "du"}
        for bodies in (other, other | minus):
            if len(other) > 1:
                yield [
                    (k, Edit("exchanged", words, lines[k]._replace(body=body)))
                    for k, body in bodies.items()
                ]


def _moved_slopes(stated: StatedBackward) -> Iterator[Changes]:
    """Multiply by the slope of an activation after the backward pass of another layer."""
    for k, line in enumerate(stated.lines):
        if not isinstance(line.of.op, Entrywise) or line.equation.name != "dx":
            continue
        path = line.of.path
        apart = line.equation._replace(body=Ref("dy", line.equation.at))
        for j, other in enumerate(stated.lines):
            same = stated.shape_of(other) == stated.shape_of(line)
            if j == k or not same or other.equation.name != "dx" or other.equation.general:
                continue
            at = dict(zip(line.equation.letters, other.equation.at, strict=True))
            slope = replace(substitute(line.equation.body, at), functools.partial(_of, path))
            body = replace(slope, functools.partial(_put_in, other.equation.body))
            words = f"the slope of {path} is multiplied in after {other.of.path}"
            yield [
                (k, Edit("slope", words, apart)),
                (j, Edit("slope", words, other.equation._replace(body=body))),
            ]


def _of(path: str, ref: Ref) -> Ref:
    """Name an array of another layer, but for the derivative that comes in."""
    return ref if ref.name == "dy" else ref._replace(name=f"{ref.name} of {path}")


def _put_in(given: Expr, ref: Ref) -> Expr:
    return given if ref.name == "dy" else ref


def _complemented(node: Expr, gate: str) -> Expr:
    """Put 1 - u in the place of u, and u in the place of 1 - u."""
    match node:
        case Op("-", Num(1), Ref(name)) if name == gate:
            return node.right
        case Ref(name):
            return Op("-", ONE, node) if name == gate else node
    return rebuild(node, lambda part: _complemented(part, gate))


def _names(line: BackwardEquation) -> list[str]:
    """Return the arrays of the forward pass that a line mentions."""
    mentions = refs(line.equation.body)
    return list(dict.fromkeys(ref.name for ref in mentions if not ref.name.startswith("d")))


def in_siblings(stated: StatedBackward) -> Iterator[Changes]:
    """Enumerate one mistake in all lines that define parts of the same array, such as its gates.

    Each has the same wrong slope, or two of the parts have changed places.
    """
    siblings: dict[Any, list[int]] = {}
    for number, line in enumerate(stated.lines):
        siblings.setdefault(line.of.defines, []).append(number)
    for numbers in siblings.values():
        alike: dict[str, dict[int, Edit]] = {}
        for number in numbers if len(numbers) > 1 else ():
            for edit in slopes(stated.lines[number].equation):
                alike.setdefault(edit.words, {})[number] = edit
        yield from (tuple(each.items()) for each in alike.values() if len(each) > 1)
        for pair in itertools.combinations(numbers, 2):
            one, other = (stated.lines[number].equation for number in pair)
            words = f"{written(one).split(' = ')[0]} and {written(other).split(' = ')[0]}"
            exchanged = one._replace(at=other.at), other._replace(at=one.at)
            edits_ = [Edit("exchanged", f"{words} have changed places", e) for e in exchanged]
            yield tuple(zip(pair, edits_, strict=True))
