"""Metrics by scikit-learn's definitions, as sums over batches where they are such sums.

Each is a pair: ``measure`` runs inside the compiled program, on one batch, and gives statistics;
``result`` takes those of all batches to a number. B rows a batch, K classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxnn.checks import InputError
from jaxnn.losses import (
    BinaryCrossEntropy,
    Hinge,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    PerceptronCriterion,
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
)
from jaxnn.types import Loss


class Metric(Protocol):
    """A number that says how good predictions are."""

    def measure(self, loss: Loss, prediction: Array, target: Array, weights: Array) -> Any:
        """Give the statistics of one batch: sums over its rows, each counted by its weight."""

    def result(self, parts: list[Any]) -> float:
        """Take the statistics, one entry a batch, to the number."""


def find(who: str, metrics: Any, loss: Loss) -> dict[str, Metric]:
    """Look up metrics by their names, for predictions of this loss.

    Args:
        who: the caller, for errors.
        metrics: names, see METRICS; or functions ``(target, prediction) -> number`` in scikit-learn's
            order of arguments, called once with all rows.
        loss: it says what predictions mean: logits, probabilities, or numbers.

    Raises:
        InputError: for an unknown name, or a metric that does not fit the loss.
    """
    if isinstance(metrics, str) or not isinstance(metrics, tuple | list):
        raise InputError(f"{who}: expected metrics as a tuple of names or functions, got {metrics!r}.")
    found: dict[str, Metric] = {}
    for metric in metrics:
        if callable(metric):
            found[getattr(metric, "__name__", type(metric).__name__)] = Collected(metric)
            continue
        if metric not in METRICS:
            raise InputError(f"{who}: expected a metric among {', '.join(map(repr, METRICS))}, got {metric!r}.")
        kind, fits = METRICS[metric]
        if not isinstance(loss, fits):
            names = ", ".join(cls.__name__ for cls in fits)
            raise InputError(f"{who}: expected metric {metric!r} with one of the losses {names}, got {loss!r}.")
        found[metric] = kind
    return found


# ── What predictions mean ───────────────────────────────────────────────────────────────────────


def probabilities(loss: Loss, prediction: Array) -> Array:
    """Give the probabilities that a loss's predictions stand for: (…, K), or (…) of the positive class."""
    if isinstance(loss, SoftmaxCrossEntropy):
        return jax.nn.softmax(prediction, axis=-1)
    return jax.nn.sigmoid(prediction) if isinstance(loss, SigmoidBinaryCrossEntropy) else prediction


def classes(loss: Loss, prediction: Array) -> Array:
    """Give the predicted classes (…): the likeliest of K, or 0 and 1 (for margins, the sign)."""
    if isinstance(loss, SoftmaxCrossEntropy):
        return prediction.argmax(axis=-1)
    threshold = 0.5 if isinstance(loss, BinaryCrossEntropy) else 0.0
    return (prediction > threshold).astype(jnp.int32)


def _classes_of(loss: Loss, target: Array) -> Array:
    if isinstance(loss, SoftmaxCrossEntropy):
        return target if jnp.issubdtype(target.dtype, jnp.integer) else target.argmax(axis=-1)
    return (target > 0).astype(jnp.int32)  # labels 0 and 1, or -1 and 1


def _counted(loss: Loss, target: Array, weights: Array) -> Array:
    """Spread the weight of a row (B,) over its positions, none to the ignored ones."""
    spread = jnp.broadcast_to(weights.reshape(weights.shape + (1,) * (target.ndim - 1)), target.shape)
    ignored = getattr(loss, "ignore", None)
    return spread if ignored is None else jnp.where(target == ignored, 0, spread)


# ── The metrics ─────────────────────────────────────────────────────────────────────────────────


class Accuracy:
    """The share of classes predicted right."""

    def measure(self, loss: Loss, prediction: Array, target: Array, weights: Array) -> Any:
        """Count the hits, and the rows."""
        labels = _classes_of(loss, target)
        counted = _counted(loss, labels, weights)
        return (counted * (classes(loss, prediction) == labels)).sum(), counted.sum()

    def result(self, parts: list[Any]) -> float:
        """Divide."""
        return _ratio(parts)


class LogLoss:
    """The mean of -log p(true class), with p clipped to the resolution of its dtype."""

    def measure(self, loss: Loss, prediction: Array, target: Array, weights: Array) -> Any:
        """Sum -log p, and the rows."""
        p, labels = probabilities(loss, prediction), _classes_of(loss, target)
        if isinstance(loss, SoftmaxCrossEntropy):
            hit = jnp.take_along_axis(p, labels.clip(0, p.shape[-1] - 1)[..., None], axis=-1)[..., 0]
        else:
            hit = jnp.where(labels == 1, p, 1 - p)
        counted = _counted(loss, labels, weights)
        return (counted * -jnp.log(hit.clip(jnp.finfo(p.dtype).eps))).sum(), counted.sum()

    def result(self, parts: list[Any]) -> float:
        """Divide."""
        return _ratio(parts)


class F1:
    """2 TP / (2 TP + FP + FN): of the positive class of two, or the plain mean over K (f1_score's "macro")."""

    def measure(self, loss: Loss, prediction: Array, target: Array, weights: Array) -> Any:
        """Count, for each class, the hits, and the predictions and labels together."""
        labels = _classes_of(loss, target)
        counted = _counted(loss, labels, weights)[..., None]
        several = isinstance(loss, SoftmaxCrossEntropy)
        shown = lax.expand_dims(jnp.arange(prediction.shape[-1]) if several else jnp.ones(1, int), range(labels.ndim))
        predicted, true = classes(loss, prediction)[..., None] == shown, labels[..., None] == shown
        over = tuple(range(labels.ndim))
        hits, seen = predicted & true, predicted.astype(counted.dtype) + true
        return (counted * hits).sum(over), (counted * seen).sum(over)

    def result(self, parts: list[Any]) -> float:
        """Average over the classes that were predicted or labelled."""
        hits, seen = (np.array(column, np.float64).sum(axis=0) for column in zip(*parts, strict=True))
        return float((2 * hits[seen > 0] / seen[seen > 0]).mean()) if (seen > 0).any() else 0.0


class R2:
    """1 - Σ (y - ŷ)² / Σ (y - ȳ)², averaged over the outputs; a constant one counts 1 if predicted exactly, else 0."""

    def measure(self, loss: Loss, prediction: Array, target: Array, weights: Array) -> Any:
        """Give the batch's weight, its mean, and the squares around the mean and around the predictions."""
        y = target.reshape(len(target), -1).astype(prediction.dtype)
        w = weights[:, None].astype(prediction.dtype)
        mean = (w * y).sum(axis=0, keepdims=True) / jnp.maximum(w.sum(), 1e-30)
        squares, errors = (w * (y - mean) ** 2).sum(axis=0), (w * (y - prediction.reshape(y.shape)) ** 2).sum(axis=0)
        return w.sum(), mean[0], squares, errors

    def result(self, parts: list[Any]) -> float:
        """Put the batches' squares together around the mean of all (Chan, Golub and LeVeque, 1983)."""
        weight, means, squares, errors = (np.array(column, np.float64) for column in zip(*parts, strict=True))
        mean = weight @ means / weight.sum()
        spread, error = squares.sum(0) + weight @ (means - mean) ** 2, errors.sum(0)
        constant = spread == 0
        return float(np.where(constant, error == 0, 1 - error / np.where(constant, 1, spread)).mean())


@dataclasses.dataclass(frozen=True)
class Collected:
    """Any function of all targets and predictions, which has to see them all at once."""

    function: Callable[[np.ndarray, np.ndarray], Any]

    def measure(self, loss: Loss, prediction: Array, target: Array, weights: Array) -> Any:
        """Keep the rows."""
        return target, prediction, weights

    def result(self, parts: list[Any]) -> float:
        """Call the function."""
        target, prediction, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        return float(self.function(target[weights > 0], prediction[weights > 0]))


class ROCAUC:
    """The area under the receiver operating characteristic; for K classes the mean of one against the rest."""

    def measure(self, loss: Loss, prediction: Array, target: Array, weights: Array) -> Any:
        """Keep labels and scores: a rank is no sum."""
        return _classes_of(loss, target), probabilities(loss, prediction), weights

    def result(self, parts: list[Any]) -> float:
        """Rank the scores, by scikit-learn; not a number where not all classes are there."""
        from sklearn.metrics import roc_auc_score

        labels, scores, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        labels, scores, weights = labels[weights > 0].ravel(), scores[weights > 0], weights[weights > 0]
        several = scores.ndim == 2 and scores.shape[1] > 1
        if len(np.unique(labels)) < (scores.shape[1] if several else 2):
            return float("nan")
        if several:
            scores = scores.astype(np.float64) / scores.sum(axis=1, keepdims=True, dtype=np.float64)
            return float(roc_auc_score(labels, scores, sample_weight=weights, multi_class="ovr"))
        return float(roc_auc_score(labels, scores.ravel(), sample_weight=weights))


def _ratio(parts: list[Any]) -> float:
    part, whole = (np.sum(column, dtype=np.float64) for column in zip(*parts, strict=True))
    return float(part / whole) if whole > 0 else float("nan")


_PROBABLE = (SoftmaxCrossEntropy, SigmoidBinaryCrossEntropy, BinaryCrossEntropy)
METRICS: dict[str, tuple[Metric, tuple[type, ...]]] = {
    "accuracy": (Accuracy(), (*_PROBABLE, Hinge, PerceptronCriterion)),
    "log_loss": (LogLoss(), _PROBABLE),
    "f1": (F1(), (*_PROBABLE, Hinge, PerceptronCriterion)),
    "roc_auc": (ROCAUC(), (*_PROBABLE, Hinge, PerceptronCriterion)),
    "r2": (R2(), (MeanSquaredError, MeanAbsoluteError, Huber)),
}
