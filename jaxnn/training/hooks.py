"""What happens after a record of the history: each hook is a small thing of its own, in one list."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxnn.training.history import Record
from jaxnn.training.train_step import TrainState
from jaxnn.types import Params

if TYPE_CHECKING:
    from jaxnn.training.loop import Run


class Hook:
    """Something that happens after each record; what it does not need it leaves as it is here."""

    def after_record(self, run: "Run", record: Record) -> None:
        """Look at a new record, add to it, or stop the run."""

    def at_end(self, run: "Run") -> None:
        """Finish, after a run that came to its end or was interrupted."""

    def close(self) -> None:
        """Let go of everything, after an error too."""


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
                hook.close()
        raise
    for hook in hooks:
        hook.close()


@dataclasses.dataclass(frozen=True)
class Validation(Hook):
    """Scores the parameters, and adds the scores to the record as "validation_…"."""

    score: Callable[[Params], Mapping[str, Any]]

    def after_record(self, run: "Run", record: Record) -> None:
        """Add the scores."""
        scores = self.score(run.state.params)
        record |= {f"validation_{name}": value for name, value in scores.items()}


class Event(NamedTuple):
    """What a callback is told after each record of the history.

    Attributes:
        step: how many steps were made.
        record: the newest entry of the history, to be read: "step", "loss", and what validation
            gave.
        history: all entries so far, to be read.
        state: the state, to be read: the next step may reuse its memory.
    """

    step: int
    record: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    state: TrainState


Callback = Callable[[Event], Any]  # training stops when it returns True, Python's or NumPy's


class Callbacks(Hook):
    """Calls functions of the user's, which may stop the run.

    Args:
        functions: called one after another.
        records: those that there are already, of a run that is resumed.
    """

    def __init__(self, functions: Sequence[Callback], records: Sequence[Record]) -> None:
        self._functions = functions
        self._seen = tuple(map(MappingProxyType, records))

    def after_record(self, run: "Run", record: Record) -> None:
        """Call each function."""
        self._seen = (*self._seen, MappingProxyType(record))
        event = Event(record["step"], self._seen[-1], self._seen, run.state)
        for function in self._functions:
            answer = function(event)
            if isinstance(answer, bool | np.bool_) and answer:
                run.stop("callback")
