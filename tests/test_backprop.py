"""Gradients by hand and by jax.grad, and their special cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

NET = nn.chain(nn.Dense(4), nn.Tanh(), nn.Dense(1), nn.Sigmoid())
X = np.random.default_rng(0).standard_normal((6, 3))
TARGET = np.array([0, 1, 1, 0, 1, 0])[:, None]


def close(a, b, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15), a, b)


@pytest.mark.parametrize("weights", [None, np.arange(6.0)], ids=["unweighted", "weighted"])
def test_both_routes_agree(weights):
    params = NET.init(jax.random.key(0), X)
    hand, auto = (
        nn.value_and_grad(NET, nn.BinaryCrossEntropy(), method=method)(params, X, TARGET, weights)
        for method in ("hand", "auto")
    )
    close(hand, auto)
    close(nn.grad(NET, nn.BinaryCrossEntropy())(params, X, TARGET, weights), hand[1])


def test_the_loss_owns_the_mean():
    """A batch that is repeated has the same gradient; a layer by itself sums over the batch."""
    params = NET.init(jax.random.key(0), X)
    gradient = nn.grad(NET, nn.BinaryCrossEntropy())
    close(
        gradient(params, X, TARGET),
        gradient(params, np.tile(X, (2, 1)), np.tile(TARGET, (2, 1))),
        rtol=1e-10,
    )
    dense, p = nn.Dense(2), nn.Dense(2).init(jax.random.key(0), X)
    once, _ = dense.backward(p, jnp.asarray(X), jnp.ones((6, 2)))
    twice, _ = dense.backward(p, jnp.tile(X, (2, 1)), jnp.ones((12, 2)))
    close(twice.b, 2 * once.b)


def test_equal_weights_change_nothing_and_zero_weights_leave_samples_out():
    params = NET.init(jax.random.key(0), X)
    gradient = nn.value_and_grad(NET, nn.BinaryCrossEntropy())
    close(gradient(params, X, TARGET, np.full(6, 7.0)), gradient(params, X, TARGET), rtol=1e-10)
    keep = np.array([1.0, 1, 1, 0, 0, 0])
    close(gradient(params, X, TARGET, keep), gradient(params, X[:3], TARGET[:3]), rtol=1e-10)
    value, none = gradient(params, X, TARGET, np.zeros(6))
    assert value == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(none))


def test_a_single_sample_gives_the_gradient_of_each_by_vmap():
    params = NET.init(jax.random.key(0), X)
    gradient = nn.grad(NET, nn.BinaryCrossEntropy())
    each = jax.vmap(lambda x, t: gradient(params, x[None], t[None]))(X, TARGET)
    close(
        jax.tree.map(lambda leaf: leaf.mean(axis=0), each), gradient(params, X, TARGET), rtol=1e-10
    )


def test_saturated_predictions_make_no_nan():
    x = jnp.array([[-1000.0], [1000.0]])
    y, cache = nn.Sigmoid().forward((), x)
    assert (y == jnp.array([[0.0], [1.0]])).all()
    loss = nn.BinaryCrossEntropy()
    right, right_cache = loss.forward(y, jnp.array([[0], [1]]))
    wrong, wrong_cache = loss.forward(y, jnp.array([[1], [0]]))
    assert right == 0
    assert wrong == jnp.inf
    np.testing.assert_array_equal(loss.backward(right_cache), [[0.5], [-0.5]])
    slope = loss.backward(wrong_cache)
    assert jnp.isfinite(slope).all()
    assert (jnp.abs(slope) > 1e300).all()
    assert (nn.Sigmoid().backward((), cache, slope)[1] == 0).all()
    net = nn.Sigmoid()
    for method in ("hand", "auto"):
        value, _ = nn.value_and_grad(net, loss, method)((), x, np.array([[1], [0]]))
        assert value == jnp.inf


def test_logits_are_stable_and_agree_with_probabilities():
    z = jnp.array([[-1e4], [1e4], [0.0], [3.0]])
    for target in (jnp.array([[0], [1], [0], [1]]), jnp.array([[1], [0], [1], [0]])):
        value, cache = nn.SigmoidBinaryCrossEntropy().forward(z, target)
        assert jnp.isfinite(value)
        assert jnp.isfinite(nn.SigmoidBinaryCrossEntropy().backward(cache)).all()
    z, target = z[2:], jnp.array([[0], [1]])
    on_logits = nn.value_and_grad(nn.Dense(1), nn.SigmoidBinaryCrossEntropy())
    on_probabilities = nn.value_and_grad(
        nn.chain(nn.Dense(1), nn.Sigmoid()), nn.BinaryCrossEntropy()
    )
    params = nn.Dense(1).init(jax.random.key(0), z)
    a, b = on_logits(params, z, target), on_probabilities((params, ()), z, target)
    close(a[0], b[0])
    close(a[1], b[1][0])


def test_the_kinks_follow_their_stated_conventions():
    zero = jnp.zeros((1, 1))
    for activation in (nn.ReLU(), nn.Heaviside()):
        _, cache = activation.forward((), zero)
        assert activation.backward((), cache, jnp.ones((1, 1)))[1] == 0
    assert jax.grad(lambda x: nn.ReLU().forward((), x)[0].sum())(zero) == 0
    assert (
        jax.grad(lambda z: nn.SigmoidBinaryCrossEntropy().forward(z, jnp.zeros((1, 1)))[0])(zero)
        == 0.5
    )
