"""One step of training as a pure function, and the compiled loops that repeat it.

B rows a batch, n rows in all, S full batches an epoch, E epochs in one call.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.backprop import Method, run_pass
from jaxnn.batches import Batch
from jaxnn.checks import InputError, check_choice, check_key
from jaxnn.portable import Program, take_apart
from jaxnn.types import Layer, Loss, Params, join_running, split_running

PRECISIONS = ("bfloat16",)


class TrainState(NamedTuple):
    """Everything that a step of training reads and writes: a pytree.

    Attributes:
        params: the parameters of the network, running statistics among them.
        opt_state: the state of the optimizer, for the trained parameters.
        key: the PRNG key of the run; step number i draws from ``fold_in(key, i)``.
        step: how many steps were made, an int32 scalar.
    """

    params: Params
    opt_state: PyTree
    key: PRNGKeyArray
    step: Array


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """What :func:`train_step` returns: the function ``(state, batch) -> (state, metrics)``."""

    net: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    method: Method
    precision: str | None

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        """Make one step.

        Args:
            state: before it.
            batch: (x, target) or (x, target, weights).

        Returns:
            The state after it, and the metrics {"loss": J before the step}.
        """
        batch = jax.tree.map(jnp.asarray, Batch(*batch))
        trained, running = split_running(state.params)
        params, x = join_running(self._cast(trained), running), self._cast(batch.x)
        key = jax.random.fold_in(state.key, state.step)
        done = run_pass(self.method, self.net, self.loss, params, x, batch.target, batch.weights, key)

        gradient = jax.tree.map(lambda d, p: d.astype(p.dtype), split_running(done.dparams)[0], trained)
        update = optax.with_extra_args_support(self.optimizer).update
        updates, opt_state = update(gradient, state.opt_state, trained, value=done.value, grad=gradient)
        trained = optax.apply_updates(trained, updates)
        params = join_running(trained, split_running(done.params)[1])
        return TrainState(params, opt_state, state.key, state.step + 1), {"loss": done.value}

    def _cast(self, tree: PyTree) -> PyTree:
        """Compute in the precision asked for; the optimizer always sees the full one."""
        if self.precision is None:
            return tree
        is_floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda leaf: leaf.astype(self.precision) if is_floating(leaf) else leaf, tree)


def train_step(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    method: Method = "hand",
    precision: str | None = None,
) -> TrainStep:
    """Make the pure function ``(state, batch) -> (state, metrics)``: for a loop of your own.

    It holds no state, and goes through ``jax.jit``, ``lax.scan`` and ``vmap``; ``fit`` is built on it.
    The network runs in training mode. The state before the first step is made by :func:`init_state`.

    Args:
        net: a layer or network.
        loss: a loss.
        optimizer: any of optax; it is given the trained parameters alone, without running statistics,
            and the value and gradient as extra arguments.
        method: "hand" for the derived backward passes, "auto" for ``jax.grad``.
        precision: "bfloat16" to run forward and backward passes in it, while parameters, optimizer and
            running statistics keep theirs; None to compute in the parameters' own.

    Raises:
        InputError: for what is not a layer, a loss, an optimizer, a method or a precision.
    """
    if not isinstance(net, Layer):
        raise InputError(f"train_step: expected net to be a layer, got {net!r}.")
    if not isinstance(loss, Loss):
        raise InputError(f"train_step: expected loss to be a loss, got {loss!r}.")
    if not isinstance(optimizer, optax.GradientTransformation):
        raise InputError(
            f"train_step: expected optimizer to be an optax.GradientTransformation, got {type(optimizer).__name__}."
        )
    check_choice("train_step", "method", method, ("hand", "auto"))
    if precision is not None:
        check_choice("train_step", "precision", precision, PRECISIONS)
    return TrainStep(net, loss, optimizer, method, precision)


def init_state(
    net: Layer, optimizer: optax.GradientTransformation, x: PyTree, key: PRNGKeyArray, params: Params = None
) -> TrainState:
    """Make the state before the first step.

    Args:
        net: a layer or network.
        optimizer: any of optax.
        x: an example batch, or its ShapeDtypeStruct.
        key: a PRNG key; the parameters are drawn from it, and the run's own key is derived from it.
        params: parameters to start from, instead of new ones.

    Raises:
        InputError: if the key is not one, or x does not fit the network.
    """
    check_key("init_state", key)
    init_key, run_key = jax.random.split(key)
    params = net.init(init_key, x) if params is None else jax.tree.map(jnp.array, params)
    trained = split_running(params)[0]
    program, numbers = take_apart_init(optimizer, trained)
    opt_state = _run_program(program, numbers, trained)
    return TrainState(params, opt_state, run_key, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def _run_program(program: Program, numbers: Any, *args: Any) -> Any:
    return program(numbers, *args)


# ── The compiled loops ──────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a compiled loop depends on apart from arrays: equal plans share one program.

    Attributes:
        net: the network.
        loss: its objective.
        update: the optimizer, its numbers taken out.
        method: the route of the gradient.
        precision: that of the passes.
    """

    net: Layer
    loss: Loss
    update: Program
    method: Method
    precision: str | None

    def step(self, numbers: Any) -> TrainStep:
        """Give the step, with the optimizer's numbers put back in."""

        def update(gradient: Any, opt_state: Any, params: Any, *, value: Any, **_: Any) -> Any:
            return self.update(numbers, gradient, opt_state, params, value)

        optimizer = optax.GradientTransformationExtraArgs(lambda _: None, update)
        return TrainStep(self.net, self.loss, optimizer, self.method, self.precision)


def make_plan(step: TrainStep, state: TrainState) -> tuple[Plan, Any]:
    """Take a step's optimizer apart: into the plan of its program, and the numbers to run it with."""
    trained, opt_state = split_running(state.params)[0], state.opt_state
    try:
        program, numbers = _take_apart_update(step.optimizer, *_specs((trained, opt_state)))
    except TypeError as error:
        raise InputError(f"fit: expected an optimizer that updates from gradient and value, got: {error}") from error
    return Plan(step.net, step.loss, program, step.method, step.precision), numbers


def take_apart_init(optimizer: optax.GradientTransformation, trained: Params) -> tuple[Program, Any]:
    """Take apart how the optimizer makes its first state."""
    return _take_apart_init(optimizer, *_specs(trained))


def _specs(tree: PyTree) -> tuple[Any, Any]:
    """Give what a trace depends on, as something that hashes."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)


@functools.lru_cache(maxsize=64)
def _take_apart_init(optimizer: optax.GradientTransformation, structure: Any, leaves: Any) -> tuple[Program, Any]:
    return take_apart(optimizer.init, jax.tree.unflatten(structure, leaves))


@functools.lru_cache(maxsize=64)
def _take_apart_update(optimizer: optax.GradientTransformation, structure: Any, leaves: Any) -> tuple[Program, Any]:
    def update(gradient: Any, opt_state: Any, params: Any, value: Any) -> Any:
        update = optax.with_extra_args_support(optimizer).update
        return update(gradient, opt_state, params, value=value, grad=gradient)

    trained, opt_state = jax.tree.unflatten(structure, leaves)
    value = jax.ShapeDtypeStruct((), jnp.result_type(jnp.float32, *jax.tree.leaves(trained)))
    return take_apart(update, trained, opt_state, trained, value)


class Chunk(NamedTuple):
    """What a compiled loop gives back.

    Attributes:
        state: after its steps.
        losses: one a step, in an array that may be longer than the steps made.
        finite: whether all trained parameters are finite.
    """

    state: TrainState
    losses: Array
    finite: Array


class _Carry(NamedTuple):
    state: TrainState
    losses: Array


def run_rows(
    plan: Plan, numbers: Any, batch_size: int, state: TrainState, data: Batch, orders: Array, span: Any
) -> Chunk:
    """Train through shuffled rows: full batches, then what remains of an epoch as a smaller one.

    Args:
        plan: what to compile.
        numbers: those of the optimizer.
        batch_size: B.
        state: to start from.
        data: n rows.
        orders: the order of the rows in each epoch, (E, n).
        span: the first step and the one after the last, counted from the first epoch; as arrays, so that
            one program trains any number of steps.
    """
    epochs, n = orders.shape
    full, rest = divmod(n, batch_size)
    length = full + bool(rest)
    flat = orders.reshape(-1)
    step = plan.step(numbers)
    carry = _Carry(state, _no_losses(state, epochs * length))

    def train_on(size: int, start: Array, i: Array, carry: _Carry) -> _Carry:
        rows = lax.dynamic_slice_in_dim(flat, start, size)
        return _advance(step, carry, i, jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data))

    if not rest:
        loop = lax.fori_loop(span[0], span[1], lambda i, carry: train_on(batch_size, i * batch_size, i, carry), carry)
        return _chunk(loop)

    def epoch(e: Array, carry: _Carry) -> _Carry:
        first, start = e * length, e * n
        begin, end, last = jnp.maximum(span[0], first), jnp.minimum(span[1], first + full), first + full

        def in_full(i: Array, carry: _Carry) -> _Carry:
            return train_on(batch_size, start + (i - first) * batch_size, i, carry)

        carry = lax.fori_loop(begin, end, in_full, carry)
        remains = functools.partial(train_on, rest, start + full * batch_size, last)
        return lax.cond((span[0] <= last) & (last < span[1]), remains, lambda carry: carry, carry)

    return _chunk(lax.fori_loop(span[0] // length, (span[1] - 1) // length + 1, epoch, carry))


def run_stack(plan: Plan, numbers: Any, state: TrainState, batches: Batch, span: Any) -> Chunk:
    """Train through batches stacked along a new first axis; the arguments are those of :func:`run_rows`."""
    step = plan.step(numbers)

    def train_on(i: Array, carry: _Carry) -> _Carry:
        batch = jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), batches)
        return _advance(step, carry, i, batch)

    count = len(jax.tree.leaves(batches)[0])
    return _chunk(lax.fori_loop(span[0], span[1], train_on, _Carry(state, _no_losses(state, count))))


def _advance(step: TrainStep, carry: _Carry, i: Array, batch: Batch) -> _Carry:
    state, metrics = step(carry.state, batch)
    loss = metrics["loss"].astype(carry.losses.dtype)
    return _Carry(state, carry.losses.at[i].set(loss, mode="promise_in_bounds"))


def _no_losses(state: TrainState, count: int) -> Array:
    return jnp.zeros(count, jnp.result_type(jnp.float32, *jax.tree.leaves(split_running(state.params)[0])))


def _chunk(carry: _Carry) -> Chunk:
    leaves = jax.tree.leaves(split_running(carry.state.params)[0])
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all() if leaves else jnp.array(True)
    return Chunk(carry.state, carry.losses, finite)


def run_members(plan: Plan, numbers: Any, batch_size: int, group: int, data: Batch, each: Any, span: Any) -> Chunk:
    """Train M networks on the same rows, ``group`` of them side by side, and group after group.

    Args:
        plan: what to compile.
        numbers: those of the optimizer.
        batch_size: B.
        group: 1 for one member after another, M for all at once.
        data: n rows, shared.
        each: the states, the weights of the rows (M, n) or None, and their orders (M, E, n).
        span: the first step and the one after the last.
    """

    def member(one: Any) -> Chunk:
        state, weights, orders = one
        mine = data if weights is None else data._replace(weights=weights)
        return run_rows(plan, numbers, batch_size, state, mine, orders, span)

    return lax.map(member, each) if group == 1 else lax.map(member, each, batch_size=group)


# compiled once for a plan and the shapes of its arrays
train_rows = jax.jit(run_rows, static_argnums=(0, 2))
train_stack = jax.jit(run_stack, static_argnums=0)
train_members = jax.jit(run_members, static_argnums=(0, 2, 3))
train_rows_in_place = jax.jit(run_rows, static_argnums=(0, 2), donate_argnums=3)
train_stack_in_place = jax.jit(run_stack, static_argnums=0, donate_argnums=2)
