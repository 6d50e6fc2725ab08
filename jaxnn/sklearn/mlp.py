"""Multilayer perceptrons, and networks of any other kind, as classifier and regressor."""

import functools
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from jaxnn.losses import MeanSquaredError, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from jaxnn.programs import compiled
from jaxnn.sklearn.network import NetworkEstimator
from jaxnn.sklearn.plans import Task
from jaxnn.types import Layer, Loss


class MLPClassifier(ClassifierMixin, NetworkEstimator):
    """A multilayer perceptron, or another network, that classifies.

    The parameters that scikit-learn's ``MLPClassifier`` has too mean the same here. The loss is the
    cross-entropy: of one logit for two classes, of K logits for K classes, and of one logit for
    each label if a row has several labels.

    Args:
        hidden_layer_sizes: the sizes of the hidden layers.
        activation: "relu", "tanh", "logistic" or "identity".
        network: any network of this library, whose output is the logits, instead of a perceptron
            of these sizes.
        loss: a loss of this library, instead of the cross-entropy.
        optimizer: the name of an optimizer of optax that takes a learning rate, "sgd" for that with
            Nesterov's momentum, or an optimizer of optax itself.
        alpha: the strength of the L2 penalty on the weights.
        batch_size: the rows of a minibatch; "auto" for 200, or all rows if there are fewer.
        learning_rate_init: the learning rate.
        momentum: that of "sgd".
        max_iter: the number of passes through the data at most.
        shuffle: whether to draw a new order of the rows for each pass.
        random_state: the seed of the parameters, the shuffles and the rows that are held out.
        tol: what an improvement has to exceed.
        verbose: whether to show a progress bar.
        warm_start: whether ``fit`` continues from the parameters that it reached before.
        early_stopping: whether to hold out rows, and to stop when their score improves no more; the
            result then has the parameters of the best pass.
        validation_fraction: the part of the rows to hold out.
        n_iter_no_change: the number of passes to wait for an improvement.
        class_weight: "balanced", or a dict of the weights of the classes.

    Attributes:
        classes_: the labels, in the order of the probabilities.
        loss_curve_: the mean loss of each pass.
        coefs_, intercepts_: the weights and biases.
        network_, params_: the network, and its parameters as a pytree.
        n_iter_, loss_, best_loss_, validation_scores_, n_features_in_: as in scikit-learn.
    """

    _parameter_constraints = NetworkEstimator._parameter_constraints | {
        "class_weight": [dict, StrOptions({"balanced"}), list, None]
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        network: Layer | None = None,
        loss: Loss | None = None,
        optimizer: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        momentum: float = 0.9,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: float = 10,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, activation, network=network, loss=loss, optimizer=optimizer,
            alpha=alpha, batch_size=batch_size, learning_rate_init=learning_rate_init,
            momentum=momentum, max_iter=max_iter, shuffle=shuffle, random_state=random_state,
            tol=tol, verbose=verbose, warm_start=warm_start, early_stopping=early_stopping,
            validation_fraction=validation_fraction, n_iter_no_change=n_iter_no_change,
        )  # fmt: skip
        self.class_weight = class_weight

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on inputs X (n, I) and labels y (n,), or (n, K) of zeros and ones."""
        resume = self.warm_start and hasattr(self, "classes_")
        x, y = self._checked(X, y, reset=not resume)
        check_classification_targets(y)
        found = self._classes_in(y)
        if not resume:
            self.classes_ = found
        elif set(found) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous "
                f"call to fit. Previously got {self.classes_}, `y` has {found}"
            )
        self._learn(x, y, sample_weight, epochs=self.max_iter, resume=resume, stop=True)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Make one pass through data; the first call has to be given all ``classes``."""
        first = not hasattr(self, "classes_")
        x, y = self._checked(X, y, reset=first)
        check_classification_targets(y)
        if first:
            multilabel = type_of_target(y).startswith("multilabel")
            if classes is None and not multilabel:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self.classes_ = self._classes_in(y) if multilabel else np.unique(classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{self.classes_!r}"
            )
        if unknown := sorted(set(self._classes_in(y)) - set(self.classes_)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {unknown}."
            )
        self._learn(x, y, sample_weight, epochs=1, resume=not first, stop=False)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits, (n,) for two classes, otherwise (n, K)."""
        check_is_fitted(self)
        logits = self._outputs(self._rows(X))
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, (n, K)."""
        check_is_fitted(self)
        p = self._outputs(self._rows(X), then=functools.partial(_probabilities, self._task_loss()))
        if self._multilabel or p.shape[1] > 1:
            return p
        return np.hstack([1 - p, p])[:, : len(self.classes_)] if len(self.classes_) > 1 else 1 - p

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the probabilities."""
        return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable labels, (n,), or (n, K) of zeros and ones."""
        p = self.predict_proba(X)
        return (p > 0.5).astype(int) if self._multilabel else self.classes_[p.argmax(axis=1)]

    def _classes_in(self, y: np.ndarray) -> np.ndarray:
        return np.arange(y.shape[1]) if y.ndim == 2 and y.shape[1] > 1 else np.unique(y)

    def _learn(self, x: np.ndarray, y: np.ndarray, sample_weight: Any, **how: Any) -> None:
        weights = _check_sample_weight(sample_weight, x, ensure_non_negative=True)
        self._multilabel = y.ndim == 2 and type_of_target(y).startswith("multilabel")
        if self._multilabel:
            target, strata = np.asarray(y), None
        else:
            y = column_or_1d(y, warn=True)
            target = strata = np.searchsorted(self.classes_, y)
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, y)
        outputs = len(self.classes_)
        if not self._multilabel and outputs <= 2:
            outputs, target = 1, target[:, None]
        scale = float(outputs) if self._multilabel else 1.0
        if outputs == 1 or self._multilabel:
            target = target.astype(x.dtype)
        task = Task(self._task_loss(), outputs, target, scale, "accuracy")
        self._train(x, task, weights.astype(x.dtype), strata=strata, **how)

    def _task_loss(self) -> Any:
        if self.loss is not None:
            return self.loss
        single = self._multilabel or len(self.classes_) <= 2
        return SigmoidBinaryCrossEntropy() if single else SoftmaxCrossEntropy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@compiled(settings=1)
def _probabilities(loss: Any, outputs: Any) -> Any:
    return loss.probabilities(outputs)


class MLPRegressor(RegressorMixin, NetworkEstimator):
    """A multilayer perceptron, or another network, that predicts one or more numbers.

    The parameters, but for ``class_weight``, and the attributes are those of
    :class:`MLPClassifier`. The loss is half of the squared error, summed over the numbers of a row.
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on inputs X (n, I) and numbers y (n,) or (n, O)."""
        resume = self.warm_start and hasattr(self, "n_outputs_")
        x, y = self._checked(X, y, reset=not resume)
        self._learn(x, y, sample_weight, epochs=self.max_iter, resume=resume, stop=True)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Make one pass through data."""
        resume = hasattr(self, "n_outputs_")
        x, y = self._checked(X, y, reset=not resume)
        self._learn(x, y, sample_weight, epochs=1, resume=resume, stop=False)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the predicted numbers, (n,) or (n, O)."""
        check_is_fitted(self)
        outputs = self._outputs(self._rows(X))
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def _learn(self, x: np.ndarray, y: np.ndarray, sample_weight: Any, **how: Any) -> None:
        weights = _check_sample_weight(sample_weight, x, ensure_non_negative=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        target = y.astype(x.dtype).reshape(len(x), -1)
        loss = MeanSquaredError() if self.loss is None else self.loss
        task = Task(loss, target.shape[1], target, target.shape[1] / 2, "r2")
        self._train(x, task, weights.astype(x.dtype), **how)
