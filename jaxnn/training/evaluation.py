"""Predictions and scores of a trained network, computed in compiled batches."""

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from jaxnn.checks import (
    InputError,
    check_concrete,
    check_finite,
    check_not_empty,
    check_positive_int,
    check_some_weight,
    check_weights,
    is_surely_finite,
)
from jaxnn.conversion import as_arrays
from jaxnn.parameters import check_no_result, fitting
from jaxnn.programs import Programs, compiled
from jaxnn.training.batching import Batch, as_batch, check_stream, is_stream, on_device, rows_of
from jaxnn.training.metrics import Metric, counted_by, find, over_positions
from jaxnn.training.placement import is_elsewhere, rows_here, whole, with_automatic_axes
from jaxnn.types import AnyArray, Layer, Loss, Params, check_input
from jaxnn.values import check_layer, check_network

ROWS = 1024  # per batch, unless the caller chooses another size
FIRST_ROWS = 64  # the rows whose predictions are checked before training


def predict(net: Layer, params: Params, x: PyTree, *, batch_size: int = ROWS) -> PyTree:
    """Run a network in inference mode over any number of rows.

    Args:
        net: a layer or network.
        params: its parameters.
        x: inputs, n rows.
        batch_size: the number of rows to run at once.

    Returns:
        The outputs, n rows, on the device.

    Raises:
        InputError: for inputs that do not fit the network or are not finite, and for parameters
            that are not finite.
    """
    x = check_rows("predict", net, x, batch_size)
    outputs = in_batches(functools.partial(_outputs, net, params), x, batch_size, axis=0)
    if not all(map(is_surely_finite, jax.tree.leaves(outputs))):
        check_finite("predict", "params", params)  # outputs such as log 0 may be meant
    return outputs


def check_rows(who: str, net: Layer, x: PyTree, batch_size: int) -> PyTree:
    """Check inputs before they are divided into batches, and return them as arrays."""
    check_layer(who, net)
    check_positive_int(who, "batch_size", batch_size)
    x = as_arrays(who, "x", x)
    for leaf in jax.tree.leaves(x):
        if not leaf.shape:
            raise InputError(f"{who}: expected x with a first axis of rows, got one number.")
        check_not_empty(who, "x", leaf)
    check_finite(who, "x", x)
    check_input(net, x)
    return with_automatic_axes(x)


def in_batches(run: Callable[[PyTree], PyTree], x: PyTree, batch_size: int, axis: int) -> PyTree:
    """Run the rows of ``x`` batch by batch; the outputs have the rows along ``axis``."""
    outputs = []
    for piece, count in _pieces(x, batch_size):
        keep = functools.partial(lax.slice_in_dim, start_index=0, limit_index=count, axis=axis)
        outputs.append(jax.tree.map(keep, run(piece)))
    return (
        outputs[0]
        if len(outputs) == 1
        else jax.tree.map(lambda *parts: jnp.concatenate(parts, axis), *outputs)
    )


def evaluate(
    net: Layer, loss: Loss, params: Params, data: Any, *, metrics: Any = (), batch_size: int = ROWS
) -> dict[str, float]:
    """Score a network, in inference mode, on data of any size.

    Args:
        net: a layer or network.
        loss: its objective, which also defines what predictions mean.
        params: the parameters.
        data: (x, target) or (x, target, weights), or an iterable of such batches, of which those
            of more than ``batch_size`` rows are divided.
        metrics: names ("accuracy", "log_loss", "f1", "roc_auc", "r2", by the definitions of
            scikit-learn), or functions ``(target, prediction) -> number``.
        batch_size: the number of rows to run at once.

    Returns:
        The (weighted) mean "loss" over all rows, and each metric by its name. A metric that these
        data do not define, such as "roc_auc" of one class or "r2" of one sample, is NaN, with a
        warning.

    Raises:
        InputError: for data that do not fit the network or the loss, or of which nothing counts;
            for a metric that does not fit the loss, or a function that returns no number.
    """
    return Scorer("evaluate", net, loss, params, data, metrics, batch_size).scores(params)


class Scorer:
    """A scorer of different parameters on the same data.

    The arguments are those of :func:`evaluate`, and ``put``, which puts a batch on the device or
    devices. Arrays are checked once and kept there; an iterable is iterated over, and its batches
    are checked, each time.

    Attributes:
        batch: the data, if they are arrays; None for an iterable.
    """

    def __init__(
        self,
        who: str,
        net: Layer,
        loss: Loss,
        params: Params,
        data: Any,
        metrics: Any,
        batch_size: int = ROWS,
        put: Callable[[Batch], Batch] = on_device,
    ) -> None:
        check_network(who, net, loss)
        check_positive_int(who, "batch_size", batch_size)
        check_no_result(who, params)
        check_concrete(who, params=params)
        self.net, self.loss, self.metrics = net, loss, find(who, metrics, loss)
        self._who, self._data, self._batch_size = who, data, batch_size
        self.batch: Batch | None = None
        if is_stream(data):
            check_stream(who, data)
            if isinstance(data, list) and data:  # the others may be costly to read, or not twice
                check_targets(who, net, loss, params, as_batch(who, data[0]))
        else:
            check_concrete(who, data=data)
            self.batch = batch = as_batch(who, data)
            check_targets(who, net, loss, params, batch)
            check_some_count(who, loss, batch)
            self._kept = [put(piece) for piece in weighted(batch, batch_size)]

    def scores(self, params: Params) -> dict[str, float]:
        """Return the "loss" and the metrics, by name.

        Warns:
            UserWarning: for a metric that is not a number, such as of a single class.

        Raises:
            InputError: for parameters that are not finite, if the loss is not a number.
        """
        measure = functools.partial(_scores, self.net, self.loss, self._kinds)
        found = results(self.metrics, self.parts(measure, params))
        if math.isnan(found["loss"]):
            check_finite(self._who, "params", params)
        elif undefined := [name for name, value in found.items() if math.isnan(value)]:
            names = ", ".join(map(repr, undefined))
            warnings.warn(f"{self._who}: not a number on these data: {names}.", stacklevel=3)
        return found

    def parts(self, scores: Any, params: Params) -> list[Any]:
        """Return the result of ``scores(params, batch)`` for each piece of the data."""
        pieces = self._pieces(params) if is_stream(self._data) else self._kept
        parts = jax.device_get([scores(params, piece) for piece in pieces])
        if not parts:
            raise InputError(f"{self._who}: expected at least one batch, got none.")
        if not any(np.any(weight_sum) for _, weight_sum, _ in parts):
            raise InputError(
                f"{self._who}: expected at least one position that counts, got none in any batch."
            )
        return parts

    @property
    def _kinds(self) -> tuple[Metric, ...]:
        return tuple(self.metrics.values())

    def _pieces(self, params: Params) -> Iterator[Batch]:
        for item in self._data:
            batch = as_batch(self._who, item)
            check_targets(self._who, self.net, self.loss, params, batch)
            yield from weighted(batch, self._batch_size)


def make_scorer(
    who: str,
    net: Layer,
    loss: Loss,
    params: Params,
    validation: Any,
    metrics: Any,
    put: Callable[[Batch], Batch] = on_device,
) -> Scorer | None:
    """Return the scorer of a training run, or None if there are no validation data."""
    if validation is None:
        if metrics:
            raise InputError(f"{who}: expected validation data for metrics {metrics!r}, got none.")
        return None
    if hasattr(validation, "__next__"):
        raise InputError(
            f"{who}: expected validation data that can be read again after each record, such as a "
            f"list of batches, got a {type(validation).__name__}, which can be read once."
        )
    return Scorer(who, net, loss, params, validation, metrics, put=put)


def check_targets(who: str, net: Layer, loss: Loss, params: Params, batch: Batch) -> None:
    """Check the values of a batch before they enter a compiled program, where they are unknown."""
    batch = rows_here(batch)
    x, target, weights = jax.tree.map(_spec, batch)
    check_input(net, batch.x)
    prediction = _outputs.eval_shape(net, params, x)
    loss.check(prediction, batch.target)
    _value.eval_shape(loss, prediction, target, weights)
    if batch.weights is not None:
        check_weights(who, batch.weights)


def check_some_count(who: str, loss: Loss, batch: Batch) -> None:
    """Check that at least one position of a data set counts, by its weight and for the loss."""
    if not is_elsewhere(batch.weights):
        check_some_weight(who, batch.weights)
    counted = counted_by(loss, batch.target)
    if counted is not None and not counted.any():
        raise InputError(f"{who}: expected a target that {loss!r} does not ignore, got none.")


def check_predictions(net: Layer, loss: Loss, params: Params, batch: Batch) -> None:
    """Check that the first predictions are of the kind that the loss takes, e.g. probabilities."""
    few = jax.tree.map(lambda leaf: leaf[:FIRST_ROWS], batch._replace(weights=None))
    if getattr(loss, "bounded", False):
        loss.check(whole(_outputs(net, params, few.x)), whole(few.target))
    if hasattr(loss, "check_outputs"):
        loss.check_outputs(whole(_outputs(net, params, few.x)))


def weighted(batch: Batch, batch_size: int) -> Iterator[Batch]:
    """Divide a batch into pieces of one size; the last is filled up with rows of weight 0."""
    weights = (
        np.ones(rows_of(batch), np.float32) if batch.weights is None else np.asarray(batch.weights)
    )
    for piece, count in _pieces((batch.x, batch.target, weights), batch_size):
        x, target, w = piece
        yield Batch(x, target, np.where(np.arange(len(w)) < count, w, 0).astype(np.float32))


def results(metrics: dict[str, Metric], parts: list[Any]) -> dict[str, float]:
    """Combine the scores of all pieces into the loss and the metrics, by name."""
    losses, weight_sums, statistics = zip(*parts, strict=True)
    weights = np.asarray(weight_sums, np.float64)
    total = float(np.asarray(losses, np.float64) @ weights / weights.sum())
    columns = zip(*statistics, strict=True)
    return {"loss": total} | {
        name: metric.result(list(column))
        for (name, metric), column in zip(metrics.items(), columns, strict=True)
    }


def score(net: Layer, loss: Loss, metrics: tuple[Metric, ...], params: Params, batch: Batch) -> Any:
    """Return the scores of one weighted batch.

    These are the loss, the sum of the weights over which it was averaged, and the statistics of the
    metrics.
    """
    prediction, _ = net.forward(params, batch.x)
    value, _ = loss.forward(prediction, batch.target, batch.weights)
    weight_sum = batch.weights.sum()
    if (counted := counted_by(loss, batch.target)) is not None:
        weight_sum = jnp.where(counted, over_positions(batch.weights, counted), 0).sum()
    statistics = tuple(
        metric.measure(loss, prediction, batch.target, batch.weights) for metric in metrics
    )
    return value, weight_sum, statistics


_scores = Programs(score, settings=3)


@compiled(settings=1, who="predict")
def _outputs(net: Layer, params: Params, x: PyTree) -> PyTree:
    with fitting(type(net).__name__, net, params, x):
        return net.forward(params, x)[0]


@compiled(settings=1)
def _value(loss: Loss, prediction: PyTree, target: AnyArray, weights: AnyArray | None) -> Array:
    return loss.forward(prediction, target, weights)[0]


def _pieces(tree: PyTree, size: int) -> Iterator[tuple[PyTree, int]]:
    """Divide rows into pieces of one size, so that one compiled program serves all of them.

    The last piece is filled up with repetitions of its last row. Each piece comes with the number
    of rows that count. If all rows fit into one piece, it is left as it is.
    """
    n = len(jax.tree.leaves(tree)[0])
    if n <= size:
        yield tree, n
        return
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        yield jax.tree.map(lambda leaf, rows=rows: leaf[rows], tree), min(size, n - start)


def _spec(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))
