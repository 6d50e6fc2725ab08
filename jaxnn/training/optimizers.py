"""Optimizers of optax as programs: the formula apart from its numbers, see :mod:`jaxnn.training.constant_hoisting`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.training.constant_hoisting import Program, take_apart
from jaxnn.types import Params


def as_transformation(who: str, optimizer: Any) -> optax.GradientTransformation:
    """Give an optimizer of optax as the pair of functions that it is.

    Raises:
        InputError: if it is none.
    """
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if not isinstance(optimizer, optax.GradientTransformation):
        raise InputError(
            f"{who}: expected optimizer to be an optax.GradientTransformation, got {type(optimizer).__name__}."
        )
    return optimizer


def first_state(optimizer: optax.GradientTransformation, trained: Params) -> PyTree:
    """Give the optimizer's state before the first step, for the trained parameters."""
    return _run(*take_apart_init(optimizer, trained), trained)


def take_apart_init(optimizer: optax.GradientTransformation, trained: Params) -> tuple[Program, Any]:
    """Take apart ``trained -> state``."""
    return _take_apart_init(optimizer, *_specs(trained))


def take_apart_update(
    optimizer: optax.GradientTransformation, opt_state: PyTree, trained: Params
) -> tuple[Program, Any]:
    """Take apart ``(gradient, state, trained, value) -> (updates, state)``."""
    return _take_apart_update(optimizer, *_specs((trained, opt_state)))


@functools.partial(jax.jit, static_argnums=0)
def _run(program: Program, numbers: Any, trained: Params) -> Any:
    return program(numbers, trained)


def _specs(tree: PyTree) -> tuple[Any, Any, Any]:
    """Give what a trace depends on, as something that hashes: the tree, and the default precision."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves), jnp.result_type(float)


@functools.lru_cache(maxsize=64)
def _take_apart_init(
    optimizer: optax.GradientTransformation, structure: Any, leaves: Any, _: Any
) -> tuple[Program, Any]:
    return take_apart(optimizer.init, jax.tree.unflatten(structure, leaves))


@functools.lru_cache(maxsize=64)
def _take_apart_update(
    optimizer: optax.GradientTransformation, structure: Any, leaves: Any, _: Any
) -> tuple[Program, Any]:
    def update(gradient: Any, opt_state: Any, params: Any, value: Any) -> Any:
        update = optax.with_extra_args_support(optimizer).update
        return update(gradient, opt_state, params, value=value, grad=gradient)

    trained, opt_state = jax.tree.unflatten(structure, leaves)
    value = jax.ShapeDtypeStruct((), jnp.result_type(jnp.float32, *jax.tree.leaves(trained)))
    return take_apart(update, trained, opt_state, trained, value)
