"""From a network and a loss to gradients: by the hand-derived rules, or by JAX's own.

``method="hand"`` runs the backward passes written in this library; ``method="auto"`` runs
``jax.grad`` over the very same ``forward``. Both give the same numbers, which is the point.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_choice,
    check_finite,
    check_not_empty,
    check_same_length,
    is_concrete,
)
from jaxnn.types import AnyArray, Layer, Loss, Params, advance, check_input

Method = Literal["hand", "auto"]


@dataclasses.dataclass(frozen=True)
class ValueAndGrad:
    """What :func:`value_and_grad` returns: a function, equal to any other of the same making."""

    net: Layer
    loss: Loss
    method: Method

    def __call__(
        self,
        params: Params,
        x: PyTree,
        target: AnyArray,
        weights: AnyArray | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, ""], Params]:
        """Return J and dJ/dθ, shaped like ``params``, for one batch.

        Args:
            params: the parameters θ of the network.
            x: inputs, batch first.
            target: what the loss compares the predictions with.
            weights: how much each sample counts, (B,), or None for all alike.
            key: a PRNG key for training mode (dropout), or None.

        Raises:
            InputError: for arrays that do not fit the network or the loss; and, outside of ``jit``,
                for values that are not finite or labels outside the loss's domain.
        """
        x, target = jax.tree.map(jnp.asarray, (x, target))
        if is_concrete(params, x, target, weights):
            _check_batch(self.net, self.loss, params, x, target, key)
        return _value_and_grad(self.method, self.net, self.loss, params, x, target, weights, key)


@dataclasses.dataclass(frozen=True)
class Grad:
    """What :func:`grad` returns: a function, equal to any other of the same making."""

    value_and_grad: ValueAndGrad

    def __call__(self, *batch: Any, **options: Any) -> Params:
        """Return dJ/dθ; the arguments are those of :class:`ValueAndGrad`."""
        return self.value_and_grad(*batch, **options)[1]


def value_and_grad(net: Layer, loss: Loss, method: Method = "hand") -> ValueAndGrad:
    """Make the compiled function ``(params, x, target) -> (J, dJ/dθ)``.

    Args:
        net: a layer or network.
        loss: a loss.
        method: "hand" for the derived backward passes, "auto" for ``jax.grad`` of the forward ones.

    Raises:
        InputError: if ``net`` is not a layer, ``loss`` not a loss, or ``method`` is unknown.
    """
    if not isinstance(net, Layer):
        raise InputError(f"value_and_grad: expected net to be a layer, got {net!r}.")
    if not isinstance(loss, Loss):
        raise InputError(f"value_and_grad: expected loss to be a loss, got {loss!r}.")
    check_choice("value_and_grad", "method", method, ("hand", "auto"))
    return ValueAndGrad(net, loss, method)


def grad(net: Layer, loss: Loss, method: Method = "hand") -> Grad:
    """Make the function ``(params, x, target) -> dJ/dθ``: :func:`value_and_grad` without the value."""
    return Grad(value_and_grad(net, loss, method))


def apply(net: Layer, params: Params, x: PyTree, key: PRNGKeyArray | None = None) -> PyTree:
    """Run ``net`` forward so that JAX differentiates it by its hand-derived backward pass.

    The bridge for networks inside your own differentiated code: ``jax.grad`` of a function that
    calls this uses ``net.backward`` (once: the rule is not itself differentiated twice).

    Args:
        net: a layer or network.
        params: its parameters.
        x: inputs, batch first.
        key: a PRNG key for training mode, or None.

    Returns:
        The output, like ``net.forward(params, x, key)[0]``.
    """
    check_input(net, x)
    return _apply_program(net, params, x, key)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(net: Layer, params: Params, x: PyTree, key: Any) -> PyTree:
    return net.forward(params, x, key)[0]


def _apply_forward(net: Layer, params: Params, x: PyTree, key: Any) -> tuple[PyTree, Any]:
    y, cache = net.forward(params, x, key)
    return y, (params, cache)


def _apply_backward(net: Layer, residuals: Any, dy: PyTree) -> tuple[Params, PyTree, None]:
    params, cache = residuals
    dparams, dx = net.backward(params, cache, dy)
    return dparams, dx, None  # None: a key has no derivative, nor has an integer x


_apply.defvjp(_apply_forward, _apply_backward)
_apply_program = jax.jit(_apply, static_argnums=0)  # one program, where layer by layer would compile dozens


# ── The two routes to the same gradient ─────────────────────────────────────────────────────────


class Pass(NamedTuple):
    """One forward and one backward pass.

    Attributes:
        value: J, a scalar.
        dparams: dJ/dθ, like the parameters.
        params: the parameters, their running statistics moved on by this batch.
    """

    value: Array
    dparams: Params
    params: Params


def run_pass(
    method: Method, net: Layer, loss: Loss, params: Params, x: PyTree, target: AnyArray, weights: Any, key: Any
) -> Pass:
    """Go forward and backward once, by either route: what training repeats."""
    return {"hand": _by_hand, "auto": _by_autodiff}[method](net, loss, params, x, target, weights, key)


def _by_hand(net: Layer, loss: Loss, params: Params, x: PyTree, target: AnyArray, weights: Any, key: Any) -> Pass:
    prediction, cache = net.forward(params, x, key)
    value, loss_cache = loss.forward(prediction, target, weights)
    dprediction = loss.backward(loss_cache)
    dparams, _ = net.backward(params, cache, dprediction)
    return Pass(value, dparams, advance(net, params, cache))


def _by_autodiff(net: Layer, loss: Loss, params: Params, x: PyTree, target: AnyArray, weights: Any, key: Any) -> Pass:
    def objective(params: Params) -> tuple[Array, Params]:
        prediction, cache = net.forward(params, x, key)
        return loss.forward(prediction, target, weights)[0], advance(net, params, cache)

    (value, params), dparams = jax.value_and_grad(objective, has_aux=True)(params)
    return Pass(value, dparams, params)


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grad(method: Method, net: Layer, loss: Loss, *batch: Any) -> tuple[Array, Params]:
    value, dparams, _ = run_pass(method, net, loss, *batch)
    return value, dparams


def _check_batch(net: Layer, loss: Loss, params: Params, x: PyTree, target: AnyArray, key: Any) -> None:
    """Check the values of a batch, before they enter a compiled program and cannot be seen."""
    rows = jax.tree.leaves(x)[0]
    check_not_empty("value_and_grad", "x", rows)
    check_same_length("value_and_grad", x=rows, target=target)
    check_finite("value_and_grad", "x", x)
    check_input(net, x)
    check_finite("value_and_grad", "target", target)
    loss.check(_apply_program.eval_shape(net, params, x, key), target)
