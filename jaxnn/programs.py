"""Compiled programs, of which the latest are kept.

``jax.jit`` keeps every program that it has compiled as long as its function lives. A function of a module
lives as long as the process, so that a search over a thousand networks would leave a thousand programs
behind, some ten megabytes each. Here each combination of settings, such as a network and a loss, has a
compiled function of its own, and the ones that were not used for the longest are let go of.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

KEPT = 64  # combinations of settings a function


class Programs:
    """A function whose first arguments are settings; it is compiled anew for each combination of these.

    Args:
        function: pure in its other arguments, which are arrays or pytrees of them.
        settings: how many arguments are settings, values that hash.
        **options: of ``jax.jit``.
    """

    def __init__(self, function: Callable[..., Any], *, settings: int, **options: Any) -> None:
        functools.update_wrapper(self, function)
        self._settings = settings
        self.of = functools.lru_cache(maxsize=KEPT)(
            lambda *values: jax.jit(_named(function, values), **options)
        )

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run the program for these settings, compiled on its first call."""
        count = self._settings
        return self.of(*arguments[:count])(*arguments[count:], **named)

    def eval_shape(self, *arguments: Any) -> Any:
        """Return the shapes and dtypes of the result, computing nothing."""
        count = self._settings
        return self.of(*arguments[:count]).eval_shape(*arguments[count:])


def compiled(*, settings: int, **options: Any) -> Callable[[Callable[..., Any]], Programs]:
    """Decorate a function to make :class:`Programs` of it."""
    return lambda function: Programs(function, settings=settings, **options)


def _named(function: Callable[..., Any], values: tuple[Any, ...]) -> Callable[..., Any]:
    bound = functools.partial(function, *values)
    return functools.update_wrapper(bound, function)
