"""The compiled loops of training: many steps in one call, over rows in memory, a stack of batches, or many networks.

B rows a batch, n rows in all, E epochs in one call, M networks.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from jaxnn.backprop import Method
from jaxnn.checks import InputError
from jaxnn.training.batching import Batch
from jaxnn.training.constant_hoisting import Program
from jaxnn.training.optimizers import take_apart_update
from jaxnn.training.train_step import TrainState, TrainStep
from jaxnn.types import Layer, Loss, split_running


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
        program, numbers = take_apart_update(step.optimizer, opt_state, trained)
    except TypeError as error:
        raise InputError(f"fit: expected an optimizer that updates from gradient and value, got: {error}") from error
    return Plan(step.net, step.loss, program, step.method, step.precision), numbers


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
