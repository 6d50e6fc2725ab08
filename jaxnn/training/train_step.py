"""One step of training as a pure function, and the state that it updates."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.backprop import Method, backpropagation, warn_of_probabilities
from jaxnn.checks import InputError, check_choice, check_finite, check_key
from jaxnn.conversion import as_example
from jaxnn.gradcheck.not_finite import NanReport, explain_nan, explain_update
from jaxnn.parameters import check_fit
from jaxnn.programs import compiled
from jaxnn.training.batching import Batch, as_batch
from jaxnn.training.collected_blocks import collected
from jaxnn.training.constant_hoisting import Program
from jaxnn.training.layout import Layout
from jaxnn.training.optimizers import (
    Constants,
    OptaxUpdate,
    Update,
    as_transformation,
    first_state,
    hoisted,
    init_program,
    state_shapes,
    warn_of_ascent,
)
from jaxnn.training.placement import placed_like, with_automatic_axes
from jaxnn.training.precision import check_precision, in_precision, loss_scale, products_in
from jaxnn.types import Layer, Loss, Params, join_running, split_running
from jaxnn.values import check_layer, check_network


class TrainState(NamedTuple):
    """Everything that a step of training reads and writes, as a pytree.

    Attributes:
        params: the parameters of the network, including running statistics.
        opt_state: the state of the optimizer, for the trained parameters.
        key: the PRNG key of the run; step number i draws from ``fold_in(key, i)``.
        step: the number of steps made so far, an int32 scalar.
    """

    params: Params
    opt_state: PyTree
    key: PRNGKeyArray
    step: Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["constants"],
    meta_fields=["net", "loss", "update", "method", "precision", "layout"],
)
@dataclasses.dataclass(frozen=True)
class TrainStep:
    """The function ``(state, batch) -> (state, metrics)`` that :func:`train_step` returns.

    It is a pytree whose only leaves are the optimizer's constants. When :func:`train_step` makes
    it, it has no leaves, and the constants are part of the program; :meth:`hoist` takes them out.

    Attributes:
        net: the network.
        loss: its objective.
        update: the update of the optimizer, a function of constants, gradient, opt_state, params
            and value that returns ``(updates, opt_state)``.
        method: the method by which the gradient is computed, "hand" or "auto".
        precision: the precision of the forward and backward passes, or None for that of the
            parameters.
        constants: the optimizer's floating-point constants, such as the learning rate.
        layout: the division of batch and parameters among many devices, or None.
    """

    net: Layer
    loss: Loss
    update: Update
    method: Method
    precision: str | None
    constants: tuple[Any, ...] = ()
    layout: Layout | None = None

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        """Make one step.

        Args:
            state: the state before the step.
            batch: (x, target) or (x, target, weights).

        Returns:
            The state after the step, and the metrics {"loss": J before the step}.

        Raises:
            InputError: for a state or a batch of another form.
        """
        if not isinstance(state, TrainState):
            kind = type(state).__name__
            raise InputError(f"train_step: expected state to be a TrainState, got a {kind}.")
        if isinstance(self.update, OptaxUpdate):
            check_state("train_step", self.update.optimizer, state)
        batch = jax.tree.map(jnp.asarray, as_batch("train_step", batch))
        if self.layout is not None:
            batch = self.layout.divide(batch)
        scale = loss_scale("train_step", state.opt_state, self.precision)
        trained, running = split_running(state.params)
        params, x = join_running(self._cast(trained), running), self._cast(batch.x)
        key = jax.random.fold_in(state.key, state.step)
        forward_and_backward = backpropagation(self.method)
        with (
            products_in(self.precision),
            collected(self.layout, self.net, params, x, key) as (net, params),
        ):
            done = forward_and_backward(
                net, self.loss, params, x, batch.target, batch.weights, key, scale
            )

        gradient = jax.tree.map(
            lambda d, p: d.astype(p.dtype), split_running(done.dparams)[0], trained
        )
        if self.layout is not None:
            gradient = self.layout.keep(gradient)
        updates, opt_state = self.update(
            self.constants, gradient, state.opt_state, trained, done.value
        )
        trained = optax.apply_updates(trained, updates)
        # done.params has the updated running statistics, which the optimizer never sees
        params = join_running(trained, split_running(done.params)[1])
        if self.layout is not None:
            params = self.layout.keep(params)
        return TrainState(params, opt_state, state.key, state.step + 1), {"loss": done.value}

    def hoist(self, who: str, state: TrainState) -> "TrainStep":
        """Return this step with the optimizer's constants taken out.

        Steps whose optimizers have the same formula then share one compiled program.

        Raises:
            InputError: for an optimizer that needs more than the gradient and the value, or one
                without loss scaling for float16.
        """
        loss_scale(who, state.opt_state, self.precision)
        trained = split_running(state.params)[0]
        if not isinstance(self.update, OptaxUpdate):
            return self  # its constants were taken out before
        update, constants = hoisted(who, self.update, state.opt_state, trained)
        return dataclasses.replace(self, update=update, constants=constants)

    def explain_nan(self, state: TrainState, batch: Batch) -> NanReport:
        """Find the first number of this step that is not finite, see :func:`jaxnn.explain_nan`."""
        trained, running = split_running(state.params)
        params = join_running(self._cast(trained), running)
        key = jax.random.fold_in(state.key, state.step)
        report = explain_nan(
            self.net,
            self.loss,
            params,
            self._cast(batch.x),
            batch.target,
            weights=batch.weights,
            key=key,
        )
        return report if report.found else explain_update(self(state, batch)[0].params)

    def _cast(self, tree: PyTree) -> PyTree:
        """Return a tree in the precision of the passes; the optimizer keeps the full precision."""
        return in_precision(tree, self.precision)


def check_state(who: str, optimizer: Any, state: TrainState) -> None:
    """Check that a state belongs to this optimizer."""
    trained = split_running(state.params)[0]
    expected = state_shapes(as_transformation(who, optimizer), trained)
    given, wanted = (
        [(jax.tree_util.keystr(path), leaf.shape) for path, leaf in leaves]
        for leaves in map(jax.tree_util.tree_leaves_with_path, (state.opt_state, expected))
    )
    if given != wanted:
        raise InputError(
            f"{who}: expected state to be of this optimizer, whose state has {_listed(wanted)}, "
            f"got one that has {_listed(given)}."
        )


def _listed(leaves: list[tuple[str, tuple[int, ...]]]) -> str:
    names = [name for name, _ in leaves]
    return ", ".join(names[:3]) + ", …" * (len(names) > 3) if names else "no arrays"


def place_state(layout: Layout, step: TrainStep, state: TrainState) -> TrainState:
    """Divide a state among devices: the optimizer's numbers lie where their parameters do."""
    params = layout.place(state.params)
    trained = split_running(params)[0]
    places = first_state("fit", step.update.optimizer, trained)  # type: ignore[attr-defined]
    return layout.everywhere(
        TrainState(params, placed_like(places, state.opt_state), state.key, state.step)
    )


def explain_steps(step: TrainStep, state: TrainState, batches: list[Batch]) -> NanReport:
    """Find the first number that is not finite in some steps, one after another."""
    report = NanReport("")
    for batch in batches:
        report = step.explain_nan(state, batch)
        if report.found:
            break
        state, _ = step(state, batch)
    return report


def train_step(
    net: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    method: Method = "hand",
    precision: str | None = None,
) -> TrainStep:
    """Make the pure function ``(state, batch) -> (state, metrics)``, for a loop of your own.

    It holds no state, and can be used with ``jax.jit``, ``lax.scan`` and ``vmap``; ``fit`` is built
    on it. The network runs in training mode. :func:`init_state` makes the state before the first
    step.

    Args:
        net: a layer or network.
        loss: a loss.
        optimizer: any optimizer of optax, including MultiSteps. It receives only the trained
            parameters, without running statistics, and the value and gradient as extra arguments.
        method: "hand" for the derived backward passes, "auto" for ``jax.grad``.
        precision: see :func:`jaxnn.fit`.

    Raises:
        InputError: if an argument is not a layer, a loss, an optimizer, a method or a precision.
    """
    return make_step("train_step", net, loss, optimizer, method, precision)


def make_step(
    who: str, net: Any, loss: Any, optimizer: Any, method: Method, precision: str | None
) -> TrainStep:
    """Make the step of :func:`train_step`, with ``who`` as the caller in errors."""
    check_network(who, net, loss)
    check_choice(who, "method", method, ("hand", "auto"))
    check_precision(who, precision)
    transformation = as_transformation(who, optimizer)
    warn_of_ascent(who, transformation)
    warn_of_probabilities(who, net, loss)
    return TrainStep(net, loss, OptaxUpdate(transformation), method, precision)


def init_state(
    net: Layer,
    optimizer: optax.GradientTransformation,
    x: PyTree,
    key: PRNGKeyArray,
    params: Params = None,
) -> TrainState:
    """Make the state before the first step.

    Args:
        net: a layer or network.
        optimizer: any optimizer of optax.
        x: an example batch, or its ShapeDtypeStruct.
        key: a PRNG key, from which the parameters are drawn and the run's own key is derived.
        params: parameters to start from, instead of new ones.

    Raises:
        InputError: if the key is not one, x does not fit the network, or params are not finite.
    """
    return first_train_state("init_state", net, optimizer, x, key, params)


def one_row(x: PyTree) -> PyTree:
    """Return the shapes of a single row; parameters do not depend on the number of rows."""
    dtype_of = lambda leaf: jax.dtypes.canonicalize_dtype(leaf.dtype)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), dtype_of(leaf)), x)


def first_train_state(
    who: str, net: Layer, optimizer: Any, x: PyTree, key: PRNGKeyArray, params: Params
) -> TrainState:
    """Make the state of :func:`init_state`, with ``who`` as the caller in errors."""
    check_layer(who, net)
    check_key(who, key)
    x = as_example(who, "x", x)
    optimizer = as_transformation(who, optimizer)
    if params is None:
        row = one_row(x)
        shapes = jax.eval_shape(net.init, key, row)
        program, constants = init_program(who, optimizer, split_running(shapes)[0])
        leaves, tree = jax.tree.flatten(row)
        return _drawn_state(net, tuple(leaves), tree, program, constants, key)
    check_fit(who, net, params, x)
    check_finite(who, "params", params)
    params = with_automatic_axes(jax.tree.map(jnp.array, params))
    opt_state = first_state(who, optimizer, split_running(params)[0])
    return TrainState(params, opt_state, jax.random.split(key)[1], jnp.zeros((), jnp.int32))


@compiled(settings=4, runs_once=True)
def _drawn_state(
    net: Layer, leaves: Any, tree: Any, program: Program, constants: Constants, key: PRNGKeyArray
) -> TrainState:
    """Draw the parameters, and make the state before the first step, in one program."""
    init_key, run_key = jax.random.split(key)
    params = net.init(init_key, jax.tree.unflatten(tree, leaves))
    opt_state = program(constants, split_running(params)[0])
    return TrainState(params, opt_state, run_key, jnp.zeros((), jnp.int32))
