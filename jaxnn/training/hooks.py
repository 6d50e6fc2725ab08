"""Hooks: the independent actions that are taken after each record of the history."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxnn.checks import InputError
from jaxnn.training.history import Record
from jaxnn.training.train_step import TrainState
from jaxnn.types import Params

if TYPE_CHECKING:
    from jaxnn.training.loop import Run


class Hook:
    """An action after each record; a subclass overrides the methods that it needs.

    Attributes:
        needs_state: whether it reads more than the record, so that the run has to be exactly at the
            record when it acts. Otherwise the run may be ahead, and is set back if it is stopped.
    """

    needs_state: bool = True

    def after_record(self, run: "Run", record: Record) -> None:
        """Read a new record, add entries to it, or stop the run."""

    def at_end(self, run: "Run") -> None:
        """Finish the work, after a run that came to its end or was interrupted."""

    def close(self) -> None:
        """Release all resources, also after an error."""


@contextmanager
def closing_hooks(hooks: Sequence[Hook], run: "Run") -> Iterator[None]:
    """Finish and close all hooks, after an interrupt too; after another error only close them.

    If finishing fails as well, the first error is the one that is raised.
    """
    try:
        yield
        for hook in hooks:
            hook.at_end(run)
    except BaseException as error:
        for hook in hooks:
            with suppress(Exception):
                if isinstance(error, KeyboardInterrupt):
                    hook.at_end(run)
            with suppress(Exception):  # also where the end failed: a lock has to be released
                hook.close()
        raise
    for hook in hooks:
        hook.close()


@dataclasses.dataclass(frozen=True)
class Validation(Hook):
    """The hook that scores the parameters, and adds the scores to the record as "validation_…"."""

    score: Callable[[Params], Mapping[str, Any]]

    def after_record(self, run: "Run", record: Record) -> None:
        """Add the scores to the record."""
        scores = self.score(run.state.params)
        record |= {f"validation_{name}": value for name, value in scores.items()}


class Event(NamedTuple):
    """The argument of a callback, made after each record of the history.

    Attributes:
        step: the number of steps made so far.
        record: the newest record of the history, read-only: "step", "loss", and the scores of the
            validation.
        history: all records so far, read-only.
        state: the present state, to be read but not kept, as the next step may reuse its memory.
    """

    step: int
    record: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    state: TrainState


Callback = Callable[[Event], Any]  # training stops if it returns True, also as a NumPy boolean


class Callbacks(Hook):
    """The hook that calls functions of the user, which may stop the run.

    Args:
        functions: the functions, which are called one after another.
        records: the records that already exist if the run is resumed.
    """

    def __init__(self, functions: Sequence[Callback], records: Sequence[Record]) -> None:
        self._functions = functions
        self._seen = tuple(map(MappingProxyType, records))

    def after_record(self, run: "Run", record: Record) -> None:
        """Call each function, and stop the run if one of them returns True."""
        self._seen = (*self._seen, MappingProxyType(record))
        event = Event(record["step"], self._seen[-1], self._seen, run.state)
        for function in self._functions:
            answer = function(event)
            if not isinstance(answer, bool | np.bool_ | None):
                raise InputError(
                    "expected a callback to return True to stop training, or False or None, "
                    f"got {answer!r}."
                )
            if answer:
                run.stop("callback")
