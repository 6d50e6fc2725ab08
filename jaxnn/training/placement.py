"""Where arrays lie: their place is kept, and the compiler distributes the work."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jaxtyping import PyTree


def with_automatic_axes(tree: PyTree) -> PyTree:
    """Return a pytree with each array where it lies, its mesh one over which the compiler distributes work.

    ``jax.make_mesh`` makes axes that are explicit: every operation then has to say how its result is
    laid out. The loops of training leave that to the compiler, so their arrays lie on the same devices in
    the same layout, on a mesh of the automatic kind. Nothing is copied.
    """
    return jax.tree.map(_automatic, tree)


def _automatic(leaf: Any) -> Any:
    sharding = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.core.Tracer) or not isinstance(sharding, NamedSharding):
        return leaf
    mesh = sharding.mesh
    if AxisType.Explicit not in mesh.axis_types or not isinstance(mesh, Mesh):
        return leaf
    automatic = Mesh(mesh.devices, mesh.axis_names)
    return jax.device_put(leaf, NamedSharding(automatic, sharding.spec))
