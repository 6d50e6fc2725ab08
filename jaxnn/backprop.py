"""Gradients of a network and a loss, by the hand-derived rules or by JAX's own differentiation.

``method="hand"`` runs the backward passes written in this library; ``method="auto"`` runs
``jax.grad`` over the very same ``forward``. Both return the same numbers, so that each of the two
confirms the other.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import (
    check_bool,
    check_choice,
    check_finite,
    check_key,
    check_not_empty,
    check_same_length,
    check_weights,
    is_array,
    is_concrete,
    is_kind,
)
from jaxnn.compose import Sequential
from jaxnn.conversion import as_arrays
from jaxnn.layers import LogSoftmax, Sigmoid, Softmax
from jaxnn.numerics import upcast
from jaxnn.parameters import check_gradient, fitting
from jaxnn.programs import Programs, compiled
from jaxnn.types import AnyArray, Layer, Loss, Params, Static, check_input, update_running
from jaxnn.values import check_layer, check_network

Method = Literal["hand", "auto"]


@dataclasses.dataclass(frozen=True)
class ValueAndGrad:
    """The function that :func:`value_and_grad` returns; equal settings make equal functions."""

    net: Layer
    loss: Loss
    method: Method
    check: bool = True

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
            target: the values with which the loss compares the predictions.
            weights: the weight of each sample, (B,), or None for equal weights. Where all are 0,
                no sample counts, and J and its gradient are 0.
            key: a PRNG key for training mode (dropout), or None.

        Raises:
            InputError: for arrays that do not fit the network or the loss; and, outside of ``jit``,
                for values that are not finite or labels outside the loss's domain.
        """
        x, target = (
            as_arrays("value_and_grad", "x", x),
            as_arrays("value_and_grad", "target", target),
        )
        if key is not None:
            check_key("value_and_grad", key)
        value, dparams, prediction = _value_and_grad(
            self.net, self.loss, self.method, params, x, target, weights, key
        )
        if self.check:  # now, while the program runs
            self._check_values(prediction.value.tree, x, target, weights)
            if getattr(self.loss, "bounded", False) and is_concrete(value) and jnp.isnan(value):
                self.loss.check(self.net.forward(params, x, key)[0], target)
        return value, dparams

    def _check_values(
        self, prediction: PyTree, x: PyTree, target: AnyArray, weights: AnyArray | None
    ) -> None:
        """Check what is unknown inside of a compiled program: values of labels, tokens, lengths.

        Where an outer program is compiled, what is traced in it is not checked.
        """
        check_finite("value_and_grad", "x", x)
        check_finite("value_and_grad", "target", target)
        check_input(self.net, x)
        self.loss.check(prediction, target)
        if weights is not None:
            check_weights("value_and_grad", weights)


@dataclasses.dataclass(frozen=True)
class Grad:
    """The function that :func:`grad` returns; equal settings make equal functions."""

    value_and_grad: ValueAndGrad

    def __call__(self, *batch: Any, **options: Any) -> Params:
        """Return dJ/dθ; the arguments are those of :class:`ValueAndGrad`."""
        return self.value_and_grad(*batch, **options)[1]


def warn_of_probabilities(who: str, net: Layer, loss: Loss) -> None:
    """Warn if a network ends with a softmax or a sigmoid, and the loss applies one itself."""
    last = net
    while isinstance(last, Sequential) and last.layers:
        last = last.layers[-1]
    if getattr(loss, "takes_logits", False) and isinstance(last, Softmax | LogSoftmax | Sigmoid):
        warnings.warn(
            f"{who}: the network ends with {last}, but {loss} takes the numbers before it, the "
            f"logits. Leave {last} out.",
            stacklevel=3,
        )


def value_and_grad(
    net: Layer, loss: Loss, method: Method = "hand", *, check: bool = True
) -> ValueAndGrad:
    """Make the compiled function ``(params, x, target) -> (J, dJ/dθ)``.

    Args:
        net: a layer or network.
        loss: a loss.
        method: "hand" for the derived backward passes, "auto" for ``jax.grad`` of the forward ones.
        check: whether to check the values of each batch. Shapes are always checked, once for each
            new shape.

    Raises:
        InputError: if ``net`` is not a layer, ``loss`` not a loss, or ``method`` is unknown.
    """
    check_network("value_and_grad", net, loss)
    check_choice("value_and_grad", "method", method, ("hand", "auto"))
    check_bool("value_and_grad", "check", check)
    warn_of_probabilities("value_and_grad", net, loss)
    return ValueAndGrad(net, loss, method, check)


def grad(net: Layer, loss: Loss, method: Method = "hand", *, check: bool = True) -> Grad:
    """Make the function ``(params, x, target) -> dJ/dθ``.

    It is :func:`value_and_grad` without the value; arguments and errors are the same.
    """
    return Grad(value_and_grad(net, loss, method, check=check))


def apply(net: Layer, params: Params, x: PyTree, key: PRNGKeyArray | None = None) -> PyTree:
    """Run ``net`` forward so that JAX differentiates it by its hand-derived backward pass.

    This function serves networks inside of your own differentiated code: ``jax.grad`` of a
    function that calls it uses ``net.backward``. This holds for first derivatives only: there is no
    hand-derived rule for the derivative of ``net.backward`` itself.

    Args:
        net: a layer or network.
        params: its parameters.
        x: inputs, batch first.
        key: a PRNG key for training mode, or None.

    Returns:
        The output, like ``net.forward(params, x, key)[0]``.

    Raises:
        InputError: for parameters or an input that do not fit the network.
    """
    check_layer("apply", net)
    x = as_arrays("apply", "x", x)
    if key is not None:
        check_key("apply", key)
    check_input(net, x)
    return _apply_program(net, params, x, key)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(net: Layer, params: Params, x: PyTree, key: PRNGKeyArray | None) -> PyTree:
    with fitting("apply", net, params, x):
        return net.forward(params, x, key)[0]


def _apply_forward(
    net: Layer, params: Params, x: PyTree, key: PRNGKeyArray | None
) -> tuple[PyTree, Any]:
    y, cache = net.forward(params, x, key)
    return y, (params, cache)


def _apply_backward(net: Layer, residuals: Any, dy: PyTree) -> tuple[Params, PyTree, None]:
    params, cache = residuals
    dparams, dx = net.backward(params, cache, dy)
    return dparams, dx, None  # None because a key has no derivative; dx is None for an integer x


_apply.defvjp(_apply_forward, _apply_backward)
# compiled as one program, as running it layer by layer would compile dozens
_apply_program = Programs(_apply, settings=1)


# ── The two routes to the same gradient ─────────────────────────────────────────────────────────


class Pass(NamedTuple):
    """One forward and one backward pass.

    Attributes:
        value: J, a scalar.
        dparams: dJ/dθ, with the structure of the parameters.
        params: the parameters, with running statistics updated from this batch.
        prediction: the network's output.
    """

    value: Array
    dparams: Params
    params: Params
    prediction: PyTree


Route = Callable[..., Pass]


def backpropagation(method: Method) -> Route:
    """Return the function of a method, of those below."""
    return by_hand if method == "hand" else by_autodiff


def by_hand(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: AnyArray,
    weights: AnyArray | None,
    key: PRNGKeyArray | None,
    scale: Array | None = None,
) -> Pass:
    """Compute the forward pass, and the backward pass by the hand-derived rules.

    The loss is computed in float32 at least. With a ``scale``, the gradient is that of scale · J.
    """
    prediction, cache = net.forward(params, x, key)
    value, loss_cache = loss.forward(_upcast(prediction), target, weights)
    dprediction = _scaled(loss.backward(loss_cache), scale)
    dprediction = jax.tree.map(lambda d, y: d.astype(y.dtype), dprediction, prediction)
    dparams, _ = net.backward(params, cache, dprediction)
    check_gradient(net, params, dparams)
    return Pass(value, dparams, update_running(net, params, cache), prediction)


def by_autodiff(
    net: Layer,
    loss: Loss,
    params: Params,
    x: PyTree,
    target: AnyArray,
    weights: AnyArray | None,
    key: PRNGKeyArray | None,
    scale: Array | None = None,
) -> Pass:
    """Compute the forward pass, and the gradient by JAX's differentiation of this same pass."""

    def objective(params: Params) -> tuple[Array, tuple[Array, Params, PyTree]]:
        prediction, cache = net.forward(params, x, key)
        value, _ = loss.forward(_upcast(prediction), target, weights)
        return _scaled(value, scale), (value, update_running(net, params, cache), prediction)

    (_, (value, params, prediction)), dparams = jax.value_and_grad(objective, has_aux=True)(params)
    return Pass(value, dparams, params, prediction)


def _upcast(prediction: PyTree) -> PyTree:
    """Return a prediction in float32 at least; a loss says itself that it takes only one array."""
    is_floating = is_array(prediction) and is_kind(prediction, jnp.floating)
    return upcast(prediction) if is_floating else prediction


def _scaled(value: PyTree, scale: Array | None) -> PyTree:
    return value if scale is None else jax.tree.map(lambda d: d * scale.astype(d.dtype), value)


class _Output(NamedTuple):
    """The shape and dtype of a network's output, in a hashable form."""

    structure: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]

    @property
    def tree(self) -> PyTree:
        return jax.tree.unflatten(self.structure, self.leaves)


@compiled(settings=3)
def _value_and_grad(
    net: Layer,
    loss: Loss,
    method: Method,
    params: Params,
    x: PyTree,
    target: AnyArray,
    weights: AnyArray | None,
    key: PRNGKeyArray | None,
) -> tuple[Array, Params, Static[_Output]]:
    check_lengths_alike(x, target)
    with fitting("value_and_grad", net, params, x):
        done = backpropagation(method)(net, loss, params, x, target, weights, key)
    leaves, structure = jax.tree.flatten(done.prediction)
    specs = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    return done.value, done.dparams, Static(_Output(structure, specs))


def check_lengths_alike(x: PyTree, target: AnyArray) -> None:
    """Check that there is at least one sample, and that there are as many targets as samples."""
    rows = jax.tree.leaves(x)[0]
    check_not_empty("value_and_grad", "x", rows)
    check_same_length("value_and_grad", x=rows, target=target)
