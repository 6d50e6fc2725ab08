"""A layer or a loss at one point, stated as one function of its floating leaves.

Certificates, mutations and diagnoses all ask the same question, "is this the derivative of that?", so
the question is put in one place: leaves by name, the function, and what somebody claims its backward is.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.checks import InputError, check_finite
from jaxnn.types import AnyArray, Layer, Loss, join_running, split_running

Floats = list[Array]


class WrongForm(Exception):  # noqa: N818, a finding more than an error
    """A gradient whose structure, shape or dtype is not that of what it is the gradient of."""

    def __init__(self, leaf: str, message: str) -> None:
        super().__init__(message)
        self.leaf = leaf


@dataclasses.dataclass(frozen=True)
class Claim:
    """What to differentiate, and where.

    Attributes:
        op: the layer or loss.
        point: the tree of what can vary: ``{"params": …, "x": …}`` or ``{"prediction": …}``.
        forward: point -> (y, cache).
        backward: (point, cache, dy) -> the gradient, a tree like ``point`` with None for integers.
    """

    op: Any
    point: PyTree
    forward: Callable[[PyTree], tuple[PyTree, Any]]
    backward: Callable[[PyTree, Any, PyTree], PyTree]

    @property
    def names(self) -> list[str]:
        """The floating leaves' names: ``params[0].w``, ``x``."""
        leaves = jax.tree_util.tree_leaves_with_path(self.point)
        return [
            str(path[0].key) + jax.tree_util.keystr(path[1:])
            for path, leaf in leaves
            if is_float(leaf)
        ]

    @property
    def floats(self) -> Floats:
        """The floating leaves, which are what is differentiated."""
        return [leaf for leaf in jax.tree.leaves(self.point) if is_float(leaf)]

    @property
    def batch(self) -> int:
        """B, the samples in the batch."""
        return int(jax.tree.leaves(self.point.get("x", self.point.get("prediction")))[0].shape[0])

    def at(self, floats: Floats) -> PyTree:
        """Give the point with other floating leaves."""
        given, (leaves, structure) = iter(floats), jax.tree.flatten(self.point)
        return jax.tree.unflatten(
            structure, [next(given) if is_float(leaf) else leaf for leaf in leaves]
        )

    def value(self, floats: Floats) -> PyTree:
        """Compute y."""
        return self.forward(self.at(floats))[0]

    def autodiff(self, floats: Floats, dy: PyTree) -> Floats:
        """Differentiate by ``jax.vjp`` of the forward."""
        return jax.vjp(self.value, floats)[1](dy)[0]

    def by_hand(self, floats: Floats, dy: PyTree, cache: Any = None) -> Floats:
        """Run the backward, with the forward's cache or another, and check the form of what it gives.

        Raises:
            WrongForm: for a gradient of another structure, shape or dtype.
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
                    f"The gradient with respect to {name} has the wrong type: expected {leaf.dtype}{list(leaf.shape)}, "
                    f"got {jnp.result_type(d)}{list(jnp.shape(d))}.",
                )
        return leaves

    def random_dy(self, random: np.random.Generator) -> PyTree:
        """Draw a cotangent: never ones, against which the true gradient of a softmax is 0."""
        y = jax.eval_shape(self.value, self.floats)
        return jax.tree.map(
            lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), y
        )


def state_claim(
    who: str,
    op: Any,
    x: PyTree,
    target: AnyArray | None = None,
    *,
    params: PyTree = None,
    weights: AnyArray | None = None,
    key: PRNGKeyArray | None = None,
    backward: Callable[..., Any] | None = None,
    dtype: Any = jnp.float64,
    seed: int = 0,
) -> Claim:
    """State a layer or a loss as a claim; call it where float64 is enabled.

    Args:
        who: the function that the user called, for its errors.
        op: a layer, a network or a loss.
        x: an example batch; for a loss, the predictions.
        target: for a loss, the targets.
        params: the layer's parameters; by default drawn and jittered, so that no bias is 0 and no gain 1.
        weights: for a loss, the sample weights.
        key: a PRNG key for training mode.
        backward: somebody's own, in the place of ``op.backward``.
        dtype: to cast everything floating to.
        seed: of the parameters.

    Raises:
        InputError: if ``op`` is neither a layer nor a loss, ``x`` is not finite, or a loss has no target.
    """
    check_finite(who, "x", x)
    if not isinstance(op, Layer | Loss):
        raise InputError(f"{who}: expected a layer or a loss, got {op!r}.")
    backward = backward or functools.partial(_own_backward, op)
    if isinstance(op, Layer):
        return _of_layer(op, cast(x, dtype), params, key, backward, dtype, seed)
    if target is None:
        raise InputError(f"{who}: expected a target for the loss {op!r}, got none.")
    return _of_loss(op, cast(x, dtype), jnp.asarray(target), weights, backward)


def _own_backward(op: Any, *arguments: Any) -> Any:
    return op.backward(
        *arguments
    )  # looked up when it runs, so that a mutation planted later is seen


def _of_layer(
    op: Layer, x: PyTree, params: PyTree, key: Any, backward: Any, dtype: Any, seed: int
) -> Claim:
    if params is None:
        random = np.random.default_rng(seed)
        params = jax.tree.map(
            lambda p: np.asarray(p) + 0.1 * random.standard_normal(p.shape),
            op.init(jax.random.key(seed), x),
        )
    trained, running = split_running(
        cast(params, dtype)
    )  # running statistics are constants to a gradient

    def forward(point: Any) -> tuple[PyTree, Any]:
        return op.forward(join_running(point["params"], running), point["x"], key)

    def claimed(point: Any, cache: Any, dy: PyTree) -> PyTree:
        dparams, dx = backward(join_running(point["params"], running), cache, dy)
        return {"params": split_running(dparams)[0], "x": dx}

    return Claim(op, {"params": trained, "x": x}, forward, claimed)


def _of_loss(op: Loss, prediction: PyTree, target: Array, weights: Any, backward: Any) -> Claim:
    def forward(point: Any) -> tuple[PyTree, Any]:
        return op.forward(point["prediction"], target, weights)

    def claimed(point: Any, cache: Any, dy: PyTree) -> PyTree:
        dprediction = backward(cache)
        return {"prediction": (dy * dprediction).astype(dprediction.dtype)}

    return Claim(op, {"prediction": prediction}, forward, claimed)


# ── Comparing ───────────────────────────────────────────────────────────────────────────────────

FLOOR = 1e-3  # of the whole gradient's norm: a leaf far smaller is judged against this


def relative_errors(claimed: Any, reference: Any) -> list[float]:
    """Give each leaf's relative error in norm; a leaf that is nearly 0 is judged against the whole gradient."""
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(claimed, reference, strict=True)
    ]
    norm_of_all = float(np.sqrt(sum((b**2).sum() for _, b in pairs)))
    return [_ratio(a, b, norm_of_all) for a, b in pairs]


def _ratio(a: np.ndarray, b: np.ndarray, norm_of_all: float) -> float:
    error, scale = np.linalg.norm(a - b), max(float(np.linalg.norm(b)), FLOOR * norm_of_all)
    return float(error / scale) if scale > 0 else float(error)


def is_float(leaf: Any) -> bool:
    """Whether an array has a floating dtype."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def cast(tree: PyTree, dtype: Any) -> PyTree:
    """Cast the floating leaves, and make arrays of the others."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype) if is_float(leaf) else jnp.asarray(leaf), tree
    )
