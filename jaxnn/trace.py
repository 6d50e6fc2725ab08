"""One forward and one backward pass, step by step, every number kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.checks import inside
from jaxnn.compose import Sequential, chain, check_params_tuple, split_key
from jaxnn.types import AnyArray, Cache, Layer, Loss, Params, check_input


class Stage(NamedTuple):
    """One layer's part in both passes.

    Attributes:
        path: where the layer sits in the network, such as ``[0]``.
        layer: the layer.
        params: its parameters.
        x: its input.
        y: its output.
        cache: what it kept for the backward pass.
        dy: dJ/dy, handed to it by the layer after it.
        dparams: dJ/dθ.
        dx: dJ/dx, handed on to the layer before it.
    """

    path: str
    layer: Layer
    params: Params
    x: PyTree
    y: PyTree
    cache: Cache
    dy: PyTree
    dparams: Params
    dx: PyTree


class Trace(NamedTuple):
    """Both passes through a network and its loss.

    Attributes:
        stages: one a layer, in forward order.
        loss: the loss.
        target: what the prediction was compared with.
        value: J, the loss.
        dprediction: dJ/dy of the network's output.
    """

    stages: tuple[Stage, ...]
    loss: Loss
    target: AnyArray
    value: Array
    dprediction: Array


def trace(
    net: Layer, loss: Loss, params: Params, x: PyTree, target: AnyArray, key: PRNGKeyArray | None = None
) -> Trace:
    """Run ``net`` forward and backward on one batch, and keep every number on the way.

    Args:
        net: a :class:`~jaxnn.compose.Sequential`, or a single layer.
        loss: the loss that ends the forward pass.
        params: the parameters of ``net``.
        x: inputs, batch first.
        target: what the loss compares the prediction with.
        key: a PRNG key for training mode, or None.

    Raises:
        InputError: for arrays that do not fit the network or the loss.
    """
    if not isinstance(net, Sequential):
        net, params = chain(net), (params,)
    x, target = jax.tree.map(jnp.asarray, x), jnp.asarray(target)
    check_input(net, x)
    loss.check(_forward.eval_shape(net, params, x, key)[0], target)  # label values, before they are traced
    records, value, dprediction = _both_passes(net, loss, params, x, target, key)
    layers = enumerate(zip(net.layers, records, strict=True))
    stages = tuple(Stage(f"[{i}]", child, *record) for i, (child, record) in layers)
    return Trace(stages, loss, target, value, dprediction)


@jax.jit
def _forward(net: Sequential, params: Params, x: PyTree, key: Any) -> tuple[PyTree, list[tuple[PyTree, PyTree, Cache]]]:
    check_params_tuple(net, params, len(net.layers))
    y, kept = x, []
    for i, (child, child_key) in enumerate(zip(net.layers, split_key(key, len(net.layers)), strict=True)):
        x = y
        with inside(f"[{i}]"):
            y, cache = child.forward(params[i], x, child_key)
        kept.append((x, y, cache))
    return y, kept


@jax.jit
def _both_passes(
    net: Sequential, loss: Loss, params: Params, x: PyTree, target: AnyArray, key: Any
) -> tuple[list[tuple[PyTree, ...]], Array, Array]:
    y, kept = _forward(net, params, x, key)
    value, loss_cache = loss.forward(y, target)
    dy = dprediction = loss.backward(loss_cache)
    records: list[tuple[PyTree, ...]] = []
    for child, child_params, (child_x, child_y, cache) in reversed(list(zip(net.layers, params, kept, strict=True))):
        dparams, dx = child.backward(child_params, cache, dy)
        records.insert(0, (child_params, child_x, child_y, cache, dy, dparams, dx))
        dy = dx
    return records, value, dprediction
