"""Everything runs under strict(), which lets JAX refuse what it otherwise does silently."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import LAYERS, LOSSES, NETWORKS

import jaxnn as nn

CASES = LAYERS + NETWORKS


def cast(tree, dtype):
    floating = lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a
    return jax.tree.map(floating, tree)


@pytest.mark.parametrize("case", CASES, ids=[case.id[:60] for case in CASES])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_promote_no_rank_and_no_dtype(case, dtype):
    x, key = cast(case.x, dtype), jax.random.key(0)

    def both_passes(x, key):
        params = case.layer.init(key, x)
        y, cache = case.layer.forward(params, x, case.key)
        return case.layer.backward(params, cache, y)

    with nn.strict():
        jax.eval_shape(both_passes, x, key)


@pytest.mark.parametrize("case", LOSSES, ids=[case.id for case in LOSSES])
def test_losses_promote_no_rank_and_no_dtype(case):
    if isinstance(case.loss, nn.OptaxLoss):
        pytest.skip("the arithmetic of optax mixes dtypes")
    arrays = cast((case.prediction, case.target, case.weights), "float32")
    with nn.strict():
        jax.eval_shape(lambda *arrays: case.loss.backward(case.loss.forward(*arrays)[1]), *arrays)


X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
NET = nn.chain(
    nn.Dense(4),
    nn.BatchNorm(),
    nn.Repeat(nn.Remat(nn.Residual(nn.chain(nn.Dense(4), nn.Tanh(), nn.Dropout(0.2)))), times=2),
    nn.Dense(3),
)


@pytest.mark.parametrize("method", ["hand", "auto"])
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_training_draws_from_no_key_twice(method, precision):
    with nn.strict():
        trained = nn.fit(NET, nn.MeanSquaredError(), optax.adamw(1e-2), (X, X), epochs=3,
                         batch_size=5, key=jax.random.key(1), validation=(X, X), method=method,
                         precision=precision)  # fmt: skip
        assert trained.predict(X).shape == X.shape


def test_whatever_looks_at_a_network():
    with nn.strict():
        params = NET.init(jax.random.key(0), X)
        value, _ = nn.value_and_grad(NET, nn.MeanSquaredError())(params, X, X)
        assert nn.trace(NET, nn.MeanSquaredError(), params, X, X).value == pytest.approx(value)
        assert nn.certify(nn.Dense(3), X).passed
        assert str(nn.summary(NET, X))


def test_it_refuses_what_it_says():
    a, key = jnp.ones((2, 3), jnp.float32), jax.random.key(0)
    with nn.strict():
        with pytest.raises(ValueError, match="rank_promotion"):
            a + a[0]
        with pytest.raises(ValueError, match="promotion"):
            a + jnp.ones((2, 3), jnp.bfloat16)
        with pytest.raises(FloatingPointError):
            jnp.log(a - 2)
        jax.random.normal(key)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.random.normal(key)
    assert (a + jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32
