"""Signals while training runs: the cluster's notice to end is heard like Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what a scheduler sends before it ends a job."""


@contextmanager
def terminating() -> Iterator[None]:
    """Raise :class:`Terminated` in the main thread when SIGTERM comes, until the block is left.

    The signal is then handled as it was before. A second one, while the first is being handled,
    ends the process at once. Other threads than the main one can set no handlers: there, this does
    nothing. Where a handler was set by someone else, that one stays.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    ):
        yield
        return

    def terminate(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
