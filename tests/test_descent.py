"""The loop of the lecture, for any objective and any pytree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn import data


def bowl(params, center):
    return jnp.sum((params["a"] - center) ** 2) + 3 * params["b"] ** 2


START = {"a": jnp.zeros(3), "b": jnp.asarray(2.0)}


def test_finds_the_minimum_of_any_pytree():
    run = nn.gradient_descent(bowl, START, jnp.arange(3.0), step_size=0.1, threshold=1e-10)
    assert (run.converged, run.diverged) == (True, False)
    assert run.change <= 1e-10
    np.testing.assert_allclose(run.params["a"], [0, 1, 2], atol=1e-8)
    np.testing.assert_allclose(run.params["b"], 0, atol=1e-8)


def test_each_iteration_is_the_update_rule():
    run = nn.gradient_descent(
        bowl, START, jnp.ones(3), step_size=0.1, threshold=1e-9, max_iterations=3
    )
    theta = START
    for _ in range(3):
        slope = jax.grad(bowl)(theta, jnp.ones(3))
        theta = jax.tree.map(lambda p, d: p - 0.1 * d, theta, slope)
    assert run.iterations == 3
    assert not run.converged
    jax.tree.map(np.testing.assert_allclose, run.params, theta)


def test_a_hand_derived_gradient_takes_the_same_path():
    by_hand = lambda p, c: {"a": 2 * (p["a"] - c), "b": 6 * p["b"]}
    a = nn.gradient_descent(bowl, START, jnp.ones(3), step_size=0.1, threshold=1e-9)
    b = nn.gradient_descent(
        None, START, jnp.ones(3), step_size=0.1, threshold=1e-9, gradient=by_hand
    )
    assert a.iterations == b.iterations
    np.testing.assert_allclose(a.params["a"], b.params["a"])


@pytest.mark.parametrize("max_iterations", [1_000_000, 700])
def test_divergence_is_reported_with_the_last_finite_parameters(max_iterations):
    run = nn.gradient_descent(
        bowl, START, jnp.ones(3), step_size=2.0, threshold=1e-9, max_iterations=max_iterations
    )
    assert (run.converged, run.diverged) == (False, True)
    assert 100 < run.iterations < 700
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert not np.isfinite(run.change)


def test_many_at_once_by_vmap():
    centers = jnp.stack([jnp.arange(3.0), jnp.ones(3)])
    many = jax.vmap(lambda c: nn.gradient_descent(bowl, START, c, step_size=0.1, threshold=1e-10))(
        centers
    )
    for i in range(2):
        alone = nn.gradient_descent(bowl, START, centers[i], step_size=0.1, threshold=1e-10)
        assert many.iterations[i] == alone.iterations
        assert many.converged[i]
        np.testing.assert_array_equal(many.params["a"][i], alone.params["a"])


def test_progress_changes_nothing(capsys):
    iris = data.iris_setosa()
    x = data.with_ones(iris.x)
    quiet, shown = (
        nn.logistic_descent(x, iris.y, max_iterations=25_000, progress=p) for p in (False, True)
    )
    assert quiet.iterations == shown.iterations == 25_000
    np.testing.assert_array_equal(quiet.params.theta, shown.params.theta)


def test_other_steps_and_data_compile_nothing():
    run = lambda c, **k: nn.gradient_descent(bowl, START, c, **k)
    run(jnp.ones(3), step_size=0.1, threshold=1e-9)
    before = nn.descent._descend._cache_size()
    run(jnp.zeros(3), step_size=0.2, threshold=1e-3, max_iterations=5)
    assert nn.descent._descend._cache_size() == before


def test_single_precision_stays_single():
    start = jax.tree.map(lambda leaf: leaf.astype("float32"), START)
    run = nn.gradient_descent(bowl, start, jnp.ones(3, "float32"), step_size=0.1, threshold=1e-5)
    assert run.converged
    assert {leaf.dtype for leaf in jax.tree.leaves(run.params)} == {jnp.dtype("float32")}


def test_the_perceptron_rule_stops_when_nothing_is_wrong():
    iris = data.iris_setosa()
    x = data.with_ones(iris.x)
    run = nn.perceptron_rule(x, iris.y)
    assert run.converged
    step = nn.Neuron(nn.Heaviside())
    assert (np.asarray(nn.apply(step, run.params, x)) == iris.y).all()
    assert not nn.perceptron_rule(x, iris.y, max_epochs=2).converged


def test_the_perceptron_rule_is_rosenblatts():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
    theta, mistakes = np.zeros(3), 0
    for _ in range(4):
        for xi, yi in zip(x, y, strict=True):
            error = yi - (xi @ theta > 0)
            theta, mistakes = theta + error * xi, mistakes + abs(error)
    run = nn.perceptron_rule(x, y, max_epochs=4)
    np.testing.assert_allclose(run.params.theta, theta, rtol=1e-12)
    assert (run.mistakes, run.epochs, run.converged) == (mistakes, 4, False)
