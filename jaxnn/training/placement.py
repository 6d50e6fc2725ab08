"""Placement of arrays on devices: arrays stay in place, and the compiler distributes the work."""

from typing import Any

import jax
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


def placed_like(example: PyTree, tree: PyTree) -> PyTree:
    """Put arrays on the devices on which the arrays of an example are, if these are several."""
    return jax.tree.map(
        lambda like, leaf: jax.device_put(leaf, like.sharding) if _is_spread(like) else leaf,
        example,
        tree,
    )


def _is_spread(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and len(leaf.devices()) > 1


def automatic(mesh: Mesh) -> Mesh:
    """Return a mesh of the same devices whose axes are automatic."""
    return Mesh(mesh.devices, mesh.axis_names)
