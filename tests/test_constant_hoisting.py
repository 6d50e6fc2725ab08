"""Optimizers with their constants as arguments: one program, and equal results, for all rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn.training.constant_hoisting import hoist_constants

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(3)}
FORMULAS = {
    "sgd": lambda rate: optax.sgd(rate, momentum=rate * 10),
    "adam": optax.adam,
    "adamw on a schedule": lambda rate: optax.adamw(
        optax.cosine_decay_schedule(rate, 10), weight_decay=rate
    ),
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(rate), optax.rmsprop(rate)),
    "injected": lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
    "lamb": optax.lamb,
    "a table of rates": lambda rate: optax.sgd(lambda step: jnp.array([rate, rate / 2])[step % 2]),
}


def update(optimizer):
    return lambda gradient, state: optimizer.update(gradient, state, PARAMS)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_formula_is_the_same_and_the_numbers_are_its_own(name):
    gradient = jax.tree.map(lambda p: p * 0.3 + 0.1, PARAMS)
    programs = []
    for rate in (1e-3, 4e-2):
        optimizer = FORMULAS[name](rate)
        state = optimizer.init(PARAMS)
        program, numbers = hoist_constants(update(optimizer), gradient, state)
        expected = update(optimizer)(gradient, state)
        for a, b in zip(
            jax.tree.leaves(program(numbers, gradient, state)),
            jax.tree.leaves(expected),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-12)
        programs.append(program)
    assert programs[0] == programs[1]
    assert hash(programs[0]) == hash(programs[1])


def test_another_formula_is_another_program():
    states = {name: FORMULAS[name](0.1) for name in ("sgd", "adam", "lamb")}
    texts = {hoist_constants(update(o), PARAMS, o.init(PARAMS))[0].text for o in states.values()}
    assert len(texts) == 3


def test_whole_numbers_stay_in_the_program():
    def power(n):
        return lambda x: x**n * 2.0

    first, second = (hoist_constants(power(n), jnp.ones(2))[0] for n in (2, 3))
    assert first != second


def test_branches_keep_their_numbers():
    def pick(scale):
        return lambda x: jax.lax.cond(x.sum() > 0, lambda x: x * scale, lambda x: x, x)

    (first, numbers), (second, _) = (
        hoist_constants(pick(scale), jnp.ones(2)) for scale in (2.0, 3.0)
    )
    assert first != second
    np.testing.assert_allclose(first(numbers, jnp.ones(2)), 2.0)
