"""Validation of shapes, dtypes and arguments, and the wording of its errors.

Every message names the object that complains, what was expected and what was given::

    Dense(features=4): expected x of shape (B, 5), got (7, 3).

Shapes and dtypes are known while JAX traces, so checking them costs nothing in a compiled program.
Values are known only outside of ``jit``. The checks that look at values say so, and they accept
traced arrays without looking at them.
"""

import functools
import math
import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

UNKNOWN = (jax.core.Tracer, jax.ShapeDtypeStruct)  # arrays without known values
MOST = 2**31 - 1  # the largest int32
PLAIN = frozenset(map(np.dtype, ("?", "u1", "i4", "i8", "f4", "f8")))  # nearly all arrays have them


class InputError(ValueError):
    """An argument has the wrong type, shape, dtype or value."""


@contextmanager
def inside(step: str) -> Iterator[None]:
    """Put the place of a child layer before its errors, so that nested calls spell out the path."""
    try:
        yield
    except InputError as error:
        text = str(error)
        joint = "" if text.startswith(("[", ".")) else " "
        raise InputError(f"{step}{joint}{text}") from None


@contextmanager
def strict() -> Iterator[None]:
    """Let JAX raise an error for what it otherwise does silently, to the end of a ``with``.

    ::

        with nn.strict():
            trained = nn.fit(net, loss, optimizer, data, epochs=3, batch_size=32, key=key)

    The errors are those of JAX itself: for arithmetic between arrays of different ranks or dtypes
    (``jax_numpy_rank_promotion``, ``jax_numpy_dtype_promotion``), for a PRNG key that is used twice
    (``jax_debug_key_reuse``), and for NaN as the result of a program (``jax_debug_nans``, which
    makes programs slower). Everything in this library runs under it. Your own functions that run
    inside, such as a layer or a callback, have to as well.
    """
    with (
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.debug_key_reuse(True),
        jax.debug_nans(True),
    ):
        yield


def is_concrete(*arrays: Any) -> bool:
    """Return whether all values are known, as they are not for traced arrays and mere shapes."""
    for array in arrays:
        for leaf in (array,) if is_array(array) else jax.tree.leaves(array):
            if isinstance(leaf, UNKNOWN):
                return False
    return True


def check_concrete(who: object, **arrays: Any) -> None:
    """Check that a function that looks at values is not called under a JAX transformation."""
    for name, array in arrays.items():
        for leaf in jax.tree.leaves(array):
            if not is_concrete(leaf):
                raise InputError(
                    f"{who!s}: expected {name} with known values, got {kind_of(leaf)}."
                )
    if not is_concrete(jnp.zeros(())):  # under jit, new arrays are traced, too
        raise InputError(f"{who!s}: expected a call outside of jit, got one in a traced function.")


# ── Arrays ──────────────────────────────────────────────────────────────────────────────────────


def is_array(x: Any) -> bool:
    """Return whether a value has a shape and a dtype, as arrays and their mere shapes have."""
    return hasattr(x, "dtype") and hasattr(x, "shape")


def is_plain(x: Any) -> bool:
    """Return whether a value is an array of ordinary numbers or flags, which needs no other check.

    This answers for almost all arrays, and fast; False only means that one has to look closer.
    """
    return (isinstance(x, jax.Array) or type(x) is np.ndarray) and x.dtype in PLAIN


def is_numeric(dtype: Any) -> bool:
    """Return whether a dtype is one of numbers or flags that JAX has, too."""
    widest = 16 if jnp.issubdtype(dtype, jnp.complexfloating) else 8  # bytes
    is_number = jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)
    return is_number and dtype.itemsize <= widest


def is_typed_key(x: Any) -> bool:
    """Return whether a value is an array of typed PRNG keys, as ``jax.random.key`` makes them."""
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def kind_of(value: Any, wanted: str = "") -> str:
    """Return what a value is, for errors.

    The result of a training is often passed whole, where only its attribute ``wanted`` is meant.
    """
    if value is None:
        return "None"
    if isinstance(value, jax.core.Tracer):
        return f"a traced array of shape {jnp.shape(value)} (under jit, vmap or grad)"
    if is_typed_key(value):
        return "a PRNG key"
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of shape {value.shape}"
    name = type(value).__name__
    if isinstance(value, str):
        return f"the text {_brief(value)}"
    told = f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
    return f"{told}; pass its .{wanted}" if wanted and hasattr(value, wanted) else told


def check_array(who: object, name: str, x: Any) -> None:
    """Check for an array or a number, and not a list, a text, a data frame or a PRNG key."""
    if is_plain(x):
        return
    if not is_array(x) and not isinstance(x, numbers.Number):
        raise InputError(f"{who!s}: expected {name} to be an array, got {kind_of(x, name)}.")
    if is_typed_key(x):
        raise InputError(f"{who!s}: expected {name} to hold numbers, got a PRNG key.")
    if isinstance(x, np.ndarray | np.generic) and not is_numeric(x.dtype):
        raise InputError(f"{who!s}: expected {name} to hold numbers, got {x.dtype}.")
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(
            f"{who!s}: expected {name} without masked entries, got {kind_of(x)}: "
            f"write {name}.filled(number)."
        )


def check_shape(who: object, name: str, x: PyTree, expected: tuple[str | int, ...]) -> None:
    """Check a shape against the sizes and axes that are expected.

    An int requires that size, a letter allows any size of its axis, and a leading "..." stands for
    any number of axes.
    """
    check_array(who, name, x)
    shape = jnp.shape(x)
    if shape == expected:
        return
    axes, sizes = expected, shape
    if expected and expected[0] == "...":
        axes = expected[1:]
        sizes = shape[len(shape) - len(axes) :] if len(shape) >= len(axes) else shape
    matches = len(sizes) == len(axes) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(axes, sizes, strict=True)
    )
    if not matches:
        wanted = ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "")
        raise InputError(f"{who!s}: expected {name} of shape ({wanted}), got {shape}.")


def is_kind(x: PyTree, kind: Any) -> bool:
    """Return whether an array or a plain number has a dtype of a kind such as ``jnp.floating``."""
    dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
    return _is_of_kind(dtype, kind)


_is_of_kind = functools.lru_cache(maxsize=256)(jnp.issubdtype)  # it is asked for each array


def check_floating(who: object, name: str, x: PyTree, like: Any = None) -> None:
    """Check that ``x`` has a floating dtype, and if ``like`` is given, the dtype of ``like``."""
    check_array(who, name, x)
    if like is None and is_kind(x, jnp.floating):
        return
    dtype = jnp.result_type(x)
    if like is not None and not is_kind(like, jnp.floating):
        raise InputError(
            f"{who!s}: expected parameters of a floating dtype, got {jnp.result_type(like)}."
        )
    if like is not None and dtype != jnp.result_type(like):
        raise InputError(
            f"{who!s}: expected {name} of dtype {jnp.result_type(like)}, like the parameters, "
            f"got {dtype}."
        )
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"{who!s}: expected {name} of a floating dtype, got {dtype}.")


def check_like(who: object, name: str, x: PyTree, like: Any, like_name: str) -> None:
    """Check that two arrays have the same shape, because a gradient must never be broadcast."""
    check_array(who, name, x)
    check_array(who, like_name, like)
    if jnp.shape(x) != jnp.shape(like):
        raise InputError(
            f"{who!s}: expected {name} of shape {jnp.shape(like)}, like {like_name}, "
            f"got {jnp.shape(x)}."
        )


def check_finite(who: object, name: str, tree: PyTree) -> None:
    """Check that every number is finite, where values are concrete."""
    if all(map(is_surely_finite, [tree] if is_array(tree) else jax.tree.leaves(tree))):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_kind(leaf, jnp.floating) or not is_concrete(leaf):
            continue
        values, dtype = np.asarray(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)
        with np.errstate(over="ignore"):
            finite = np.isfinite(values.astype(dtype))
        if not finite.all():
            first = tuple(int(i) for i in np.argwhere(~finite)[0])
            place = f"{name}{jax.tree_util.keystr(path)}{list(first) if first else ''}"
            held = f" that {dtype} can hold" if np.isfinite(values[first]) else ""
            raise InputError(
                f"{who!s}: expected finite {name}{held}, got {values[first]} at {place}."
            )


def is_surely_finite(x: Any) -> bool:
    """Return whether an array has a finite sum, and so only finite numbers.

    The answer is True for integers, for unknown values and for those in other processes, too.
    """
    if not is_concrete(x) or not is_kind(x, jnp.floating):
        return True
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return True
    return bool(has_finite_sum(x)) and not _overflows(x)


def _overflows(x: Any) -> bool:
    """Return whether an array of NumPy holds numbers that JAX, in its dtype, makes infinite."""
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    return bool(
        isinstance(x, np.ndarray)
        and dtype != x.dtype
        and max(x.max(initial=0), -x.min(initial=0)) > jnp.finfo(dtype).max
    )


def has_finite_sum(x: PyTree) -> Any:
    """Return whether the sum of an array is finite.

    If it is, then all numbers in the array are finite, which is found out in a single pass. The
    converse does not hold: the sum of finite numbers can overflow.
    """
    if isinstance(x, jax.Array):
        if any(device.platform != "cpu" for device in x.devices()):
            return _finite_sum(x)  # where the array is, rather than copying it from there
        x = np.asarray(x)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.add.reduce(x, axis=None))


@jax.jit
def _finite_sum(x: jax.Array) -> jax.Array:
    return jnp.isfinite(x.sum())


def check_not_empty(who: object, name: str, x: PyTree) -> None:
    """Check that a batch has at least one sample, because the mean over none is not a number."""
    check_array(who, name, x)
    if 0 in (shape := jnp.shape(x)):
        wanted = "one sample" if shape[0] == 0 else "one entry along each axis"
        raise InputError(f"{who!s}: expected {name} with at least {wanted}, got shape {shape}.")


def check_same_length(who: object, **arrays: Any) -> None:
    """Check that all arrays have as many rows as the first."""
    for name, array in arrays.items():
        check_array(who, name, array)
        if not jnp.ndim(array):
            raise InputError(f"{who!s}: expected {name} with an axis of rows, got one number.")
    (first, reference), *others = arrays.items()
    for name, array in others:
        if len(array) != len(reference):
            raise InputError(
                f"{who!s}: expected {name} with as many rows as {first} ({len(reference)}), "
                f"got {len(array)}."
            )


def check_labels(who: object, name: str, labels: Any, allowed: tuple[int, ...]) -> None:
    """Check that labels are among the allowed ones, where values are concrete."""
    if not is_concrete(labels):
        return
    values = np.asarray(labels)
    wrong = ~np.isin(values, allowed)
    if wrong.any():
        is_range = len(allowed) > 2 and allowed == tuple(range(len(allowed)))
        told = f"[0, {len(allowed)})" if is_range else set(allowed)
        raise InputError(f"{who!s}: expected {name} in {told}, got {values[wrong][0]}.")


def check_weights(who: object, weights: Any) -> None:
    """Check that sample weights are finite, at least 0, and in the range of float32.

    They are checked only where their values are concrete.
    """
    if not is_concrete(weights):
        return
    values, single = np.asarray(weights), np.finfo(np.float32)
    if np.iscomplexobj(values):
        raise InputError(f"{who!s}: expected real weights, got {values.dtype}.")
    if not (right := np.isfinite(values) & (values >= 0)).all():
        wrong = values[~right].flat[0]
        raise InputError(f"{who!s}: expected finite weights of at least 0, got {wrong}.")
    if not (right := (values == 0) | ((values >= single.tiny) & (values <= single.max))).all():
        wrong = values[~right].flat[0]
        raise InputError(f"{who!s}: expected weights that float32 can hold, got {wrong}.")


def check_some_weight(who: object, weights: Any) -> None:
    """Check that not all samples of a data set have the weight 0."""
    if weights is not None and is_concrete(weights) and not np.asarray(weights).any():
        raise InputError(f"{who!s}: expected at least one weight above 0, got only zeros.")


def check_lengths(who: object, lengths: Any, batch: int, longest: int) -> None:
    """Check that there is one integer length per sample.

    Where the values are concrete, also check that each length is in [0, longest].
    """
    check_shape(who, "lengths", lengths, (batch,))
    if not is_kind(lengths, jnp.integer):
        raise InputError(
            f"{who!s}: expected lengths of an integer dtype, got {jnp.result_type(lengths)}."
        )
    if is_concrete(lengths):
        known = np.asarray(lengths)
        if ((known < 0) | (known > longest)).any():
            wrong = known[(known < 0) | (known > longest)][0]
            raise InputError(f"{who!s}: expected lengths in [0, {longest}], got {wrong}.")


def check_params(who: object, params: PyTree, kind: type) -> None:
    """Check for the type that the layer's own ``init`` returns, with arrays in its fields."""
    if not isinstance(params, kind):
        raise InputError(
            f"{who!s}: expected parameters of type {kind.__name__}, "
            f"got {kind_of(params, 'params')}."
        )
    for name in getattr(params, "_fields", ()):
        value = getattr(params, name)
        if isinstance(value, list) or not all(map(is_array, jax.tree.leaves(value))):
            raise InputError(
                f"{who!s}: expected parameters of arrays, got a {type(value).__name__} for {name}."
            )


def check_no_params(who: object, params: PyTree) -> None:
    """Check that a layer without parameters was given none."""
    if jax.tree.leaves(params):
        got = kind_of(params, "params")
        raise InputError(f"{who!s}: expected no parameters, (), got {got}.")


def check_key(who: object, key: Any) -> None:
    """Check that ``key`` is a PRNG key of JAX, either a typed one or the older pair of uint32."""
    raw = getattr(key, "dtype", None) == jnp.uint32 and jnp.shape(key) == (2,)
    if not ((is_typed_key(key) and jnp.shape(key) == ()) or raw):
        raise InputError(
            f"{who!s}: expected a PRNG key such as jax.random.key(0), got {_brief(key)}."
        )


# ── Settings ────────────────────────────────────────────────────────────────────────────────────


def check_positive_int(who: str, name: str, value: Any) -> None:
    """Check that a setting is an integer of at least 1, and one that an int32 can hold."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{who}: expected {name} to be an integer of at least 1, got {value!r}.")
    if int(value) > MOST:
        raise InputError(f"{who}: expected {name} of at most {MOST}, got {value}.")


def check_bool(who: str, name: str, value: Any) -> None:
    """Check that a flag is a boolean, and not another value that merely counts as true or false."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{who}: expected {name} to be True or False, got {value!r}.")


def check_positive(who: str, name: str, value: Any) -> None:
    """Check that a setting is a finite number above 0, where it is concrete."""
    if not is_concrete(value):
        return
    is_scalar = isinstance(value, numbers.Real) or (hasattr(value, "dtype") and not jnp.ndim(value))
    if not is_scalar or not (float(value) > 0 and math.isfinite(value)):
        raise InputError(
            f"{who}: expected {name} to be a finite number above 0, got {_brief(value)}."
        )


def check_fraction(who: str, name: str, value: Any) -> None:
    """Check that a setting is a number in [0, 1)."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise InputError(f"{who}: expected {name} in [0, 1), got {value!r}.")


def check_choice(who: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check that a setting is one of the allowed choices."""
    if value not in choices:
        raise InputError(
            f"{who}: expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}."
        )


def _brief(value: Any) -> str:
    if isinstance(value, jax.core.Tracer) and not jnp.ndim(value):
        return kind_of(value)
    if hasattr(value, "shape") and jnp.ndim(value):
        return f"an array of shape {value.shape}"
    return repr(value)
