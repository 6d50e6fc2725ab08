"""Training of networks that differ in their rows, seeds, ends and hyperparameters, in one program.

M members, N rows in all, n rows of a member, C members in a block.

The members are divided into blocks of C, and one compiled program trains any block. On a CPU,
several threads run it at once, each on a block of its own. A member that has come to its end leaves
its block when the others fit into fewer blocks, so that no work is spent on it any more.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.programs import compiled
from jaxnn.training.batching import (
    Batch,
    epoch_order,
    on_device,
    padded,
    padded_size,
    rows_of,
    shuffle_seeds,
)
from jaxnn.training.compiled_loops import MEMBERS, Chunk
from jaxnn.training.early_stopping import EarlyStopping, Patience
from jaxnn.training.evaluation import results, score
from jaxnn.training.feeds import Work
from jaxnn.training.fit import Fit
from jaxnn.training.history import History, Record
from jaxnn.training.hooks import Hook
from jaxnn.training.loop import Run, train
from jaxnn.training.metrics import find
from jaxnn.training.train_step import TrainState, TrainStep
from jaxnn.types import Layer, Loss, Params, split_running

# The members of a block are parallel within a thread. On digits with 32 and 100 hidden units,
# blocks of 4 to 32 are equally fast. It is always the same number, so that a search that has
# eliminated most of its candidates goes on in the program that is already compiled.
BLOCK = 8


@dataclasses.dataclass
class Member:
    """A network in training, with everything that decides its result.

    Attributes:
        step: one step of training, with the optimizer's constants taken out.
        state: the state that it has reached.
        rows: the numbers of the rows that it is trained on, (n,).
        weights: the weight of each of all rows, (N,).
        epochs: the number of epochs in all.
        rule: the rule by which to stop before that, or None.
        held_out: the numbers of the rows to score it on after each epoch, (h,), or None.
        records: the loss of each epoch so far, and the scores.
        stopped: the reason why training ended, as in a :class:`Fit`; "" before that.
        best: the parameters of the best epoch so far, if the rule restores them.
    """

    step: TrainStep
    state: TrainState
    rows: np.ndarray
    weights: np.ndarray
    epochs: int
    rule: EarlyStopping | None = None
    held_out: np.ndarray | None = None
    records: list[Record] = dataclasses.field(default_factory=list)
    stopped: str = ""
    best: Params = None

    def __post_init__(self) -> None:
        self._patience = None if self.rule is None else Patience(self.rule)

    def take(self, record: Record) -> bool:
        """Take the record of the next epoch into account; return whether to keep its parameters."""
        self.records.append(record)
        if not np.isfinite(record["loss"]):
            self.stopped = "failed"
        if self.rule is None or self._patience is None or self.stopped:
            return False
        self._patience.take(record[self.rule.monitor])
        if self._patience.exhausted:
            self.stopped = "early stopping"
        return self.rule.restore_best and self._patience.improved

    @property
    def active(self) -> bool:
        """Whether it has to be trained further."""
        return not self.stopped and len(self.records) < self.epochs

    @property
    def failed(self) -> bool:
        """Whether a loss or a parameter is not finite."""
        leaves = jax.tree.leaves(split_running(self.state.params)[0])
        return self.stopped == "failed" or not all(np.isfinite(leaf).all() for leaf in leaves)

    def fit(self) -> Fit:
        """Return the result so far."""
        history = {
            name: np.array([record[name] for record in self.records])
            for name in (self.records[0] if self.records else ())
        }
        params = self.state.params if self.best is None else self.best
        stopped = self.stopped or "completed"
        return Fit(self.step.net, self.step.loss, params, self.state, history, stopped)


def train_members(
    who: str,
    members: Sequence[Member],
    data: Batch,
    batch_size: int,
    *,
    shuffle: bool,
    pad_rows: bool,
    metrics: Sequence[str] = (),
    progress: bool | None = None,
    title: str | None = None,
    save: Callable[[], None] | None = None,
    save_every: int = 1,
) -> None:
    """Train members until each has come to its end, and keep their states and records in them.

    Each result is that of training the member alone by :func:`jaxnn.training.fit.fit`, up to
    rounding. A member whose loss is not finite is stopped, and does not affect the others.

    Args:
        who: the function that the user called, for errors.
        members: the members. Their steps have the same structure, they have made as many epochs as
            each other, and their rows fill as many batches.
        data: the N rows, with weights that count for the rows that are held out.
        batch_size: B.
        shuffle: whether to draw a new order of the rows for each epoch.
        pad_rows: whether the last batch of an epoch is filled up with rows of weight 0. Otherwise
            all members have as many rows as each other.
        metrics: the scores on the rows that are held out, of which all members have as many.
        progress: whether to show a progress bar; None to show it on a terminal and in a notebook.
        title: what stands before the bar; by default ``who``.
        save: called when the members have the states that they have reached, or None.
        save_every: the number of epochs from one call of ``save`` to the next.

    Raises:
        TrainingInterrupted: for an interrupt from the keyboard; the members have what they reached.
    """
    blocks = Blocks(members, data, batch_size)
    feed = BlocksFeed(blocks, batch_size, shuffle=shuffle, pad_rows=pad_rows)
    run = Run(members[0].step, blocks.states, History(int(members[0].state.step)))
    hooks: list[Hook] = [EndMembers(blocks, tuple(metrics))]
    if save is not None:
        hooks.append(SaveMembers(blocks, save, save_every))
    train(
        who,
        run,
        feed,
        hooks,
        lambda: blocks.keep_active(run.state),
        total=max(member.epochs for member in members) * feed.steps,
        every=feed.steps,
        require_finite=False,
        progress=progress,
        title=title,
    )


class Blocks:
    """The blocks of members, and the loop that trains them.

    Args:
        members: the members, as in :func:`train_members`.
        data: the N rows.
        batch_size: B.

    Attributes:
        active: the numbers of the members in the blocks.
        n_rows: N.
        states: the first states of the blocks, a tuple of states that are stacked along a new
            first axis of C. It takes the place of a single state in the run.
    """

    def __init__(self, members: Sequence[Member], data: Batch, batch_size: int) -> None:
        self.members, self.n_rows = members, rows_of(data)
        self._data, self._batch_size = on_device(padded(data)), batch_size
        size = rows_of(self._data)
        self._weights = np.zeros((len(members), size), members[0].weights.dtype)
        self._weights[:, : self.n_rows] = [member.weights for member in members]
        each_constant = zip(*(each.step.constants for each in members), strict=True)
        self._varied = [  # the others need not be passed for each member
            not all(np.array_equal(value, values[0]) for value in values)
            for values in each_constant
        ]
        on_cpu = jax.default_backend() == "cpu"
        self._pool = ThreadPoolExecutor(_cores() if on_cpu else 1)
        self._compiled = False
        self._block = BLOCK if on_cpu else padded_size(len(members), BLOCK)
        self.states = self.arrange(list(range(len(members))))

    def arrange(self, active: list[int]) -> Any:
        """Divide some members into blocks, with the states that they have; return the states.

        The last block is filled up with its last member, whose results are used once.
        """
        self.active, size = active, self._block
        parts = [active[i : i + size] for i in range(0, len(active), size)]
        self._places = [np.array(part + part[-1:] * (size - len(part))) for part in parts]
        self._own = [
            (jnp.asarray(self._weights[place]), self._constants(place)) for place in self._places
        ]
        return tuple(_stacked([self.members[m].state for m in place]) for place in self._places)

    def _constants(self, place: np.ndarray) -> tuple[Any, ...]:
        """Return the constants that are not the same for all members, and None for the others."""
        each = zip(*(self.members[m].step.constants for m in place), strict=True)
        return tuple(
            _stack(values) if varied else None
            for values, varied in zip(each, self._varied, strict=True)
        )

    def fits_into_fewer(self, active: list[int]) -> bool:
        """Return whether some members need fewer blocks than there are."""
        return -(-len(active) // self._block) < len(self._places)

    def keep(self, states: Any, which: Sequence[int]) -> None:
        """Keep the present states of some members in them."""
        for m, state in self._each(states, which):
            self.members[m].state = state

    def keep_active(self, states: Any) -> None:
        """Keep the present states of the members that have not ended."""
        self.keep(states, [m for m in self.active if self.members[m].active])

    def keep_best(self, states: Any, which: Sequence[int]) -> None:
        """Keep the present parameters of some members as their best."""
        for m, state in self._each(states, which):
            self.members[m].best = state.params

    def _each(self, states: Any, which: Sequence[int]) -> Iterator[tuple[int, TrainState]]:
        """Iterate over some members with their present states."""
        for place, state in zip(self._places, states, strict=True):
            if set(which) & set(place.tolist()):
                host = on_host(state)
                for i, m in enumerate(place.tolist()):
                    if m in which and m not in place[:i]:
                        own = jax.tree.map(
                            lambda leaf, i=i: leaf[i].copy(),
                            (host.params, host.opt_state, host.step),
                        )
                        yield m, TrainState(own[0], own[1], self.members[m].state.key, own[2])

    def scores(self, states: Any, metrics: tuple[str, ...]) -> dict[int, dict[str, float]]:
        """Return the scores of the active members on their rows that are held out."""
        step, found = self.members[0].step, {}
        known = find("fit", metrics, step.loss)
        kinds = tuple(known.values())
        for place, state in zip(self._places, states, strict=True):
            rows = np.stack([self.members[m].held_out for m in place])
            parts = _scores_of_block(
                step.net, step.loss, kinds, state.params, self._data, jnp.asarray(rows)
            )
            parts = jax.device_get(parts)
            for i, m in enumerate(place.tolist()):
                found[m] = results(known, [jax.tree.map(lambda leaf, i=i: leaf[i], parts)])
        return found

    def __call__(
        self,
        step: TrainStep,
        states: Any,
        span: np.ndarray,
        *,
        donate: bool = False,
        orders: np.ndarray,
    ) -> Chunk:
        """Train every block, and return their states, and the losses (M, steps) of all members."""
        precise = jnp.result_type(float) == jnp.float64  # which each thread has for itself

        def train_block(block: int) -> Chunk:
            weights, constants = self._own[block]
            with jax.enable_x64(precise):
                chunk = MEMBERS(
                    step,
                    states[block],
                    span,
                    donate=donate,
                    data=self._data,
                    weights=weights,
                    orders=orders[self._places[block]],
                    batch_size=self._batch_size,
                    group=self._block,
                    constants=constants,
                )
                return jax.block_until_ready(chunk)

        blocks = iter(range(len(states)))
        chunks = []
        if not self._compiled:  # by one thread alone
            chunks.append(train_block(next(blocks)))
            self._compiled = True
        chunks += self._pool.map(train_block, blocks)
        losses = np.full((len(self.members), chunks[0].losses.shape[1]), np.nan)
        for place, chunk in zip(self._places, chunks, strict=True):
            losses[place] = chunk.losses
        return Chunk(tuple(chunk.state for chunk in chunks), losses, np.array(True))  # type: ignore[arg-type]

    def batch(self, i: int, *, orders: np.ndarray) -> Batch:
        """Return the batch of step i for the first active member."""
        return MEMBERS.batch(
            i, data=self._data, orders=orders[self.active[:1]], batch_size=self._batch_size
        )

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)


class BlocksFeed:
    """The feed of many members, of which each takes its own rows in its own order.

    Args:
        blocks: the members in their blocks.
        batch_size: see :func:`train_members`.
        shuffle: see there.
        pad_rows: see there.

    Attributes:
        steps: the number of steps in an epoch.
    """

    donate = False

    def __init__(self, blocks: Blocks, batch_size: int, *, shuffle: bool, pad_rows: bool) -> None:
        self._blocks, self._batch_size, self._pad = blocks, batch_size, pad_rows
        members = blocks.members
        self._seeds = [shuffle_seeds(each.state.key)[0] if shuffle else None for each in members]
        self._counts = np.array([len(member.rows) for member in members])
        self.steps = -(-int(self._counts[0]) // batch_size)
        self._drawn: dict[int, np.ndarray] = {}
        self._coming = 0

    def work(self, position: int, most: int) -> Work:
        """Return the work of one epoch of all blocks, or of what remains of it."""
        epoch, first = divmod(position, self.steps)
        end = min(position + most, (epoch + 1) * self.steps)
        self._coming = epoch
        rows = np.full((end - position, len(self._counts)), self._batch_size)
        if end == (epoch + 1) * self.steps:
            rows[-1] = self._counts - (self.steps - 1) * self._batch_size
        data = {"orders": self._orders(epoch)}
        return Work(self._blocks, data, first, rows, end % self.steps == 0)

    def prepare(self) -> None:
        """Draw the orders of the next epoch; the present one may be needed again."""
        self._drawn = {epoch: self._orders(epoch) for epoch in (self._coming, self._coming + 1)}

    def close(self) -> None:
        """End the threads."""
        self._blocks.close()

    def _orders(self, epoch: int) -> np.ndarray:
        """Return the order of its rows in one epoch for each active member, (M, 1, rows)."""
        if epoch in self._drawn:
            return self._drawn[epoch]
        members = self._blocks.members
        length = self.steps * self._batch_size if self._pad else int(self._counts[0])
        orders = np.full((len(members), 1, length), self._blocks.n_rows, np.int32)  # of weight 0
        permutations: dict[Any, np.ndarray] = {}  # members of one seed share them
        for m in self._blocks.active:
            rows, seed = members[m].rows, self._seeds[m]
            if seed is not None:
                known = (*seed, len(rows))
                if known not in permutations:
                    permutations[known] = epoch_order(seed, epoch, len(rows))
                rows = rows[permutations[known]]
            orders[m, 0, : len(rows)] = rows
        return orders


class EndMembers(Hook):
    """The hook that ends each member at its own time, and the run when all have ended.

    Args:
        blocks: the members in their blocks.
        metrics: the scores on the rows that are held out.
    """

    def __init__(self, blocks: Blocks, metrics: tuple[str, ...]) -> None:
        self._blocks, self._metrics = blocks, metrics

    def after_record(self, run: Run, record: Record) -> None:
        """Keep the members that have ended, and arrange the others anew if they need less room."""
        blocks, scores = self._blocks, {}
        members = blocks.members
        before = [m for m in blocks.active if members[m].active]
        if members[0].held_out is not None:
            scores = blocks.scores(run.state, self._metrics)
        improved = []
        for m in before:
            own = {f"validation_{name}": value for name, value in scores.get(m, {}).items()}
            if members[m].take({"loss": float(record["loss"][m]), **own}):
                improved.append(m)
        blocks.keep_best(run.state, improved)
        going = [m for m in before if members[m].active]
        blocks.keep(run.state, sorted(set(before) - set(going)))
        if not going:
            run.stop("completed")
        elif blocks.fits_into_fewer(going):
            blocks.keep(run.state, going)
            run.state = blocks.arrange(going)


class SaveMembers(Hook):
    """The hook that has the members saved at regular intervals, and at the end.

    Args:
        blocks: the members in their blocks.
        save: see :func:`train_members`.
        every: the number of epochs from one time to the next.
    """

    def __init__(self, blocks: Blocks, save: Callable[[], None], every: int) -> None:
        self._blocks, self._save, self._every = blocks, save, every

    def after_record(self, run: Run, record: Record) -> None:
        """Save the members if it is time."""
        if len(run.history.records) % self._every == 0:
            self.at_end(run)

    def at_end(self, run: Run) -> None:
        """Save the members, unless the run was interrupted within an epoch."""
        if run.history.recorded == run.history.step:
            self._blocks.keep_active(run.state)
            self._save()


@compiled(settings=3)
def _scores_of_block(
    net: Layer, loss: Loss, metrics: Any, params: Params, data: Batch, rows: Any
) -> Any:
    def member(params: Params, rows: Any) -> Any:
        own = jax.tree.map(lambda leaf: leaf[rows], data)
        return score(net, loss, metrics, params, own)

    return jax.vmap(member)(params, rows)


def _cores() -> int:
    """Return the number of processor cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # of Linux alone
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def on_host(state: TrainState) -> TrainState:
    """Return a state with arrays of NumPy; its key remains where it is."""
    numbers = jax.device_get(state._replace(key=jax.random.key_data(state.key)))
    return numbers._replace(key=state.key)


def _stacked(trees: Sequence[Params]) -> Params:
    """Stack trees of arrays and keys along a new first axis, on the device."""
    return jax.tree.map(lambda *leaves: _stack(leaves), *trees)


def _stack(leaves: tuple[Any, ...]) -> Any:
    if isinstance(leaves[0], jax.Array) and jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        words = [np.asarray(jax.random.key_data(leaf)) for leaf in leaves]
        return jax.random.wrap_key_data(
            jnp.asarray(np.stack(words)), impl=jax.random.key_impl(leaves[0])
        )
    return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))
