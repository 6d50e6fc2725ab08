"""What a search has trained, in checkpoints, so that a search that was killed can go on.

Each member bears a name that is a digest of all that decides its result: the network, the data, the
optimizer's numbers, the seed. A search that is started again takes up each of its members by name.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.checks import InputError
from jaxnn.sklearn.plans import TrainingPlan
from jaxnn.training.checkpoint import Checkpoint, Checkpoints
from jaxnn.training.members import Member
from jaxnn.training.train_step import TrainState
from jaxnn.types import Params


class Stored(NamedTuple):
    """What is written of members whose arrays have the same shapes, M of them.

    Attributes:
        params: their parameters, stacked.
        opt_state: the numbers of their optimizers, stacked.
        step: the steps that they have made, (M,).
        key: the words of their keys, stacked.
        best: their best parameters, stacked, or None.
    """

    params: Params
    opt_state: Any
    step: np.ndarray
    key: np.ndarray
    best: Params

    @classmethod
    def of(cls, member: Member) -> "Stored":
        """Return what is written of one member."""
        state = member.state
        words = np.asarray(jax.random.key_data(state.key))
        return cls(state.params, state.opt_state, np.asarray(state.step), words, member.best)


class Place(NamedTuple):
    """Where a member is in a checkpoint.

    Attributes:
        epochs: the epochs that it had made.
        kind: the number of its :class:`Stored`.
        place: its place there.
    """

    epochs: int
    kind: int
    place: int


class Saved:
    """The members of a search in checkpoints.

    Args:
        who: the search, for errors.
        given: the checkpoints, or their folder.

    Raises:
        InputError: if the folder can't be written to, or holds something else.
    """

    def __init__(self, who: str, given: Checkpoints | str | os.PathLike) -> None:
        self._who = who
        self.checkpoints = given if isinstance(given, Checkpoints) else Checkpoints(given)
        found = self.checkpoints.load()
        self._found, self._places = found, _places(found)
        self._last = -1 if found is None else found.step
        self._stacked: dict[int, Stored] = {}
        self._used = False

    def restore(self, name: str, member: Member, epochs: int) -> None:
        """Bring a member to where it was when it was saved, but not beyond a number of epochs."""
        found = self._found
        places = [each for each in self._places.get(name, ()) if each.epochs <= epochs]
        if found is None or not places:
            return
        self._used = True
        last = max(places)
        if last.epochs <= len(member.records):
            return
        stored = self._stacked_of(found, last.kind, member)
        one = jax.tree.map(lambda leaf: leaf[last.place].copy(), stored)
        key = jax.random.wrap_key_data(one.key, impl=jax.random.key_impl(member.state.key))
        member.state = TrainState(one.params, one.opt_state, key, one.step)
        columns = found.group(f"records {last.kind}")
        del columns["epochs"]
        for epoch in range(len(member.records), last.epochs):
            member.take({column: values[last.place, epoch] for column, values in columns.items()})
        member.best = one.best

    def check_used(self) -> None:
        """Check that the checkpoints are those of this search.

        Raises:
            InputError: if none of its members was found in them.
        """
        if self._places and not self._used:
            raise InputError(
                f"{self._who}: expected a folder with checkpoints of this search, got "
                f"{self.checkpoints.directory} with those of another estimator, grid or data."
            )

    @property
    def about(self) -> dict[str, Any]:
        """What else was saved with the members, as JSON."""
        return {} if self._found is None else dict(self._found.about)

    def save(self, members: Mapping[str, Member], **about: Any) -> None:
        """Write all members of a search.

        Args:
            members: the members by name. A name may be followed by a space and something that tells
                apart the same member at several times.
            **about: what else to save, as JSON.
        """
        number = sum(len(member.records) for member in members.values())
        if number <= self._last:
            return
        kinds = defaultdict(list)
        for name, member in members.items():
            kinds[_shapes(member)].append(name)
        tree: dict[str, Any] = {}
        for kind, names in enumerate(kinds.values()):
            own = [members[name] for name in names]
            each = [Stored.of(member) for member in own]
            tree[f"state {kind}"] = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
            tree[f"records {kind}"] = _columns(own)
        self.checkpoints.save(number, tree, {"members": list(kinds.values()), **about})
        self._last = number

    def close(self) -> None:
        """Wait until everything is written, and let others use the folder."""
        self.checkpoints.wait()

    def _stacked_of(self, found: Checkpoint, kind: int, member: Member) -> Stored:
        if kind not in self._stacked:
            best = any(path.startswith(f"['state {kind}'].best") for path in found.arrays)
            count = len(found.about["members"][kind])
            like = Stored.of(member)._replace(best=member.state.params if best else None)
            stacked = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((count, *np.shape(leaf)), leaf.dtype), like
            )
            with jax.enable_x64(True):  # so that float64 remains what it is
                restored = found.restore(f"state {kind}", stacked)
            self._stacked[kind] = jax.tree.map(np.asarray, restored)
        return self._stacked[kind]


def name_of(plan: TrainingPlan, data: bytes, member: Member) -> str:
    """Return a digest of everything that decides the result of a plan, but for the epochs.

    It is the same in another process.

    Args:
        plan: the plan.
        data: a digest of its data.
        member: the new member that follows this plan.
    """
    update = member.step.update
    how = plan.net, plan.task.loss, plan.task.outputs, plan.batch_size, plan.ending, plan.shuffle
    seed = plan.seed if plan.seeded else None
    digest = hashlib.sha256(repr((how, seed, getattr(update, "text", update))).encode())
    digest.update(data)
    for constant in member.step.constants:
        digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()


def _places(found: Checkpoint | None) -> dict[str, list[Place]]:
    """Return where each member is."""
    places = defaultdict(list)
    for kind, names in enumerate([] if found is None else found.about.get("members", [])):
        counts = found.group(f"records {kind}")["epochs"].tolist()  # type: ignore[union-attr]
        for place, (name, epochs) in enumerate(zip(names, counts, strict=True)):
            places[name.partition(" ")[0]].append(Place(epochs, kind, place))
    return places


def _shapes(member: Member) -> Hashable:
    """Return what members need to have in common to be stacked."""
    leaves, structure = jax.tree.flatten(Stored.of(member))
    entries = tuple(member.records[0]) if member.records else ()
    return structure, entries, tuple((np.shape(leaf), str(leaf.dtype)) for leaf in leaves)


def _columns(members: list[Member]) -> dict[str, np.ndarray]:
    """Return the records of members as arrays (M, E), of which the shorter are filled up."""
    counts = np.array([len(member.records) for member in members])
    columns = {"epochs": counts}
    for name in members[0].records[0] if members[0].records else ():
        columns[name] = np.full((len(members), counts.max()), np.nan)
        for row, member in zip(columns[name], members, strict=True):
            row[: len(member.records)] = [record[name] for record in member.records]
    return columns
