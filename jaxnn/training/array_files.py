"""Arrays in files: their bytes one after another, and JSON that says where each begins.

An array that lies on several devices is written a shard at a time, each shard once, and never put
together here. Each of several processes writes the shards that its devices hold, to a file of its
own in a folder that all can reach. The processes meet there as well: a part is complete once its
JSON has its name.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ARRAYS = "arrays"  # the name of a file, that of the first process
SECONDS = 600.0  # for the other processes to write theirs, after the first has written its own


class Pieces(NamedTuple):
    """An array as it is written: blocks that cover it, each with the index of its first entry."""

    dtype: str
    shape: tuple[int, ...]
    blocks: list[tuple[list[int], np.ndarray]]


def pieces_of(array: Any, *, copy: bool) -> Pieces:
    """Return the blocks of an array that this process has to write, on the host.

    Args:
        array: of NumPy or JAX. If it is this process's own, the others have the same one, and the
            first of them writes it.
        copy: whether they must stay as they are when the array's memory is used for something else.
    """
    found: list[tuple[list[int], Any]] = []
    is_own = getattr(array, "is_fully_addressable", True)
    if isinstance(array, jax.Array) and not (is_own and jax.process_index()):
        shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
        found = [([part.start or 0 for part in shard.index], shard.data) for shard in shards]
    elif not jax.process_index():
        found = [([0] * np.ndim(array), array)]
    blocks = [(corner, np.array(block) if copy else np.asarray(block)) for corner, block in found]
    return Pieces(str(array.dtype), tuple(array.shape), blocks)


def write_arrays(folder: Path, arrays: Mapping[str, Pieces]) -> None:
    """Write the part of this process, and what :func:`join_parts` wants to know of it."""
    name = _name(jax.process_index())
    described: dict[str, Any] = {}
    with open(folder / name, "wb") as file:
        for path, (dtype, shape, blocks) in arrays.items():
            places = []
            for corner, block in blocks:
                place = {"byte": file.tell(), "corner": corner, "shape": list(block.shape)}
                places.append({"file": name, **place})
                file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
            described[path] = {"dtype": dtype, "shape": list(shape), "blocks": places}
        file.flush()
        os.fsync(file.fileno())
    unnamed = folder / f"{name}.json.part"
    unnamed.write_text(json.dumps(described))
    unnamed.rename(folder / f"{name}.json")


def join_parts(folder: Path) -> dict[str, Any]:
    """Wait for the parts of all processes; return the JSON that :func:`read_arrays` wants.

    Raises:
        TimeoutError: if a process does not write its part in time.
    """
    joined: dict[str, Any] = {}
    until = time.monotonic() + SECONDS
    for process in range(jax.process_count()):
        path = folder / f"{_name(process)}.json"
        while not path.exists():
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{folder}: process {process} of {jax.process_count()} did not write its part "
                    f"within {SECONDS:.0f} s after the first one."
                )
            time.sleep(0.02)
        for name, each in json.loads(path.read_text()).items():
            joined.setdefault(name, {**each, "blocks": []})["blocks"] += each["blocks"]
        path.unlink()
    return joined


def read_arrays(folder: Path, described: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read all arrays of files that are known to be whole."""
    arrays = {}
    for name, each in described.items():
        dtype = jnp.dtype(each["dtype"])
        arrays[name] = np.empty(each["shape"], dtype)
        for block in each["blocks"]:
            size = math.prod(block["shape"]) * dtype.itemsize
            path = folder / block.get("file", ARRAYS)  # it was always this one, in older versions
            read = np.fromfile(path, np.uint8, size, offset=block["byte"]).view(dtype)
            slices = (
                slice(first, first + n)
                for first, n in zip(block["corner"], block["shape"], strict=True)
            )
            arrays[name][tuple(slices)] = read.reshape(block["shape"])
    return arrays


def _name(process: int) -> str:
    return f"{ARRAYS}-{process}" if process else ARRAYS
