"""Padded sequences: lengths reach every layer that takes them, and padding changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn as nn

TOKENS = np.array([[1, 2, 3, 4, 5], [3, 1, 2, 0, 0], [4, 0, 0, 0, 0]])
LENGTHS = np.array([5, 3, 1])
PADDED = nn.Sequences(TOKENS, LENGTHS)
EMBEDDING = nn.Embedding(7, 4)

NETWORKS = {
    "recurrent classifier": nn.recurrent_classifier(7, 3, features=4),
    "transformer encoder": nn.transformer_encoder(7, 3, features=4, heads=2),
    "two recurrent layers": nn.chain(EMBEDDING, nn.Residual(nn.GRU(4)), nn.LSTM(3), nn.Dense(2)),
    "attention behind a norm": nn.chain(
        EMBEDDING, nn.LayerNorm(), nn.Remat(nn.MultiHeadAttention(2)), nn.GlobalAveragePool()
    ),
    "frozen": nn.chain(EMBEDDING, nn.Frozen(nn.chain(nn.Dense(4), nn.GRU(3, output="last")))),
    "language model": nn.LanguageModel(
        7,
        4,
        nn.Repeat(nn.Residual(nn.chain(nn.LayerNorm(), nn.MultiHeadAttention(2, causal=True))), 2),
    ),
}

every_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.mark.slow
@every_network
def test_padding_changes_nothing(name):
    net = NETWORKS[name]
    params = net.init(jax.random.key(0), PADDED)
    together, _ = net.forward(params, jax.tree.map(jnp.asarray, PADDED))
    for i, length in enumerate(LENGTHS):
        alone, _ = net.forward(params, jnp.asarray(TOKENS[i : i + 1, :length]))
        padded = together[i : i + 1] if together.ndim == 2 else together[i : i + 1, :length]
        np.testing.assert_allclose(padded, alone, atol=1e-12)


@pytest.mark.slow
@every_network
def test_gradients_through_padding_are_certified(name):
    assert nn.certify(NETWORKS[name], PADDED).worst_vs_autodiff < 1e-12


@every_network
def test_the_formulas_of_a_padded_pass_hold(name):
    from jaxnn.equations import equations_of

    net = NETWORKS[name]
    params = net.init(jax.random.key(0), PADDED)
    y = jax.eval_shape(lambda p, x: net.forward(p, x)[0], params, PADDED)
    target = np.random.default_rng(0).standard_normal(y.shape)
    equations = equations_of(nn.trace(net, nn.MeanSquaredError(), params, PADDED, target))
    computed = equations.recompute({})
    for step in equations.steps:
        expected = equations.values[step.defines]
        np.testing.assert_allclose(computed[step.defines], expected, atol=1e-10)


@pytest.mark.slow
def test_states_and_contexts_pass_through_combinators():
    rng = np.random.default_rng(0)
    x = nn.Sequences(rng.standard_normal((2, 3, 4)), None, rng.standard_normal((2, 3)))
    assert nn.certify(nn.chain(nn.Tanh(), nn.GRU(3)), x).passed
    crossed = nn.AttentionInput(rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 5, 4)))
    block = nn.Residual(nn.chain(nn.LayerNorm(), nn.MultiHeadAttention(2)))
    certificate = nn.certify(nn.Repeat(block, 2), crossed)
    assert "x.context" in [row.leaf for row in certificate.rows]


def test_fit_takes_padded_text():
    fit = nn.fit(
        NETWORKS["recurrent classifier"],
        nn.SoftmaxCrossEntropy(),
        optax.adam(1e-2),
        (PADDED, np.array([0, 1, 2])),
        epochs=60,
        batch_size=3,
        key=jax.random.key(0),
    )
    assert fit.history["loss"][-1] < 0.1
    assert fit.predict(PADDED).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.usefixtures("as_users_see_it")
@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.chain(EMBEDDING, nn.Conv1D(3, 3)), r"\[1\] Conv1D.*expected an input without lengths"),
        (
            nn.chain(EMBEDDING, nn.BatchNorm()),
            r"\[1\] BatchNorm.*expected an input without lengths",
        ),
    ],
)
def test_a_layer_that_would_mix_padding_in_is_refused(net, message):
    with pytest.raises(nn.InputError, match=message):
        net.init(jax.random.key(0), PADDED)


@pytest.mark.usefixtures("as_users_see_it")
def test_lengths_beyond_the_sequence_are_refused_wherever_they_go():
    net = NETWORKS["recurrent classifier"]
    params = net.init(jax.random.key(0), PADDED)
    with pytest.raises(nn.InputError, match=r"expected lengths in \[0, 5\], got 6"):
        nn.predict(net, params, nn.Sequences(TOKENS, LENGTHS + 1))


@pytest.mark.usefixtures("as_users_see_it")
@pytest.mark.parametrize("net", [nn.GRU(3), nn.MultiHeadAttention(2)], ids=repr)
def test_sequences_without_a_step_are_refused(net):
    params = net.init(jax.random.key(0), np.ones((2, 3, 4)))
    with pytest.raises(nn.InputError, match="at least one"):
        net.forward(params, jnp.ones((2, 0, 4)))
