"""Properties that hold for any network and any numbers (hypothesis)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import jaxnn as nn

activations = st.sampled_from([nn.Sigmoid(), nn.Tanh(), nn.ReLU()])
finite = st.floats(-1e3, 1e3)
quick = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def networks(draw):
    hidden = draw(
        st.lists(st.tuples(st.integers(1, 4), st.booleans(), activations), min_size=0, max_size=2)
    )
    layers = [
        layer
        for size, bias, activation in hidden
        for layer in (nn.Dense(size, bias=bias), activation)
    ]
    return nn.chain(*layers, nn.Dense(1))


@quick
@given(networks())
def test_any_network_is_a_value(net):
    assert eval(repr(net), vars(nn).copy()) == net
    assert nn.from_json(nn.to_json(net)) == net


@pytest.mark.slow
@quick
@given(networks(), st.integers(0, 1000), st.integers(1, 4))
def test_hand_and_auto_agree_on_any_network(net, seed, batch):
    rng = np.random.default_rng(seed)
    x, target = rng.standard_normal((batch, 3)), rng.integers(0, 2, (batch, 1))
    params = net.init(jax.random.key(seed), x)
    hand, auto = (
        nn.value_and_grad(net, nn.SigmoidBinaryCrossEntropy(), m)(params, x, target)
        for m in ("hand", "auto")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), hand, auto)


@quick
@given(
    hnp.arrays(float, (3, 2), elements=finite), hnp.arrays(int, (3, 2), elements=st.integers(0, 1))
)
def test_no_nan_out_of_finite_input(z, target):
    p, cache = nn.Sigmoid().forward((), jnp.asarray(z))
    value, loss_cache = nn.BinaryCrossEntropy().forward(p, jnp.asarray(target))
    _, dz = nn.Sigmoid().backward((), cache, nn.BinaryCrossEntropy().backward(loss_cache))
    assert not np.isnan(value)
    assert np.isfinite(dz).all()
    fused, fused_cache = nn.SigmoidBinaryCrossEntropy().forward(jnp.asarray(z), jnp.asarray(target))
    assert np.isfinite(fused)
    assert (np.abs(nn.SigmoidBinaryCrossEntropy().backward(fused_cache)) <= 1).all()


@quick
@given(
    hnp.arrays(float, (4, 3), elements=st.floats(-5, 5)),
    hnp.arrays(float, (3,), elements=st.floats(-5, 5)),
)
def test_a_layer_is_its_neurons_in_parallel(x, theta):
    layer = nn.chain(nn.Dense(1, bias=False), nn.Sigmoid())
    params = (nn.DenseParams(jnp.asarray(theta)[:, None], None), ())
    together = nn.apply(layer, params, x)[:, 0]
    alone = nn.apply(nn.Neuron(), nn.NeuronParams(jnp.asarray(theta)), x)
    np.testing.assert_allclose(together, alone, rtol=1e-12)
