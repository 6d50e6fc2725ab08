"""Training of many estimators together, before each of them is asked to ``fit``.   N rows in all."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.base import clone
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params, _num_samples

from jaxnn.sklearn.network import NetworkEstimator, Plan, Rule, precision
from jaxnn.training.batching import Batch
from jaxnn.training.fit import Fit, can_be_padded
from jaxnn.training.members import Member, train_members
from jaxnn.training.train_step import TrainState, TrainStep, make_step

Parameters = Mapping[str, Any]


class Planned(NamedTuple):
    """One candidate on one split.

    Attributes:
        candidate: the number of the candidate.
        estimator: a clone that has its parameters.
        plan: what its ``fit`` would do.
        rows: the numbers of the rows of the split, (n,).
    """

    candidate: int
    estimator: NetworkEstimator
    plan: Plan
    rows: np.ndarray


class Together:
    """The training of the candidates of a search, in one program for those that can share it.

    Attributes:
        alone: for each candidate that can't be trained with others, the reason.
        seconds: the time that the last training took for each candidate and split.
    """

    def __init__(self) -> None:
        self.alone: dict[int, str] = {}
        self.seconds = 0.0
        self.interrupted = False
        self._members: dict[Hashable, Member] = {}
        self._steps: dict[Hashable, tuple[TrainStep, TrainState]] = {}

    def train(
        self,
        estimator: Any,
        candidates: Sequence[Parameters],
        X: Any,
        y: Any,
        splits: Sequence[tuple[np.ndarray, np.ndarray]],
        fit_params: Mapping[str, Any],
        progress: bool | None,
    ) -> None:
        """Train all candidates on the training rows of all splits.

        Those that were trained before, for fewer epochs, continue from where they were.

        Raises:
            TrainingInterrupted: for an interrupt from the keyboard; what was trained is kept.
        """
        began = time.perf_counter()
        self.alone = {}
        if not isinstance(estimator, NetworkEstimator):
            reason = f"the estimator is a {type(estimator).__name__}"
            self.alone = dict.fromkeys(range(len(candidates)), reason)
            return
        groups = defaultdict(list)
        for planned in self._planned(estimator, candidates, X, y, splits, fit_params):
            if planned.plan.held_out is not None:
                self.alone[planned.candidate] = "early_stopping=True holds out rows"
            else:
                groups[self._program(planned)].append(planned)
        self.interrupted = True  # until all groups are trained
        for group in groups.values():
            self._train_group(group, _num_samples(X), progress)
        self.interrupted = False
        self.seconds = (time.perf_counter() - began) / (len(candidates) * len(splits))

    def result(self, estimator: NetworkEstimator, plan: Plan) -> Fit | None:
        """Return the result of a plan; None if it was not trained, or failed.

        A run that failed is then made once more, alone, so that the error is the estimator's own.
        """
        member = self._members.get(_fingerprint(estimator, plan))
        if self.interrupted and (member is None or not member.losses):
            raise RuntimeError("the search was interrupted before this candidate was trained")
        if member is None or member.failed:
            return None
        ended = member.stopped or len(member.losses) == plan.epochs or self.interrupted
        return member.fit() if ended and len(member.losses) <= plan.epochs else None

    def _planned(
        self,
        estimator: Any,
        candidates: Sequence[Parameters],
        X: Any,
        y: Any,
        splits: Sequence[tuple[np.ndarray, np.ndarray]],
        fit_params: Mapping[str, Any],
    ) -> list[Planned]:
        """Return the plans, without those that fail; ``fit`` will raise their errors again."""
        every_row, found = np.arange(_num_samples(X)), []
        for train, _ in splits:
            own_x, own_y = _safe_split(estimator, X, y, train)
            own_params = _check_method_params(X, params=fit_params, indices=train)
            for number, parameters in enumerate(candidates):
                own = clone(estimator).set_params(**clone(parameters, safe=False))
                try:
                    own._validate_params()
                    plan = own._plan_fit(own_x, own_y, **own_params)
                    planned = Planned(number, own, plan, every_row[train])
                    self._step(planned)
                except Exception:
                    continue
                found.append(planned)
        return found

    def _step(self, planned: Planned) -> tuple[TrainStep, TrainState]:
        """Return the step and the first state of a plan, which many plans have in common."""
        plan = planned.plan
        x = plan.data[0]
        known = plan.net, plan.task.loss, plan.task.outputs, plan.rule, plan.seed, x.shape[1:], x.dtype
        if known not in self._steps:
            with precision(x.dtype):
                state = planned.estimator._first_state(plan)
                step = make_step("fit", plan.net, plan.task.loss, plan.rule.optimizer(), "hand", None)
                key = state.key
                state = jax.device_get(state._replace(key=None))._replace(key=key)
                self._steps[known] = step.hoist("fit", state), state
        return self._steps[known]

    def _program(self, planned: Planned) -> Hashable:
        """Return everything that members have to have in common to share a program."""
        plan = planned.plan
        step, _ = self._step(planned)
        n, padded = len(plan.data[0]), can_be_padded(plan.net)
        member = self._members.get(_fingerprint(planned.estimator, plan))
        return (
            jax.tree.structure(step), plan.data[0].dtype, plan.batch_size, plan.shuffle,
            -(-n // plan.batch_size), None if padded else n, member and len(member.losses),
            str(getattr(planned.estimator, "classes_", None)),
        )  # fmt: skip

    def _train_group(self, group: Sequence[Planned], rows: int, progress: bool | None) -> None:
        """Train members that share a program."""
        first = group[0].plan
        x, target, weights = (_all_rows(group, rows, field) for field in range(3))
        members = {}
        for planned in group:
            plan = planned.plan
            name = _fingerprint(planned.estimator, plan)
            if name not in self._members:
                weights = np.zeros(rows, plan.data[2].dtype)
                weights[planned.rows] = plan.data[2]
                step, state = self._step(planned)
                self._members[name] = Member(
                    step, state, planned.rows, weights, plan.epochs, plan.ending
                )
            members[name] = self._members[name]
            members[name].epochs = plan.epochs
        going = [member for member in members.values() if member.active]
        if going:
            with precision(x.dtype):
                train_members(
                    "PopulationSearchCV",
                    going,
                    Batch(x, target, weights),
                    first.batch_size,
                    shuffle=first.shuffle,
                    pad_rows=can_be_padded(first.net),
                    progress=progress,
                )


def _all_rows(group: Sequence[Planned], rows: int, field: int) -> np.ndarray:
    """Put the rows of all splits in their places; rows of no split remain 0."""
    one = group[0].plan.data[field]
    whole = np.zeros((rows, *one.shape[1:]), one.dtype)
    for number in {id(each.rows): each for each in group}.values():
        whole[number.rows] = number.plan.data[field]
    return whole


def _fingerprint(estimator: NetworkEstimator, plan: Plan) -> Hashable:
    """Return everything that decides the result of a plan, except for the number of epochs.

    Without a fixed random state, any seed will do.
    """
    task = plan.task
    target = task.target
    digest = hashlib.blake2b(digest_size=16)
    for array in (*plan.data, target):
        digest.update(np.ascontiguousarray(array))
        digest.update(str((array.shape, array.dtype)).encode())
    return (
        plan.net, task.loss, task.outputs, plan.rule, plan.batch_size, plan.ending, plan.shuffle,
        None if estimator.random_state is None else plan.seed, digest.digest(),
    )  # fmt: skip
