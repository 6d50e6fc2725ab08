"""The feeds of the loop: rows in memory, the same rows for many networks, or a stream of batches.

A feed only determines what the next compiled call does; :mod:`jaxnn.training.loop` makes the call.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnn.training.batching import Batch, Stack, ahead, epoch_order, on_device, padded_size
from jaxnn.training.compiled_loops import MEMBERS, ROWS, STACK, Chunk
from jaxnn.training.processes import rows_of_all
from jaxnn.training.train_step import TrainStep
from jaxnn.types import AnyArray

EPOCH_STEPS = 1024  # about the number of steps of the epochs that are passed to one call
PADDED_STEPS = 64  # the same with rows that are filled up, at the least


class Loop(Protocol):
    """What makes the steps of a span, and tells on which batch each is made."""

    def __call__(self, *args: Any, **data: Any) -> Chunk:
        """Make the steps: ``loop(step, state, span, donate=donate, **data)``."""

    def batch(self, *args: Any, **data: Any) -> Batch:
        """Return the batch of step i, counted as the span is: ``loop.batch(i, **data)``."""


class Work(NamedTuple):
    """The work of one compiled call.

    Attributes:
        loop: the compiled loop, a :class:`~jaxnn.training.compiled_loops.CompiledLoop` or the like.
        data: the arguments of the loop that hold its data.
        first: the first step to make, counted from the beginning of these data.
        rows: the number of rows in the batch of each step to make, one entry per step.
        ends_epoch: whether an epoch of the data ends with this call.
        donate: whether the call reuses the memory of the state that it starts from.
    """

    loop: Loop
    data: dict[str, Any]
    first: int
    rows: np.ndarray
    ends_epoch: bool
    donate: bool = False

    @property
    def call(self) -> Callable[[TrainStep, Any, np.ndarray], Chunk]:
        """The loop with its data, a function of a step, a state, and a span."""
        return functools.partial(self.loop, donate=self.donate, **self.data)

    def span(self, steps: int | None = None) -> np.ndarray:
        """Return the first step and the one after the last, of all steps or the first few."""
        steps = len(self.rows) if steps is None else steps
        return np.array([self.first, self.first + steps], np.int32)

    def losses(self, chunk: Chunk) -> np.ndarray:
        """Return the losses of the steps, with the steps along the first axis."""
        losses = np.moveaxis(np.asarray(chunk.losses), -1, 0)
        return losses[self.first : self.first + len(self.rows)]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from the first one of this work."""
        return self.loop.batch(self.first + step, **self.data)


class Feed(Protocol):
    """The source of the work of a training run.

    Attributes:
        donate: whether the calls reuse the memory of the state that they start from.
    """

    donate: bool

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

    Attributes:
        used: the number of rows of which an epoch consists.
        steps: the number of steps of an epoch.
        at_once: the number of epochs whose orders are passed to one compiled call.
    """

    def __init__(
        self, n: int, batch_size: int, seeds: list[list[int]] | None, *, drop_last: bool
    ) -> None:
        self.batch_size = batch_size
        self.used = n - n % batch_size if drop_last else n
        self.steps = -(-self.used // batch_size)
        self.at_once = max(1, EPOCH_STEPS // self.steps)
        self._n, self._seeds = n, seeds
        self._drawn: dict[int, np.ndarray] = {}

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return the number of rows in the batch of each step."""
        last = self.used - (self.steps - 1) * self.batch_size
        is_last = np.arange(start, stop) % self.steps == self.steps - 1
        return np.where(is_last, last, self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of the rows in one epoch for each member, (members, used)."""
        if self._seeds is None:
            return np.arange(self.used, dtype=np.int32)[None]
        if epoch not in self._drawn:
            each = [epoch_order(seed, epoch, self._n)[: self.used] for seed in self._seeds]
            self._drawn[epoch] = np.stack(each)
        return self._drawn[epoch]

    def orders(self, epochs: range) -> np.ndarray:
        """Return the orders of some epochs for a single network, (at_once, used)."""
        orders = np.zeros((self.at_once, self.used), np.int32)
        for i, epoch in enumerate(epochs):
            orders[i] = self.order(epoch)[0]
        return orders

    def draw(self, start: int, stop: int) -> None:
        """Draw the orders of some epochs ahead of time, and discard all others."""
        self._drawn = {epoch: self.order(epoch) for epoch in range(start, stop)}


class PaddedEpochs(Epochs):
    """The same division where the last batch of an epoch is filled up with a row of weight 0.

    A compiled loop then does not depend on the number of rows: the data have one of a few sizes,
    with at least one row of weight 0 after the n rows, and the orders of all epochs of a call stand
    one after another in an array of a fixed size.
    """

    def __init__(
        self, n: int, batch_size: int, seeds: list[list[int]] | None, *, drop_last: bool
    ) -> None:
        super().__init__(n, batch_size, seeds, drop_last=drop_last)
        self._call_steps = padded_size(self.steps, PADDED_STEPS)
        self.at_once = self._call_steps // self.steps

    def orders(self, epochs: range) -> np.ndarray:
        """Return the orders of some epochs in a single row, as if they were one epoch."""
        orders = np.full((self._call_steps, self.batch_size), self.used, np.int32)
        for i, epoch in enumerate(epochs):
            steps = orders[i * self.steps : (i + 1) * self.steps].reshape(-1)
            steps[: self.used] = self.order(epoch)[0]
        return orders.reshape(1, -1)


class RowsFeed:
    """The feed of a single network from arrays in memory.

    Args:
        data: the n rows, and for :class:`PaddedEpochs` some of weight 0 after them.
        epochs: the division of the n rows into steps.
        donate: whether a call may reuse the memory of the state that it starts from.
    """

    def __init__(self, data: Batch, epochs: Epochs, *, donate: bool) -> None:
        self.donate = donate
        self._data, self._epochs = on_device(data), epochs
        self._coming = range(0)

    def work(self, position: int, most: int) -> Work:
        """Return the work of several epochs, with their orders in an array of a fixed size."""
        steps = self._epochs.steps
        first = position // steps
        end = min(position + most, (first + self._epochs.at_once) * steps)
        last = -(-end // steps)
        self._coming = range(last - 1, 2 * last - first)  # the last one may be needed again
        data = {
            "data": self._data,
            "orders": self._epochs.orders(range(first, last)),
            "batch_size": self._epochs.batch_size,
        }
        rows = self._epochs.rows(position, end)
        return Work(ROWS, data, position - first * steps, rows, end % steps == 0, self.donate)

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
        epochs: the division of the rows into steps.
        members: M.
        group: the number of members to train in parallel.
    """

    donate = False

    def __init__(
        self, data: Batch, weights: AnyArray | None, epochs: Epochs, *, members: int, group: int
    ) -> None:
        self._shared = {
            "data": on_device(data),
            "weights": None if weights is None else jnp.asarray(weights),
            "batch_size": epochs.batch_size,
            "group": group,
        }
        self._epochs, self._members = epochs, members
        self._coming = 0

    def work(self, position: int, most: int) -> Work:
        """Return the work of one epoch, or of what remains of it."""
        epoch, first = divmod(position, self._epochs.steps)
        end = min(position + most, (epoch + 1) * self._epochs.steps)
        order = self._epochs.order(epoch)[:, None]
        orders = np.broadcast_to(order, (self._members, 1, self._epochs.used))
        self._coming = epoch + 1
        rows = self._epochs.rows(position, end)
        ends_epoch = end % self._epochs.steps == 0
        return Work(MEMBERS, self._shared | {"orders": orders}, first, rows, ends_epoch)

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
        self.donate = donate
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
        rows = np.full(self._made - first, size)
        ends_pass = self._stack.ends_pass and self._made == self._stack.filled
        return Work(STACK, {"batches": batches}, first, rows, ends_pass, self.donate)

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
