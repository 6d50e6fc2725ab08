"""A layer or a loss at one point, as one function of its floating-point leaves.

Certificates, mutations and diagnoses all ask whether a backward is the derivative of a forward.
This module states that question once: the leaves by name, the function, and its claimed backward.
"""

import dataclasses
import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_concrete,
    check_finite,
    check_key,
    check_some_weight,
    is_array,
    kind_of,
)
from jaxnn.conversion import as_arrays
from jaxnn.types import AnyArray, Cache, Layer, Loss, Params, join_running, split_running

Floats: TypeAlias = list[Array]
Leaves: TypeAlias = Sequence[AnyArray]
Backward: TypeAlias = Callable[..., Any]  # that of a layer or of a loss, whose arguments differ


class WrongForm(Exception):  # noqa: N818, it is a finding, not an error
    """The structure, shape or dtype of a gradient is not that of the leaf it belongs to."""

    def __init__(self, leaf: str, message: str) -> None:
        super().__init__(message)
        self.leaf = leaf


@dataclasses.dataclass(frozen=True)
class Claim:
    """A function, its claimed backward, and a point at which to differentiate.

    Attributes:
        op: the layer or loss.
        point: the tree of its variables: ``{"params": …, "x": …}`` or ``{"prediction": …}``.
        forward: point -> (y, cache).
        backward: (point, cache, dy) -> the gradient, a tree like ``point`` with None for integers.
        running: the running statistics of a layer, which are constants.
    """

    op: Layer | Loss
    point: PyTree
    forward: Callable[[PyTree], tuple[PyTree, Cache]]
    backward: Callable[[PyTree, Cache, PyTree], PyTree]
    running: PyTree = None

    def whole_params(self, point: PyTree) -> Params:
        """Return the parameters of a point together with the running statistics."""
        return join_running(point["params"], self.running)

    @property
    def names(self) -> list[str]:
        """The names of the floating-point leaves: ``params[0].w``, ``x``."""
        leaves = jax.tree_util.tree_leaves_with_path(self.point)
        return [
            str(path[0].key) + jax.tree_util.keystr(path[1:])
            for path, leaf in leaves
            if is_float(leaf)
        ]

    @property
    def floats(self) -> Floats:
        """The floating-point leaves, by which the function is differentiated."""
        return [leaf for leaf in jax.tree.leaves(self.point) if is_float(leaf)]

    @property
    def batch(self) -> int:
        """B, the number of samples in the batch."""
        return int(jax.tree.leaves(self.point.get("x", self.point.get("prediction")))[0].shape[0])

    def at(self, floats: Floats) -> PyTree:
        """Return the point with other floating-point leaves."""
        given, (leaves, structure) = iter(floats), jax.tree.flatten(self.point)
        return jax.tree.unflatten(
            structure, [next(given) if is_float(leaf) else leaf for leaf in leaves]
        )

    def value(self, floats: Floats) -> PyTree:
        """Compute y."""
        return self.forward(self.at(floats))[0]

    def autodiff(self, floats: Floats, dy: PyTree) -> Floats:
        """Compute the gradient by ``jax.vjp`` of the forward."""
        return jax.vjp(self.value, floats)[1](dy)[0]

    @functools.cached_property
    def gradient(self) -> Callable[[Floats, PyTree], Floats]:
        """:meth:`autodiff` as a compiled program."""
        return jax.jit(self.autodiff)

    @functools.cached_property
    def pass_forward(self) -> Callable[[PyTree], tuple[PyTree, Cache]]:
        """``forward`` as a compiled program."""
        return jax.jit(self.forward)

    def by_hand(self, floats: Floats, dy: PyTree, cache: Cache = None) -> Floats:
        """Run the backward, with the forward's cache or another, and check the form of its result.

        Raises:
            WrongForm: for a gradient of the wrong structure, shape or dtype.
        """
        point = self.at(floats)
        cache = self.forward(point)[1] if cache is None else cache
        gradient = self.backward(point, cache, dy)
        expected = jax.tree.map(lambda leaf: leaf if is_float(leaf) else None, point)
        got, wanted = jax.tree.structure(gradient), jax.tree.structure(expected)
        if str(got) != str(wanted):
            raise WrongForm(
                "", f"The gradient has the wrong structure: expected {wanted}, got {got}."
            )
        leaves = jax.tree.leaves(gradient)
        for name, d, leaf in zip(self.names, leaves, floats, strict=True):
            if (jnp.shape(d), jnp.result_type(d)) != (leaf.shape, leaf.dtype):
                raise WrongForm(
                    name,
                    f"The gradient with respect to {name} has the wrong type: "
                    f"expected {leaf.dtype}{list(leaf.shape)}, "
                    f"got {jnp.result_type(d)}{list(jnp.shape(d))}.",
                )
        return leaves

    def random_dy(self, random: np.random.Generator) -> PyTree:
        """Draw a random cotangent. With ones, the true gradient of a softmax would be 0."""
        y = jax.eval_shape(self.value, self.floats)
        return jax.tree.map(
            lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), y
        )


def state_claim(
    who: str,
    op: Layer | Loss,
    x: PyTree,
    target: AnyArray | None = None,
    *,
    params: PyTree = None,
    weights: AnyArray | None = None,
    key: PRNGKeyArray | None = None,
    backward: Backward | None = None,
    dtype: DTypeLike = jnp.float64,
    seed: int = 0,
) -> Claim:
    """State a layer or a loss as a claim; call it where float64 is enabled.

    Args:
        who: the name of the function that the user called, for error messages.
        op: a layer, a network or a loss.
        x: an example batch; for a loss, the predictions.
        target: for a loss, the targets.
        params: the layer's parameters; by default drawn and jittered, so that no bias is 0 and no
            gain 1.
        weights: for a loss, the sample weights.
        key: a PRNG key for training mode.
        backward: a user's own backward, in place of ``op.backward``.
        dtype: the dtype to which all floating-point arrays are cast.
        seed: the seed of the parameters.

    Raises:
        InputError: if ``op`` is neither a layer nor a loss, if ``x`` is not finite, or if a loss
            has no target.
    """
    if isinstance(op, type):
        raise InputError(
            f"{who}: expected a layer or a loss, got the class {op.__name__}; "
            f"write {op.__name__}()."
        )
    if not isinstance(op, Layer | Loss):
        raise InputError(f"{who}: expected a layer or a loss, got {op!r}.")
    check_concrete(who, x=x, target=target, params=params, weights=weights, key=key)
    x = as_arrays(who, "x", x)
    check_finite(who, "x", x)
    check_finite(who, "params", params)
    check_some_weight(who, weights)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise InputError(f"{who}: expected seed to be an integer of at least 0, got {seed!r}.")
    if key is not None:
        check_key(who, key)
    if isinstance(op, Layer) and (target is not None or weights is not None):
        raise InputError(f"{who}: expected target and weights for a loss only, got {op!r}.")
    backward = backward or functools.partial(_own_backward, op)
    if isinstance(op, Layer):
        return _of_layer(op, cast(x, dtype), params, key, backward, dtype, seed)
    if params is not None:
        raise InputError(f"{who}: expected params for a layer only, got {op!r}.")
    if target is None:
        raise InputError(f"{who}: expected a target for the loss {op!r}, got none.")
    return _of_loss(op, cast(x, dtype), jnp.asarray(target), weights, backward)


def check_batch(who: str, claim: Claim) -> None:
    """Check that the batch has two samples: one cannot distinguish a sum from a mean."""
    if claim.batch < 2:
        raise InputError(
            f"{who}: expected a batch of at least two samples, "
            f"to distinguish sums from means, got {claim.batch}."
        )


def _own_backward(op: Layer | Loss, *arguments: PyTree) -> PyTree:
    # it is looked up at each call, so that a mutation planted later takes effect
    return op.backward(*arguments)


def _of_layer(
    op: Layer,
    x: PyTree,
    params: Params | None,
    key: PRNGKeyArray | None,
    backward: Backward,
    dtype: DTypeLike,
    seed: int,
) -> Claim:
    if params is None:
        random = np.random.default_rng(seed)
        params = jax.tree.map(
            lambda p: np.asarray(p) + 0.1 * random.standard_normal(p.shape),
            op.init(jax.random.key(seed), x),
        )
    # the running statistics are constants, by which nothing is differentiated
    trained, running = split_running(cast(params, dtype))

    def forward(point: PyTree) -> tuple[PyTree, Cache]:
        return op.forward(join_running(point["params"], running), point["x"], key)

    def claimed(point: PyTree, cache: Cache, dy: PyTree) -> PyTree:
        result = backward(join_running(point["params"], running), cache, dy)
        if not isinstance(result, tuple | list) or len(result) != 2:
            count = f" of {len(result)}" if isinstance(result, tuple | list) else ""
            raise WrongForm(
                "",
                "The gradient has the wrong structure: expected the two (dparams, dx), "
                f"got {kind_of(result)}{count}.",
            )
        dparams, dx = result
        trainable, constant = split_running(dparams)
        _check_zero(constant)
        return {"params": trainable, "x": dx}

    return Claim(op, {"params": trained, "x": x}, forward, claimed, running)


def _check_zero(running: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(running):
        if not isinstance(leaf, jax.core.Tracer) and np.any(np.asarray(leaf)):
            name = "params" + jax.tree_util.keystr(path)
            raise WrongForm(
                name,
                f"The gradient with respect to {name} is wrong: expected 0, as running statistics "
                f"are not trained, got {np.asarray(leaf).ravel()[:3]}.",
            )


def _of_loss(
    op: Loss, prediction: PyTree, target: Array, weights: AnyArray | None, backward: Backward
) -> Claim:
    def forward(point: PyTree) -> tuple[PyTree, Cache]:
        return op.forward(point["prediction"], target, weights)

    def claimed(point: PyTree, cache: Cache, dy: PyTree) -> PyTree:
        dprediction = backward(cache)
        if not is_array(dprediction):
            raise WrongForm(
                "",
                "The gradient has the wrong structure: expected an array, "
                f"got {kind_of(dprediction)}.",
            )
        return {"prediction": (dy * dprediction).astype(dprediction.dtype)}

    return Claim(op, {"prediction": prediction}, forward, claimed)


# ── Comparing ───────────────────────────────────────────────────────────────────────────────────

FLOOR = 1e-3  # of the whole gradient's norm: the error of a smaller leaf is divided by this instead


def relative_errors(claimed: Leaves, reference: Leaves) -> list[float]:
    """Return the relative error of each leaf in norm.

    The error of a leaf that is nearly 0 is relative to the norm of the whole gradient.
    """
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(claimed, reference, strict=True)
    ]
    norm_of_all = float(np.sqrt(sum((b**2).sum() for _, b in pairs)))
    return [_ratio(a, b, norm_of_all) for a, b in pairs]


def _ratio(a: np.ndarray, b: np.ndarray, norm_of_all: float) -> float:
    error, scale = np.linalg.norm(a - b), max(float(np.linalg.norm(b)), FLOOR * norm_of_all)
    return float(error / scale) if scale > 0 else float(error)


def is_float(leaf: ArrayLike) -> bool:
    """Return whether an array has a floating-point dtype."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Cast the floating-point leaves of a tree, and convert the others to arrays."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype) if is_float(leaf) else jnp.asarray(leaf), tree
    )
