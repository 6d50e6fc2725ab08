"""Conversion of the data that users have to arrays: data frames, series, tensors and lists."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxnn.checks import (
    InputError,
    is_array,
    is_concrete,
    is_numeric,
    is_plain,
    is_typed_key,
    kind_of,
)


def as_arrays(who: str, name: str, given: Any) -> PyTree:
    """Return data as a pytree of arrays, each of NumPy or JAX.

    Data frames and series are converted by their ``to_numpy``. Tensors of other libraries are
    converted by DLPack, without a copy where that is possible. (Nested) lists of numbers become
    arrays. Arrays are returned as they are, on whatever device they are stored.

    Args:
        who: the function that the user called, for errors.
        name: the name of the data in that function, for errors.
        given: an array or something that can be converted to one, or a tuple or dict of these.

    Raises:
        InputError: for text, objects, ragged lists, sparse matrices and complex numbers; the
            message names the cure where there is one.
    """
    if hasattr(given, "_fields") and {"x", "y"} <= set(given._fields):
        raise InputError(f"{who}: expected {name} as arrays, got a data set; write dataset.x.")
    if isinstance(given, tuple | dict) and not _is_array(given):
        return jax.tree.map(lambda leaf: _as_array(who, name, leaf), given, is_leaf=_is_leaf)
    return _as_array(who, name, given)


def as_example(who: str, name: str, given: Any) -> PyTree:
    """Return the shapes and dtypes of an example batch, in the dtypes that JAX will give it.

    Raises:
        InputError: for what is neither an array nor a ShapeDtypeStruct; see :func:`as_arrays`.
    """
    return jax.tree.map(_spec, as_arrays(who, name, given))


def _spec(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))


def _is_array(value: Any) -> bool:
    return is_array(value) or hasattr(value, "__dlpack__") or hasattr(value, "to_numpy")


def _is_leaf(value: Any) -> bool:
    return _is_array(value) or isinstance(value, list)


def _as_array(who: str, name: str, value: Any) -> Any:
    if is_plain(value):
        return value
    if is_typed_key(value):
        raise InputError(f"{who}: expected {name} as numbers, got a PRNG key.")
    if isinstance(value, jax.Array) and value.dtype.kind in "biuf":
        return value
    if hasattr(value, "toarray"):
        raise InputError(
            f"{who}: expected {name} as a dense array, got {type(value).__name__}: "
            f"write {name}.toarray()."
        )
    if isinstance(value, list):
        value = _of_list(who, name, value) if is_concrete(value) else jnp.asarray(value)
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    elif not isinstance(value, jax.Array | np.ndarray) and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value.detach().cpu() if hasattr(value, "detach") else value)
    if not hasattr(value, "dtype"):
        raise InputError(f"{who}: expected {name} as arrays, got {kind_of(value)}.")
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"{who}: expected {name} without masked entries: write {name}.filled(number)."
        )
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:  # which JAX does not have
        return value.astype(np.float64)
    if not is_numeric(value.dtype):
        cure = (
            f" Labels become numbers by names, {name} = numpy.unique({name}, return_inverse=True)."
            if name == "target"
            else ""
        )
        found = next((each for each in value.flat if isinstance(each, str)), value.flat[0])
        raise InputError(
            f"{who}: expected {name} as numbers, got {value.dtype} such as {found!r}.{cure}"
        )
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise InputError(f"{who}: expected {name} as real numbers, got {value.dtype}.")
    return value


def _of_list(who: str, name: str, value: list[Any]) -> Any:
    try:
        array = np.asarray(value)
    except ValueError:
        array = None
    if array is None or not value:
        raise InputError(
            f"{who}: expected {name} as rows of one length, got a list that is "
            f"{'ragged' if value else 'empty'}."
        )
    is_text = isinstance(array.flat[0], str)
    if array.dtype.kind == "O" and not is_text and not isinstance(array.flat[0], numbers.Number):
        raise InputError(
            f"{who}: expected {name} as an array, got a list of {type(value[0]).__name__}."
        )
    return array
