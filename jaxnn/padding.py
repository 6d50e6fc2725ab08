"""How lengths, masks and states pass through a network.   B batch, T time.

Padded text is a batch of sequences of different lengths, filled up to T. Some layers have to know which
steps count: those that recur, attend, or pool over time. Such a layer names in ``takes`` the named tuple
that it accepts in the place of a plain array, such as :class:`Sequences`: its field ``x`` is the
array, the others stand beside it. The layer returns a plain array.

Layers that act on each position by itself say so by ``per_position = True``, and never see what stands
beside x. A combinator accepts any such tuple. It hands the array from layer to layer, and to each that
takes them the lengths, masks and states as well; so they reach every layer that needs them, however deep
it sits. A layer of neither kind would mix padding into what counts, and is refused.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num, PyTree

from jaxnn.checks import InputError, check_lengths
from jaxnn.types import Static

ANY = "any"  # what a combinator takes


class Sequences(NamedTuple):
    """Sequences of different lengths, or with a state to start from, in the place of a plain array.

    Attributes:
        x: inputs (B, T, I), or tokens (B, T).
        lengths: how many steps of each sample count, (B,) integers, or None for all T.
        state: the initial state of the recurrent layer, like its final one, or None for zeros.
    """

    x: Num[Array, "B T *I"]
    lengths: Int[Array, "B"] | None = None
    state: PyTree = None


class Beside(NamedTuple):
    """What stands beside an array: the named tuple that it came in, without the array; or nothing.

    Attributes:
        form: the type of the named tuple, or None.
        fields: its other fields by name.
    """

    form: type | None
    fields: dict[str, Any]

    def around(self, layer: Any, x: PyTree) -> PyTree:
        """Return what a layer is given: x alone, or x with what the layer takes beside it.

        Raises:
            InputError: for a layer that mixes positions, and does not take lengths.
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
        """Return what stands beside a layer's output: nothing once the axis of time is gone."""
        if self.form is None or jnp.ndim(y) < jnp.ndim(x):
            return NOTHING
        return self


NOTHING = Beside(None, {})


def apart(x: PyTree) -> tuple[PyTree, Beside]:
    """Take an input apart: the array, and what stands beside it."""
    if not is_accompanied(x):
        return x, NOTHING
    return x.x, Beside(type(x), x._asdict() | {"x": None})


def is_accompanied(x: Any) -> bool:
    """Whether an input is a named tuple of an array and its lengths."""
    return isinstance(x, tuple) and {"x", "lengths"} <= set(getattr(x, "_fields", ()))


def check_beside(who: Any, x: PyTree) -> None:
    """Check the lengths beside an array, where values are concrete."""
    if is_accompanied(x) and x.lengths is not None:
        check_lengths(who, x.lengths, *jnp.shape(x.x)[:2])


class Accompanied(NamedTuple):
    """The caches of layers that were given lengths or masks, and the form of the whole input."""

    caches: Any
    form: Static[type]


def keep(caches: Any, beside: Beside) -> Any:
    """Return caches to keep, with the form of the input where it was more than an array."""
    return caches if beside.form is None else Accompanied(caches, Static(beside.form))


def opened(cache: Any) -> tuple[Any, type | None]:
    """Return the caches that :func:`keep` kept, and the form of the input."""
    return (cache.caches, cache.form.value) if isinstance(cache, Accompanied) else (cache, None)


def add_beside(total: dict[str, Any], dx: PyTree) -> PyTree:
    """Add the derivatives of states and contexts in ``dx`` to ``total``, and return that of the array."""
    if not is_accompanied(dx):
        return dx
    for name, d in dx._asdict().items():
        if name != "x" and d is not None:
            total[name] = jax.tree.map(jnp.add, total[name], d) if name in total else d
    return dx.x


def in_form(form: type | None, dx: PyTree, beside: dict[str, Any]) -> PyTree:
    """Return dx in the form of the input; lengths and masks have no derivative."""
    if form is None:
        return dx
    made: Any = form
    return made(dx, **{name: beside.get(name) for name in made._fields[1:]})
