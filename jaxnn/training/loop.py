"""The loop of training, which makes compiled calls and yields records of the history.

:func:`records` makes the calls and yields a record at regular intervals; :func:`train` passes each
record to the hooks, one after another. Validation, early stopping, callbacks and checkpoints are
such hooks. :class:`Pace` decides how many steps a call makes.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import jax
import numpy as np

from jaxnn.checks import InputError
from jaxnn.gradcheck.not_finite import NanReport
from jaxnn.progress import bar
from jaxnn.training.compiled_loops import Chunk
from jaxnn.training.feeds import Feed, Work
from jaxnn.training.history import History, Record
from jaxnn.training.hooks import Hook, closing_hooks
from jaxnn.training.interrupts import Terminated, interrupt, noting_signals
from jaxnn.training.processes import agree
from jaxnn.training.train_step import TrainState, TrainStep, explain_steps
from jaxnn.types import Params, split_running

SECONDS = 0.5  # the aim for the length of a call, so that the bar moves and interrupts are noticed
FIRST_STEPS = 4  # the number of steps of the first call, when the time of a step is not known yet


@dataclasses.dataclass
class Run:
    """A run of training with its progress so far.

    Attributes:
        step: one step of training.
        state: the present state.
        history: the losses and the records so far.
        best: the parameters of the best record, if early stopping restores them.
        stopped: the reason why the run ended: "completed", "early stopping", "callback" or
            "interrupted"; "" while it goes on, and after an error.
    """

    step: TrainStep
    state: TrainState
    history: History
    best: Params = None
    stopped: str = ""

    @classmethod
    def starting(cls, step: TrainStep, state: TrainState) -> "Run":
        """Return a new run that starts from a state."""
        return cls(step, state, History(int(np.ravel(state.step)[0])))

    def stop(self, reason: str) -> None:
        """End the run after this record; if several reasons are given, the first one counts.

        Early stopping, callbacks, the end of the data and an interrupt call this.
        """
        self.stopped = self.stopped or reason


class TrainingError(RuntimeError):
    """Training stopped because of an error.

    ``result`` is the result of the training until then, with the last good state.
    """

    def __init__(
        self, message: str, result: Any, explain: Callable[[], NanReport] | None = None
    ) -> None:
        super().__init__(message)
        self.result = result
        self._explain = explain

    def explain_nan(self) -> NanReport:
        """Find the first number that was not finite, see :func:`jaxnn.explain_nan`.

        The steps that failed are made again, from the last good state.

        Raises:
            InputError: if training did not stop because of such a number, or if its last good state
                does not exist any more, as with ``keep_last_good=False``.
        """
        if self._explain is None:
            raise InputError(
                "TrainingError: expected an error at a number that is not finite, after which the "
                f"last good state is known, got: {self}"
            )
        return self._explain()


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted by Ctrl-C or SIGTERM; ``result`` is its result until then."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


class NotFiniteError(Exception):
    """A loss or a parameter was not finite; used within this library, not raised to the user."""

    def __init__(self, message: str, explain: Callable[[], NanReport] | None = None) -> None:
        super().__init__(message)
        self.explain = explain


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
    progress: bool | None = None,
    title: str | None = None,
) -> Any:
    """Train until the end, or until something stops the run.

    Args:
        who: the function that the user called, for errors.
        run: the run to train.
        feed: the source of its data.
        hooks: the actions after each record.
        result: a function that makes the result of the run in its present condition.
        total: the last step, or None for the end of the data.
        every: the number of steps between two records, or None for a record after each epoch.
        require_finite: whether a loss that is not finite ends the run with an error.
        progress: whether to show a progress bar; None to show it on a terminal and in a notebook.
        title: what stands before the bar; by default ``who``.

    Returns:
        The result of the run.

    Raises:
        TrainingError: for any error during training. It carries the result so far.
        TrainingInterrupted: for Ctrl-C or SIGTERM. It carries the result so far.
    """
    position, donate = run.history.step, feed.donate
    with (
        handing_out(who, run, result),
        noting_signals() as noted,
        closing(feed),
        closing_hooks(hooks, run),
        bar(progress, total=total, initial=position, unit="step", desc=title or who) as shown,
    ):
        watched = any(hook.needs_state for hook in hooks) or (donate and bool(hooks))
        pace = Pace(total, every if watched else None)
        for record in records(run, feed, pace, every, shown, noted, require_finite=require_finite):
            for hook in hooks:
                hook.after_record(run, record)
        _, signal = agree(0.0, noted())
        if signal:  # one that came after the last call, which no process has acted on
            raise interrupt(signal)
        run.stop("completed")
    return result()


class Pace:
    """The number of steps of the next compiled call, of which a feed may offer fewer.

    A call ends with the last step of the run, with a record before which hooks have to act, and
    after about as much time as :data:`SECONDS`.

    Args:
        total: the last step, or None for the end of the data.
        stop_every: the number of steps between two records at which each call has to end, or None.
    """

    def __init__(self, total: int | None, stop_every: int | None) -> None:
        self.total = total
        self._stop_every = stop_every
        self._in_time = FIRST_STEPS

    def steps_from(self, position: int) -> int:
        """Return the number of steps of the call that begins after the step ``position``."""
        end = position + self._in_time
        if self.total is not None:
            end = min(end, self.total)
        if self._stop_every:
            end = min(end, (position // self._stop_every + 1) * self._stop_every)
        return end - position

    def measure(self, steps: int, seconds: float) -> None:
        """Take note of the time of a call."""
        self._in_time = max(1, int(steps * SECONDS / max(seconds, 1e-6)))


def records(
    run: Run,
    feed: Feed,
    pace: Pace,
    every: int | None,
    shown: Any,
    noted: Callable[[], int],
    *,
    require_finite: bool,
) -> Iterator[Record]:
    """Make one compiled call after another, and yield each record of the history that becomes due.

    Args:
        run: the run to train.
        feed: the source of its data.
        pace: the number of steps of each call.
        every: the number of steps between two records, or None for a record after each epoch.
        shown: the progress bar.
        noted: a function that returns the signal that this process has noted, or 0.
        require_finite: whether a loss or a parameter that is not finite ends the run.

    Raises:
        KeyboardInterrupt: if one of several processes has noted a signal; in all of them.
        NotFiniteError: for a loss or a parameter that is not finite; the run then has its last good
            state, if that still exists.
    """
    history = run.history
    if every:  # of a resumed run that was interrupted just before it made a record
        yield from map(history.record, history.due(every))
    while not run.stopped and history.step != pace.total:
        work = feed.work(history.step, pace.steps_from(history.step))
        if work is None:
            break
        began = time.perf_counter()
        chunk = work.call(run.step, run.state, work.span())
        feed.prepare()  # while the device computes
        losses = work.losses(chunk)  # waits for the device
        seconds, signal = agree(time.perf_counter() - began, noted())
        pace.measure(len(losses), seconds)
        if require_finite and not (chunk.finite and np.isfinite(losses).all()):
            raise _not_finite(run, work, chunk, losses)
        before, run.state = run.state, chunk.state
        history.add(losses, work.rows)
        shown.update(len(losses))
        shown.set_postfix(refresh=False, **_to_show(losses[-1]))
        if every:
            for step in history.due(every):
                yield history.record(step)  # hooks act now, and may stop the run
                if run.stopped and step < history.step:  # discard the steps beyond this record
                    steps = len(losses) - (history.step - step)
                    run.state = work.call(run.step, before, work.span(steps)).state
                    history.forget()
                    break
        elif work.ends_epoch:
            yield history.record(history.step)
        if signal:
            raise interrupt(signal)
    if history.recorded != history.step:  # the last steps do not belong to a record yet
        yield history.record(history.step)


def _not_finite(run: Run, work: Work, chunk: Chunk, losses: np.ndarray) -> NotFiniteError:
    """Return the error for a call with a number that is not finite, and set back the run.

    The run gets its last good state, if that still exists. The loss of a step is computed before
    its update. If it is not finite, the update of the step before may be the cause, so the state
    before that update is the one to return to.
    """
    finite = np.isfinite(losses)
    if finite.all():
        bad = len(losses)
        what = f"a parameter was not finite after step {run.history.step + bad}"
    else:
        bad = int(finite.argmin())
        what = f"the loss was {losses[bad]} at step {run.history.step + bad + 1}"
    what += _by_range(run.state)
    if work.donate:  # the state before this call does not exist any more
        run.state = chunk.state
        run.history.add(losses, work.rows)
        return NotFiniteError(f"{what}; there is no earlier state to go back to")
    good = max(bad - 1, 0)
    again = work.call(run.step, run.state, work.span(good))
    if again.finite:
        run.state = again.state
    else:
        good = 0
    run.history.add(losses[:good], work.rows[:good])
    batches = [work.batch(i) for i in range(good, min(good + 2, len(losses)))]
    return NotFiniteError(
        f"{what}; the last good state is that after step {run.history.step}. "
        "The method explain_nan() of this error finds where the number came from",
        functools.partial(explain_steps, run.step, run.state, batches),
    )


def _by_range(state: TrainState) -> str:
    """Name the likely cause of a number that is not finite, where it is the dtype's range."""
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(split_running(state.params)[0])}
    return " in float16, which holds no numbers above 65504" if "float16" in dtypes else ""


def _to_show(loss: np.ndarray) -> dict[str, str]:
    """Return what the progress bar shows: the loss; of many networks the mean and the lowest."""
    finite = np.ravel(loss)[np.isfinite(np.ravel(loss))]
    mean, lowest = (finite.mean(), finite.min()) if len(finite) else (math.nan, math.nan)
    shown = {"loss": f"{mean:.4g}"}
    return shown | {"lowest": f"{lowest:.4g}"} if np.ndim(loss) else shown


@contextmanager
def handing_out(who: str, run: Run, result: Callable[[], Any]) -> Iterator[None]:
    """Raise any error that ends training with the result so far."""
    kept = "What was trained is in .result."
    try:
        yield
    except KeyboardInterrupt as error:
        run.stop("interrupted")
        by = " by SIGTERM" if isinstance(error, Terminated) else ""
        raise TrainingInterrupted(f"{who} was interrupted{by}. {kept}", result()) from error
    except NotFiniteError as error:
        raise TrainingError(f"{who}: {error}. {kept}", result(), error.explain) from None
    except InputError as error:  # its message already names the caller
        raise TrainingError(f"{error} {kept}", result()) from error
    except Exception as error:
        message = f"{who}: {type(error).__name__}: {error}".rstrip(".")
        raise TrainingError(f"{message}. {kept}", result()) from error
