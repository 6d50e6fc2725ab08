"""Watch layers: record the inputs and outputs of each, and otherwise leave it as it is.

The network that is watched is the same that trains. :func:`watch` wraps every layer in it; inside a
``with`` statement of :func:`taking_notes`, each layer reports its inputs and outputs.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn.checks import inside
from jaxnn.compose import Remat, Repeat, numbered
from jaxnn.padding import ANY, add_beside, apart, in_form, keep, opened
from jaxnn.types import Cache, Layer, Params
from jaxnn.values import Child, children, layer, with_children

Arrays = dict[str, PyTree]  # by name: params, x, key, y, cache; dy, dparams, dx
Take = Callable[[str, Arrays], None]  # receives the path of a layer and its arrays
_open = threading.local()  # each thread has its own notes


@contextlib.contextmanager
def taking_notes(take: Take) -> Iterator[None]:
    """Report the arrays of all watched layers to ``take``, to the end of the ``with`` statement."""
    outer = getattr(_open, "take", None)
    _open.take = take
    try:
        yield
    finally:
        _open.take = outer


def watch(net: Layer, path: str, *, unrolled: bool) -> Layer:
    """Wrap a layer and all layers inside it.

    Args:
        net: the layer.
        path: its place in the network.
        unrolled: whether to run the blocks of a Repeat one by one, or in their loop.
    """

    def watched(child: Child) -> Layer:
        return watch(child.layer, path + child.path, unrolled=unrolled)

    if isinstance(net, Repeat) and unrolled:
        return _Watched(_Unrolled(tuple(map(watched, parts(net, unrolled=True)))), path)
    if isinstance(net, Remat):  # which keeps nothing else, for its body runs as Python, not traced
        net = Remat(net.body)
    return _Watched(with_children(net, watched), path)


def parts(net: Layer, *, unrolled: bool) -> list[Child]:
    """Return the layers inside a layer that are watched."""
    if isinstance(net, Repeat) and unrolled:
        return [Child(f".block[{i}]", net.block, "block") for i in range(net.times)]
    return children(net)


@layer
class _Watched:
    """A layer that reports its inputs and outputs, and otherwise behaves as the layer inside it."""

    layer: Layer
    path: str

    def __repr__(self) -> str:
        return repr(self.layer)

    @property
    def takes(self) -> Any:
        return getattr(self.layer, "takes", None)

    @property
    def per_position(self) -> bool:
        return getattr(self.layer, "per_position", False)

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        return self.layer.init(key, x)

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        y, cache = self.layer.forward(params, x, key)
        seen = {"params": params, "x": x, "key": key, "y": y, "cache": cache}
        _open.take(self.path, seen)
        return y, cache

    def backward(self, params: Params, cache: Cache, dy: PyTree) -> tuple[Params, PyTree]:
        dparams, dx = self.layer.backward(params, cache, dy)
        _open.take(self.path, {"dy": dy, "dparams": dparams, "dx": dx})
        return dparams, dx


@layer
class _Unrolled:
    """The computation of a Repeat, with each block as a layer of its own."""

    blocks: tuple[Layer, ...]
    takes: ClassVar[str] = ANY

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        raise NotImplementedError  # its parameters are those of the Repeat

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        (y, beside), caches = apart(x), []
        for i, block, block_key in numbered(self.blocks, key):
            with inside(".block"):
                y, cache = block.forward(_slice(params, i), beside.around(block, y), block_key)
            caches.append(cache)
        return y, keep(tuple(caches), beside)

    def backward(self, params: Params, cache: Cache, dy: PyTree) -> tuple[Params, PyTree]:
        caches, form = opened(cache)
        dparams, dbeside = list[Params](), dict[str, Any]()
        for i in reversed(range(len(self.blocks))):
            dblock, dx = self.blocks[i].backward(_slice(params, i), caches[i], dy)
            dy = add_beside(dbeside, dx)
            dparams.insert(0, dblock)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *dparams)
        return stacked, in_form(form, dy, dbeside)


def _slice(params: Params, i: int) -> Params:
    return jax.tree.map(lambda leaf: leaf[i], params)
