"""The same exercise with other numbers, which are easy to compute with by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.checks import InputError
from jaxnn.equations import TARGET, ArrayId, equations_of
from jaxnn.explanation.labels import allowed_integers
from jaxnn.tracing import Stage, Trace, trace
from jaxnn.types import join_running, split_running

DRAWS = 200  # at most; with few possible values, two samples may have to be equal
HALVES = np.array([-2, -1.5, -1, -0.5, 0.5, 1, 1.5, 2])
TENTHS = np.array([-0.3, -0.1, 0.1, 0.3])  # for biases: no sum of halves and these is 0
SMALL = np.array([-1, -0.5, 0.5, 1])  # for parameters
NEAR = 1e-6  # the distance within which a kink is looked for
MODERATE = 3  # the size of pre-activations up to which no activation is saturated


def redraw(done: Trace, seed: int) -> Trace:
    """Trace the same network on newly drawn inputs, parameters and targets.

    Inputs are drawn from the multiples of one half between -2 and 2 except 0, matrices and kernels
    from -1, -1/2, 1/2 and 1, or from 1/2, 1/4 or 1/8 of these where many of them are added up,
    and biases from tenths. Labels are drawn from those that the loss allows; targets that are
    probabilities are kept. A draw is repeated if it makes no good exercise: the gradient of some
    layer is 0, two samples are equal, numbers are so large that activations are saturated, or one
    is at a kink, where there is no derivative.

    Raises:
        InputError: in training mode, where the result depends on the key too.
    """
    if done.key is not None:
        raise InputError(
            "explain: expected a trace at inference for a seed, got one in training mode."
        )
    random = np.random.default_rng(seed)
    allowed = allowed_integers(equations_of(done), done.loss)

    def draw(name: ArrayId, array: np.ndarray) -> np.ndarray:
        if np.issubdtype(array.dtype, np.floating):
            return random.choice(HALVES, array.shape).astype(array.dtype)
        if name not in allowed:
            return array
        return random.choice(allowed[name], array.shape).astype(array.dtype)

    def draw_parameter(leaf: np.ndarray) -> np.ndarray:
        if leaf.ndim == 1:
            return random.choice(TENTHS, leaf.shape).astype(leaf.dtype)
        summed = math.prod(leaf.shape[:-1])
        scale = 1 if summed < 6 else 0.5 if summed < 9 else 0.25 if summed < 64 else 0.125
        return (scale * random.choice(SMALL, leaf.shape)).astype(leaf.dtype)

    trained, running = split_running(done.params)
    is_distribution = (
        done.target.ndim
        and np.allclose(done.target.sum(axis=-1), 1)
        and done.target.dtype.kind == "f"
    )
    for _ in range(DRAWS):
        params = join_running(jax.tree.map(draw_parameter, trained), running)
        x = jax.tree.map(lambda leaf: draw(ArrayId("x"), leaf), done.x)
        target = done.target if is_distribution else draw(TARGET, done.target)
        again = trace(done.net, done.loss, params, x, target)
        if _is_worth_it(again):
            break
    return again


def _is_worth_it(exercise: Trace) -> bool:
    gradients = [stage.dparams for stage in exercise.stages if jax.tree.leaves(stage.dparams)]
    reached = all(any(np.any(leaf) for leaf in jax.tree.leaves(gradient)) for gradient in gradients)
    x = jax.tree.leaves(exercise.x)[0]
    outputs = [jax.tree.leaves(stage.y)[0] for stage in exercise.stages]
    if any(np.abs(y).max(initial=0) > MODERATE for y in outputs if y.dtype.kind == "f"):
        return False
    if any(_is_at_a_kink(stage) for stage in exercise.stages):
        return False
    return reached and len(np.unique(x.reshape(len(x), -1), axis=0)) == len(x)


def _is_at_a_kink(stage: Stage) -> bool:
    """Whether the derivative of a layer jumps at its input, as at equal largest entries."""
    if not getattr(stage.layer, "kinks", ""):
        return False
    x, params = jnp.asarray(stage.x), stage.params
    for move in np.random.default_rng(0).normal(scale=NEAR, size=(2, *x.shape)):
        _, cache = stage.layer.forward(params, x + move)
        dx = stage.layer.backward(params, cache, jnp.ones_like(stage.y))[1]
        _, cache = stage.layer.forward(params, x)
        if not np.array_equal(dx, stage.layer.backward(params, cache, jnp.ones_like(stage.y))[1]):
            return True
    return False
