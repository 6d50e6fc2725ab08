"""A trace as one list of equations, in the order in which they are computed.

Each layer states its formulas in its own names: x, y, w. Here every array of the whole network gets
one identity, such as ``ArrayId("y", "2")`` for the output of the second layer, even if several
layers refer to it: the output of one layer is the input of the next. Everything that displays a
trace goes through this list; the page also computes from it.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import PyTree

from jaxnn.formulas import SameAs, formula_values_of, formulas_of
from jaxnn.formulas.evaluate import compute
from jaxnn.formulas.expand import letters_at
from jaxnn.formulas.expressions import Equation, Index, Ref, refs, rename
from jaxnn.formulas.names import Names
from jaxnn.formulas.reading import read
from jaxnn.tracing import Stage, Trace, named, same_arrays
from jaxnn.types import Layer, Loss

Direction = Literal["forward", "backward"]


class ArrayId(NamedTuple):
    """The identity of an array in the whole network.

    Attributes:
        name: its name in the formulas of its layer, such as "w" or "y".
        layer: the number of the layer, such as "2", or "3.1" for a layer inside another; "loss"
            for an array of the loss, and "" for the input, the target and J.
        is_gradient: whether it is the derivative of J by that array.
    """

    name: str
    layer: str = ""
    is_gradient: bool = False

    @property
    def gradient(self) -> "ArrayId":
        """The derivative of J by this array."""
        return self._replace(is_gradient=True)


Ids = dict[str, ArrayId]  # the identities by the names that a layer uses
TARGET, VALUE = ArrayId("t"), ArrayId("J")


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
    ids: Mapping[str, ArrayId]
    op: Layer | Loss

    @property
    def renamed(self) -> Equation:
        """The equation, written in identities."""
        return rename(self.equation, self.ids)

    @property
    def left(self) -> Ref:
        """The left side of the equation, in the layer's own names."""
        return self.equation.left

    @property
    def defines(self) -> ArrayId:
        """The identity of the array that the equation defines, or a part of it."""
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
        layers: each layer, by its number.
        names: what the names in the formulas of each layer mean, by its number; "" for the loss.
        derived: the identities of the arrays that only formulas mention.
    """

    steps: list[Step] = dataclasses.field(default_factory=list)
    values: dict[ArrayId, np.ndarray] = dataclasses.field(default_factory=dict)
    free: dict[ArrayId, Literal["input", "parameter", "target", "given"]] = dataclasses.field(
        default_factory=dict
    )
    silent: list[str] = dataclasses.field(default_factory=list)
    gaps: list[tuple[Direction, int, str]] = dataclasses.field(default_factory=list)
    paths: dict[str, str] = dataclasses.field(default_factory=dict)
    layers: dict[str, Layer] = dataclasses.field(default_factory=dict)
    names: dict[str, Names] = dataclasses.field(default_factory=dict)
    derived: set[ArrayId] = dataclasses.field(default_factory=set)

    @functools.cached_property
    def batched(self) -> frozenset[ArrayId]:
        """The identities of the arrays whose first axis is the batch."""
        first = (Index("n"), Index("n0"))
        found = set()
        for step in self.steps:
            for ref in (step.equation.left, *refs(step.equation.body)):
                if ref.at and ref.at[0] in first:
                    found.add(step.ids[ref.name])
        return frozenset(found)

    @functools.cached_property
    def by_definition(self) -> dict[ArrayId, list[Step]]:
        """The steps that define each identity, in order; most have one."""
        found: dict[ArrayId, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.defines, []).append(step)
        return found

    def definition(
        self, identity: ArrayId, at: tuple[int, ...]
    ) -> tuple[Step, tuple[int, ...]] | None:
        """Return the step that defines an entry, and the values of its letters there."""
        for step in self.by_definition.get(identity, ()):
            scope = letters_at(step.equation, at)
            if scope is not None:
                return step, scope
        return None

    def local_values(self, ids: Mapping[str, ArrayId]) -> dict[str, np.ndarray]:
        """Return the arrays that are known, by a layer's own names for them."""
        return {name: self.values[key] for name, key in ids.items() if key in self.values}

    def recompute(self, free: Mapping[ArrayId, np.ndarray]) -> dict[ArrayId, np.ndarray]:
        """Evaluate every equation again, with other inputs, parameters or targets."""
        kept = set(self.free) | {id_ for id_ in self.values if id_ not in self.by_definition}
        values: dict[Any, np.ndarray] = {id_: self.values[id_] for id_ in kept} | dict(free)
        for step in self.steps:
            compute(step.renamed, values, np.shape(self.values[step.defines]))
        return values


def equations_of(trace: Trace) -> Equations:
    """Write a whole trace, including the loss, as equations."""
    equations = Equations()
    count = len(trace.stages)
    ends = [ArrayId("x"), *(ArrayId("y", str(i + 1)) for i in range(count))]
    for name, array in named("x", trace.x).items():
        equations.free[_field(ArrayId("x"), name)] = "input"
        equations.values[_field(ArrayId("x"), name)] = np.asarray(array)
    chapters = [
        _Chapter(
            equations, stage, str(i + 1),
            _Ends(ends[i], ends[i + 1], ends[i + 1].gradient, ends[i].gradient),
        )
        for i, stage in enumerate(trace.stages)
    ]  # fmt: skip
    for chapter in chapters:
        chapter.forward()
    _loss(equations, trace, ends[-1])
    for chapter in reversed(chapters):
        chapter.backward()
    return equations


class _Ends(NamedTuple):
    """The identities of the input and the output of a layer, and of their derivatives."""

    x: ArrayId
    y: ArrayId
    dy: ArrayId
    dx: ArrayId


def _field(root: ArrayId, name: str) -> ArrayId:
    """Return the identity of an array inside a tuple: that of the tuple, and the field's name."""
    bare = name.split("_", 1)[0] if name.startswith(("y_", "dy_")) else name
    if bare == name and name in ("x", "y", "dx", "dy"):
        return root
    inside = name[1:] if root.is_gradient and name.startswith("d") else name
    return root._replace(name=f"{root.name}.{inside}")


class _Chapter:
    """The equations of one layer and of the layers inside it."""

    def __init__(self, equations: Equations, stage: Stage, number: str, ends: _Ends) -> None:
        self.equations, self.stage, self.number, self.ends = equations, stage, number, ends
        self.stated = formulas_of(stage.layer)
        self.names, self.ids = self._names()
        equations.paths[number], equations.layers[number] = stage.path, stage.layer
        equations.names[number] = self.names
        self.children = self._children()
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
        where = self.stage.path, self.number, direction
        for equation in _read(self.stated, direction, self.names):
            mentioned = {ref.name for ref in refs(equation.body)}
            for child in children:
                if child in waiting and f"{prefix}{child.number.rpartition('.')[2]}" in mentioned:
                    waiting.remove(child)
                    write_child(child)
            _write_equation(self.equations, where, equation, self.ids, self.stage.layer, self.names)
        for child in waiting:
            write_child(child)

    def _names(self) -> tuple[Names, Ids]:
        """Map the names that the layer uses to identities, and record the arrays of the trace."""
        stage, equations, ids = self.stage, self.equations, Ids()
        shapes: dict[str, tuple[int, ...]] = {}
        for root, tree in (("x", stage.x), ("y", stage.y), ("dy", stage.dy), ("dx", stage.dx)):
            for field, array in named(root, tree).items():
                name = f"d{field}" if root == "dx" and field != "dx" else field
                ids[name], shapes[name] = _field(getattr(self.ends, root), name), np.shape(array)
                if root in ("y", "dx"):
                    equations.values.setdefault(ids[name], np.asarray(array))
                elif root == "x" and name != "x" and ids[name] not in equations.values:
                    # lengths, which came with the input of the whole network
                    equations.values[ids[name]] = np.asarray(array)
                    equations.free[ids[name]] = "given"
        for name, array in named("", stage.params).items():
            if stage.inner and not (self.stated and _mentions(self.stated.forward, name)):
                continue  # it belongs to a child
            ids[name], shapes[name] = ArrayId(name, self.number), np.shape(array)
            equations.values[ids[name]] = np.asarray(array)
            equations.free[ids[name]] = "parameter"
            slope = np.asarray(named("", stage.dparams)[name])
            ids[f"d{name}"], shapes[f"d{name}"] = ids[name].gradient, np.shape(array)
            equations.values[ids[f"d{name}"]] = slope
        absent = {*_absent(stage.params), *_absent(stage.x)}
        given = formula_values_of(stage.layer, stage.x, stage.cache)
        names = Names(shapes, settings_of(stage.layer), absent)
        _take(equations, names, ids, given, self.number)
        return names, ids

    def _children(self) -> "list[_Chapter]":
        stages, number = self.stage.inner, self.number
        if self.stated is None and not _in_a_row(self.stage):
            return []
        if self.stated is None:
            between = [ArrayId("y", f"{number}.{k}") for k in range(1, len(stages))]
            y = [self.ends.x, *between, self.ends.y]
            dy = [self.ends.dx, *(id_.gradient for id_ in between), self.ends.dy]
            ends_of = [_Ends(y[k], y[k + 1], dy[k + 1], dy[k]) for k in range(len(stages))]
            return [
                _Chapter(self.equations, s, f"{number}.{k}", ends)
                for k, (s, ends) in enumerate(zip(stages, ends_of, strict=True), start=1)
            ]
        children = []
        for k, s in enumerate(stages, start=1):
            first, last = ArrayId("x", f"{number}.{k}"), ArrayId("y", f"{number}.{k}")
            ends = _Ends(first, last, last.gradient, first.gradient)
            if not _defines(self.stated.forward, "x"):
                ends = ends._replace(x=self.ends.x)
            if not _defines(self.stated.backward, "dy"):
                ends = ends._replace(dy=self.ends.dy)
            children.append(_Chapter(self.equations, s, f"{number}.{k}", ends))
            own = {f"x{k}": ends.x, f"f{k}": ends.y, f"dy{k}": ends.dy, f"df{k}": ends.dx}
            self.ids |= own
            arrays = {f"x{k}": s.x, f"f{k}": s.y, f"dy{k}": s.dy, f"df{k}": s.dx}
            for name, tree in arrays.items():
                value = next(iter(named("x", tree).values()), None)
                if value is not None:
                    self.equations.values.setdefault(own[name], np.asarray(value))
                    self.names.shapes[name] = np.shape(value)
        return children


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def _defines(text: str, family: str) -> bool:
    """Return whether an equation defines the arrays of the children that have this name."""
    return any(line.strip().startswith(f"{family}[") and "][" in line for line in text.splitlines())


def _absent(tree: PyTree) -> list[str]:
    """Return the fields of a tuple that are None, such as the bias."""
    return [name for name in getattr(tree, "_fields", ()) if getattr(tree, name) is None]


def _take(
    equations: Equations, names: Names, ids: Ids, given: Mapping[str, Any], layer: str
) -> None:
    """Add the names that a layer or loss itself gives its formulas."""
    for name, value in given.items():
        if value is None:
            names.absent.add(name)
        elif isinstance(value, SameAs):
            names.aliases[name] = value.name
        elif isinstance(value, (int, float, str, tuple)):
            names.settings[name] = value
        else:
            ids[name], names.shapes[name] = ArrayId(name, layer), np.shape(value)
            equations.values[ids[name]] = np.asarray(value)
            equations.free[ids[name]] = "given"


def _in_a_row(stage: Stage) -> bool:
    """Return whether a layer only applies the layers inside it in a row, which needs no formula."""
    inner = stage.inner
    forward = [stage.x, *(s.y for s in inner)], [*(s.x for s in inner), stage.y]
    backward = [*(s.dx for s in inner), stage.dy], [stage.dx, *(s.dy for s in inner)]
    pairs = [*zip(*forward, strict=True), *zip(*backward, strict=True)]
    return all(same_arrays(a, b) for a, b in pairs)


def _read(stated: Any, direction: Direction, names: Names) -> list[Equation]:
    return [] if stated is None else read(getattr(stated, direction), names)


def _write_equation(
    equations: Equations,
    where: tuple[str, str, Direction],
    equation: Equation,
    ids: Ids,
    op: Layer | Loss,
    names: Names,
) -> None:
    """Add one equation; an array that only formulas mention gets its identity and value here."""
    path, number, direction = where
    for name in (equation.name, *(ref.name for ref in refs(equation.body))):
        if name not in ids:
            base = ids.get(name[1:]) if name.startswith("d") else None
            ids[name] = ArrayId(name, number or "loss") if base is None else base.gradient
    step = Step(path, number, direction, equation, ids, op)
    if step.defines not in equations.values:
        equations.derived.add(step.defines)
    if step.defines in equations.derived:
        compute(step.renamed, equations.values, names.shapes[equation.name])
    equations.steps.append(step)


def settings_of(op: Layer | Loss) -> dict[str, Any]:
    """Return the settings of a layer or loss: its fields, and the constants of its class."""
    names = [f.name for f in dataclasses.fields(op)] if dataclasses.is_dataclass(op) else []
    names += [name for name in dir(type(op)) if name.isupper()]
    fields = {name: getattr(op, name) for name in names}
    plain = (bool, int, float, str, tuple)
    return {name: value for name, value in fields.items() if type(value) in plain}


def _loss(equations: Equations, trace: Trace, y: ArrayId) -> None:
    equations.values[VALUE] = np.asarray(trace.value)
    for name, array in named("t", trace.target).items():  # a tuple, if the output is one
        identity = TARGET if name == "t" else TARGET._replace(name=f"t.{name}")
        equations.values[identity] = np.asarray(array)
        equations.free[identity] = "target"
    for name, array in named("dy", trace.dprediction).items():
        equations.values.setdefault(_field(y.gradient, name), np.asarray(array))
    stated = formulas_of(trace.loss)
    if stated is None:
        equations.silent.append("loss")
        equations.gaps += [
            ("forward", len(equations.steps), "loss"),
            ("backward", len(equations.steps), "loss"),
        ]
        return
    ids = {"y": y, "dy": y.gradient, "t": TARGET, "J": VALUE}
    # dJ/dy stands for the prediction, which has the same shape
    given = formula_values_of(trace.loss, trace.dprediction, trace.target)
    shapes = {name: np.shape(value) for name, value in equations.local_values(ids).items()}
    names = Names(shapes, settings_of(trace.loss))
    _take(equations, names, ids, given, "loss")
    equations.names[""] = names
    for direction in ("forward", "backward"):
        for equation in _read(stated, direction, names):
            _write_equation(equations, ("loss", "", direction), equation, ids, trace.loss, names)
