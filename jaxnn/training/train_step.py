"""One step of training as a pure function, and the state that it takes on."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.backprop import Method, run_pass
from jaxnn.checks import InputError, check_choice, check_key
from jaxnn.training.batching import Batch
from jaxnn.training.optimizers import as_transformation, first_state
from jaxnn.types import Layer, Loss, Params, join_running, split_running

PRECISIONS = ("bfloat16",)


class TrainState(NamedTuple):
    """Everything that a step of training reads and writes: a pytree.

    Attributes:
        params: the parameters of the network, running statistics among them.
        opt_state: the state of the optimizer, for the trained parameters.
        key: the PRNG key of the run; step number i draws from ``fold_in(key, i)``.
        step: how many steps were made, an int32 scalar.
    """

    params: Params
    opt_state: PyTree
    key: PRNGKeyArray
    step: Array


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """What :func:`train_step` returns: the function ``(state, batch) -> (state, metrics)``."""

    net: Layer
    loss: Loss
    optimizer: optax.GradientTransformation
    method: Method
    precision: str | None

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        """Make one step.

        Args:
            state: before it.
            batch: (x, target) or (x, target, weights).

        Returns:
            The state after it, and the metrics {"loss": J before the step}.
        """
        batch = jax.tree.map(jnp.asarray, Batch(*batch))
        trained, running = split_running(state.params)
        params, x = join_running(self._cast(trained), running), self._cast(batch.x)
        key = jax.random.fold_in(state.key, state.step)
        done = run_pass(self.method, self.net, self.loss, params, x, batch.target, batch.weights, key)

        gradient = jax.tree.map(lambda d, p: d.astype(p.dtype), split_running(done.dparams)[0], trained)
        update = optax.with_extra_args_support(self.optimizer).update
        updates, opt_state = update(gradient, state.opt_state, trained, value=done.value, grad=gradient)
        trained = optax.apply_updates(trained, updates)
        params = join_running(trained, split_running(done.params)[1])
        return TrainState(params, opt_state, state.key, state.step + 1), {"loss": done.value}

    def _cast(self, tree: PyTree) -> PyTree:
        """Compute in the precision asked for; the optimizer always sees the full one."""
        if self.precision is None:
            return tree
        is_floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda leaf: leaf.astype(self.precision) if is_floating(leaf) else leaf, tree)


def train_step(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    method: Method = "hand",
    precision: str | None = None,
) -> TrainStep:
    """Make the pure function ``(state, batch) -> (state, metrics)``: for a loop of your own.

    It holds no state, and goes through ``jax.jit``, ``lax.scan`` and ``vmap``; ``fit`` is built on it.
    The network runs in training mode. The state before the first step is made by :func:`init_state`.

    Args:
        net: a layer or network.
        loss: a loss.
        optimizer: any of optax, MultiSteps too; it is given the trained parameters alone, without running statistics,
            and the value and gradient as extra arguments.
        method: "hand" for the derived backward passes, "auto" for ``jax.grad``.
        precision: "bfloat16" to run forward and backward passes in it, while parameters, optimizer and
            running statistics keep theirs; None to compute in the parameters' own.

    Raises:
        InputError: for what is not a layer, a loss, an optimizer, a method or a precision.
    """
    if not isinstance(net, Layer):
        raise InputError(f"train_step: expected net to be a layer, got {net!r}.")
    if not isinstance(loss, Loss):
        raise InputError(f"train_step: expected loss to be a loss, got {loss!r}.")
    check_choice("train_step", "method", method, ("hand", "auto"))
    if precision is not None:
        check_choice("train_step", "precision", precision, PRECISIONS)
    return TrainStep(net, loss, as_transformation("train_step", optimizer), method, precision)


def init_state(
    net: Layer, optimizer: optax.GradientTransformation, x: PyTree, key: PRNGKeyArray, params: Params = None
) -> TrainState:
    """Make the state before the first step.

    Args:
        net: a layer or network.
        optimizer: any of optax.
        x: an example batch, or its ShapeDtypeStruct.
        key: a PRNG key; the parameters are drawn from it, and the run's own key is derived from it.
        params: parameters to start from, instead of new ones.

    Raises:
        InputError: if the key is not one, or x does not fit the network.
    """
    check_key("init_state", key)
    optimizer = as_transformation("init_state", optimizer)
    init_key, run_key = jax.random.split(key)
    params = net.init(init_key, x) if params is None else jax.tree.map(jnp.array, params)
    trained = split_running(params)[0]
    return TrainState(params, first_state(optimizer, trained), run_key, jnp.zeros((), jnp.int32))
