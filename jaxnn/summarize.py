"""A table of a network: the output, parameters, operations and cache of each layer.

The figures are found by tracing, without computing any numbers.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import PyTree

from jaxnn import notebook
from jaxnn.checks import check_not_empty
from jaxnn.compose import Repeat, Sequential
from jaxnn.conversion import as_example
from jaxnn.types import Layer, split_running
from jaxnn.values import check_layer, children
from jaxnn.watching import Arrays, taking_notes, watch


class LayerSummary(NamedTuple):
    """One layer.

    Attributes:
        path: its place in the network, such as "[2].body[0]".
        layer: the layer.
        output: the shape and dtype of its output, a pytree of ShapeDtypeStruct.
        parameters: the number of trained numbers in it.
        forward_flops: floating-point operations of the forward pass; a multiply-add counts as two.
        backward_flops: those of the backward pass.
        cache_bytes: the size of the cache that the forward pass keeps for the backward pass.
    """

    path: str
    layer: Layer
    output: PyTree
    parameters: int
    forward_flops: int
    backward_flops: int
    cache_bytes: int


class Summary(NamedTuple):
    """The rows of all layers, each combinator before the layers inside it, and the whole network.

    Attributes:
        rows: one row for each layer.
        total: the row of the whole network.
    """

    rows: tuple[LayerSummary, ...]
    total: LayerSummary

    def __str__(self) -> str:
        table = self._table()
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = []
        for cells in table:
            columns = zip(cells, widths, strict=True)
            lines.append("  ".join(_align(cell, w, i) for i, (cell, w) in enumerate(columns)))
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head, *body = self._table()
        return notebook.fragment(notebook.table(head, body))

    def _table(self) -> list[tuple[str, ...]]:
        head = ("layer", "", "output", "parameters", "forward", "backward", "cache")
        body = [self._cells(row) for row in self.rows]
        return [head, *body, ("total", "", *self._cells(self.total)[2:])]

    @staticmethod
    def _cells(row: LayerSummary) -> tuple[str, ...]:
        name = type(row.layer).__name__ if children(row.layer) else repr(row.layer)
        name += f" × {row.layer.times}" if isinstance(row.layer, Repeat) else ""
        shapes = " ".join(str(leaf.shape).replace(" ", "") for leaf in jax.tree.leaves(row.output))
        flops = (f"{short(n, 1000)}FLOP" for n in (row.forward_flops, row.backward_flops))
        cache = f"{short(row.cache_bytes, 1024)}B"
        return row.path, name, shapes, f"{row.parameters:,}", *flops, cache


def summary(net: Layer, x: PyTree) -> Summary:
    """Tabulate the layers of a network: output shapes, parameters, FLOPs and cache bytes.

    The result prints as a table. Its figures hold for training mode and a batch like ``x``. They
    are found by tracing, without computing any numbers.

    Args:
        net: a layer or network.
        x: an example batch, or its ShapeDtypeStruct.

    Raises:
        InputError: if x does not fit the network.
    """
    check_layer("summary", net)
    x = as_example("summary", "x", x)
    for leaf in jax.tree.leaves(x):
        check_not_empty("summary", "x", leaf)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, seen = jax.eval_shape(net.init, key, x), dict[str, Arrays]()
    watched = watch(net, "", unrolled=False)
    with taking_notes(lambda path, arrays: seen.update({path: jax.tree.map(_spec, arrays)})):
        jax.eval_shape(watched.forward, params, x, key)
    rows = {path: _row(path, part, seen[path], key) for path, part in _all_layers(net, "")}
    total = rows[""]
    shown = (row for path, row in rows.items() if path or not children(net))
    return Summary(tuple(row for row in shown if not isinstance(row.layer, Sequential)), total)


def _spec(leaf: Any) -> jax.ShapeDtypeStruct:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    dtype = leaf.dtype if is_key else jax.dtypes.canonicalize_dtype(leaf.dtype)
    return jax.ShapeDtypeStruct(leaf.shape, dtype)


def _all_layers(net: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    yield path, net
    for child in children(net):
        yield from _all_layers(child.layer, path + child.path)


def _row(path: str, part: Layer, seen: Arrays, key: jax.ShapeDtypeStruct) -> LayerSummary:
    params, x = seen["params"], seen["x"]
    forward, (y, cache) = jax.make_jaxpr(part.forward, return_shape=True)(params, x, key)
    backward = jax.make_jaxpr(part.backward)(params, cache, y)
    held = jax.tree.leaves(split_running(params)[0])
    return LayerSummary(
        path,
        part,
        y,
        sum(math.prod(leaf.shape) for leaf in held),
        count_flops(forward.jaxpr),
        count_flops(backward.jaxpr),
        sum(math.prod(leaf.shape) * _itemsize(leaf) for leaf in jax.tree.leaves(cache)),
    )


# ── Counting operations ─────────────────────────────────────────────────────────────────────────

_FREE = (
    "reshape broadcast_in_dim transpose squeeze slice dynamic_slice dynamic_update_slice "
    "concatenate pad rev gather scatter iota convert_element_type copy stop_gradient select_n "
    "expand_dims split random_bits random_wrap random_unwrap random_split random_fold_in "
    "optimization_barrier and or not xor eq ne lt le gt ge is_finite "
    "shift_right_logical shift_left bitcast_convert_type"
)
FREE = frozenset(_FREE.split())  # moving numbers and comparing them is not arithmetic


def count_flops(jaxpr: Jaxpr) -> int:
    """Count floating-point operations.

    A multiply-add of a product of matrices or of a convolution counts as 2, every entry of another
    operation as 1, and a loop as all of its iterations.
    """
    return sum(map(_flops, jaxpr.eqns))


def _flops(equation: JaxprEqn) -> int:
    name, settings = equation.primitive.name, equation.params
    output: PyTree = equation.outvars[0].aval if equation.outvars else None
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
    if name in FREE or not jnp.issubdtype(getattr(output, "dtype", int), jnp.inexact):
        return 0
    if name.startswith(("reduce_", "cum", "arg")):
        return math.prod(_shape(equation.invars[0]))
    return math.prod(output.shape)


def _jaxprs(settings: dict[str, Any]) -> Iterator[Jaxpr | ClosedJaxpr]:
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


def short(number: int, base: int) -> str:
    """Write a number with three digits and a prefix, such as 1.23 k."""
    value, prefixes = float(number), ["", "k", "M", "G", "T", "P"]
    if base == 1024:
        prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"]
    for prefix in prefixes:
        if value < base or prefix == prefixes[-1]:
            break
        value /= base
    return f"{value:.3g} {prefix}" if prefix or value == int(value) else f"{value:.3g} "
