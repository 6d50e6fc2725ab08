"""Checkpoints of a training run, written by Orbax: atomic, verified when read, pruned.

A checkpoint holds arrays by name (parameters, optimizer, statistics, key, history) and a JSON
document that says what they belong to, with the SHA-256 of each array's bytes. Orbax comes with the extra
``checkpoint``.
"""

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxnn.checks import InputError, check_positive_int


class Checkpoints:
    """Where a training run is saved, how often, and how many checkpoints are kept.

    Args:
        directory: where to write; made if it is not there.
        every: write after every so many records of the history (by default: epochs), and at the end.
        keep: how many of the last ones to keep. The one with the lowest validation loss is kept, too.

    Raises:
        InputError: if the directory cannot be written to, or Orbax is not installed.
    """

    def __init__(self, directory: str | os.PathLike, *, every: int = 1, keep: int = 3) -> None:
        check_positive_int("Checkpoints", "every", every)
        check_positive_int("Checkpoints", "keep", keep)
        self.directory, self.every, self.keep = Path(directory).absolute(), every, keep
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            probe = self.directory / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"Checkpoints: expected a folder that can be written to, got {self.directory} ({error.strerror})."
            ) from error
        self._orbax = _orbax()
        self._manager = self._open()

    def steps(self) -> tuple[int, ...]:
        """List the steps that there are checkpoints of, in order."""
        return tuple(sorted(self._manager.all_steps()))

    def save(
        self, step: int, tree: PyTree, about: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Write a checkpoint; it counts once it is complete. Returns as soon as the arrays are copied.

        Args:
            step: its number.
            tree: arrays.
            about: what they belong to; compared when they are read.
            score: the lower the better; None for a checkpoint that is kept only as one of the last.
        """
        arrays = {path: np.asarray(leaf) for path, leaf in _flat(tree).items()}
        entries = {
            path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "sha256": _digest(leaf)}
            for path, leaf in arrays.items()
        }
        document: dict[str, Any] = {"about": dict(about), "arrays": entries, "score": score}
        args = self._orbax.args
        self._manager.save(
            step,
            args=args.Composite(
                # Orbax takes no empty arrays; their shape and dtype tell everything
                arrays=args.StandardSave(
                    {path: leaf for path, leaf in arrays.items() if leaf.size} or {"": np.zeros(1)}
                ),
                about=args.JsonSave({**document, "sha256": _text_digest(document)}),
            ),
            metrics=None if score is None else {"score": score},
            force=True,
        )

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: if it could not be, such as on a full disk.
        """
        self._manager.wait_until_finished()

    def load(self) -> "Checkpoint | None":
        """Read the newest checkpoint that is whole, or None where there is none.

        One that is damaged is deleted with a warning, and the one before it read.
        """
        for step in reversed(self.steps()):
            try:
                return self.read(step)
            except Exception as error:  # whatever a damaged file makes of its reader
                reason = str(error).partition("\n")[0][:200]
                warnings.warn(
                    f"{self.directory}: checkpoint {step} is damaged ({reason}); the one before it is used.",
                    stacklevel=2,
                )
                self._manager.delete(step)
        return None

    def best(self) -> int | None:
        """Give the step of the checkpoint with the lowest score, or None where none has one."""
        args = self._orbax.args.Composite(about=self._orbax.args.JsonRestore())
        scores = {
            step: self._manager.restore(step, args=args).about["score"] for step in self.steps()
        }
        scored = {step: score for step, score in scores.items() if score is not None}
        return min(scored, key=lambda step: scored[step]) if scored else None

    def read(self, step: int) -> "Checkpoint":
        """Read the checkpoint of one step, and check every byte.

        Raises:
            Exception: of whatever kind, if it is damaged.
        """
        args = self._orbax.args
        read = self._manager.restore(
            step, args=args.Composite(arrays=args.StandardRestore(), about=args.JsonRestore())
        )
        arrays, document = {}, dict(read.about)
        if document.pop("sha256") != _text_digest(document):
            raise ValueError("its description is not what was written")
        for path, entry in document["arrays"].items():
            stored = read.arrays.get(path)
            array = (
                np.zeros(entry["shape"], jnp.dtype(entry["dtype"]))
                if stored is None
                else np.asarray(stored)
            )
            if _digest(array) != entry["sha256"]:
                raise ValueError(f"the bytes of {path} are not those that were written")
            arrays[path] = array
        return Checkpoint(step, arrays, document["about"])

    def _open(self) -> Any:
        policies = self._orbax.checkpoint_managers
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["score"],
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = self._orbax.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(self.keep), best])
        )
        return self._orbax.CheckpointManager(self.directory, options=options)


class Checkpoint(NamedTuple):
    """What was read: the step, arrays by path, and what they belong to."""

    step: int
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]

    def check(self, about: Mapping[str, Any]) -> None:
        """Check that the checkpoint belongs to this.

        Raises:
            InputError: naming the first difference.
        """
        stored = {name: self.about.get(name) for name in about}
        if difference := _first_difference(stored, dict(about)):
            raise InputError(f"checkpoint {self.step}: belongs to another run: {difference}")

    def restore(self, name: str, like: PyTree) -> PyTree:
        """Give the arrays below ``name`` in the structure of ``like``, keys as keys.

        Raises:
            InputError: where they differ from ``like`` in structure, shape or dtype; the first is named.
        """
        wanted = _flat({name: like})
        for path, leaf in wanted.items():
            stored = self.arrays.get(path)
            got = "nothing" if stored is None else f"{stored.dtype}{list(stored.shape)}"
            if got != (expected := f"{leaf.dtype}{list(leaf.shape)}"):
                raise InputError(
                    f"checkpoint {self.step}: expected {path} to be {expected}, got {got}."
                )
        extra = [
            path for path in self.arrays if path.startswith(f"['{name}']") and path not in wanted
        ]
        if extra:
            raise InputError(
                f"checkpoint {self.step}: expected nothing at {extra[0]}, got an array."
            )
        leaves, structure = jax.tree.flatten(like)
        restored = [
            _like(self.arrays[path], leaf) for path, leaf in zip(wanted, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, restored)

    def has(self, name: str) -> bool:
        """Whether anything was saved below ``name``."""
        return any(path.startswith(f"['{name}']") for path in self.arrays)

    def group(self, name: str) -> dict[str, np.ndarray]:
        """Give the arrays of a plain dict that was saved below ``name``."""
        start = f"['{name}']['"
        return {
            path[len(start) : -2]: array
            for path, array in self.arrays.items()
            if path.startswith(start)
        }


def _flat(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): jax.random.key_data(x) if _is_key(x) else x
        for path, x in leaves
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _like(stored: np.ndarray, leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(stored), impl=jax.random.key_impl(leaf))
    return jnp.asarray(stored)


def _text_digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _first_difference(found: Any, wanted: Any, path: str = "") -> str:
    """Name the first place where two JSON documents differ; "" if there is none."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs = [
            (f"{path}.{key}".lstrip("."), found.get(key), wanted.get(key))
            for key in {**wanted, **found}
        ]
    elif isinstance(found, list) and isinstance(wanted, list | tuple):
        pairs = [
            (f"{path}[{i}]", a, b) for i, (a, b) in enumerate(itertools.zip_longest(found, wanted))
        ]
    else:
        return "" if found == wanted else f"expected {path} to be {wanted!r}, got {found!r}."
    return next((text for name, a, b in pairs if (text := _first_difference(a, b, name))), "")


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise InputError(
            "Checkpoints: expected Orbax; install the extra: pip install '.[checkpoint]'."
        ) from error
    return ocp
