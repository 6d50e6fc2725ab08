"""Saving of a training run in checkpoints, and resuming it from the newest one."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.training.batching import shuffle_seeds
from jaxnn.training.checkpoint import Checkpoint, Checkpoints
from jaxnn.training.history import History, Record
from jaxnn.training.hooks import Hook
from jaxnn.training.loop import Run
from jaxnn.training.placement import is_elsewhere, placed_like, with_automatic_axes
from jaxnn.training.processes import digest
from jaxnn.values import to_json


def _as_checkpoints(who: str, given: Any) -> Checkpoints | None:
    """Return the checkpoints that a caller gave, either as such or by their folder.

    Raises:
        InputError: if they are neither.
    """
    if given is None or isinstance(given, Checkpoints):
        return given
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"{who}: expected checkpoint to be a folder or Checkpoints, got {type(given).__name__}."
        )
    return Checkpoints(given)


def describe_run(
    run: Run,
    rows: int | None,
    batch_size: int | None,
    *,
    data: PyTree,
    validation: PyTree,
    given: PyTree,
    records: Sequence[str],
    **order: bool,
) -> dict[str, Any]:
    """Return a description of the run that a checkpoint belongs to.

    Two descriptions are compared to find out whether a checkpoint belongs to another run.

    Args:
        run: the run before its first step.
        rows: the number of rows in its data, or None for a stream.
        batch_size: the number of rows per batch, or None for a stream.
        data: its data; of a stream, which is read only as the run goes on, None.
        validation: the data on which it is scored, or None as above.
        given: what the user let it start from, such as a state, or None.
        records: the names of the entries in its records.
        **order: what decides the order of the rows.
    """
    step = run.step
    return {
        "network": json.loads(to_json(step.net)),
        "loss": json.loads(to_json(step.loss)),
        "data": {"rows": rows, "batch_size": batch_size},
        "checksum of the data": _checksum(data),
        "checksum of the start": _checksum(given),
        "order": order,
        "records": list(records),
        "checksum of the validation data": _checksum(validation),
        "method": step.method,
        "precision": step.precision,
        "hyperparameters in the optimizer's state": {
            name: _as_json(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(run.state.opt_state)
            if ".hyperparams[" in (name := jax.tree_util.keystr(path))
        },
        "optimizer": step.update.text.splitlines(),  # type: ignore[attr-defined]
        "constants of the optimizer": [_as_json(constant) for constant in step.constants],
        "jax": jax.__version__,
    }


OF_A_VERSION = (
    "optimizer",
    "constants of the optimizer",
    "jax",
)  # entries that another version of JAX may change
CHECKED_BYTES = 256 * 2**20  # of larger arrays, only every so many rows are compared


def _checksum(tree: PyTree) -> int | None:
    """Return a number that tells apart trees of other shapes, dtypes or values."""
    return None if tree is None else digest(jax.tree.map(_compared, tree))


def _compared(leaf: Any) -> Any:
    """Return the part of an array that is compared, in the dtype in which it is trained on."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    step = 1 + leaf.nbytes // CHECKED_BYTES
    part = with_automatic_axes(leaf)[::step] if step > 1 else leaf
    if is_elsewhere(part):
        return part
    part = np.asarray(part)
    return part.astype(jax.dtypes.canonicalize_dtype(part.dtype), copy=False)


def _as_json(array: Any) -> Any:
    return np.asarray(array).tolist() if np.size(array) <= 1024 else digest(array)


class Saving(Hook):
    """The hook that writes a checkpoint at regular intervals of records, and at the end.

    Args:
        checkpoints: the checkpoints to write to.
        about: the description of the run to which they belong, see :func:`describe_run`.

    Attributes:
        choices: numbers that were found by trial and on which the bits of the run depend. They are
            saved, and a resumed run keeps them.
    """

    def __init__(self, checkpoints: Checkpoints, about: dict[str, Any]) -> None:
        self._checkpoints, self._about = checkpoints, about
        self._saved: int | None = None
        self.choices: dict[str, int] = {}

    @classmethod
    def of(cls, who: str, given: Any, about: Callable[[], dict[str, Any]]) -> "Saving | None":
        """Return the hook, or None if there are no checkpoints to write."""
        checkpoints = _as_checkpoints(who, given)
        return None if checkpoints is None else cls(checkpoints, about())

    def resume(self, run: Run) -> None:
        """Restore a run from the newest checkpoint, if there is one.

        Raises:
            InputError: if the checkpoint belongs to another run.
        """
        try:
            if (found := self._checkpoints.load()) is not None:
                self._put(run, found)
        except BaseException:
            self._checkpoints.wait()  # which lets go of the folder
            raise

    def _put(self, run: Run, found: Checkpoint) -> None:
        # an earlier version of this library may have described less
        own = {name: v for name, v in self._about.items() if name in found.about}
        found.check({name: v for name, v in own.items() if name not in OF_A_VERSION})
        state = placed_like(run.state, found.restore("state", run.state))
        fresh, stored = (shuffle_seeds(each.key) for each in (run.state, state))
        if fresh != stored:
            raise InputError(
                f"checkpoint {found.step}: belongs to another run: "
                f"expected key data {fresh[0]}, got {stored[0]}."
            )
        # another version of JAX may write the formula of an optimizer differently
        if found.about["jax"] == self._about["jax"]:
            found.check(own)
        run.state = state
        kept = found.group("run")
        waiting = kept.pop("waiting_rows")
        run.history = History.restored(found.step, found.group("history"), waiting)
        if found.has("best"):
            run.best = placed_like(state.params, found.restore("best", run.state.params))
        if kept.pop("stopped_by_callback"):
            run.stop("callback")
        self.choices |= {name: int(value) for name, value in kept.items()}
        self._saved = found.step

    def after_record(self, run: Run, record: Record) -> None:
        """Write a checkpoint if one is due."""
        if len(run.history.records) % self._checkpoints.every == 0:
            self._save(run)

    def at_end(self, run: Run) -> None:
        """Write the last checkpoint, unless the present step is already saved."""
        if self._saved != run.history.step:
            self._save(run)

    def close(self) -> None:
        """Wait until everything is written."""
        self._checkpoints.wait()

    def _save(self, run: Run) -> None:
        tree = {"state": run.state, "history": run.history.arrays(), "best": run.best}
        tree["run"] = {
            "stopped_by_callback": np.array(run.stopped == "callback"),
            "waiting_rows": run.history.waiting_rows,
            **{name: np.array(value) for name, value in self.choices.items()},
        }
        score = run.history.records[-1].get("validation_loss") if run.history.records else None
        score = None if score is None else float(np.mean(score))
        self._checkpoints.save(run.history.step, tree, self._about, score)
        self._saved = run.history.step
