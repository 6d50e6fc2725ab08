"""The layout of a training run on many devices, as rules on the paths of parameters.

A mesh arranges devices along named axes (``jax.make_mesh((4, 2), ("data", "model"))``). Two of the
names have a meaning of their own: the rows of each batch are divided along ``"data"``, and the
positions of sequences along ``"sequence"``. Parameters are repeated on every device, except where a
rule divides them. The compiler derives from this layout what each device computes and what the
devices exchange (Xu et al., 2021); every result is that of a single device, up to the order of
summation.

A rule is a pair: a regular expression, which is searched for in the path of a parameter, and the
way to divide it. The first rule that matches counts. The way is a ``PartitionSpec`` for the last
axes of the array, such as ``P(None, "model")``, or a function of its shape and the mesh that
returns one, such as :func:`largest_axis`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.training.placement import automatic, put, with_automatic_axes
from jaxnn.types import Params

Division: TypeAlias = PartitionSpec | Callable[[tuple[int, ...], Mesh], PartitionSpec]
Rule: TypeAlias = tuple[str, Division]

DATA, SEQUENCE, POPULATION = "data", "sequence", "population"


@dataclasses.dataclass(frozen=True)
class largest_axis:  # noqa: N801, it is used as a function
    """Divide the larger one of the last two axes that the devices of an axis divide evenly.

    An array that has no such axis is repeated.

    Args:
        name: the axis of the mesh.
    """

    name: str

    def __call__(self, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """Return the division of an array of this shape."""
        size = mesh.shape[self.name]
        last_two = range(max(0, len(shape) - 2), len(shape))  # axes before them stack layers
        fitting = [axis for axis in last_two if shape[axis] and shape[axis] % size == 0]
        if not fitting:
            return PartitionSpec()
        best = max(fitting, key=lambda axis: (shape[axis], axis))
        return PartitionSpec(*[self.name if axis == best else None for axis in range(len(shape))])


FULLY_SHARDED: tuple[Rule, ...] = ((".", largest_axis(DATA)),)
"""Fully sharded data parallelism (Rajbhandari et al., 2020): each parameter, and so its gradient
and the optimizer's state for it, is divided along "data", and collected where it is used: at the
beginning of a step, or a block at a time (:mod:`jaxnn.training.collected_blocks`)."""

TENSOR_PARALLEL: tuple[Rule, ...] = (
    (r"\.(wq|wk|wv)$", PartitionSpec(None, "model")),  # heads, the outputs of the projections
    (r"\.(bq|bk|bv)$", PartitionSpec("model")),
    (r"\.wo$", PartitionSpec("model", None)),
    (r"\.(wx|wh)$", PartitionSpec(None, "model")),  # the gates of recurrent layers
    (r"^\.w$", PartitionSpec("model", None)),  # the words of a language model
    (r"\.w$", largest_axis("model")),  # Dense, convolutions and embeddings
)
"""Tensor parallelism in the manner of Shoeybi et al. (2019), along the axis "model"."""

DEFAULTS = FULLY_SHARDED + TENSOR_PARALLEL


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and the rules by which parameters are divided along its axes.

    Attributes:
        mesh: the mesh, with automatic axes.
        rules: pairs of a regular expression and a division.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = ()

    def place(self, params: Params) -> Params:
        """Put parameters where the rules say."""
        return jax.tree.map(put, params, self._shardings(params))

    def keep(self, params: Params) -> Params:
        """Tell the compiler, inside a program, to leave parameters where the rules say."""
        return jax.tree.map(jax.lax.with_sharding_constraint, params, self._shardings(params))

    def collect(self, params: Params, but: Collection[str] = ()) -> Params:
        """Tell the compiler, inside a program, to collect what is divided along "data".

        Each device has rows of its own to work on, and needs all parameters for them.

        Args:
            params: the parameters.
            but: the paths of those that are left where they are.
        """

        def everywhere(path: Any, leaf: Any) -> Any:
            name = jax.tree_util.keystr(path)
            if name in but:
                return leaf
            whole = without(DATA, self.of(name, leaf.shape))
            return jax.lax.with_sharding_constraint(leaf, whole)

        return jax.tree_util.tree_map_with_path(everywhere, params)

    def everywhere(self, tree: PyTree) -> PyTree:
        """Copy arrays to every device, except for those that are on the mesh already."""
        devices, here = set(self.mesh.devices.flat), NamedSharding(self.mesh, PartitionSpec())

        def spread(leaf: Any) -> Any:
            is_there = isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices
            return with_automatic_axes(leaf) if is_there else put(leaf, here)

        return jax.tree.map(spread, tree)

    def rows(self, batch: PyTree) -> PyTree:
        """Divide the rows of a batch among the devices, before a program takes it."""
        return jax.tree.map(lambda leaf: put(leaf, self.of_rows(leaf.shape)), batch)

    def divide(self, batch: PyTree) -> PyTree:
        """Tell the compiler, inside a program, to divide the rows of a batch among the devices.

        Rows that the devices do not divide evenly, such as the last ones of an epoch, are repeated.
        """
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf, self.of_rows(leaf.shape)), batch
        )

    def of_rows(self, shape: tuple[int, ...]) -> NamedSharding:
        """Return the division of an array whose first axes are rows and positions."""
        axes = [
            name if name in self.mesh.shape and length % self.mesh.shape[name] == 0 else None
            for name, length in zip((DATA, SEQUENCE), shape, strict=False)
        ]
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def of(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
        """Return the division of one parameter."""
        for pattern, division in self.rules:
            if re.search(pattern, path):
                spec = _spec(division, shape, self.mesh)
                missing = len(shape) - len(spec)
                return NamedSharding(self.mesh, PartitionSpec(*[None] * missing, *spec))
        return NamedSharding(self.mesh, PartitionSpec())

    def _shardings(self, params: Params) -> PyTree:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: self.of(jax.tree_util.keystr(path), leaf.shape), params
        )


def make_layout(
    who: str, mesh: Any, rules: Sequence[Rule], params: Params, batch_size: int | None
) -> Layout | None:
    """Check a mesh and its rules against the parameters and the batch; return the layout.

    Raises:
        InputError: for rules without a mesh, a mesh with neither rows nor rules to divide, an axis
            that the mesh does not have or that does not divide its array evenly, or a rule that
            matches no parameter.
    """
    if mesh is None:
        if rules:
            raise InputError(f"{who}: expected a mesh for the rules, got None.")
        return None
    if not isinstance(mesh, Mesh):
        raise InputError(f"{who}: expected mesh to be a jax.sharding.Mesh, got {mesh!r}.")
    layout = Layout(automatic(mesh), _checked_rules(who, mesh, rules))
    if not rules and not {DATA, SEQUENCE} & set(mesh.shape):
        raise InputError(
            f"{who}: expected a mesh with an axis {DATA!r} or {SEQUENCE!r}, or rules for the "
            f"parameters, got the axes {tuple(mesh.shape)}."
        )
    devices = mesh.shape.get(DATA, 1)
    if batch_size is not None and batch_size % devices:
        raise InputError(
            f"{who}: expected a batch_size that the {devices} devices along {DATA!r} divide "
            f"evenly, got {batch_size}."
        )
    _check_divisions(who, layout, params)
    return layout


def without(name: str, sharding: NamedSharding) -> NamedSharding:
    """Return a division without that along one axis of the mesh."""
    each = (axes_of(PartitionSpec(axes)) for axes in sharding.spec)
    kept = (tuple(axis for axis in axes if axis != name) or None for axes in each)
    return NamedSharding(sharding.mesh, PartitionSpec(*kept))


def spread_members(who: str, mesh: Any, tree: PyTree, members: int) -> PyTree:
    """Divide the members of a population, along the first axis of each array, among devices.

    Raises:
        InputError: for a mesh without the axis "population", or one that does not divide the
            members evenly.
    """
    if not isinstance(mesh, Mesh) or POPULATION not in mesh.shape:
        axes = tuple(mesh.shape) if isinstance(mesh, Mesh) else mesh
        raise InputError(f"{who}: expected a mesh with an axis {POPULATION!r}, got {axes!r}.")
    if members % mesh.shape[POPULATION]:
        raise InputError(
            f"{who}: expected members that the {mesh.shape[POPULATION]} devices along "
            f"{POPULATION!r} divide evenly, got {members}."
        )
    sharding = NamedSharding(automatic(mesh), PartitionSpec(POPULATION))
    return jax.tree.map(lambda leaf: put(leaf, sharding), tree)


def _checked_rules(who: str, mesh: Mesh, rules: Any) -> tuple[Rule, ...]:
    if not isinstance(rules, tuple | list):
        raise InputError(
            f"{who}: expected rules as a sequence of pairs (pattern, PartitionSpec), got {rules!r}."
        )
    for rule in rules:
        is_pair = isinstance(rule, tuple) and len(rule) == 2 and isinstance(rule[0], str)
        if not is_pair or not (isinstance(rule[1], PartitionSpec) or callable(rule[1])):
            raise InputError(
                f"{who}: expected each rule as a pair (pattern, PartitionSpec), got {rule!r}."
            )
        try:
            re.compile(rule[0])
        except re.error as error:
            raise InputError(
                f"{who}: expected a regular expression in the rule {rule!r}, got {error}."
            ) from error
        named = [rule[1].name] if isinstance(rule[1], largest_axis) else axes_of(rule[1])
        if unknown := sorted(set(named) - set(mesh.shape)):
            raise InputError(
                f"{who}: expected axes of the mesh, {tuple(mesh.shape)}, got {unknown[0]!r} in the "
                f"rule {rule!r}."
            )
    return tuple(rules)


def _spec(division: Division, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if isinstance(division, PartitionSpec):
        return division
    try:
        spec = division(shape, mesh)
    except TypeError as error:
        raise InputError(
            f"rules: expected a function of a shape and the mesh, got {division!r}: {error}."
        ) from error
    if not isinstance(spec, PartitionSpec):
        raise InputError(f"rules: expected {division!r} to return a PartitionSpec, got {spec!r}.")
    return spec


def axes_of(division: Any) -> list[str]:
    """Return the names in a PartitionSpec, in which an axis may be divided along several."""
    if not isinstance(division, PartitionSpec):
        return []
    each = [axes if isinstance(axes, tuple) else (axes,) for axes in division]
    return [name for axes in each for name in axes if name is not None]


def _check_divisions(who: str, layout: Layout, params: Params) -> None:
    leaves = {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    for pattern, division in layout.rules:
        is_default = (pattern, division) in DEFAULTS  # a table for every kind of layer
        if not is_default and not any(re.search(pattern, path) for path in leaves):
            raise InputError(
                f"{who}: expected a rule that matches a parameter, got {pattern!r}; the parameters "
                f"are {', '.join(list(leaves)[:8])}{', …' if len(leaves) > 8 else ''}."
            )
        for path, shape in leaves.items():
            if not callable(division) and re.search(pattern, path) and len(division) > len(shape):
                raise InputError(
                    f"{who}: expected a rule for at most {len(shape)} axes of {path}, "
                    f"got {division}."
                )
    for path, shape in leaves.items():
        spec = layout.of(path, shape).spec
        for axis, axes in enumerate(spec):
            parts = math.prod(layout.mesh.shape[name] for name in axes_of(PartitionSpec(axes)))
            if shape[axis] % parts:
                raise InputError(
                    f"{who}: expected axis {axis} of {path}, of length {shape[axis]}, to be "
                    f"divided evenly by the {parts} devices along {axes!r}."
                )
