"""Array functions that layers and losses share, for precision and for explicit broadcasting."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree


def upcast(x: Array) -> Array:
    """Cast half precision to float32, for sums and statistics."""
    return x.astype(at_least_single(x.dtype))


def cast_floating(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Cast the floating arrays of a tree, and leave integers, flags and keys as they are."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def at_least_single(dtype: DTypeLike) -> np.dtype:
    """Return a floating dtype if it has at least the precision of float32, and else float32."""
    return np.promote_types(dtype, np.float32)  # JAX's own refuses under its strict promotion


def broadcast_last(v: Float[Array, "n"], ndim: int) -> Float[Array, "*ones n"]:
    """Add leading axes of size 1 to a vector, so that it lies along the last axis of an array.

    The shapes then broadcast explicitly.
    """
    return jnp.expand_dims(v, range(ndim - 1))


def flatten_batch(x: Float[Array, "*B n"]) -> Float[Array, "rows n"]:
    """View all leading axes as one batch of rows."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
