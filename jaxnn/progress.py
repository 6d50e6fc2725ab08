"""The progress bar: tqdm's, on a terminal or in a notebook, and nowhere else unless asked for."""

import contextlib
import sys
import warnings
from typing import Any


def bar(show: bool | None, **options: Any) -> Any:
    """Make a tqdm bar, to be used in a ``with`` statement.

    Args:
        show: whether to; None to show it where somebody watches.
        **options: those of ``tqdm.tqdm``.
    """
    watched = sys.stderr.isatty() or _is_kernel()
    if not (watched if show is None else show):
        return contextlib.nullcontext(_Silent())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a notebook without ipywidgets gets a bar of text
        from tqdm.auto import tqdm
    return tqdm(**options)


def _is_kernel() -> bool:
    """Whether this process is the kernel of a notebook, which the package being loaded does not say yet."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


class _Silent:
    """The methods of a bar that are used here, doing nothing."""

    def update(self, _: int) -> None:
        """Take no notice."""

    def set_postfix(self, **_: Any) -> None:
        """Take no notice."""
