"""Find the first place where a number stopped being finite, and what made it.

Both passes run once as one program, in which every layer is watched: see :mod:`jaxnn.watching`. The
first layer whose result is not finite, though everything it received was, then runs alone, one
operation at a time, under JAX's own checks (``jax.debug_nans``, ``jax.debug_infs``); these name the
operation. The line of the layer's source and the values of its variables complete the report.
"""

import contextlib
import dataclasses
import functools
import io
import linecache
import os
import re
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn.checks import InputError, check_concrete, check_key, is_kind
from jaxnn.conversion import as_arrays
from jaxnn.parameters import check_no_result
from jaxnn.types import AnyArray, Layer, Loss, Params, check_input, split_running
from jaxnn.values import check_network
from jaxnn.watching import Arrays, parts, taking_notes, watch

_JAX = os.path.dirname(jax.__file__)

GROWN = (
    "The numbers have grown beyond the range of {dtype}. Lower the learning rate, clip the "
    "gradient (optax.clip_by_global_norm), scale the data to about 1, or compute in a dtype "
    "of a wider range."
)
CONSTANTS = ("convert_element_type", "broadcast_in_dim", "select_n")  # copy a number, as masks do
CURES = {  # by the operation of JAX that made the number
    "log": "The logarithm of 0 or of less. Use the loss on logits, SigmoidBinaryCrossEntropy or "
    "SoftmaxCrossEntropy, or keep the argument above 0.",
    "log1p": "The logarithm of 0 or of less: keep the argument above -1.",
    "div": "A division by 0, or of infinity. Raise the epsilon of the denominator.",
    "sqrt": "The root of a negative number: keep the argument at 0 or above.",
    "rsqrt": "One over the root of 0. Raise the layer's epsilon; features that are constant have "
    "the variance 0.",
    "pow": "A power that has no finite value, such as 0 to a negative exponent, or one too large.",
    "exp": "An exponential too large for {dtype}. Subtract the maximum first, as softmax does.",
    **dict.fromkeys(
        CONSTANTS,
        "The function is infinite here. If this is the loss of a probability that is 0, use the "
        "loss on logits, SigmoidBinaryCrossEntropy or SoftmaxCrossEntropy.",
    ),
}
DATA = "The data themselves are not finite: remove or replace these rows before training."
PARAMETERS = (
    "The parameters were not finite before this pass. An earlier update made them so: start "
    "from an earlier state, and lower the learning rate or clip the gradient."
)
UPDATE = (
    "Both passes are finite, but the update is not: lower the learning rate, or raise the "
    "optimizer's eps."
)


@dataclasses.dataclass(frozen=True)
class NanReport:
    """The first number that was not finite. Prints as a paragraph.

    Attributes:
        stage: "data", "parameters", "forward", "loss", "backward" or "update"; "" if all numbers
            are finite.
        path: the place of the layer in the network, such as ``[2].body[0]``; "" outside of it.
        op: the layer or loss that made the number, or None.
        array: the name of the array: ``y``, ``dx``, ``dparams.w``.
        index: the index of the first entry that is not finite.
        value: this entry.
        operation: the operation of JAX that made it; "" if it is not known.
        line: the line of source in which the operation stands; "" if it is not known.
        values: the variables of this line, or else all arrays received, each with its range.
        cure: what usually cures it.
    """

    stage: str
    path: str = ""
    op: Layer | Loss | None = None
    array: str = ""
    index: tuple[int, ...] = ()
    value: float = 0.0
    operation: str = ""
    line: str = ""
    values: tuple[tuple[str, str], ...] = ()
    cure: str = ""

    @property
    def found(self) -> bool:
        """Whether any number was not finite."""
        return bool(self.stage)

    def __str__(self) -> str:
        if not self.found:
            return "Every number of both passes is finite."
        place = f" of {self.path} {self.op!r}".replace("  ", " ") if self.op is not None else ""
        entry = f"{self.array}{list(self.index) if self.index else ''}"
        lines = [
            f"The first number that is not finite is {entry} = {self.value}: {self.stage}{place}."
        ]
        if self.operation:
            lines.append(f"The operation: {self.operation}, in the line: {self.line}")
        lines += [f"  {name}: {values}" for name, values in self.values]
        return "\n".join([*lines, self.cure])


def explain_nan(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: AnyArray,
    *,
    weights: AnyArray | None = None,
    key: PRNGKeyArray | None = None,
) -> NanReport:
    """Find the first number of a forward and a backward pass that is NaN or infinite.

    ::

        print(nn.explain_nan(net, loss, params, x, target))

    Args:
        net: a layer or network.
        loss: the loss at the end of the forward pass.
        params: the parameters of ``net``.
        x: inputs, batch first.
        target: the target with which the loss compares the prediction.
        weights: the weight of each sample, (B,), or None for equal weights.
        key: a PRNG key for training mode, or None.

    Returns:
        A :class:`NanReport`: where the number is, the operation and the values that made it, and
        what usually cures it.

    Raises:
        InputError: for arguments that do not fit the network or the loss.
    """
    check_network("explain_nan", net, loss)
    check_no_result("explain_nan", params)
    check_concrete("explain_nan", params=params, x=x, target=target, weights=weights, key=key)
    if key is not None:
        check_key("explain_nan", key)
    x, target = as_arrays("explain_nan", "x", x), as_arrays("explain_nan", "target", target)
    for stage, arrays, cure in (
        ("data", {"x": x, "target": target, "weights": weights}, DATA),
        ("parameters", {"params": params}, PARAMETERS),
    ):
        if spot := _first_bad(arrays):
            return NanReport(stage, "", None, *spot, cure=cure)
    check_input(net, x)
    prediction = jax.eval_shape(lambda params, x: net.forward(params, x, key)[0], params, x)
    loss.check(prediction, target)
    for note in _both_passes(net, loss, params, x, target, weights, key):
        if spot := _first_bad(note.made):
            return _report(note, spot)
    return NanReport("")


def explain_update(params: Params) -> NanReport:
    """Report the first of the parameters after an update that is not finite."""
    spot = _first_bad({"params": split_running(params)[0]})
    return NanReport("update", "", None, *spot, cure=UPDATE) if spot else NanReport("")


class _Note(NamedTuple):
    """What one layer or loss did in one direction."""

    stage: str
    path: str
    op: Layer | Loss
    received: Arrays
    made: Arrays
    run: Callable[[], Any]  # does it again, operation by operation


class _Passes(NamedTuple):
    """The arrays of both passes, in the order in which the layers ran."""

    forward: list[Arrays]
    at_loss: Arrays
    backward: list[Arrays]


def _both_passes(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: AnyArray,
    weights: AnyArray | None,
    key: PRNGKeyArray | None,
) -> list[_Note]:
    """Run both passes as one program, and return the notes of all layers, as they ran."""
    order: list[str] = []

    @jax.jit
    def run(
        params: Params,
        x: PyTree,
        target: AnyArray,
        weights: AnyArray | None,
        key: PRNGKeyArray | None,
    ) -> _Passes:
        forward, backward = list[Arrays](), list[Arrays]()

        def take(path: str, seen: Arrays) -> None:
            (backward if "dy" in seen else forward).append(seen)
            order.append(path)

        watched = watch(net, "", unrolled=True)
        with taking_notes(take):
            y, cache = watched.forward(params, x, key)
            value, loss_cache = loss.forward(y, target, weights)
            dprediction = loss.backward(loss_cache)
            watched.backward(params, cache, dprediction)
        at_loss = {"prediction": y, "J": value, "cache": loss_cache, "dJ/dprediction": dprediction}
        return _Passes(forward, at_loss, backward)

    passes = run(params, x, target, weights, key)
    layers = dict(_places(net, ""))
    forward = dict(zip(order, passes.forward, strict=False))
    backward = zip(order[len(forward) :], passes.backward, strict=True)
    return [
        *(_forward_note(path, layers[path], seen) for path, seen in forward.items()),
        *_loss_notes(loss, passes.at_loss, target, weights),
        *(_backward_note(path, layers[path], forward[path], seen) for path, seen in backward),
    ]


def _places(net: Layer, path: str) -> Iterator[tuple[str, Layer]]:
    """Iterate over a layer and all layers inside it, with their paths."""
    yield path, net
    for child in parts(net, unrolled=True):
        yield from _places(child.layer, path + child.path)


def _forward_note(path: str, layer: Layer, seen: Arrays) -> _Note:
    params, x = seen["params"], seen["x"]
    run = functools.partial(layer.forward, params, x, seen["key"])
    return _Note("forward", path, layer, {"params": params, "x": x}, {"y": seen["y"]}, run)


def _loss_notes(
    loss: Loss, at_loss: Arrays, target: AnyArray, weights: AnyArray | None
) -> list[_Note]:
    prediction, cache = at_loss["prediction"], at_loss["cache"]
    given = {"prediction": prediction, "target": target}
    forward = functools.partial(loss.forward, prediction, target, weights)
    backward = functools.partial(loss.backward, cache)
    made = {name: {name: at_loss[name]} for name in ("J", "dJ/dprediction")}
    return [
        _Note("loss", "", loss, given, made["J"], forward),
        _Note("loss", "", loss, given, made["dJ/dprediction"], backward),
    ]


def _backward_note(path: str, layer: Layer, before: Arrays, seen: Arrays) -> _Note:
    params, cache, dy = before["params"], before["cache"], seen["dy"]
    given = {"params": params, "x": before["x"], "dy": dy}
    made = {"dx": seen["dx"], "dparams": seen["dparams"]}
    run = functools.partial(layer.backward, params, cache, dy)
    return _Note("backward", path, layer, given, made, run)


class _Spot(NamedTuple):
    """The first entry that is not finite: the name of its array, its place in it, and its value."""

    array: str
    place: tuple[int, ...]
    value: float


def _first_bad(arrays: Arrays) -> _Spot | None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        if not is_kind(leaf, jnp.floating):
            continue
        values = np.asarray(leaf, np.float64)
        if not (finite := np.isfinite(values)).all():
            index = tuple(int(i) for i in np.argwhere(~finite)[0])
            name = str(path[0].key) + jax.tree_util.keystr(path[1:])
            return _Spot(name, index, float(values[index]))
    return None


# ── The operation, the line and the values that made a number ───────────────────────────────────


def _report(note: _Note, spot: _Spot) -> NanReport:
    leaves = jax.tree.leaves(note.made)
    dtype = next(leaf.dtype for leaf in leaves if is_kind(leaf, jnp.floating))
    operation, line, values = "", "", _ranges(note.received)
    try:
        error = _failure(note, jax.debug_infs, jax.debug_nans)
        if error is not None and _operation(error) in CONSTANTS and np.isnan(spot.value):
            error = _failure(note, jax.debug_nans) or error  # a mask is infinite on purpose
    except InputError as refusal:  # the values do not belong to the domain of the loss
        cure = str(refusal)
    else:
        if error is not None:
            operation = _operation(error)
            line, values = _source(error.__traceback__, values)
        cure = CURES.get(operation, GROWN).format(dtype=dtype)
    return NanReport(note.stage, note.path, note.op, *spot, operation, line, values, cure)


def _failure(note: _Note, *checks: Callable[[bool], Any]) -> FloatingPointError | None:
    """Run a layer operation by operation, and return the error of the first that fails a check."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))  # JAX prints as it searches
        for check in checks:
            stack.enter_context(check(True))
        try:
            note.run()
        except FloatingPointError as error:
            return error
    return None


def _operation(error: FloatingPointError) -> str:
    found = re.search(r"encountered in ([\w-]+)", str(error))
    return found[1] if found else ""


Values = tuple[tuple[str, str], ...]


def _source(trail: TracebackType | None, default: Values) -> tuple[str, Values]:
    """Return the last line of source outside of JAX, and the values of the variables in it."""
    frames = [
        (frame, number)
        for frame, number in traceback.walk_tb(trail)
        if not frame.f_code.co_filename.startswith((_JAX, __file__))
    ]
    if not frames:
        return "", default
    frame, number = frames[-1]
    path = frame.f_code.co_filename
    line = linecache.getline(path, number).strip()
    used = [name for name in dict.fromkeys(re.findall(r"\w+", line)) if name in frame.f_locals]
    values = _ranges({name: frame.f_locals[name] for name in used})
    return f"{line}  ({os.path.basename(path)}, line {number})", values or default


def _ranges(arrays: Arrays) -> Values:
    """Write the range of each floating-point array."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return tuple(
        (str(path[0].key) + jax.tree_util.keystr(path[1:]), _range(np.asarray(leaf, np.float64)))
        for path, leaf in leaves
        if hasattr(leaf, "dtype") and is_kind(leaf, jnp.floating) and np.size(leaf)
    )


def _range(values: np.ndarray) -> str:
    return (
        f"{values.min():.4g}" if values.size == 1 else f"{values.min():.4g} to {values.max():.4g}"
    )
