"""The compiled loops of training, which make many steps in one call.

B rows per batch, n rows in all, E epochs in one call, M networks.

There is a loop over rows in memory, one over a stack of batches, and one over many networks. Each
takes the step, the state to start from, and a span: the first step to make and the one after the
last. The span is an array, so that one program can make any number of steps.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, PyTree

from jaxnn.programs import Programs
from jaxnn.training.batching import Batch
from jaxnn.training.train_step import TrainState, TrainStep
from jaxnn.types import split_running

Span = Int[np.ndarray, "2"]


class Chunk(NamedTuple):
    """The result of a compiled loop.

    Attributes:
        state: the state after the last step of the loop.
        losses: one entry per step, in an array that may have more entries than steps were made.
        finite: whether all trained parameters are finite.
    """

    state: TrainState
    losses: Array
    finite: Array


class CompiledLoop:
    """A loop that is compiled once for a step and the shapes of its arrays.

    Args:
        loop: one of the functions below.
        *static: the names of its arguments that are plain numbers.
    """

    def __init__(self, loop: Callable[..., Chunk], *static: str) -> None:
        compile_ = functools.partial(Programs, _by_step(loop), settings=1, static_argnames=static)
        self._keeping, self._in_place = compile_(), compile_(donate_argnames="state")

    def __call__(
        self, step: TrainStep, state: TrainState, span: Span, *, donate: bool = False, **data: Any
    ) -> Chunk:
        """Make the steps of the span; with ``donate``, reuse the memory of the state."""
        programs = self._in_place if donate else self._keeping
        return programs.of(jax.tree.structure(step))(step, state, span, **data)


def _by_step(loop: Callable[..., Chunk]) -> Callable[..., Chunk]:
    """Add an argument that chooses the program: the structure of the step, without its numbers."""

    @functools.wraps(loop)
    def run(_: Any, step: TrainStep, state: TrainState, span: Array, **data: Any) -> Chunk:
        return loop(step, state, span, **data)

    return run


class _Carry(NamedTuple):
    state: TrainState
    losses: Array


def over_rows(
    step: TrainStep, state: TrainState, span: Array, *, data: Batch, orders: Array, batch_size: int
) -> Chunk:
    """Train on shuffled rows: full batches, then the remaining rows of an epoch as a smaller one.

    Args:
        step: one step of training.
        state: the state to start from.
        span: the steps to make, counted from the first step of the first of these epochs.
        data: the n rows.
        orders: the order of the rows in each epoch, (E, n).
        batch_size: B.
    """
    epochs, n = orders.shape
    full, rest = divmod(n, batch_size)
    length = full + bool(rest)
    flat = orders.reshape(-1)
    carry = _Carry(state, _no_losses(state, epochs * length))

    def train_on(i: Array, carry: _Carry, *, size: int, first_step: Any, first_row: Any) -> _Carry:
        rows = lax.dynamic_slice_in_dim(flat, first_row + (i - first_step) * size, size)
        batch = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data)
        state, metrics = step(carry.state, batch)
        return _Carry(state, _noted(carry.losses, i, metrics["loss"]))

    if not rest:
        every_step = functools.partial(train_on, size=batch_size, first_step=0, first_row=0)
        return _chunk(lax.fori_loop(span[0], span[1], every_step, carry))

    def epoch(e: Array, carry: _Carry) -> _Carry:
        first_step, first_row, last = e * length, e * n, e * length + full
        begin, end = jnp.maximum(span[0], first_step), jnp.minimum(span[1], last)
        in_full = functools.partial(
            train_on, size=batch_size, first_step=first_step, first_row=first_row
        )
        carry = lax.fori_loop(begin, end, in_full, carry)
        remains = functools.partial(
            train_on, last, size=rest, first_step=last, first_row=first_row + full * batch_size
        )
        return lax.cond((span[0] <= last) & (last < span[1]), remains, lambda carry: carry, carry)

    return _chunk(lax.fori_loop(span[0] // length, (span[1] - 1) // length + 1, epoch, carry))


def over_stack(step: TrainStep, state: TrainState, span: Array, *, batches: Batch) -> Chunk:
    """Train on batches that are stacked along a new first axis."""

    def train_on(i: Array, carry: _Carry) -> _Carry:
        batch = jax.tree.map(
            lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), batches
        )
        state, metrics = step(carry.state, batch)
        return _Carry(state, _noted(carry.losses, i, metrics["loss"]))

    count = len(jax.tree.leaves(batches)[0])
    carry = _Carry(state, _no_losses(state, count))
    return _chunk(lax.fori_loop(span[0], span[1], train_on, carry))


def over_members(
    step: TrainStep,
    state: TrainState,
    span: Array,
    *,
    data: Batch,
    weights: Array | None,
    orders: Array,
    batch_size: int,
    group: int,
    constants: tuple[Array | None, ...] = (),
) -> Chunk:
    """Train M networks on the same rows, group after group; the members of a group are parallel.

    Args:
        step: one step of training, the same for all networks but for the constants below.
        state: the states of all networks, stacked along a new first axis.
        span: the steps to make.
        data: the n rows, which all networks share.
        weights: the weight of each row for each member, (M, n), or None.
        orders: the order of the rows in each epoch for each member, (M, E, n).
        batch_size: B.
        group: the number of networks to train in parallel, 1 for one after another, M for all at
            once.
        constants: for each constant of the optimizer, its values for all networks, (M,), or None if
            all have that of the step; () if this is so for every constant.
    """

    def member(one: tuple[TrainState, Array | None, Array, tuple[Array | None, ...]]) -> Chunk:
        state, weights, orders, constants = one
        mine = data if weights is None else data._replace(weights=weights)
        numbers = [
            shared if varied is None else varied
            for shared, varied in itertools.zip_longest(step.constants, constants)
        ]
        own = dataclasses.replace(step, constants=tuple(numbers))
        return over_rows(own, state, span, data=mine, orders=orders, batch_size=batch_size)

    each: PyTree = (state, weights, orders, constants)
    return lax.map(member, each) if group == 1 else lax.map(member, each, batch_size=group)


def _noted(losses: Array, i: Array, loss: Array) -> Array:
    return losses.at[i].set(loss.astype(losses.dtype), mode="promise_in_bounds")


def _no_losses(state: TrainState, count: int) -> Array:
    trained = jax.tree.leaves(split_running(state.params)[0])
    return jnp.zeros(count, jnp.result_type(jnp.float32, *trained))


def _chunk(carry: _Carry) -> Chunk:
    leaves = jax.tree.leaves(split_running(carry.state.params)[0])
    finite = [jnp.isfinite(leaf).all() for leaf in leaves]
    return Chunk(*carry, jnp.stack(finite).all() if finite else jnp.array(True))


ROWS = CompiledLoop(over_rows, "batch_size")
STACK = CompiledLoop(over_stack)
MEMBERS = CompiledLoop(over_members, "batch_size", "group")
