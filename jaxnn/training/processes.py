"""Agreement among the processes of one job, each of which runs the same program.

The processes meet in every exchange between their devices. One that makes other calls than the
rest, or has other data, would let them wait forever, or train on a mixture. So what decides the
calls is compared before the first; and what is found only while training runs, the time of a step
or a signal, is exchanged after each call. A process can also read rows of its own, which are joined
here.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.conversion import as_arrays
from jaxnn.training.layout import DATA
from jaxnn.training.placement import automatic, is_elsewhere, whole, with_automatic_axes

DIGESTED_BYTES = 2**26  # the most of an array that is collected from other processes at a time


def own_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the rows of all processes as one array on a mesh, to which each gives its own.

    ::

        mesh = jax.make_mesh((jax.device_count(),), ("data",))
        x, y = nn.own_rows((x, y), mesh)        # this process has read these rows
        nn.fit(net, loss, optimizer, (x, y), mesh=mesh, ...)

    No process ever holds more than its own rows. With a single process, the rows are divided among
    its devices.

    Args:
        tree: the n rows of this process: an array, or a pytree of arrays with n rows each. Every
            process has as many.
        mesh: the devices of all processes, with an axis "data".

    Returns:
        The same pytree, with arrays of n rows times the number of processes, divided along "data".
        The rows follow the order of the devices, so those of process 0 come first as a rule.

    Raises:
        InputError: for a mesh that does not divide the rows, or in which two processes would have
            the same ones; for arrays with different numbers of rows; and, in every process, if
            they have different numbers, types or shapes. That is found before any is exchanged.
    """
    tree = as_arrays("own_rows", "tree", tree)
    leaves = jax.tree.leaves(tree)
    if not leaves or any(not np.shape(leaf) for leaf in leaves):
        raise InputError(
            "own_rows: expected arrays with a first axis of rows, got none, or a number."
        )
    check_agreement("own_rows", **{"mesh": repr(mesh), "rows (numbers, types)": _about(tree)})
    owners = _process_of_each_place("own_rows", mesh)
    rows, parts = len(leaves[0]), owners.count(jax.process_index())
    if different := [len(leaf) for leaf in leaves if len(leaf) != rows]:
        raise InputError(
            f"own_rows: expected as many rows in each array as in the first, {rows}, "
            f"got {different[0]}."
        )
    if rows % parts:
        raise InputError(
            f"own_rows: expected rows that the {parts} devices of this process along {DATA!r} "
            f"divide evenly, got {rows}."
        )
    return _joined(tree, mesh, axis=0)


def rows_of_all(who: str, batches: PyTree, mesh: Mesh, about: str = "") -> PyTree:
    """Join the rows of all processes, in arrays whose second axis counts rows (steps, n, ...).

    Args:
        who: the function that the user called, for errors.
        batches: the batches of this process.
        mesh: the devices of all processes.
        about: what else all processes have to have in common.

    Raises:
        InputError: for a mesh as in :func:`own_rows`; and, in every process, if one has other
            numbers of batches, or other shapes. That is found before any is exchanged.
    """
    text = f"{about}\n{_about(batches)}"
    _compare(who, {"batches of a stream (numbers, shapes)": zlib.crc32(text.encode())})
    _process_of_each_place(who, mesh)
    return _joined(batches, mesh, axis=1)


def _joined(tree: PyTree, mesh: Mesh, *, axis: int) -> PyTree:
    """Make one array of the rows of all processes, which are counted along an axis."""
    sharding = NamedSharding(automatic(mesh), PartitionSpec(*[None] * axis, DATA))

    def join(leaf: Any) -> jax.Array:
        shape = list(leaf.shape)
        shape[axis] *= jax.process_count()
        own = np.asarray(leaf)
        return jax.make_array_from_process_local_data(sharding, own, tuple(shape))

    return jax.tree.map(join, tree)


def _process_of_each_place(who: str, mesh: Any) -> list[int]:
    """Return the process of each position along "data"."""
    if not isinstance(mesh, Mesh) or DATA not in mesh.shape:
        axes = tuple(mesh.shape) if isinstance(mesh, Mesh) else mesh
        raise InputError(f"{who}: expected a mesh with an axis {DATA!r}, got {axes!r}.")
    along = np.moveaxis(mesh.devices, mesh.axis_names.index(DATA), 0).reshape(mesh.shape[DATA], -1)
    owners = [sorted({device.process_index for device in place}) for place in along]
    if shared := [place for place in owners if len(place) > 1]:
        raise InputError(
            f"{who}: expected a mesh in which each position along {DATA!r} belongs to one process, "
            f"got one of the processes {shared[0]}, which would give different rows for it."
        )
    counts = {place[0]: owners.count(place) for place in owners}
    if len(counts) != jax.process_count() or len(set(counts.values())) > 1:
        raise InputError(
            f"{who}: expected a mesh with as many positions along {DATA!r} in each of the "
            f"{jax.process_count()} processes, got {counts} (process: positions)."
        )
    return [place[0] for place in owners]


def check_agreement(who: str, **things: Any) -> None:
    """Check that all processes have the same, where there are several.

    Args:
        who: the function that the user called, for errors.
        **things: texts, numbers and arrays by the names by which errors call them.

    Raises:
        InputError: in every process, for the first thing that differs.
    """
    if jax.process_count() == 1:
        return
    # shapes first: the values of a divided array are collected, for which these have to agree
    _compare(who, {name: zlib.crc32(_about(thing).encode()) for name, thing in things.items()})
    _compare(who, {name: digest(thing) for name, thing in things.items()})


def _compare(who: str, digests: dict[str, int]) -> None:
    own = np.array(list(digests.values()), np.uint32)
    every = np.asarray(multihost_utils.process_allgather(own))
    for name, each in zip(digests, every.T, strict=True):
        if (different := each != each[0]).any():
            raise InputError(
                f"{who}: expected the same {name} in each of the {jax.process_count()} processes, "
                f"got another in process {int(different.argmax())} than in process 0."
            )


def digest(thing: PyTree) -> int:
    """Return a checksum of a tree, which tells apart values, shapes and dtypes.

    It is the same however an array is divided among devices and processes. All processes have to
    call it together where one is divided among them.
    """
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(thing):
        total = zlib.crc32(_named(path, leaf).encode(), total)
        for part in _in_parts(leaf):
            total = zlib.crc32(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data, total)
    return total


def _about(thing: PyTree) -> str:
    """Return the paths, types and shapes of the arrays of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(thing)
    return "\n".join(_named(path, leaf) for path, leaf in leaves if not isinstance(leaf, str))


def _named(path: Any, leaf: Any) -> str:
    if not is_elsewhere(leaf):
        leaf = _as_numpy(leaf)
    return f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}"


def _in_parts(leaf: Any) -> Iterator[np.ndarray]:
    """Go through an array by its first axis; only a few rows are collected from others at once."""
    if not is_elsewhere(leaf):
        yield _as_numpy(leaf)
        return
    leaf = with_automatic_axes(leaf)
    rows = max(1, DIGESTED_BYTES * len(leaf) // max(1, leaf.nbytes))
    for start in range(0, len(leaf), rows):
        yield np.asarray(whole(leaf[start : start + rows]))


def _as_numpy(leaf: Any) -> np.ndarray:
    if isinstance(leaf, str):
        return np.frombuffer(leaf.encode(), np.uint8)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def agree(seconds: float, signal: int) -> tuple[float, int]:
    """Return the time that the first process has measured, and a signal that any one has noted."""
    if jax.process_count() == 1:
        return seconds, signal
    every = np.asarray(multihost_utils.process_allgather(np.array([seconds, signal], np.float32)))
    return float(every[0, 0]), int(every[:, 1].max())
