"""A table of a network: what each layer gives, holds, costs and keeps, found without computing anything."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.compose import Parallel, Remat, Repeat, Residual, Sequential, output_shape
from jaxnn.layers import TiedEmbedding
from jaxnn.types import Layer, split_running


class Row(NamedTuple):
    """One layer.

    Attributes:
        path: where it sits, such as "[2].body[0]".
        layer: the layer.
        output: shape and dtype of what it gives, a pytree of ShapeDtypeStruct.
        parameters: how many trained numbers it holds.
        forward_flops: floating-point operations of the forward pass; a multiply-add counts as two.
        backward_flops: those of the backward pass.
        cache_bytes: what the forward pass keeps for it.
    """

    path: str
    layer: Layer
    output: PyTree
    parameters: int
    forward_flops: int
    backward_flops: int
    cache_bytes: int


class Summary(NamedTuple):
    """The rows of all layers, a combinator before those that it is made of, and the whole network.

    Attributes:
        rows: one a layer.
        total: the whole network.
    """

    rows: tuple[Row, ...]
    total: Row

    def __str__(self) -> str:
        head = ("layer", "", "output", "parameters", "forward", "backward", "cache")
        body = [self._cells(row) for row in self.rows]
        body.append(("total", "", *self._cells(self.total)[2:]))
        widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        lines = ["  ".join(_align(cell, w, i) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
                 for line in (head, *body)]  # fmt: skip
        return "\n".join(line.rstrip() for line in lines)

    @staticmethod
    def _cells(row: Row) -> tuple[str, ...]:
        name = type(row.layer).__name__ if _children(row.layer) else repr(row.layer)
        name += f" × {row.layer.times}" if isinstance(row.layer, Repeat) else ""
        shapes = " ".join(str(leaf.shape).replace(" ", "") for leaf in jax.tree.leaves(row.output))
        flops = (f"{_short(row.forward_flops, 1000)}FLOP", f"{_short(row.backward_flops, 1000)}FLOP")
        return row.path, name, shapes, f"{row.parameters:,}", *flops, f"{_short(row.cache_bytes, 1024)}B"


def summary(net: Layer, x: PyTree) -> Summary:
    """Tabulate the layers of a network: output shapes, parameters, FLOPs and cache bytes; ``print`` it.

    In training mode, for a batch like ``x``. Nothing is computed: the figures come from tracing.

    Args:
        net: a layer or network.
        x: an example batch, or its ShapeDtypeStruct.

    Raises:
        InputError: if x does not fit the network.
    """
    if not isinstance(net, Layer):
        raise InputError(f"summary: expected net to be a layer, got {net!r}.")
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)), x)
    return Summary(tuple(_rows(net, x, "")), _row(net, x, ""))


def _rows(net: Layer, x: PyTree, path: str) -> Iterator[Row]:
    children = _children(net)
    if not isinstance(net, Sequential) and (path or not children):  # a chain is told by its layers
        yield _row(net, x, path)
    if isinstance(net, TiedEmbedding):  # the body sees vectors
        x = jax.ShapeDtypeStruct((*x.shape, net.features), jnp.result_type(float))
    for name, child in children:
        yield from _rows(child, x, path + name)
        if isinstance(net, Sequential):
            x = output_shape(child, jax.eval_shape(child.init, _key(), x), x)


def _children(net: Layer) -> list[tuple[str, Layer]]:
    if isinstance(net, Sequential):
        return [(f"[{i}]", child) for i, child in enumerate(net.layers)]
    if isinstance(net, Parallel):
        return [(f"[{i}]", branch) for i, branch in enumerate(net.branches)]
    if isinstance(net, Residual | Remat | TiedEmbedding):
        return [(".body", net.body)]
    return [(".block", net.block)] if isinstance(net, Repeat) else []


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _row(net: Layer, x: PyTree, path: str) -> Row:
    key = _key()
    params = jax.eval_shape(net.init, key, x)
    forward, (y, cache) = jax.make_jaxpr(net.forward, return_shape=True)(params, x, key)
    backward = jax.make_jaxpr(net.backward)(params, cache, y)
    held = jax.tree.leaves(split_running(params)[0])
    return Row(
        path,
        net,
        y,
        sum(math.prod(leaf.shape) for leaf in held),
        count_flops(forward.jaxpr),
        count_flops(backward.jaxpr),
        sum(math.prod(leaf.shape) * _itemsize(leaf) for leaf in jax.tree.leaves(cache)),
    )


# ── Counting operations ─────────────────────────────────────────────────────────────────────────

_FREE = (
    "reshape broadcast_in_dim transpose squeeze slice dynamic_slice dynamic_update_slice concatenate pad rev gather "
    "scatter iota convert_element_type copy stop_gradient select_n expand_dims split random_bits random_wrap "
    "random_unwrap random_split random_fold_in optimization_barrier and or not xor eq ne lt le gt ge is_finite "
    "shift_right_logical shift_left bitcast_convert_type"
)
FREE = frozenset(_FREE.split())  # moving numbers and comparing them is not arithmetic


def count_flops(jaxpr: Jaxpr) -> int:
    """Count floating-point operations: 2 a multiply-add of products, 1 an entry of all else, loops unrolled."""
    return sum(map(_flops, jaxpr.eqns))


def _flops(equation: JaxprEqn) -> int:
    name, settings = equation.primitive.name, equation.params
    output: Any = equation.outvars[0].aval if equation.outvars else None
    if name == "dot_general":
        (contracted, _), _ = settings["dimension_numbers"]
        shape = _shape(equation.invars[0])
        return 2 * math.prod(output.shape) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = _shape(equation.invars[1]), settings["dimension_numbers"]
        per_output = math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])
        return 2 * math.prod(output.shape) * per_output
    inner = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in _jaxprs(settings)]
    if inner:
        times = settings["length"] if name == "scan" else 1
        costs = [count_flops(part) for part in inner]
        return times * (max(costs) if name == "cond" else sum(costs))
    if name in FREE or output is None or not jnp.issubdtype(getattr(output, "dtype", int), jnp.inexact):
        return 0
    if name.startswith(("reduce_", "cum", "arg")):
        return math.prod(_shape(equation.invars[0]))
    return math.prod(output.shape)


def _jaxprs(settings: dict[str, Any]) -> Iterator[Any]:
    for value in settings.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Jaxpr | ClosedJaxpr):
                yield part


def _shape(operand: Any) -> tuple[int, ...]:
    return operand.aval.shape


def _itemsize(leaf: Any) -> int:
    return 4 * 2 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize


# ── Layout ──────────────────────────────────────────────────────────────────────────────────────


def _align(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 3 else cell.rjust(width)


def _short(number: int, base: int) -> str:
    """Write a number with three digits and a prefix: 1.23 k."""
    value, prefixes = float(number), ["", "k", "M", "G", "T", "P"]
    if base == 1024:
        prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"]
    for prefix in prefixes:
        if value < base or prefix == prefixes[-1]:
            break
        value /= base
    return f"{value:.3g} {prefix}" if prefix or value == int(value) else f"{value:.3g} "
