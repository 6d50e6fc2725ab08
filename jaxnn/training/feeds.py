"""The feeds of the loop: rows in memory, the same rows for many networks, or a stream of batches.

A feed only determines what the next compiled call does; :mod:`jaxnn.training.loop` makes the call.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnn.training.batching import Batch, Stack, ahead, epoch_order, on_device, padded_size
from jaxnn.training.compiled_loops import MEMBERS, ROWS, STACK, Chunk
from jaxnn.training.processes import rows_of_all
from jaxnn.types import AnyArray

EPOCH_STEPS = 1024  # about the number of steps of the epochs that are passed to one call
PADDED_STEPS = 64  # the same with rows that are filled up, at the least


class Work(NamedTuple):
    """The work of one compiled call.

    Attributes:
        call: the compiled loop with its data: ``call(step, state, span) -> Chunk``.
        first: the first step to make, counted from the beginning of the call's own data.
        rows: the number of rows in the batch of each step to make, one entry per step.
        ends_epoch: whether an epoch of the data ends with this call.
        batch: a function that returns the batch of a step, counted as ``first`` is.
    """

    call: Callable[..., Chunk]
    first: int
    rows: np.ndarray
    ends_epoch: bool
    batch: Callable[[int], Batch]


class Feed(Protocol):
    """The source of the work of a training run."""

    def work(self, position: int, most: int) -> Work | None:
        """Return the work from a step on, at most ``most`` steps; None at the end of the data."""

    def prepare(self) -> None:
        """Prepare the next work; this is called while the device computes."""

    def close(self) -> None:
        """Release the data."""


class Epochs:
    """The division of rows in memory into the steps of an epoch, in a new order for each epoch.

    Args:
        n: the number of rows.
        batch_size: B; the last rows of an epoch form a smaller batch.
        seeds: the seed of each member's shuffles, one for a single network; None to keep the order.
        drop_last: whether to leave out the rows that do not fill a batch.
    """

    def __init__(
        self, n: int, batch_size: int, seeds: list[list[int]] | None, *, drop_last: bool
    ) -> None:
        self.used = n - n % batch_size if drop_last else n
        self.steps = -(-self.used // batch_size)
        self._n, self._batch_size, self._seeds = n, batch_size, seeds
        self._drawn: dict[int, np.ndarray] = {}

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the number of rows in the batch of each step."""
        last = self.used - (self.steps - 1) * self._batch_size
        is_last = np.arange(start, stop) % self.steps == self.steps - 1
        return np.where(is_last, last, self._batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of the rows in one epoch for each member, (members, used)."""
        if self._seeds is None:
            return np.arange(self.used, dtype=np.int32)[None]
        if epoch not in self._drawn:
            each = [epoch_order(seed, epoch, self._n)[: self.used] for seed in self._seeds]
            self._drawn[epoch] = np.stack(each)
        return self._drawn[epoch]

    def batch(self, data: Batch, orders: np.ndarray, step: int) -> Batch:
        """Return the batch of one step, counted from the first of the epochs with these orders."""
        epoch, i = divmod(step, self.steps)
        rows = orders[epoch, i * self._batch_size : (i + 1) * self._batch_size]
        return jax.tree.map(lambda leaf: leaf[rows], data)

    def draw(self, start: int, stop: int) -> None:
        """Draw the orders of some epochs ahead of time, and discard all others."""
        self._drawn = {epoch: self.order(epoch) for epoch in range(start, stop)}


class RowsFeed:
    """The feed of a single network from arrays in memory, n rows.

    Args:
        data: the n rows.
        batch_size: B.
        epochs: the division of the rows into steps.
        donate: whether a call may reuse the memory of the state that it starts from.
    """

    def __init__(self, data: Batch, batch_size: int, epochs: Epochs, *, donate: bool) -> None:
        self._data = on_device(data)
        self._loop = functools.partial(ROWS, data=self._data, batch_size=batch_size, donate=donate)
        self._epochs = epochs
        self._at_once = max(1, EPOCH_STEPS // epochs.steps)
        self._coming = range(0)

    def work(self, position: int, most: int) -> Work:
        """Return the work of several epochs, with their orders in an array of a fixed size."""
        steps, epochs = self._epochs.steps, self._at_once
        first = position // steps
        end = min(position + most, (first + epochs) * steps)
        last = -(-end // steps)
        orders = np.zeros((epochs, self._epochs.used), np.int32)
        for i in range(last - first):
            orders[i] = self._epochs.order(first + i)[0]
        self._coming = range(last - 1, 2 * last - first)  # the last one may be needed again
        return Work(
            functools.partial(self._loop, orders=orders),
            position - first * steps,
            self._epochs.rows(position, end),
            ends_epoch=end % steps == 0,
            batch=functools.partial(self._epochs.batch, self._data, orders),
        )

    def prepare(self) -> None:
        """Draw the orders that the next call will need."""
        self._epochs.draw(self._coming.start, self._coming.stop)

    def close(self) -> None:
        """Do nothing: arrays in memory need no closing."""


class PaddedFeed:
    """The feed of a single network from rows that are filled up with rows of weight 0.

    Its program does not depend on the number of rows: the data have one of a few sizes, and the
    orders of all epochs of a call stand one after another in an array of a fixed size.

    Args:
        data: the n rows, and at least one row of weight 0 after them.
        batch_size: B.
        epochs: the division of the n rows into steps; the last batch of an epoch is filled up.
        donate: whether a call may reuse the memory of the state that it starts from.
    """

    def __init__(self, data: Batch, batch_size: int, epochs: Epochs, *, donate: bool) -> None:
        self._data = on_device(data)
        self._loop = functools.partial(ROWS, data=self._data, batch_size=batch_size, donate=donate)
        self._epochs, self._batch_size = epochs, batch_size
        self._steps = padded_size(epochs.steps, PADDED_STEPS)  # in one call
        self._at_once = self._steps // epochs.steps
        self._coming = range(0)

    def work(self, position: int, most: int) -> Work:
        """Return the work of several epochs."""
        steps = self._epochs.steps
        first = position // steps
        end = min(position + most, (first + self._at_once) * steps)
        last = -(-end // steps)
        n = self._epochs.used
        orders = np.full((self._steps, self._batch_size), n, np.int32)  # row n has the weight 0
        for i in range(last - first):
            epoch = orders[i * steps : (i + 1) * steps].reshape(-1)
            epoch[:n] = self._epochs.order(first + i)[0]
        self._coming = range(last - 1, 2 * last - first)
        return Work(
            functools.partial(self._loop, orders=orders.reshape(1, -1)),
            position - first * steps,
            self._epochs.rows(position, end),
            ends_epoch=end % steps == 0,
            batch=lambda step: jax.tree.map(lambda leaf: leaf[orders[step]], self._data),
        )

    def prepare(self) -> None:
        """Draw the orders that the next call will need."""
        self._epochs.draw(self._coming.start, self._coming.stop)

    def close(self) -> None:
        """Do nothing: arrays in memory need no closing."""


class MembersFeed:
    """The feed of M networks from the same arrays, of which each takes the rows in its own order.

    Args:
        data: the n rows, which all members share.
        weights: the weight of each row for each member, (M, n), or None.
        batch_size: B.
        epochs: the division of the rows into steps.
        members: M.
        group: the number of members to train in parallel.
    """

    def __init__(
        self,
        data: Batch,
        weights: AnyArray | None,
        batch_size: int,
        epochs: Epochs,
        *,
        members: int,
        group: int,
    ) -> None:
        self._data = on_device(data)
        self._loop = functools.partial(
            MEMBERS,
            data=self._data,
            weights=None if weights is None else jnp.asarray(weights),
            batch_size=batch_size,
            group=group,
        )
        self._epochs, self._members = epochs, members
        self._coming = 0

    def work(self, position: int, most: int) -> Work:
        """Return the work of one epoch, or of what remains of it."""
        epoch, first = divmod(position, self._epochs.steps)
        end = min(position + most, (epoch + 1) * self._epochs.steps)
        order = self._epochs.order(epoch)[:, None]
        orders = np.broadcast_to(order, (self._members, 1, self._epochs.used))
        self._coming = epoch + 1
        return Work(
            functools.partial(self._loop, orders=orders),
            first,
            self._epochs.rows(position, end),
            ends_epoch=end % self._epochs.steps == 0,
            batch=functools.partial(self._epochs.batch, self._data, orders[0]),
        )

    def prepare(self) -> None:
        """Draw the orders of the next epoch; the present one may be needed again."""
        self._epochs.draw(self._coming - 1, self._coming + 1)

    def close(self) -> None:
        """Do nothing: arrays in memory need no closing."""


class StreamFeed:
    """The feed from an iterable of batches, read and stacked in a thread of its own.

    The thread works ahead of the device.

    Args:
        items: the stacks that :func:`jaxnn.training.batching.stacks` yields.
        mesh: the devices of several processes, each of which reads its own rows of every batch;
            None where this process reads all rows.
        donate: whether a call may reuse the memory of the state that it starts from.
    """

    def __init__(self, items: Iterator[Stack], *, mesh: Mesh | None = None, donate: bool) -> None:
        self._mesh = mesh
        self._loop = functools.partial(STACK, donate=donate)
        self._stacks = ahead(items)
        self._stack: Stack | None = None
        self._made = 0  # the number of batches of the present stack that were returned as work

    def work(self, position: int, most: int) -> Work | None:
        """Return the work of the next batches, all of which belong to the present stack."""
        if self._stack is None or self._made == self._stack.filled:
            self._stack, self._made = self._next_stack(), 0
        if self._stack is None:
            return None
        batches, first = self._stack.batches, self._made
        self._made = min(self._stack.filled, first + most)
        size = jax.tree.leaves(batches.x)[0].shape[1]
        return Work(
            functools.partial(self._loop, batches=batches),
            first,
            np.full(self._made - first, size),
            ends_epoch=self._stack.ends_pass and self._made == self._stack.filled,
            batch=lambda step: jax.tree.map(lambda leaf: leaf[step], batches),
        )

    def _next_stack(self) -> Stack | None:
        stack = next(self._stacks, None)
        if self._mesh is None:
            return stack
        own = () if stack is None else stack.batches
        about = "the end" if stack is None else f"{stack.filled} {stack.ends_pass}"
        batches = rows_of_all("fit", own, self._mesh, about)
        return None if stack is None else stack._replace(batches=batches)

    def prepare(self) -> None:
        """Do nothing: the thread reads ahead anyway."""

    def close(self) -> None:
        """End the thread."""
        self._stacks.close()
