"""Signals while training runs: SIGTERM interrupts it as Ctrl-C does."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what a scheduler sends before it ends a job."""


@contextmanager
def noting_signals() -> Iterator[Callable[[], int]]:
    """Raise :class:`Terminated` in the main thread when SIGTERM comes, until the block is left.

    Of several processes, which exchange numbers in every step, none can stop alone. There, SIGTERM
    and SIGINT are only noted, and the function that this yields returns the signal's number, or 0;
    the processes agree after each call of the compiled loop, and stop together.

    The signals are handled as before once the block is left, and from the first one on: a second
    one acts at once, on its process alone. Other threads than the main one can set no handlers:
    there, this does nothing. Where a handler was set by someone else, that one stays.
    """
    together = jax.process_count() > 1
    noted: list[int] = []

    def note(number: int, frame: Any) -> None:
        signal.signal(number, usual[number])
        noted.append(number)
        if not together:
            raise interrupt(number)

    usual: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL}
    if together:
        usual[signal.SIGINT] = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread():
        usual = {}
    usual = {number: how for number, how in usual.items() if signal.getsignal(number) == how}
    for number in usual:
        signal.signal(number, note)
    try:
        yield lambda: noted[0] if together and noted else 0
    finally:
        for number, how in usual.items():
            signal.signal(number, how)


def interrupt(number: int) -> KeyboardInterrupt:
    """Return the exception for a signal that was noted."""
    return Terminated("SIGTERM") if number == signal.SIGTERM else KeyboardInterrupt()
