"""The loop of training: compiled calls in, records of the history out.

:func:`records` makes the calls and yields a record every so often; :func:`train` hands each record
to the hooks, one after another. Validation, early stopping, callbacks and checkpoints are such
hooks.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import InputError
from jaxnn.progress import bar
from jaxnn.training.feeds import Feed, Work
from jaxnn.training.history import History, Record
from jaxnn.training.hooks import Hook, closing_hooks
from jaxnn.training.interrupts import Terminated, terminating
from jaxnn.training.train_step import TrainState, TrainStep
from jaxnn.types import Params, split_running

SECONDS = (
    0.5  # how long one compiled call should last, so that a bar moves and an interrupt is heard
)
FIRST_STEPS = 4  # of the first call, whose time is not known yet


@dataclasses.dataclass
class Run:
    """A run of training, and how far it has come.

    Attributes:
        step: one step of training.
        state: the present state.
        history: the losses and the records so far.
        best: the parameters of the best record, where early stopping restores them.
        stopped: why the run ended: "completed", "early stopping" or "callback"; "" while it has
            not.
    """

    step: TrainStep
    state: TrainState
    history: History
    best: Params = None
    stopped: str = ""

    @classmethod
    def starting(cls, step: TrainStep, state: TrainState) -> "Run":
        """Start a run at a state."""
        return cls(step, state, History(int(np.ravel(state.step)[0])))

    def stop(self, reason: str) -> None:
        """End the run after this record; the first reason counts."""
        self.stopped = self.stopped or reason


class TrainingError(RuntimeError):
    """Training stopped at an error. ``result`` is what was trained until then, with the last good state."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted from the keyboard. ``result`` is what was trained until then."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class NotFiniteError(Exception):
    """A loss or a parameter was no longer finite: how it is said within this library."""


def train(
    who: str,
    run: Run,
    feed: Feed,
    hooks: Sequence[Hook],
    result: Callable[[], Any],
    *,
    total: int | None,
    every: int | None,
    require_finite: bool = True,
    donated: bool = False,
    progress: bool | None = None,
) -> Any:
    """Train until the end, or until something stops the run.

    Args:
        who: the function that the user called, for errors.
        run: what to train.
        feed: where its data come from.
        hooks: what happens after each record.
        result: makes the result of the run as it then stands.
        total: the step to end at, or None for the end of the data.
        every: steps between two records, or None for the ends of the data's epochs.
        require_finite: whether a loss that is not finite ends the run with an error.
        donated: whether the calls reuse the memory of the state, so that there is none to go back
            to.
        progress: whether to show a bar; None to show it where somebody watches.

    Raises:
        TrainingError: for any error on the way; with the result so far.
        TrainingInterrupted: when interrupted from the keyboard; with the result so far.
    """
    position = run.history.step
    with (
        handing_out(who, result),
        terminating(),
        closing(feed),
        closing_hooks(hooks, run),
        bar(progress, total=total, initial=position, unit="step", desc=who) as shown,
    ):
        end = Ends(
            total, every, watched=bool(hooks), require_finite=require_finite, donated=donated
        )
        for record in records(run, feed, end, shown):
            for hook in hooks:
                hook.after_record(run, record)
        run.stop("completed")
    return result()


@dataclasses.dataclass(frozen=True)
class Ends:
    """Where the loop has to come back from a compiled call.

    Attributes:
        total: the last step, or None for the end of the data.
        every: steps between two records, or None for the ends of the data's epochs.
        watched: whether something happens after a record, so that no call may reach beyond it.
        require_finite: whether a loss that is not finite is an error.
        donated: whether the state before a call is gone after it.
    """

    total: int | None
    every: int | None
    watched: bool
    require_finite: bool
    donated: bool

    def steps_from(self, position: int) -> int:
        """Return how many steps there are to the next of these places."""
        end = sys.maxsize if self.total is None else self.total
        if self.every and self.watched:
            end = min(end, (position // self.every + 1) * self.every)
        return end - position


def records(run: Run, feed: Feed, ends: Ends, shown: Any) -> Iterator[Record]:
    """Make one compiled call after another, and yield each record of the history that becomes due.

    Raises:
        NotFiniteError: if a loss or a parameter was not finite; the run is then at its last good
            state.
    """
    history, steps = run.history, FIRST_STEPS
    while not run.stopped and history.step != ends.total:
        work = feed.work(history.step, min(steps, ends.steps_from(history.step)))
        if work is None:
            break
        began = time.perf_counter()
        chunk = work.call(run.step, run.state, span(work))
        feed.prepare()  # while the device computes
        losses = made_by(work, chunk.losses)  # waits for the device
        seconds = time.perf_counter() - began
        steps = max(1, int(len(work.rows) * SECONDS / max(seconds, 1e-6)))
        if ends.require_finite and not (chunk.finite and np.isfinite(losses).all()):
            _fall_back(run, work, losses, chunk.state if ends.donated else None)
        run.state = chunk.state
        history.add(losses, work.rows)
        shown.update(len(losses))
        shown.set_postfix(refresh=False, loss=f"{_mean_of_finite(losses[-1]):.4g}")
        if ends.every:
            yield from map(history.record, history.due(ends.every))
        elif work.ends_epoch:
            yield history.record(history.step)
    if history.recorded != history.step:  # the end did not fall on a record
        yield history.record(history.step)


def span(work: Work, steps: int | None = None) -> np.ndarray:
    """Return the first step of a call and the one after its last, as the compiled loops take them."""
    return np.array(
        [work.first, work.first + (len(work.rows) if steps is None else steps)], np.int32
    )


def made_by(work: Work, losses: jax.Array) -> np.ndarray:
    """Return the losses of the steps that were made, the steps along the first axis."""
    return np.moveaxis(np.asarray(losses), -1, 0)[slice(*span(work))]


def _fall_back(run: Run, work: Work, losses: np.ndarray, only_state: TrainState | None) -> NoReturn:
    """Go back to the last state whose loss was finite, and say where it was not."""
    finite = np.isfinite(losses)
    bad = len(finite) if finite.all() else int(finite.argmin())
    what = "a parameter was not finite after" if finite.all() else f"the loss was {losses[bad]} at"
    step = run.history.step + bad + (not finite.all())
    if only_state is not None:
        run.state = only_state
        run.history.add(losses, work.rows)
        raise NotFiniteError(f"{what} step {step}; there is no earlier state to go back to")
    good = max(bad - 1, 0)
    state = work.call(run.step, run.state, span(work, good)).state
    trained = jax.tree.leaves(split_running(state.params)[0])
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in trained):
        good, state = 0, run.state
    run.state = state
    run.history.add(losses[:good], work.rows[:good])
    raise NotFiniteError(
        f"{what} step {step}; the last good state is that after step {run.history.step}"
    )


def _mean_of_finite(values: np.ndarray) -> float:
    finite = np.ravel(values)[np.isfinite(np.ravel(values))]
    return float(finite.mean()) if len(finite) else math.nan


@contextmanager
def handing_out(who: str, result: Callable[[], Any]) -> Iterator[None]:
    """Hand out what was trained together with any error that ends training."""
    kept = "What was trained is in .result."
    try:
        yield
    except KeyboardInterrupt as error:
        by = " by SIGTERM" if isinstance(error, Terminated) else ""
        raise TrainingInterrupted(f"{who} was interrupted{by}. {kept}", result()) from error
    except NotFiniteError as error:
        raise TrainingError(f"{who}: {error}. {kept}", result()) from None
    except InputError as error:  # which names its caller itself
        raise TrainingError(f"{error} {kept}", result()) from error
    except Exception as error:
        raise TrainingError(f"{who}: {type(error).__name__}: {error} {kept}", result()) from error
