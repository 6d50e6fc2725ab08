"""The loop of training, which makes compiled calls and yields records of the history.

:func:`records` makes the calls and yields a record at regular intervals; :func:`train` passes each
record to the hooks, one after another. Validation, early stopping, callbacks and checkpoints are
such hooks.
"""

import dataclasses
import functools
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
from jaxnn.gradcheck.not_finite import NanReport
from jaxnn.progress import bar
from jaxnn.training.feeds import Feed, Work
from jaxnn.training.history import History, Record
from jaxnn.training.hooks import Hook, closing_hooks
from jaxnn.training.interrupts import Terminated, interrupt, terminating
from jaxnn.training.processes import agree
from jaxnn.training.train_step import TrainState, TrainStep, explain_steps
from jaxnn.types import AnyArray, Params, split_running

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
    donate: bool = False,
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
        donate: whether the calls reuse the memory of the state, so that an earlier state does not
            exist any more.
        progress: whether to show a progress bar; None to show it on a terminal and in a notebook.
        title: what stands before the bar; by default ``who``.

    Returns:
        The result of the run.

    Raises:
        TrainingError: for any error during training. It carries the result so far.
        TrainingInterrupted: for Ctrl-C or SIGTERM. It carries the result so far.
    """
    position = run.history.step
    with (
        handing_out(who, run, result),
        terminating() as heard,
        closing(feed),
        closing_hooks(hooks, run),
        bar(progress, total=total, initial=position, unit="step", desc=title or who) as shown,
    ):
        watched = any(hook.needs_state for hook in hooks) or (donate and bool(hooks))
        ends = Ends(total, every, watched=watched, require_finite=require_finite, donate=donate)
        for record in records(run, feed, ends, shown, heard):
            for hook in hooks:
                hook.after_record(run, record)
        _, signal = agree(0.0, heard())
        if signal:  # one that came after the last call, which no process has acted on
            raise interrupt(signal)
        run.stop("completed")
    return result()


@dataclasses.dataclass(frozen=True)
class Ends:
    """The conditions under which the loop has to return from a compiled call.

    Attributes:
        total: the last step, or None for the end of the data.
        every: the number of steps between two records, or None for a record after each epoch.
        watched: whether hooks have to act before the run goes beyond a record.
        require_finite: whether a loss that is not finite is an error.
        donate: whether the state before a call does not exist any more after it.
    """

    total: int | None
    every: int | None
    watched: bool
    require_finite: bool
    donate: bool

    def steps_from(self, position: int) -> int:
        """Return the number of steps until the loop next has to return."""
        end = sys.maxsize if self.total is None else self.total
        if self.every and self.watched:
            end = min(end, (position // self.every + 1) * self.every)
        return end - position


def records(
    run: Run, feed: Feed, ends: Ends, shown: Any, heard: Callable[[], int]
) -> Iterator[Record]:
    """Make one compiled call after another, and yield each record of the history that becomes due.

    Raises:
        KeyboardInterrupt: if one of several processes has heard a signal; in all of them.
        NotFiniteError: if a loss or a parameter was not finite; the run then has its last good
            state, if that still exists.
    """
    history, next_steps = run.history, FIRST_STEPS
    if ends.every:  # of a resumed run that was interrupted just before it made a record
        yield from map(history.record, history.due(ends.every))
    while not run.stopped and history.step != ends.total:
        work = feed.work(history.step, min(next_steps, ends.steps_from(history.step)))
        if work is None:
            break
        began = time.perf_counter()
        chunk = work.call(run.step, run.state, span(work))
        feed.prepare()  # while the device computes
        losses = losses_made(work, chunk.losses)  # waits for the device
        seconds, signal = agree(time.perf_counter() - began, heard())
        next_steps = max(1, int(len(work.rows) * SECONDS / max(seconds, 1e-6)))
        if ends.require_finite and not (chunk.finite and np.isfinite(losses).all()):
            _fall_back(run, work, losses, chunk.state if ends.donate else None)
        before, run.state = run.state, chunk.state
        history.add(losses, work.rows)
        shown.update(len(losses))
        shown.set_postfix(refresh=False, **_to_show(losses[-1]))
        if ends.every:  # the hooks act during the yield, and may stop the run
            for step in history.due(ends.every):
                yield history.record(step)
                if run.stopped and step < history.step:  # set back the steps beyond the record
                    made = len(losses) - (history.step - step)
                    run.state = work.call(run.step, before, span(work, made)).state
                    history.forget()
                    break
        elif work.ends_epoch:
            yield history.record(history.step)
        if signal:
            raise interrupt(signal)
    if history.recorded != history.step:  # the last steps do not belong to a record yet
        yield history.record(history.step)


def span(work: Work, steps: int | None = None) -> np.ndarray:
    """Return the first step of a call and the one after the last, as compiled loops take them."""
    return np.array(
        [work.first, work.first + (len(work.rows) if steps is None else steps)], np.int32
    )


def losses_made(work: Work, losses: AnyArray) -> np.ndarray:
    """Return the losses of the steps that were made, with the steps along the first axis."""
    return np.moveaxis(np.asarray(losses), -1, 0)[slice(*span(work))]


def _fall_back(
    run: Run, work: Work, losses: np.ndarray, state_after: TrainState | None
) -> NoReturn:
    """Restore the last state with a finite loss, if possible, and report the step that failed.

    The loss of a step is computed before its update. If it is not finite, the update of the step
    before may be the cause, so the state before that update is the one to return to.
    """
    finite = np.isfinite(losses)
    bad = len(finite) if finite.all() else int(finite.argmin())
    what = "a parameter was not finite after" if finite.all() else f"the loss was {losses[bad]} at"
    step = run.history.step + bad + (not finite.all())
    if state_after is not None:  # the state before this call does not exist any more
        run.state = state_after
        run.history.add(losses, work.rows)
        raise NotFiniteError(
            f"{what} step {step}{_by_range(run.state)}; there is no earlier state to go back to"
        )
    good = max(bad - 1, 0)
    state = work.call(run.step, run.state, span(work, good)).state
    trained = jax.tree.leaves(split_running(state.params)[0])
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in trained):
        good, state = 0, run.state
    run.state = state
    run.history.add(losses[:good], work.rows[:good])
    begin = work.first + good
    batches = [work.batch(i) for i in range(begin, min(begin + 2, work.first + len(finite)))]
    raise NotFiniteError(
        f"{what} step {step}{_by_range(state)}; "
        f"the last good state is that after step {run.history.step}. "
        "The method explain_nan() of this error finds where the number came from",
        functools.partial(explain_steps, run.step, state, batches),
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
