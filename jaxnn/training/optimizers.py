"""Optimizers of optax as programs, in which the formula is separate from its constants."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.programs import compiled
from jaxnn.training.constant_hoisting import Program, hoist_constants
from jaxnn.types import Params

Constants = tuple[Any, ...]
# (constants, gradient, opt_state, trained, value) -> (updates, opt_state)
Update = Callable[[Constants, PyTree, PyTree, Params, Any], tuple[PyTree, PyTree]]


def as_transformation(who: str, optimizer: Any) -> optax.GradientTransformation:
    """Return an optimizer of optax as a GradientTransformation, its pair of functions.

    Raises:
        InputError: if it is not an optimizer of optax.
    """
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if callable(optimizer) and getattr(optimizer, "__module__", "").startswith("optax"):
        raise InputError(
            f"{who}: expected an optimizer, got the function that makes it: write "
            f"optax.{optimizer.__name__}(learning_rate)."
        )
    if not isinstance(optimizer, optax.GradientTransformation):
        raise InputError(
            f"{who}: expected optimizer to be an optax.GradientTransformation, "
            f"got {type(optimizer).__name__}."
        )
    return optimizer


@dataclasses.dataclass(frozen=True)
class OptaxUpdate:
    """The update of an optimizer as optax defines it, with its constants inside."""

    optimizer: optax.GradientTransformation

    def __call__(
        self, _: Constants, gradient: PyTree, opt_state: PyTree, trained: Params, value: Any
    ) -> tuple[PyTree, PyTree]:
        """Return the updates of the parameters, and the optimizer's next state.

        The first argument is there because updates whose constants were taken out receive them.
        """
        update = optax.with_extra_args_support(self.optimizer).update
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to the power of a count
            return update(gradient, opt_state, trained, value=value, grad=gradient)


def hoisted(
    who: str, update: OptaxUpdate, opt_state: PyTree, trained: Params
) -> tuple[Program, Constants]:
    """Take the constants out of an update; return its program and its constants.

    Raises:
        InputError: for an optimizer that needs more than the gradient and the value.
    """
    try:
        return _hoist_update(update, *_specs((trained, opt_state)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{who}: expected an optimizer that updates from gradient and value, got: {error}"
        ) from error


def hoisted_init(
    optimizer: optax.GradientTransformation, trained: Params
) -> tuple[Program, Constants]:
    """Take the constants out of the function ``trained -> opt_state`` of an optimizer."""
    return _hoist_init(optimizer, *_specs(trained))


def init_program(
    who: str, optimizer: optax.GradientTransformation, trained: Params
) -> tuple[Program, Constants]:
    """Return :func:`hoisted_init` for the trained parameters, or for their shapes.

    Raises:
        InputError: for an optimizer that does not take them.
    """
    try:
        return hoisted_init(optimizer, trained)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{who}: expected an optimizer that takes these parameters, "
            f"got {type(error).__name__}: {error}"
        ) from error


def first_state(who: str, optimizer: optax.GradientTransformation, trained: Params) -> PyTree:
    """Return the optimizer's state before the first step, for the trained parameters.

    Raises:
        InputError: for an optimizer that does not take them.
    """
    return _run(*init_program(who, optimizer, trained), trained)


def state_shapes(optimizer: optax.GradientTransformation, trained: Params) -> PyTree:
    """Return the shapes and dtypes of the optimizer's state for the trained parameters."""
    return _state_shapes(optimizer, *_specs(trained))


def warn_of_ascent(who: str, optimizer: optax.GradientTransformation) -> None:
    """Warn of an optimizer whose first update has the sign of the gradient.

    Such are ``optax.clip(1.0)`` or ``optax.scale_by_adam()`` alone: their updates are added to the
    parameters, so that the loss rises. The update is tried on two numbers.

    Warns:
        UserWarning: for such an optimizer.
    """
    two = jax.ShapeDtypeStruct((2,), np.float32)
    try:
        init, first = hoisted_init(optimizer, two)
        state = _state_shapes(optimizer, *_specs(two))
        update, constants = _hoist_update(OptaxUpdate(optimizer), *_specs((two, state)))
        climbs = float(_first_update(init, update, first, constants)) > 0
    except Exception:  # it takes only parameters of a certain form, which these are not
        return
    if climbs:
        warnings.warn(
            f"{who}: the updates of this optimizer have the sign of the gradient, so that the loss "
            "rises; an optax.scale(-learning_rate) seems to be missing.",
            stacklevel=4,
        )


@compiled(settings=2, runs_once=True)
def _first_update(init: Program, update: Program, first: Constants, constants: Constants) -> Any:
    """Return the sum of the first update of two parameters for a gradient of ones."""
    zeros, ones = jnp.zeros(2, np.float32), jnp.ones(2, np.float32)
    return update(constants, ones, init(first, zeros), zeros, ones[0])[0].sum()


@compiled(settings=1)
def _run(program: Program, constants: Constants, trained: Params) -> PyTree:
    return program(constants, trained)


def _specs(tree: PyTree) -> tuple[Any, Any, Any]:
    """Return everything that a trace depends on, in a hashable form.

    This is the structure of the tree, its shapes and dtypes, and the default precision.
    """
    leaves, structure = jax.tree.flatten(tree)
    specs = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
    return structure, specs, jnp.result_type(float)


@functools.lru_cache(maxsize=64)
def _hoist_init(
    optimizer: optax.GradientTransformation, structure: Any, leaves: Any, _: Any
) -> tuple[Program, Constants]:
    return hoist_constants(optimizer.init, jax.tree.unflatten(structure, leaves))


@functools.lru_cache(maxsize=64)
def _state_shapes(
    optimizer: optax.GradientTransformation, structure: Any, leaves: Any, _: Any
) -> PyTree:
    return jax.eval_shape(optimizer.init, jax.tree.unflatten(structure, leaves))


@functools.lru_cache(maxsize=64)
def _hoist_update(
    update: OptaxUpdate, structure: Any, leaves: Any, _: Any
) -> tuple[Program, Constants]:
    trained, opt_state = jax.tree.unflatten(structure, leaves)
    value = jax.ShapeDtypeStruct((), jnp.result_type(jnp.float32, *jax.tree.leaves(trained)))
    return hoist_constants(functools.partial(update, ()), trained, opt_state, trained, value)
