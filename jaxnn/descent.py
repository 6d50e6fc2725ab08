"""Full-batch gradient descent to a threshold: the loop of the lecture, as one ``while_loop``."""

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxnn.checks import (
    InputError,
    check_array,
    check_bool,
    check_finite,
    check_floating,
    check_like,
    check_positive,
    check_positive_int,
    check_shape,
    is_concrete,
)
from jaxnn.progress import bar
from jaxnn.types import AnyArray

CHUNK = 10_000  # iterations between two reports of progress


class Descent(NamedTuple):
    """The result of a descent.

    If it neither converged nor diverged, it reached the maximal number of iterations. Under
    ``vmap`` or ``jit`` all fields are arrays.

    Attributes:
        params: the last parameters; after divergence, the last finite ones.
        iterations: the number of updates; after divergence, that of the update that was not finite.
        change: the Euclidean norm of the last update.
        converged: whether ``change`` fell to the threshold.
        diverged: whether the norm of an update was not finite.
    """

    params: PyTree
    iterations: int | AnyArray
    change: float | AnyArray
    converged: bool | AnyArray
    diverged: bool | AnyArray


class _State(NamedTuple):
    params: PyTree
    previous: PyTree  # the parameters to return if the last update was not finite
    iterations: AnyArray
    change: AnyArray


def gradient_descent(
    objective: Callable[..., Array] | None,
    initial: PyTree,
    *args: PyTree,
    step_size: float,
    threshold: float,
    max_iterations: int = 1_000_000,
    gradient: Callable[..., PyTree] | None = None,
    progress: bool = False,
) -> Descent:
    r"""Repeat θ := θ - step_size · ∇J(θ) until ‖θ - θ_previous‖ ≤ threshold.

    The loop is compiled once for an objective and the shapes of its arguments; other data, step
    sizes, thresholds and limits need no new compilation. The objective has to be the same function
    object in each call, not a new lambda.

    Args:
        objective: J(params, \*args), a differentiable scalar function; None if ``gradient`` is
            given.
        initial: the initial guess, a number, a list of numbers, or a pytree of floating arrays.
        *args: further arguments of the objective, such as the data.
        step_size: α, above 0.
        threshold: the norm of the change at which the descent has converged, above 0.
        max_iterations: the maximal number of updates.
        gradient: ∇J(params, \*args), derived by hand; by default ``jax.grad(objective)``.
        progress: whether to show the iterations on the terminal.

    Returns:
        The final parameters and the way in which the descent ended, see :class:`Descent`.

    Raises:
        InputError: for a step size, threshold or limit that is not positive, or an initial guess
            that is empty, not floating point or not finite.
    """
    check_positive("gradient_descent", "step_size", step_size)
    check_positive("gradient_descent", "threshold", threshold)
    check_positive_int("gradient_descent", "max_iterations", max_iterations)
    if any(not callable(given) for given in (objective, gradient) if given is not None):
        raise InputError("gradient_descent: expected objective and gradient to be functions.")
    if (objective is None) == (gradient is None):
        raise InputError(
            "gradient_descent: expected either an objective or its gradient, got both or neither."
        )
    check_bool("gradient_descent", "progress", progress)
    if all(isinstance(leaf, numbers.Number) for leaf in jax.tree.leaves(initial)):
        is_list = isinstance(initial, list)
        initial = jnp.asarray(initial) if is_list else jax.tree.map(jnp.asarray, initial)
    for leaf in jax.tree.leaves(args):
        check_array("gradient_descent", "the arguments of the objective", leaf)
    if not jax.tree.leaves(initial):
        raise InputError(
            "gradient_descent: expected an initial guess with at least one array, got none."
        )
    for leaf in jax.tree.leaves(initial):
        check_floating("gradient_descent", "the initial guess", leaf)
    check_finite("gradient_descent", "the initial guess", initial)
    dtype = jnp.result_type(*jax.tree.leaves(initial))
    first_change = np.asarray(jnp.finfo(dtype).max, dtype)  # above any threshold
    state = _State(initial, initial, np.asarray(0, np.int32), first_change)
    program = functools.partial(_descend, objective, gradient, args, step_size, threshold)
    run = _with_progress if progress else _at_once
    state = run(program, state, threshold, max_iterations)
    finite = True if objective is None else _has_finite_value(objective, state.params, args)
    return _report(state, threshold, finite)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _descend(
    objective: Callable[..., Array] | None,
    gradient: Callable[..., PyTree] | None,
    args: tuple[PyTree, ...],
    step_size: Array,
    threshold: Array,
    state: _State,
    limit: Array,
) -> _State:
    slope_at = gradient or jax.grad(_scalar(objective))

    def unfinished(state: _State) -> AnyArray:
        return (state.change > threshold) & jnp.isfinite(state.change) & (state.iterations < limit)

    def update(state: _State) -> _State:
        slope = slope_at(state.params, *args)
        _check_slope(slope, state.params)
        params = jax.tree.map(
            lambda p, d: p - jnp.asarray(step_size, p.dtype) * d, state.params, slope
        )
        return _State(params, state.params, state.iterations + 1, _distance(params, state.params))

    return jax.lax.while_loop(unfinished, update, state)


def _scalar(objective: Any) -> Callable[..., Array]:
    """Return an objective that says so if its value is not a number."""

    def checked(*arguments: Any) -> Array:
        try:
            value = objective(*arguments)
        except jax.errors.ConcretizationTypeError as error:
            raise InputError(
                "gradient_descent: expected an objective that JAX can trace, got one that makes a "
                "number of Python or an array of NumPy out of its parameters: use jax.numpy."
            ) from error
        check_floating("gradient_descent", "the value of the objective", value)
        check_shape("gradient_descent", "the value of the objective", value, ())
        return value

    return checked


def _check_slope(slope: PyTree, params: PyTree) -> None:
    """Check that a gradient has the structure and shapes of the parameters."""
    got, expected = str(jax.tree.structure(slope)), str(jax.tree.structure(params))
    if got != expected:
        raise InputError(
            f"gradient_descent: expected a gradient of structure {expected}, got {got}."
        )
    for d, p in zip(*map(jax.tree.leaves, (slope, params)), strict=True):
        check_like("gradient_descent", "the gradient", d, p, "the parameters")


def _distance(a: PyTree, b: PyTree) -> Array:
    squares = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), a, b)
    return jnp.sqrt(sum(jax.tree.leaves(squares)))


def _at_once(
    program: Callable[[_State, int], _State], state: _State, threshold: float, limit: int
) -> _State:
    return program(state, limit)


def _with_progress(
    program: Callable[[_State, int], _State], state: _State, threshold: float, limit: int
) -> _State:
    """Run the same compiled loop in chunks, and report the progress after each chunk."""
    with bar(None, desc="gradient descent", unit=" iterations", unit_scale=True) as shown:
        while math.isfinite(state.change) and state.change > threshold and state.iterations < limit:
            before = int(state.iterations)
            state = program(state, min(before + CHUNK, limit))
            shown.update(int(state.iterations) - before)
            shown.set_postfix(change=f"{float(state.change):.3g}")
    return state


@functools.partial(jax.jit, static_argnums=0)
def _has_finite_value(
    objective: Callable[..., Array], params: PyTree, args: tuple[PyTree, ...]
) -> Array:
    return jnp.isfinite(objective(params, *args))


def _report(state: _State, threshold: float, finite: bool | Array) -> Descent:
    iterations: int | AnyArray
    change: float | AnyArray
    diverged: bool | AnyArray
    converged: bool | AnyArray
    if is_concrete(state, finite):
        change, iterations = float(state.change), int(state.iterations)
        diverged = not (math.isfinite(change) and bool(finite))
        converged = change <= threshold and not diverged
        params = state.previous if diverged else state.params
    else:  # under vmap or jit the results stay arrays
        change, iterations = state.change, state.iterations
        diverged = ~(jnp.isfinite(change) & finite)
        converged = (change <= threshold) & ~diverged
        params = jax.tree.map(functools.partial(jnp.where, diverged), state.previous, state.params)
    return Descent(params, iterations, change, converged, diverged)
