"""Training in other precisions: distance to float64, loss scaling, layers with one of their own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn.training.precision import PRECISIONS

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6, 6, 2)).astype(np.float32)
TOKENS = RNG.integers(0, 7, (8, 5))
Y = np.arange(16) % 3
LOSS = nn.SoftmaxCrossEntropy()
NETWORKS = {
    "mlp": (nn.chain(nn.Flatten(), nn.Dense(8), nn.GELU(), nn.Dense(3)), X, Y),
    "convolutions": (
        nn.chain(
            nn.Conv2D(4, 3), nn.BatchNorm(), nn.ReLU(), nn.MaxPool(2), nn.Flatten(), nn.Dense(3)
        ),
        X,
        Y,
    ),
    "gru": (nn.chain(nn.Embedding(7, 4), nn.GRU(6, output="last"), nn.Dense(3)), TOKENS, Y[:8]),
    "decoder": (nn.transformer_decoder(7, features=8, heads=2, layers=2), TOKENS, TOKENS),
    "layers of their own": (
        nn.chain(
            nn.Flatten(), nn.Dense(8), nn.Cast(nn.LayerNorm(), "float32"), nn.Tanh(), nn.Dense(3)
        ),
        X,
        Y,
    ),
}


def single(tree):
    is_floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.tree.map(lambda leaf: leaf.astype("float32") if is_floating(leaf) else leaf, tree)


def gradient(net, x, y, params, method="hand", precision=None):
    rule = nn.loss_scaling(optax.sgd(1.0)) if precision == "float16" else optax.sgd(1.0)
    state = nn.init_state(net, rule, x, KEY, params)
    after, _ = jax.jit(nn.train_step(net, LOSS, rule, method=method, precision=precision))(
        state, (x, y)
    )
    moved = jax.tree.map(lambda a, b: np.asarray(a - b, np.float64), after.params, params)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(moved)])


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *itertools.product(NETWORKS, ("bfloat16", "float16")),
        *itertools.product(["mlp"], ("tf32", "float32", "float64")),
    ],
)
def test_by_hand_is_as_near_to_float64_as_by_jax(name, precision):
    net, x, y = NETWORKS[name]
    params = single(net.init(KEY, x))
    double = jax.tree.map(lambda leaf: leaf.astype("float64"), params)
    exact = gradient(net, x, y, double, precision="float64")
    off = {
        method: np.linalg.norm(gradient(net, x, y, params, method, precision) - exact)
        / np.linalg.norm(exact)
        for method in ("hand", "auto")
    }
    eps = float(jnp.finfo(PRECISIONS[precision].dtype).eps)
    assert off["hand"] < 1.5 * off["auto"] + 2 * max(eps, 1e-7)  # the update rounds to float32
    assert off["hand"] < max(20 * eps, 1e-6)


@pytest.mark.parametrize(
    ("precision", "told"), [("tf32", "[HIGH, HIGH]"), ("float32", "[HIGHEST, HIGHEST]")]
)
def test_products_of_matrices_are_asked_for_in_this_precision(precision, told):
    net = nn.Dense(3)
    state = nn.init_state(net, optax.sgd(1.0), X[..., 0, 0], KEY)
    step = nn.train_step(net, LOSS, optax.sgd(1.0), precision=precision)
    program = jax.jit(step).lower(state, (X[..., 0, 0], Y)).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products
    assert all(told in line for line in products)


def test_float64_needs_jax_to_have_it():
    with (
        jax.enable_x64(False),
        pytest.raises(nn.InputError, match="train_step: expected a precision that JAX is set to"),
    ):
        nn.train_step(nn.Dense(3), LOSS, optax.sgd(1.0), precision="float64")


# ── float16 and the scale of the loss ───────────────────────────────────────────────────────────

ROWS = X.reshape(16, -1)
MLP = nn.mlp(8, 3)


def half(rule=None, **options):
    rule = nn.loss_scaling(optax.adam(1e-2)) if rule is None else rule
    params = single(MLP.init(KEY, ROWS))
    given = {"epochs": 3, "batch_size": 4, "key": KEY, "params": params, "precision": "float16"}
    return nn.fit(MLP, LOSS, rule, (ROWS, Y), **given | options)


def test_small_derivatives_survive_in_float16():
    """Without a scale, derivatives below 6e-8 are 0; a weight of the loss makes them so small."""
    net, rows = nn.Dense(1, bias=False), np.full((4, 1), 1e-4, np.float32)
    params, target = nn.DenseParams(jnp.zeros((1, 1), jnp.float32), None), np.full((4, 1), 1e-4)
    step = nn.train_step(net, nn.MeanSquaredError(), rule := nn.loss_scaling(optax.sgd(1.0)),
                         precision="float16")  # fmt: skip
    state = nn.init_state(net, rule, rows, KEY, params)
    after, _ = step(state, (rows, target))
    np.testing.assert_allclose(after.params.w, 2e-8, rtol=1e-2)


def test_a_step_that_overflows_is_left_out_and_halves_the_scale():
    fit = half(nn.loss_scaling(optax.adam(1e-2), initial=2.0**24, period=9), epochs=20)
    assert np.isfinite(fit.history["step_loss"]).all()
    assert fit.history["loss"][-1] < fit.history["loss"][0]
    rule = nn.loss_scaling(optax.sgd(1.0), initial=8.0, period=2)
    params = {"w": jnp.ones(2)}
    state = rule.init(params)
    good, bad = {"w": jnp.full(2, 8.0)}, {"w": jnp.array([jnp.inf, 1.0])}
    updates, state = rule.update(good, state, params)
    assert (updates["w"].tolist(), float(state.scale), int(state.good)) == ([-1, -1], 8, 1)
    updates, state = rule.update(bad, state, params)
    assert (updates["w"].tolist(), float(state.scale), int(state.good)) == ([0, 0], 4, 0)
    for _ in range(2):
        updates, state = rule.update({"w": jnp.full(2, 4.0)}, state, params)
    assert (updates["w"].tolist(), float(state.scale), int(state.good)) == ([-1, -1], 8, 0)


def test_the_scale_is_resumed_with_the_run(tmp_path):
    whole = half(nn.loss_scaling(optax.adam(1e-2), period=5))
    half(nn.loss_scaling(optax.adam(1e-2), period=5), epochs=1, checkpoint=tmp_path)
    again = half(nn.loss_scaling(optax.adam(1e-2), period=5), checkpoint=tmp_path)
    assert np.array_equal(whole.history["step_loss"], again.history["step_loss"])
    assert float(again.state.opt_state.scale) == float(whole.state.opt_state.scale) > 2.0**15


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (optax.adam(1e-2), r"loss scaling for float16, such as jaxnn.loss_scaling\("),
        (optax.chain(nn.loss_scaling(optax.adam(1e-2))), "around the whole optimizer"),
    ],
)
def test_float16_needs_loss_scaling_around_the_optimizer(rule, message):
    with pytest.raises(nn.InputError, match=message):
        half(rule)


@pytest.mark.parametrize("options", [{"initial": 0.0}, {"initial": "a"}, {"period": 0}])
def test_settings_of_the_scale_are_checked(options):
    with pytest.raises(nn.InputError, match=r"loss_scaling: expected (initial|period) to be"):
        nn.loss_scaling(optax.adam(1e-2), **options)


# ── A layer with a precision of its own ─────────────────────────────────────────────────────────


def test_a_layer_of_its_own_precision_is_not_rounded_with_the_rest():
    """A weight of 1 + 2**-12 is 1 in bfloat16."""
    weight = nn.DenseParams(jnp.full((1, 1), 1 + 2.0**-12, jnp.float32), None)
    x, target = np.ones((2, 1), np.float32), np.zeros((2, 1), np.float32)
    losses = {}
    for net, params in (
        (nn.Dense(1, bias=False), weight),
        (nn.Cast(nn.Dense(1, bias=False), "float32"), nn.types.Kept(weight)),
    ):
        step = nn.train_step(net, nn.MeanSquaredError(), optax.sgd(0.0), precision="bfloat16")
        state = nn.init_state(net, optax.sgd(0.0), x, KEY, params)
        losses[type(net)] = float(step(state, (x, target))[1]["loss"])
    assert losses[nn.Dense] == 1.0
    assert losses[nn.Cast] == 1.0  # the output goes back to bfloat16, but not the weight
    y = nn.predict(nn.Cast(nn.Dense(1, bias=False), "float32"), nn.types.Kept(weight), x)
    assert float(y[0, 0]) == 1 + 2.0**-12


@pytest.mark.usefixtures("as_users_see_it")
def test_a_dtype_that_jax_does_not_have_and_bare_parameters_are_refused():
    net = nn.Cast(nn.Dense(3), "float64")
    params = net.init(KEY, ROWS)
    with pytest.raises(nn.InputError, match=r"Cast: expected parameters wrapped as Kept"):
        net.forward(params.value, ROWS)
    with jax.enable_x64(False), pytest.raises(nn.InputError, match="JAX is set to have"):
        nn.Cast(nn.Dense(3), "float64").forward(single(params), jnp.asarray(ROWS))
    with pytest.raises(nn.InputError, match="expected dtype to be one of"):
        nn.Cast(nn.Dense(3), "half")
