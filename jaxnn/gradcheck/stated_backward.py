"""The backward pass that formulas state, as lines that can be edited and computed again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxnn.compose import Residual
from jaxnn.equations import ArrayId, Equations, Step, equations_of
from jaxnn.formulas.evaluate import prepare, prepare_step
from jaxnn.formulas.expressions import (
    Equation,
    Expr,
    Index,
    Num,
    Op,
    Over,
    Ref,
    refs,
    rename,
    substitute,
)
from jaxnn.gradcheck.edits import Edit, edits, flips, renamed
from jaxnn.gradcheck.inlining import inlined
from jaxnn.gradcheck.other_slopes import other_slopes
from jaxnn.gradcheck.rarer_edits import left_outs, rarer_edits, slopes_at
from jaxnn.layers.activations import LeakyReLU
from jaxnn.tracing import trace
from jaxnn.types import Layer, Params
from jaxnn.values import loss


class BackwardEquation(NamedTuple):
    """One equation of the backward pass, with all steps of time in which it is used.

    Attributes:
        equation: the equation as it is stated.
        steps: its places in the order of the computation.
        of: a step, which knows the layer and the identities of the names.
    """

    equation: Equation
    steps: tuple[int, ...]
    of: Step


@loss
class InnerProduct:
    """Σ y · t, whose derivative by the prediction y is the target t: it hands a chosen dy back."""

    def check(self, prediction: PyTree, target: Any) -> None:
        """Accept anything."""

    def forward(self, prediction: PyTree, target: Any, weights: Any = None) -> tuple[Array, Any]:
        """Return Σ y · t."""
        parts = jax.tree.map(lambda y, d: (y * d).sum(), prediction, target)
        return sum(jax.tree.leaves(parts), jnp.zeros(())), target

    def backward(self, cache: Any) -> Any:
        """Return t."""
        return cache


class StatedBackward:
    """The backward pass that the formulas state, at one point, with a chosen dy.

    Args:
        equations: the equations of both passes.
        of_loss_alone: whether only the loss is of interest, behind a layer that changes nothing.
    """

    def __init__(self, equations: Equations, *, of_loss_alone: bool = False) -> None:
        self.of_loss_alone = of_loss_alone
        self.equations, self.values = equations, equations.values
        self.steps = [step for step in equations.steps if step.direction == "backward"]
        groups: dict[Any, list[int]] = {}
        for k, step in enumerate(self.steps):
            general = step.equation.general
            groups.setdefault((step.number, k if general is None else id(general)), []).append(k)
        self.lines = [
            BackwardEquation(
                self.steps[group[0]].equation.general or self.steps[group[0]].equation,
                tuple(group),
                self.steps[group[0]],
            )
            for group in groups.values()
        ]
        # the outputs of all layers, by the names that other layers' lines can use for them
        self._elsewhere = {
            f"y of {equations.paths[id_.layer]}": id_
            for id_ in self.values
            if id_.name == "y" and not id_.is_gradient and id_.layer in equations.paths
        }
        self._elsewhere |= {
            f"{id_.name} of {equations.paths[id_.layer]}": id_
            for id_, kind in equations.free.items()
            if kind == "parameter" and id_.layer in equations.paths
        }
        for id_, kind in equations.free.items():
            if kind == "input" and id_ in self.values:
                self._elsewhere["the input of the network"] = id_
        self._elsewhere |= {
            f"dy of {line.of.path}": line.of.ids["dy"]
            for line in self.lines
            if isinstance(line.of.op, Residual) and "dy" in line.of.ids
        }
        free = equations.free
        self._parameters = {identity for identity in free if free[identity] == "parameter"}
        self._first_steps: dict[Any, Any] = {}
        self._renamed = [step.renamed for step in self.steps]
        self._compute = [prepare_step(equation) for equation in self._renamed]
        self._mentions = [{ref.name for ref in refs(e.body)} for e in self._renamed]

    @classmethod
    def of_layer(
        cls, op: Layer, params: Params, x: PyTree, dy: PyTree, key: Any
    ) -> "StatedBackward":
        """State the backward pass of a layer or a network."""
        return cls(equations_of(trace(op, InnerProduct(), params, x, dy, key)))

    @classmethod
    def of_loss(cls, op: Any, prediction: Array, target: Array) -> "StatedBackward":
        """State the backward pass of a loss."""
        identity = LeakyReLU(slope=1.0)
        equations = equations_of(trace(identity, op, (), prediction, target))
        return cls(equations, of_loss_alone=True)

    def identity(self, truth: np.ndarray) -> ArrayId | None:
        """Return the gradient that has these numbers, or None."""
        free = self.equations.free
        parameters = [id_ for id_, kind in free.items() if kind == "parameter"]
        inputs = [id_ for id_, kind in free.items() if kind == "input"]
        for identity in (ArrayId("y", "1"),) if self.of_loss_alone else (*parameters, *inputs):
            value = self.values.get(identity.gradient)
            if value is not None and np.shape(value) == truth.shape and np.allclose(value, truth):
                return (
                    identity.gradient if identity.gradient in self.equations.by_definition else None
                )
        return None

    def shapes(self, line: BackwardEquation) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays that a layer's formulas know, by its own names."""
        return {
            name: np.shape(self.values[id_])
            for name, id_ in line.of.ids.items()
            if id_ in self.values
        }

    def shape_of(self, line: BackwardEquation) -> tuple[int, ...]:
        """Return the shape of the array that a line defines, or a part of it."""
        return np.shape(self.values[line.of.defines])

    def usable(self, number: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays that a line could use: no gradient of a later line."""
        line, rest = self.lines[number], self.lines[number:]
        later = {other.of.defines for other in rest if other.of.equation.step is None}
        shapes = self.shapes(line)
        return {name: shape for name, shape in shapes.items() if line.of.ids[name] not in later}

    def functions(self, line: BackwardEquation) -> dict[str, Expr]:
        """Return the arrays of a layer that are a function of another, entry by entry."""
        found = {}
        for step in self.equations.steps:
            own = step.direction == "forward" and step.number == line.of.number
            if own and step.equation.name == "y" and step.equation.general is None:
                plain = all(ref.at == step.equation.at for ref in refs(step.equation.body))
                if plain and len({ref.name for ref in refs(step.equation.body)}) == 1:
                    found["y"] = step.equation.body
        return found

    def ids_of(self, line: BackwardEquation) -> dict[str, ArrayId]:
        """Return the identities of the names that a line can use: its own, and of other layers."""
        of_others = {
            f"{name} of {other.of.path}": identity
            for other in self.lines
            for name, identity in other.of.ids.items()
        }
        return {**of_others, **self._elsewhere, **line.of.ids}

    def edits_of(self, number: int) -> Iterator[Edit]:
        """Enumerate the mistakes that can be made in one line."""
        line, shapes = self.lines[number], self.usable(number)
        yield from edits(line.equation, shapes, self.functions(line))
        yield from other_slopes(line.of.op, line.equation)
        yield from flips(line.equation, shapes)

    def rarer_edits_of(self, number: int) -> Iterator[Edit]:
        """Enumerate the mistakes in one line that are made less often."""
        line, shapes = self.lines[number], self.usable(number)
        yield from rarer_edits(line.equation, shapes)
        own = [other for other in self.lines if other.of.number == line.of.number]
        before = [other.equation for other in own if other.steps < line.steps]
        itself = [line.equation] if self.steps[line.steps[0]].equation.step else []
        forward = [
            step.equation
            for step in self.equations.steps
            if step.direction == "forward"
            and step.number == line.of.number
            and step.equation.general is None
        ]
        for equation in inlined(line.equation, [*itself, *before, *forward]):
            yield from left_outs(equation)
        yield from self._arrays_of_other_layers(line)
        yield from self._cost_for_slope(line)

    def _cost_for_slope(self, line: BackwardEquation) -> Iterator[Edit]:
        """Put the cost of an entry in the place of its slope, in the line of a loss."""
        for step in self.equations.steps:
            if step.direction == "forward" and step.number == line.of.number == "":
                match step.equation.body:
                    case Op("/", Over("sum", letters, cost), count):
                        if letters == line.equation.letters:
                            words = "the cost itself stands in the place of its slope"
                            equation = line.equation._replace(body=Op("/", cost, count))
                            yield Edit("slope", words, equation)

    def _arrays_of_other_layers(self, line: BackwardEquation) -> Iterator[Edit]:
        """Put the input or output of another layer in the place of an array."""
        shapes, body = self.shapes(line), line.equation.body
        known = {line.of.ids[name] for name in shapes}
        for name in dict.fromkeys(ref.name for ref in refs(body) if not ref.name.startswith("d")):
            for other, identity in self._elsewhere.items():
                same = np.shape(self.values[identity]) == shapes.get(name)
                of_a_kind = (name in ("x", "y")) == (identity not in self._parameters)
                if same and of_a_kind and identity not in known:
                    words = f"{other} stands in the place of {name}"
                    equation = line.equation._replace(body=renamed(body, {name: other}))
                    yield Edit("other array", words, equation)
        shape = self.shape_of(line)
        for other, identity in self._elsewhere.items() if line.equation.name == "dx" else ():
            if np.shape(self.values[identity]) == shape and identity not in known:
                for what, slope in slopes_at(Ref(other, line.equation.at)):
                    equation = line.equation._replace(body=Op("*", body, slope))
                    yield Edit("slope", f"{what} is multiplied in, {other}", equation)

    def _run_of(self, line: BackwardEquation, program: Any) -> Any:
        """Return what puts the result of a program in the place of what a line defines."""
        names = {name: id_ for name, id_ in line.of.ids.items() if id_ in self.values}

        def run(values: dict[Any, np.ndarray], shape: tuple[int, ...]) -> None:
            values[line.of.defines] = program({name: values[id_] for name, id_ in names.items()})

        return run

    def with_edits(self, changed: Sequence[tuple[int, Edit]]) -> dict[ArrayId, np.ndarray]:
        """Compute the gradients that result, only those that differ."""
        replaced = {}
        for number, edit in changed:
            line = self.lines[number]
            equation = rename(edit.equation, self.ids_of(line))
            for k in line.steps:
                replaced[k] = (
                    prepare_step(equation, self.steps[k].equation.step)
                    if edit.program is None
                    else self._run_of(line, edit.program)
                )
        values, fresh = self._computed(range(len(self.steps)), replaced)
        return {identity: values[identity] for identity in fresh}

    def _computed(
        self, numbers: Iterable[int], replaced: Mapping[int, Any]
    ) -> tuple[dict[Any, np.ndarray], set[ArrayId]]:
        """Compute some steps again, of which some are replaced by others.

        Returns:
            All values, and the identities of those that were computed again.
        """
        values: dict[Any, np.ndarray] = dict(self.values)
        fresh: set[ArrayId] = set()
        for k in numbers:
            if k not in replaced and fresh.isdisjoint(self._mentions[k]):
                continue
            name = self._renamed[k].name
            if name not in fresh:
                fresh.add(name)
                values[name] = np.array(values[name], float)
            replaced.get(k, self._compute[k])(values, np.shape(values[name]))
        return values, fresh

    def first_step(self, number: int, edit: Edit) -> tuple[ArrayId, int, np.ndarray] | None:
        """Compute the gradient of a recurrent layer's input at the first step of the backward pass.

        An edit that gives another one than the student's there need not be computed for all steps.

        Returns:
            The identity of the gradient, the step, and the gradient at this step; None for a line
            that is not computed step by step.
        """
        line = self.lines[number]
        step = self.steps[line.steps[0]].equation.step
        if step is None or edit.program is not None:
            return None
        known = (line.of.number, step)
        if known not in self._first_steps:
            self._first_steps[known] = self._of_step(*known)
        numbers, (identity, of_input) = self._first_steps[known]
        if identity is None:
            return None
        replaced = prepare_step(rename(edit.equation, self.ids_of(line)), step)
        values = self._computed(numbers, dict.fromkeys(line.steps, replaced))[0]
        return identity, step[1], of_input(values)

    def _of_step(self, layer_number: str, step: tuple[str, int]) -> Any:
        """Return the lines of a step, and how to compute the input's gradient at this step."""
        own = [k for k, each in enumerate(self.steps) if each.number == layer_number]
        numbers = [k for k in own if self.steps[k].equation.step == step]
        letter, value = step
        for k in own:
            equation = self._renamed[k]
            if self.steps[k].equation.name == "dx" and equation.at[1:2] == (Index(letter),):
                at = tuple(part for part in equation.at if part != Index(letter))
                body = substitute(equation.body, {letter: Num(value)})
                return numbers, (equation.name, prepare(equation._replace(at=at, body=body)))
        return numbers, (None, None)

    def reached(self, number: int) -> set[ArrayId]:
        """Return the gradients that depend on a line."""
        fresh: set[ArrayId] = set()
        for k, equation in enumerate(self._renamed):
            if k in self.lines[number].steps or not fresh.isdisjoint(self._mentions[k]):
                fresh.add(equation.name)
        return fresh
