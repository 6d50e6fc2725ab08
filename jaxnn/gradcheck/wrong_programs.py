"""Mistakes that lie in the loops of a program rather than in a formula, as programs in NumPy.

A sum over windows is overwritten rather than added to, a mean runs over other axes, heads are
merged in the wrong order, a mask is forgotten, the derivative of a neighbouring function is taken.
Each mistake gives the array that a student's program would hold in the place of one that the stated
equations define.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxnn.compose import Parallel
from jaxnn.formulas.names import Names
from jaxnn.layers import (
    GELU,
    AveragePool,
    BatchNorm,
    Conv1D,
    Conv2D,
    Dropout,
    Flatten,
    GroupNorm,
    LayerNorm,
    LogSoftmax,
    MaxPool,
    MultiHeadAttention,
    Reshape,
    RMSNorm,
    Softmax,
)
from jaxnn.losses import (
    BinaryCrossEntropy,
    KLDivergence,
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
)

Arrays: TypeAlias = Mapping[str, np.ndarray]  # of one layer, by the names that its formulas use
Program: TypeAlias = Callable[[Arrays], np.ndarray]


class WrongProgram(NamedTuple):
    """One mistake.

    Attributes:
        kind: a word for it.
        words: what was done, as a clause.
        results: for each array that comes out wrong, by its name, the program that computes it.
    """

    kind: str
    words: str
    results: Mapping[str, Program]


def wrong_programs(op: Any, names: Names) -> Iterator[WrongProgram]:
    """Enumerate the mistakes of this kind that can be made in a layer or a loss.

    Args:
        op: the layer or loss.
        names: what the names in its formulas mean.
    """
    for kinds, enumerate_ in MISTAKES.items():
        if isinstance(op, kinds):
            yield from enumerate_(op, names)


def _in_dx(kind: str, words: str, program: Program) -> WrongProgram:
    return WrongProgram(kind, words, {"dx": program})


# ── Normalisation ───────────────────────────────────────────────────────────────────────────────


def _of_norms(op: Any, names: Names) -> Iterator[WrongProgram]:
    """Take the means of the derivative over other axes than those of the forward pass."""
    axes = _names_of_axes(op, len(names.shapes["x"]))
    right = _axes_of_means(op, len(names.shapes["x"]))
    for count in range(1, len(axes) + 1):
        for over in itertools.combinations(range(len(axes)), count):
            words = f"the means are taken over {' and '.join(axes[axis] for axis in over)}"
            if not names.settings.get("training", True) and over == right:
                words = (
                    "it is the derivative in training; at inference the statistics are constants"
                )
            yield _in_dx("axis", words, functools.partial(_through_moments, op, over))
    count = math.prod(_grouped(op, names.shapes["x"])[axis] for axis in right)
    for axis, size in enumerate(names.shapes["x"]):
        too_large = functools.partial(_through_moments, op, right, reduce=_sum_over(size))
        words = f"both means are divided by {size}, the length of axis {axis}, not by {count}"
        yield _in_dx("mean", words, too_large)
    if not isinstance(op, RMSNorm) and count > 1:
        variance = lambda v: v * count / (count - 1) + op.epsilon  # noqa: E731
        words = f"the variance is divided by {count - 1}, not by {count}"
        yield _of_other_variance(op, right, words, variance)
    words = "ε is left out, in x̂ too"
    yield _of_other_variance(op, right, words, lambda v: v)
    after = functools.partial(_through_moments, op, right, scale_after=True)
    words = "scale is multiplied in after the means are subtracted, not before"
    yield _in_dx("precedence", words, after)
    sums = functools.partial(_through_moments, op, right, reduce=np.sum)
    yield _in_dx("mean", "sums stand in the place of both means", sums)


def _names_of_axes(op: Any, rank: int) -> list[str]:
    """Name the axes of x; GroupNorm's channels are two, the groups and the channels of each."""
    channels = ["the channels"]
    if isinstance(op, GroupNorm):
        channels = ["the groups", "the channels of a group"]
    return [f"axis {axis}" for axis in range(rank - 1)] + channels


def _axes_of_means(op: Any, rank: int) -> tuple[int, ...]:
    if isinstance(op, BatchNorm):
        return tuple(range(rank - 1))
    return (*range(1, rank - 1), rank) if isinstance(op, GroupNorm) else (rank - 1,)


def _through_moments(
    op: Any,
    over: tuple[int, ...],
    arrays: Arrays,
    reduce: Callable[..., np.ndarray] = np.mean,
    scale_after: bool = False,
) -> np.ndarray:
    """Compute (dx̂ - mean dx̂ - x̂ mean dx̂ x̂) / σ, with the means over these axes."""
    shape = arrays["x"].shape
    xhat = arrays["xhat"].reshape(_grouped(op, shape))
    dxhat = arrays["dy" if scale_after else "dxhat"].reshape(xhat.shape)
    moment = _moment(op, arrays, xhat.ndim) + op.epsilon
    centre = 0.0 if isinstance(op, RMSNorm) else reduce(dxhat, axis=over, keepdims=True)
    through_variance = xhat * reduce(dxhat * xhat, axis=over, keepdims=True)
    dx = ((dxhat - centre - through_variance) / np.sqrt(moment)).reshape(shape)
    return dx * arrays["scale"] if scale_after else dx


def _grouped(op: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with the channels of GroupNorm as two axes."""
    if not isinstance(op, GroupNorm):
        return shape
    return (*shape[:-1], op.groups, shape[-1] // op.groups)


def _moment(op: Any, arrays: Arrays, rank: int) -> np.ndarray:
    """Return σ², or the mean square, so that it broadcasts against the grouped input."""
    moment = arrays["m" if isinstance(op, RMSNorm) else "v"]
    if isinstance(op, GroupNorm):
        return moment.reshape(len(moment), *[1] * (rank - 3), op.groups, 1)
    return moment if isinstance(op, BatchNorm) else moment[..., None]


def _sum_over(count: float) -> Callable[..., np.ndarray]:
    return lambda value, **over: np.sum(value, **over) / count


def _of_other_variance(
    op: Any, over: tuple[int, ...], words: str, variance: Callable[[np.ndarray], np.ndarray]
) -> WrongProgram:
    """Compute x̂ and its derivatives from another variance than the forward pass does."""

    def changed(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Return the factor by which x̂ is another one, and its product with x̂."""
        shape = _grouped(op, arrays["x"].shape)
        moment = _moment(op, arrays, len(shape))
        factor = np.sqrt((moment + op.epsilon) / variance(moment)) * np.ones(shape)
        factor = factor.reshape(arrays["x"].shape)
        return factor, factor * arrays["xhat"]

    def dx(arrays: Arrays) -> np.ndarray:
        factor, xhat = changed(arrays)
        return factor * _through_moments(op, over, {**arrays, "xhat": xhat})

    def dscale(arrays: Arrays) -> np.ndarray:
        return (arrays["dy"] * changed(arrays)[1]).reshape(-1, arrays["x"].shape[-1]).sum(axis=0)

    return WrongProgram("variance", words, {"dx": dx, "dscale": dscale})


# ── Windows ─────────────────────────────────────────────────────────────────────────────────────

OVERWRITTEN = "where windows overlap, each overwrites what others gave: = stands for +="
ROOM = 64  # entries behind the input, for windows that reach beyond it


class _Window(NamedTuple):
    """One window, of all samples and channels.

    Attributes:
        x: the inputs in it, (N, *window, C); -∞ where it covers padding.
        y: the output at its place, (N, 1, …, C).
        dy: its derivative, likewise.
    """

    x: np.ndarray
    y: np.ndarray
    dy: np.ndarray

    def over(self, reduce: Callable[..., np.ndarray], value: np.ndarray) -> np.ndarray:
        """Reduce what belongs to each input to one number for each sample and channel."""
        return reduce(value, axis=tuple(range(1, value.ndim - 1)), keepdims=True)


Share: TypeAlias = Callable[[_Window], np.ndarray]  # what a window gives to each of its inputs


def _windows(names: Names, stride: tuple[int, ...] | None = None) -> Iterator[tuple[Any, Any]]:
    """Iterate over the places of the output, each with its window: slices of the padded input."""
    settings, shapes = names.settings, names.shapes
    sizes = shapes["w"][:-2] if "w" in shapes else settings["window"]
    apart = settings.get("dilation", (1,) * len(sizes))
    for place in itertools.product(*map(range, shapes["dy"][1:-1])):
        first = [i * by for i, by in zip(place, stride or settings["stride"], strict=True)]
        parts = zip(first, sizes, apart, strict=True)
        window = tuple(slice(at, at + (size - 1) * by + 1, by) for at, size, by in parts)
        yield (slice(None), *place), (slice(None), *window)


def _padded(names: Names, arrays: Arrays, fill: float) -> np.ndarray:
    widths = [(before, ROOM) for before in names.settings["padding"]]
    return np.pad(arrays["x"], ((0, 0), *widths, (0, 0)), constant_values=fill)


def _given_back(
    names: Names, share: Share, arrays: Arrays, add: bool = True, stride: Any = None
) -> np.ndarray:
    """Give each input what its windows have for it, added up or only that of the last window."""
    x = _padded(names, arrays, -np.inf)
    dx = np.zeros_like(x)
    for place, window in _windows(names, stride):
        y, dy = (arrays[name][place][:, *[None] * (x.ndim - 2)] for name in ("y", "dy"))
        given = share(_Window(x[window], y, dy))
        dx[window] = dx[window] + given if add else given
    inner = zip(names.settings["padding"], arrays["x"].shape[1:-1], strict=True)
    return dx[:, *(slice(before, before + size) for before, size in inner)]


def _to_largest(window: _Window) -> np.ndarray:
    return (window.x == window.over(np.max, window.x)) * window.dy


def _to_smallest(window: _Window) -> np.ndarray:
    x = np.where(np.isfinite(window.x), window.x, np.inf)
    return (x == window.over(np.min, x)) * window.dy


def _to_largest_size(window: _Window) -> np.ndarray:
    size = np.where(np.isfinite(window.x), np.abs(window.x), -1)
    return (size == window.over(np.max, size)) * window.dy


def _to_largest_of_all_channels(window: _Window) -> np.ndarray:
    largest = window.over(np.max, window.x).max(axis=-1, keepdims=True)
    return (window.x == largest) * window.dy


def _times_largest(window: _Window) -> np.ndarray:
    return _to_largest(window) * window.y


def _to_all(window: _Window) -> np.ndarray:
    return np.ones_like(window.x) * window.dy


def _shared_equally(window: _Window) -> np.ndarray:
    return _to_all(window) / window.over(np.sum, np.ones_like(window.x))


def _shared_by_counted(window: _Window) -> np.ndarray:
    return _to_all(window) / np.maximum(window.over(np.sum, np.isfinite(window.x)), 1)


def _shared_by_side(window: _Window) -> np.ndarray:
    return _to_all(window) / window.x.shape[1]


SHARES: dict[type, tuple[Share, dict[str, Share]]] = {  # the right one, and the wrong ones
    MaxPool: (
        _to_largest,
        {
            "every entry of a window gets dy, not the largest alone": _to_all,
            "dy is shared equally among a window, as by average pooling": _shared_equally,
            "dy goes to the entry of the largest absolute value": _to_largest_size,
            "dy goes to the smallest entry": _to_smallest,
            "the largest is looked for in all channels, not in each": _to_largest_of_all_channels,
            "dy is multiplied by the largest entry itself": _times_largest,
        },
    ),
    AveragePool: (
        _shared_by_counted,
        {
            "it is not divided by the number of entries of a window": _to_all,
            "the padding is counted as entries of a window": _shared_equally,
            "it is divided by the side of a window, not by the number of entries": _shared_by_side,
        },
    ),
}


def _of_pooling(op: Any, names: Names) -> Iterator[WrongProgram]:
    right, wrong = SHARES[type(op)]
    program = functools.partial(_given_back, names)
    yield _in_dx("windows", OVERWRITTEN, functools.partial(program, right, add=False))
    ones = (1,) * len(names.settings["window"])
    yield _in_dx("windows", "the stride is ignored", functools.partial(program, right, stride=ones))
    for words, share in wrong.items():
        yield _in_dx("windows", words, functools.partial(program, share))


def _of_convolutions(op: Any, names: Names) -> Iterator[WrongProgram]:
    if op.groups != 1:
        return

    def overwritten(arrays: Arrays) -> np.ndarray:
        def share(window: _Window) -> np.ndarray:
            dy = window.dy.reshape(len(window.dy), -1)
            return np.moveaxis(np.tensordot(arrays["w"], dy, (-1, -1)), -1, 0)

        return _given_back(names, share, arrays, add=False)

    def of_last_place(arrays: Arrays) -> np.ndarray:
        *_, (place, window) = _windows(names)
        x = _padded(names, arrays, 0.0)[window][-1]
        return np.einsum("...c,o->...co", x, arrays["dy"][place][-1])

    yield _in_dx("windows", OVERWRITTEN, overwritten)
    words = "only the last place of the last sample is counted: = stands for +="
    yield WrongProgram("windows", words, {"dw": of_last_place})


# ── Attention ───────────────────────────────────────────────────────────────────────────────────


def _of_attention(op: Any, names: Names) -> Iterator[WrongProgram]:
    if "p" not in names.shapes or op.rotary:
        return
    words = "the heads are merged by reshaping, without exchanging the axes of heads and steps"
    split = "the heads are split by reshaping, without exchanging the axes of heads and steps"
    yield WrongProgram("heads", split, {"do": _split_by_reshaping})
    merged = {name: functools.partial(_as_merged, name) for name in ("dq", "dk", "dv")}
    yield WrongProgram("heads", words, merged)
    for name, program in merged.items():
        yield WrongProgram("heads", f"of {name} {words}", {name: program})
    yield WrongProgram("heads", f"of o {words}", {"dwo": _by_merged_output})
    if "allowed" in names.shapes:
        words = "the mask is forgotten where the weights of attention are computed again"
        programs = {"dv": _dv_without_mask, "dscore": _dscore_without_mask}
        yield WrongProgram("mask", words, programs)


def _as_merged(name: str, arrays: Arrays) -> np.ndarray:
    """Return the array that, merged rightly, is this one reshaped without an exchange of axes."""
    samples, heads, steps, size = arrays[name].shape
    return arrays[name].reshape(samples, steps, heads, size).swapaxes(1, 2)


def _split_by_reshaping(arrays: Arrays) -> np.ndarray:
    do = arrays["do"]
    return do.swapaxes(1, 2).reshape(do.shape)


def _by_merged_output(arrays: Arrays) -> np.ndarray:
    o, dy = arrays["o"], arrays["dy"]
    return o.reshape(-1, o.shape[1] * o.shape[3]).T @ dy.reshape(-1, dy.shape[-1])


def _weights_without_mask(arrays: Arrays) -> np.ndarray:
    q, k = arrays["q"], arrays["k"]
    return special.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), axis=-1)


def _dv_without_mask(arrays: Arrays) -> np.ndarray:
    return _weights_without_mask(arrays).swapaxes(-1, -2) @ arrays["do"]


def _dscore_without_mask(arrays: Arrays) -> np.ndarray:
    p, dp = _weights_without_mask(arrays), arrays["dp"]
    return p * (dp - (p * dp).sum(axis=-1, keepdims=True))


# ── Neighbouring functions ──────────────────────────────────────────────────────────────────────


def _of_gelu(op: Any, names: Names) -> Iterator[WrongProgram]:
    other = GELU(form="exact" if op.form == "tanh" else "tanh")

    def of_other(arrays: Arrays) -> np.ndarray:
        _, cache = other.forward((), jnp.asarray(arrays["x"]))
        return np.asarray(other.backward((), cache, jnp.asarray(arrays["dy"]))[1])

    yield _in_dx("function", f"it is the derivative of {other}", of_other)

    def of_sigmoid(arrays: Arrays) -> np.ndarray:
        x, s = arrays["x"], special.expit(1.702 * arrays["x"])
        return (s + 1.702 * x * s * (1 - s)) * arrays["dy"]

    yield _in_dx("function", "it is the derivative of the approximation x σ(1.702 x)", of_sigmoid)


def _softmax_backward(outer: Program, inner: Program, arrays: Arrays) -> np.ndarray:
    """Compute outer (dy - Σ inner dy)."""
    dy = arrays["dy"]
    return outer(arrays) * (dy - (inner(arrays) * dy).sum(axis=-1, keepdims=True))


def _exponentials(arrays: Arrays) -> np.ndarray:
    return np.exp(arrays["x"] - arrays["x"].max(axis=-1, keepdims=True))


def _of_softmax(op: Any, names: Names) -> Iterator[WrongProgram]:
    words = "the exponentials stand in the place of y: they are not divided by their sum"
    y, e = operator.itemgetter("y"), _exponentials
    for outer, inner in ((e, y), (y, e), (e, e)):
        yield _in_dx("factor", words, functools.partial(_softmax_backward, outer, inner))
    of_log = lambda a: a["dy"] - a["y"] * a["dy"].sum(axis=-1, keepdims=True)  # noqa: E731
    yield _in_dx("function", "it is the derivative of LogSoftmax", of_log)


def _of_log_softmax(op: Any, names: Names) -> Iterator[WrongProgram]:
    p = lambda arrays: np.exp(arrays["y"])  # noqa: E731
    program = functools.partial(_softmax_backward, p, p)
    yield _in_dx("function", "it is the derivative of Softmax", program)


def _of_cross_entropy(op: Any, names: Names) -> Iterator[WrongProgram]:
    def one_hot(arrays: Arrays) -> np.ndarray:
        t, classes = arrays["t"], arrays["y"].shape[-1]
        return t if t.ndim == arrays["y"].ndim else np.eye(classes)[t.astype(int) % classes]

    def counted(arrays: Arrays) -> np.ndarray:
        return arrays.get("counted", np.ones(arrays["y"].shape[:-1]))

    def by_probabilities(arrays: Arrays) -> np.ndarray:
        p, weights = special.softmax(arrays["y"], axis=-1), counted(arrays)
        return -one_hot(arrays) * weights[..., None] / p / weights.sum()

    def smoothed_elsewhere(arrays: Arrays) -> np.ndarray:
        p, t, weights = special.softmax(arrays["y"], axis=-1), one_hot(arrays), counted(arrays)
        t = (1 - op.smoothing) * t + op.smoothing / (t.shape[-1] - 1) * (1 - t)
        return (p - t) * weights[..., None] / weights.sum()

    words = "it is the derivative by the probabilities, -t / p, not by the logits"
    yield WrongProgram("function", words, {"dy": by_probabilities})
    if op.smoothing:
        words = "the smoothing is shared among the other classes, not among all"
        yield WrongProgram("number", words, {"dy": smoothed_elsewhere})


def _of_divergence(op: Any, names: Names) -> Iterator[WrongProgram]:
    """Take the derivative of Σ t (log t - y) by t."""
    for words, of_cost in (
        ("it is the derivative by the target, log t + 1 - y", lambda y, t: np.log(t) + 1 - y),
        ("it is the derivative by the target, log t + 1", lambda y, t: np.log(t) + 1),
        ("it is the derivative by the target, log t + 1", lambda y, t: -np.log(t) - 1),
    ):

        def by_target(arrays: Arrays, of_cost: Any = of_cost) -> np.ndarray:
            return of_cost(arrays["y"], arrays["t"]) / len(arrays["y"])

        yield WrongProgram("function", words, {"dy": by_target})


def _of_probabilities(op: Any, names: Names) -> Iterator[WrongProgram]:
    by_logit = lambda a: a["dy"] * a["y"] * (1 - a["y"])  # noqa: E731
    words = "it is the derivative by the logit: the factor 1 / (y (1 - y)) is missing"
    yield WrongProgram("function", words, {"dy": by_logit})


def _of_logits(op: Any, names: Names) -> Iterator[WrongProgram]:
    def by_probability(arrays: Arrays) -> np.ndarray:
        p = special.expit(arrays["y"])
        return arrays["dy"] / (p * (1 - p))

    words = "it is the derivative by the probability: the slope σ (1 - σ) is missing"
    yield WrongProgram("function", words, {"dy": by_probability})


# ── Forms ───────────────────────────────────────────────────────────────────────────────────────


def _of_reshaping(op: Any, names: Names) -> Iterator[WrongProgram]:
    def columns_first(arrays: Arrays) -> np.ndarray:
        return arrays["dy"].reshape(arrays["x"].shape, order="F")

    def samples_kept(arrays: Arrays) -> np.ndarray:
        n, *shape = arrays["x"].shape
        return np.stack([row.reshape(shape, order="F") for row in arrays["dy"].reshape(n, -1)])

    def channels_first(arrays: Arrays) -> np.ndarray:
        n, *space, channels = arrays["x"].shape
        return np.moveaxis(arrays["dy"].reshape(n, channels, *space), 1, -1)

    words = "dy is put back in column-major order (order='F')"
    yield _in_dx("order", words, columns_first)
    yield _in_dx("order", words, samples_kept)
    yield _in_dx("order", "dy is put back with the channels first", channels_first)


def _of_parallel(op: Any, names: Names) -> Iterator[WrongProgram]:
    """Cut dy in another order of the branches."""
    parts = [f"dy{b + 1}" for b in range(len(op.branches))]
    if op.join == "add" or not all(name in names.shapes for name in parts):
        return
    widths = [names.shapes[name][-1] for name in parts]
    for order in itertools.permutations(range(len(parts))):
        starts = np.cumsum([0, *(widths[b] for b in order)])
        ranges = {parts[b]: (starts[k], starts[k + 1]) for k, b in enumerate(order)}
        results = {name: functools.partial(_columns, *at) for name, at in ranges.items()}
        if list(order) != sorted(order):
            yield WrongProgram("exchanged", "dy is cut in another order of the branches", results)


def _columns(first: int, after: int, arrays: Arrays) -> np.ndarray:
    return arrays["dy"][..., first:after]


def _of_dropout(op: Any, names: Names) -> Iterator[WrongProgram]:
    if "kept" in names.shapes:
        remains = 1 - op.rate
        for words, of in (
            ("the mask is inverted", lambda kept, dy: (1 - kept) * dy / remains),
            ("the mask is not applied", lambda kept, dy: dy / remains),
            ("it is divided by the rate, not by 1 - rate", lambda kept, dy: kept * dy / op.rate),
            ("it is multiplied by 1 - rate, not divided", lambda kept, dy: kept * dy * remains),
        ):

            def wrong(arrays: Arrays, of: Any = of) -> np.ndarray:
                return of(arrays["kept"], arrays["dy"])

            yield _in_dx("factor", words, wrong)


MISTAKES: dict[Any, Callable[[Any, Names], Iterator[WrongProgram]]] = {
    (BatchNorm, LayerNorm, GroupNorm, RMSNorm): _of_norms,
    (MaxPool, AveragePool): _of_pooling,
    (Conv1D, Conv2D): _of_convolutions,
    MultiHeadAttention: _of_attention,
    (Flatten, Reshape): _of_reshaping,
    Parallel: _of_parallel,
    Dropout: _of_dropout,
    GELU: _of_gelu,
    Softmax: _of_softmax,
    LogSoftmax: _of_log_softmax,
    SoftmaxCrossEntropy: _of_cross_entropy,
    KLDivergence: _of_divergence,
    BinaryCrossEntropy: _of_probabilities,
    SigmoidBinaryCrossEntropy: _of_logits,
}
