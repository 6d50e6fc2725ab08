"""What happens between the compiled calls of training: history, validation, checkpoints, the bar."""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import InputError, check_choice, check_positive_int
from jaxnn.progress import bar
from jaxnn.training.batching import shuffle_seeds
from jaxnn.training.checkpoint import Checkpoints
from jaxnn.training.feeds import Advance
from jaxnn.training.train_step import TrainState
from jaxnn.types import Params, split_running

Record = dict[str, Any]  # "step", "loss", and what validation gave


class Event(NamedTuple):
    """What a callback is told after each record of the history.

    Attributes:
        step: how many steps were made.
        record: the newest entry of the history: "step", "loss", and what validation gave.
        history: all entries so far.
        state: the state, to be read: the next step may reuse its memory.
    """

    step: int
    record: Record
    history: list[Record]
    state: TrainState


Callback = Callable[[Event], Any]  # training stops when it returns True


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop when an entry of the history has not become better for a while.

    Args:
        patience: how many records to wait for an improvement.
        monitor: the entry, such as "loss", "validation_loss" or "validation_accuracy".
        mode: "min" if lower is better, "max" if higher is.
        min_delta: what counts as an improvement, at least 0.
        restore_best: whether the result's parameters are those of the best record, and not the last.

    Raises:
        InputError: for settings out of their range.
    """

    patience: int = 5
    monitor: str = "validation_loss"
    mode: str = "min"
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        check_positive_int("EarlyStopping", "patience", self.patience)
        check_choice("EarlyStopping", "mode", self.mode, ("min", "max"))
        if not 0 <= self.min_delta < math.inf:
            raise InputError(f"EarlyStopping: expected min_delta of at least 0, got {self.min_delta!r}.")

    def best(self, history: list[Record]) -> int:
        """Give the index of the best record: the last that was better than all before it."""
        best, lowest = 0, math.inf
        for i, record in enumerate(history):
            value = record[self.monitor] if self.mode == "min" else -record[self.monitor]
            if value < lowest - self.min_delta:
                best, lowest = i, value
        return best

    def is_over(self, history: list[Record]) -> bool:
        """Whether the wait has been long enough."""
        return bool(history) and len(history) - 1 - self.best(history) >= self.patience


class Source(Protocol):
    """What feeds the loop, see :mod:`jaxnn.training.feeds`."""

    def advance(self, state: TrainState, position: int, until: int) -> Advance | None:
        """Train on from a step, or say that the data are at their end."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Give the number of rows that each step saw."""

    def close(self) -> None:
        """Let go of the data."""


class NotFiniteError(Exception):
    """A loss or a parameter was no longer finite: how it is said within this library."""


class Loop:
    """A run of training, and how far it has come.

    Args:
        state: the one to start from.
        score: what validation gives for parameters.
        callbacks: called after each record.
        early_stopping: when to stop.
        checkpoints: where to save.
        about: what the checkpoints belong to.

    Attributes:
        state: the present one.
        position: the step that it stands at.
        history: the records so far.
        losses: of the steps so far, in pieces.
        best: the parameters of the best record, where early stopping restores them.
        stopped: why the run ended: "" while it has not, "completed", "early stopping" or "callback".
    """

    def __init__(
        self,
        state: TrainState,
        *,
        score: Callable[[Params], Record] | None = None,
        callbacks: tuple[Callback, ...] = (),
        early_stopping: EarlyStopping | None = None,
        checkpoints: Checkpoints | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self._score, self._callbacks, self._early_stopping = score, callbacks, early_stopping
        self._checkpoints, self._about = checkpoints, about or {}
        self.state, self.best, self.stopped = state, None, ""
        self.history: list[Record] = []
        self.losses: list[np.ndarray] = []
        self.position = self._recorded = int(np.ravel(state.step)[0])
        self._saved: int | None = None

    def run(self, source: Source, *, total: int | None, every: int | None, show: bool | None = None) -> None:
        """Train until the end, or until something stops it.

        Args:
            source: the compiled steps and their data.
            total: the step to end at, or None for the end of the data.
            every: steps between two records, or None for the ends of the data's epochs.
            show: whether to show a bar; None to show it where somebody watches.

        Raises:
            NotFiniteError: if a loss or a parameter was not finite; ``state`` is the last good one.
        """
        self._source, self._total, self._every = source, total, every
        if self._early_stopping and self._early_stopping.is_over(self.history):
            self.stopped = "early stopping"
        with (
            closing(source),
            self._written(),
            bar(show, total=self._total, initial=self.position, unit="step", desc="fit") as shown,
        ):
            while not self.stopped and self.position != self._total and self._go_on(shown):
                pass
            if self._recorded != self.position:  # the end did not fall on a record
                self._record(self.position)
            self.stopped = self.stopped or "completed"
            if self._checkpoints and self._saved != self.position:
                self._save(self._checkpoints)

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the history as arrays by name: one entry a record, and "step_loss" one a step."""
        names = self.history[0] if self.history else ()
        columns = {name: np.array([record[name] for record in self.history]) for name in names}
        return columns | {"step_loss": np.concatenate(self.losses) if self.losses else np.zeros(0)}

    # ── Between two calls ───────────────────────────────────────────────────────────────────────

    def _go_on(self, shown: Any) -> bool:
        """Make one compiled call, or say that the data are at their end. The state before it is let go of here."""
        done = self._source.advance(self.state, self.position, self._horizon())
        if done is None:
            return False
        self._take(done)
        shown.update(len(done.losses))
        shown.set_postfix(refresh=False, loss=f"{_mean_of_finite(done.losses[-1]):.4g}")
        return True

    def _horizon(self) -> int:
        """Give the next step at which something has to be done here."""
        end = sys.maxsize if self._total is None else self._total
        busy = self._score or self._callbacks or self._early_stopping or self._checkpoints
        if not (self._every and busy):
            return end
        return min(end, (self.position // self._every + 1) * self._every)

    def _take(self, done: Advance) -> None:
        """Take over what a call did, and make the records that are due."""
        if not done.whole:
            self._fall_back(done)
        self.state = done.state
        self.position += len(done.losses)
        self.losses.append(done.losses)
        if self._every:
            first = (self._recorded // self._every + 1) * self._every
            due = list(range(first, self.position + 1, self._every))
        else:
            due = [self.position] if done.ends_epoch else []
        for step in due:
            self._record(step)

    def _record(self, step: int) -> None:
        losses = self._losses_between(self._recorded, step)
        weights = self._source.rows(self._recorded, step)
        record: Record = {"step": step, "loss": np.average(losses.astype(np.float64), axis=0, weights=weights)}
        self._recorded = step
        if self._score:
            record |= {f"validation_{name}": value for name, value in self._score(self.state.params).items()}
        self.history.append(record)
        if self._early_stopping:
            self._stop_early(self._early_stopping)
        event = Event(step, record, self.history, self.state)
        for callback in self._callbacks:
            if callback(event) is True:
                self.stopped = self.stopped or "callback"
        if self._checkpoints and len(self.history) % self._checkpoints.every == 0:
            self._save(self._checkpoints)

    def _losses_between(self, start: int, stop: int) -> np.ndarray:
        """Give the losses of some of the last steps; the pieces they are in are put together."""
        at = self.position
        pieces: list[np.ndarray] = []
        while at > start:
            pieces.append(self.losses[-1 - len(pieces)])
            at -= len(pieces[-1])
        return np.concatenate(pieces[::-1])[start - at : stop - at]

    def _stop_early(self, rule: EarlyStopping) -> None:
        if rule.restore_best and rule.best(self.history) == len(self.history) - 1:
            self.best = jax.tree.map(jnp.copy, self.state.params)
        if rule.is_over(self.history):
            self.stopped = "early stopping"

    def _fall_back(self, done: Advance) -> None:
        """Go back to the last state whose loss was finite, and say where it was not."""
        finite = np.isfinite(done.losses)
        bad = len(finite) if finite.all() else int(finite.argmin())
        what = "a parameter was not finite after" if finite.all() else f"the loss was {done.losses[bad]} at"
        step = self.position + bad + (not finite.all())
        good = max(bad - 1, 0)
        if done.replay is None:
            self.state, self.losses = done.state, [*self.losses, done.losses]
            raise NotFiniteError(f"{what} step {step}")
        state = done.replay(good)
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(split_running(state.params)[0])):
            good, state = 0, self.state
        self.state, self.position = state, self.position + good
        self.losses.append(done.losses[:good])
        raise NotFiniteError(f"{what} step {step}; the last good state is that after step {self.position}")

    # ── Checkpoints ─────────────────────────────────────────────────────────────────────────────

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            InputError: if it belongs to another run.
        """
        found = self._checkpoints.load() if self._checkpoints else None
        if found is None:
            return
        found.check({name: value for name, value in self._about.items() if name not in ("optimizer", "jax")})
        state = found.restore("state", self.state)
        fresh, stored = (shuffle_seeds(each.key) for each in (self.state, state))
        if fresh != stored:
            raise InputError(
                f"checkpoint {found.step}: belongs to another run: expected key data {fresh[0]}, got {stored[0]}."
            )
        self.state = state
        if found.about["jax"] == self._about["jax"]:  # another version may write the same formula in another way
            found.check(self._about)
        history = found.group("history")
        self.losses = [history.pop("step_loss")]
        columns = {name: list(column) for name, column in history.items()}
        self.history = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if any(path.startswith("['best']") for path in found.arrays):
            self.best = found.restore("best", self.state.params)
        self.stopped = "callback" if found.group("run")["stopped_by_callback"] else ""
        self.position = self._recorded = self._saved = found.step

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Leave only when the last checkpoint is written, be it because of an error."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the first error is the one to tell
                if self._checkpoints:
                    self._checkpoints.wait()
            raise
        if self._checkpoints:
            self._checkpoints.wait()

    def _save(self, checkpoints: Checkpoints) -> None:
        tree = {"state": self.state, "history": self.arrays(), "best": self.best}
        tree["run"] = {"stopped_by_callback": np.array(self.stopped == "callback")}
        score = self.history[-1].get("validation_loss") if self.history else None
        score = None if score is None else float(np.mean(score))
        checkpoints.save(self.position, tree, self._about, score)
        self._saved = self.position


def _mean_of_finite(values: np.ndarray) -> float:
    finite = np.ravel(values)[np.isfinite(np.ravel(values))]
    return float(finite.mean()) if len(finite) else math.nan
