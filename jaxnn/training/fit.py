"""Training: a network, a loss, an optimizer and data in; a trained state and its history out.

The steps are those of :func:`jaxnn.training.train_step.train_step`, run in compiled calls of many steps each; what
happens between the calls is in :mod:`jaxnn.training.loop`.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.backprop import Method
from jaxnn.checks import InputError, check_positive_int
from jaxnn.training.batching import Batch, as_batch, check_stream, is_stream, rows_of, stacks
from jaxnn.training.checkpoint import Checkpoints, as_checkpoints
from jaxnn.training.compiled_loops import Plan, make_plan
from jaxnn.training.evaluation import ROWS, Scorer, check_targets, evaluate, make_scorer, predict
from jaxnn.training.feeds import Rows, Stream
from jaxnn.training.loop import Callback, EarlyStopping, Loop, NotFiniteError
from jaxnn.training.train_step import TrainState, init_state, train_step
from jaxnn.types import Layer, Loss, Params
from jaxnn.values import to_json

STREAM_EVERY = 100  # steps between two records of a stream that is not counted in epochs


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained network.

    Attributes:
        net: the network.
        loss: its objective.
        params: the trained parameters: the last, or the best if early stopping restores them.
        state: the state after the last step, to go on from with ``fit(..., state=...)``.
        history: arrays by name, one entry a record (by default: an epoch): "step", "loss" (the mean since the
            record before), "validation_loss" and "validation_…" of each metric; and "step_loss", one entry a step.
        stopped: why training ended: "completed", "early stopping", "callback", or "" for an error.
    """

    net: Layer
    loss: Loss
    params: Params
    state: TrainState
    history: dict[str, np.ndarray]
    stopped: str

    def predict(self, x: PyTree, *, batch_size: int = ROWS) -> PyTree:
        """Run the network in inference mode, see :func:`jaxnn.training.evaluation.predict`."""
        return predict(self.net, self.params, x, batch_size=batch_size)

    def evaluate(self, data: Any, *, metrics: Any = (), batch_size: int = ROWS) -> dict[str, float]:
        """Score the network, see :func:`jaxnn.training.evaluation.evaluate`."""
        return evaluate(self.net, self.loss, self.params, data, metrics=metrics, batch_size=batch_size)

    def _repr_html_(self) -> str:
        last = [
            (name, f"{values[-1]:.5g}") for name, values in self.history.items() if len(values) and name != "step_loss"
        ]
        losses = self.history.get("loss", ())
        head = notebook.line(f"{int(self.state.step)} steps; {self.stopped or 'stopped by an error'}")
        parts = (notebook.tree(self.net), head, notebook.table(("last record", "value"), last))
        return notebook.fragment(*parts, notebook.curve([float(loss) for loss in losses], "loss a record"))


class TrainingError(RuntimeError):
    """Training stopped at an error. ``result`` is what was trained until then, with the last good state."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted from the keyboard. ``result`` is what was trained until then."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def fit(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    key: PRNGKeyArray | None = None,
    params: Params = None,
    state: TrainState | None = None,
    validation: Any = None,
    metrics: Any = (),
    every: int | None = None,
    callbacks: tuple[Callback, ...] = (),
    early_stopping: EarlyStopping | None = None,
    checkpoint: Checkpoints | str | os.PathLike | None = None,
    method: Method = "hand",
    precision: str | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    keep_last_good: bool = True,
    progress: bool | None = None,
) -> Fit:
    """Train a network on minibatches.

    The loop is compiled once for a network, a loss, an optimizer's formula and the shapes of the data:
    another learning rate, seed or number of epochs compiles nothing. The same call gives the same
    result, bit for bit; so does a run that was stopped and resumed from its checkpoints.

    Args:
        net: a layer or network, run in training mode.
        loss: its objective.
        optimizer: any of optax, with its schedules, clipping, decay and accumulation.
        data: (x, target) or (x, target, weights), each an array or a pytree of arrays with n rows, or a dict
            with these names; or an iterable of such batches, read ahead in a thread of its own.
        epochs: how often to go through the data in all, or
        steps: how many batches to train on in all: one of the two.
        batch_size: rows a batch; for arrays only. The last rows of an epoch make a smaller batch.
        key: a PRNG key, for the parameters, the shuffles and dropout; not needed with ``state``.
        params: parameters to start from, instead of new ones.
        state: the state to go on from; its steps count among ``epochs`` and ``steps``.
        validation: data to score after each record, as for :func:`jaxnn.training.evaluation.evaluate`.
        metrics: names or functions, for validation; see :func:`jaxnn.training.evaluation.evaluate`.
        every: steps between two records of the history. By default an epoch; 100 for a stream without epochs.
        callbacks: functions of an :class:`jaxnn.training.loop.Event`, called after each record; True stops.
        early_stopping: when to stop before the end.
        checkpoint: where to save and to resume from: a folder, or :class:`jaxnn.training.checkpoint.Checkpoints`.
        method: "hand" for the derived backward passes, "auto" for ``jax.grad``.
        precision: "bfloat16" to compute the passes in it, while parameters and optimizer keep theirs.
        shuffle: whether to draw a new order of the rows each epoch.
        drop_last: whether to leave out the rows that do not fill a batch.
        keep_last_good: whether to keep the state before each compiled call, to go back to if a loss is not
            finite. False saves the memory of one state: it is then donated from call to call.
        progress: whether to show a bar; by default on a terminal and in a notebook.

    Returns:
        The trained state and the history, see :class:`Fit`.

    Raises:
        InputError: for arguments that do not fit, before any work is done.
        TrainingError: for a loss that is not finite, or an error on the way; with the result so far.
        TrainingInterrupted: when interrupted from the keyboard; with the result so far.
    """
    step = train_step(net, loss, optimizer, method=method, precision=precision)
    check_counts("fit", epochs, steps, every)
    streamed = is_stream(data)
    if streamed:
        check_stream("fit", data)
        if batch_size is not None:
            raise InputError(f"fit: expected no batch_size for an iterable of batches, got {batch_size}.")
        first, data = _peek(data)
    else:
        first = data = as_batch("fit", data)
        size = check_batch_size("fit", batch_size, rows_of(data))
    state = _initial(net, step.optimizer, first.x, key, params, state)
    check_targets("fit", net, loss, state.params, first)
    scorer = make_scorer("fit", net, loss, state.params, validation, metrics)
    _check_monitor(early_stopping, scorer)
    plan, numbers = make_plan(step, state)
    if not keep_last_good:
        state = jax.tree.map(jnp.copy, state)  # the caller's own is not to be donated

    loop = Loop(
        state,
        score=scorer,
        callbacks=tuple(callbacks),
        early_stopping=early_stopping,
        checkpoints=as_checkpoints("fit", checkpoint),
        about=describe_run(plan, None if streamed else rows_of(data), batch_size),
    )
    loop.resume()
    if streamed:
        every = every or (STREAM_EVERY if epochs is None else None)
        items = stacks(
            data,
            passes=epochs,
            steps=steps,
            every=every,
            skip=loop.position,
            check=lambda batch: check_targets("fit", net, loss, state.params, batch),
        )
        source: Any = Stream(plan, numbers, items, loop.position, keep_last_good)
        total = steps
    else:
        order_key = state.key if shuffle else None
        source = Rows(plan, numbers, data, size, order_key, drop_last, keep_last_good)
        total = steps if epochs is None else epochs * source.epoch_steps
        every = every or source.epoch_steps
    if total is not None and loop.position > total:
        raise InputError(f"fit: expected at least the {loop.position} steps already made, got {total} in all.")
    with losing_nothing("fit", lambda: _result(net, loss, loop)):
        loop.run(source, total=total, every=every, show=progress)
    return _result(net, loss, loop)


@contextmanager
def losing_nothing(who: str, result: Any) -> Iterator[None]:
    """Hand out what was trained together with any error that ends training."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise TrainingInterrupted(f"{who} was interrupted; .result holds what was trained.", result()) from error
    except NotFiniteError as error:
        raise TrainingError(f"{who}: {error}, in .result.", result()) from None
    except Exception as error:
        said = str(error).removeprefix("fit: ")
        raise TrainingError(f"{who}: {said} What was trained is in .result.", result()) from error


def describe_run(plan: Plan, rows: int | None, batch_size: int | None) -> dict[str, Any]:
    """Say what a checkpoint belongs to; a difference is found by comparing two of these."""
    return {
        "network": json.loads(to_json(plan.net)),
        "loss": json.loads(to_json(plan.loss)),
        "data": {"rows": rows, "batch_size": batch_size},
        "method": plan.method,
        "precision": plan.precision,
        "optimizer": plan.update.text.splitlines(),
        "jax": jax.__version__,
    }


def _result(net: Layer, loss: Loss, loop: Loop) -> Fit:
    params = loop.state.params if loop.best is None else loop.best
    return Fit(net, loss, params, loop.state, loop.arrays(), loop.stopped)


def _initial(net: Layer, optimizer: Any, x: PyTree, key: Any, params: Params, state: Any) -> TrainState:
    if state is None:
        if key is None:
            raise InputError("fit: expected a PRNG key such as jax.random.key(0), got None.")
        return init_state(net, optimizer, x, key, params)
    if not isinstance(state, TrainState):
        raise InputError(f"fit: expected state to be a TrainState, got {type(state).__name__}.")
    if params is not None:
        raise InputError("fit: expected either params or state to start from, got both.")
    return state


def _peek(data: Any) -> tuple[Batch, Any]:
    """Look at the first batch of an iterable without losing it."""
    source = iter(data)
    try:
        first = next(source)
    except StopIteration:
        raise InputError("fit: expected an iterable of batches, got one that is exhausted.") from None
    batch = as_batch("fit", first)
    if source is data:  # an iterator: it cannot be started again
        return batch, itertools.chain([first], source)
    return batch, data


def check_counts(who: str, epochs: Any, steps: Any, every: Any) -> None:
    """Check that training is told when to end, in one way."""
    if (epochs is None) == (steps is None):
        raise InputError(f"{who}: expected either epochs or steps, got epochs={epochs!r} and steps={steps!r}.")
    for name, value in (("epochs", epochs), ("steps", steps), ("every", every)):
        if value is not None:
            check_positive_int(who, name, value)


def check_batch_size(who: str, batch_size: Any, rows: int) -> int:
    """Check that there is a batch size, and that the data fill a batch."""
    if batch_size is None:
        raise InputError(f"{who}: expected a batch_size for arrays, got None.")
    check_positive_int(who, "batch_size", batch_size)
    if batch_size > rows:
        raise InputError(f"{who}: expected a batch_size of at most the {rows} rows of the data, got {batch_size}.")
    return int(batch_size)


def _check_monitor(rule: EarlyStopping | None, scorer: Scorer | None) -> None:
    if rule is not None:
        names = ["loss"] + [f"validation_{name}" for name in (["loss", *scorer.metrics] if scorer else [])]
        if rule.monitor not in names:
            raise InputError(f"EarlyStopping: expected monitor to be one of {names}, got {rule.monitor!r}.")
