"""The compiled loops of training, which make many steps in one call.

B rows per batch, n rows in all, E epochs in one call, M networks.

There is a loop over rows in memory, one over a stack of batches, and one over many networks. Each
takes the step, the state to start from, and a span: the first step to make and the one after the
last. The span is an array, so that one program can make any number of steps.

The first two can also be taken one step a call, by a program without a loop. Within the body of a
loop, XLA for CPU runs the derivatives of a convolution up to twenty times slower than outside
(https://github.com/jax-ml/jax/issues/12868). The hand-derived ones are written in a form that it
runs fast everywhere; those that JAX derives are not, so that ``method="auto"`` needs this.
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

from jaxnn.layers.convolution import CONVOLUTIONS
from jaxnn.programs import KEPT, named
from jaxnn.training.batching import Batch
from jaxnn.training.train_step import TrainState, TrainStep
from jaxnn.types import AnyArray, Params, split_running
from jaxnn.values import children

SMALL = 2**16  # an array of at most so many numbers costs more to compile than to copy
Span = Int[np.ndarray, "2"]


class Chunk(NamedTuple):
    """The result of a compiled loop.

    Attributes:
        state: the state after the last step of the loop.
        losses: one entry per step, in an array that may have more entries than steps were made.
        finite: whether all trained parameters are finite.
    """

    state: TrainState
    losses: AnyArray
    finite: Array


class CompiledLoop:
    """A loop that is compiled once for a step and the shapes of its arrays.

    Args:
        loop: one of the functions below.
        *static: the names of its arguments that are plain numbers.
        rows: a function ``(i, **data)`` that returns arrays, and the rows of them on which step i
            trains.
        one_by_one: whether the steps may be made in calls of their own, where that is faster.
    """

    def __init__(
        self,
        loop: Callable[..., Chunk],
        *static: str,
        rows: Callable[..., Any],
        one_by_one: bool = True,
    ) -> None:
        self._keeping = _programs(loop, static_argnames=static)
        self._in_place = _programs(loop, static_argnames=static, donate_argnames="state")
        self._rows, self._may_go_one_by_one = rows, one_by_one

    def __call__(
        self, step: TrainStep, state: TrainState, span: Span, *, donate: bool = False, **data: Any
    ) -> Chunk:
        """Make the steps of the span; with ``donate``, reuse the memory of the state."""
        if self._may_go_one_by_one and _is_slow_in_a_loop(step):
            return _one_by_one(step, state, span, functools.partial(self._rows, **data), donate)
        programs = self._in_place if donate else self._keeping
        return programs(jax.tree.structure(step))(step, state, span, **data)

    def batch(self, i: int, **data: Any) -> Batch:
        """Return the batch of step i, counted as the span is."""
        arrays, rows = self._rows(i, **data)
        return jax.tree.map(lambda leaf: leaf[rows], arrays)


def _is_slow_in_a_loop(step: TrainStep) -> bool:
    return step.method == "auto" and jax.default_backend() == "cpu" and _has_convolutions(step.net)


def _has_convolutions(net: Any) -> bool:
    inner = (child.layer for child in children(net))
    return isinstance(net, CONVOLUTIONS) or any(map(_has_convolutions, inner))


def _one_by_one(
    step: TrainStep, state: TrainState, span: Span, rows: Callable[[int], Any], donate: bool
) -> Chunk:
    """Make the steps of a span one after another, each in a call of its own."""
    first, stop = map(int, span)
    made, program = [], _ONE_STEP(jax.tree.structure(step))
    state = state if donate else jax.tree.map(jnp.copy, state)  # its memory is used again
    for i in range(first, stop):
        state, loss = program(step, state, *rows(i))
        made.append(loss)
    losses = np.zeros(stop, _no_losses(state, 0).dtype)
    losses[first:] = made
    return Chunk(state, losses, _finite_program(split_running(state.params)[0]))


def _programs(function: Callable[..., Any], **options: Any) -> Callable[[Any], Any]:
    """Return a lookup of compiled programs by the structure of a step, without its numbers.

    A single ``jax.jit`` would compile the same programs and keep them all (:mod:`jaxnn.programs`).
    """

    @functools.lru_cache(maxsize=KEPT)
    def program(_: Any) -> Any:
        return jax.jit(named(function), **options)

    return program


def _one_step(
    step: TrainStep, state: TrainState, data: Batch, rows: Array
) -> tuple[TrainState, Array]:
    state, metrics = step(state, _taken(data, rows))
    return state, metrics["loss"]


def _taken(data: Batch, rows: Array) -> Batch:
    return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data)


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
        state, metrics = step(carry.state, _taken(data, rows))
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
    return Chunk(*carry, _finite(split_running(carry.state.params)[0]))


def _finite(trained: Params) -> Array:
    """Return whether all numbers are finite.

    Small arrays are joined first. To check each by itself took a fifth of the time to compile the
    training of a ResNet.
    """
    leaves = jax.tree.leaves(trained)
    small = [leaf.ravel() for leaf in leaves if leaf.size <= SMALL]
    large = [leaf for leaf in leaves if leaf.size > SMALL]
    parts = large + ([jnp.concatenate(small)] if small else [])
    return jnp.stack([jnp.isfinite(part).all() for part in parts] or [jnp.array(True)]).all()


# ── The rows of a single step ─────────────────────────────────────────────────────────────────────


def rows_of_an_epoch(i: int, *, data: Batch, orders: np.ndarray, batch_size: int) -> Any:
    """Return the data, and the rows of step i of :func:`over_rows`."""
    epoch, step = divmod(i, -(-orders.shape[1] // batch_size))
    return data, orders[epoch, step * batch_size : (step + 1) * batch_size]


def rows_of_first_member(
    i: int, *, data: Batch, orders: np.ndarray, batch_size: int, **_: Any
) -> Any:
    """Return the data, and the rows of step i for the first member of :func:`over_members`."""
    return rows_of_an_epoch(i, data=data, orders=orders[0], batch_size=batch_size)


def batch_of_a_stack(i: int, *, batches: Batch) -> Any:
    """Return the stack, and the number of the batch of step i of :func:`over_stack`."""
    return batches, np.int32(i)


ROWS = CompiledLoop(over_rows, "batch_size", rows=rows_of_an_epoch)
STACK = CompiledLoop(over_stack, rows=batch_of_a_stack)
MEMBERS = CompiledLoop(
    over_members, "batch_size", "group", rows=rows_of_first_member, one_by_one=False
)
_ONE_STEP = _programs(_one_step, donate_argnames="state")
_finite_program = jax.jit(_finite)
