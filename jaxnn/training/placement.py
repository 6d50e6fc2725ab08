"""Placement of arrays on devices: arrays stay in place, and the compiler distributes the work."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jaxtyping import PyTree


def with_automatic_axes(tree: PyTree) -> PyTree:
    """Return a pytree of the same arrays in place, on meshes whose axes are automatic.

    Over automatic axes the compiler distributes the work. ``jax.make_mesh`` makes explicit axes
    instead, for which every operation has to state how its result is laid out. The loops of
    training leave that to the compiler; so their arrays are on the same devices, in the same
    layout, but on a mesh with automatic axes. Nothing is copied.
    """
    return jax.tree.map(_automatic, tree)


def _automatic(leaf: Any) -> Any:
    sharding = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.core.Tracer) or not isinstance(sharding, NamedSharding):
        return leaf
    mesh = sharding.mesh
    if AxisType.Explicit not in mesh.axis_types or not isinstance(mesh, Mesh):
        return leaf
    return jax.device_put(leaf, NamedSharding(automatic(mesh), sharding.spec))


def put(leaf: Any, sharding: NamedSharding) -> Any:
    """Put an array on the devices of a mesh, of which some may belong to other processes.

    Each process has to have the same array, and keeps the parts of it that its own devices hold.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(leaf), sharding))
    if not getattr(leaf, "is_fully_addressable", True):
        return jax.device_put(leaf, sharding)  # it is on such a mesh already
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda part: values[part])


def whole(tree: PyTree) -> PyTree:
    """Collect arrays of which other processes hold a part, so that each process has all of them."""
    return jax.tree.map(_whole, tree)


def _whole(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_whole(jax.random.key_data(leaf)))
    if leaf.is_fully_replicated:
        return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)


def is_elsewhere(leaf: Any) -> bool:
    """Return whether other processes hold a part of an array that this one does not."""
    is_array = isinstance(leaf, jax.Array)
    return is_array and not (leaf.is_fully_addressable or leaf.is_fully_replicated)


def rows_here(tree: PyTree) -> PyTree:
    """Return, of arrays divided by rows among processes, the rows of this one; others as they are.

    What is checked on the host is checked by each process for its own rows.
    """

    def own(leaf: Any) -> Any:
        if not is_elsewhere(leaf):
            return leaf
        shards = {str(shard.index): shard for shard in leaf.addressable_shards}
        ordered = sorted(shards.values(), key=lambda shard: shard.index[0].start or 0)
        return np.concatenate([np.asarray(shard.data) for shard in ordered])

    return jax.tree.map(own, tree)


def placed_like(example: PyTree, tree: PyTree) -> PyTree:
    """Put arrays on the devices on which the arrays of an example are, if these are several."""
    return jax.tree.map(
        lambda like, leaf: put(leaf, like.sharding) if _is_spread(like) else leaf,
        example,
        tree,
    )


def _is_spread(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and len(leaf.devices()) > 1


def automatic(mesh: Mesh) -> Mesh:
    """Return a mesh of the same devices whose axes are automatic."""
    return Mesh(mesh.devices, mesh.axis_names)
