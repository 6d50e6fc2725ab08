"""Array functions that layers and losses share, for precision and for explicit broadcasting."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def upcast(x: Array) -> Array:
    """Cast half precision to float32, for sums and statistics."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def broadcast_last(v: Float[Array, "n"], ndim: int) -> Float[Array, "*ones n"]:
    """Add leading axes of size 1 to a vector, so that it lies along the last axis of an array.

    The shapes then broadcast explicitly.
    """
    return jnp.expand_dims(v, range(ndim - 1))


def flatten_batch(x: Float[Array, "*B n"]) -> Float[Array, "rows n"]:
    """View all leading axes as one batch of rows."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
