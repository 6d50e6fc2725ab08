"""Metrics by the definitions of scikit-learn, computed as sums over batches where this is possible.

Each metric has two parts: ``measure`` runs inside the compiled program, on one batch, and returns
statistics; ``result`` computes a number from the statistics of all batches. The meaning of
predictions is defined by the loss, see :mod:`jaxnn.types`. B rows per batch, K classes.
"""

import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jaxnn.checks import InputError, kind_of
from jaxnn.types import AnyArray, Loss


class Metric(Protocol):
    """A number that says how good predictions are."""

    @property
    def better(self) -> str:
        """Return "max" if higher is better, "min" if lower is better, "" if that is not known."""

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return the statistics of one batch, such as sums over its rows with their weights."""

    def result(self, parts: list[Any]) -> float:
        """Return the metric, from the statistics with one entry per batch."""


def find(who: str, metrics: Any, loss: Loss) -> dict[str, Metric]:
    """Look up metrics by their names, for predictions of this loss.

    Args:
        who: the caller, for errors.
        metrics: names, see METRICS; or functions ``(target, prediction) -> number``, with
            scikit-learn's order of arguments, which are called once with all rows.
        loss: the loss, which defines what predictions mean: logits, probabilities, or numbers.

    Returns:
        The metrics by their names.

    Raises:
        InputError: for an unknown name, a metric that does not fit the loss, or two metrics of the
            same name.
    """
    if isinstance(metrics, str) or not isinstance(metrics, tuple | list):
        raise InputError(
            f"{who}: expected metrics as a tuple of names or functions, got {metrics!r}."
        )
    found: dict[str, Metric] = {}
    for metric in metrics:
        name = name_of(metric) if callable(metric) else metric
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
            f"{who}: expected metric {name!r} with a loss of classes, "
            f"which has the methods {methods}, got {loss!r}."
        )
    if not needs and hasattr(loss, "classes"):
        raise InputError(
            f"{who}: expected metric {name!r} with a loss of numbers, "
            f"got {loss!r}, which is of classes."
        )
    return metric


def better(who: str, entry: str, mode: str | None) -> str:
    """Return whether lower or higher is better for an entry of the history: "min" or "max".

    Args:
        who: the caller, for errors.
        entry: the name of the entry, such as "loss" or "validation_accuracy".
        mode: the mode that the user gave, or None.

    Raises:
        InputError: if no mode was given and it is not known for the entry.
    """
    name = entry.removeprefix("validation_")
    known = "min" if name == "loss" else METRICS[name][0].better if name in METRICS else None
    if mode is None and known is None:
        raise InputError(
            f"{who}: expected mode 'min' or 'max' for {entry!r}, of which it is not known "
            "whether lower or higher is better, got None."
        )
    if mode is not None and known is not None and mode != known:
        raise InputError(
            f"{who}: expected mode {known!r} for {entry!r}, of which it is known, got {mode!r}."
        )
    return mode or str(known)


# ── Which positions count ───────────────────────────────────────────────────────────────────────


def counted_by(loss: Any, target: AnyArray) -> Array | None:
    """Return which positions of a target the loss counts, or None if it counts all of them."""
    return loss.counted(target) if hasattr(loss, "counted") else None


def over_positions(weights: Array, positions: Array) -> Array:
    """Return the weights of rows (B,), broadcast to the positions in each row (B, …)."""
    spread = weights.reshape(weights.shape + (1,) * (positions.ndim - 1))
    return jnp.broadcast_to(spread, positions.shape)


def _weights_of(loss: Any, target: Array, labels: Array, weights: Array) -> Array:
    """Return the weight of each position: that of its row, or 0 where the position is ignored."""
    counted = counted_by(loss, target)
    spread = over_positions(weights, labels)
    return spread if counted is None else jnp.where(counted, spread, 0)


# ── The metrics ─────────────────────────────────────────────────────────────────────────────────


class Accuracy:
    """The fraction of positions whose class is predicted correctly."""

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return the weighted counts of the correct predictions, and of all positions."""
        labels = loss.true_classes(target)
        counts = _weights_of(loss, target, labels, weights)
        return (counts * (loss.classes(prediction) == labels)).sum(), counts.sum()

    def result(self, parts: list[Any]) -> float:
        """Divide the first count by the second."""
        return _ratio(parts)


class LogLoss:
    """The mean of -log p(true class), where p is at least the resolution eps of its dtype."""

    better: ClassVar[str] = "min"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return the weighted sum of -log p, and the weighted count of positions."""
        p, labels = loss.probabilities(prediction), loss.true_classes(target)
        if p.ndim > labels.ndim:
            valid = labels.clip(0, p.shape[-1] - 1)[..., None]
            hit = jnp.take_along_axis(p, valid, axis=-1)[..., 0]
        else:
            hit = jnp.where(labels == 1, p, 1 - p)
        counts = _weights_of(loss, target, labels, weights)
        return (counts * -jnp.log(hit.clip(jnp.finfo(p.dtype).eps))).sum(), counts.sum()

    def result(self, parts: list[Any]) -> float:
        """Divide the sum by the count."""
        return _ratio(parts)


class F1:
    """The F1 score, 2 TP / (2 TP + FP + FN).

    For two classes it is the score of the positive class; for K classes it is the unweighted mean
    of their scores, which scikit-learn's f1_score calls "macro".
    """

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return two counts for each class: of hits, and of predictions and labels together."""
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
        """Average the scores of the classes that occur among the predictions or the labels."""
        hits, seen = (
            np.array(column, np.float64).sum(axis=0) for column in zip(*parts, strict=True)
        )
        return float((2 * hits[seen > 0] / seen[seen > 0]).mean()) if (seen > 0).any() else 0.0


class R2:
    """The coefficient of determination, 1 - Σ (y - ŷ)² / Σ (y - ȳ)², averaged over the outputs.

    An output whose target is constant counts as 1 if it is predicted exactly, and as 0 otherwise.
    Of fewer than two samples it is NaN.
    """

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return the statistics of the targets in one batch.

        These are the total weight, the mean, the sums of the squared distances from the mean and
        from the predictions, and the number of samples.
        """
        y = target.reshape(len(target), -1).astype(prediction.dtype)
        w = weights[:, None].astype(prediction.dtype)
        mean = (w * y).sum(axis=0, keepdims=True) / jnp.maximum(w.sum(), 1e-30)
        squares = (w * (y - mean) ** 2).sum(axis=0)
        errors = (w * (y - prediction.reshape(y.shape)) ** 2).sum(axis=0)
        return w.sum(), mean[0], squares, errors, (weights > 0).sum()

    def result(self, parts: list[Any]) -> float:
        """Combine the sums of squares around the common mean (Chan, Golub and LeVeque, 1983)."""
        columns = (np.array(column, np.float64) for column in zip(*parts, strict=True))
        weight, means, squares, errors, counts = columns
        if counts.sum() < 2:
            return float("nan")
        mean = weight @ means / weight.sum()
        spread, error = squares.sum(0) + weight @ (means - mean) ** 2, errors.sum(0)
        constant = spread == 0
        explained = 1 - error / np.where(constant, 1, spread)
        return float(np.where(constant, error == 0, explained).mean())


@dataclasses.dataclass(frozen=True)
class Collected:
    """A metric that is any function of all targets and predictions, which it needs all at once."""

    function: Callable[[np.ndarray, np.ndarray], Any]
    better: ClassVar[str] = ""

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return the rows themselves."""
        return target, prediction, weights

    def result(self, parts: list[Any]) -> float:
        """Call the function with all rows of a weight above 0."""
        target, prediction, weights = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        who = f"metric {name_of(self.function)!r}"
        try:
            value = self.function(target[weights > 0], prediction[weights > 0])
        except Exception as error:
            raise InputError(
                f"{who}: expected a real number, got {type(error).__name__}: {error}."
            ) from error
        if not _is_number(value):
            got = kind_of(value) if np.ndim(value) else repr(value)
            raise InputError(f"{who}: expected a real number, got {got}.")
        return float(value)


def name_of(function: Any) -> str:
    """Return the name of a metric that is a function."""
    return getattr(function, "__name__", type(function).__name__)


def _is_number(value: Any) -> bool:
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    is_scalar = hasattr(value, "dtype") and not np.ndim(value)
    return isinstance(value, numbers.Real) or (
        is_scalar and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
    )


class ROCAUC:
    """The area under the receiver operating characteristic curve.

    For K classes it is the mean of the areas of each class against the rest.
    """

    better: ClassVar[str] = "max"

    def measure(self, loss: Any, prediction: Array, target: Array, weights: Array) -> Any:
        """Return labels, scores and weights, because the ranks are not sums over batches."""
        scores = loss.probabilities(prediction) if hasattr(loss, "probabilities") else prediction
        return loss.true_classes(target), scores, weights

    def result(self, parts: list[Any]) -> float:
        """Compute the area by scikit-learn; return NaN if not all classes occur in the labels."""
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
# by name: the metric, and the methods that the loss needs to have
METRICS: dict[str, tuple[Metric, tuple[str, ...]]] = {
    "accuracy": (Accuracy(), _CLASSES),
    "log_loss": (LogLoss(), ("probabilities", "true_classes")),
    "f1": (F1(), _CLASSES),
    "roc_auc": (ROCAUC(), _CLASSES),
    "r2": (R2(), ()),
}
