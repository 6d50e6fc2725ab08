"""Checkpoints of a training run: whole or not at all, verified when read, pruned.

A checkpoint holds arrays by name (parameters, optimizer, statistics, key, history) and a JSON
document that says what they belong to. How a checkpoint gets to the disk, and is found intact
there, is told in :mod:`jaxnn.training.checkpoint_folder`; how its arrays become a file, in
:mod:`jaxnn.training.array_files`.
"""

import itertools
import json
import math
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jaxnn.checks import InputError, check_array, check_bool, check_positive_int, is_typed_key
from jaxnn.training.array_files import join_parts, pieces_of, read_arrays, write_arrays
from jaxnn.training.checkpoint_folder import DamagedError, Folder, ForeignError

AT_ONCE = 64 * 2**20  # bytes: training waits for less; it goes on while more are written


class Checkpoints:
    """Where a training run is saved, how often, and how many checkpoints are kept.

    If several processes train one network, each writes the parts of arrays that its own devices
    hold, and all read, so that the directory has to be one that all can reach. A run goes on with
    any number of devices and processes.

    Args:
        directory: where to write; made if it is not there. It holds checkpoints and nothing else.
        every: write after every so many records of the history (by default: epochs), and at the
            end.
        keep: how many of the last ones to keep. The one with the lowest validation loss is kept,
            too.
        start_anew: whether to start from the beginning where there are checkpoints, but all of them
            are damaged.

    Raises:
        InputError: if the directory cannot be written to, or holds something else.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        every: int = 1,
        keep: int = 3,
        start_anew: bool = False,
    ) -> None:
        check_positive_int("Checkpoints", "every", every)
        check_positive_int("Checkpoints", "keep", keep)
        check_bool("Checkpoints", "start_anew", start_anew)
        self._folder = Folder("Checkpoints", directory)
        self.directory, self.every, self.keep, self.start_anew = (
            self._folder.path,
            every,
            keep,
            start_anew,
        )
        self._writer = _Writer()

    def steps(self) -> tuple[int, ...]:
        """List the steps that there are checkpoints of, in order."""
        return self._folder.numbers()

    def save(
        self, step: int, tree: PyTree, about: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Write a checkpoint; it counts once complete.

        A large one is written while training goes on.

        Args:
            step: its number.
            tree: arrays.
            about: what they belong to; compared when they are read.
            score: the lower the better; None, or NaN, for a checkpoint that is kept only as one of
                the last.

        Raises:
            OSError: if this one, or the one before it, could not be written, such as on a full
                disk, or because another process did not write its part in time.
            InputError: for a step that is not a number of at least 0, or if another process writes
                into the same folder.
        """
        if not isinstance(step, int) or step < 0:
            raise InputError(
                f"Checkpoints.save: expected step to be an integer of at least 0, got {step!r}."
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not is_typed_key(leaf):
                check_array("Checkpoints.save", f"tree{jax.tree_util.keystr(path)}", leaf)
        try:
            json.dumps(dict(about))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"Checkpoints.save: expected plain values in about, as in JSON, got: {error}."
            ) from error
        self._writer.wait()
        is_first = not jax.process_index()
        if is_first:
            self._folder.hold()
            self._folder.begin(step)
        if jax.process_count() > 1:  # the folder is there now
            multihost_utils.sync_global_devices(f"checkpoint {step}")
        leaves = _flat(tree)
        large = sum(leaf.nbytes for leaf in leaves.values()) > AT_ONCE
        # a large state is copied: the next step may reuse its memory
        arrays = {path: pieces_of(leaf, copy=large) for path, leaf in leaves.items()}
        score = score if score is not None and math.isfinite(score) else None

        def write() -> None:
            part = self._folder.part(step)
            write_arrays(part, arrays)
            if is_first:
                described = join_parts(part)
                document = {"about": dict(about), "score": score, "arrays": described}
                self._folder.finish(step, document)
                self._prune()

        self._writer.start(write)
        if not large:
            self._writer.wait()

    def wait(self) -> None:
        """Wait until everything is written, and let other processes use the folder.

        Raises:
            OSError: if it could not be written, such as on a full disk.
        """
        try:
            self._writer.wait()
        finally:
            if not self._writer.busy():
                self._folder.release()

    def load(self) -> "Checkpoint | None":
        """Read the newest checkpoint that is whole, or None where there is none.

        The folder is kept from other processes from here to :meth:`wait`. Nothing is deleted: a
        damaged checkpoint is renamed, such as ``12.damaged``, with a warning, and the one before it
        read.

        Raises:
            InputError: if there are checkpoints and all are damaged, unless ``start_anew``, or if
                another process writes into the same folder.
            OSError: if a file can't be read now, which does not show that it is damaged.
        """
        if jax.process_count() == 1:
            return self._newest()
        found = None if jax.process_index() else self._newest()
        step = int(multihost_utils.broadcast_one_to_all(-1 if found is None else found.step))
        return found if found is not None or step < 0 else self.read(step)

    def _newest(self) -> "Checkpoint | None":
        self._folder.hold()
        told: list[str] = []
        for step in reversed(self.steps()):
            try:
                found = self.read(step)
            except DamagedError as error:
                name = self._folder.put_aside(step)
                told.append(f"checkpoint {step} is damaged ({error}) and called {name} now")
            except ForeignError as error:
                told.append(f"{step} is not a checkpoint ({error}) and left alone")
            else:
                if told:
                    self._warn([*told, f"checkpoint {step} is used"])
                return found
        if (damaged := self._folder.damaged()) and not self.start_anew:
            reasons = "; ".join(told) or ", ".join(damaged)
            raise InputError(
                f"Checkpoints: expected a checkpoint that can be read in {self.directory}, "
                f"got none: {reasons}. "
                "Checkpoints(..., start_anew=True) starts from the beginning, and keeps these."
            )
        if told:
            self._warn([*told, "training starts from the beginning"])
        return None

    def best(self) -> int | None:
        """Return the step of the checkpoint with the lowest score, or None where none has one."""
        return _lowest(self._scores())

    def read(self, step: int) -> "Checkpoint":
        """Read the checkpoint of one step, and check every byte.

        Raises:
            InputError: if there is none of this step.
            DamagedError: if it is not what was written.
            ForeignError: if it was not written by this library.
            OSError: if it can't be read now.
        """
        if step not in (there := self.steps()):
            raise InputError(f"Checkpoints.read: expected one of the steps {there}, got {step!r}.")
        folder, document = self._folder.read(step)
        return Checkpoint(step, read_arrays(folder, document["arrays"]), document["about"])

    def _scores(self) -> dict[int, float | None]:
        """Return the scores of the checkpoints that can be told to be ours."""
        scores = {}
        for step in self.steps():
            try:
                scores[step] = self._folder.describe(step)["score"]
            except (DamagedError, ForeignError):
                continue
        return scores

    def _prune(self) -> None:
        scores = self._scores()
        for step in sorted(scores)[: -self.keep]:
            if step != _lowest(scores):
                self._folder.remove(step)

    def _warn(self, told: list[str]) -> None:
        warnings.warn(f"{self.directory}: {'; '.join(told)}.", stacklevel=3)


def _lowest(scores: Mapping[int, float | None]) -> int | None:
    scored = {step: score for step, score in scores.items() if score is not None}
    return min(scored, key=lambda step: scored[step]) if scored else None


class _Writer:
    """Runs one function at a time in a thread of its own.

    A signal reaches the main thread only, so no interrupt comes in the middle of a write. The
    thread is a daemon: a process that ends does not wait for it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Begin; the one before it must have been waited for."""

        def work() -> None:
            try:
                write()
            except BaseException as error:  # raised again where it is waited for
                self._error = error

        self._thread = threading.Thread(target=work, daemon=True, name="jaxnn checkpoint")
        self._thread.start()

    def busy(self) -> bool:
        """Return whether something is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until it is done, and raise its error, once."""
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error


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
        """Return the arrays below ``name`` in the structure of ``like``, keys as keys.

        Raises:
            InputError: where they differ from ``like`` in structure, shape or dtype; the first is
                named.
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
        """Return whether any array was saved below ``name``."""
        return any(path.startswith(f"['{name}']") for path in self.arrays)

    def group(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of a plain dict that was saved below ``name``."""
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
