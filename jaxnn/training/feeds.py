"""What feeds the compiled loops: rows in memory, shuffled each epoch, or a stream of batches.

A source trains from one step to a later one, a compiled call at a time, and can say how many rows
each step saw. Its calls last about half a second, so that a bar moves and an interrupt is heard.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.training.batching import Batch, Stack, ahead, epoch_order, on_device, rows_of, shuffle_seeds
from jaxnn.training.compiled_loops import (
    Chunk,
    Plan,
    train_members,
    train_rows,
    train_rows_in_place,
    train_stack,
    train_stack_in_place,
)
from jaxnn.training.train_step import TrainState

SECONDS = 0.5  # how long one compiled call should last
STEPS = 1024  # how many steps' worth of epochs a call may take at once


class Advance(NamedTuple):
    """What one compiled call did.

    Attributes:
        state: after it.
        losses: one a step made.
        whole: whether all its losses, and the parameters after it, are finite.
        replay: gives the state after only so many of its steps, computed again.
        ends_epoch: whether the data were at their end.
    """

    state: TrainState
    losses: np.ndarray
    whole: bool
    replay: Callable[[int], TrainState] | None
    ends_epoch: bool


class Pace:
    """How many steps make a call of the wanted length, from how long the last one took."""

    def __init__(self) -> None:
        self.steps = 4

    def measured(self, steps: int, seconds: float) -> None:
        """Aim at calls of SECONDS; the first, which compiles, misleads only the second."""
        self.steps = max(1, int(steps * SECONDS / max(seconds, 1e-6)))


class Rows:
    """Arrays in memory, n rows: each epoch goes through all of them in a new order.

    Args:
        plan: the compiled loop's.
        numbers: the optimizer's.
        data: n rows.
        batch_size: B.
        key: what the seed of the shuffles is derived from, or None to keep the order.
        drop_last: whether to leave out the rows that do not fill a batch.
        keep: whether to keep the state before each call, to go back to.
    """

    def __init__(
        self, plan: Plan, numbers: Any, data: Batch, batch_size: int, key: Any, drop_last: bool, keep: bool = True
    ) -> None:
        self._plan, self._numbers, self._batch_size, self._keep = plan, numbers, batch_size, keep
        self._seeds = None if key is None else shuffle_seeds(key)
        self._n = rows_of(data)
        self._used = self._n - self._n % batch_size if drop_last else self._n
        self._data = on_device(data)
        self.epoch_steps = -(-self._used // batch_size)
        self._epochs = max(1, STEPS // self.epoch_steps)
        self._orders: dict[int, np.ndarray] = {}  # drawn ahead
        self._pace = Pace()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Give the number of rows that each step saw."""
        last = self._used - (self.epoch_steps - 1) * self._batch_size
        is_last = np.arange(start, stop) % self.epoch_steps == self.epoch_steps - 1
        return np.where(is_last, last, self._batch_size)

    def advance(self, state: TrainState, position: int, until: int) -> Advance:
        """Train from step ``position`` to ``until``, or as far as one call goes."""
        first = position // self.epoch_steps
        end = min(until, position + self._pace.steps, (first + self._epochs) * self.epoch_steps)
        last = -(-end // self.epoch_steps)
        orders = self._buffer(first, last)
        start = position - first * self.epoch_steps
        began = time.perf_counter()
        chunk = self._call(state, orders, np.array([start, start + end - position], np.int32))
        self._draw_ahead(last - 1, 2 * last - first)  # while the device computes
        steps = end - position
        losses = np.moveaxis(np.asarray(chunk.losses), -1, 0)[start : start + steps]  # waits for the device
        self._pace.measured(steps, time.perf_counter() - began)

        def replay(made: int) -> TrainState:
            return self._call(state, orders, np.array([start, start + made], np.int32)).state

        return Advance(
            state=chunk.state,
            losses=losses,
            whole=self._is_whole(chunk, losses),
            replay=replay if self._keep else None,
            ends_epoch=(position + steps) % self.epoch_steps == 0,
        )

    def close(self) -> None:
        """Nothing to let go of."""

    def _call(self, state: TrainState, orders: np.ndarray, span: np.ndarray) -> Chunk:
        program = train_rows if self._keep else train_rows_in_place
        return program(self._plan, self._numbers, self._batch_size, state, self._data, orders, span)

    def _is_whole(self, chunk: Chunk, losses: np.ndarray) -> bool:
        return bool(chunk.finite) and bool(np.isfinite(losses).all())

    def _buffer(self, first: int, last: int) -> np.ndarray:
        """Give the orders of some epochs, in an array that is always of the same size."""
        orders = np.zeros((self._epochs, self._used), np.int32)
        for i in range(last - first):
            orders[i] = self._order(first + i)
        return orders

    def _order(self, epoch: int) -> np.ndarray:
        if self._seeds is None:
            return np.arange(self._used, dtype=np.int32)
        if epoch not in self._orders:
            drawn = [epoch_order(seed, epoch, self._n)[: self._used] for seed in self._seeds]
            self._orders[epoch] = self._together(drawn)
        return self._orders[epoch]

    def _together(self, drawn: list[np.ndarray]) -> np.ndarray:
        return drawn[0]

    def _draw_ahead(self, start: int, stop: int) -> None:
        """Draw the orders that the next call will want; the last one may be needed again."""
        self._orders = {epoch: self._order(epoch) for epoch in range(start, stop)}


class Members(Rows):
    """The same arrays for M networks at once, each of which goes through them in orders of its own.

    Args:
        plan: the compiled loop's.
        numbers: the optimizer's.
        data: n rows, shared.
        weights: how much each row counts for each member, (M, n), or None.
        batch_size: B.
        key: the keys of all members, (M,), or None to keep the order of the rows.
        drop_last: whether to leave out the rows that do not fill a batch.
        group: how many members to train side by side.
    """

    def __init__(
        self,
        plan: Plan,
        numbers: Any,
        data: Batch,
        weights: Any,
        batch_size: int,
        key: Any,
        drop_last: bool,
        members: int,
        group: int,
    ) -> None:
        super().__init__(plan, numbers, data, batch_size, key, drop_last)
        self._weights = None if weights is None else jnp.asarray(weights)
        self._members, self.group = members, group
        self._epochs = 1

    def _call(self, state: TrainState, orders: np.ndarray, span: np.ndarray) -> Chunk:
        data, each = self._data, (state, self._weights, orders)
        return train_members(self._plan, self._numbers, self._batch_size, self.group, data, each, span)

    def _is_whole(self, chunk: Chunk, losses: np.ndarray) -> bool:
        return True  # a member that fails is marked at the end

    def _buffer(self, first: int, last: int) -> np.ndarray:
        order = self._order(first)
        return np.broadcast_to(order.reshape(-1, 1, self._used), (self._members, 1, self._used))

    def _together(self, drawn: list[np.ndarray]) -> np.ndarray:
        return np.stack(drawn)


class Stream:
    """An iterable of batches, taken and stacked in a thread of its own, ahead of the device.

    Args:
        plan: the compiled loop's.
        numbers: the optimizer's.
        items: what :func:`jaxnn.training.batching.stacks` yields.
        position: the step that the first of them starts at.
        keep: whether to keep the state before each call, to go back to.
    """

    epoch_steps = None  # not known

    def __init__(self, plan: Plan, numbers: Any, items: Iterator[Stack], position: int, keep: bool) -> None:
        self._plan, self._numbers, self._keep = plan, numbers, keep
        self._stacks = ahead(items)
        self._stack: Stack | None = None
        self._made = 0  # steps of the present stack
        self._first, self._rows = position, np.zeros(0, int)
        self._pace = Pace()

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Give the number of rows that each step saw."""
        return self._rows[start - self._first : stop - self._first]

    def advance(self, state: TrainState, position: int, until: int) -> Advance | None:
        """Train through the next batches, as many as one call takes; None when there are none."""
        if self._stack is None or self._made == self._stack.filled:
            self._stack, self._made = next(self._stacks, None), 0
        if self._stack is None:
            return None
        stack, made = self._stack, self._made
        to = min(stack.filled, made + self._pace.steps, made + until - position)

        def run(program: Any, to: int) -> Any:
            return program(self._plan, self._numbers, state, stack.batches, np.array([made, to], np.int32))

        began = time.perf_counter()
        chunk = run(train_stack if self._keep else train_stack_in_place, to)
        steps = to - made
        losses = np.asarray(chunk.losses)[made:to]  # waits for the device
        self._pace.measured(steps, time.perf_counter() - began)
        self._made = to
        size = jax.tree.leaves(stack.batches.x)[0].shape[1]
        self._rows = np.concatenate([self._rows, np.full(steps, size)])
        replay = (lambda count: run(train_stack, made + count).state) if self._keep else None
        whole = bool(chunk.finite) and bool(np.isfinite(losses).all())
        return Advance(chunk.state, losses, whole, replay, stack.ends_pass and self._made == stack.filled)

    def close(self) -> None:
        """End the thread."""
        self._stacks.close()
