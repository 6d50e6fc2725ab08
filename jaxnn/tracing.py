"""One forward and one backward pass, step by step, with every number kept.

A trace runs the same layers that train, and records their inputs and outputs: see
:mod:`jaxnn.watching`.
"""

import dataclasses
import numbers
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.checks import InputError, check_concrete, check_finite, check_key
from jaxnn.compose import Cast, Frozen, Remat, Repeat, Sequential, chain, check_params_tuple
from jaxnn.conversion import as_arrays
from jaxnn.parameters import check_fit
from jaxnn.types import AnyArray, Cache, Layer, Loss, Params, check_input
from jaxnn.values import check_network, with_children
from jaxnn.watching import Arrays, parts, taking_notes, watch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One layer in both passes. All arrays are NumPy arrays; the batch comes first.

    Attributes:
        path: the place of the layer in the network, such as ``[0]`` or ``[2].body[0]``.
        layer: the layer.
        params: its parameters.
        x: its input.
        y: its output.
        cache: the arrays that it keeps for the backward pass.
        dy: dJ/dy, which it receives from the next layer.
        dparams: dJ/dθ.
        dx: dJ/dx, which it passes to the layer before it.
        inner: the stages of the layers inside it, for a combinator.
    """

    path: str = dataclasses.field(metadata={"static": True})
    layer: Layer = dataclasses.field(metadata={"static": True})
    params: Params
    x: PyTree
    y: PyTree
    cache: Cache
    dy: PyTree
    dparams: Params
    dx: PyTree
    inner: "tuple[Stage, ...]" = ()

    def __iter__(self) -> "Iterator[Stage]":
        """Iterate over this stage and all stages inside it."""
        yield self
        for stage in self.inner:
            yield from stage


CHAINS = (
    Sequential,
    Repeat,
    Remat,
    Frozen,
    Cast,
)  # these only apply the layers inside them in a row


class Entry(NamedTuple):
    """A number or an array of a trace, and the derivative of J by it, or None if it has none."""

    value: Any  # a scalar or an array of NumPy
    derivative: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Both passes through a network and its loss: a pytree of NumPy arrays, which can be pickled.

    ``after - before`` is the difference, number by number, of two traces of the same network. It
    shows what one step of training changed.

    Attributes:
        net: the network, a :class:`~jaxnn.compose.Sequential`.
        loss: the loss.
        params: the parameters of ``net``.
        x: the inputs.
        target: the target with which the loss compares the prediction.
        key: the data of the PRNG key, or None at inference.
        stages: one stage for each layer of ``net``, in forward order.
        value: J, the value of the loss.
        dprediction: dJ/dy for the output y of the network.
        is_difference: whether this is the difference of two traces, for which no formula holds.
    """

    net: Sequential = dataclasses.field(metadata={"static": True})
    loss: Loss = dataclasses.field(metadata={"static": True})
    params: Params
    x: PyTree
    target: PyTree  # an array, as key and value are; but JAX also builds traces with other leaves
    key: PyTree
    stages: tuple[Stage, ...]
    value: Any
    dprediction: PyTree
    is_difference: bool = dataclasses.field(default=False, metadata={"static": True})

    def __sub__(self, other: "Trace") -> "Trace":
        """Subtract number by number; arrays of another dtype than floating point are kept."""
        if not isinstance(other, Trace) or jax.tree.structure(self) != jax.tree.structure(other):  # type: ignore[operator]
            raise InputError(
                "Trace: expected the trace of the same network, loss and input form to subtract."
            )
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(self), jax.tree.leaves(other), strict=True
        ):
            if np.shape(a) != np.shape(b):
                name = jax.tree_util.keystr(path)
                raise InputError(
                    f"Trace: expected {name} of shape {np.shape(a)} to subtract, got {np.shape(b)}."
                )
        change = jax.tree.map(
            lambda a, b: a - b if jnp.issubdtype(a.dtype, jnp.floating) else a, self, other
        )
        return dataclasses.replace(change, is_difference=True)

    def _repr_html_(self) -> str:
        head = ("layer", "output", "‖y‖", "‖∂J/∂y‖", "‖θ‖", "‖∂J/∂θ‖")
        rows = [
            (
                f"{s.path} {s.layer!r}",
                shapes_of(s.y),
                norm_of(s.y),
                norm_of(s.dy),
                norm_of(s.params),
                norm_of(s.dparams),
            )
            for s in self.own_work()
        ]
        more = (
            "the difference of two traces"
            if self.is_difference
            else "jaxnn.explain shows every number"
        )
        loss = notebook.line(f"J = {float(self.value):.6g}, {self.loss!r}; {more}.")
        return notebook.fragment(notebook.table(head, rows), loss)

    def own_work(self) -> list[Stage]:
        """Return all stages except those of ``CHAINS``, each after the stages inside it."""
        return [
            stage
            for top in self.stages
            for stage in _inside_first(top)
            if not isinstance(stage.layer, CHAINS)
        ]

    def sample(self, i: int) -> "Trace":
        """Trace sample ``i`` by itself.

        J and all derivatives are then those of one sample; in a batch, J is the mean over the
        samples.

        Raises:
            InputError: in training mode, where samples may depend on one another; for the
                difference of two traces; or for a sample that does not exist.
        """
        if self.is_difference:
            raise InputError(
                "Trace: expected the trace of one pass to take a sample out, "
                "got the difference of two."
            )
        if self.key is not None:
            raise InputError(
                "Trace: expected a trace at inference to take a sample out, "
                "got one in training mode."
            )
        batch = len(jax.tree.leaves(self.x)[0])
        if isinstance(i, bool) or not isinstance(i, numbers.Integral) or not -batch <= i < batch:
            raise InputError(
                f"Trace: expected the number of a sample in [{-batch}, {batch}), got {i!r}."
            )
        one = jax.tree.map(lambda a: a[i % batch : i % batch + 1], (self.x, self.target))
        return trace(self.net, self.loss, self.params, *one)

    def at(self, place: str) -> Entry:
        """Return a number or an array at a place, and the derivative of J by it.

        Examples of places are ``[0].w[0, 1]``, ``[1].y`` and ``[0].x[0]``.

        Raises:
            InputError: for a place that is not in the trace.
        """
        stage, name, index = self.find(place)
        slopes = named("", getattr(stage, {"x": "dx", "y": "dy", "params": "dparams"}[name[0]]))
        slope = slopes.get(name[1])
        return Entry(
            named("", getattr(stage, name[0]))[name[1]][index],
            None if slope is None else slope[index],
        )

    def find(self, place: str) -> tuple[Stage, tuple[str, str], tuple[int, ...]]:
        """Split a place into the stage, (x, y or params, the name inside it), and the index.

        Raises:
            InputError: for a place that is not in the trace.
        """
        stages = {stage.path: stage for top in self.stages for stage in top}
        match = isinstance(place, str) and re.fullmatch(r"(.*)\.(\w+)(?:\[([-\d, ]+)\])?", place)
        if not match or match[1] not in stages:
            raise InputError(
                f"Trace: expected a place in one of the layers {', '.join(stages)}, got {place!r}."
            )
        stage, name = stages[match[1]], match[2]
        known = {"x": ("x", ""), "y": ("y", "")}
        for part in ("params", "x", "y"):
            known |= {inner: (part, inner) for inner in named("", getattr(stage, part)) if inner}
        if name not in known:
            raise InputError(
                f"Trace: expected one of {', '.join(known)} at {match[1]}, got {name!r}."
            )
        part, inner = known[name]
        arrays = named("", getattr(stage, part))
        index = tuple(int(i) for i in match[3].split(",")) if match[3] else ()
        shape = np.shape(arrays[inner]) if inner in arrays else ()
        is_inside = all(-n <= i < n for i, n in zip(index, shape, strict=False))
        if inner not in arrays or len(index) > len(shape) or not is_inside:
            raise InputError(
                f"Trace: expected an index into {name} of shape {shape}, got {place!r}."
            )
        return stage, known[name], index


def _inside_first(stage: Stage) -> Iterator[Stage]:
    for inner in stage.inner:
        yield from _inside_first(inner)
    yield stage


def shapes_of(tree: PyTree) -> str:
    """Write the shapes of a pytree's arrays."""
    return ", ".join(str(np.shape(leaf)) for leaf in jax.tree.leaves(tree))


def norm_of(tree: PyTree) -> str:
    """Write the norm of all arrays of a pytree together, or "" if there are none."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return f"{np.sqrt(sum((leaf**2).sum() for leaf in leaves)):.3g}" if leaves else ""


def same_arrays(a: PyTree, b: PyTree) -> bool:
    """Return whether two pytrees contain the same arrays, whatever their containers."""
    leaves = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(leaves[0]) == len(leaves[1]) and all(
        np.array_equal(*pair, equal_nan=True) for pair in zip(*leaves, strict=True)
    )


def named(root: str, tree: PyTree) -> dict[str, AnyArray]:
    """Return the arrays of a pytree by the names of the fields that lead to them.

    The name of an array that is not in a field is ``root``. A field of a tuple without names is
    called by its number: ``y_0``. The field of a wrapper, ``value``, is left out of the names.
    """
    names = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        parts = [
            str(getattr(key, "name", getattr(key, "idx", getattr(key, "key", "")))) for key in path
        ]
        parts = [part for part in parts if part != "value"]
        plain = parts and not parts[0].isdigit()
        names["_".join(parts if plain or not root else [root, *parts])] = leaf
    return names


def trace(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: PyTree,
    key: PRNGKeyArray | None = None,
) -> Trace:
    """Run ``net`` forward and backward on one batch, and keep every number.

    The computation is done in float64 whatever the precision of the arrays is, so that whoever
    follows it by hand gets every digit. Training in float32 computes the same with about seven.

    Args:
        net: a layer or network.
        loss: the loss at the end of the forward pass.
        params: the parameters of ``net``.
        x: inputs, batch first.
        target: the target with which the loss compares the prediction.
        key: a PRNG key for training mode, or None.

    Raises:
        InputError: for arrays that do not fit the network or the loss.
    """
    check_network("trace", net, loss)
    check_concrete("trace", params=params, x=x, target=target, key=key)
    x, target = as_arrays("trace", "x", x), as_arrays("trace", "target", target)
    check_finite("trace", "x", x)
    check_finite("trace", "target", target)
    if key is not None:
        check_key("trace", key)
    net = _in_full(net)
    if not isinstance(net, Sequential):
        net, params = chain(net), (params,)
    check_fit("trace", net, params, x)
    with jax.enable_x64(True):
        params, x, target = jax.tree.map(_in_float64, (params, x, target))
        return _trace(net, loss, params, x, target, key)


def _in_full(net: Layer) -> Layer:
    """Return a network in which no layer has a lower precision of its own."""
    net = with_children(net, lambda child: _in_full(child.layer))
    return dataclasses.replace(net, dtype="float64") if isinstance(net, Cast) else net


def _in_float64(leaf: ArrayLike) -> Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _trace(
    net: Sequential,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: PyTree,
    key: PRNGKeyArray | None,
) -> Trace:
    check_input(net, x)
    check_params_tuple(net, params, len(net.layers))
    # the values of labels can be checked only here: in _both_passes they are traced
    loss.check(_prediction.eval_shape(net, params, x, key), target)
    notes, value, dprediction = _both_passes(net, loss, params, x, target, key)
    notes, params, x, target, key, value, dprediction = jax.tree.map(
        _plain, (notes, params, x, target, key, value, dprediction)
    )
    stages = tuple(_stage(child, f"[{i}]", notes) for i, child in enumerate(net.layers))
    return Trace(net, loss, params, x, target, key, stages, value, dprediction)


def _plain(leaf: ArrayLike) -> np.ndarray:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


@jax.jit
def _prediction(net: Layer, params: Params, x: PyTree, key: PRNGKeyArray | None) -> PyTree:
    return net.forward(params, x, key)[0]


@jax.jit
def _both_passes(
    net: Sequential,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: PyTree,
    key: PRNGKeyArray | None,
) -> tuple[dict[str, Arrays], Array, PyTree]:
    layers = tuple(watch(child, f"[{i}]", unrolled=True) for i, child in enumerate(net.layers))
    watched, notes = dataclasses.replace(net, layers=layers), dict[str, Arrays]()
    with taking_notes(lambda path, seen: notes.setdefault(path, {}).update(seen)):
        y, cache = watched.forward(params, x, key)
        value, loss_cache = loss.forward(y, target)
        dprediction = loss.backward(loss_cache)
        watched.backward(params, cache, dprediction)
    return notes, value, dprediction


def _stage(net: Layer, path: str, notes: dict[str, Arrays]) -> Stage:
    inner = [child for child in parts(net, unrolled=True) if path + child.path in notes]
    stages = tuple(_stage(child.layer, path + child.path, notes) for child in inner)
    seen = {name: arrays for name, arrays in notes[path].items() if name != "key"}
    return Stage(path, net, **seen, inner=stages)
