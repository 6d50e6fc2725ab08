"""The precision of training: that of the passes, of matrix products, and the scale of the loss."""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from jaxnn.checks import InputError, check_choice, check_positive, check_positive_int
from jaxnn.numerics import cast_floating
from jaxnn.training.optimizers import as_transformation
from jaxnn.types import Kept


class Precision(NamedTuple):
    """The dtype of both passes, and the precision of matrix products in it.

    Accelerators multiply float32 in fewer digits if they are allowed to; JAX allows it by default.
    """

    dtype: str
    products: str | None


PRECISIONS = {
    "bfloat16": Precision("bfloat16", None),
    "float16": Precision("float16", None),
    "tf32": Precision("float32", "tensorfloat32"),
    "float32": Precision("float32", "float32"),
    "float64": Precision("float64", "float32"),  # the highest: all digits
}


def check_precision(who: str, precision: Any) -> None:
    """Check that a precision is None or one of the known ones, and that JAX is set to have it."""
    if precision is None:
        return
    check_choice(who, "precision", precision, tuple(PRECISIONS))
    if jax.dtypes.canonicalize_dtype(PRECISIONS[precision].dtype) != PRECISIONS[precision].dtype:
        raise InputError(
            f"{who}: expected a precision that JAX is set to have, got float64: set "
            'jax.config.update("jax_enable_x64", True) at the beginning.'
        )


def in_precision(tree: PyTree, precision: str | None) -> PyTree:
    """Cast the floating arrays of a tree, except for those that keep their own precision."""
    if precision is None:
        return tree
    dtype = PRECISIONS[precision].dtype
    is_kept = lambda node: isinstance(node, Kept)  # noqa: E731
    return jax.tree.map(
        lambda node: node if is_kept(node) else cast_floating(node, dtype), tree, is_leaf=is_kept
    )


def products_in(precision: str | None) -> contextlib.AbstractContextManager[Any]:
    """Let matrix products have this precision, while a program is traced."""
    products = None if precision is None else PRECISIONS[precision].products
    return jax.default_matmul_precision(products) if products else contextlib.nullcontext()


# ── The scale of the loss, for float16 ──────────────────────────────────────────────────────────

LARGEST = 2.0**24  # beyond this, the derivative of a loss is no longer a number of float16


class ScaledState(NamedTuple):
    """The state of an optimizer with loss scaling.

    Attributes:
        inner: the state of the optimizer itself.
        scale: the factor of the loss, a float32 scalar.
        good: the number of steps since the scale was changed.
    """

    inner: PyTree
    scale: Array
    good: Array


def loss_scaling(
    optimizer: optax.GradientTransformation, *, initial: float = 2.0**15, period: int = 2000
) -> optax.GradientTransformationExtraArgs:
    """Add dynamic loss scaling to an optimizer, for training in float16.

    ::

        nn.fit(net, loss, nn.loss_scaling(optax.adam(1e-3)), data, precision="float16", ...)

    Small derivatives are 0 in float16, whose smallest number is 6e-8. Therefore the loss is
    multiplied by a scale before the backward pass, and the gradient is divided by it afterwards, in
    the precision of the parameters. A step whose gradient is not finite is left out, and the scale
    is halved; after ``period`` good steps it is doubled (Micikevicius et al., 2018).

    Args:
        optimizer: any optimizer of optax.
        initial: the scale of the first step.
        period: the number of good steps after which the scale is doubled.

    Raises:
        InputError: for an initial scale that is not above 0, or a period below 1.
    """
    optimizer = as_transformation("loss_scaling", optimizer)
    check_positive("loss_scaling", "initial", initial)
    check_positive_int("loss_scaling", "period", period)
    update_inner = optax.with_extra_args_support(optimizer).update

    def init(params: PyTree) -> ScaledState:
        scale, good = jnp.asarray(initial, jnp.float32), jnp.zeros((), jnp.int32)
        return ScaledState(optimizer.init(params), scale, good)

    def update(
        gradient: PyTree, state: ScaledState, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, ScaledState]:
        gradient = jax.tree.map(lambda d: d / state.scale.astype(d.dtype), gradient)
        leaves = jax.tree.leaves(gradient)
        finite = jnp.stack([jnp.isfinite(d).all() for d in leaves]).all()
        extra = extra | ({"grad": gradient} if "grad" in extra else {})
        updates, inner = update_inner(gradient, state.inner, params, **extra)
        updates = jax.tree.map(lambda u: jnp.where(finite, u, jnp.zeros_like(u)), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner, state.inner)
        full = finite & (state.good + 1 >= period)
        factor = jnp.where(finite, jnp.where(full, 2.0, 1.0), 0.5).astype(jnp.float32)
        good = jnp.where(finite & ~full, state.good + 1, 0)
        scale = jnp.clip(state.scale * factor, np.float32(1), np.float32(LARGEST))
        return updates, ScaledState(inner, scale, good)

    return optax.GradientTransformationExtraArgs(init, update)


def loss_scale(who: str, opt_state: PyTree, precision: str | None) -> Array | None:
    """Return the scale of the loss, or None where there is none.

    Raises:
        InputError: in float16 without loss scaling, or if another optimizer is around it.
    """
    if isinstance(opt_state, ScaledState):
        return opt_state.scale
    is_scaled = lambda node: isinstance(node, ScaledState)  # noqa: E731
    if any(map(is_scaled, jax.tree.leaves(opt_state, is_leaf=is_scaled))):
        raise InputError(
            f"{who}: expected loss_scaling around the whole optimizer, got one inside another."
        )
    if precision == "float16":
        raise InputError(
            f"{who}: expected an optimizer with loss scaling for float16, such as "
            "jaxnn.loss_scaling(optax.adam(1e-3)), got one without."
        )
    return None
