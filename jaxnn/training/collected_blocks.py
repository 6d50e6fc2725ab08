"""Repeated blocks whose parameters are collected a block at a time, where they are fully sharded.

A step would otherwise collect the parameters of all blocks before the first one, so that a whole
copy of the network lies on each device. Here each block collects its own, in the forward pass and
again in the backward pass, and divides its gradient as soon as it has it (Zhao et al., "PyTorch
FSDP", 2023). This holds for a :class:`Repeat` that is a loop of the program. One of few blocks is
written out, and the compiler collects their parameters once.
"""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, ClassVar

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn.checks import inside
from jaxnn.compose import WRITTEN_OUT, Repeat
from jaxnn.padding import ANY
from jaxnn.training.layout import DATA, Layout, axes_of, without
from jaxnn.types import Cache, Layer, Params, update_running
from jaxnn.values import children, layer, with_children
from jaxnn.watching import Arrays, taking_notes, watch

Shardings = tuple[NamedSharding, ...]  # of the parameters of one block


_PLACES: ContextVar[dict[str, Shardings]] = ContextVar("places")  # by the path of the Repeat


@contextlib.contextmanager
def collected(
    layout: Layout | None, net: Layer, params: Params, x: PyTree, key: PRNGKeyArray
) -> Iterator[tuple[Layer, Params]]:
    """Collect what is divided along "data", at once; but in a :class:`Repeat`, block by block.

    Args:
        layout: the layout of the parameters, or None.
        net: the network.
        params: its parameters, inside a program.
        x: its input.
        key: its key.

    Returns:
        The network and the parameters to use within the ``with`` statement. The repeated blocks of
        the network collect their own parameters; the others are collected.
    """
    if layout is None:
        yield net, params
        return
    repeated = _repeated(net, params, x, key)
    divided = {
        path: [layout.of(name, shape) for name, shape in own.items()]
        for path, own in repeated.items()
    }
    places = {
        path: tuple(map(_of_a_block, own))
        for path, own in divided.items()
        if any(DATA in axes_of(each.spec) for each in own) and not any(map(_divides_blocks, own))
    }
    by_block = {name for path in places for name in repeated[path]}
    before = _PLACES.set(places)
    try:
        yield _collecting(net, "", places), layout.collect(params, by_block)
    finally:
        _PLACES.reset(before)


def _collecting(net: Layer, path: str, places: Mapping[str, Shardings]) -> Layer:
    """Let the blocks of a network collect their parameters, where there are places for these."""
    if isinstance(net, Repeat) and path in places:
        return Repeat(_Collecting(net.block, path), net.times)
    return with_children(net, lambda child: _collecting(child.layer, path + child.path, places))


def _repeated(
    net: Layer, params: Params, x: PyTree, key: PRNGKeyArray
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the parameters of each Repeat, by its place: their paths and shapes, in order."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}

    def forward(params: Params) -> Any:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        names = {id(leaf): jax.tree_util.keystr(path) for path, leaf in leaves}

        def take(path: str, arrays: Arrays) -> None:
            own = jax.tree.leaves(arrays["params"])
            # those of a Repeat within another one belong to the outer one
            if path in places and all(id(leaf) in names for leaf in own):
                found[path] = {names[id(leaf)]: leaf.shape for leaf in own}

        with taking_notes(take):
            return watch(net, "", unrolled=False).forward(params, x, key)

    if places := set(_places_of_repeats(net, "")):
        jax.eval_shape(forward, params)
    return found


def _places_of_repeats(net: Layer, path: str) -> Iterator[str]:
    if isinstance(net, Repeat) and net.times > WRITTEN_OUT:
        yield path
    for child in children(net):
        yield from _places_of_repeats(child.layer, path + child.path)


def _divides_blocks(stacked: NamedSharding) -> bool:
    return bool(stacked.spec) and stacked.spec[0] is not None


def _of_a_block(stacked: NamedSharding) -> NamedSharding:
    """Return the division of a parameter of one block, from that of all blocks."""
    return NamedSharding(stacked.mesh, PartitionSpec(*stacked.spec[1:]))


@layer
class _Collecting:
    """A block that collects its parameters where it uses them."""

    block: Layer
    path: str
    takes: ClassVar[str] = ANY

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        raise NotImplementedError  # its parameters are those of the block

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        with inside(".block"):
            return self.block.forward(self._collected(params), x, key)

    def backward(self, params: Params, cache: Cache, dy: PyTree) -> tuple[Params, PyTree]:
        with inside(".block"):
            dparams, dx = self.block.backward(self._collected(params), cache, dy)
        return _placed(dparams, _PLACES.get()[self.path]), dx

    def update_running(self, params: Params, cache: Cache) -> Params:
        return update_running(self.block, params, cache)

    def _collected(self, params: Params) -> Params:
        return _placed(params, tuple(without(DATA, own) for own in _PLACES.get()[self.path]))


def _placed(params: Params, shardings: Shardings) -> Params:
    """Tell the compiler where the parameters of a block are."""
    leaves, structure = jax.tree.flatten(params)
    pairs = zip(leaves, shardings, strict=True)
    return jax.tree.unflatten(structure, [lax.with_sharding_constraint(*pair) for pair in pairs])
