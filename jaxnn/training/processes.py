"""Agreement among the processes of one job, each of which runs the same program.

The processes meet in every exchange between their devices. One that makes other calls than the
rest, or has other data, would let them wait forever, or train on a mixture. So what decides the
calls is compared before the first.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jaxnn.checks import InputError


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
    own = np.array([digest(thing) for thing in things.values()], np.uint32)
    every = np.asarray(multihost_utils.process_allgather(own))
    for name, digests in zip(things, every.T, strict=True):
        if (different := digests != digests[0]).any():
            raise InputError(
                f"{who}: expected the same {name} in each of the {jax.process_count()} processes, "
                f"got another in process {int(different.argmax())} than in process 0."
            )


def digest(thing: PyTree) -> int:
    """Return a checksum of a tree, which tells apart values, shapes and dtypes."""
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(thing):
        array = _as_numpy(leaf)
        about = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        total = zlib.crc32(about.encode(), total)
        total = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, total)
    return total


def _as_numpy(leaf: Any) -> np.ndarray:
    if isinstance(leaf, str):
        return np.frombuffer(leaf.encode(), np.uint8)
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def of_the_first(number: float) -> float:
    """Return a number that was measured, the same in all processes: that of the first."""
    if jax.process_count() == 1:
        return number
    return float(multihost_utils.broadcast_one_to_all(np.float64(number)))
