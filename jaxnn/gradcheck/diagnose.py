"""Grade a user's own backward pass: which gradient is wrong, and what is the most likely mistake?

The claimed gradients are compared with the true ones (``jax.vjp`` of the forward, in float64), and
then with the results of each of the usual mistakes. The first that agrees is the diagnosis.
"""

import dataclasses
import functools
import itertools
import math
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.checks import InputError, check_key
from jaxnn.compose import Sequential, numbered
from jaxnn.gradcheck.activation_mistakes import wrong_derivatives
from jaxnn.gradcheck.search import Claims, Explanation, in_words, search
from jaxnn.gradcheck.stated_backward import StatedBackward
from jaxnn.gradcheck.vjp_claim import (
    FLOOR,
    Claim,
    Floats,
    WrongForm,
    check_batch,
    is_float,
    state_claim,
)
from jaxnn.types import AnyArray, Layer, Loss

RIGHT = 1e-5  # relative error up to which a gradient is right; it may have been computed in float32
HERE = Path(__file__).parent
UNDECIDED = (
    "wrong",
    "factor",
    "stale",
    "same as another",
)  # verdicts that a search may make more precise
# and those that it replaces only where a condition or a factor explains the numbers
OF_FACTORS = ("derivative at output", "derivative of input", "mask")
OF_BATCH = ("missing 1/B", "extra 1/B")
MANY_CROPS = 1000  # so many ways to cut off padding are not tried
NEAR_KINK = 1e-3  # the distance by which inputs are moved to see whether they were at a kink


class Finding(NamedTuple):
    """The result for one gradient.

    Attributes:
        leaf: the name of the leaf with respect to which the gradient is taken.
        verdict: "right", or a word for the mistake: "sign", "transposed", "factor", …; "not shown"
            where the gradient is 0 because of this input, so that a wrong one would be 0, too.
        message: a sentence that explains the verdict, with the numbers.
    """

    leaf: str
    verdict: str
    message: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """One finding for each gradient. Prints as a report."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def right(self) -> bool:
        """Whether every gradient is right."""
        return all(finding.verdict == "right" for finding in self.findings)

    def __str__(self) -> str:
        marks = {"right": "✓", "not shown": "?"}
        told = zip(self.findings, self._messages(), strict=True)
        lines = [f"{marks.get(finding.verdict, '✗')} {message}" for finding, message in told]
        return "\n".join([self.name, *lines])

    def _repr_html_(self) -> str:
        told = zip(self.findings, self._messages(), strict=True)
        rows = [(leaf, verdict, message) for (leaf, verdict, _), message in told]
        bad = [finding.verdict != "right" for finding in self.findings]
        table = notebook.table(("gradient", "verdict", "what is found"), rows, bad)
        return notebook.fragment(notebook.line(self.name), table)

    def _messages(self) -> Iterator[str]:
        """Give the messages, each explanation only once."""
        first: dict[str, str] = {}
        for leaf, _, message in self.findings:
            wrong, explained, why = message.partition(" is wrong: ")
            same = first.setdefault(why, leaf) if explained else leaf
            yield (
                message if same == leaf else f"{wrong} is wrong, by the mistake in that of {same}."
            )


def diagnose(
    op: Layer | Loss,
    *,
    backward: Callable[..., Any],
    x: PyTree,
    target: AnyArray | None = None,
    params: PyTree = None,
    weights: AnyArray | None = None,
    key: PRNGKeyArray | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Grade a user's own backward for a layer, a network or a loss.

    Args:
        op: the layer or loss that ``backward`` belongs to; its own ``backward`` is not used.
        backward: ``(params, cache, dy) -> (dparams, dx)``, or for a loss ``cache -> dprediction``,
            with the cache that ``op.forward`` returns.
        x: an example batch of at least two samples; for a loss, the predictions.
        target: for a loss, the targets.
        params: the layer's parameters; by default drawn with ``seed``.
        weights: for a loss, the sample weights.
        key: a PRNG key for training mode.
        seed: the seed of the parameters and cotangents.

    Returns:
        A :class:`Diagnosis`, which prints as a report.

    Raises:
        InputError: if ``backward`` is not callable, if ``op`` is neither a layer nor a loss, if
            ``x`` is not finite, or if the batch has only one sample.
    """
    if not callable(backward):
        raise InputError(
            f"diagnose: expected backward to be a function, got {type(backward).__name__}."
        )
    key_of_op = key
    if key is not None:
        check_key("diagnose", key)
        if isinstance(op, Layer) and not isinstance(op, Sequential):
            # the stated backward is that of a chain of one layer, which draws from a key of its own
            ((_, _, key_of_op),) = numbered((op,), key)
    with jax.enable_x64(True):
        state = lambda x, target=target, weights=weights: state_claim(  # noqa: E731
            "diagnose",
            op,
            x,
            target,
            params=params,
            weights=weights,
            key=key_of_op,
            backward=backward,
            seed=seed,
        )
        claim = state(x)
        check_batch("diagnose", claim)
        case = _Case(claim, np.random.default_rng(seed + 1))
        try:
            claimed = _leaves(claim, case.floats, case.dy)
        except _UnusableError as finding:
            return Diagnosis(repr(op), (Finding("", "form", str(finding)),))
        case.with_one_more = functools.cache(
            lambda: _with_one_more(state, x, target, weights, np.random.default_rng(seed + 4))
        )
        if weights is not None:
            plain = state_claim("diagnose", op, x, target, params=params, backward=backward)
            case.unweighted = [np.asarray(d) for d in plain.gradient(plain.floats, case.dy)]
        case.right = {i for i, true in enumerate(case.truth) if _close(claimed[i], true)}
        moved = state(_moved(x, np.random.default_rng(seed + 2))).floats
        findings = [_find(case, moved, claimed, i) for i in range(len(claimed))]
        if shown := _zeros_of_this_input(case, findings):
            elsewhere = _at_another_input(state, x, np.random.default_rng(seed + 3))
            for i in shown & elsewhere:
                findings[i] = _not_shown(case.names[i])
        searched = _searched(case, claimed, findings, key, weights, target)
    return Diagnosis(repr(op), tuple(searched.get(i, f) for i, f in enumerate(findings)))


def _with_one_more(
    state: Callable[..., Claim],
    x: PyTree,
    target: AnyArray | None,
    weights: AnyArray | None,
    random: np.random.Generator,
) -> "tuple[_Case, list[np.ndarray]] | None":
    """Return the case of one more sample, the first again, and what is claimed there."""
    again = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf[:1]]), (x, target, weights))
    try:
        case = _Case(state(*again), random)
        return case, _leaves(case.claim, case.floats, case.dy)
    except (InputError, _UnusableError):  # a backward that is written for one number of samples
        return None


def _zeros_of_this_input(case: "_Case", findings: list[Finding]) -> set[int]:
    """Return the gradients that are rightly 0, at this input at least."""
    return {
        i
        for i, finding in enumerate(findings)
        if finding.verdict == "right" and not case.truth[i].any()
    }


def _at_another_input(
    state: Callable[[PyTree], Claim], x: PyTree, random: np.random.Generator
) -> set[int]:
    """Return the gradients that are not 0 at an input of standard normal numbers."""
    drawn = lambda leaf: random.normal(size=np.shape(leaf)) if is_float(leaf) else leaf  # noqa: E731
    try:
        case = _Case(state(jax.tree.map(drawn, x)), random)
    except InputError:  # it is no input of this layer or loss
        return set()
    return {i for i, leaf in enumerate(case.truth) if leaf.any()}


def _not_shown(leaf: str) -> Finding:
    return Finding(
        leaf,
        "not shown",
        f"The gradient of {leaf} is 0 at this input, as it should be, but so is that of many a "
        "wrong backward. Try an input for which it is not 0; for ReLU, one with entries above 0.",
    )


def _searched(
    case: "_Case",
    claimed: list[np.ndarray],
    findings: list[Finding],
    key: PRNGKeyArray | None,
    weights: AnyArray | None,
    target: AnyArray | None,
) -> dict[int, Finding]:
    """Search the stated formulas for the mistakes that are none of the usual ones."""
    not_of_batch = {
        i
        for i, (_, verdict, _) in enumerate(findings)
        if verdict in OF_BATCH and not _is_of_the_batch(case, claimed[i], i)
    }
    undecided = UNDECIDED + OF_FACTORS
    open_ = [i for i, f in enumerate(findings) if f.verdict in undecided or i in not_of_batch]
    if not open_ or weights is not None:
        return {}
    other = _Case(case.claim, np.random.default_rng(3))
    try:
        stated = _stated(case, key, target)
        claimed_again = _leaves(case.claim, other.floats, other.dy)
    except (InputError, _UnusableError):
        return {}
    of_loss = not isinstance(case.claim.op, Layer)  # its formulas state the derivative for dJ = 1
    scale, scale_again = (float(np.asarray(c.dy)) if of_loss else 1.0 for c in (case, other))
    identities = [stated.identity(leaf / scale) for leaf in case.truth]
    wanted = {i: one for i in open_ if (one := identities[i]) is not None}
    norms = [float(np.linalg.norm(leaf)) for leaf in case.truth]
    right = {  # but for what is 0 in any case, and so says nothing of the lines before it
        identity
        for identity, finding, norm in zip(identities, findings, norms, strict=True)
        if identity is not None and finding.verdict == "right" and norm > RIGHT * max(norms)
    } - {*wanted.values()}
    claims = Claims(
        gradients=[leaf / scale for leaf in claimed],
        again=[leaf / scale_again for leaf in claimed_again],
        wrong=wanted,
        right=right,
        close=_close,
        not_of_batch=not_of_batch,
    )
    found = search(stated, functools.cache(lambda: _stated(other, key, target)), claims)
    return {
        i: Finding(
            case.names[i],
            explanation.edits[0][1].kind,
            f"The gradient of {case.names[i]} is wrong: {in_words(stated, explanation)}.",
        )
        for i, explanation in found.items()
        if _is_better(explanation, findings[i])
    }


def _is_better(explanation: Explanation, than: Finding) -> bool:
    """Return whether an edit says more than what was found before."""
    (_, edit), *more = explanation.edits
    if than.verdict in OF_BATCH:
        return not more
    if than.verdict in OF_FACTORS:
        return edit.kind in ("condition", "factor") and not more
    # what does not depend on its input at all is better called so than two mistakes at once
    return than.verdict != "stale" or not more


def _stated(case: "_Case", key: PRNGKeyArray | None, target: AnyArray | None) -> StatedBackward:
    claim = case.claim
    point = claim.at(case.floats)
    if isinstance(claim.op, Layer):
        params = claim.whole_params(point)
        return StatedBackward.of_layer(claim.op, params, point["x"], case.dy, key)
    return StatedBackward.of_loss(claim.op, point["prediction"], jnp.asarray(target))


class _UnusableError(Exception):
    """The result of the backward cannot be compared with the true gradients."""


class _Case:
    """The claim at one point, with a cotangent and the true gradients."""

    def __init__(self, claim: Claim, random: np.random.Generator) -> None:
        self.claim, self.floats = claim, claim.floats
        self.dy = claim.random_dy(random)
        self.truth = [np.asarray(leaf) for leaf in claim.gradient(self.floats, self.dy)]
        self.names = claim.names
        self.unweighted: list[np.ndarray] = []  # the gradients of a loss without sample weights
        self.right: set[int] = set()  # the gradients that are claimed rightly
        self.with_one_more: Callable[[], tuple[_Case, list[np.ndarray]] | None] = lambda: None


def _leaves(claim: Claim, floats: Floats, dy: PyTree) -> list[np.ndarray]:
    """Run the backward and return the leaves of its result, whatever their containers."""
    point = claim.at(floats)
    cache = claim.pass_forward(point)[1]
    try:
        gradient = claim.backward(point, cache, dy)
    except NotImplementedError as error:
        raise _UnusableError(
            "The backward is not written yet: it raises NotImplementedError."
        ) from error
    except WrongForm as error:
        raise _UnusableError(str(error)) from error
    except Exception as error:
        raise _UnusableError(
            f"The backward does not run: {type(error).__name__}{_line(error)}: {error}"
        ) from error
    try:
        leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradient)]
    except (TypeError, ValueError) as error:
        raise _UnusableError(
            f"The backward gives something that is not an array: {error}"
        ) from error
    if len(leaves) != len(floats):
        raise _UnusableError(
            f"The backward gives {len(leaves)} gradients; "
            f"{len(floats)} are expected: {', '.join(claim.names)}."
        )
    return leaves


# ── Finding the mistake ─────────────────────────────────────────────────────────────────────────


def _find(case: _Case, moved: Floats, claimed: list[np.ndarray], i: int) -> Finding:
    """Try the explanations in order, the simplest first, and return the first that fits."""
    leaf, got, true = case.names[i], claimed[i], case.truth[i]
    label = f"The gradient of {leaf}"
    for explain in (
        _form,
        _right,
        _wrong_form_of_right,
        _unweighted,
        _factors,
        _bounded,
        _after_a_step,
        _other_leaf,
        _derivatives,
        _stale,
        _kinks,
        _where_zero,
    ):
        for verdict, sentence in explain(case, moved, got, true, i):
            return Finding(leaf, verdict, f"{label} {sentence}")
    worst = np.unravel_index(np.abs(got - true).argmax(), true.shape)
    place = f"[{', '.join(map(str, worst))}]" if true.ndim else ""
    return Finding(
        leaf,
        "wrong",
        f"{label} is wrong, by a mistake that was not found, or by several at once: "
        f"it is off by {_error(got, true):.2g} in relative norm, most at {leaf}{place}, "
        f"where it is {got[worst]:.6g} and should be {true[worst]:.6g}.{_where(got, true)}",
    )


def _where(got: np.ndarray, true: np.ndarray) -> str:
    """Say where a gradient is wrong, if it is right elsewhere."""
    wrong = ~np.isclose(got, true, rtol=RIGHT, atol=RIGHT * float(np.abs(true).max(initial=0)))
    places = []
    for axis, size in enumerate(true.shape):
        others = tuple(k for k in range(true.ndim) if k != axis)
        at = np.flatnonzero(wrong.any(axis=others)).tolist()
        if len(at) < size:
            places.append(f"at {', '.join(map(str, at))} along axis {axis}")
    return f" It is right except {' and '.join(places)}." if places else ""


Explanations = Iterator[tuple[str, str]]


def _form(case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int) -> Explanations:
    if got.shape != true.shape:
        yield from _shape(case, got, true, i)
    elif not np.isfinite(got).all():
        place = tuple(int(n) for n in np.argwhere(~np.isfinite(got))[0])
        yield "not finite", f"is not finite: {got[place]} at {list(place)}."


def _shape(case: _Case, got: np.ndarray, true: np.ndarray, i: int) -> Explanations:
    if got.ndim == true.ndim == 2 and got.shape == true.shape[::-1] and _close(got.T, true):
        yield (
            "transposed",
            f"is the transpose of the right one: its shape is {got.shape}, not {true.shape}.",
        )
        return
    if _close(got.reshape(-1), true.reshape(-1)):
        yield (
            "shape",
            f"has the right numbers, but the shape {got.shape} in the place of {true.shape}: "
            "as if axes were kept where they are summed over (keepdims=True).",
        )
        return
    for axes in _subsets(got.ndim) if got.ndim > true.ndim else ():
        if _close(got.sum(axis=axes), true):
            if axes == (0,) and _is_per_sample(case, got, i):
                yield (
                    "batch sum",
                    f"lacks the sum over the batch: it has shape {got.shape}, one gradient a "
                    "sample. Every sample uses the same parameters, so their contributions add up: "
                    "sum over axis 0.",
                )
            else:
                yield (
                    "sum",
                    f"lacks a sum: it has shape {got.shape}, and is right if it is summed over "
                    f"{_named(axes)}. Only the axes of the parameter remain.",
                )
            return
    (dy, *_) = map(np.asarray, jax.tree.leaves(case.dy))
    for axes in _subsets(dy.ndim):
        for right in _subsets(dy.ndim):
            if _close(dy.sum(axis=right), true) and _close(dy.sum(axis=axes), got):
                yield (
                    "axis",
                    f"is dy summed over {_named(axes)}, of shape {got.shape}; "
                    f"the sum runs over {_named(right)}.",
                )
                return
    if got.ndim == true.ndim and all(n >= m for n, m in zip(got.shape, true.shape, strict=True)):
        room = [range(n - m + 1) for n, m in zip(got.shape, true.shape, strict=True)]
        for first in itertools.product(*room) if math.prod(map(len, room)) < MANY_CROPS else ():
            part = tuple(slice(at, at + m) for at, m in zip(first, true.shape, strict=True))
            if _close(got[part], true):
                yield (
                    "padding",
                    f"has shape {got.shape}, that of the padded input: it is right if the padding "
                    f"is cut off, from {list(first)} on.",
                )
                return
    yield (
        "shape",
        f"has shape {got.shape}; a gradient has the shape of what it is the gradient of, "
        f"{true.shape}.",
    )


def _subsets(rank: int) -> list[tuple[int, ...]]:
    """Return all sets of axes but the empty one, the smallest first."""
    return [axes for n in range(1, rank + 1) for axes in itertools.combinations(range(rank), n)]


def _named(axes: tuple[int, ...]) -> str:
    return f"{'axis' if len(axes) == 1 else 'axes'} {' and '.join(map(str, axes))}"


def _is_per_sample(case: _Case, got: np.ndarray, i: int) -> bool:
    """Return whether the first entry along axis 0 is the gradient of the first sample."""
    if got.shape[0] != case.claim.batch:
        return False
    only = jax.tree.map(lambda d: jnp.zeros_like(d).at[0].set(d[0]), case.dy)
    return _close(got[0], np.asarray(case.claim.gradient(case.floats, only)[i]))


def _right(case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int) -> Explanations:
    whole = float(np.sqrt(sum((leaf**2).sum() for leaf in case.truth)))
    if _close(got, true):
        yield "right", f"is right (relative error {_error(got, true):.1e})."
    elif np.linalg.norm(got - true) <= RIGHT * FLOOR * whole:
        yield "right", "is right: it is 0 but for rounding."


def _wrong_form_of_right(
    case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int
) -> Explanations:
    if not got.any():
        yield (
            "zero",
            f"is 0 everywhere; it should have the norm {np.linalg.norm(true):.4g}. "
            "Was it ever computed?",
        )
    elif _close(got, -true):
        yield "sign", "has the wrong sign: it is minus the expected. Descent would climb."
    elif true.ndim == 2 and true.shape[0] == true.shape[1] and _close(got.T, true):
        yield (
            "transposed",
            "is the transpose of the right one. Both are square, so the shapes did not tell.",
        )
    elif case.names[i].startswith("params"):
        yield from _one_sample(case, got, i)


def _one_sample(case: _Case, got: np.ndarray, i: int) -> Explanations:
    """Check whether only one sample of the batch was counted."""
    first = jax.tree.leaves(case.dy)[0]
    if first.ndim and first.shape[0] == case.claim.batch:
        for sample in (0, case.claim.batch - 1):
            only = jax.tree.map(lambda d, n=sample: jnp.zeros_like(d).at[n].set(d[n]), case.dy)
            if _close(got, np.asarray(case.claim.gradient(case.floats, only)[i])):
                yield (
                    "batch sum",
                    f"lacks the sum over the batch: it is the gradient of sample {sample} alone. "
                    "Every sample uses the same parameters, so their contributions add up.",
                )


def _factors(case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int) -> Explanations:
    scale = _scale(got, true)
    if not scale:
        return
    batch, size = case.claim.batch, true.size
    if isinstance(case.claim.op, Loss) and _same(scale, size):
        yield (
            "missing 1/B",
            f"is {size} times too large, and it has {size} entries: "
            f"the 1/{size} of the mean is missing.",
        )
    elif _same(scale, batch):
        yield (
            "missing 1/B",
            f"is {batch} times too large, and B = {batch}: "
            "a 1/B is missing, or the batch was summed over twice.",
        )
    elif _same(scale, 1 / batch):
        yield (
            "extra 1/B",
            f"is {batch} times too small, and B = {batch}: there is a 1/B too many. "
            "The loss owns the mean; a layer only sums.",
        )
    elif (count := _count_of_dy(case, scale, i)) is not None:
        axes, number = count
        what = "small, and" if scale < 1 else "large, and"
        yield (
            "mean",
            f"is {number} times too {what} {number} is the number of values along {_named(axes)} "
            f"of dy: {'a mean stands for a sum' if scale < 1 else 'it is summed over once more'}.",
        )
    elif size > 1:  # any wrong value of a single number is some multiple of the right one
        advice = f"{1 / scale:.6g} is missing" if 0 < scale < 1 else f"{scale:.6g} is too much"
        yield "factor", f"is {scale:.6g} times the expected: a constant factor of {advice}."


def _scale(got: np.ndarray, true: np.ndarray) -> float:
    """Return the number of which the claimed gradient is a multiple of the true one, or 0."""
    scale = float((got * true).sum() / (true**2).sum()) if true.any() else 0.0
    return scale if scale and _close(got, scale * true) else 0.0


def _is_of_the_batch(case: _Case, got: np.ndarray, i: int) -> bool:
    """Return whether a factor that has the value of B, or 1/B, changes with one more sample.

    Another may have that value by chance, such as the root of the size of a head.
    """
    more = case.with_one_more()
    if more is None or more[1][i].shape != more[0].truth[i].shape:
        return True
    return not _same(_scale(more[1][i], more[0].truth[i]), _scale(got, case.truth[i]))


def _count_of_dy(case: _Case, scale: float, i: int) -> tuple[tuple[int, ...], int] | None:
    """Return the axes of dy whose number of values is a factor, or the inverse of one."""
    (dy, *_) = map(np.asarray, jax.tree.leaves(case.dy))
    if not case.names[i].startswith("params"):
        return None
    for axes in _subsets(dy.ndim):
        number = math.prod(dy.shape[axis] for axis in axes)
        if number > 2 and (_same(scale, number) or _same(scale, 1 / number)):
            return axes, number
    return None


def _unweighted(
    case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int
) -> Explanations:
    if case.unweighted and _close(got, case.unweighted[i]):
        yield "weights", "ignores the sample weights: it is the gradient of the plain mean."


def _bounded(case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int) -> Explanations:
    """Check whether the gradient is the right one, clipped or reduced to signs."""
    bound = float(np.abs(got).max())
    if _close(got, np.clip(true, -bound, bound)):
        yield (
            "clipped",
            f"is clipped: it is right up to {bound:.6g} in size, and ±{bound:.6g} beyond. "
            "Clip after the check, in the optimizer.",
        )
    elif true.size > 1 and _close(got, bound * np.sign(true)):
        yield "sign alone", f"has the right signs, but {bound:.6g} in the place of every size."


def _after_a_step(
    case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int
) -> Explanations:
    """Check whether the parameters after a step of gradient descent were returned."""
    before = np.asarray(case.floats[i])
    if case.names[i].startswith("params") and true.any() and true.size > 1:
        rate = float(((before - got) * true).sum() / (true**2).sum())
        if rate and _close(got, before - rate * true):
            yield (
                "updated",
                f"is not a gradient but the parameter after a step: "
                f"{case.names[i]} - {rate:.6g} times the gradient.",
            )


def _other_leaf(
    case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int
) -> Explanations:
    for j, other in enumerate(case.truth):
        if j != i and other.shape == got.shape and _close(got, other):
            name = case.names[j]
            if j in case.right:
                yield "same as another", f"is equal to that of {name}, which is right."
            else:
                yield "exchanged", f"is the gradient of {name}: were the two exchanged?"


def _derivatives(
    case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int
) -> Explanations:
    """Compare with the gradients that result from a wrong derivative of an activation."""
    for activation, what, sentence, gradient in wrong_derivatives(case.claim, case.dy):
        if gradient[i].shape == got.shape and _close(got, gradient[i]):
            yield what, sentence.format(name=activation)


def _stale(case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int) -> Explanations:
    other_dy = jax.tree.map(lambda d: 1.5 * d, case.dy)
    try:
        by_dy = _leaves(case.claim, case.floats, other_dy)[i]
        by_input = _leaves(case.claim, moved, case.dy)[i]
    except _UnusableError:
        return
    if np.array_equal(by_dy, got):
        yield (
            "stale",
            "does not change when dy does: it is a stale gradient, of another batch or of none.",
        )
    elif np.array_equal(by_input, got) and not _close(
        np.asarray(case.claim.gradient(moved, case.dy)[i]), true
    ):
        yield (
            "stale",
            "does not change when the input does, though it should: "
            "a factor that depends on it is missing.",
        )


def _kinks(case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int) -> Explanations:
    """Check whether the gradient is right after the input has been moved away from the kinks."""
    wrong = ~np.isclose(got, true, rtol=RIGHT, atol=RIGHT * float(np.abs(true).max(initial=0)))
    try:
        again = _leaves(case.claim, moved, case.dy)
    except _UnusableError:
        return
    if _close(again[i], np.asarray(case.claim.gradient(moved, case.dy)[i])):
        first = list(map(int, np.argwhere(wrong)[0]))
        yield (
            "kink",
            "is right except at a kink, where there is no derivative "
            "and a convention has to be chosen: "
            f"it differs in {int(wrong.sum())} of {wrong.size} entries, first at {first}.",
        )


def _where_zero(
    case: _Case, moved: Floats, got: np.ndarray, true: np.ndarray, i: int
) -> Explanations:
    """Check whether only whole rows are wrong, where the right gradient is 0."""
    for axis in range(true.ndim):
        others = tuple(k for k in range(true.ndim) if k != axis)
        masked = np.asarray(~true.any(axis=others))
        rows = np.flatnonzero(masked)
        if 0 < len(rows) < len(masked) and np.asarray(got.any(axis=others))[rows].any():
            kept = np.flatnonzero(~masked)
            if _close(got.take(kept, axis=axis), true.take(kept, axis=axis)):
                yield (
                    "mask",
                    f"is right but at {', '.join(map(str, rows))} along axis {axis}, where it "
                    "should be 0: what does not count is not masked.",
                )
                return


# ── Small helpers ───────────────────────────────────────────────────────────────────────────────


def _line(error: Exception) -> str:
    """Return the line of the user's own file in which an error was raised, as text."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f.lineno
        for f in frames
        if "site-packages" not in f.filename and Path(f.filename).parent != HERE
    ]
    return f" in line {own[-1]}" if own else ""


def _error(got: np.ndarray, true: np.ndarray) -> float:
    norm = float(np.linalg.norm(true))
    return float(np.linalg.norm(got - true)) / norm if norm else float(np.linalg.norm(got))


def _close(got: np.ndarray, true: np.ndarray) -> bool:
    with np.errstate(over="ignore"):  # a mistake may have given a number beyond all bounds
        return got.shape == true.shape and _error(got, true) <= RIGHT


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= RIGHT * abs(b)


def _moved(x: PyTree, random: np.random.Generator) -> PyTree:
    """Move every number by a small distance, away from any kink."""
    return jax.tree.map(
        lambda leaf: (
            np.asarray(leaf) + NEAR_KINK * (1 + random.uniform(size=np.shape(leaf)))
            if is_float(leaf)
            else leaf
        ),
        x,
    )
