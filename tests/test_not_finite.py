"""explain_nan: each cause planted, and found at its place."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn as nn

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
LOSS = nn.MeanSquaredError()


def explain(net, x=X, target=Y, loss=LOSS, change=lambda leaf: leaf, **options):
    params = jax.tree.map(change, net.init(jax.random.key(0), x))
    return nn.explain_nan(net, loss, params, x, target, **options)


def filled(value):
    return lambda leaf: jnp.full_like(leaf, value)


@nn.layer
class WrongBackward:
    """A layer whose backward divides by what may be 0."""

    def init(self, key, x):
        return ()

    def forward(self, params, x, key=None):
        return x * x, x

    def backward(self, params, cache, dy):
        return (), dy * cache * cache / cache * 2.0


@nn.layer
class WrongInTraining:
    """A layer that fails with a key only."""

    def init(self, key, x):
        return ()

    def forward(self, params, x, key=None):
        return x if key is None else jnp.log(x * 0), None

    def backward(self, params, cache, dy):
        return (), dy


def test_where_all_is_finite_it_says_so():
    report = explain(nn.mlp(4, 3))
    assert not report.found
    assert "finite" in str(report)


@pytest.mark.parametrize("name", ["x", "target", "weights"])
def test_data(name):
    arrays = {"x": X.copy(), "target": Y.copy(), "weights": np.ones(4, np.float32)}
    arrays[name][2] = np.inf
    report = explain(nn.Dense(3), **arrays)
    assert (report.stage, report.array, report.index[0]) == ("data", name, 2)
    assert "data" in report.cure


def test_parameters():
    report = explain(nn.chain(nn.Dense(4), nn.Dense(3)), change=filled(np.nan))
    assert (report.stage, report.array) == ("parameters", "params[0].w")
    assert "earlier" in report.cure


def test_a_forward_that_overflows_in_a_block():
    block = nn.chain(nn.Dense(3), nn.ReLU())
    net = nn.chain(nn.Repeat(block, times=30), nn.Dense(3))
    report = explain(net, X + 9, change=filled(30.0))
    assert report.stage == "forward"
    assert report.path.startswith("[0].block[")
    assert report.op == nn.Dense(3)
    assert report.operation == "dot_general"
    assert "x @ w" in report.line
    assert "learning rate" in report.cure


def test_a_norm_of_constant_features():
    report = explain(nn.chain(nn.LayerNorm(epsilon=1e-38)), np.zeros_like(X))
    assert (report.stage, report.path, report.operation) == ("forward", "[0]", "rsqrt")
    assert "epsilon" in report.cure
    assert ("variance", "0 to 0") in report.values


def test_the_sum_of_a_residual_is_its_own_work():
    report = explain(nn.Residual(nn.Dense(3)), X * 0 + 3e38, change=filled(0.3))
    assert (report.path, report.op) == ("", nn.Residual(nn.Dense(3)))
    assert report.operation == "add"


def test_a_loss_of_probabilities_behind_no_sigmoid():
    report = explain(nn.Dense(3), target=np.ones((4, 3)), loss=nn.BinaryCrossEntropy())
    assert (report.stage, report.array) == ("loss", "J")
    assert "SigmoidBinaryCrossEntropy" in report.cure


def test_a_probability_of_0():
    net = nn.chain(nn.Dense(3), nn.Sigmoid())
    report = explain(net, X * 1e4, np.zeros((4, 3)), nn.BinaryCrossEntropy())
    assert report.value == np.inf
    assert "logits" in report.cure


def test_a_loss_that_overflows():
    report = explain(nn.Dense(3), X * 1e25)
    assert (report.stage, report.operation) == ("loss", "integer_pow")


def test_a_backward():
    x = X.copy()
    x[1, 2] = 0
    report = explain(nn.chain(WrongBackward(), nn.Tanh()), x)
    assert (report.stage, report.path, report.array) == ("backward", "[0]", "dx")
    assert report.index == (1, 2)
    assert report.operation == "div"
    assert "/ cache" in report.line
    assert "epsilon" in report.cure


def test_training_mode_is_that_of_the_key():
    assert not explain(WrongInTraining()).found
    report = explain(WrongInTraining(), key=jax.random.key(0))
    assert (report.stage, report.operation) == ("forward", "log")


@pytest.mark.parametrize("stream", [False, True])
def test_training_offers_it_and_makes_the_failing_step_again(stream):
    x, y = np.tile(X, (16, 1)), np.tile(Y, (16, 1))
    data = [(x[:16], y[:16])] * 40 if stream else (x, y)
    size = {} if stream else {"batch_size": 16}
    with pytest.raises(nn.TrainingError, match="explain_nan") as caught:
        nn.fit(nn.chain(nn.Dense(8), nn.Dense(3)), LOSS, optax.sgd(1e3), data, steps=40,
               key=jax.random.key(0), **size)  # fmt: skip
    report = caught.value.explain_nan()
    assert report.stage in ("loss", "forward", "backward")
    assert "learning rate" in report.cure


def test_an_update_that_is_not_finite():
    with pytest.raises(nn.TrainingError) as caught:
        nn.fit(nn.Dense(3), LOSS, optax.sgd(3e38), (X, 100 * Y), steps=9, batch_size=4,
               key=jax.random.key(0))  # fmt: skip
    report = caught.value.explain_nan()
    assert (report.stage, report.array) == ("update", "params.w")


def test_another_error_of_training_has_nothing_to_explain():
    def broken(event):
        raise ValueError("no")

    with pytest.raises(nn.TrainingError) as caught:
        nn.fit(nn.Dense(3), LOSS, optax.sgd(0.1), (X, Y), steps=2, batch_size=4,
               key=jax.random.key(0), callbacks=[broken])  # fmt: skip
    with pytest.raises(nn.InputError, match="not finite"):
        caught.value.explain_nan()


@pytest.mark.usefixtures("as_users_see_it")
def test_bad_input():
    with pytest.raises(nn.InputError, match="expected net to be a layer"):
        nn.explain_nan("net", LOSS, (), X, Y)
    with pytest.raises(nn.InputError, match=r"Dense.*expected x of shape"):
        explain(nn.Dense(3), change=lambda leaf: leaf[:2])
