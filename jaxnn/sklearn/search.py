"""Searches over hyperparameters, which train all candidates on all splits together."""

import functools
import math
import numbers
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import ParameterGrid, ParameterSampler, check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._search_successive_halving import BaseSuccessiveHalving
from sklearn.utils._param_validation import Interval, StrOptions

from jaxnn.sklearn.saving import Saved
from jaxnn.sklearn.together import Together, training_by
from jaxnn.training.checkpoint import Checkpoints
from jaxnn.training.loop import TrainingInterrupted

# The part of the epochs after which halving first looks. For 18 of 20 seeds of 64 candidates on
# digits, the winner after 54 epochs was among the best fifth after 4, or the best quarter after 6;
# for 16, among the best sixth after 9.
FIRST_PART = 13


class PopulationSearch(BaseSearchCV):
    """The base of the searches: what scikit-learn's search does, after training in advance.

    scikit-learn's search splits the rows, asks each candidate to ``fit``, scores it, and makes the
    table of results. Here, all candidates are trained as soon as the rows are split, so that
    ``fit`` only takes the result.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = BaseSearchCV._parameter_constraints | {
        "param_grid": [dict, list],
        "n_iter": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "progress": ["boolean", None],
        "checkpoint": [str, os.PathLike, Checkpoints, None],
    }

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Train and score all candidates; then train the best one on all rows.

        Args:
            X: inputs, n rows.
            y: targets.
            **params: for the estimator's ``fit``, the splitter and the scorer, as in scikit-learn.

        Raises:
            TrainingInterrupted: for an interrupt from the keyboard. Its ``result`` is this search,
                with the scores of what was trained until then.
            InputError: for checkpoints that are those of another search.
        """
        self._validate_params()
        who = type(self).__name__
        saved = None if self.checkpoint is None else Saved(who, self.checkpoint)
        self._together = Together(who, self.progress, saved)
        self._seconds: list[float] = []
        self._fit_params: Mapping[str, Any] = {}
        self._best: float | None = None  # the best score of the iterations so far
        try:
            return super().fit(X, y, **params)
        finally:
            if saved is not None:
                saved.close()
            del self._together, self._seconds, self._fit_params, self._best

    def _generate_candidate_params(self) -> list[Mapping[str, Any]]:
        """Return the candidates: the whole grid, or ``n_iter`` samples of it."""
        if self.n_iter is None:
            return list(ParameterGrid(self.param_grid))
        return list(ParameterSampler(self.param_grid, self.n_iter, random_state=self.random_state))

    def _get_routed_params_for_fit(self, params: Any) -> Any:
        routed = super()._get_routed_params_for_fit(params)
        self._fit_params = routed.estimator.fit
        return routed

    def _evaluate(
        self,
        evaluate_candidates: Callable[..., Any],
        candidates: Iterable[Mapping[str, Any]],
        cv: Any = None,
        **how: Any,
    ) -> Any:
        """Evaluate candidates that are trained in advance."""
        candidates = list(candidates)
        if not candidates:
            raise ValueError(f"{type(self).__name__}: expected at least one candidate, got none.")
        train = functools.partial(self._train, candidates)
        # scikit-learn 1.6 does not keep the splitter that it has made of ``cv``
        cv = cv or getattr(self, "_checked_cv_orig", self.cv)
        splitter = TrainingSplitter(cv, is_classifier(self.estimator), train)
        try:
            with training_by(self._together.result):
                results = evaluate_candidates(candidates, splitter, **how)
        except Exception as error:  # as where error_score="raise", and some were not trained
            if splitter.interrupt is None:
                raise
            message = f"{type(self).__name__} was interrupted before it had scores."
            raise TrainingInterrupted(message, self) from error
        self._seconds += [self._together.seconds] * len(candidates)
        results["mean_fit_time"] += np.array(self._seconds)
        scores = results.get("mean_test_score", np.array([np.nan]))
        if np.isfinite(scores).any():
            self._best = float(np.nanmax(scores))
        if splitter.interrupt is not None:
            self._hand_over(results, splitter.interrupt)
        return results

    def _train(
        self, candidates: Sequence[Mapping[str, Any]], X: Any, y: Any, splits: Sequence[Any]
    ) -> None:
        together = self._together
        best = "" if self._best is None else f", best so far {self._best:.4g}"
        together.train(self.estimator, candidates, X, y, splits, self._fit_params, best)
        self.trained_alone_ = together.alone
        if together.alone:
            reasons = ", ".join(sorted(set(together.alone.values())))
            warnings.warn(
                f"{type(self).__name__}: {len(together.alone)} of {len(candidates)} candidates are "
                f"trained alone: {reasons}.",
                stacklevel=2,
            )

    def _hand_over(self, results: Any, interrupt: TrainingInterrupted) -> None:
        """Keep what an interrupted search has found, and raise the interrupt again."""
        self.cv_results_ = results
        metric = self.refit if isinstance(self.refit, str) else "score"
        if f"rank_test_{metric}" in results:
            self.best_index_ = self._select_best_index(self.refit, metric, results)
            self.best_params_ = results["params"][self.best_index_]
            self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
        message = f"{type(self).__name__} was interrupted. What it has found is in .result."
        raise TrainingInterrupted(message, self) from interrupt


class TrainingSplitter:
    """A splitter that has the candidates trained on its splits before it returns them.

    Args:
        cv: the splitter, or what ``check_cv`` makes one of.
        classifier: whether the estimator is a classifier, so that splits are stratified.
        train: a function of X, y and the splits.

    Attributes:
        interrupt: the interrupt that ended the training, or None.
    """

    def __init__(
        self, cv: Any, classifier: bool, train: Callable[[Any, Any, Sequence[Any]], None]
    ) -> None:
        self._cv, self._classifier, self._train = cv, classifier, train
        self.interrupt: TrainingInterrupted | None = None

    def split(self, X: Any, y: Any = None, **params: Any) -> Sequence[Any]:
        """Return the splits of the rows, after training."""
        cv = check_cv(self._cv, y, classifier=self._classifier)
        splits = list(cv.split(X, y, **params))
        try:
            self._train(X, y, splits)
        except TrainingInterrupted as interrupt:
            self.interrupt = interrupt
        return splits


class PopulationSearchCV(PopulationSearch):
    """A search over a grid or over samples of hyperparameters, trained together.

    The results are those of ``GridSearchCV``, or of ``RandomizedSearchCV``, up to rounding. All
    candidates and splits whose networks, optimizers and batches have the same form train in one
    program. They may differ in numbers such as ``learning_rate_init``, ``alpha``, ``momentum``,
    ``max_iter``, ``tol`` and ``random_state``; and in the widths of their hidden layers, where to
    train them as one wider network takes less time than to compile a program for each width
    (:mod:`jaxnn.sklearn.widening`). Others form several such groups, and what can't be trained in
    this way is trained by the estimator's own ``fit``, with a warning.

    Args:
        estimator: an ``MLPClassifier`` or ``MLPRegressor`` of this library, or a pipeline with one.
        param_grid: the lists of values for each parameter, or several such dicts; with ``n_iter``
            also distributions that have a method ``rvs``.
        n_iter: the number of candidates to sample; None for the whole grid.
        scoring: as in ``GridSearchCV``, and also the next four.
        refit: see there.
        cv: see there.
        error_score: see there.
        return_train_score: see there.
        verbose: see there.
        random_state: the seed of the samples.
        progress: whether to show a progress bar; None to show it on a terminal and in a notebook.
        checkpoint: a folder, or :class:`jaxnn.Checkpoints`, in which what is trained is saved after
            each epoch. A search that was killed and is started again goes on from there, to the
            same ``cv_results_``. What is trained alone, or on all rows in the end, is trained anew.

    Attributes:
        cv_results_, best_index_, best_params_, best_score_, best_estimator_, scorer_, n_splits_,
            refit_time_, multimetric_: as in ``GridSearchCV``. The times of ``fit`` are equal parts
            of the time of the common training.
        trained_alone_: for each candidate that was trained alone, the reason.
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        n_iter: int | None = None,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        verbose: int = 0,
        random_state: Any = None,
        progress: bool | None = None,
        checkpoint: Any = None,
    ) -> None:
        super().__init__(
            estimator, scoring=scoring, refit=refit, cv=cv, verbose=verbose,
            error_score=error_score, return_train_score=return_train_score,
        )  # fmt: skip
        self.param_grid, self.n_iter = param_grid, n_iter
        self.random_state, self.progress, self.checkpoint = random_state, progress, checkpoint

    def _run_search(self, evaluate_candidates: Callable[..., Any]) -> None:
        self._evaluate(evaluate_candidates, self._generate_candidate_params())


class PopulationHalvingSearchCV(PopulationSearch, BaseSuccessiveHalving):
    """Successive halving on epochs, trained together.

    All candidates train for a few epochs, the best part of them continues for ``factor`` times as
    many, and so on; those of the last iteration continue to ``max_resources``. Each candidate
    continues from the state that it has reached, in fewer blocks of members. Apart from that it is
    scikit-learn's ``HalvingGridSearchCV`` with ``resource="max_iter"``. By default there are two
    iterations: candidates that are nearly as good as each other change places from epoch to epoch,
    so that each further iteration may lose the best one, and it is better to look early and keep
    more. Of candidates that are as good as each other in the end, the first of the grid is the best
    one, as in :class:`PopulationSearchCV`.

    Args:
        estimator: an ``MLPClassifier`` or ``MLPRegressor`` of this library, or a pipeline with one.
        param_grid: as in :class:`PopulationSearchCV`, without ``max_iter``.
        n_iter: see there.
        resource: the name of the number of epochs, such as "mlpclassifier__max_iter" in a pipeline.
        factor: the number of candidates of which one is kept after each iteration.
        max_resources: the number of epochs of the last iteration; "auto" for the estimator's
            ``max_iter``.
        min_resources: the number of epochs of the first iteration; "auto" for a thirteenth of
            ``max_resources``, "smallest" for 1, "exhaust" for as many as make the numbers of all
            iterations powers of ``factor`` apart.
        aggressive_elimination: as in ``HalvingGridSearchCV``, and also the next five.
        scoring: see there.
        refit: see there.
        cv: see there; the splits have to be the same in each iteration.
        error_score: see there.
        return_train_score: see there.
        verbose: see there.
        random_state: the seed of the samples.
        progress: as in :class:`PopulationSearchCV`, and also ``checkpoint``.
        checkpoint: see there.

    Attributes:
        n_resources_, n_candidates_, n_iterations_, n_remaining_candidates_, min_resources_,
            max_resources_: as in ``HalvingGridSearchCV``; ``cv_results_`` has "iter" and
            "n_resources" of each candidate.
        trained_alone_: as in :class:`PopulationSearchCV`, for the last iteration.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = (
        PopulationSearch._parameter_constraints
        | BaseSuccessiveHalving._parameter_constraints
        | {
            "factor": [Interval(numbers.Real, 1, None, closed="neither")],
            "min_resources": [
                Interval(numbers.Integral, 1, None, closed="left"),
                StrOptions({"auto", "smallest", "exhaust"}),
            ],
        }
    )

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        n_iter: int | None = None,
        resource: str = "max_iter",
        factor: float = 5,
        max_resources: int | str = "auto",
        min_resources: int | str = "auto",
        aggressive_elimination: bool = False,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = 5,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        verbose: int = 0,
        random_state: Any = None,
        progress: bool | None = None,
        checkpoint: Any = None,
    ) -> None:
        BaseSuccessiveHalving.__init__(
            self, estimator, scoring=scoring, refit=refit, cv=cv, verbose=verbose,
            random_state=random_state, error_score=error_score,
            return_train_score=return_train_score, max_resources=max_resources,
            min_resources=min_resources, resource=resource, factor=factor,
            aggressive_elimination=aggressive_elimination,
        )  # fmt: skip
        self.param_grid, self.n_iter = param_grid, n_iter
        self.progress, self.checkpoint = progress, checkpoint

    def _check_input_parameters(self, X: Any, y: Any, split_params: Any) -> None:
        most: Any = self.max_resources  # type: ignore[has-type]
        first: Any = self.min_resources  # type: ignore[has-type]
        known = self.estimator.get_params()
        if most == "auto" and self.resource in known:
            self.max_resources = known[self.resource]
        if first == "auto":
            whole = isinstance(self.max_resources, numbers.Integral)
            self.min_resources = max(1, self.max_resources // FIRST_PART) if whole else 1
        try:
            super()._check_input_parameters(X, y, split_params)
        finally:
            self.max_resources, self.min_resources = most, first

    def _select_best_index(self, refit: Any, refit_metric: str, results: Any) -> Any:
        best = super()._select_best_index(refit, refit_metric, results)
        scores, last = results["mean_test_score"], results["iter"] == max(results["iter"])
        tied = np.flatnonzero(last & (scores == scores[best]))
        own = [{**params, self.resource: None} for params in results["params"]]
        return min(tied, key=lambda row: own.index(own[row]), default=best)

    def _run_search(
        self, evaluate_candidates: Callable[..., Any], callback_ctx: Any = None
    ) -> None:
        def evaluate(
            candidates: Sequence[Mapping[str, Any]], cv: Any, *, more_results: Any, **how: Any
        ) -> Any:
            """Evaluate the candidates of an iteration, after all epochs if it is the last one."""
            if more_results["iter"][0] + 1 == self._number_of_iterations():
                most = self.max_resources_
                candidates = [{**candidate, self.resource: most} for candidate in candidates]
                more_results = {**more_results, "n_resources": [most] * len(candidates)}
                self.n_resources_[-1] = most
            how["more_results"] = more_results
            return self._evaluate(evaluate_candidates, candidates, cv, **how)

        # scikit-learn has callbacks from version 1.9 on
        context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
        super()._run_search(evaluate, **context)

    def _number_of_iterations(self) -> int:
        """Return ``n_iterations_``, which scikit-learn sets only after the last iteration."""
        required = math.floor(math.log(self.n_candidates_[0], self.factor))
        possible = math.floor(math.log(self.max_resources_ // self.min_resources_, self.factor))
        return 1 + (required if self.aggressive_elimination else min(required, possible))
