"""Arrays in one file: their bytes one after another, and JSON that says where each begins.

An array that lies on several devices is written a shard at a time, each shard once, and never put
together here.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Pieces(NamedTuple):
    """An array as it is written: blocks that cover it, each with the index of its first entry."""

    dtype: str
    shape: tuple[int, ...]
    blocks: list[tuple[list[int], np.ndarray]]


def pieces_of(array: Any, *, copy: bool) -> Pieces:
    """Return the blocks of an array, on the host.

    Args:
        array: of NumPy or JAX.
        copy: whether they must stay as they are when the array's memory is used for something else.
    """
    if isinstance(array, jax.Array):
        shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
        found = [([part.start or 0 for part in shard.index], shard.data) for shard in shards]
    else:
        found = [([0] * np.ndim(array), array)]
    blocks = [(corner, np.array(block) if copy else np.asarray(block)) for corner, block in found]
    return Pieces(str(array.dtype), tuple(array.shape), blocks)


def write_arrays(path: Path, arrays: Mapping[str, Pieces]) -> dict[str, Any]:
    """Write arrays to a file, and return the JSON that :func:`read_arrays` wants."""
    described: dict[str, Any] = {}
    with open(path, "wb") as file:
        for name, (dtype, shape, blocks) in arrays.items():
            places = []
            for corner, block in blocks:
                places.append({"byte": file.tell(), "corner": corner, "shape": list(block.shape)})
                file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
            described[name] = {"dtype": dtype, "shape": list(shape), "blocks": places}
    return described


def read_arrays(path: Path, described: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read all arrays of a file that is known to be whole."""
    arrays = {}
    with open(path, "rb") as file:
        for name, each in described.items():
            dtype = jnp.dtype(each["dtype"])
            arrays[name] = np.empty(each["shape"], dtype)
            for block in each["blocks"]:
                file.seek(block["byte"])
                read = np.frombuffer(file.read(math.prod(block["shape"]) * dtype.itemsize), dtype)
                slices = (
                    slice(first, first + n)
                    for first, n in zip(block["corner"], block["shape"], strict=True)
                )
                arrays[name][tuple(slices)] = read.reshape(block["shape"])
    return arrays
