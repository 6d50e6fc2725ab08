"""Training of many networks in one program.   M members, n rows.

Seeds, hyperparameters, initial scales and folds form a batch axis of the program. Each member is
trained as :func:`jaxnn.training.fit.fit` would train it alone, with its own parameters, optimizer,
shuffles and dropout.
"""

from __future__ import annotations  # help() then shows names, such as Callback

import contextlib
import dataclasses
import functools
import numbers
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.backprop import Method
from jaxnn.checks import (
    InputError,
    check_choice,
    check_concrete,
    check_finite,
    check_some_weight,
    check_weights,
    kind_of,
)
from jaxnn.conversion import as_arrays
from jaxnn.programs import compiled
from jaxnn.training.batching import Batch, as_batch, is_stream, rows_of, shuffle_seeds
from jaxnn.training.checkpoint import Checkpoints
from jaxnn.training.checkpoint_hook import Saving, describe_run
from jaxnn.training.constant_hoisting import Program
from jaxnn.training.evaluation import (
    ROWS,
    Scorer,
    check_rows,
    check_some_count,
    in_batches,
    results,
    score,
)
from jaxnn.training.feeds import Epochs, MembersFeed
from jaxnn.training.fit import (
    Fit,
    check_actions,
    check_batch_size,
    check_data,
    check_schedule,
    check_trainable,
    make_hooks,
    record_names,
    smallest_batch,
)
from jaxnn.training.hooks import Callback
from jaxnn.training.layout import spread_members
from jaxnn.training.loop import Run, train
from jaxnn.training.metrics import better
from jaxnn.training.optimizers import hoisted_init
from jaxnn.training.train_step import TrainState, TrainStep, make_step, one_row
from jaxnn.types import AnyArray, Layer, Loss, Params, join_running, split_running


@dataclasses.dataclass(frozen=True, repr=False)
class Population:
    """Trained networks, indexed by member: ``population[3]`` is a :class:`jaxnn.training.fit.Fit`.

    Attributes:
        net: the network.
        loss: its objective.
        state: the states of all members, stacked along a new first axis of M.
        history: arrays as in a fit; those of losses and scores have one more axis of M at the end.
        failed: for each member, the step at which its loss was not finite, or 0 if it was always
            finite, (M,).
        group: the number of members that were trained in parallel: 1 for ``lax.map``, M for
            ``vmap``.
        stopped: the reason why training ended: "completed", "callback" or "interrupted"; it is ""
            after an error.
    """

    net: Layer
    loss: Loss
    state: TrainState
    history: dict[str, np.ndarray]
    failed: np.ndarray
    group: int
    stopped: str

    def __len__(self) -> int:
        return len(self.failed)

    def __getitem__(self, member: int) -> Fit:
        if not isinstance(member, numbers.Integral) or isinstance(member, bool):
            raise InputError(
                f"population: expected the number of a member, such as 0, got {member!r}."
            )
        if not -len(self) <= member < len(self):
            span_ = f"[{-len(self)}, {len(self)})"
            raise IndexError(f"population: expected a number of a member in {span_}, got {member}.")
        state = jax.tree.map(lambda leaf: leaf[member], self.state)
        history = {
            name: values if values.ndim == 1 else values[:, member]
            for name, values in self.history.items()
        }
        return Fit(self.net, self.loss, state.params, state, history, self.stopped)

    def __repr__(self) -> str:
        failed, stopped = int((self.failed > 0).sum()), self.stopped or "stopped by an error"
        steps = int(np.max(self.state.step))
        return (
            f"Population of {len(self)} times {self.net!r} with {self.loss!r}: "
            f"{steps} steps, {stopped}; {failed} failed."
        )

    def best(self, by: str = "validation_loss", mode: str | None = None) -> int:
        """Return the member with the best last entry in the history, among those that did not fail.

        Args:
            by: the name of the entry, such as "loss", "validation_loss" or "validation_accuracy".
            mode: "min" if lower is better, "max" if higher is better; None for losses and named
                metrics, of which this is known.

        Raises:
            InputError: for an unknown entry or mode, or if every member failed.
        """
        names = tuple(sorted(set(self.history) - {"step", "step_loss"}))
        check_choice("Population.best", "by", by, names)
        if mode is not None:
            check_choice("Population.best", "mode", mode, ("min", "max"))
        last = self.history[by][-1] * (1 if better("Population.best", by, mode) == "min" else -1)
        good = (self.failed == 0) & np.isfinite(last)
        if not good.any():
            raise InputError(
                "Population.best: expected at least one member that did not fail, got none."
            )
        return int(np.where(good, last, np.inf).argmin())

    def predict_members(self, x: PyTree, *, batch_size: int = ROWS) -> PyTree:
        """Run every member in inference mode, and return the outputs (M, n, ...)."""
        x = check_rows("Population.predict_members", self.net, x, batch_size)
        run = functools.partial(_outputs_of_members, self.net, self.group, self.state.params)
        return in_batches(run, x, batch_size, axis=1)

    def predict(self, x: PyTree, *, batch_size: int = ROWS) -> Array:
        """Return the mean prediction of the members that did not fail, (n, ...).

        If the loss defines probabilities, these are averaged instead of the outputs.
        """
        outputs = self.predict_members(x, batch_size=batch_size)[self.failed == 0]
        probabilities = getattr(self.loss, "probabilities", lambda prediction: prediction)
        return probabilities(outputs).mean(axis=0)


def fit_population(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    keys: PRNGKeyArray,
    hyperparameters: Mapping[str, Any] | None = None,
    initial_scale: Any = None,
    weights: AnyArray | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    validation: Any = None,
    metrics: Any = (),
    every: int | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoints | str | os.PathLike | None = None,
    mesh: Mesh | None = None,
    method: Method = "hand",
    precision: str | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    strategy: str | int = "auto",
    progress: bool | None = None,
) -> Population:
    """Train M networks at once, each with the result of training it alone, up to rounding.

    A member whose loss is not finite is marked, and does not affect the others.

    Args:
        net: a layer or network.
        loss: its objective.
        optimizer: any optimizer of optax.
        data: (x, target) or (x, target, weights), shared by all members.
        keys: one PRNG key per member, (M,), such as ``jax.random.split(key, M)``.
        hyperparameters: one value per member, (M,), of each hyperparameter that
            ``optax.inject_hyperparams`` made variable, by name, such as "learning_rate" for
            ``optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)``.
        initial_scale: one factor per member, (M,), for its initial weights, which are the arrays of
            two axes or more.
        weights: the weight of each row for each member, (M, n), such as 0 for the rows that a fold
            holds out.
        epochs: as in :func:`jaxnn.training.fit.fit`.
        steps: see there.
        batch_size: see there.
        validation: see there.
        metrics: see there.
        every: see there.
        callbacks: see there.
        checkpoint: see there.
        mesh: the devices to train on, such as ``jax.make_mesh((4,), ("population",))``, among which
            the members are divided; they then train in parallel, as by the strategy "vmap".
        method: see there.
        precision: see there.
        shuffle: see there; each member has its own orders of the rows.
        drop_last: see there.
        strategy: "vmap" to train all members in parallel, "map" to train one after another, or the
            number of members to train in parallel; "auto" measures a few numbers and takes the
            fastest. This number decides the order of summation, and so the last bits: name it for
            the same bits in another process. A resumed run keeps the number that it began with.
        progress: see there.

    Returns:
        The trained members, see :class:`Population`.

    Raises:
        InputError: for arguments that do not fit, before any work is done.
        TrainingError: for an error during training. It carries the result so far.
        TrainingInterrupted: for an interrupt from the keyboard. It carries the result so far.
    """
    step = make_step("fit_population", net, loss, optimizer, method, precision)
    check_schedule("fit_population", epochs, steps, every, shuffle=shuffle, drop_last=drop_last)
    check_actions("fit_population", None, callbacks)
    if is_stream(data):
        raise InputError(f"fit_population: expected data as arrays, got {type(data).__name__}.")
    check_concrete("fit_population", data=data, keys=keys, weights=weights)
    data = as_batch("fit_population", data)
    check_some_count("fit_population", loss, data)
    if not isinstance(hyperparameters, Mapping | None):
        raise InputError(
            "fit_population: expected hyperparameters as a dict of names and values, "
            f"got {kind_of(hyperparameters)}."
        )
    batch_size = check_batch_size("fit_population", batch_size, rows_of(data))
    members = _count(keys)
    weights = _weights_of_members(weights, data, members)
    hyperparameters = {
        name: _per_member(f"hyperparameter {name!r}", values, (members,))
        for name, values in (hyperparameters or {}).items()
    }
    if initial_scale is not None:
        initial_scale = _per_member("initial_scale", initial_scale, (members,))
    transformation = step.update.optimizer  # type: ignore[attr-defined]
    states = _initial(net, transformation, data.x, keys, initial_scale, hyperparameters)
    one = jax.tree.map(lambda leaf: leaf[0], states)
    if mesh is not None:
        states = spread_members("fit_population", mesh, states, members)
        strategy = "vmap" if strategy == "auto" else strategy
    smallest = smallest_batch(rows_of(data), batch_size, drop_last)
    scorer = check_data("fit_population", step, one.params, data, validation, metrics, smallest)
    run = Run.starting(step.hoist("fit_population", one), states)
    varied = {name: values.tolist() for name, values in hyperparameters.items()}
    about = functools.partial(
        describe_run,
        run,
        rows_of(data),
        batch_size,
        data=(data, weights),
        validation=scorer and scorer.batch,
        given=initial_scale,
        records=record_names(scorer),
        shuffle=shuffle,
        drop_last=drop_last,
    )
    saving = Saving.of(
        "fit_population",
        checkpoint,
        lambda: about() | {"members": members, "hyperparameters": varied},
    )
    seeds = shuffle_seeds(states.key) if shuffle else None
    cut = Epochs(rows_of(data), batch_size, seeds, drop_last=drop_last)
    feed_by = functools.partial(MembersFeed, data, weights, cut, members=members)
    if saving:
        saving.resume(run)
    if strategy == "auto" and saving and "group" in saving.choices:
        group = saving.choices["group"]
    else:
        group = _choose(strategy, run.step, feed_by, states)
    if saving:
        saving.choices["group"] = group

    def result() -> Population:
        history = run.history.arrays()
        failed = _failures(history, run.state)
        return Population(net, loss, run.state, history, failed, group, run.stopped)

    scores = scorer and functools.partial(_score_members, scorer, group)
    return train(
        "fit_population",
        run,
        feed_by(group=group),
        make_hooks(run, scores, None, scorer, callbacks, saving),
        result,
        total=steps if epochs is None else epochs * cut.steps,
        every=every or cut.steps,
        require_finite=False,  # a member that fails is marked at the end, and the others go on
        progress=progress,
    )


# ── The members' first states ───────────────────────────────────────────────────────────────────


def _initial(
    net: Layer,
    optimizer: Any,
    x: PyTree,
    keys: Any,
    scale: Any,
    hyperparameters: dict[str, np.ndarray],
) -> TrainState:
    """Return the states that ``init_state`` makes for each key, with the hyperparameters set."""
    leaves, structure = jax.tree.flatten(one_row(x))
    params, run_keys = _draw(net, tuple(leaves), structure, keys, scale)
    check_trainable("fit_population", params)
    one = split_running(jax.tree.map(lambda leaf: leaf[0], params))[0]
    program, constants = hoisted_init(optimizer, one)
    opt_state = _init_optimizers(program, constants, split_running(params)[0])
    for name, values in hyperparameters.items():
        places = optax.tree_utils.tree_get_all_with_path(opt_state, name)
        if not places:
            raise InputError(
                f"fit_population: expected hyperparameter {name!r} in the optimizer's state, "
                "got none: make it variable, as in "
                f"optax.inject_hyperparams(optax.adam)({name}=...)."
            )
        opt_state = optax.tree_utils.tree_set(
            opt_state, **{name: jnp.asarray(values, places[0][1].dtype)}
        )
    return TrainState(params, opt_state, run_keys, jnp.zeros(len(keys), jnp.int32))


@compiled(settings=3, runs_once=True)
def _draw(net: Layer, leaves: Any, structure: Any, keys: Any, scale: Any) -> tuple[Params, Any]:
    x = jax.tree.unflatten(structure, leaves)

    def member(key: PRNGKeyArray, scale: Any) -> tuple[Params, Any]:
        init_key, run_key = jax.random.split(key)
        params = net.init(init_key, x)
        if scale is None:
            return params, run_key
        trained, running = split_running(params)
        scaled = jax.tree.map(lambda p: p * scale.astype(p.dtype) if p.ndim > 1 else p, trained)
        return join_running(scaled, running), run_key

    return jax.vmap(member)(keys, scale)


@compiled(settings=1)
def _init_optimizers(program: Program, constants: Any, params: Params) -> Any:
    return jax.vmap(lambda params: program(constants, params))(params)


def _count(keys: Any) -> int:
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed or keys.ndim != 1 or not len(keys):
        got = f"shape {keys.shape} of {keys.dtype}" if hasattr(keys, "shape") else repr(keys)
        raise InputError(
            "fit_population: expected keys such as jax.random.split(jax.random.key(0), 8), "
            f"got {got}."
        )
    return len(keys)


def _per_member(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    values = as_arrays("fit_population", name, values)
    values = np.asarray(values)
    if values.shape != shape:
        raise InputError(f"fit_population: expected {name} of shape {shape}, got {values.shape}.")
    check_finite("fit_population", name, values)
    return values


def _weights_of_members(weights: AnyArray | None, data: Batch, members: int) -> np.ndarray | None:
    """Return the weight of each row for each member: its own weights times those of the data."""
    if weights is None:
        return None
    weights = _per_member("weights", weights, (members, rows_of(data)))
    check_weights("fit_population", weights)
    for number, own in enumerate(weights):
        check_some_weight(f"fit_population: member {number}", own)
    return weights if data.weights is None else weights * np.asarray(data.weights)


# ── All members in one program ──────────────────────────────────────────────────────────────────

TRIAL_STEPS = 8
GROUPS = (4, 256)  # tried in addition to one member at a time and all members at once
_chosen: dict[Any, int] = {}  # the group that was measured to be the fastest, by what decides it


def _choose(
    strategy: str | int, step: TrainStep, feed_by: Callable[..., MembersFeed], states: TrainState
) -> int:
    """Return the number of members to train in parallel.

    It is the number that the strategy names, or for "auto" the fastest of a few in a trial.
    """
    members = len(states.step)
    if isinstance(strategy, int) and not isinstance(strategy, bool) and 1 <= strategy <= members:
        return strategy
    check_choice("fit_population", "strategy", strategy, ("auto", "vmap", "map"))
    if strategy != "auto":
        return members if strategy == "vmap" else 1
    known = _what_decides(step, feed_by, states)
    if known not in _chosen:
        seconds = {}
        for group in sorted({1, *(min(size, members) for size in GROUPS), members}):
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # too large for the memory
                feed = feed_by(group=group)
                seconds[group] = min(_trial(step, feed, states) for _ in range(3))
        _chosen[known] = min(seconds, key=lambda group: seconds[group]) if seconds else 1
    return _chosen[known]


def _what_decides(step: TrainStep, feed_by: Any, states: TrainState) -> Any:
    """Return everything that the fastest group depends on, in a hashable form."""
    data, weights, cut = feed_by.args
    shapes = tuple(
        (leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves((data, weights, states))
    )
    return jax.tree.structure(step), cut.batch_size, shapes


def _trial(step: TrainStep, feed: MembersFeed, states: TrainState) -> float:
    work = feed.work(0, TRIAL_STEPS)
    began = time.perf_counter()
    jax.block_until_ready(work.call(step, states, work.span()))
    return time.perf_counter() - began


@compiled(settings=2)
def _outputs_of_members(net: Layer, group: int, params: Params, x: PyTree) -> PyTree:
    return lax.map(lambda params: net.forward(params, x)[0], params, batch_size=group)


@compiled(settings=4)
def _scores_of_members(
    net: Layer, loss: Loss, metrics: Any, group: int, params: Params, batch: Batch
) -> Any:
    return lax.map(
        lambda params: score(net, loss, metrics, params, batch), params, batch_size=group
    )


def _score_members(scorer: Scorer, group: int, params: Params) -> dict[str, np.ndarray]:
    """Return the scores of the validation, an array (M,) for each name."""
    metrics = tuple(scorer.metrics.values())
    parts = scorer.parts(
        functools.partial(_scores_of_members, scorer.net, scorer.loss, metrics, group), params
    )
    members = len(jax.tree.leaves(parts[0])[0])
    each = [
        results(scorer.metrics, [jax.tree.map(lambda leaf, i=i: leaf[i], part) for part in parts])
        for i in range(members)
    ]
    return {name: np.array([scores[name] for scores in each]) for name in each[0]}


def _failures(history: dict[str, np.ndarray], state: TrainState) -> np.ndarray:
    """Return the first step at which the loss of each member was not finite, or 0, (M,).

    For a member whose losses are finite but whose parameters are not, it is the last step.
    """
    members, bad = len(state.step), ~np.isfinite(history["step_loss"])
    if not len(bad):
        return np.zeros(members, int)
    leaves = jax.tree.leaves(split_running(state.params)[0])
    broken = np.any(
        [~np.isfinite(np.asarray(leaf)).reshape(members, -1).all(axis=1) for leaf in leaves], axis=0
    )
    return np.where(bad.any(axis=0), bad.argmax(axis=0) + 1, np.where(broken, len(bad), 0))
