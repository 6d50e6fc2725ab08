"""A trace as one list of equations, in the order in which they are computed.

Each layer states its formulas in its own names: x, y, w. Here every array of the whole network gets
one identity, such as ``y@2`` for the output of the second layer, even if several layers refer to
it: the output of one layer is the input of the next. Everything that displays a trace goes through
this list; the page also computes from it.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import PyTree

from jaxnn.explanation.language.evaluate import evaluate
from jaxnn.explanation.language.expressions import (
    Equation,
    Index,
    Num,
    Ref,
    parse,
    refs,
    rename,
    replace,
)
from jaxnn.formulas import Formulas, formulas_of
from jaxnn.tracing import Stage, Trace, named, same_arrays
from jaxnn.types import Layer, Loss

Direction = Literal["forward", "backward"]


class Step(NamedTuple):
    """One equation, applied in one layer or in the loss.

    Attributes:
        path: the path of the layer, or "loss".
        number: the number of the layer, such as "2", or "3.1" for a layer inside another; "" for
            the loss.
        direction: the pass to which the equation belongs.
        equation: the equation, in the layer's own names.
        ids: a map from those names to the identities.
        op: the layer or loss.
    """

    path: str
    number: str
    direction: Direction
    equation: Equation
    ids: Mapping[str, str]
    op: Layer | Loss

    @property
    def renamed(self) -> Equation:
        """The equation, written in identities."""
        return rename(self.equation, self.ids)

    @property
    def left(self) -> Ref:
        """The left side of the equation, in the layer's own names."""
        return Ref(self.equation.name, tuple(map(Index, self.equation.letters)))

    @property
    def defines(self) -> str:
        """The identity of the array that the equation defines."""
        return self.ids[self.equation.name]


@dataclasses.dataclass
class Equations:
    """All equations of a trace.

    Attributes:
        steps: the equations of the forward pass, of the loss, and of the backward pass.
        values: every array by its identity. It is taken from the trace, or evaluated if only a
            formula mentions it.
        free: the identities that no equation defines: inputs, parameters, the target, masks.
        silent: the paths of the layers that state no formulas.
        gaps: the places where the equations of such a layer are missing: the direction, the number
            of steps before the gap, and the path of the layer.
        paths: the path of each layer, by its number.
    """

    steps: list[Step] = dataclasses.field(default_factory=list)
    values: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    free: dict[str, Literal["input", "parameter", "target", "given"]] = dataclasses.field(
        default_factory=dict
    )
    silent: list[str] = dataclasses.field(default_factory=list)
    gaps: list[tuple[Direction, int, str]] = dataclasses.field(default_factory=list)
    paths: dict[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def batched(self) -> frozenset[str]:
        """The identities of the arrays whose first axis is the batch."""
        found = {
            step.defines for step in self.steps if step.equation.letters[:1] in (("n",), ("n0",))
        }
        for step in self.steps:
            for ref in refs(step.equation.body):
                if ref.at and ref.at[0] in (Index("n"), Index("n0")):
                    found.add(step.ids[ref.name])
        return frozenset(found)

    @functools.cached_property
    def by_definition(self) -> dict[str, Step]:
        """The step that defines each identity."""
        return {step.defines: step for step in self.steps}

    def local_values(self, ids: Mapping[str, str]) -> dict[str, np.ndarray]:
        """Return the arrays that are known, by a layer's own names for them."""
        return {name: self.values[key] for name, key in ids.items() if key in self.values}

    def recompute(self, free: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Evaluate every equation again, with other inputs, parameters or targets."""
        values = dict(self.values | dict(free))
        for step in self.steps:
            values[step.defines] = evaluate(step.renamed, values)
        return values


def equations_of(trace: Trace) -> Equations:
    """Write a whole trace, including the loss, as equations."""
    equations = Equations()
    last = len(trace.stages) - 1
    names = [
        _Ends(f"y@{i}" if i else "x", f"y@{i + 1}", f"dy@{i + 1}", f"dy@{i}" if i else "dx")
        for i in range(last + 1)
    ]
    _name_input(equations, "x", trace.x)
    chapters = [
        _Chapter(equations, stage, str(i + 1), names[i]) for i, stage in enumerate(trace.stages)
    ]
    for chapter in chapters:
        chapter.forward()
    _loss(equations, trace, names[last])
    for chapter in reversed(chapters):
        chapter.backward()
    return equations


class _Ends(NamedTuple):
    """The identities of the input and the output of a layer, and of their derivatives."""

    x: str
    y: str
    dy: str
    dx: str


def _joined(root: str, name: str) -> str:
    """Return the identity of a tuple's field: that of the tuple, and the name of the field."""
    bare = name.split("_", 1)[0] if name.startswith(("y_", "dy_")) else name
    return root if bare == name and name in ("x", "y", "dx", "dy") else f"{root}.{name}"


def _name_input(equations: Equations, root: str, x: PyTree) -> None:
    for name, array in named("x", x).items():
        equations.free[_joined(root, name)] = "input"
        equations.values[_joined(root, name)] = np.asarray(array)


class _Chapter:
    """The equations of one layer and of the layers inside it."""

    def __init__(self, equations: Equations, stage: Stage, number: str, ends: _Ends) -> None:
        self.equations, self.stage, self.number, self.ends = equations, stage, number, ends
        self.stated: Formulas | None = formulas_of(stage.layer, stage.x, stage.cache)
        self.ids = self._ids()
        self.children = self._children()
        equations.paths[number] = stage.path
        if self.stated is None and not self.children:
            equations.silent.append(stage.path)

    def forward(self) -> None:
        """Write the equations of the forward pass.

        Those of a child come immediately before the first equation that uses its output.
        """
        self._write("forward", "f", lambda child: child.forward(), self.children)

    def backward(self) -> None:
        """Write the equations of the backward pass."""
        self._write("backward", "df", lambda child: child.backward(), self.children[::-1])

    def _write(
        self,
        direction: Direction,
        prefix: str,
        write_child: "Callable[[_Chapter], None]",
        children: "list[_Chapter]",
    ) -> None:
        if self.stated is None and not children:
            self.equations.gaps.append((direction, len(self.equations.steps), self.stage.path))
        waiting = list(children)
        for line in _lines(self.stated, direction):
            mentioned = set(re.findall(rf"\b{prefix}(\d+)\b", line))
            for child in children:
                if child in waiting and child.number.rpartition(".")[2] in mentioned:
                    waiting.remove(child)
                    write_child(child)
            _write_equation(
                self.equations,
                (self.stage.path, self.number, direction),
                line,
                self.ids,
                self.stage.layer,
            )
        for child in waiting:
            write_child(child)

    def _ids(self) -> dict[str, str]:
        """Map the names that the layer uses to identities, and record the arrays of the trace."""
        stage, equations, ids = self.stage, self.equations, {}
        for root, tree in (("x", stage.x), ("y", stage.y), ("dy", stage.dy), ("dx", stage.dx)):
            for field, array in named(root, tree).items():
                name = f"d{field}" if root == "dx" and field != "dx" else field
                ids[name] = _joined(getattr(self.ends, root), name)
                if root in ("y", "dx"):
                    equations.values.setdefault(ids[name], np.asarray(array))
                elif root == "x" and name != "x" and ids[name] not in equations.values:
                    # lengths, which came with the input of the whole network
                    equations.values[ids[name]] = np.asarray(array)
                    equations.free[ids[name]] = "given"
        for name, array in named("", stage.params).items():
            if stage.inner and not (self.stated and re.search(rf"\b{name}\b", self.stated.forward)):
                continue  # it belongs to a child
            ids |= {name: f"{name}@{self.number}", f"d{name}": f"d{name}@{self.number}"}
            equations.values[ids[name]] = np.asarray(array)
            equations.free[ids[name]] = "parameter"
            equations.values[ids[f"d{name}"]] = np.asarray(named("", stage.dparams)[name])
        for name, array in (self.stated.given if self.stated else {}).items():
            ids[name] = f"{name}@{self.number}"
            equations.values[ids[name]] = np.asarray(array)
            equations.free[ids[name]] = "given"
        return ids

    def _children(self) -> "list[_Chapter]":
        stages, number = self.stage.inner, self.number
        if self.stated is None and not _in_a_row(self.stage):
            return []
        if self.stated is None:
            between = [f"@{number}.{k}" for k in range(1, len(stages))]
            y = [self.ends.x, *(f"y{place}" for place in between), self.ends.y]
            dy = [self.ends.dx, *(f"dy{place}" for place in between), self.ends.dy]
            ends_of = [_Ends(y[k], y[k + 1], dy[k + 1], dy[k]) for k in range(len(stages))]
            return [
                _Chapter(self.equations, s, f"{number}.{k}", ends)
                for k, (s, ends) in enumerate(zip(stages, ends_of, strict=True), start=1)
            ]
        children = []
        for k, s in enumerate(stages, start=1):
            ends = _Ends(*(f"{name}@{number}" for name in (f"x{k}", f"f{k}", f"dy{k}", f"df{k}")))
            if not re.search(rf"^x{k}\b", self.stated.forward, re.MULTILINE):
                ends = ends._replace(x=self.ends.x)
            if not re.search(rf"^dy{k}\b", self.stated.backward, re.MULTILINE):
                ends = ends._replace(dy=self.ends.dy)
            children.append(_Chapter(self.equations, s, f"{number}.{k}", ends))
            self.ids |= {f"x{k}": ends.x, f"f{k}": ends.y, f"dy{k}": ends.dy, f"df{k}": ends.dx}
        return children


def _in_a_row(stage: Stage) -> bool:
    """Return whether a layer only applies the layers inside it in a row, which needs no formula."""
    inner = stage.inner
    forward = [stage.x, *(s.y for s in inner)], [*(s.x for s in inner), stage.y]
    backward = [*(s.dx for s in inner), stage.dy], [stage.dx, *(s.dy for s in inner)]
    pairs = [*zip(*forward, strict=True), *zip(*backward, strict=True)]
    return all(same_arrays(a, b) for a, b in pairs)


def _lines(stated: Formulas | None, direction: Direction) -> list[str]:
    lines = [] if stated is None else getattr(stated, direction).splitlines()
    return [line for line in lines if line.strip()]


def _write_equation(
    equations: Equations,
    where: tuple[str, str, Direction],
    line: str,
    ids: dict[str, str],
    op: Layer | Loss,
) -> None:
    """Write one line of the formulas of a layer or loss.

    An array that only formulas mention gets its identity and its value here.
    """
    path, number, direction = where
    settings = {name: value for name, value in _settings(op).items() if name not in ids}
    shapes = {name: np.shape(value) for name, value in equations.local_values(ids).items()}
    equation = parse(line, shapes | dict.fromkeys(settings, ()))
    body = replace(
        equation.body, lambda ref: Num(settings[ref.name]) if ref.name in settings else ref
    )
    equation = equation._replace(body=body)
    ids.setdefault(equation.name, f"{equation.name}@{number or 'loss'}")
    step = Step(path, number, direction, equation, ids, op)
    if step.defines not in equations.values:
        equations.values[step.defines] = evaluate(step.renamed, equations.values)
    equations.steps.append(step)


def _settings(op: Layer | Loss) -> dict[str, float]:
    """Return the numbers of a layer or loss: its fields, and the constants of its class."""
    names = [f.name for f in dataclasses.fields(op)] if dataclasses.is_dataclass(op) else []
    names += [name for name in dir(type(op)) if name.isupper()]
    fields = {name: getattr(op, name) for name in names}
    return {name: value for name, value in fields.items() if type(value) in (int, float)}


def _loss(equations: Equations, trace: Trace, ends: _Ends) -> None:
    equations.values |= {"t": np.asarray(trace.target), "J": np.asarray(trace.value)}
    equations.free["t"] = "target"
    # dJ/dy stands for the prediction, which has the same shape
    stated = formulas_of(trace.loss, trace.dprediction, trace.target)
    for name, array in named("dy", trace.dprediction).items():
        equations.values.setdefault(_joined(ends.dy, name), np.asarray(array))
    if stated is None:
        equations.silent.append("loss")
        equations.gaps += [
            ("forward", len(equations.steps), "loss"),
            ("backward", len(equations.steps), "loss"),
        ]
        return
    ids = {"y": ends.y, "dy": ends.dy, "t": "t", "J": "J"} | {
        name: f"{name}@loss" for name in stated.given
    }
    for name, array in stated.given.items():
        equations.values[ids[name]], equations.free[ids[name]] = np.asarray(array), "given"
    for direction in ("forward", "backward"):
        for line in _lines(stated, direction):
            _write_equation(equations, ("loss", "", direction), line, ids, trace.loss)


# ── Names as on a blackboard ────────────────────────────────────────────────────────────────────


class Parts(NamedTuple):
    """The parts of an array's symbol.

    Attributes:
        name: the letter or word.
        number: the number of the layer, a superscript; "" for the input and the target.
        time: the number of the step in a sequence, counted from 1, or None.
        is_slope: whether the array is the derivative of J by the array with that name.
    """

    name: str
    number: str
    time: int | None
    is_slope: bool


def parts_of(equations: Equations, identity: str) -> Parts:
    """Split an identity: ``dh1@3`` is the derivative by h at the second step, in layer 3."""
    base, _, number = identity.partition("@")
    inner = re.fullmatch(r"(f|x|dy|df)(\d+)", base)
    if number and inner:  # an array of a layer inside a combinator
        name = {"f": "y", "dy": "y", "df": "x"}.get(inner[1], "x")
        return Parts(name, f"{number}.{inner[2]}", None, inner[1].startswith("d"))
    of = f"{base[1:]}@{number}" if number else base[1:]
    is_slope = base.startswith("d") and (of in equations.values or of in ("x", "y"))
    base = base[1:] if is_slope else base
    timed = re.fullmatch(r"(\D+?)(\d+)", base)
    name = (timed[1] if timed else base).replace("_", " ").replace(".", " ")
    return Parts(name, number, int(timed[2]) + 1 if timed else None, is_slope)
