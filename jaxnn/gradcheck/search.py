"""The search for the mistake that explains a wrong gradient.

The formulas of a layer state its backward pass as equations. A student's mistake is an edit of one
of them. Each edit is evaluated, and the one that gives the student's numbers is the explanation.
"""

import copy
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxnn.equations import ArrayId, Equations, Step, equations_of
from jaxnn.formulas.evaluate import prepare_step
from jaxnn.formulas.expressions import Equation, Expr, refs, rename
from jaxnn.formulas.names import Names
from jaxnn.formulas.reading import read
from jaxnn.gradcheck.edits import Edit, edits, fitted, flips, slopes, written
from jaxnn.gradcheck.other_slopes import other_slopes
from jaxnn.layers.activations import LeakyReLU
from jaxnn.tracing import trace
from jaxnn.types import Layer, Params
from jaxnn.values import loss

Close: TypeAlias = Callable[[np.ndarray, np.ndarray], bool]

SECONDS = 1.3  # of computing, for the whole search, pairs of mistakes included
# the kinds of mistakes that are tried first
COMMON = {"sign", "slope", "function", "time", "transposed", "other array", "sum", "axis"}
KEPT = 6  # explanations of one gradient, among which more data decide


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


class Explanation(NamedTuple):
    """An edit of one line, or of two, that gives the numbers of a gradient.

    Attributes:
        edits: the lines that were changed, and the edits.
        scale: the factor by which the result differs in addition.
    """

    edits: tuple[tuple[int, Edit], ...]
    scale: float


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

    def edits_of(self, number: int) -> Iterator[Edit]:
        """Enumerate the mistakes that can be made in one line."""
        line, shapes = self.lines[number], self.usable(number)
        yield from edits(line.equation, shapes, self.functions(line))
        yield from other_slopes(line.of.op, line.equation)
        yield from flips(line.equation, shapes)

    def other_settings(self) -> Iterator[list[tuple[int, Edit]]]:
        """Enumerate the lines that result if a setting, or an array such as a mask, is ignored."""
        for number, names in self.equations.names.items():
            mine = [k for k, line in enumerate(self.lines) if line.of.number == number]
            if not mine:
                continue
            op = self.lines[mine[0]].of.op
            for words, changed in _without_one(op, names):
                equations = read(op.formulas.backward, changed)  # type: ignore[union-attr]
                general = dict.fromkeys(id(e.general or e) for e in equations)
                by_id = {id(e.general or e): e.general or e for e in equations}
                lines = [by_id[key] for key in general]
                if len(lines) == len(mine):
                    pairs = zip(mine, lines, strict=True)
                    different = [
                        (k, Edit("setting", words, line))
                        for k, line in pairs
                        if line != self.lines[k].equation
                    ]
                    if different:
                        yield different

    def with_edits(self, changed: Sequence[tuple[int, Edit]]) -> dict[ArrayId, np.ndarray]:
        """Compute the gradients that result, only those that differ."""
        replaced = {}
        for number, edit in changed:
            line = self.lines[number]
            equation = rename(edit.equation, line.of.ids)
            for k in line.steps:
                replaced[k] = prepare_step(equation, self.steps[k].equation.step)
        values: dict[Any, np.ndarray] = dict(self.values)
        fresh: set[ArrayId] = set()
        for k, stated in enumerate(self._renamed):
            if k not in replaced and fresh.isdisjoint(self._mentions[k]):
                continue
            if stated.name not in fresh:
                fresh.add(stated.name)
                values[stated.name] = np.array(values[stated.name], float)
            replaced.get(k, self._compute[k])(values, np.shape(values[stated.name]))
        return {identity: values[identity] for identity in fresh}

    def reached(self, number: int) -> set[ArrayId]:
        """Return the gradients that depend on a line."""
        fresh: set[ArrayId] = set()
        for k, equation in enumerate(self._renamed):
            if k in self.lines[number].steps or not fresh.isdisjoint(self._mentions[k]):
                fresh.add(equation.name)
        return fresh


def search(
    stated: StatedBackward,
    again: Callable[[], StatedBackward],
    claimed: Sequence[np.ndarray],
    claimed_again: Sequence[np.ndarray],
    wanted: dict[int, ArrayId],
    right: Set[ArrayId],
    close: Close,
) -> dict[int, Explanation]:
    """Find the edit that gives the numbers of each wrong gradient.

    Args:
        stated: the backward pass at the point of the claim.
        again: returns the same with another dy, which decides where several edits fit.
        claimed: the student's gradients.
        claimed_again: the student's gradients with the other dy.
        wanted: which of them are wrong, with their identities.
        right: the identities of the others.
        close: whether two arrays are equal up to rounding.
    """
    end = time.thread_time() + SECONDS
    wrong = set(wanted.values())
    reached = {k: stated.reached(k) for k in range(len(stated.lines))}
    # a line from which a right gradient is computed has no mistake in it
    lines = [k for k, after in reached.items() if after & wrong and not after & right]
    # one mistake that explains all is likelier than several, each with its own
    whole = [k for k in lines if wrong <= reached[k]]
    others = [k for k in lines if k not in whole]
    alike = _of_siblings(stated, claimed, wanted, close)
    unexplained = {i: identity for i, identity in wanted.items() if not alike[i]}
    single, tried = _single_edits(stated, [whole, others], claimed, unexplained, close, end)
    found = alike | single
    unsettled = not all(found.values()) and time.thread_time() < end
    for changed in stated.other_settings() if unsettled else ():
        results = _results(stated, changed)
        for i, identity in wanted.items():
            if identity in results and _scale(claimed[i], results[identity], close) == 1:
                found[i].append(Explanation(tuple(changed), 1.0))
    for i, identity in wanted.items():
        if not found[i]:
            found[i] = _of_the_others(stated, found, claimed[i], identity, close)
        if not found[i]:
            found[i] = _fitted(stated, lines, claimed[i], identity, close, end)
        if not found[i]:
            found[i] = _pairs(stated, tried, claimed[i], identity, close, end)
    best = {}
    for i, fitting in found.items():
        holds = [e for e in fitting if _holds(again(), e, claimed_again[i], wanted[i], close)]
        # two mistakes at once may fit by chance
        good = holds or [e for e in fitting if len(e.edits) == 1]
        if good:
            simplest = lambda e, i=i: (e.scale != 1, _distance(stated, e, wanted[i]))  # noqa: E731
            best[i] = min(good, key=simplest)
    return best


def _distance(stated: StatedBackward, explanation: Explanation, identity: ArrayId) -> bool:
    """Return whether the mistake lies in another line than that of the gradient."""
    return any(stated.lines[number].of.defines != identity for number, _ in explanation.edits)


def _single_edits(
    stated: StatedBackward,
    groups: Sequence[Sequence[int]],
    claimed: Sequence[np.ndarray],
    wanted: dict[int, ArrayId],
    close: Close,
    end: float,
) -> tuple[dict[int, list[Explanation]], list[tuple[int, Edit]]]:
    """Try each edit of the lines of each group, until every gradient has its explanation.

    Returns:
        The explanations that fit each gradient, and all edits that were tried.
    """
    found: dict[int, list[Explanation]] = {i: [] for i in wanted}
    tried: list[tuple[int, Edit]] = []
    for number, edit in itertools.chain(*(_in_turn(stated, lines) for lines in groups)):
        if time.thread_time() > end or all(_enough(found[i], number) for i in wanted):
            break
        tried.append((number, edit))
        results = _results(stated, [(number, edit)])
        for i, identity in wanted.items():
            if len(found[i]) < KEPT and identity in results:
                scale = _scale(claimed[i], results[identity], close)
                if scale is not None:
                    found[i].append(Explanation(((number, edit),), scale))
    return found, tried


def _enough(fitting: Sequence[Explanation], number: int) -> bool:
    """Return whether a gradient is explained, by lines whose other edits have been tried, too."""
    return bool(fitting) and (len(fitting) >= KEPT or fitting[0].edits[0][0] != number)


def _in_turn(stated: StatedBackward, lines: Sequence[int]) -> Iterator[tuple[int, Edit]]:
    """Yield the likeliest edit of each line, then the next of each."""
    each = [sorted(stated.edits_of(number), key=_is_rare) for number in lines]
    for edits_ in itertools.zip_longest(*each):
        yield from ((k, e) for k, e in zip(lines, edits_, strict=True) if e is not None)


def _is_rare(edit: Edit) -> bool:
    """Return whether a mistake is made less often than others; the others are tried first."""
    return edit.kind not in COMMON and not edit.words.endswith("is left out")


def _results(stated: StatedBackward, changed: Any) -> dict[ArrayId, np.ndarray]:
    try:
        return stated.with_edits(changed)
    except (ValueError, KeyError, IndexError, TypeError, FloatingPointError):
        return {}  # the edit has no meaning here


def _holds(
    again: StatedBackward,
    explanation: Explanation,
    claimed: np.ndarray,
    identity: ArrayId,
    close: Close,
) -> bool:
    results = _results(again, explanation.edits)
    return identity in results and close(claimed, explanation.scale * results[identity])


def _scale(claimed: np.ndarray, result: np.ndarray, close: Close) -> float | None:
    """Return 1 if two arrays are equal, -1 if one is minus the other, and None otherwise."""
    if claimed.shape != result.shape or not np.isfinite(result).all() or not result.any():
        return None
    return 1.0 if close(claimed, result) else -1.0 if close(claimed, -result) else None


def _fitted(
    stated: StatedBackward,
    lines: Sequence[int],
    claimed: np.ndarray,
    identity: ArrayId,
    close: Close,
    end: float,
) -> list[Explanation]:
    """Try the mistakes that have a number in them, which is fitted, such as a regulariser's."""
    true = np.asarray(stated.values[identity], float)
    for number in lines:
        line = stated.lines[number]
        for with_number in fitted(line.equation, stated.usable(number)):
            if time.thread_time() > end:
                return []
            results = _results(stated, [(number, with_number(1.0))])
            direction = results.get(identity, true) - true
            if not (np.isfinite(direction).all() and direction.any()) or direction.size < 2:
                continue
            size = float(((claimed - true) * direction).sum() / (direction**2).sum())
            results = _results(stated, [(number, with_number(size))])
            if size and identity in results and close(claimed, results[identity]):
                return [Explanation(((number, with_number(size)),), 1.0)]
    return []


def _of_the_others(
    stated: StatedBackward,
    found: dict[int, list[Explanation]],
    claimed: np.ndarray,
    identity: ArrayId,
    close: Close,
) -> list[Explanation]:
    """Try the mistakes that explain the other gradients, all at once."""
    each = {
        number: edit for fitting in found.values() for e in fitting[:1] for number, edit in e.edits
    }
    changed = tuple(each.items())
    results = _results(stated, changed) if len(each) > 1 else {}
    fits = identity in results and _scale(claimed, results[identity], close) == 1
    return [Explanation(changed, 1.0)] if fits else []


def _of_siblings(
    stated: StatedBackward,
    claimed: Sequence[np.ndarray],
    wanted: dict[int, ArrayId],
    close: Close,
) -> dict[int, list[Explanation]]:
    """Try one mistake in all lines that define parts of the same array, such as its gates.

    Each has the same wrong slope, or two of the parts have changed places.
    """
    siblings: dict[ArrayId, list[int]] = {}
    for number, line in enumerate(stated.lines):
        siblings.setdefault(line.of.defines, []).append(number)
    together: list[tuple[tuple[int, Edit], ...]] = []
    for numbers in siblings.values():
        alike: dict[str, dict[int, Edit]] = {}
        for number in numbers if len(numbers) > 1 else ():
            for edit in slopes(stated.lines[number].equation):
                alike.setdefault(edit.words, {})[number] = edit
        together += [tuple(each.items()) for each in alike.values() if len(each) > 1]
        for pair in itertools.combinations(numbers, 2):
            one, other = (stated.lines[number].equation for number in pair)
            words = f"{written(one).split(' = ')[0]} and {written(other).split(' = ')[0]}"
            exchanged = one._replace(at=other.at), other._replace(at=one.at)
            edits_ = [Edit("exchanged", f"{words} have changed places", e) for e in exchanged]
            together.append(tuple(zip(pair, edits_, strict=True)))
    found: dict[int, list[Explanation]] = {i: [] for i in wanted}
    for changed in together:
        results = _results(stated, changed)
        for i, identity in wanted.items():
            if identity in results and _scale(claimed[i], results[identity], close) == 1:
                found[i].append(Explanation(changed, 1.0))
    return found


def _pairs(
    stated: StatedBackward,
    tried: Sequence[tuple[int, Edit]],
    claimed: np.ndarray,
    identity: ArrayId,
    close: Close,
    end: float,
) -> list[Explanation]:
    """Try two mistakes at once, the likeliest pairs first, until the time is over."""
    reaching = {number for number, _ in tried if identity in stated.reached(number)}
    useful = [pair for pair in tried if pair[0] in reaching]
    pairs = itertools.chain(
        _twice_in_one_line(stated, useful, identity),
        (pair for pair in itertools.combinations(useful, 2) if pair[0][0] != pair[1][0]),
    )
    for pair in itertools.takewhile(lambda _: time.thread_time() < end, pairs):
        last_of_line = dict(pair)  # the second of one line contains the first
        results = _results(stated, list(last_of_line.items()))
        if identity in results and _scale(claimed, results[identity], close) == 1:
            return [Explanation(tuple(pair), 1.0)]
    return []


def _twice_in_one_line(
    stated: StatedBackward, tried: Sequence[tuple[int, Edit]], identity: ArrayId
) -> Iterator[tuple[tuple[int, Edit], tuple[int, Edit]]]:
    """Edit the line that defines the gradient twice."""
    for number, first in tried:
        line = stated.lines[number]
        if line.of.defines == identity:
            shapes, functions = stated.usable(number), stated.functions(line)
            for second in edits(first.equation, shapes, functions):
                yield (number, first), (number, second)


def in_words(stated: StatedBackward, explanation: Explanation) -> str:
    """Say what the mistake is, with the right formula beside it."""
    clauses: dict[str, str] = {}  # one mistake may be seen in several lines
    for number, edit in explanation.edits:
        line = stated.lines[number]
        # a layer by itself is traced as the only one of a chain
        alone = [path for path in stated.equations.paths.values() if path.startswith("[1]")] == []
        path = line.of.path.removeprefix("[0]") if alone else line.of.path
        where = f" of {path}" if path and line.of.number else ""
        clauses[edit.words] = f"; the formula{where} is {written(line.equation)}"
    more = ", and its sign is wrong" if explanation.scale == -1 else ""
    return ", and ".join(words + formula for words, formula in clauses.items()) + more
