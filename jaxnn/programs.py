"""Compiled programs, of which only the most recently used are kept.

``jax.jit`` keeps every program that it has compiled for as long as its function exists. A function
of a module exists as long as the process, so a search over a thousand networks would leave a
thousand programs in memory, some ten megabytes each. Here each combination of settings, such as a
network and a loss, has a compiled function of its own, and the least recently used of them are
released.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax

from jaxnn.checks import check_array, is_typed_key

# a third of the time to compile random numbers, to the same bits
QUICK: dict[str, Any] = {"compiler_options": {"xla_backend_optimization_level": 1}}
KEPT = 64  # combinations of settings that are kept for each function


class Programs:
    """A function whose first arguments are settings, compiled for each combination of them.

    Args:
        function: a pure function of its other arguments, which are arrays or pytrees of arrays.
        settings: the number of leading arguments that are settings, which must be hashable.
        who: the function that the user calls, for errors; by default the function itself.
        runs_once: whether to compile quickly rather than to run fast, for programs such as those
            that draw parameters.
        **options: options of ``jax.jit``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        settings: int,
        who: str = "",
        runs_once: bool = False,
        **options: Any,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function, self._settings, self._runs_once = function, settings, runs_once
        self._who = who or function.__name__.strip("_")

        def program(*values: Any) -> Any:
            quick = QUICK if runs_once and jax.default_backend() == "cpu" else {}
            return jax.jit(named(function, *values), **options, **quick)

        self.of = functools.lru_cache(maxsize=KEPT)(program)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run the program for these settings; it is compiled on its first call."""
        count = self._settings
        if self._runs_once and _is_traced(arguments[count:]):  # XLA takes no options within another
            return self._function(*arguments, **named)
        try:
            return self.of(*arguments[:count])(*arguments[count:], **named)
        except TypeError:
            self._check_arrays(arguments)
            raise

    def eval_shape(self, *arguments: Any) -> Any:
        """Return the shapes and dtypes of the result without computing it."""
        count = self._settings
        try:
            return self.of(*arguments[:count]).eval_shape(*arguments[count:])
        except TypeError:
            self._check_arrays(arguments)
            raise

    def _check_arrays(self, arguments: tuple[Any, ...]) -> None:
        """Raise an error of this library if arguments hold something else than arrays."""
        names = list(inspect.signature(self._function).parameters)[self._settings :]
        for name, argument in zip(names, arguments[self._settings :], strict=False):
            for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
                place = f"{name}{jax.tree_util.keystr(path)}"
                if not is_typed_key(leaf):
                    check_array(self._who, place, leaf)


def _is_traced(arguments: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))


def compiled(*, settings: int, **options: Any) -> Callable[[Callable[..., Any]], Programs]:
    """Return a decorator that turns a function into :class:`Programs`."""
    return lambda function: Programs(function, settings=settings, **options)


def named(function: Callable[..., Any], *values: Any) -> Callable[..., Any]:
    """Return a new function with the first arguments given, of the same name."""
    bound = functools.partial(function, *values)
    return functools.update_wrapper(bound, function)
