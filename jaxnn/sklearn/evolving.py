"""Population-based training: hyperparameters that change while a population trains.

M members, R rounds. Source: Jaderberg et al., "Population Based Training of Neural Networks", 2017.
"""

import math
import numbers
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_method_params, _num_samples, indexable

from jaxnn.checks import InputError
from jaxnn.sklearn.network import NetworkEstimator
from jaxnn.sklearn.saving import Saved, name_of
from jaxnn.sklearn.together import Together, placed, plans, train_planned, training_by
from jaxnn.training.checkpoint import Checkpoints
from jaxnn.training.loop import TrainingInterrupted
from jaxnn.training.members import Member

VARIED = ("alpha", "learning_rate_init", "momentum")  # arguments of the program of a population
MOST_MOMENTUM = 0.999  # a factor may not lead beyond it


class PopulationBasedTraining(BaseSearchCV):
    """A search that changes hyperparameters while it trains, in one program for all members.

    All members train for some passes, and are scored on rows that are held out. Each of the worst
    then goes on from the parameters of one of the best (exploit), with its hyperparameters changed
    a little (explore). What is found is a schedule of hyperparameters, and the network that was
    trained by it.

    The members make ``max_iter`` passes in all, as the estimator says, without early stopping.

    Args:
        estimator: an ``MLPClassifier`` or ``MLPRegressor`` of this library whose ``optimizer`` is a
            name, or a pipeline with one.
        param_distributions: for some of alpha, learning_rate_init and momentum, a list of values,
            or a distribution that has a method ``rvs``.
        n_members: M.
        interval: the passes through the data from one exchange to the next.
        quantile: the part of the members that is replaced, and of those that take their place.
        perturbation: the factors of which one is applied to a hyperparameter that is explored. One
            from a list goes to the value before or after it in the list.
        resample_probability: the probability with which it is drawn anew instead.
        validation_fraction: the part of the rows that is held out.
        scoring: a scorer or its name; None for the estimator's own.
        random_state: the seed of everything that is drawn.
        progress: whether to show a progress bar; None to show it on a terminal and in a notebook.
        checkpoint: a folder, or :class:`jaxnn.Checkpoints`, in which the population is saved after
            each exchange; a run that was killed and is started again goes on from there. It
            requires a number as ``random_state``.

    Attributes:
        best_estimator_: the best member as it is at the end. It does not know the rows held out.
        best_score_, best_index_, best_params_: its score, number and last hyperparameters.
        schedule_: the hyperparameters by which it was trained: for each round the passes made at
            its end, and the hyperparameters.
        history_: arrays of all rounds: "epochs" (R,), the passes made at the end of each; "score"
            (R, M); "parent" (R, M), the member from which each had its parameters at the beginning;
            and "param_…" (R, M), its hyperparameters.
        cv_results_: the members at the end, as in ``GridSearchCV``, with the rows held out as the
            only split.
        scorer_, n_features_in_, classes_: as in ``GridSearchCV``.
    """

    # what the base class reads; there is one split, and nothing is trained again
    refit, cv, n_jobs, verbose, error_score = True, None, None, 0, np.nan
    pre_dispatch, return_train_score = None, False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit"])],
        "param_distributions": [dict],
        "n_members": [Interval(numbers.Integral, 2, None, closed="left")],
        "interval": [Interval(numbers.Integral, 1, None, closed="left")],
        "quantile": [Interval(numbers.Real, 0, 0.5, closed="right")],
        "perturbation": ["array-like"],
        "resample_probability": [Interval(numbers.Real, 0, 1, closed="both")],
        "validation_fraction": [Interval(numbers.Real, 0, 1, closed="neither")],
        "scoring": BaseSearchCV._parameter_constraints["scoring"],
        "random_state": ["random_state"],
        "progress": ["boolean", None],
        "checkpoint": [str, os.PathLike, Checkpoints, None],
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_members: int = 16,
        interval: int = 5,
        quantile: float = 0.25,
        perturbation: Any = (0.8, 1.25),
        resample_probability: float = 0.25,
        validation_fraction: float = 0.2,
        scoring: Any = None,
        random_state: Any = None,
        progress: bool | None = None,
        checkpoint: Any = None,
    ) -> None:
        self.estimator, self.param_distributions = estimator, param_distributions
        self.n_members, self.interval, self.quantile = n_members, interval, quantile
        self.perturbation, self.resample_probability = perturbation, resample_probability
        self.validation_fraction, self.scoring = validation_fraction, scoring
        self.random_state, self.progress, self.checkpoint = random_state, progress, checkpoint

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Train the population.

        Args:
            X: inputs, n rows.
            y: targets.
            **params: for the estimator's ``fit``, such as ``sample_weight``.

        Raises:
            InputError: for hyperparameters that can't change during training, factors that are not
                positive, or checkpoints that are those of another search.
            ValueError: if the loss of every member is not finite.
            TrainingInterrupted: for an interrupt from the keyboard. Its ``result`` is this object,
                with what it has found in the rounds until then.
        """
        self._validate_params()
        prefix = self._checked_prefix()
        self.scorer_, self.multimetric_ = check_scoring(self.estimator, self.scoring), False
        X, y = indexable(X, y)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rows = self._split(X, y, seed)
        population = _Population(self, prefix, seed, X, y, rows, params)
        try:
            for _ in population.rounds():
                pass
        except TrainingInterrupted as interrupt:
            if population.scores:
                self._keep(population)
            message = f"{type(self).__name__} was interrupted. What it has found is in .result."
            raise TrainingInterrupted(message, self) from interrupt
        finally:
            population.close()
        self._keep(population)
        return self

    def _checked_prefix(self) -> str:
        """Check the hyperparameters; return what stands before their names in a pipeline."""
        who, given = type(self).__name__, self.param_distributions
        prefixes = {name.rpartition("__")[0] for name in given}
        wrong = [name for name in given if name.rpartition("__")[2] not in VARIED]
        if not given or wrong or len(prefixes) > 1:
            raise InputError(
                f"{who}: expected distributions of {', '.join(VARIED)} of one estimator, "
                f"got {wrong or list(given)}."
            )
        prefix = prefixes.pop()
        inner = self.estimator.get_params().get(prefix) if prefix else self.estimator
        if not isinstance(inner, NetworkEstimator) or not isinstance(inner.optimizer, str):
            got = inner if not isinstance(inner, NetworkEstimator) else "an optimizer of optax"
            raise InputError(
                f"{who}: expected an estimator of this library whose optimizer is a name, "
                f"got {got!r}."
            )
        for name, values in given.items():
            if not hasattr(values, "rvs") and not (
                isinstance(values, Sequence | np.ndarray)
                and len(values)
                and all(isinstance(value, numbers.Real) for value in values)
            ):
                raise InputError(
                    f"{who}: expected {name} to have a list of numbers or a distribution with a "
                    f"method rvs, got {values!r}."
                )
        factors = np.asarray(self.perturbation)
        if factors.ndim != 1 or not len(factors) or not (factors > 0).all():
            raise InputError(f"{who}: expected perturbation as positive factors, got {factors!r}.")
        if self.checkpoint is not None and not isinstance(self.random_state, numbers.Integral):
            raise InputError(
                f"{who}: expected a number as random_state, with which a run that was killed can "
                f"go on from its checkpoint, got {self.random_state!r}."
            )
        return f"{prefix}__" if prefix else ""

    def _split(self, X: Any, y: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the rows to train on, and of those to hold out."""
        classes = is_classifier(self.estimator) and type_of_target(y) in ("binary", "multiclass")
        train, test = train_test_split(
            np.arange(_num_samples(X)),
            test_size=self.validation_fraction,
            random_state=seed,
            stratify=y if classes else None,
        )
        return train, test

    def _keep(self, population: "_Population") -> None:
        """Keep the result of the rounds that were made."""
        scores = np.array(population.scores)
        used, parents = population.used, np.array(population.parents)
        names = list(self.param_distributions)
        self.history_ = {
            "epochs": np.array(population.epochs),
            "score": scores,
            "parent": parents,
            **{f"param_{n}": np.array([[own[n] for own in each] for each in used]) for n in names},
        }
        last = scores[-1]
        self.best_index_ = best_of(last)
        self.best_score_ = float(last[self.best_index_])
        self.best_params_ = dict(used[-1][self.best_index_])
        self.best_estimator_ = population.best_estimator
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_
        member = self.best_index_
        self.schedule_: list[tuple[int, dict[str, float]]] = []
        for epochs, each, parent in zip(
            reversed(population.epochs), reversed(used), reversed(parents), strict=True
        ):
            self.schedule_.insert(0, (epochs, dict(each[member])))
            member = int(parent[member])
        ranks = np.where(np.isfinite(last), -last, np.inf)
        self.cv_results_ = {
            "params": [dict(own) for own in used[-1]],
            **{f"param_{n}": np.ma.array([own[n] for own in used[-1]]) for n in names},
            "split0_test_score": last,
            "mean_test_score": last,
            "std_test_score": np.zeros(len(last)),
            "rank_test_score": 1 + np.array([int((ranks < rank).sum()) for rank in ranks]),
        }


class _Population:
    """A population in training.

    Args:
        search: the search.
        prefix: what stands before the names of the hyperparameters.
        seed: the seed of everything that is drawn.
        X: inputs.
        y: targets.
        rows: the numbers of the rows to train on, and of those that are held out.
        fit_params: what else the estimator's ``fit`` is given.

    Attributes:
        epochs: the passes made at the end of each round.
        scores: the scores of the members then.
        parents: the members from which they had their parameters at the beginning of each round.
        used: their hyperparameters in each round.
        best_estimator: the best one at the end of the last round.
    """

    def __init__(
        self,
        search: PopulationBasedTraining,
        prefix: str,
        seed: int,
        X: Any,
        y: Any,
        rows: tuple[np.ndarray, np.ndarray],
        fit_params: Mapping[str, Any],
    ) -> None:
        self._search, self._who, self._seed = search, type(search).__name__, seed
        self._prefix, self._fit_params = prefix, _check_method_params(X, fit_params, rows[0])
        self._train = _safe_split(search.estimator, X, y, rows[0])
        self._test = _safe_split(search.estimator, X, y, rows[1], rows[0])
        self.best_estimator: Any = None
        self.epochs: list[int] = []
        self.scores: list[list[float]] = []
        self.parents: list[list[int]] = []
        self.used: list[list[dict[str, float]]] = []
        random, count = self._random(0), search.n_members
        self._params = [self._drawn(random) for _ in range(count)]
        self._next_parents = list(range(count))
        fixed = {"n_iter_no_change": math.inf, "early_stopping": False}
        seeds = random.randint(2**31 - 1, size=count).tolist()
        self._fixed = [
            {prefix + name: value for name, value in {**fixed, "random_state": own}.items()}
            for own in seeds
        ]
        candidates = [self._all_params(m) for m in range(count)]
        self._planned = list(plans(search.estimator, candidates, X, y, [rows], fit_params))
        if len(self._planned) < count:  # the estimator says what is wrong
            clone(search.estimator).set_params(**candidates[0]).fit(
                *self._train, **self._fit_params
            )
            raise InputError(f"{self._who}: expected an estimator that can be trained, got none.")
        self._together = Together(self._who, None)
        self._members = []
        for planned in self._planned:
            step, state = self._together.first(planned)
            self._members.append(Member(step, state, np.zeros(0, int), np.zeros(0), 0))
        self._data = placed(self._members, self._planned, _num_samples(X))
        self._saved = None if search.checkpoint is None else Saved(self._who, search.checkpoint)
        self._names = [
            f"{name_of(planned.plan, planned.digest, member)}-{m}"
            for m, (planned, member) in enumerate(zip(self._planned, self._members, strict=True))
        ]
        if self._saved is not None:
            self._take_up(self._saved)

    def rounds(self) -> Iterator[None]:
        """Train, score and exchange, round after round."""
        search, plan = self._search, self._planned[0].plan
        total = plan.epochs
        while (made := self.epochs[-1] if self.epochs else 0) < total:
            until = min(made + search.interval, total)
            for member in self._members:
                member.epochs = until
            best = f", best so far {np.nanmax(self.scores[-1]):.4g}" if self.scores else ""
            number, of = len(self.epochs) + 1, -(-total // search.interval)
            train_planned(
                self._who, self._members, self._data, plan, progress=search.progress,
                title=f"{self._who}, round {number} of {of}{best}",
            )  # fmt: skip
            reached = [self._fitted(m) for m in range(len(self._members))]
            scores = [self._score(estimator) for estimator in reached]
            if not np.isfinite(scores).any():
                raise ValueError(f"{self._who}: the loss or score of every member is not finite.")
            self.best_estimator = reached[best_of(scores)]
            self.scores.append(scores)
            self.epochs.append(until)
            self.used.append([dict(own) for own in self._params])
            self.parents.append(self._next_parents)
            if until < total:
                self._exchange(scores, self._random(number))
            if self._saved is not None:
                self._save(self._saved)
            yield

    def _fitted(self, m: int) -> Any:
        """Return an estimator with what a member has reached, or None if it has failed."""
        estimator = clone(self._search.estimator).set_params(**self._all_params(m))
        member = self._members[m]
        if member.failed:
            return None
        with training_by(lambda *_: member.fit()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it might train for longer
            return estimator.fit(*self._train, **self._fit_params)

    def _score(self, estimator: Any) -> float:
        if estimator is None:
            return math.nan
        return float(self._search.scorer_(estimator, *self._test))

    def close(self) -> None:
        """Let others use the folder of the checkpoints."""
        if self._saved is not None:
            self._saved.close()

    def _random(self, number: int) -> np.random.RandomState:
        """Return the random numbers of a round, which do not depend on the rounds before it."""
        return np.random.RandomState(np.random.MT19937((self._seed, number)))

    def _drawn(self, random: np.random.RandomState) -> dict[str, float]:
        return {
            name: self._draw(values, random)
            for name, values in self._search.param_distributions.items()
        }

    def _draw(self, values: Any, random: np.random.RandomState) -> float:
        if hasattr(values, "rvs"):
            return float(values.rvs(random_state=random))
        return float(values[random.randint(len(values))])

    def _all_params(self, m: int) -> dict[str, Any]:
        return {**self._params[m], **self._fixed[m]}

    def _exchange(self, scores: list[float], random: np.random.RandomState) -> None:
        """Let the worst go on from the best, with other hyperparameters."""
        search, values = self._search, np.where(np.isfinite(scores), scores, -np.inf)
        order = np.argsort(values, kind="stable")
        count = max(1, int(len(order) * search.quantile))
        best = [m for m in order[-count:].tolist() if np.isfinite(values[m])]
        worst = [m for m in order.tolist() if m in order[:count] or not np.isfinite(values[m])]
        self._next_parents = list(range(len(order)))
        for m in worst:
            parent = int(best[random.randint(len(best))])
            if values[m] < values[parent]:
                self._next_parents[m] = parent
                own, other = self._members[m], self._members[parent]
                state = other.state._replace(key=own.state.key)
                own.state, own.records, own.stopped = state, list(other.records), ""
                self._params[m] = self._explored(self._params[parent], random)
                self._set_step(m)

    def _explored(
        self, params: Mapping[str, float], random: np.random.RandomState
    ) -> dict[str, float]:
        """Return hyperparameters that are drawn anew or changed a little."""
        search, found = self._search, {}
        for name, value in params.items():
            values = search.param_distributions[name]
            if random.random_sample() < search.resample_probability:
                found[name] = self._draw(values, random)
            elif hasattr(values, "rvs"):
                factors = np.asarray(search.perturbation, float)
                changed = value * float(factors[random.randint(len(factors))])
                momentum = name.rpartition("__")[2] == "momentum"
                found[name] = min(changed, MOST_MOMENTUM) if momentum else changed
            else:
                place = [float(each) for each in values].index(value)
                place += int(random.choice((-1, 1)))
                found[name] = float(values[min(max(place, 0), len(values) - 1)])
        return found

    def _set_step(self, m: int) -> None:
        """Put the hyperparameters of a member into its step of training."""
        planned, start = self._planned[m], len(self._prefix)
        own = {name[start:]: value for name, value in self._params[m].items()}
        planned.estimator.set_params(**own)
        plan = planned.estimator._replanned(planned.plan)
        step, _ = self._together.first(planned._replace(plan=plan))
        self._members[m].step = step

    # ── Checkpoints ───────────────────────────────────────────────────────────────────────────────

    def _settings(self) -> dict[str, str]:
        """Return what decides the result besides the first plans."""
        names = (
            "interval", "quantile", "perturbation", "resample_probability", "validation_fraction",
        )  # fmt: skip
        return {name: repr(getattr(self._search, name)) for name in names}

    def _save(self, saved: Saved) -> None:
        saved.save(
            dict(zip(self._names, self._members, strict=True)),
            settings=self._settings(), params=self._params, next_parents=self._next_parents,
            epochs=self.epochs, scores=self.scores, parents=self.parents, used=self.used,
        )  # fmt: skip

    def _take_up(self, saved: Saved) -> None:
        """Go on from what was saved."""
        try:
            about = saved.about
            if not about:
                return
            for name, member in zip(self._names, self._members, strict=True):
                saved.restore(name, member, self._planned[0].plan.epochs)
            saved.check_used()
            if about["settings"] != self._settings():
                raise InputError(
                    f"{self._who}: expected a folder with checkpoints of the same settings, "
                    f"got {about['settings']} there and {self._settings()} here."
                )
        except BaseException:
            saved.close()
            raise
        self._params, self._next_parents = about["params"], about["next_parents"]
        self.epochs, self.scores = about["epochs"], about["scores"]
        self.parents, self.used = about["parents"], about["used"]
        for m in range(len(self._members)):
            self._set_step(m)
        self.best_estimator = self._fitted(best_of(self.scores[-1]))


def best_of(scores: Any) -> int:
    """Return the number of the highest score that is finite."""
    return int(np.where(np.isfinite(scores), scores, -np.inf).argmax())
