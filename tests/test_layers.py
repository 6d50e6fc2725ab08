"""Behaviour of layers beyond the contract: padding, memory, statistics, positions, composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAYERS, bits, distribution, normal, tokens

import jaxnn as nn

KEY = jax.random.key(0)


def forward(layer, x, key=None, params=None):
    x = jax.tree.map(jnp.asarray, x)
    params = layer.init(KEY, x) if params is None else params
    return layer.forward(params, x, key)[0]


def close(a, b, rtol=1e-10, atol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), a, b)


# ── Stability ───────────────────────────────────────────────────────────────────────────────────

ELEMENTWISE = sorted(
    {case.layer for case in LAYERS if hasattr(case.layer, "_check_backward")}, key=repr
)


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=repr)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_activations_are_finite_for_any_logit(activation, dtype):
    x = jnp.asarray([[-1e4, -300.0, -30.0, -1.0, 0.0], [1.0, 30.0, 300.0, 1e4, 2e4]], dtype)
    y, cache = activation.forward((), x)
    _, dx = activation.backward((), cache, jnp.ones_like(y))
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(dx).all()
    auto = jax.grad(lambda x: activation.forward((), x)[0].astype(float).sum())(x)
    assert jnp.isfinite(auto).all()


@pytest.mark.parametrize("scale", [1e4, 1.0])
def test_losses_on_logits_are_finite(scale):
    z = jnp.asarray(normal(5, 3)) * scale
    for loss, target in [
        (nn.SoftmaxCrossEntropy(), jnp.arange(5) % 3),
        (nn.SoftmaxCrossEntropy(smoothing=0.1), jnp.asarray(distribution(5, 3))),
        (nn.SigmoidBinaryCrossEntropy(), jnp.asarray(bits(5, 3))),
        (nn.Hinge(), jnp.asarray(2 * bits(5, 3) - 1)),
        (nn.Huber(), jnp.zeros((5, 3))),
    ]:
        value, cache = loss.forward(z, target)
        assert jnp.isfinite(value)
        assert jnp.isfinite(loss.backward(cache)).all()


def test_constant_inputs_normalise_to_the_bias():
    for layer in (nn.LayerNorm(), nn.GroupNorm(2), nn.BatchNorm()):
        x = jnp.full((1, 3, 4), 1e4)
        y, cache = layer.forward(layer.init(KEY, x), x, KEY)
        close(y, jnp.zeros_like(x), atol=1e-5)
        assert jnp.isfinite(layer.backward(layer.init(KEY, x), cache, y + 1)[1]).all()


# ── Dropout, BatchNorm: training and inference ──────────────────────────────────────────────────


def test_dropout_keeps_the_mean_and_draws_from_its_key():
    x = jnp.ones((200, 200))
    y = forward(nn.Dropout(0.3), x, KEY)
    assert abs(float((y == 0).mean()) - 0.3) < 0.01
    assert set(np.unique(y).round(6)) == {0.0, round(1 / 0.7, 6)}
    close(y, forward(nn.Dropout(0.3), x, KEY))
    assert (y != forward(nn.Dropout(0.3), x, jax.random.key(1))).any()
    close(forward(nn.Dropout(0.3), x), x)


def test_each_layer_of_a_network_draws_from_a_key_of_its_own():
    x = jnp.ones((50, 50))
    twice = forward(nn.Parallel((nn.Dropout(0.5), nn.Dropout(0.5))), x, KEY)
    assert (twice[:, :50] != twice[:, 50:]).any()
    repeated = forward(nn.Repeat(nn.Dropout(0.5), 2), x, KEY)
    assert 0.2 < float((repeated != 0).mean()) < 0.3


def test_batch_norm_moves_its_moments_on_and_uses_them_at_inference():
    layer, x = nn.BatchNorm(momentum=0.9), jnp.asarray(normal(64, 3) * 2 + 5)
    params = layer.init(KEY, x)
    for _ in range(200):
        _, cache = layer.forward(params, x, KEY)
        params = nn.advance(layer, params, cache)
    moments = params.moments.value
    close(moments.mean, x.mean(axis=0), rtol=1e-6)
    close(moments.variance, x.var(axis=0, ddof=1), rtol=1e-6)
    close(forward(layer, x, params=params), forward(layer, x, KEY, params), rtol=0, atol=0.05)
    _, cache = layer.forward(params, x)
    close(nn.advance(layer, params, cache), params)  # inference changes no statistics


def test_statistics_are_carried_by_every_combinator_and_kept_from_the_optimizer():
    block = nn.chain(nn.Dense(3), nn.BatchNorm())
    net = nn.chain(
        nn.Repeat(block, 2),
        nn.Residual(block),
        nn.Parallel((block, nn.Remat(block)), join="add"),
        nn.Dense(2),
    )
    x = jnp.asarray(normal(6, 3))
    params = net.init(KEY, x)
    _, cache = net.forward(params, x, KEY)
    after = nn.advance(net, params, cache)
    trained, running = nn.split_running(params)
    assert len(jax.tree.leaves(running)) == 2 * 4
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), running, nn.split_running(after)[1])
    assert all(jax.tree.leaves(moved))
    close(nn.split_running(after)[0], trained)
    close(nn.join_running(trained, running), params)
    assert jax.tree.structure(nn.join_running(trained, running)) == jax.tree.structure(params)
    dparams, _ = net.backward(params, cache, jnp.ones((6, 2)))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nn.split_running(dparams)[1]))


# ── Recurrent layers ────────────────────────────────────────────────────────────────────────────

RECURRENT = [nn.RNN, nn.LSTM, nn.GRU]


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_changes_nothing(kind, reverse):
    """In a padded batch, each sample has the result that it has alone, and padding no gradient."""
    layer = kind(3, reverse=reverse, return_state=True)
    x, lengths = jnp.asarray(normal(3, 5, 2)), jnp.array([5, 3, 1])
    params = layer.init(KEY, x)
    (y, state), cache = layer.forward(params, nn.Sequences(x, lengths))
    dy = jax.tree.map(lambda leaf: jnp.asarray(normal(*leaf.shape, seed=4)), (y, state))
    dparams, dx = layer.backward(params, cache, dy)
    total = jax.tree.map(jnp.zeros_like, params)
    for i, n in enumerate([5, 3, 1]):
        (alone, alone_state), alone_cache = layer.forward(params, x[i : i + 1, :n])
        close(y[i : i + 1, :n], alone)
        close(jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], state), alone_state)
        dy_alone = (dy[0][i : i + 1, :n], jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], dy[1]))
        dparams_alone, dx_alone = layer.backward(params, alone_cache, dy_alone)
        close(dx.x[i : i + 1, :n], dx_alone)
        total = jax.tree.map(jnp.add, total, dparams_alone)
    close(dparams, total)
    assert (y[1, 3:] == 0).all()
    assert (dx.x[1, 3:] == 0).all()


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_sequence_cut_in_two_goes_on_from_the_state(kind):
    layer, x = kind(3, return_state=True), jnp.asarray(normal(2, 6, 2))
    params = layer.init(KEY, x)
    whole, final = layer.forward(params, x)[0]
    first, state = layer.forward(params, x[:, :4])[0]
    second, last = layer.forward(params, nn.Sequences(x[:, 4:], None, state))[0]
    close(jnp.concatenate([first, second], axis=1), whole)
    close(last, final)


@pytest.mark.parametrize("kind", RECURRENT)
def test_reversed_is_the_mirror_image(kind):
    x = jnp.asarray(normal(2, 5, 2))
    params = kind(3).init(KEY, x)
    mirrored = kind(3).forward(params, x[:, ::-1])[0][:, ::-1]
    close(kind(3, reverse=True).forward(params, x)[0], mirrored)
    close(kind(3, reverse=True, output="last").forward(params, x)[0], mirrored[:, 0])


# ── Attention ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_attention_in_blocks_is_attention(block):
    x = jnp.asarray(normal(2, 7, 4))
    whole, lean = (
        nn.MultiHeadAttention(2, causal=True, rotary=True, block=b) for b in (None, block)
    )
    params = whole.init(KEY, x)
    (y, cache), (y_lean, cache_lean) = whole.forward(params, x), lean.forward(params, x)
    close(y_lean, y)
    dy = jnp.asarray(normal(*y.shape, seed=3))
    close(lean.backward(params, cache_lean, dy), whole.backward(params, cache, dy))


def test_the_lean_cache_holds_no_matrix_of_queries_by_keys():
    x = jnp.ones((1, 64, 4))
    sizes = {}
    for block in (None, 16):
        layer = nn.MultiHeadAttention(2, block=block)
        _, cache = layer.forward(layer.init(KEY, x), x)
        sizes[block] = max(leaf.size for leaf in jax.tree.leaves(cache))
    assert sizes[None] == 2 * 64 * 64
    assert sizes[16] == 64 * 4


def test_causal_attention_does_not_see_the_future():
    layer = nn.transformer_decoder(11, features=8, heads=2)
    x = tokens(1, 6, vocabulary=11)
    params = layer.init(KEY, x)
    changed = x.copy()
    changed[0, 4] = (x[0, 4] + 1) % 11
    before, after = forward(layer, x, params=params), forward(layer, changed, params=params)
    close(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any()


def test_masked_keys_do_not_matter_and_a_blind_query_gets_zero():
    layer = nn.MultiHeadAttention(2)
    x, lengths = jnp.asarray(normal(2, 4, 4)), jnp.array([4, 2])
    params = layer.init(KEY, x)
    changed = x.at[1, 2:].set(9.0)
    a, b = (layer.forward(params, nn.AttentionInput(v, lengths=lengths))[0] for v in (x, changed))
    close(a[1, :2], b[1, :2])
    blind = layer.forward(params, nn.AttentionInput(x, mask=jnp.zeros((4, 4), bool)))[0]
    close(blind, jnp.zeros_like(blind))


def test_rotary_attention_depends_on_distances_alone():
    layer = nn.MultiHeadAttention(1, rotary=True, bias=False)
    x = jnp.asarray(normal(1, 3, 4))
    params = layer.init(KEY, x)
    padded = jnp.concatenate([jnp.zeros((1, 5, 4)), x], axis=1)
    only_x = jnp.concatenate([jnp.zeros((8, 5), bool), jnp.ones((8, 3), bool)], axis=1)
    shifted = layer.forward(params, nn.AttentionInput(padded, mask=only_x))[0][:, 5:]
    close(shifted, layer.forward(params, x)[0])


def test_sinusoidal_positions_are_the_papers():
    y = forward(nn.SinusoidalPositions(), np.zeros((1, 4, 6)))[0]
    for t in range(4):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            close(y[t, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)])


# ── Embedding, pooling, composition ─────────────────────────────────────────────────────────────


def test_a_token_that_stands_twice_gets_both_gradients():
    layer, x = nn.Embedding(4, 2), jnp.array([[1, 3, 1]])
    params = layer.init(KEY, x)
    dy = jnp.asarray(normal(1, 3, 2))
    dparams, dx = layer.backward(params, x, dy)
    assert dx is None
    close(dparams.w[1], dy[0, 0] + dy[0, 2])
    close(dparams.w[0], jnp.zeros(2))


def test_under_jit_token_ids_are_clipped_in_both_directions():
    layer, x = nn.Embedding(4, 2), jnp.array([[9, -1]])
    params = layer.init(KEY, jnp.array([[0]]))
    y, cache = jax.jit(layer.forward)(params, x)
    close(y[0, 0], params.w[3])
    dparams, _ = jax.jit(layer.backward)(params, cache, jnp.ones((1, 2, 2)))
    assert (dparams.w[3] == 1).all()


def test_the_first_of_equal_maxima_gets_the_gradient():
    x = jnp.zeros((1, 2, 2, 1))
    y, cache = nn.MaxPool(2).forward((), x)
    _, dx = nn.MaxPool(2).backward((), cache, jnp.ones_like(y))
    assert dx.ravel().tolist() == [1, 0, 0, 0]
    auto = jax.grad(lambda x: nn.MaxPool(2).forward((), x)[0].sum())(x)
    close(dx, auto)


def test_average_pool_does_not_count_padding():
    x = jnp.ones((1, 3, 3, 1))
    close(forward(nn.AveragePool(2, padding="SAME"), x), jnp.ones((1, 2, 2, 1)))


def test_a_transposed_convolution_is_the_transpose():
    """<conv(x), y> = <x, conv_transpose(y)> for the same kernel."""
    x, conv = jnp.asarray(normal(1, 8, 6, 4)), nn.Conv2D(6, 3, stride=2, groups=2, bias=False)
    back = nn.ConvTranspose2D(4, 3, stride=2, groups=2, bias=False)
    params = conv.init(KEY, x)
    y = conv.forward(params, x)[0]
    v = jnp.asarray(normal(*y.shape, seed=2))
    close((y * v).sum(), (x * back.forward(params, v)[0]).sum())


def test_repeat_is_a_chain_of_its_blocks():
    block, x = nn.chain(nn.Dense(3), nn.Tanh()), jnp.asarray(normal(4, 3))
    repeated = nn.Repeat(block, 3)
    params = repeated.init(KEY, x)
    chained = nn.chain(block, block, block)
    unstacked = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(3))
    (y, cache), (y2, cache2) = repeated.forward(params, x), chained.forward(unstacked, x)
    close(y, y2)
    dparams, dx = repeated.backward(params, cache, y)
    dparams2, dx2 = chained.backward(unstacked, cache2, y)
    close(dx, dx2)
    close(dparams, jax.tree.map(lambda *leaves: jnp.stack(leaves), *dparams2))


def test_remat_keeps_only_its_input():
    body = nn.chain(nn.Dense(64), nn.Tanh(), nn.Dense(3))
    x = jnp.ones((8, 3))
    params = body.init(KEY, x)
    _, cache = nn.Remat(body).forward(params, x, KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(cache[0])) == x.size
    assert len(jax.tree.leaves(cache)) == 2  # x, and the key


@pytest.mark.parametrize(
    ("policy", "kept", "products"),
    [
        ("nothing_saveable", 0, 12 + 6),
        ("dots_with_no_batch_dims_saveable", 3, 12 + 2),
        ("dots_saveable", 5, 12),
    ],
)
def test_remat_repeats_the_products_that_its_policy_does_not_keep(policy, kept, products):
    """Attention has six products forward, of which two are without parameters, and twelve back."""
    body = nn.MultiHeadAttention(2)
    net, x = nn.Remat(body, policy=policy), jnp.asarray(normal(2, 5, 4))
    params = body.init(KEY, x)
    y, cache = net.forward(params, x)
    assert len(jax.tree.leaves(cache)) == 1 + kept  # x, and results of products
    backward = str(jax.make_jaxpr(net.backward)(params, cache, y))
    assert backward.count("dot_general[") == products
    close(net.backward(params, cache, y), body.backward(params, body.forward(params, x)[1], y))


def test_remat_and_repeat_use_the_memory_that_they_should():
    """The peak of Remat is an input for each block and one cache, instead of all caches."""
    block = nn.chain(nn.Dense(256), nn.Tanh(), nn.Dense(64))
    x, blocks = jnp.ones((512, 64)), 8

    def temporary(net):
        params = net.init(KEY, x)
        program = jax.jit(lambda p, x: net.backward(p, net.forward(p, x)[1], x))
        return program.lower(params, x).compile().memory_analysis().temp_size_in_bytes

    plain, lean = temporary(nn.Repeat(block, blocks)), temporary(nn.Repeat(nn.Remat(block), blocks))
    products = temporary(nn.Repeat(nn.Remat(block, policy="dots_saveable"), blocks))
    floats = 8 * 512
    assert plain >= blocks * (64 + 256) * floats  # x and the output of tanh, for each block
    # x for each block, and the cache of the block that is being computed
    assert lean <= (blocks * 64 + 4 * 256 + 8 * 64) * floats
    # beside them the first product of each block; the compiler drops the last, which nothing needs
    assert products - lean == pytest.approx(blocks * 256 * floats, rel=0.02)


def test_many_parameters_at_once_by_vmap():
    net, x = nn.lenet(3), jnp.asarray(normal(2, 8, 8, 1))
    many = jax.vmap(lambda key: net.init(key, x))(jax.random.split(KEY, 3))
    together = jax.vmap(lambda params: net.forward(params, x)[0])(many)
    for i in range(3):
        close(together[i], net.forward(jax.tree.map(lambda leaf, i=i: leaf[i], many), x)[0])


def test_ignored_positions_and_padding_do_not_count():
    z, labels = jnp.asarray(normal(2, 4, 3)), jnp.array([[0, 1, 2, -1], [2, -1, -1, -1]])
    loss = nn.SoftmaxCrossEntropy(ignore=-1)
    value, cache = loss.forward(z, labels)
    kept = labels.ravel() >= 0
    close(value, nn.SoftmaxCrossEntropy().forward(z.reshape(-1, 3)[kept], labels.ravel()[kept])[0])
    assert (loss.backward(cache)[labels < 0] == 0).all()
    nothing, cache = loss.forward(z, jnp.full((2, 4), -1))
    assert nothing == 0
    assert (loss.backward(cache) == 0).all()


def test_the_optax_adapter_says_what_it_is():
    assert "not" in nn.OptaxLoss.__doc__
    assert "JAX" in nn.OptaxLoss.__doc__
    value, cache = nn.OptaxLoss("squared_error").forward(
        jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1))
    )
    assert value == 5
    close(nn.OptaxLoss("squared_error").backward(cache), jnp.array([[1.0], [3.0]]))


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.Softplus()])
def test_an_activation_does_not_hide_nan(layer):
    assert np.isnan(layer.forward((), jnp.array([jnp.nan]))[0]).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_kernel_gives_what_attention_gives(monkeypatch, causal, masked):
    """The kernel of GPUs is not here; what JAX has in its place is handled in the same way."""
    monkeypatch.setattr("jaxnn.layers.attention.fused_kernel", lambda q: "xla")
    plain, fused = (
        nn.MultiHeadAttention(2, causal=causal, rotary=True, block=block)
        for block in (None, "fused")
    )
    mask = normal(2, 2, 5, 5) > 0
    mask[0, 1, 3] = False  # a query that may look at nothing
    x = jnp.asarray(normal(2, 5, 8), jnp.float32)
    x = nn.AttentionInput(x, mask=mask, lengths=np.array([5, 3])) if masked else x
    params = plain.init(KEY, x)
    (y, cache), (y_fused, cache_fused) = plain.forward(params, x), fused.forward(params, x)
    assert cache_fused.softmax is None  # nothing of size T x S is kept
    close(y_fused, y, 1e-5, 1e-6)
    dy = jnp.asarray(normal(2, 5, 8), jnp.float32)
    close(fused.backward(params, cache_fused, dy), plain.backward(params, cache, dy), 1e-4, 1e-5)
