"""The progress bar of tqdm.

It is shown on a terminal and in a notebook, and elsewhere only on request.
"""

import contextlib
import sys
import warnings
from typing import Any


def bar(show: bool | None, **options: Any) -> Any:
    """Create a tqdm bar, to be used in a ``with`` statement.

    Args:
        show: whether to show it; None to show it on a terminal and in a notebook.
        **options: the options of ``tqdm.tqdm``.
    """
    watched = sys.stderr.isatty() or _is_kernel()
    if not (watched if show is None else show):
        return contextlib.nullcontext(_Silent())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a notebook without ipywidgets gets a bar of text
        from tqdm.auto import tqdm
    return tqdm(**options)


def _is_kernel() -> bool:
    """Return whether this process is the kernel of a notebook.

    That the package is loaded does not suffice: programs without a kernel may import it too.
    """
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


class _Silent:
    """The methods of a bar that are used here, without effect."""

    def update(self, _: int) -> None:
        """Do nothing."""

    def set_postfix(self, **_: str) -> None:
        """Do nothing."""
