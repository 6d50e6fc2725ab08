"""The lecture's neurons as classifiers: one neuron for two classes, one for each of more."""

import numbers
import warnings
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxnn.data import with_ones
from jaxnn.neuron import logistic_descent, perceptron_rule
from jaxnn.sklearn.network import precision


class NeuronClassifier(ClassifierMixin, BaseEstimator):
    """The base of classifiers whose classes are separated by hyperplanes, each one by a neuron."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any) -> Self:
        """Train one neuron for each class against all others, or a single one for two classes."""
        x, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in the data, but the "
                f"data contains only one class: {self.classes_[0]!r}"
            )
        against = self.classes_[1:] if len(self.classes_) == 2 else self.classes_
        with precision(x.dtype):
            found = [self._neuron(with_ones(x), (y == label).astype(int)) for label in against]
        theta, counts, ended = map(np.array, zip(*found, strict=True))
        self.coef_, self.intercept_ = theta[:, :-1], theta[:, -1]
        self.n_iter_ = int(counts.max())
        if not all(ended):
            warnings.warn(
                f"{type(self).__name__} has not converged after max_iter={self.max_iter}.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the weighted sums, (n,) for two classes, otherwise (n, K)."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        z = x @ self.coef_.T + self.intercept_
        return z[:, 0] if len(self.classes_) == 2 else z

    def predict(self, X: Any) -> np.ndarray:
        """Return the labels (n,)."""
        z = self.decision_function(X)
        return self.classes_[(z > 0).astype(int) if z.ndim == 1 else z.argmax(axis=1)]

    def _neuron(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, int, bool]:
        """Train one neuron; return its weights, the number of passes, and whether it converged."""
        raise NotImplementedError


class Perceptron(NeuronClassifier):
    """The Perceptron, trained by its own rule (Rosenblatt, 1958), see ``perceptron_rule``.

    Args:
        max_iter: the number of passes through the data at most; it ends earlier once no sample is
            on the wrong side.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "max_iter": [Interval(numbers.Integral, 1, None, closed="left")]
    }

    def __init__(self, *, max_iter: int = 1000) -> None:
        self.max_iter = max_iter

    def _neuron(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, int, bool]:
        run = perceptron_rule(x, y, max_epochs=self.max_iter)
        return np.asarray(run.params.theta), run.epochs, run.converged


class LogisticNeuron(NeuronClassifier):
    """The logistic neuron, trained by gradient descent on all rows, see ``logistic_descent``.

    Args:
        step_size: the step size α.
        tol: the norm of the change of the weights at which to stop.
        max_iter: the number of updates at most.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "step_size": [Interval(numbers.Real, 0, None, closed="neither")],
        "tol": [Interval(numbers.Real, 0, None, closed="neither")],
        "max_iter": [Interval(numbers.Integral, 1, None, closed="left")],
    }

    def __init__(
        self, *, step_size: float = 0.1, tol: float = 5e-5, max_iter: int = 100_000
    ) -> None:
        self.step_size, self.tol, self.max_iter = step_size, tol, max_iter

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities (n, K); for K > 2 each neuron's own, divided by their sum."""
        p = 1 / (1 + np.exp(-np.atleast_2d(self.decision_function(X).T).T))
        return np.hstack([1 - p, p]) if p.shape[1] == 1 else p / p.sum(axis=1, keepdims=True)

    def _neuron(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, int, bool]:
        found = logistic_descent(
            x, y, step_size=self.step_size, threshold=self.tol, max_iterations=self.max_iter
        )
        passes = max(1, int(found.iterations))
        return np.asarray(found.params.theta), passes, bool(found.converged)
