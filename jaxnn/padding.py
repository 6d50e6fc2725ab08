"""The way of lengths, masks and states through a network.   B batch, T time.

Padded text is a batch of sequences of different lengths, filled up to T. Layers that recur, attend
or pool over time have to know which steps count. The attribute ``takes`` of such a layer names the
named tuple that it accepts in place of a plain array, such as :class:`Sequences`. The field ``x``
of the tuple is the array, and the other fields accompany it. The layer returns a plain array.

Layers that act on each position separately declare this by ``per_position = True``; they never
receive what accompanies x. A combinator accepts any such tuple. It passes the array from layer to
layer, and it also passes the lengths, masks and states to each layer that takes them; so they reach
every layer that needs them, however deeply it is nested. A layer of neither kind would mix padding
with the steps that count, and is refused.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num, PyTree

from jaxnn.checks import InputError, check_lengths
from jaxnn.types import Cache, Static

ANY = "any"  # the value of ``takes`` for a combinator, which accepts every such named tuple


class Sequences(NamedTuple):
    """Sequences of different lengths, or with an initial state, in place of a plain array.

    Attributes:
        x: inputs (B, T, I), or tokens (B, T).
        lengths: the number of steps of each sample that count, (B,) integers, or None for all T.
        state: the initial state of the recurrent layer, shaped like its final one, or None for
            zeros.
    """

    x: Num[Array, "B T *I"]
    lengths: Int[Array, "B"] | None = None
    state: PyTree = None


class Beside(NamedTuple):
    """The lengths, masks and states that accompany an array, if there are any.

    Attributes:
        form: the type of the named tuple that held the array, or None if the array came alone.
        fields: the other fields of the tuple, by name.
    """

    form: type | None
    fields: dict[str, Any]

    def around(self, layer: Any, x: PyTree) -> PyTree:
        """Return the input of a layer: x alone, or x with the fields that the layer takes.

        Raises:
            InputError: for a layer that mixes positions but does not take lengths.
        """
        if self.form is None or getattr(layer, "per_position", False):
            return x
        taken = getattr(layer, "takes", None)
        if taken is None:
            raise InputError(
                f"{layer!r}: expected an input without lengths or masks, got {self.form.__name__}. "
                "A layer that acts on each position by itself says so by per_position = True."
            )
        form: Any = self.form if taken == ANY else taken
        return form(
            x, **{name: self.fields[name] for name in form._fields[1:] if name in self.fields}
        )

    def after(self, x: PyTree, y: PyTree) -> "Beside":
        """Return what accompanies a layer's output.

        That is nothing once the time axis is gone, or if the output is more than an array.
        """
        if self.form is None or not hasattr(y, "ndim") or y.ndim < x.ndim:
            return NOTHING
        return self


NOTHING = Beside(None, {})


def apart(x: PyTree) -> tuple[PyTree, Beside]:
    """Split an input into the array and what accompanies it."""
    if not is_accompanied(x):
        return x, NOTHING
    return x.x, Beside(type(x), x._asdict() | {"x": None})


def is_accompanied(x: PyTree) -> bool:
    """Return whether an input is a named tuple of an array and its lengths."""
    return isinstance(x, tuple) and {"x", "lengths"} <= set(getattr(x, "_fields", ()))


def check_beside(who: object, x: PyTree) -> None:
    """Check the lengths that accompany an array; their values only where they are concrete."""
    if is_accompanied(x) and x.lengths is not None:
        context = getattr(x, "context", None)  # the keys, of which the lengths count
        check_lengths(who, x.lengths, *jnp.shape(x.x if context is None else context)[:2])


class Accompanied(NamedTuple):
    """The caches of layers whose input had lengths or masks, and the type of that input."""

    caches: Any
    form: Static[type]


def keep(caches: Any, beside: Beside) -> Any:
    """Return the caches to keep, with the type of the input if it was more than an array."""
    return caches if beside.form is None else Accompanied(caches, Static(beside.form))


def opened(cache: Cache) -> tuple[Any, type | None]:
    """Return the caches that :func:`keep` wrapped, and the type of the input."""
    return (cache.caches, cache.form.value) if isinstance(cache, Accompanied) else (cache, None)


def add_beside(total: dict[str, Any], dx: PyTree) -> PyTree:
    """Add the derivatives of states and contexts in ``dx`` to ``total``; return the array's."""
    if not is_accompanied(dx):
        return dx
    for name, d in dx._asdict().items():
        if name != "x" and d is not None:
            total[name] = jax.tree.map(jnp.add, total[name], d) if name in total else d
    return dx.x


def in_form(form: type | None, dx: PyTree, beside: dict[str, Any]) -> PyTree:
    """Return dx in the form of the input, with None for lengths and masks.

    Lengths and masks have no derivative.
    """
    if form is None:
        return dx
    made: Any = form
    return made(dx, **{name: beside.get(name) for name in made._fields[1:]})
