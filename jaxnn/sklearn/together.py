"""Training of many estimators together, before each of them is asked to ``fit``.   N rows."""

import contextlib
import dataclasses
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from sklearn.base import clone
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params, _num_samples

from jaxnn.sklearn.network import NetworkEstimator, precision
from jaxnn.sklearn.plans import TRAINER, RuleUpdate, Trainer, TrainingPlan, optimizer_of
from jaxnn.sklearn.saving import Saved, name_of
from jaxnn.sklearn.widening import Widened, can_join, pays, size
from jaxnn.training.batching import Batch
from jaxnn.training.fit import Fit, can_be_padded, check_data
from jaxnn.training.members import Member, on_host, train_members
from jaxnn.training.train_step import TrainState, TrainStep, make_step

Split = tuple[np.ndarray, np.ndarray]
Places = tuple[np.ndarray, np.ndarray | None]  # of the rows to train on, and of those held out


@contextlib.contextmanager
def training_by(trainer: Trainer) -> Iterator[None]:
    """Let estimators ask a trainer for their results, until the block is left."""
    before = TRAINER.set(trainer)
    try:
        yield
    finally:
        TRAINER.reset(before)


class Planned(NamedTuple):
    """One candidate on one split.

    Attributes:
        candidate: the number of the candidate.
        estimator: the estimator with a network that was asked to ``fit``.
        plan: what it would do.
        rows: the numbers of the rows of the split, (n,).
        digest: a digest of the data of the plan.
    """

    candidate: int
    estimator: NetworkEstimator
    plan: TrainingPlan
    rows: np.ndarray
    digest: bytes

    @property
    def name(self) -> Hashable:
        """Everything that decides the result, but for the number of epochs."""
        return _name(self.plan, self.digest)


_Kind = tuple[Hashable, Hashable]  # a program without the number of epochs


class Program(NamedTuple):
    """What members have in common that share a program.

    Attributes:
        step: the structure of their step.
        data: what decides the shapes of the data, and the scores.
        epochs: the number of epochs that they have made.
    """

    step: Hashable
    data: Hashable
    epochs: int


class Together:
    """The training of the candidates of a search, in one program for those that can share it.

    Args:
        who: the search, for errors.
        progress: whether to show a progress bar; None to show it on a terminal and in a notebook.
        saved: where to save the members after each epoch, and to take them up; None for nowhere.

    Attributes:
        alone: the reasons why candidates of the last call can't be trained with others, by number.
        seconds: the time that the last call took, for each candidate and split.
    """

    def __init__(self, who: str, progress: bool | None, saved: Saved | None = None) -> None:
        self.alone: dict[int, str] = {}
        self.seconds = 0.0
        self._who, self._progress, self._saved = who, progress, saved
        self._to_save: dict[str, Member] = {}
        self._names: dict[Hashable, str] = {}
        self._unfinished = False
        self._members: dict[Hashable, Member] = {}
        self._begun: dict[Hashable, tuple[TrainStep, TrainState]] = {}

    def train(
        self,
        estimator: Any,
        candidates: Sequence[Mapping[str, Any]],
        X: Any,
        y: Any,
        splits: Sequence[Split],
        fit_params: Mapping[str, Any],
        best: str = "",
    ) -> None:
        """Train all candidates on the training rows of all splits.

        Those that were trained before, for fewer epochs, continue from where they were. The
        progress bar shows ``best``, the best result so far.

        Raises:
            TrainingInterrupted: for an interrupt from the keyboard; what was trained is kept.
        """
        began = time.perf_counter()
        self.alone, groups = {}, defaultdict(list)
        if not _has_network(estimator):
            reason = f"{type(estimator).__name__} has no network of this library"
            self.alone = dict.fromkeys(range(len(candidates)), reason)
            return
        for planned in plans(estimator, candidates, X, y, splits, fit_params):
            with contextlib.suppress(Exception):  # a network that does not fit, as ``fit`` will say
                groups[self._program(planned)].append(planned)
        if self._saved is not None:
            self._saved.check_used()
        self._unfinished = True
        shared = self._shared(groups)
        for number, (group, wide) in enumerate(shared, start=1):
            title = f"{self._who}, program {number} of {len(shared)}{best}"
            self._train_group(group, _num_samples(X), title, wide)
        self._unfinished = False
        self.seconds = (time.perf_counter() - began) / (len(candidates) * len(splits))

    def result(self, _: NetworkEstimator, plan: TrainingPlan) -> Fit | None:
        """Return the result of a plan; None if it was not trained, or failed.

        A run that failed is then made once more, alone, so that the error is the estimator's own.

        Raises:
            RuntimeError: if the training was interrupted before the first epoch of this plan.
        """
        member = self._members.get(_name(plan, _digest(plan)))
        epochs = 0 if member is None else len(member.records)
        if self._unfinished:
            if member is None or not epochs:
                raise RuntimeError("The search was interrupted before this candidate was trained.")
            return member.fit()
        if member is None or member.failed or (epochs != plan.epochs and not member.stopped):
            return None
        return member.fit() if epochs <= plan.epochs else None

    def first(self, planned: Planned) -> tuple[TrainStep, TrainState]:
        """Return the step and the first state of a plan; many plans have the state in common."""
        plan, x = planned.plan, planned.plan.data[0]
        name, *numbers = plan.rule
        what = plan.net, plan.task.loss, plan.task.outputs, plan.seed, x.shape[1:], x.dtype
        known = (*what, name if isinstance(name, str) else plan.rule)
        if known not in self._begun:
            with precision(x.dtype):
                state = planned.estimator._first_state(plan)
                optimizer = optimizer_of(plan.rule)
                step = make_step("fit", plan.net, plan.task.loss, optimizer, "hand", None)
                last = len(x) % plan.batch_size or plan.batch_size
                check_data("fit", step, state.params, Batch(*plan.data), None, (), last)
                if isinstance(name, str):
                    step = dataclasses.replace(step, update=RuleUpdate(name))
                self._begun[known] = step.hoist("fit", state), on_host(state)
        step, state = self._begun[known]
        if isinstance(name, str):
            dtype = np.result_type(*jax.tree.leaves(state.params))
            step = dataclasses.replace(step, constants=tuple(np.array(n, dtype) for n in numbers))
        return step, state

    def _program(self, planned: Planned) -> Program:
        """Return the program that trains the member of a plan."""
        plan = planned.plan
        if planned.name not in self._members:
            step, state = self.first(planned)
            none = np.zeros(0, int)
            self._members[planned.name] = Member(step, state, none, none, 0, plan.ending)
        member, n = self._members[planned.name], len(plan.data[0])
        if self._saved is not None:
            self._take_up(self._saved, planned, member)
        shapes = [(part.shape[1:], part.dtype) for part in plan.data]
        held_out = plan.held_out and (len(plan.held_out[0]), plan.task.metric)
        data = (
            str(shapes), plan.batch_size, plan.shuffle, -(-n // plan.batch_size),
            None if can_be_padded(plan.net) else n, held_out,
        )  # fmt: skip
        return Program(jax.tree.structure(member.step), data, len(member.records))

    def _shared(
        self, groups: Mapping[Program, list[Planned]]
    ) -> list[tuple[list[Planned], Member]]:
        """Let narrower networks join the program of wider ones, where that is faster.

        Args:
            groups: the plans of each program.

        Returns:
            The plans of each program that remains, and the widest member in it.
        """
        rows, first = Counter[_Kind](), dict[_Kind, Member]()
        for program, group in groups.items():
            kind = program.step, program.data
            first.setdefault(kind, self._members[group[0].name])
            rows[kind] += sum(each.plan.epochs * len(each.plan.data[0]) for each in group)
        widest: dict[_Kind, Member] = {}
        for kind in sorted(first, key=lambda kind: size(first[kind]), reverse=True):
            own = first[kind]
            others = [wide for its, wide in reversed(widest.items()) if its[1] == kind[1]]
            fits = (wide for wide in others if can_join(own, wide) and pays(own, wide, rows[kind]))
            widest[kind] = next(fits, own)
        joined: dict[Program, tuple[list[Planned], Member]] = {}
        for program, group in groups.items():
            wide = widest[program.step, program.data]
            merged = program._replace(step=jax.tree.structure(wide.step))
            joined.setdefault(merged, ([], wide))[0].extend(group)
        return list(joined.values())

    def _take_up(self, saved: Saved, planned: Planned, member: Member) -> None:
        """Take up a member where it was saved, and have it saved from now on."""
        epochs = planned.plan.epochs
        if planned.name not in self._names:
            self._names[planned.name] = name_of(planned.plan, planned.digest, member)
        name = self._names[planned.name]
        if 0 < member.epochs < epochs:  # a search that goes on has to score this iteration again
            before = dataclasses.replace(member, records=list(member.records))
            self._to_save[f"{name} {member.epochs}"] = before
        saved.restore(name, member, epochs)
        self._to_save[name] = member

    def _train_group(self, group: Sequence[Planned], count: int, title: str, wide: Member) -> None:
        """Train members that share a program, which is that of the widest of them."""
        members = [self._members[planned.name] for planned in group]
        data = placed(members, group, count)
        for member, planned in zip(members, group, strict=True):
            member.epochs = planned.plan.epochs
        distinct = {id(member): member for member in members}  # two candidates may be the same
        going = [member for member in distinct.values() if member.active]
        if not going:
            return
        widened = [Widened(member, wide) for member in going]

        def hand_back() -> None:
            for each in widened:
                each.hand_back()

        def save() -> None:
            hand_back()
            if self._saved is not None:
                self._saved.save(self._to_save)

        try:
            train_planned(
                self._who, [each.member for each in widened], data, group[0].plan,
                progress=self._progress, title=title,
                save=None if self._saved is None else save,
                save_every=1 if self._saved is None else self._saved.checkpoints.every,
            )  # fmt: skip
        finally:
            hand_back()


def placed(members: Sequence[Member], group: Sequence[Planned], count: int) -> Batch:
    """Give each member the places of its rows in the data of all; return these data.

    Args:
        members: the members.
        group: the plan of each, which share a program.
        count: N, the rows that the splits are parts of.
    """
    data, places = _put_together(group, count)
    for member, planned in zip(members, group, strict=True):
        member.rows, member.held_out = places[planned.digest]
        member.weights = np.zeros(len(data.x), planned.plan.data[2].dtype)
        member.weights[member.rows] = planned.plan.data[2]
    return data


def train_planned(
    who: str, members: Sequence[Member], data: Batch, plan: TrainingPlan, **options: Any
) -> None:
    """Train members whose plans differ only in what one program can take, as in ``plan``.

    See :func:`~jaxnn.training.members.train_members` for the other arguments.
    """
    with precision(data.x.dtype):
        train_members(
            who, members, data, plan.batch_size, shuffle=plan.shuffle,
            pad_rows=can_be_padded(plan.net),
            metrics=() if plan.held_out is None else (plan.task.metric,), **options,
        )  # fmt: skip


# ── Plans ───────────────────────────────────────────────────────────────────────────────────────


class _PlanMade(BaseException):
    """An estimator has made its plan, and need not go on."""

    def __init__(self, estimator: NetworkEstimator, plan: TrainingPlan) -> None:
        super().__init__()
        self.estimator, self.plan = estimator, plan


def _stop_at_the_plan(estimator: NetworkEstimator, plan: TrainingPlan) -> NoReturn:
    raise _PlanMade(estimator, plan)


def plans(
    estimator: Any,
    candidates: Sequence[Mapping[str, Any]],
    X: Any,
    y: Any,
    splits: Sequence[Split],
    fit_params: Mapping[str, Any],
) -> Iterator[Planned]:
    """Ask each candidate to fit each split, and stop it as soon as it has made its plan.

    Those that fail before make no plan: the search will see their errors when it asks them again.
    """
    every_row = np.arange(_num_samples(X))
    for train, _ in splits:
        own_x, own_y = _safe_split(estimator, X, y, train)
        own_params = _check_method_params(X, params=fit_params, indices=train)
        similar: dict[str, tuple[TrainingPlan, bytes]] = {}
        for number, parameters in enumerate(candidates):
            own = clone(estimator).set_params(**clone(dict(parameters), safe=False))
            with contextlib.suppress(Exception):
                made = _plan_of(own, own_x, own_y, own_params, similar)
                if made is not None:
                    asked, plan, digest = made
                    yield Planned(number, asked, plan, every_row[train], digest)


def _plan_of(
    own: Any,
    x: Any,
    y: Any,
    fit_params: Mapping[str, Any],
    similar: dict[str, tuple[TrainingPlan, bytes]],
) -> tuple[NetworkEstimator, TrainingPlan, bytes] | None:
    """Return the plan of an estimator, or of one inside of it, and the digest of its data.

    Args:
        own: the estimator.
        x: inputs.
        y: targets.
        fit_params: what else ``fit`` is given.
        similar: the plans of estimators that differed in other parameters than ``NUMBERS``, by
            these. The checks of the data need not be made again for each number.
    """
    others = None
    if isinstance(own, NetworkEstimator):
        given = own.get_params().items()
        others = repr([(name, value) for name, value in given if name not in own.NUMBERS])
        if others in similar:
            own._validate_params()
            plan, digest = similar[others]
            return own, own._replanned(plan), digest
    try:
        with training_by(_stop_at_the_plan):
            own.fit(x, y, **fit_params)
    except _PlanMade as made:
        digest = _digest(made.plan)
        if others is not None and made.plan.seeded:
            similar[others] = made.plan, digest
        return made.estimator, made.plan, digest
    return None


def _has_network(estimator: Any) -> bool:
    """Return whether an estimator, or one inside of it, trains a network of this library."""
    inner = estimator.get_params().values() if hasattr(estimator, "get_params") else ()
    return any(isinstance(each, NetworkEstimator) for each in (estimator, *inner))


def _digest(plan: TrainingPlan) -> bytes:
    """Return a digest of the data of a plan."""
    digest = hashlib.sha256()
    for array in (*plan.data, *(plan.held_out or ())):
        digest.update(array.tobytes())
        digest.update(str((array.shape, array.dtype)).encode())
    return digest.digest()


def _name(plan: TrainingPlan, digest: bytes) -> Hashable:
    """Return everything that decides the result of a plan, except for the number of epochs.

    Without a fixed random state, any seed will do.
    """
    seed = plan.seed if plan.seeded else None
    how = plan.net, plan.task.loss, plan.task.outputs, plan.rule, plan.batch_size, plan.ending
    return *how, plan.shuffle, seed, digest


# ── Data ────────────────────────────────────────────────────────────────────────────────────────


def _put_together(group: Sequence[Planned], count: int) -> tuple[Batch, dict[bytes, Places]]:
    """Return the rows of all plans as one set of data, and where those of each plan are in it.

    The splits of a search are parts of the same N rows, which are kept once. A transformer that is
    trained on each split may change them; the rows of each split are then kept for themselves. So
    are those that are held out.
    """
    distinct = {planned.digest: planned for planned in group}
    whole = [_merged(list(distinct.values()), count, field) for field in (0, 1)]
    if any(field is None for field in whole):
        pieces = [planned.plan.data for planned in distinct.values()]
        rows = _consecutive(0, pieces)
    else:
        pieces = [(*whole, np.ones(count))]  # type: ignore[arg-type]
        rows = [planned.rows for planned in distinct.values()]
    held_out: list[Any] = [planned.plan.held_out for planned in distinct.values()]
    places: list[Any] = [None] * len(distinct)
    if held_out[0] is not None:
        places = _consecutive(sum(len(x) for x, *_ in pieces), held_out)
        pieces += held_out
    x, target, weights = (np.concatenate(field) for field in zip(*pieces, strict=True))
    data = Batch(x, target, weights.astype(np.float32))
    return data, dict(zip(distinct, zip(rows, places, strict=True), strict=True))


def _consecutive(start: int, pieces: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Return the numbers of the rows of pieces that follow each other."""
    ends = start + np.cumsum([len(x) for x, *_ in pieces])
    return [np.arange(end - len(x), end) for end, (x, *_) in zip(ends, pieces, strict=True)]


def _merged(distinct: Sequence[Planned], count: int, field: int) -> np.ndarray | None:
    """Put the rows of all splits in their places among N; None if two differ about a row."""
    one = distinct[0].plan.data[field]
    whole, seen = np.zeros((count, *one.shape[1:]), one.dtype), np.zeros(count, bool)
    for planned in distinct:
        own, known = planned.plan.data[field], seen[planned.rows]
        if len(own) != len(known) or not np.array_equal(own[known], whole[planned.rows[known]]):
            return None
        whole[planned.rows], seen[planned.rows] = own, True
    return whole
