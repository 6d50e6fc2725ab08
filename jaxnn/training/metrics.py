"""Metrics by scikit-learn's definitions, as sums over batches where they are such sums.

Each has two halves: ``measure`` runs inside the compiled program, on one batch, and gives statistics;
``result`` takes those of all batches to a number. What predictions mean, the loss says itself, see
:mod:`jaxnn.types`. B rows a batch, K classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxnn.checks import InputError
from jaxnn.types import Loss


class Metric(Protocol):
    """A number that says how good predictions are."""

    @property
    def better(self) -> str:
        """Return "max" if higher is better, "min" if lower is, "" if that is not known."""

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return the statistics of one batch: sums over its rows, each counted by its weight."""

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
        InputError: for an unknown name, a metric that does not fit the loss, or two of one name.
    """
    if isinstance(metrics, str) or not isinstance(metrics, tuple | list):
        raise InputError(
            f"{who}: expected metrics as a tuple of names or functions, got {metrics!r}."
        )
    found: dict[str, Metric] = {}
    for metric in metrics:
        name = getattr(metric, "__name__", type(metric).__name__) if callable(metric) else metric
        if name in found or name == "loss":
            raise InputError(
                f"{who}: expected metrics of different names, none of them 'loss', got {name!r} "
                "again: give functions names by def."
            )
        found[name] = Collected(metric) if callable(metric) else _named(who, metric, loss)
    return found


def _named(who: str, name: Any, loss: Any) -> Metric:
    if name not in METRICS:
        known = ", ".join(map(repr, METRICS))
        raise InputError(f"{who}: expected a metric among {known}, got {name!r}.")
    metric, needs = METRICS[name]
    if not all(hasattr(loss, need) for need in needs):
        methods = " and ".join(needs)
        raise InputError(
            f"{who}: expected metric {name!r} with a loss of classes, which has the methods {methods}, "
            f"got {loss!r}."
        )
    if not needs and hasattr(loss, "classes"):
        raise InputError(
            f"{who}: expected metric {name!r} with a loss of numbers, got {loss!r}, which is of classes."
        )
    return metric


def better(who: str, entry: str, mode: str | None) -> str:
    """Say whether lower or higher is better for an entry of the history: "min" or "max".

    Args:
        who: the caller, for errors.
        entry: its name, such as "loss" or "validation_accuracy".
        mode: as the caller was told, or None.

    Raises:
        InputError: if nobody says.
    """
    name = entry.removeprefix("validation_")
    known = "min" if name == "loss" else METRICS[name][0].better if name in METRICS else None
    if mode is None and known is None:
        raise InputError(
            f"{who}: expected mode 'min' or 'max' for {entry!r}, of which it is not known "
            "whether lower or higher is better, got None."
        )
    return mode or str(known)


# ── Which positions count ───────────────────────────────────────────────────────────────────────


def counted_by(loss: Any, target: Array) -> Array | None:
    """Return which positions of a target the loss counts, or None where it counts all."""
    return loss.counted(target) if hasattr(loss, "counted") else None


def over_positions(weights: Array, positions: Array) -> Array:
    """Spread the weight of a row (B,) over its positions (B, …)."""
    spread = weights.reshape(weights.shape + (1,) * (positions.ndim - 1))
    return jnp.broadcast_to(spread, positions.shape)


def _weights_of(loss: Any, target: Array, labels: Array, weights: Array) -> Array:
    """Return how much each position counts: as its row, the ignored ones not at all."""
    counted = counted_by(loss, target)
    spread = over_positions(weights, labels)
    return spread if counted is None else jnp.where(counted, spread, 0)


# ── The metrics ─────────────────────────────────────────────────────────────────────────────────


class Accuracy:
    """The share of classes predicted right."""

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Count the hits, and the positions."""
        labels = loss.true_classes(target)
        counts = _weights_of(loss, target, labels, weights)
        return (counts * (loss.classes(prediction) == labels)).sum(), counts.sum()

    def result(self, parts: list[Any]) -> float:
        """Divide."""
        return _ratio(parts)


class LogLoss:
    """The mean of -log p(true class), with p clipped to the resolution of its dtype."""

    better: ClassVar[str] = "min"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Sum -log p, and the positions."""
        p, labels = loss.probabilities(prediction), loss.true_classes(target)
        if p.ndim > labels.ndim:
            valid = labels.clip(0, p.shape[-1] - 1)[..., None]
            hit = jnp.take_along_axis(p, valid, axis=-1)[..., 0]
        else:
            hit = jnp.where(labels == 1, p, 1 - p)
        counts = _weights_of(loss, target, labels, weights)
        return (counts * -jnp.log(hit.clip(jnp.finfo(p.dtype).eps))).sum(), counts.sum()

    def result(self, parts: list[Any]) -> float:
        """Divide."""
        return _ratio(parts)


class F1:
    """2 TP / (2 TP + FP + FN): of the positive class of two, or the plain mean over K (f1_score's "macro")."""

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Count, for each class, the hits, and the predictions and labels together."""
        labels = loss.true_classes(target)
        counts = _weights_of(loss, target, labels, weights)[..., None]
        several = prediction.ndim > labels.ndim
        classes = jnp.arange(prediction.shape[-1]) if several else jnp.ones(1, int)
        classes = lax.expand_dims(classes, range(labels.ndim))
        predicted = loss.classes(prediction)[..., None] == classes
        true = labels[..., None] == classes
        over = tuple(range(labels.ndim))
        seen = predicted.astype(counts.dtype) + true
        return (counts * (predicted & true)).sum(over), (counts * seen).sum(over)

    def result(self, parts: list[Any]) -> float:
        """Average over the classes that were predicted or labelled."""
        hits, seen = (
            np.array(column, np.float64).sum(axis=0) for column in zip(*parts, strict=True)
        )
        return float((2 * hits[seen > 0] / seen[seen > 0]).mean()) if (seen > 0).any() else 0.0


class R2:
    """1 - Σ (y - ŷ)² / Σ (y - ȳ)², averaged over the outputs.

    A constant output counts 1 if it is predicted exactly, else 0.
    """

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return the batch's weight, its mean, and the squares around the mean and the predictions."""
        y = target.reshape(len(target), -1).astype(prediction.dtype)
        w = weights[:, None].astype(prediction.dtype)
        mean = (w * y).sum(axis=0, keepdims=True) / jnp.maximum(w.sum(), 1e-30)
        squares = (w * (y - mean) ** 2).sum(axis=0)
        errors = (w * (y - prediction.reshape(y.shape)) ** 2).sum(axis=0)
        return w.sum(), mean[0], squares, errors

    def result(self, parts: list[Any]) -> float:
        """Put the batches' squares together around the mean of all (Chan, Golub and LeVeque, 1983)."""
        columns = (np.array(column, np.float64) for column in zip(*parts, strict=True))
        weight, means, squares, errors = columns
        mean = weight @ means / weight.sum()
        spread, error = squares.sum(0) + weight @ (means - mean) ** 2, errors.sum(0)
        constant = spread == 0
        explained = 1 - error / np.where(constant, 1, spread)
        return float(np.where(constant, error == 0, explained).mean())


@dataclasses.dataclass(frozen=True)
class Collected:
    """Any function of all targets and predictions, which has to see them all at once."""

    function: Callable[[np.ndarray, np.ndarray], Any]
    better: ClassVar[str] = ""

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Keep the rows."""
        return target, prediction, weights

    def result(self, parts: list[Any]) -> float:
        """Call the function."""
        target, prediction, weights = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return float(self.function(target[weights > 0], prediction[weights > 0]))


class ROCAUC:
    """The area under the receiver operating characteristic; for K classes the mean of one against the rest."""

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Keep labels and scores: a rank is no sum."""
        scores = loss.probabilities(prediction) if hasattr(loss, "probabilities") else prediction
        return loss.true_classes(target), scores, weights

    def result(self, parts: list[Any]) -> float:
        """Rank the scores, by scikit-learn; not a number where not all classes are there."""
        from sklearn.metrics import roc_auc_score

        labels, scores, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        kept = weights > 0
        labels, scores, weights = labels[kept].ravel(), scores[kept], weights[kept]
        several = scores.ndim == 2 and scores.shape[1] > 1
        if len(np.unique(labels)) < (scores.shape[1] if several else 2):
            return float("nan")
        if several:
            scores = scores.astype(np.float64)
            scores /= scores.sum(axis=1, keepdims=True)
            area = roc_auc_score(labels, scores, sample_weight=weights, multi_class="ovr")
        else:
            area = roc_auc_score(labels, scores.ravel(), sample_weight=weights)
        return float(area)


def _ratio(parts: list[Any]) -> float:
    part, whole = (np.sum(column, dtype=np.float64) for column in zip(*parts, strict=True))
    return float(part / whole) if whole > 0 else float("nan")


_CLASSES = ("classes", "true_classes")
METRICS: dict[
    str, tuple[Metric, tuple[str, ...]]
] = {  # by name: the metric, and what the loss has to say
    "accuracy": (Accuracy(), _CLASSES),
    "log_loss": (LogLoss(), ("probabilities", "true_classes")),
    "f1": (F1(), _CLASSES),
    "roc_auc": (ROCAUC(), _CLASSES),
    "r2": (R2(), ()),
}
