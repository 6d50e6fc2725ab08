"""Many networks in one program: seeds, hyperparameters, initial scales and folds as a batch axis.

M members, n rows. Each member is trained as :func:`jaxnn.training.fit.fit` would train it alone, with its
own parameters, optimizer, shuffles and dropout.
"""

import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.backprop import Method
from jaxnn.checks import InputError, check_choice, check_finite
from jaxnn.training.batching import Batch, as_batch, is_stream, rows_of
from jaxnn.training.checkpoint import Checkpoints, as_checkpoints
from jaxnn.training.compiled_loops import Plan, make_plan
from jaxnn.training.constant_hoisting import Program
from jaxnn.training.evaluation import ROWS, Scorer, check_rows, check_targets, in_batches, make_scorer, results, score
from jaxnn.training.feeds import Members
from jaxnn.training.fit import Fit, check_batch_size, check_counts, describe_run, losing_nothing
from jaxnn.training.loop import Callback, Loop
from jaxnn.training.metrics import probabilities
from jaxnn.training.optimizers import take_apart_init
from jaxnn.training.train_step import TrainState, train_step
from jaxnn.types import Layer, Loss, Params, join_running, split_running


@dataclasses.dataclass(frozen=True)
class Population:
    """Trained networks, indexed by member: ``population[3]`` is a :class:`jaxnn.training.fit.Fit`.

    Attributes:
        net: the network.
        loss: its objective.
        state: the states of all members, stacked along a new first axis of M.
        history: arrays as of a fit, those of losses and scores with one more axis of M at the end.
        failed: for each member, the step at which its loss was not finite, or 0 if it always was, (M,).
        group: how many members were trained side by side: 1 for ``lax.map``, M for ``vmap``.
        stopped: why training ended: "completed", "callback", or "" for an error.
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
        if not -len(self) <= member < len(self):
            raise IndexError(f"population: expected a member below {len(self)}, got {member}.")
        state = jax.tree.map(lambda leaf: leaf[member], self.state)
        history = {name: values if values.ndim == 1 else values[:, member] for name, values in self.history.items()}
        return Fit(self.net, self.loss, state.params, state, history, self.stopped)

    def best(self, by: str = "validation_loss", mode: str = "min") -> int:
        """Give the member whose last entry in the history is the best, of those that did not fail.

        Args:
            by: the name of the entry, such as "loss", "validation_loss" or "validation_accuracy".
            mode: "min" if lower is better, "max" if higher is.

        Raises:
            InputError: for an unknown entry or mode, or if every member failed.
        """
        check_choice("Population.best", "by", by, tuple(sorted(set(self.history) - {"step", "step_loss"})))
        check_choice("Population.best", "mode", mode, ("min", "max"))
        last = self.history[by][-1] * (1 if mode == "min" else -1)
        good = (self.failed == 0) & np.isfinite(last)
        if not good.any():
            raise InputError("Population.best: expected at least one member that did not fail, got none.")
        return int(np.where(good, last, np.inf).argmin())

    def predict_members(self, x: PyTree, *, batch_size: int = ROWS) -> PyTree:
        """Run every member in inference mode: (M, n, ...)."""
        check_rows("Population.predict_members", self.net, x, batch_size)
        run = functools.partial(_outputs_of_members, self.net, self.group, self.state.params)
        return in_batches(run, x, batch_size, axis=1)

    def predict(self, x: PyTree, *, batch_size: int = ROWS) -> Array:
        """Average what the members that did not fail predict: probabilities, where the loss has them; (n, ...)."""
        outputs = self.predict_members(x, batch_size=batch_size)[self.failed == 0]
        return probabilities(self.loss, outputs).mean(axis=0)


def fit_population(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    keys: PRNGKeyArray,
    hyperparameters: Mapping[str, Any] | None = None,
    initial_scale: Any = None,
    weights: Any = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    validation: Any = None,
    metrics: Any = (),
    every: int | None = None,
    callbacks: tuple[Callback, ...] = (),
    checkpoint: Checkpoints | str | os.PathLike | None = None,
    method: Method = "hand",
    precision: str | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    strategy: str | int = "auto",
    progress: bool | None = None,
) -> Population:
    """Train M networks at once, each equal to its solo run, to rounding.

    A member whose loss is not finite is marked, and harms no other.

    Args:
        net: a layer or network.
        loss: its objective.
        optimizer: any of optax.
        data: (x, target) or (x, target, weights), shared by all members.
        keys: a PRNG key a member, (M,), such as ``jax.random.split(key, M)``.
        hyperparameters: values a member, (M,), of what ``optax.inject_hyperparams`` made variable: for
            ``optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)`` a "learning_rate".
        initial_scale: a factor a member, (M,), on its initial weights (the arrays of two axes or more).
        weights: how much each row counts for each member, (M, n): 0 for the rows that a fold holds out.
        epochs: as of :func:`jaxnn.training.fit.fit`; so are all others that are not named here.
        steps: see there.
        batch_size: see there.
        validation: see there.
        metrics: see there.
        every: see there.
        callbacks: see there.
        checkpoint: see there.
        method: see there.
        precision: see there.
        shuffle: see there; each member has orders of its own.
        drop_last: see there.
        strategy: "vmap" for all members side by side, "map" for one after another, a number for so many at
            a time; "auto" measures, and takes the fastest.
        progress: see there.

    Returns:
        The trained members, see :class:`Population`.

    Raises:
        InputError: for arguments that do not fit, before any work is done.
        TrainingError: for an error on the way; with the result so far.
        TrainingInterrupted: when interrupted from the keyboard; with the result so far.
    """
    step = train_step(net, loss, optimizer, method=method, precision=precision)
    check_counts("fit_population", epochs, steps, every)
    if is_stream(data):
        raise InputError(f"fit_population: expected data as arrays, got {type(data).__name__}.")
    data = as_batch("fit_population", data)
    batch_size = check_batch_size("fit_population", batch_size, rows_of(data))
    members = _count(keys)
    if weights is not None:
        weights = _per_member("weights", weights, (members, rows_of(data)), at_least=0)
    hyperparameters = {
        name: _per_member(f"hyperparameter {name!r}", values, (members,))
        for name, values in (hyperparameters or {}).items()
    }
    scale = None if initial_scale is None else _per_member("initial_scale", initial_scale, (members,))
    states = _initial(net, step.optimizer, data.x, keys, scale, hyperparameters)
    one = jax.tree.map(lambda leaf: leaf[0], states)
    check_targets("fit_population", net, loss, one.params, data)
    scorer = make_scorer("fit_population", net, loss, one.params, validation, metrics)
    plan, numbers = make_plan(step, one)
    group = _choose(strategy, plan, numbers, batch_size, data, weights, states)
    loop = Loop(
        states,
        score=scorer and functools.partial(_score_members, scorer, group),
        callbacks=tuple(callbacks),
        checkpoints=as_checkpoints("fit_population", checkpoint),
        about=describe_run(plan, rows_of(data), batch_size)
        | {"members": members, "hyperparameters": {name: v.tolist() for name, v in hyperparameters.items()}},
    )
    loop.resume()
    order_keys = states.key if shuffle else None
    source = Members(plan, numbers, data, weights, batch_size, order_keys, drop_last, members, group)
    total = steps if epochs is None else epochs * source.epoch_steps

    def result() -> Population:
        history = loop.arrays()
        return Population(net, loss, loop.state, history, _failures(history, loop.state), group, loop.stopped)

    with losing_nothing("fit_population", result):
        loop.run(source, total=total, every=every or source.epoch_steps, show=progress)
    return result()


# ── The members' first states ───────────────────────────────────────────────────────────────────


def _initial(
    net: Layer, optimizer: Any, x: PyTree, keys: Any, scale: Any, hyperparameters: dict[str, np.ndarray]
) -> TrainState:
    """Make what ``init_state`` makes for each key, with the hyperparameters put in their places."""
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(leaf.dtype)), x)
    leaves, structure = jax.tree.flatten(example)
    params, run_keys = _draw(net, tuple(leaves), structure, keys, scale)
    program, numbers = take_apart_init(optimizer, split_running(jax.tree.map(lambda leaf: leaf[0], params))[0])
    opt_state = _init_optimizers(program, numbers, split_running(params)[0])
    for name, values in hyperparameters.items():
        places = optax.tree_utils.tree_get_all_with_path(opt_state, name)
        if not places:
            raise InputError(
                f"fit_population: expected hyperparameter {name!r} in the optimizer's state, got none: "
                f"make it variable, as in optax.inject_hyperparams(optax.adam)({name}=...)."
            )
        opt_state = optax.tree_utils.tree_set(opt_state, **{name: jnp.asarray(values, places[0][1].dtype)})
    return TrainState(params, opt_state, run_keys, jnp.zeros(len(keys), jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _draw(net: Layer, leaves: Any, structure: Any, keys: Any, scale: Any) -> tuple[Params, Any]:
    x = jax.tree.unflatten(structure, leaves)

    def member(key: Any, scale: Any) -> tuple[Params, Any]:
        init_key, run_key = jax.random.split(key)
        params = net.init(init_key, x)
        if scale is None:
            return params, run_key
        trained, running = split_running(params)
        scaled = jax.tree.map(lambda p: p * scale.astype(p.dtype) if p.ndim > 1 else p, trained)
        return join_running(scaled, running), run_key

    return jax.vmap(member)(keys, scale)


@functools.partial(jax.jit, static_argnums=0)
def _init_optimizers(program: Program, numbers: Any, params: Params) -> Any:
    return jax.vmap(lambda params: program(numbers, params))(params)


def _count(keys: Any) -> int:
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed or keys.ndim != 1 or not len(keys):
        got = f"shape {keys.shape} of {keys.dtype}" if hasattr(keys, "shape") else repr(keys)
        raise InputError(f"fit_population: expected keys such as jax.random.split(jax.random.key(0), 8), got {got}.")
    return len(keys)


def _per_member(name: str, values: Any, shape: tuple[int, ...], at_least: float = -math.inf) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != shape:
        raise InputError(f"fit_population: expected {name} of shape {shape}, got {values.shape}.")
    check_finite("fit_population", name, values)
    if values.min() < at_least:
        raise InputError(f"fit_population: expected {name} of at least {at_least}, got {values.min()}.")
    return values


# ── All members in one program ──────────────────────────────────────────────────────────────────

TRIAL_STEPS = 8
GROUPS = (4, 256)  # tried besides one at a time and all at once
_chosen: dict[Any, int] = {}  # what was measured to be the fastest, for a plan and its shapes


def _choose(
    strategy: str | int, plan: Plan, numbers: Any, batch_size: int, data: Batch, weights: Any, states: TrainState
) -> int:
    """Give the number of members to train side by side: as told, or the fastest of a few by trial."""
    members = len(states.step)
    if isinstance(strategy, int) and not isinstance(strategy, bool) and 1 <= strategy <= members:
        return strategy
    check_choice("fit_population", "strategy", strategy, ("auto", "vmap", "map"))
    if strategy != "auto":
        return members if strategy == "vmap" else 1
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves((data, weights, states)))
    if (known := (plan, batch_size, shapes)) not in _chosen:
        seconds = {}
        for group in sorted({1, *(min(size, members) for size in GROUPS), members}):
            source = Members(plan, numbers, data, weights, batch_size, None, False, members, group)
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # too large for the memory
                seconds[group] = min(_trial(source, states) for _ in range(3))
        _chosen[known] = min(seconds, key=lambda group: seconds[group]) if seconds else 1
    return _chosen[known]


def _trial(source: Members, states: TrainState) -> float:
    began = time.perf_counter()
    source.advance(states, 0, TRIAL_STEPS)
    return time.perf_counter() - began


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs_of_members(net: Layer, group: int, params: Params, x: PyTree) -> PyTree:
    return lax.map(lambda params: net.forward(params, x)[0], params, batch_size=group)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _scores_of_members(net: Layer, loss: Loss, metrics: Any, group: int, params: Params, batch: Batch) -> Any:
    return lax.map(lambda params: score(net, loss, metrics, params, batch), params, batch_size=group)


def _score_members(scorer: Scorer, group: int, params: Params) -> dict[str, np.ndarray]:
    """Give what validation does, an array (M,) for each name."""
    metrics = tuple(scorer.metrics.values())
    parts = scorer.parts(functools.partial(_scores_of_members, scorer.net, scorer.loss, metrics, group), params)
    members = len(jax.tree.leaves(parts[0])[0])
    each = [
        results(scorer.metrics, [jax.tree.map(lambda leaf, i=i: leaf[i], part) for part in parts])
        for i in range(members)
    ]
    return {name: np.array([scores[name] for scores in each]) for name in each[0]}


def _failures(history: dict[str, np.ndarray], state: TrainState) -> np.ndarray:
    """Give the first step at which each member was not finite; the last for one that is not finite after it."""
    members, bad = len(state.step), ~np.isfinite(history["step_loss"])
    if not len(bad):
        return np.zeros(members, int)
    leaves = jax.tree.leaves(split_running(state.params)[0])
    broken = np.any([~np.isfinite(np.asarray(leaf)).reshape(members, -1).all(axis=1) for leaf in leaves], axis=0)
    return np.where(bad.any(axis=0), bad.argmax(axis=0) + 1, np.where(broken, len(bad), 0))
