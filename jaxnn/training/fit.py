"""Training: from a network, a loss, an optimizer and data to a trained state and its history."""

from __future__ import annotations  # help() then shows names, such as Callback

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.backprop import Method
from jaxnn.checks import (
    InputError,
    check_bool,
    check_concrete,
    check_finite,
    check_key,
    check_positive_int,
    kind_of,
)
from jaxnn.parameters import check_fit
from jaxnn.training.batching import (
    Batch,
    as_batch,
    check_stream,
    is_stream,
    on_device,
    padded,
    rows_of,
    shuffle_seeds,
    stacks,
)
from jaxnn.training.checkpoint import Checkpoints
from jaxnn.training.checkpoint_hook import Saving, describe_run
from jaxnn.training.early_stopping import EarlyStopping, StopEarly
from jaxnn.training.evaluation import (
    ROWS,
    Scorer,
    check_predictions,
    check_some_count,
    check_targets,
    evaluate,
    make_scorer,
    predict,
)
from jaxnn.training.feeds import Epochs, Feed, PaddedEpochs, RowsFeed, StreamFeed
from jaxnn.training.hooks import Callback, Callbacks, Hook, Validation
from jaxnn.training.layout import Layout, Rule, make_layout
from jaxnn.training.loop import Run, TrainingInterrupted, train
from jaxnn.training.placement import with_automatic_axes
from jaxnn.training.processes import check_agreement, rows_of_all
from jaxnn.training.train_step import (
    TrainState,
    TrainStep,
    check_state,
    first_train_state,
    make_step,
    one_row,
    place_state,
)
from jaxnn.types import Layer, Loss, Params, split_running
from jaxnn.values import children, tree_of

STREAM_EVERY = 100  # steps between two records, for a stream that is not counted in epochs


@dataclasses.dataclass(frozen=True, repr=False)
class Fit:
    """A trained network.

    Attributes:
        net: the network.
        loss: its objective.
        params: the trained parameters: the last, or the best if early stopping restores them.
        state: the state after the last step, from which ``fit(..., state=...)`` can continue.
        history: arrays by name. "step", "loss" (the mean since the previous record),
            "validation_loss" and "validation_…" of each metric have one entry per record, which by
            default is one per epoch. "step_loss" has one entry per step.
        stopped: the reason why training ended: "completed", "early stopping", "callback" or
            "interrupted"; it is "" after an error.
    """

    net: Layer
    loss: Loss
    params: Params
    state: TrainState
    history: dict[str, np.ndarray]
    stopped: str

    def predict(self, x: PyTree, *, batch_size: int = ROWS) -> PyTree:
        """Run the network in inference mode, see :func:`jaxnn.predict`."""
        return predict(self.net, self.params, x, batch_size=batch_size)

    def evaluate(self, data: Any, *, metrics: Any = (), batch_size: int = ROWS) -> dict[str, float]:
        """Score the network, see :func:`jaxnn.evaluate`."""
        return evaluate(
            self.net, self.loss, self.params, data, metrics=metrics, batch_size=batch_size
        )

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value}" for name, value in self._last_record())
        return f"Fit of {self.net!r} with {self.loss!r}: {self._ending()}" + (
            f"; last record: {scores}." if scores else "."
        )

    def _repr_html_(self) -> str:
        parts = notebook.tree(tree_of(self.net)), notebook.line(self._ending())
        table = notebook.table(("last record", "value"), self._last_record())
        losses = [float(loss) for loss in self.history.get("loss", ())]
        return notebook.fragment(*parts, table, notebook.curve(losses, "loss a record"))

    def _ending(self) -> str:
        return f"{int(self.state.step)} steps, {self.stopped or 'stopped by an error'}"

    def _last_record(self) -> list[tuple[str, str]]:
        columns = self.history.items()
        return [(n, f"{v[-1]:.5g}") for n, v in columns if len(v) and n != "step_loss"]


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
    callbacks: Sequence[Callback] = (),
    early_stopping: EarlyStopping | None = None,
    checkpoint: Checkpoints | str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    rules: Sequence[Rule] = (),
    method: Method = "hand",
    precision: str | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    pad_rows: bool = False,
    keep_last_good: bool = True,
    progress: bool | None = None,
) -> Fit:
    """Train a network on minibatches.

    ::

        trained = nn.fit(nn.mlp(32, 10), nn.SoftmaxCrossEntropy(), optax.adam(3e-3), (x, y),
                         epochs=30, batch_size=32, key=jax.random.key(0))
        trained.predict(x)

    The loop is compiled once for a network, a loss, an optimizer's formula and the shapes of the
    data: another learning rate, seed or number of epochs needs no further compilation. The same
    call returns the same result, bit for bit; so does a run that was stopped and resumed from its
    checkpoints.

    Args:
        net: a layer or network, which runs in training mode.
        loss: its objective.
        optimizer: any optimizer of optax, with its schedules, clipping, decay and accumulation.
        data: (x, target) or (x, target, weights), each an array or a pytree of arrays with n rows,
            or a dict with these names; or an iterable of such batches, which is read ahead in a
            thread of its own. Each call copies arrays of NumPy to the device; arrays of JAX are
            used where they are. Of several processes, each has the same arrays, or those of
            :func:`jaxnn.own_rows`; a stream yields the process's own rows of every batch.
        epochs: the number of passes through the data in all. Either this or ``steps`` is required.
        steps: the number of batches to train on in all. Either this or ``epochs`` is required.
        batch_size: the number of rows per batch, for arrays only. The last rows of an epoch form a
            smaller batch.
        key: a PRNG key for the parameters, the shuffles and dropout; None with ``state``, which has
            one of its own.
        params: parameters to start from, instead of new ones.
        state: the state to continue from; its steps are included in ``epochs`` and ``steps``.
        validation: data to score after each record, as for :func:`jaxnn.evaluate`.
        metrics: names or functions, for the validation; see :func:`jaxnn.evaluate`.
        every: the number of steps between two records of the history. The default is an epoch, or
            100 steps for a stream without epochs.
        callbacks: functions of an :class:`jaxnn.Event`, called after each record; training stops if
            one of them returns True.
        early_stopping: the rule by which to stop before the end.
        checkpoint: the checkpoints to write and to resume from: a folder, or
            :class:`jaxnn.Checkpoints`. They belong to one run, which only the same call resumes, or
            one with more epochs or steps. To go on with other data or another learning rate, pass
            its ``state`` and another folder.
        mesh: the devices to train on, such as ``jax.make_mesh((4,), ("data",))``; None for the one
            on which the arrays are. The rows of each batch are divided along its axis "data".
        rules: how parameters are divided among the devices, such as
            :data:`jaxnn.FULLY_SHARDED`; see :mod:`jaxnn.training.layout`. By default they are
            repeated on each.
        method: "hand" for the derived backward passes, "auto" for ``jax.grad``. With "auto" on a
            CPU, a network with convolutions makes one step a call, as XLA runs the derivatives
            that JAX makes of them slowly within a loop.
        precision: the precision of both passes: "bfloat16", "float16" (with
            :func:`jaxnn.loss_scaling` around the optimizer), "tf32", "float32" or "float64"; losses
            are computed in float32 at least. Parameters, optimizer and running statistics keep
            their own precision. A layer in :class:`jaxnn.Cast` has one of its own. None for that
            of the parameters, and products of matrices in the default precision of the device.
        shuffle: whether to draw a new order of the rows for each epoch.
        drop_last: whether to leave out the rows that do not fill a batch, for arrays only.
        pad_rows: whether to fill arrays up with rows of weight 0 to one of a few sizes, so that
            data of about as many rows need no further compilation. Not for networks with
            BatchNorm in them, whose statistics have no weights.
        keep_last_good: whether to keep the state before each compiled call, so that training can
            return to it if a loss is not finite. False saves the memory of one state, which is then
            donated from call to call.
        progress: whether to show a progress bar; the default is to show it on a terminal and in a
            notebook.

    Returns:
        The trained state and the history, see :class:`Fit`.

    Raises:
        InputError: for arguments that do not fit, before any work is done.
        TrainingError: for a loss that is not finite, or for any other error during training. It
            carries the result so far.
        TrainingInterrupted: for Ctrl-C or SIGTERM. It carries the result so far.
    """
    step = make_step("fit", net, loss, optimizer, method, precision)
    if progress is not None:
        check_bool("fit", "progress", progress)
    flags = {"shuffle": shuffle, "drop_last": drop_last, "keep_last_good": keep_last_good}
    check_schedule("fit", epochs, steps, every, pad_rows=pad_rows, **flags)
    check_actions("fit", early_stopping, callbacks)
    check_concrete("fit", key=key, params=params, state=state)
    source: _Stream | _Arrays = (
        _Stream(data, batch_size, drop_last, 1 if mesh is None else jax.process_count())
        if is_stream(data)
        else _Arrays(data, loss, batch_size, pad_rows, drop_last)
    )
    if pad_rows and (is_stream(data) or drop_last or not can_be_padded(net)):
        raise InputError(
            "fit: expected pad_rows with arrays of which no row is left out, and without layers "
            f"such as BatchNorm, whose statistics have no weights, got {net}."
        )
    given = params if state is None else state
    state = _first_state(step, optimizer, source.first.x, key, params, state)
    check_trainable("fit", state.params)
    layout = make_layout("fit", mesh, rules, state.params, source.batch_rows)
    if layout is not None:
        check_agreement(
            "fit",
            network=repr((net, loss)),
            schedule=repr((epochs, steps, batch_size, every, flags)),
            data=source.first if source.rows else "a stream",
            state=state,
        )
        step, state = dataclasses.replace(step, layout=layout), place_state(layout, step, state)
        source.spread(layout)
    if not keep_last_good:
        state = jax.tree.map(jnp.copy, state)  # so that the caller's own state is not donated
    scorer = check_data(
        "fit", step, state.params, source.first, validation, metrics, source.smallest
    )
    run = Run.starting(step.hoist("fit", state), state)
    saving = Saving.of(
        "fit",
        checkpoint,
        lambda: describe_run(
            run,
            source.rows,
            batch_size,
            data=source.first if source.rows else None,
            validation=scorer and scorer.batch,
            given=given,
            records=record_names(scorer),
            shuffle=shuffle and source.rows is not None,
            drop_last=drop_last,
        ),
    )
    if saving:
        saving.resume(run)  # changes the run, so its feed, which starts at its step, is made now

    feed, total, every = source.feed(
        run, epochs, steps, every, shuffle=shuffle, drop_last=drop_last, donate=not keep_last_good
    )
    if total is not None and run.history.step > total:
        raise InputError(
            f"fit: expected at least the {run.history.step} steps already made, got {total} in all."
        )
    hooks = make_hooks(run, scorer and scorer.scores, early_stopping, scorer, callbacks, saving)
    return train(
        "fit",
        run,
        feed,
        hooks,
        lambda: _result(run),
        total=total,
        every=every,
        progress=progress,
    )


def _result(run: Run) -> Fit:
    params = run.state.params if run.best is None else run.best
    history = run.history.arrays()
    return Fit(run.step.net, run.step.loss, params, run.state, history, run.stopped)


def _first_state(
    step: TrainStep, optimizer: Any, x: PyTree, key: PRNGKeyArray | None, params: Params, state: Any
) -> TrainState:
    if state is None:
        if key is None:
            raise InputError("fit: expected a PRNG key such as jax.random.key(0), got None.")
        return first_train_state("fit", step.net, optimizer, x, key, params)
    if not isinstance(state, TrainState):
        raise InputError(f"fit: expected state to be a TrainState, got {kind_of(state, 'state')}.")
    if params is not None:
        raise InputError("fit: expected either params or state to start from, got both.")
    if key is not None:
        raise InputError(
            "fit: expected either key or state, which has a key of its own, got both. "
            "To use another key, pass state._replace(key=key)."
        )
    check_key("fit", state.key)
    check_fit("fit", step.net, state.params, x)
    check_finite("fit", "state", state.params)
    check_state("fit", optimizer, state)
    return with_automatic_axes(state)


# ── Data: arrays in memory, or a stream of batches ──────────────────────────────────────────────


class _Arrays:
    """Arrays in memory, on which a network is trained in epochs."""

    def __init__(
        self, data: Any, loss: Loss, batch_size: Any, pad_rows: bool, drop_last: bool
    ) -> None:
        check_concrete("fit", data=data)
        self.first = self._data = as_batch("fit", data)
        check_some_count("fit", loss, self._data)
        self.rows: int | None = rows_of(self._data)
        self._pad_rows = pad_rows
        if pad_rows:
            self.first = self._data = padded(self._data)
        self.batch_rows = check_batch_size("fit", batch_size, rows_of(self._data))
        self.smallest = smallest_batch(self.rows, self.batch_rows, drop_last)

    def spread(self, layout: Layout) -> None:
        """Copy the data to all devices, so that each can take its part of any batch."""
        self._data = layout.everywhere(self._data)

    def feed(
        self,
        run: Run,
        epochs: int | None,
        steps: int | None,
        every: int | None,
        *,
        shuffle: bool,
        drop_last: bool,
        donate: bool,
    ) -> tuple[Feed, int | None, int | None]:
        """Return the feed, the last step, and the number of steps between two records."""
        seeds = shuffle_seeds(run.state.key) if shuffle else None
        assert self.rows is not None
        divided = PaddedEpochs if self._pad_rows else Epochs
        cut = divided(self.rows, self.batch_rows, seeds, drop_last=drop_last)
        feed: Feed = RowsFeed(self._data, cut, donate=donate)
        return feed, steps if epochs is None else epochs * cut.steps, every or cut.steps


class _Stream:
    """An iterable of batches, of which the first is examined without being lost.

    Where several processes train together, each reads its own rows of every batch.
    """

    rows: int | None = None

    def __init__(self, data: Any, batch_size: Any, drop_last: bool, processes: int) -> None:
        check_stream("fit", data)
        if drop_last:
            raise InputError("fit: expected drop_last with arrays, got an iterable of batches.")
        if batch_size is not None:
            raise InputError(
                f"fit: expected no batch_size for an iterable of batches, got {batch_size}."
            )
        source = iter(data)
        try:
            first = next(source)
        except KeyboardInterrupt as error:
            raise TrainingInterrupted(
                "fit was interrupted before the first batch.", None
            ) from error
        except StopIteration:
            raise InputError(
                "fit: expected an iterable of batches, got one that is exhausted."
            ) from None
        self.first: Batch = as_batch("fit", first)
        self.batch_rows = self.smallest = rows_of(self.first) * processes
        self._mesh: Mesh | None = None
        self._processes = processes
        # an iterator cannot be started again, so the first batch is put back before the others
        self._data: Iterable[Any] = itertools.chain([first], source) if source is data else data

    def spread(self, layout: Layout) -> None:
        """Join the rows of the processes, if there are several.

        Each compiled call sends its batches to the devices.
        """
        if self._processes == 1:
            return
        self._mesh = layout.mesh
        own = jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.first)
        joined = rows_of_all("fit", own, layout.mesh)
        self.first = jax.tree.map(lambda leaf: leaf[0], joined)

    def feed(
        self,
        run: Run,
        epochs: int | None,
        steps: int | None,
        every: int | None,
        *,
        shuffle: bool,
        drop_last: bool,
        donate: bool,
    ) -> tuple[Feed, int | None, int | None]:
        """Return the feed, the last step if it is known, and the number of steps per record."""
        every = every or (STREAM_EVERY if epochs is None else None)
        net, loss, params = run.step.net, run.step.loss, run.state.params
        items = stacks(
            "fit",
            self._data,
            passes=epochs,
            steps=steps,
            every=every,
            skip=run.history.step,
            check=lambda batch: check_targets("fit", net, loss, params, batch),
        )
        return StreamFeed(items, mesh=self._mesh, donate=donate), steps, every


# ── Parts that fit and fit_population share ─────────────────────────────────────────────────────


def check_data(
    who: str,
    step: TrainStep,
    params: Params,
    batch: Batch,
    validation: Any,
    metrics: Any,
    smallest: int,
) -> Scorer | None:
    """Check that data fit the network and the loss; return the scorer of the validation data."""
    if smallest == 1:
        _check_single_row(who, step.net, params, batch.x)
    check_targets(who, step.net, step.loss, params, batch)
    check_predictions(step.net, step.loss, params, batch)
    put = on_device if step.layout is None else step.layout.rows
    return make_scorer(who, step.net, step.loss, params, validation, metrics, put)


def check_trainable(who: str, params: Params) -> None:
    """Check that there is at least one parameter to train."""
    if not jax.tree.leaves(split_running(params)[0]):
        what = "only frozen ones" if jax.tree.leaves(params) else "none"
        raise InputError(f"{who}: expected a network with parameters to train, got {what}.")


def _check_single_row(who: str, net: Layer, params: Params, x: PyTree) -> None:
    """Check that the network can be trained on one row, which has no variance."""
    try:
        jax.eval_shape(
            lambda params, x: net.forward(params, x, jax.random.key(0))[0], params, one_row(x)
        )
    except InputError as error:
        raise InputError(
            f"{who}: expected batches of at least two rows, by another batch_size or by drop_last: "
            f"{error}"
        ) from error


def make_hooks(
    run: Run,
    score: Any,
    early_stopping: EarlyStopping | None,
    scorer: Scorer | None,
    callbacks: Sequence[Callback],
    saving: Saving | None,
) -> list[Hook]:
    """Return the hooks that act after each record, in the order in which they are called."""
    hooks: list[Hook] = []
    if score is not None:
        hooks.append(Validation(score))
    if early_stopping is not None:
        hooks.append(StopEarly(early_stopping, run, record_names(scorer)))
    if callbacks:
        hooks.append(Callbacks(tuple(callbacks), run.history.records))
    if saving is not None:
        hooks.append(saving)
    return hooks


def record_names(scorer: Scorer | None) -> list[str]:
    """Return the names of the entries of a record that can be compared."""
    return ["loss"] + [
        f"validation_{name}" for name in (["loss", *scorer.metrics] if scorer else [])
    ]


def check_schedule(who: str, epochs: Any, steps: Any, every: Any, **flags: Any) -> None:
    """Check that exactly one end of training is given, and that flags are True or False."""
    if (epochs is None) == (steps is None):
        raise InputError(
            f"{who}: expected either epochs or steps, got epochs={epochs!r} and steps={steps!r}."
        )
    for name, value in (("epochs", epochs), ("steps", steps), ("every", every)):
        if value is not None:
            check_positive_int(who, name, value)
    for name, value in flags.items():
        check_bool(who, name, value)


def check_actions(who: str, early_stopping: Any, callbacks: Any) -> None:
    """Check the kinds of what is to act after each record."""
    if not isinstance(early_stopping, EarlyStopping | None):
        raise InputError(
            f"{who}: expected early_stopping to be an EarlyStopping, got {early_stopping!r}."
        )
    if not isinstance(callbacks, list | tuple) or not all(map(callable, callbacks)):
        raise InputError(
            f"{who}: expected callbacks to be a list of functions of an event, got {callbacks!r}."
        )


def can_be_padded(net: Layer) -> bool:
    """Return whether rows of weight 0 change nothing: no layer has statistics of a batch."""
    known: Any = net  # hashable
    return not _has_statistics(known)


@functools.lru_cache(maxsize=256)  # a search asks this for each of its candidates
def _has_statistics(net: Any) -> bool:
    inner = [child.layer for child in children(net)]
    return any(map(_has_statistics, inner)) if inner else hasattr(net, "update_running")


def smallest_batch(rows: int, batch_size: int, drop_last: bool) -> int:
    """Return the number of rows in the smallest batch of an epoch."""
    return (0 if drop_last else rows % batch_size) or batch_size


def check_batch_size(who: str, batch_size: Any, rows: int) -> int:
    """Check that a batch size is given, and that the data fill at least one batch; return it."""
    if batch_size is None:
        raise InputError(f"{who}: expected a batch_size for arrays, got None.")
    check_positive_int(who, "batch_size", batch_size)
    if batch_size > rows:
        raise InputError(
            f"{who}: expected a batch_size of at most the {rows} rows of the data, "
            f"got {batch_size}."
        )
    return int(batch_size)
