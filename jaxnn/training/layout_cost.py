"""What a layout on many devices will cost, found by compiling one step without any numbers.

The figures are read from the compiled program: where each parameter lies, the bytes that a device
holds, and what the devices exchange in a step.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn.checks import InputError, kind_of
from jaxnn.conversion import as_example
from jaxnn.summarize import short
from jaxnn.training.layout import Layout, Rule, make_layout
from jaxnn.training.train_step import TrainState, TrainStep, init_state, make_step
from jaxnn.types import Layer, Loss, Params, split_running

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"(?P<dtype>[a-z]+\d+)\[(?P<shape>[\d,]*)\]")


class Placed(NamedTuple):
    """One parameter on a mesh.

    Attributes:
        path: its path in the parameters.
        shape: its whole shape.
        spec: its division along the axes of the mesh.
        bytes: the bytes of it that one device holds.
    """

    path: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    bytes: int


class Collective(NamedTuple):
    """One exchange between devices in the program of a step.

    Attributes:
        kind: its name in XLA, such as "all-reduce".
        bytes: the size of its result on one device.
        in_loop: whether it is in the body of a loop, where it is made in each iteration.
    """

    kind: str
    bytes: int
    in_loop: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """A layout and its cost.

    Attributes:
        devices: the number of devices along each axis of the mesh.
        params: the parameters, each with its division.
        state_bytes: the bytes of parameters and optimizer that one device holds.
        peak_bytes: the memory that one device needs for a step, with the state and the batch, as
            the compiler states it.
        collectives: what the devices exchange in a step, one entry for each operation.
    """

    devices: dict[str, int]
    params: tuple[Placed, ...]
    state_bytes: int
    peak_bytes: int
    collectives: tuple[Collective, ...]

    def __str__(self) -> str:
        axes = " x ".join(f"{size} {name}" for name, size in self.devices.items())
        width = max((len(row.path) for row in self.params), default=0)
        rows = [
            f"  {row.path:{width}}  {row.shape!s:>18}  {_bytes_text(row.bytes):>10}  {row.spec}"
            for row in self.params
        ]
        held, peak = _bytes_text(self.state_bytes), _bytes_text(self.peak_bytes)
        memory = f"a device holds {held} of parameters and optimizer, and needs {peak} in a step"
        lines = [f"devices: {axes}", *rows, memory]
        for kind in KINDS:
            for in_loop in (False, True):
                found = [c for c in self.collectives if (c.kind, c.in_loop) == (kind, in_loop)]
                if found:
                    place = "an iteration of a loop" if in_loop else "a step"
                    total = _bytes_text(sum(c.bytes for c in found))
                    lines.append(f"{len(found)} {kind} {place}: {total}")
        return "\n".join(lines)


def sharding_plan(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch: Any,
    *,
    mesh: Mesh | None = None,
    rules: Sequence[Rule] = (),
    precision: str | None = None,
) -> Plan:
    """Compile a step of training for some devices, and tell what it costs. Nothing is computed.

    ::

        mesh = jax.make_mesh((2, 4), ("data", "model"))
        print(nn.sharding_plan(net, loss, optimizer, (x, y), mesh=mesh, rules=nn.TENSOR_PARALLEL))

    Args:
        net: a layer or network.
        loss: its objective.
        optimizer: any optimizer of optax.
        batch: (x, target) of one batch, as arrays or their ShapeDtypeStructs.
        mesh: the devices, see :func:`jaxnn.fit`; None for a single one, of which it is then told
            how much memory a step needs, and for instance how much ``Remat`` saves.
        rules: the division of the parameters, see there.
        precision: see there.

    Returns:
        A :class:`Plan`, which prints as a table.

    Raises:
        InputError: for arguments that do not fit, see :func:`jaxnn.fit`.
    """
    layout, state, traced = traced_step(net, loss, optimizer, batch, mesh, rules, precision)
    program = traced.lower().compile()
    return Plan(
        dict(layout.mesh.shape),
        tuple(_rows(layout, state.params)),
        sum(_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(state)),
        _peak(program),
        tuple(collectives(program.as_text() or "")),
    )


def traced_step(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batch: Any,
    mesh: Any,
    rules: Sequence[Rule] = (),
    precision: str | None = None,
) -> tuple[Layout, TrainState, Any]:
    """Trace a step of training for a mesh, without computing anything.

    Returns:
        The layout; the state before the step, as shapes and places; and the traced program, which
        ``lower`` writes for the devices that are there, or for others.
    """
    who = "sharding_plan"
    step = make_step(who, net, loss, optimizer, "hand", precision)
    if not isinstance(batch, tuple) or len(batch) != 2:
        got = f"{len(batch)} entries" if isinstance(batch, tuple) else kind_of(batch)
        raise InputError(f"{who}: expected batch as (x, target), got {got}.")
    if mesh is None:
        mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    x, target = as_example(who, "batch", batch)
    state = jax.eval_shape(lambda: init_state(net, optimizer, x, jax.random.key(0)))
    rows = jax.tree.leaves(x)[0].shape[0]
    layout = make_layout(who, mesh, rules, state.params, rows)
    assert layout is not None  # there is a mesh
    step = dataclasses.replace(step, layout=layout)
    placed = _placed(step, layout, state)
    batch_here = jax.tree.map(lambda leaf: _on(leaf, layout.of_rows(leaf.shape)), (x, target))
    return layout, placed, jax.jit(step, donate_argnums=0).trace(placed, batch_here)


def collectives(program: str) -> list[Collective]:
    """List what devices exchange in a program, given as XLA's text."""
    found = []
    for line in program.splitlines():
        if call := _CALL.search(line):
            size = sum(_size(array) for array in _ARRAY.finditer(call["result"]))
            found.append(Collective(call["kind"], size, "/while/body" in line))
    return found


def _size(array: re.Match[str]) -> int:
    bits = int(re.sub(r"\D", "", array["dtype"])) if array["dtype"] != "pred" else 8
    return math.prod(int(n) for n in array["shape"].split(",") if n) * bits // 8


def _placed(step: TrainStep, layout: Layout, state: TrainState) -> TrainState:
    """Return the shapes of a state, each with its place on the mesh."""
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _on(leaf, layout.of(jax.tree_util.keystr(path), leaf.shape)),
        state.params,
    )
    everywhere = NamedSharding(layout.mesh, PartitionSpec())
    opt_state = optax.tree_utils.tree_map_params(
        step.update.optimizer,  # type: ignore[attr-defined]
        lambda leaf, param: _on(leaf, param.sharding),
        state.opt_state,
        split_running(params)[0],
        transform_non_params=lambda leaf: _on(leaf, everywhere),
    )
    key, count = (_on(leaf, everywhere) for leaf in (state.key, state.step))
    return TrainState(params, opt_state, key, count)  # type: ignore[arg-type]


def _on(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _rows(layout: Layout, params: Params) -> list[Placed]:
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path)
        sharding = layout.of(name, leaf.shape)
        rows.append(Placed(name, leaf.shape, sharding.spec, _bytes(leaf, sharding)))
    return rows


def _bytes(leaf: Any, sharding: NamedSharding) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 8
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _peak(program: Any) -> int:
    memory = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return int(held + memory.temp_size_in_bytes - memory.alias_size_in_bytes)


def _bytes_text(size: int) -> str:
    return f"{short(size, 1024)}B"
