"""The grader: each of its verdicts is tested by planting the mistake that it names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from wrong_backwards import ATTENTION, LSTM, attention, lstm

import jaxnn as nn

X = np.random.default_rng(0).standard_normal((5, 4))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Give the search time, so that a slow machine finds the same."""
    monkeypatch.setattr("jaxnn.gradcheck.search.SECONDS", 30)


DENSE = nn.Dense(4)


def dense(change):
    """Change the backward of a Dense layer: (dw, db, dx, params, x, dy) -> (dw, db, dx)."""

    def backward(params, cache, dy):
        (dw, db), dx = DENSE.backward(params, cache, dy)
        dw, db, dx = change(dw, db, dx, params, cache, dy)
        return nn.DenseParams(dw, db), dx

    return backward


def findings(op, backward, **inputs):
    diagnosis = nn.diagnose(op, backward=backward, **({"x": X} | inputs))
    return {finding.leaf: finding for finding in diagnosis.findings}, diagnosis


DENSE_MISTAKES = {
    "right": ("x", lambda dw, db, dx, *_: (dw, db, dx), "is right"),
    "sign": ("params.w", lambda dw, db, dx, *_: (-dw, db, dx), "has the wrong sign"),
    "transposed": (
        "params.w",
        lambda dw, db, dx, *_: (dw.T, db, dx),
        "is the transpose of the right one. Both are square",
    ),
    "missing 1/B": (
        "x",
        lambda dw, db, dx, *_: (dw, db, 5 * dx),
        "is 5 times too large, and B = 5: a 1/B is missing",
    ),
    "extra 1/B": (
        "params.w",
        lambda dw, db, dx, *_: (dw / 5, db, dx),
        "is 5 times too small, and B = 5: there is a 1/B too",
    ),
    "batch sum": (
        "params.b",
        lambda dw, db, dx, p, x, dy: (dw, dy, dx),
        "lacks the sum over the batch: it has shape (5, 4)",
    ),
    "factor": ("params.b", lambda dw, db, dx, *_: (dw, 2.5 * db, dx), "is 2.5 times the expected"),
    "zero": (
        "params.b",
        lambda dw, db, dx, *_: (dw, 0 * db, dx),
        "is 0 everywhere; it should have the norm",
    ),
    "stale": (
        "x",
        lambda dw, db, dx, *_: (dw, db, jnp.ones_like(dx)),
        "does not change when dy does: it is a stale",
    ),
    "shape": (
        "x",
        lambda dw, db, dx, *_: (dw, db, dx[:, :2]),
        "has shape (5, 2); a gradient has the shape of what",
    ),
    "not finite": (
        "x",
        lambda dw, db, dx, *_: (dw, db, dx.at[1, 2].set(jnp.nan)),
        "is not finite: nan at [1, 2]",
    ),
    "wrong": (
        "x",
        lambda dw, db, dx, p, x, dy: (dw, db, dx + jnp.sin(x)),
        "a mistake that was not found, or by several at once",
    ),
}


@pytest.mark.parametrize("verdict", DENSE_MISTAKES)
def test_names_the_mistake_and_only_that_leaf(verdict):
    leaf, change, words = DENSE_MISTAKES[verdict]
    found, diagnosis = findings(DENSE, dense(change))
    assert (found[leaf].verdict, words in found[leaf].message) == (verdict, True), found[leaf]
    assert all(finding.verdict == "right" for name, finding in found.items() if name != leaf)
    assert diagnosis.right == (verdict == "right")
    assert str(diagnosis).count("✓") == (3 if verdict == "right" else 2)


def test_one_sample_is_not_the_batch():
    found, _ = findings(DENSE, dense(lambda dw, db, dx, p, x, dy: (dw, dy[0], dx)))
    assert found["params.b"].verdict == "batch sum"
    assert "of sample 0 alone" in found["params.b"].message


def test_a_transpose_that_shows_in_the_shape():
    layer = nn.Dense(3)
    wrong = lambda p, x, dy: (nn.DenseParams(dy.T @ x, dy.sum(axis=0)), dy @ p.w.T)
    found, _ = findings(layer, wrong)
    assert found["params.w"].verdict == "transposed"
    assert "its shape is (3, 4), not (4, 3)" in found["params.w"].message


def test_gradients_exchanged():
    layer = nn.BatchNorm()
    swap = lambda p, c, dy: (lambda d, dx: (d._replace(scale=d.bias, bias=d.scale), dx))(
        *layer.backward(p, c, dy)
    )
    found, _ = findings(layer, swap, key=jax.random.key(0))
    assert found["params.scale"].verdict == found["params.bias"].verdict == "exchanged"
    assert "is the gradient of params.bias" in found["params.scale"].message


SIGMOID_MISTAKES = {
    "derivative left out": (lambda p, y, dy: ((), dy), "lacks the derivative of Sigmoid"),
    "derivative alone": (
        lambda p, y, dy: ((), y * (1 - y)),
        "has the derivative of Sigmoid but not dy",
    ),
    "derivative at output": (
        lambda p, y, dy: ((), jax.nn.sigmoid(y) * (1 - jax.nn.sigmoid(y)) * dy),
        "takes the derivative of Sigmoid at its output",
    ),
    "derivative of input": (
        lambda p, y, dy: (lambda x: ((), x * (1 - x) * dy))(jnp.log(y / (1 - y))),
        "written in terms of its output, with the input put in",
    ),
}


@pytest.mark.parametrize("verdict", SIGMOID_MISTAKES)
def test_wrong_derivatives_of_an_activation(verdict):
    backward, words = SIGMOID_MISTAKES[verdict]
    found, _ = findings(nn.Sigmoid(), backward)
    assert (found["x"].verdict, words in found["x"].message) == (verdict, True), found["x"]


def test_wrong_derivatives_inside_a_network():
    net = nn.chain(nn.Dense(3), nn.Sigmoid())

    def of_the_lecture(params, cache, dy):  # the layer of the lecture, with z in place of y
        x, (w, b) = cache[0], params[0]
        z = x @ w + b[None]
        dz = z * (1 - z) * dy
        return (nn.DenseParams(x.T @ dz, dz.sum(axis=0)), ()), dz @ w.T

    found, _ = findings(net, of_the_lecture)
    assert {finding.verdict for finding in found.values()} == {"derivative of input"}


def test_right_except_at_kinks():
    x = X.copy()
    x[0, 0] = x[2, 1] = 0
    half = lambda p, y, dy: ((), jnp.where(y > 0, dy, jnp.where(x == 0, dy / 2, 0)))
    found, _ = findings(nn.ReLU(), half, x=x)
    assert found["x"].verdict == "kink"
    assert "differs in 2 of 20 entries, first at [0, 0]" in found["x"].message


def test_a_loss_without_its_mean():
    loss, target = nn.SigmoidBinaryCrossEntropy(), (X > 0) * 1
    found, _ = findings(loss, lambda cache: jax.nn.sigmoid(cache[0]) - cache[1], target=target)
    assert found["prediction"].verdict == "missing 1/B"
    assert "the 1/20 of the mean is missing" in found["prediction"].message
    assert findings(loss, loss.backward, target=target)[1].right


@pytest.mark.parametrize(
    ("backward", "words"),
    [
        (lambda p, c, dy: 1 / 0, r"does not run: ZeroDivisionError in line \d+: division by zero"),
        (
            lambda p, c, dy: DENSE.backward(p, c, dy)[0],
            "gives 2 gradients; 3 are expected: params.w, params.b, x",
        ),
        (lambda p, c, dy: (("a", "b"), "c"), "something that is not an array"),
    ],
)
def test_what_cannot_be_compared_is_said(backward, words):
    diagnosis = nn.diagnose(DENSE, backward=backward, x=X)
    assert [finding.verdict for finding in diagnosis.findings] == ["form"]
    assert re.search(words, str(diagnosis))


def not_written(params, cache, dy):
    raise NotImplementedError


def test_what_is_not_written_yet_is_no_mistake():
    assert "The backward is not written yet" in str(nn.diagnose(DENSE, backward=not_written, x=X))


def test_a_forgotten_slope_of_a_neuron_is_a_missing_factor():
    neuron = nn.Neuron()
    found, _ = findings(
        neuron, lambda p, c, dy: (nn.NeuronParams(X.T @ dy), jnp.outer(dy, p.theta))
    )
    assert found["x"].verdict == found["params.theta"].verdict == "factor"  # one mistake for both
    assert "the factor y[n]·(1 - y[n]) is left out" in found["x"].message
    assert "the formula of .activation is dx[n] = y[n]·(1 - y[n])·dy[n]" in found["x"].message


def test_a_gradient_that_need_not_depend_on_the_input_is_not_called_stale():
    found, _ = findings(DENSE, dense(lambda dw, db, dx, *_: (dw, db, jnp.roll(dx, 1, axis=1))))
    assert found["x"].verdict == "wrong"


@nn.layer
class Memory:
    """h = x + h / 2 through time: linear, but its derivative is not a factor for each entry."""

    def init(self, key, x):
        return ()

    def forward(self, params, x, key=None):
        step = lambda h, x: (x + h / 2, x + h / 2)
        return jax.lax.scan(step, jnp.zeros(len(x)), x.T)[1].T, None

    def backward(self, params, cache, dy):
        step = lambda dh, d: (d + dh / 2, d + dh / 2)
        return (), jax.lax.scan(step, jnp.zeros(len(dy)), dy.T, reverse=True)[1].T


@pytest.mark.parametrize(
    "backward", [lambda p, c, dy: ((), dy), lambda p, c, dy: Memory().forward(p, dy)[::-1]]
)
def test_mistakes_with_activations_are_not_seen_elsewhere(backward):
    found, _ = findings(Memory(), lambda p, c, dy: ((), backward(p, c, dy)[1]))
    assert found["x"].verdict == "wrong"


@nn.layer
class Slope:
    """y = a x, with a single number a."""

    def init(self, key, x):
        return jnp.ones(())

    def forward(self, params, x, key=None):
        return params * x, x

    def backward(self, params, cache, dy):
        return (cache * dy).sum(), params * dy


def test_any_wrong_value_of_one_number_is_some_factor():
    found, _ = findings(Slope(), lambda p, x, dy: ((abs(x) * dy).sum(), p * dy / 2))
    assert found["params"].verdict == "wrong"
    assert "is 0.5 times the expected: a constant factor of 2 is missing" in found["x"].message


# ── The search: a mistake is an edit of the stated formulas ──


def layer_norm(dx):
    """Make the backward of a LayerNorm with its own dx: (dxhat, xhat, rstd) -> dx."""

    def backward(params, cache, dy):
        xhat, dxhat = (cache.x - cache.mean) * cache.rstd, dy * params.scale[None]
        d = nn.LayerNorm().backward(params, cache, dy)[0]
        return d, dx(dxhat, xhat, cache.rstd)

    return backward


def mean(x):
    return x.mean(axis=-1, keepdims=True)


def of_tokens(params, cache, dy):  # assigns, so that a token that occurs twice is counted once
    w = np.zeros(params.w.shape)
    for n, token in enumerate(np.asarray(cache)):
        w[token] = dy[n]
    return type(params)(w), None


def convolution(params, cache, dy):
    (dw, db), _ = nn.Conv1D(2, 3).backward(params, cache, dy)
    dx = jnp.zeros(cache.shape)
    for k in range(3):  # slides the kernel in the direction of the forward pass
        moved = jnp.pad(dy, ((0, 0), (1, 1), (0, 0)))[:, k : k + dy.shape[1]]
        dx = dx + moved @ params.w[k].T
    return type(params)(dw, db), dx


def recurrence(params, cache, dy):  # each step by itself: nothing comes from the step after it
    x, h = cache.x, jnp.swapaxes(cache.states, 0, 1)
    before = jnp.concatenate([jnp.zeros_like(h[:, :1]), h[:, :-1]], axis=1)
    dz = (1 - h**2) * dy
    dwx, dwh = jnp.einsum("nti,ntk->ik", x, dz), jnp.einsum("ntj,ntk->jk", before, dz)
    return type(params)(dwx, dwh, dz.sum(axis=(0, 1))), dz @ params.wx.T


def updated(params, cache, dy):  # dx by weights that have made their step already
    d, _ = DENSE.backward(params, cache, dy)
    return d, dy @ (params.w - 0.1 * d.w).T


def decayed(params, cache, dy):
    d, dx = DENSE.backward(params, cache, dy)
    return d._replace(w=d.w + 0.01 * params.w), dx


TOKENS = np.array([1, 3, 1, 0, 3])
SERIES = np.random.default_rng(1).standard_normal((3, 6, 2))
LABELS = np.array([0, 3, 1, 2, 2])
SEARCHED = {
    "variance a constant": (
        nn.LayerNorm(), layer_norm(lambda d, xhat, rstd: (d - mean(d)) * rstd), {},
        {"x": "term"}, "the term xhat[n, c]·m_2[n] is left out",
    ),
    "mean a constant": (
        nn.LayerNorm(), layer_norm(lambda d, xhat, rstd: (d - xhat * mean(d * xhat)) * rstd), {},
        {"x": "term"}, "the term m_1[n] is left out",
    ),
    "only the diagonal": (
        nn.Softmax(), lambda p, c, dy: ((), (c.e / c.total) * (1 - c.e / c.total) * dy), {},
        {"x": "sum"}, "of the sum over j only the term j = i is kept",
    ),
    "no one-hot": (
        nn.SoftmaxCrossEntropy(), lambda cache: jax.nn.softmax(cache[0]) / 5, {"target": LABELS},
        {"prediction": "term"}, "the term 1 if t[n] = k else 0 is left out",
    ),
    "logits for probabilities": (
        nn.SoftmaxCrossEntropy(),
        lambda cache: (cache[0] - jax.nn.one_hot(LABELS, 4)) / 5, {"target": LABELS},
        {"prediction": "function"}, "y[n, k] stands in the place of its softmax",
    ),
    "z for its sigmoid": (
        nn.SigmoidBinaryCrossEntropy(), lambda cache: (cache[0] - cache[1]) / 20,
        {"target": (X > 0) * 1}, {"prediction": "function"}, "stands in the place of σ",
    ),
    "repeated tokens": (
        nn.Embedding(5, 3), of_tokens, {"x": TOKENS},
        {"params.w": "repeated"}, "only the last one counts",
    ),
    "kernel not turned": (
        nn.Conv1D(2, 3), convolution, {"x": SERIES}, {"x": "flip"}, "turned round the wrong way",
    ),
    "no way through time": (
        nn.RNN(3), recurrence, {"x": SERIES},
        dict.fromkeys(("params.wx", "params.wh", "params.b", "x"), "term"),
        "the term Σ_k dz[n, t + 1, k]·wh[j, k] is left out",
    ),
    "updated weights": (
        DENSE, updated, {}, {"x": "updated"}, "has been updated already, by -0.1 times",
    ),
    "a penalty": (DENSE, decayed, {}, {"params.w": "regulariser"}, "0.01·w[i, o] is added"),
    "the slope of another": (
        nn.Sigmoid(), lambda p, y, dy: ((), (1 - y**2) * dy), {},
        {"x": "slope"}, "it is the derivative of Tanh",
    ),
    "the way round left out": (
        nn.Residual(nn.Tanh()), lambda p, c, dy: ((), nn.Tanh().backward((), c, dy)[1]), {},
        {"x": "term"}, "the term dy[n, i] is left out",
    ),
    "smoothing ignored": (
        nn.SoftmaxCrossEntropy(smoothing=0.2),
        lambda cache: (jax.nn.softmax(cache[0]) - jax.nn.one_hot(LABELS, 4)) / 5,
        {"target": LABELS}, {"prediction": "setting"}, "smoothing is taken to be 0, not 0.2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEARCHED)
def test_the_search_finds_the_edit(name):
    op, backward, inputs, verdicts, words = SEARCHED[name]
    found, diagnosis = findings(op, backward, **inputs)
    wrong = {leaf: f.verdict for leaf, f in found.items() if f.verdict != "right"}
    assert wrong == verdicts, diagnosis
    assert all(words in found[leaf].message for leaf in wrong), diagnosis
    assert all("; the formula" in found[leaf].message for leaf in wrong)


def test_two_mistakes_in_different_gradients_are_both_found():
    def backward(params, cache, dy):
        d, dx = nn.LayerNorm().backward(params, cache, dy)
        xhat = (cache.x - cache.mean) * cache.rstd
        return d._replace(scale=(dy * cache.x).sum(axis=0)), dx + xhat * mean(dy * xhat) * 0 + dx

    found, _ = findings(nn.LayerNorm(), backward)
    assert "x[n, c] stands in the place of xhat" in found["params.scale"].message.replace(
        "x stands", "x[n, c] stands"
    )
    assert found["x"].verdict == "factor"


def test_what_is_none_of_these_is_located():
    wobble = lambda dw, db, dx, p, x, dy: (dw.at[2].add(0.3), db, dx.at[1:3].multiply(1.7))
    found, _ = findings(DENSE, dense(wobble))
    assert found["params.w"].message.endswith("It is right except at 2 along axis 0.")
    assert found["x"].message.endswith("It is right except at 1, 2 along axis 0.")


def test_a_gradient_that_no_backward_could_get_wrong_here_is_not_shown():
    dead = -np.abs(np.random.default_rng(0).normal(size=(4, 3)))
    found = nn.diagnose(nn.ReLU(), backward=lambda params, cache, dy: ((), 0 * dy), x=dead)
    assert [finding.verdict for finding in found.findings] == ["not shown"]
    assert not found.right
    assert "? The gradient of x is 0 at this input" in str(found)
    step = nn.Heaviside()  # its derivative is 0 everywhere
    assert nn.diagnose(step, backward=step.backward, x=dead).right


def test_a_gradient_that_is_0_but_for_rounding_is_right():
    """The bias of the keys moves all scores of a query alike, which the softmax does not see."""
    layer, x = nn.MultiHeadAttention(2), np.random.default_rng(3).standard_normal((3, 4, 4))

    def backward(params, cache, dy):
        d, dx = layer.backward(params, cache, dy)
        return d._replace(bk=d.bk + 1e-16), dx

    assert findings(layer, backward, x=x)[1].right


def diagnosis_of(layer, backward, channels):
    x = np.random.default_rng(3).standard_normal((3, 4, channels))
    wrong = [f for f in nn.diagnose(layer, backward=backward, x=x).findings if f.verdict != "right"]
    return [finding.verdict for finding in wrong]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", LSTM)
def test_a_mistake_in_an_lstm_is_named(mistake):
    verdicts = diagnosis_of(nn.LSTM(4), lstm(mistake), 3)
    assert (verdicts or ["right"])[0] == LSTM[mistake]
    assert "wrong" not in verdicts


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ATTENTION)
def test_a_mistake_in_attention_is_named(mistake):
    verdicts = diagnosis_of(nn.MultiHeadAttention(2, causal=True), attention(mistake), 4)
    assert (verdicts or ["right"])[0] == ATTENTION[mistake]
    assert "wrong" not in verdicts
