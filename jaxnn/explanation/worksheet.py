"""The same exercise with other numbers, such as a pencil can handle."""

from typing import Any

import jax
import numpy as np

from jaxnn.checks import InputError
from jaxnn.explanation.equations import equations_of
from jaxnn.explanation.labels import allowed_integers
from jaxnn.tracing import Trace, trace
from jaxnn.types import join_running, split_running

DRAWS = 20  # at most; with few numbers to draw, the samples may have to be alike
HALVES = np.array([-2, -1.5, -1, -0.5, 0.5, 1, 1.5, 2])


def redraw(done: Trace, seed: int) -> Trace:
    """Trace the same network on inputs, parameters and a target drawn anew, in halves from -2 to 2.

    Labels are drawn among those that the loss allows; targets that are probabilities stay. What has nothing to
    compute, because no derivative reaches some layer, or because two samples are alike, is drawn again.

    Raises:
        InputError: in training mode, where the key draws too.
    """
    if done.key is not None:
        raise InputError(
            "explain: expected a trace at inference for a seed, got one in training mode."
        )
    random = np.random.default_rng(seed)
    allowed = allowed_integers(equations_of(done), done.loss)

    def draw(name: str, array: np.ndarray) -> np.ndarray:
        if np.issubdtype(array.dtype, np.floating):
            return random.choice(HALVES, array.shape).astype(array.dtype)
        return (
            random.choice(allowed[name], array.shape).astype(array.dtype)
            if name in allowed
            else array
        )

    trained, running = split_running(done.params)
    is_distribution = (
        done.target.ndim
        and np.allclose(done.target.sum(axis=-1), 1)
        and done.target.dtype.kind == "f"
    )
    for _ in range(DRAWS):
        params = join_running(jax.tree.map(lambda leaf: draw("", leaf), trained), running)
        x: Any = jax.tree.map(lambda leaf: draw("x", leaf), done.x)
        target = done.target if is_distribution else draw("t", done.target)
        again = trace(done.net, done.loss, params, x, target)
        if _is_worth_it(again):
            break
    return again


def _is_worth_it(exercise: Trace) -> bool:
    gradients = [stage.dparams for stage in exercise.stages if jax.tree.leaves(stage.dparams)]
    reached = all(any(np.any(leaf) for leaf in jax.tree.leaves(gradient)) for gradient in gradients)
    x = np.reshape(jax.tree.leaves(exercise.x)[0], (len(jax.tree.leaves(exercise.x)[0]), -1))
    return reached and len(np.unique(x, axis=0)) == len(x)
