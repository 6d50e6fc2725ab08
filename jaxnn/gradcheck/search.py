"""The search for the mistake that explains a wrong gradient.

The formulas of a layer state its backward pass as equations. A student's mistake is an edit of one
of them. Each edit is evaluated, and the one that gives the student's numbers is the explanation.
"""

import functools
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxnn.equations import ArrayId
from jaxnn.formulas import note_on
from jaxnn.formulas.expressions import refs
from jaxnn.gradcheck.edits import Edit, edits, fitted, written
from jaxnn.gradcheck.several_lines import Changes, in_several_lines, in_siblings
from jaxnn.gradcheck.stated_backward import StatedBackward

Close: TypeAlias = Callable[[np.ndarray, np.ndarray], bool]
EditsOf: TypeAlias = Callable[[int], Iterable[Edit]]

SECONDS = 1.2  # of computing, for the whole search, pairs of mistakes included
# the kinds of mistakes that are tried first
COMMON = {
    "sign", "slope", "function", "time", "transposed", "other array", "sum", "axis", "condition",
}  # fmt: skip
KEPT = 6  # explanations of one gradient, among which more data decide
MEANINGLESS = (ValueError, KeyError, IndexError, TypeError, FloatingPointError)


class Explanation(NamedTuple):
    """An edit of one line, or of two, that gives the numbers of a gradient.

    Attributes:
        edits: the lines that were changed, and the edits.
        scale: the factor by which the result differs in addition.
    """

    edits: tuple[tuple[int, Edit], ...]
    scale: float = 1.0


class Claims(NamedTuple):
    """What a student's backward pass gives.

    Attributes:
        gradients: the gradients.
        again: the same with another dy, which decides where several edits fit.
        wrong: the identity of each that is wrong, by its number.
        right: the identities of the others.
        close: whether two arrays are equal up to rounding.
        not_of_batch: the gradients that are wrong by a factor which does not change with the
            number of samples.
    """

    gradients: Sequence[np.ndarray]
    again: Sequence[np.ndarray]
    wrong: Mapping[int, ArrayId]
    right: Set[ArrayId]
    close: Close
    not_of_batch: Set[int] = frozenset()


def search(
    stated: StatedBackward, again: Callable[[], StatedBackward], claims: Claims
) -> dict[int, Explanation]:
    """Find the edit that gives the numbers of each wrong gradient.

    Args:
        stated: the backward pass at the point of the claims.
        again: returns the same with the other dy.
        claims: the student's gradients.

    Returns:
        The explanation of each that has one.
    """
    searching = _Search(stated, claims)
    usual = functools.cache(lambda number: [*stated.edits_of(number)])
    searching.try_each(in_siblings(stated))
    searching.try_edits(usual)
    searching.try_own_lines()
    searching.try_for_each(searching.beside_the_others)
    searching.try_each(in_several_lines(stated))
    searching.try_edits(stated.rarer_edits_of)
    searching.try_edits(usual, at_a_glance=False)
    searching.try_for_each(searching.of_the_others)
    searching.try_for_each(searching.with_fitted_numbers)
    searching.try_for_each(searching.in_pairs)
    return {i: best for i in claims.wrong if (best := searching.best(i, again)) is not None}


class _Search:
    """The explanations that are found, stage by stage.

    Args:
        stated: the backward pass.
        claims: the student's gradients.
    """

    def __init__(self, stated: StatedBackward, claims: Claims) -> None:
        self._end = time.thread_time() + SECONDS
        self._stated, self._claims, self._close = stated, claims, claims.close
        self._found: dict[int, list[Explanation]] = {i: [] for i in claims.wrong}
        self._tried: list[tuple[int, Edit]] = []
        wrong = set(claims.wrong.values())
        reached = {k: stated.reached(k) for k in range(len(stated.lines))}
        # a line from which a right gradient is computed has no mistake in it
        self._lines = [k for k, of in reached.items() if of & wrong and not of & claims.right]
        # one mistake that explains all is likelier than several, each with its own
        whole = [k for k in self._lines if wrong <= reached[k]]
        self._groups = whole, [k for k in self._lines if k not in whole]
        self._by_step = {  # the gradients of sequences, to see at a glance what does not fit
            identity: claims.gradients[i]
            for i, identity in claims.wrong.items()
            if claims.gradients[i].ndim == 3
            and claims.gradients[i].shape == np.shape(stated.values[identity])
        }

    @property
    def _is_over(self) -> bool:
        return time.thread_time() > self._end

    @property
    def _open(self) -> dict[int, ArrayId]:
        """The gradients without an explanation, or with one that has the wrong sign besides."""
        wrong, found = self._claims.wrong, self._found
        return {i: wrong[i] for i in wrong if all(e.scale != 1 for e in found[i])}

    # ── Stages ──────────────────────────────────────────────────────────────────────────────────

    def try_each(self, enumerated: Iterable[Changes]) -> None:
        """Try mistakes that change several lines."""
        wanted = self._open
        for changed in enumerated if wanted else ():
            if self._is_over:
                break
            for i in self._fitting(changed, wanted):
                self._found[i].append(Explanation(tuple(changed)))

    def try_edits(self, edits_of: EditsOf, *, at_a_glance: bool = True) -> None:
        """Try each edit of each line, until every gradient has its explanation.

        Args:
            edits_of: enumerates the edits of a line.
            at_a_glance: whether to leave out the edits of recurrent lines that do not fit the first
                step. This may be wrong if there is a second mistake in what is looked at.
        """
        wanted = self._open
        if not (at_a_glance or self._by_step):
            return
        found: dict[int, list[Explanation]] = {i: [] for i in wanted}
        for number, edit in itertools.chain(*(_in_turn(edits_of, ks) for ks in self._groups)):
            if self._is_over or all(_enough(found[i], number) for i in wanted):
                break
            self._tried.append((number, edit))
            if at_a_glance and not self._may_fit(number, edit):
                continue
            results = self._results([(number, edit)])
            for i, identity in wanted.items():
                if len(found[i]) < KEPT and identity in results:
                    scale = self._scale(i, results[identity])
                    if scale is not None:
                        found[i].append(Explanation(((number, edit),), scale))
        for i, fitting in found.items():
            self._found[i] += fitting

    def try_own_lines(self) -> None:
        """Look for a mistake in the line of a gradient itself, where one elsewhere explains it.

        One that explains several gradients is not looked at again.
        """
        explains = self._number_explained()
        for i, identity in self._claims.wrong.items():
            fitting = self._found[i]
            alone = all(self._is_elsewhere(e, i) and explains[_said(e)] == 1 for e in fitting)
            if not fitting or not alone:
                continue
            for number in self._lines:
                own = self._stated.lines[number].of.defines == identity
                for edit in self._stated.edits_of(number) if own and not self._is_over else ():
                    if self._fitting([(number, edit)], {i: identity}):
                        fitting.append(Explanation(((number, edit),)))

    def try_for_each(self, explain: Callable[[int, ArrayId], Explanation | None]) -> None:
        """Try to explain each gradient that has no explanation at all by itself."""
        for i, identity in self._claims.wrong.items():
            explanation = None if self._found[i] else explain(i, identity)
            if explanation is not None:
                self._found[i].append(explanation)

    def of_the_others(self, i: int, identity: ArrayId) -> Explanation | None:
        """Try the mistakes that explain the other gradients, all at once."""
        first = [fitting[0] for fitting in self._found.values() if fitting]
        changed = tuple(dict(pair for e in first for pair in e.edits).items())
        fits = len(changed) > 1 and self._fitting(changed, {i: identity})
        return Explanation(changed) if fits else None

    def beside_the_others(self, i: int, identity: ArrayId) -> Explanation | None:
        """Try a second mistake, in the gradient's own line, beside one of another gradient."""
        own = [k for k in self._lines if self._stated.lines[k].of.defines == identity]
        first = {e.edits[0][0]: e for fitting in self._found.values() for e in fitting[:1]}
        for number, shared in first.items():
            for k in own if number not in own else ():
                for edit in itertools.chain(
                    self._stated.edits_of(k), self._stated.rarer_edits_of(k)
                ):
                    if self._is_over:
                        return None
                    changed = (*shared.edits, (k, edit))
                    if self._fitting(changed, {i: identity}):
                        return Explanation(changed)
        return None

    def with_fitted_numbers(self, i: int, identity: ArrayId) -> Explanation | None:
        """Try the mistakes that have a number in them, which is fitted, such as a regulariser's."""
        true, claimed = np.asarray(self._stated.values[identity], float), self._claims.gradients[i]
        for number in self._lines:
            line = self._stated.lines[number]
            for with_number in fitted(line.equation, self._stated.usable(number)):
                if self._is_over:
                    return None
                results = self._results([(number, with_number(1.0))])
                direction = results.get(identity, true) - true
                if not (np.isfinite(direction).all() and direction.any()) or direction.size < 2:
                    continue
                size = float(((claimed - true) * direction).sum() / (direction**2).sum())
                changed = ((number, with_number(size)),)
                if size and self._fitting(changed, {i: identity}):
                    return Explanation(changed)
        return None

    def in_pairs(self, i: int, identity: ArrayId) -> Explanation | None:
        """Try two mistakes at once, the likeliest pairs first, until the time is over."""
        reaching = {k for k, _ in self._tried if identity in self._stated.reached(k)}
        useful = [pair for pair in self._tried if pair[0] in reaching]
        pairs = itertools.chain(
            self._twice_in_one_line(useful, identity),
            (pair for pair in itertools.combinations(useful, 2) if pair[0][0] != pair[1][0]),
        )
        for pair in itertools.takewhile(lambda _: not self._is_over, pairs):
            # the second edit of one line contains the first
            if self._fitting([*dict(pair).items()], {i: identity}):
                return Explanation(tuple(pair))
        return None

    def best(self, i: int, again: Callable[[], StatedBackward]) -> Explanation | None:
        """Return the simplest explanation of a gradient that also holds for the other dy."""
        found = self._found[i]
        if i in self._claims.not_of_batch:
            found = [e for e in found if e.edits[0][1].kind != "mean"]
        holds = [e for e in found if self._holds(e, i, again())]
        # two mistakes at once may fit by chance
        good = holds or [e for e in found if len(e.edits) == 1]
        explains = self._number_explained()
        return min(
            good,
            key=lambda e: (e.scale != 1, -explains[_said(e)], self._is_elsewhere(e, i)),
            default=None,
        )

    def _number_explained(self) -> Counter[Any]:
        """Return how many gradients each of the mistakes explains."""
        said = ({_said(e) for e in fitting} for fitting in self._found.values())
        return Counter(itertools.chain(*said))

    def _is_elsewhere(self, explanation: Explanation, i: int) -> bool:
        """Return whether the mistake lies in another line than that of the gradient."""
        lines = (self._stated.lines[number] for number, _ in explanation.edits)
        return any(line.of.defines != self._claims.wrong[i] for line in lines)

    # ── Comparing ───────────────────────────────────────────────────────────────────────────────

    def _results(self, changed: Changes) -> dict[ArrayId, np.ndarray]:
        try:
            return self._stated.with_edits(changed)
        except MEANINGLESS:
            return {}

    def _fitting(self, changed: Changes, wanted: Mapping[int, ArrayId]) -> list[int]:
        """Return the gradients that are the student's if these lines are changed."""
        results = self._results(changed)
        known = {i: results[identity] for i, identity in wanted.items() if identity in results}
        return [i for i, result in known.items() if self._scale(i, result) == 1]

    def _scale(self, i: int, result: np.ndarray) -> float | None:
        """Return 1 for the student's numbers, -1 for minus these, and None otherwise."""
        claimed = self._claims.gradients[i]
        if claimed.shape != result.shape or not np.isfinite(result).all() or not result.any():
            return None
        return (
            1.0 if self._close(claimed, result) else -1.0 if self._close(claimed, -result) else None
        )

    def _may_fit(self, number: int, edit: Edit) -> bool:
        """Return whether an edit gives the student's gradient at the first step."""
        try:
            seen = self._stated.first_step(number, edit) if self._by_step else None
        except MEANINGLESS:
            return False
        if seen is None or seen[0] not in self._by_step:
            return True
        identity, step, result = seen
        claimed = self._by_step[identity][:, step]
        return self._close(claimed, result) or self._close(claimed, -result)

    def _holds(self, explanation: Explanation, i: int, again: StatedBackward) -> bool:
        identity = self._claims.wrong[i]
        try:
            results = again.with_edits(explanation.edits)
        except MEANINGLESS:
            return False
        return identity in results and self._close(
            self._claims.again[i], explanation.scale * results[identity]
        )

    def _twice_in_one_line(
        self, tried: Sequence[tuple[int, Edit]], identity: ArrayId
    ) -> Iterator[tuple[tuple[int, Edit], tuple[int, Edit]]]:
        """Edit the line that defines the gradient twice."""
        for number, first in tried:
            line = self._stated.lines[number]
            if line.of.defines == identity:
                usable, functions = self._stated.usable(number), self._stated.functions(line)
                for second in edits(first.equation, usable, functions):
                    yield (number, first), (number, second)


def _said(explanation: Explanation) -> tuple[tuple[int, str], ...]:
    """Return what is said of which lines."""
    return tuple((number, edit.words) for number, edit in explanation.edits)


def _enough(fitting: Sequence[Explanation], number: int) -> bool:
    """Return whether a gradient is explained, by lines whose other edits have been tried, too."""
    return bool(fitting) and (len(fitting) >= KEPT or fitting[0].edits[0][0] != number)


def _in_turn(edits_of: EditsOf, lines: Sequence[int]) -> Iterator[tuple[int, Edit]]:
    """Yield the likeliest edit of each line, then the next of each."""
    each = [sorted(edits_of(number), key=_is_rare) for number in lines]
    for edits_ in itertools.zip_longest(*each):
        yield from ((k, e) for k, e in zip(lines, edits_, strict=True) if e is not None)


def _is_rare(edit: Edit) -> bool:
    """Return whether a mistake is made less often than others; the others are tried first."""
    return edit.kind not in COMMON and " is left out" not in edit.words


def in_words(stated: StatedBackward, explanation: Explanation) -> str:
    """Say what the mistake is, with the right formula beside it."""
    clauses: dict[str, str] = {}  # one mistake may be seen in several lines
    for number, edit in explanation.edits:
        line = stated.lines[number]
        # a layer by itself is traced as the only one of a chain
        alone = [path for path in stated.equations.paths.values() if path.startswith("[1]")] == []
        path = line.of.path.removeprefix("[0]") if alone else line.of.path
        where = f" of {path}" if path and line.of.number else ""
        notes = {ref.name: note_on(line.of.op, ref.name) for ref in refs(line.equation.body)}
        told = [f", where {name} is {note}" for name, note in notes.items() if note]
        formula = f"{written(line.equation)}{''.join(told)}"
        clauses[edit.words] = f"; the formula{where} is {formula}"
    more = ", and its sign is wrong" if explanation.scale == -1 else ""
    return ", and ".join(words + formula for words, formula in clauses.items()) + more
