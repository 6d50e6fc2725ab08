"""Comparison of parameters with those that a network makes for an input."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxnn.checks import InputError, is_array, kind_of
from jaxnn.programs import KEPT
from jaxnn.types import Layer, Params


def check_fit(
    who: str, net: Layer, params: Params, x: PyTree, *, dtypes: bool = False, bits: bool = True
) -> None:
    """Check that parameters have the structure and the shapes of those that ``net.init`` makes.

    Nothing is computed: ``init`` is traced only. Without this check, a bias of shape (1,) would be
    broadcast, and parameters of another network could seem to fit.

    Args:
        who: the function that the user called, for errors.
        net: the network.
        params: its parameters.
        x: an example of its input, or its ShapeDtypeStruct.
        dtypes: whether to compare the dtypes, too.
        bits: whether float32 and float64 are different dtypes.

    Raises:
        InputError: if x does not fit the network, or for the first array that differs.
    """
    leaves, structure = jax.tree.flatten(x)
    specs = tuple(jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(leaf)) for leaf in leaves)
    key: tuple[Any, ...] = (net, structure, specs, jnp.result_type(float))
    try:
        made = _made(*key)
    except InputError as error:
        raise InputError(f"{who}: expected x that the network takes: {error}") from error
    except Exception as error:  # sizes beyond all measure overflow in many ways
        raise InputError(
            f"{who}: expected a network that takes x, got {type(error).__name__}: {error}."
        ) from error
    check_no_result(who, params)
    wanted, found = named_leaves(made), named_leaves(params)
    for name in [*wanted, *found]:
        expected, got = (_kind(arrays.get(name), dtypes, bits) for arrays in (wanted, found))
        if expected != got:
            raise InputError(f"{who}: expected {name} to be {expected} for this x, got {got}.")
    expected, got = (str(jax.tree.structure(tree)) for tree in (made, params))
    if expected != got:
        raise InputError(f"{who}: expected parameters of structure {expected}, got {got}.")


def check_no_result(who: str, params: Params) -> None:
    """Check that parameters are not the result or the state of a training, which contains them."""
    if hasattr(params, "params"):
        got = kind_of(params, "params")
        raise InputError(f"{who}: expected the parameters of a network, got {got}.")


def check_gradient(net: Layer, params: Params, dparams: Params) -> None:
    """Check that a gradient has the structure and the shapes of the parameters.

    A wrong one, such as (1, O) for a bias (O,), would be broadcast by the optimizer.
    """
    who = f"{type(net).__name__}.backward"
    wanted, found = (jax.tree.structure(tree) for tree in (params, dparams))
    if wanted != found:  # type: ignore[operator]
        raise InputError(f"{who}: expected dparams of structure {wanted}, got {found}.")
    for (name, leaf), d in zip(named_leaves(params).items(), jax.tree.leaves(dparams), strict=True):
        if jnp.shape(leaf) != jnp.shape(d):
            raise InputError(
                f"{who}: expected d{name} of shape {jnp.shape(leaf)}, got {jnp.shape(d)}."
            )


@contextmanager
def fitting(who: str, net: Layer, params: Params, x: PyTree) -> Iterator[None]:
    """Check parameters after a pass with them, or where the pass fails with a foreign error.

    A layer that refuses its input itself says more about it than :func:`check_fit` could.
    """
    try:
        yield
    except InputError:
        raise
    except Exception:
        check_fit(who, net, params, x)
        raise
    check_fit(who, net, params, x)


def named_leaves(params: Params) -> dict[str, Any]:
    """Return the arrays of a pytree by their paths, such as ``params[0].w``."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def _kind(leaf: Any, dtypes: bool, bits: bool) -> str:
    if leaf is None:
        return "nothing"
    if not is_array(leaf):
        return kind_of(leaf)
    if not dtypes:
        return f"an array of shape {jnp.shape(leaf)}"
    dtype = str(leaf.dtype) if bits else str(leaf.dtype).replace("64", "32")
    return f"{dtype}{list(leaf.shape)}"


@functools.lru_cache(maxsize=KEPT)
def _made(net: Layer, structure: Any, specs: tuple[Any, ...], _: Any) -> Params:
    """Return the shapes and dtypes of what ``net.init`` makes, under JAX's dtype for floats."""
    x = jax.tree.unflatten(structure, specs)
    return jax.eval_shape(lambda: net.init(jax.random.key(0), x))
