"""The contract of types.py, tested with every case of cases.py."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAYERS, LOSSES, NETWORKS

import jaxnn as nn
from jaxnn.values import children

layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
networks = pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.id[:60])
losses = pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.id)


def public(protocol):
    found = (getattr(nn, name) for name in nn.__all__)
    return {
        cls
        for cls in found
        if isinstance(cls, type) and issubclass(cls, protocol) and cls is not protocol
    }


# layers of layers belong to the slow tests; what they are made of is here
layers_quickly = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow if children(c.layer) else (), id=c.id) for c in LAYERS],
)


def cast(tree, dtype):
    floating = lambda a: (
        jnp.asarray(a, dtype) if np.issubdtype(a.dtype, np.floating) else jnp.asarray(a)
    )
    return jax.tree.map(floating, tree)


def types_within(value):
    yield type(value)
    for field in getattr(value, "__dataclass_fields__", ()):
        setting = getattr(value, field)
        for item in setting if isinstance(setting, tuple) else (setting,):
            yield from types_within(item)


def test_no_public_layer_or_loss_is_missing_from_the_table():
    tested = {cls for case in LAYERS + NETWORKS for cls in types_within(case.layer)} | {
        type(case.loss) for case in LOSSES
    }
    assert public(nn.Layer) - tested == set()
    assert public(nn.Loss) - tested == set()


@layers_quickly
def test_layer_is_certified(case):
    certificate = nn.certify(case.layer, case.x, key=case.key)
    assert certificate.passed
    assert certificate.worst_vs_autodiff <= 1e-12
    assert certificate.worst_vs_differences <= 1e-6


@pytest.mark.slow
@networks
def test_ready_made_network_is_certified(case):
    test_layer_is_certified(case)


@losses
def test_loss_is_certified(case):
    certificate = nn.certify(case.loss, case.prediction, case.target, weights=case.weights)
    assert certificate.worst_vs_autodiff <= 1e-12
    assert certificate.worst_vs_differences <= 1e-6


@pytest.mark.parametrize(
    "value", sorted({c.layer for c in LAYERS + NETWORKS} | {c.loss for c in LOSSES}, key=repr)
)
def test_is_a_value(value):
    again = eval(repr(value), vars(nn).copy())
    for copy in (again, pickle.loads(pickle.dumps(value)), nn.from_json(nn.to_json(value))):
        assert copy == value
        assert hash(copy) == hash(value)
        assert repr(copy) == repr(value)
    assert json.loads(nn.to_json(value))["type"] == type(value).__name__
    assert jax.tree.leaves(value) == []
    with pytest.raises(AttributeError):
        value.something = 1


@layers
def test_init_needs_only_a_shape_and_follows_the_key(case):
    like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), case.x)
    params = case.params()
    same = case.layer.init(jax.random.key(0), like)
    jax.tree.map(np.testing.assert_array_equal, params, same)
    old_style = case.layer.init(jax.random.PRNGKey(0), like)
    assert jax.tree.structure(old_style) == jax.tree.structure(params)


@jax.jit(static_argnums=0)
def both_passes(layer, params, x, key):
    y, cache = layer.forward(params, x, key)
    return y, layer.backward(params, cache, y)


@layers_quickly
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keeps_the_dtype(case, dtype):
    x, params = cast((case.x, case.params()), dtype)
    run = jax.eval_shape if dtype == "float32" else lambda f: f()
    arrays = jax.tree.leaves(run(lambda: both_passes(case.layer, params, x, case.key)))
    assert {leaf.dtype for leaf in arrays} == {jnp.dtype(dtype)}
    if dtype == "bfloat16":
        assert all(np.isfinite(np.asarray(leaf, float)).all() for leaf in arrays)


def has_parameters_of_its_inputs_dtype(case):
    floating = all(np.issubdtype(leaf.dtype, np.floating) for leaf in jax.tree.leaves(case.x))
    return floating and jax.tree.leaves(jax.eval_shape(case.params))


@pytest.mark.parametrize(
    "case", list(filter(has_parameters_of_its_inputs_dtype, LAYERS)), ids=lambda case: case.id
)
def test_init_follows_the_dtype_of_its_input(case):
    x = cast(case.x, "bfloat16")
    params = jax.eval_shape(lambda: case.layer.init(jax.random.key(0), x))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


@layers
def test_a_batch_of_one(case):
    batch = jax.tree.leaves(case.x)[0].shape[0]
    x = jax.tree.map(lambda a: jnp.asarray(a[:1] if a.shape[0] == batch else a), case.x)
    trained = case.key is not None and not isinstance(case.layer, nn.Frozen)
    if "BatchNorm" in case.id and trained and x.ndim == 2:
        with pytest.raises(nn.InputError, match="expected at least two values of each channel"):
            case.layer.forward(case.params(), x, case.key)
        return
    y, (dparams, _) = both_passes(case.layer, case.params(), x, case.key)
    assert jax.tree.leaves(y)[0].shape[0] == 1
    assert jax.tree.structure(dparams) == jax.tree.structure(case.params())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(dparams))


@layers_quickly
def test_apart_and_over_the_bridge_the_gradient_is_that_of_jax(case):
    """The cache goes from one program to another; jax.grad takes the hand-derived rule."""
    params, x = case.params(), jax.tree.map(jnp.asarray, case.x)
    y, cache = jax.jit(case.layer.forward)(params, x, case.key)
    apart, _ = jax.jit(case.layer.backward)(params, cache, jax.tree.map(jnp.cos, y))

    @jax.jit
    def bridged_and_plain(params):
        total = lambda y: sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(y))
        bridged = lambda p: total(nn.apply(case.layer, p, x, case.key))
        plain = lambda p: total(case.layer.forward(p, x, case.key)[0])
        return jax.grad(bridged)(params), jax.grad(plain)(params)

    bridged, plain = bridged_and_plain(params)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, bridged, plain)
    jax.tree.map(close, apart, plain)


@losses
def test_loss_in_half_precision_is_summed_in_single(case):
    prediction = jnp.asarray(case.prediction, "bfloat16")
    value, cache = case.loss.forward(prediction, jnp.asarray(case.target))
    assert value.dtype == jnp.float32
    assert case.loss.backward(cache).dtype == jnp.bfloat16


def test_an_equal_network_built_anew_compiles_nothing():
    x, target = jnp.ones((2, 3)), jnp.ones((2, 1))
    build = lambda: nn.chain(nn.Dense(4), nn.Tanh(), nn.Dense(1))
    params = build().init(jax.random.key(0), x)
    run = lambda: nn.value_and_grad(build(), nn.SigmoidBinaryCrossEntropy())(params, x, target)
    run()
    before = nn.backprop._value_and_grad.of.cache_info().misses
    run()
    assert nn.backprop._value_and_grad.of.cache_info().misses == before
