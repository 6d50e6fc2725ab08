"""The grader on mistakes in the loops of a program, in a part of an equation, or in another line.

Each backward pass is written as a student writes it, in NumPy, with one mistake; beside it stands
what the report has to say.
"""

import jax
import numpy as np
import pytest
from scipy import special

import jaxnn as nn

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Give the search time, so that a slow machine finds the same."""
    monkeypatch.setattr("jaxnn.gradcheck.search.SECONDS", 30)


def normal(*shape):
    return RNG.standard_normal(shape)


def report(op, backward, **inputs):
    return str(nn.diagnose(op, backward=backward, **inputs))


# ── Normalisation ───────────────────────────────────────────────────────────────────────────────

NORMS = {
    "": None,
    "axis": "the means are taken over axis 0",
    "sums": "sums stand in the place of both means",
    "count": "both means are divided by 5, the length of axis 0, not by 4",
    "scale": "scale is multiplied in after the means are subtracted, not before",
    "variance": "the variance is divided by 3, not by 4",
    "Bessel": "3, one less than the number of values, stands in the place of 4",
    "outside": "is added outside the root, not inside",
    "no ε": "ε is left out, in x̂ too",
    "power": "the power of",
    "centred": "the division by √(v[n] + 0.1) is left out",
}


@pytest.mark.parametrize("mistake", NORMS)
def test_layer_norm(mistake):
    x, params, epsilon = normal(5, 4), nn.NormParams(1 + normal(4) / 3, normal(4)), 0.1

    def backward(params, cache, dy):
        x, scale, dy = (np.asarray(a) for a in (cache.x, params.scale, dy))
        centred = x - x.mean(-1, keepdims=True)
        count = 3 if mistake == "variance" else 4
        v = (centred**2).sum(-1, keepdims=True) / count
        std = np.sqrt(v) if mistake == "no ε" else np.sqrt(v + epsilon)
        xhat = centred / std
        std = np.sqrt(v) + epsilon if mistake == "outside" else std
        dxhat = dy if mistake == "scale" else scale * dy
        axis = 0 if mistake == "axis" else -1
        mean = lambda a: a.mean(axis, keepdims=True) * {"sums": 4, "count": 4 / 5}.get(mistake, 1)
        through = xhat * mean(dxhat * xhat) * (4 / 3 if mistake == "Bessel" else 1)
        through = through * std**2 if mistake == "power" else through
        dx = (dxhat - mean(dxhat) - through) / std
        dx = scale * dx if mistake == "scale" else dx
        dscale = (dy * (centred if mistake == "centred" else xhat)).sum(0)
        return nn.NormParams(dscale, dy.sum(0)), dx

    said = report(nn.LayerNorm(epsilon=epsilon), backward, x=x, params=params)
    assert ("✗" not in said) if mistake == "" else NORMS[mistake] in said


# ── Windows ─────────────────────────────────────────────────────────────────────────────────────

POOLS = {
    "": None,
    "all": "first[n, r, s, c] = (p - r·2)·3 + q - s·2 is not asked for; the formula is",
    "shared": "dy is shared equally among a window, as by average pooling",
    "size": "dy goes to the entry of the largest absolute value",
    "smallest": "dy goes to the smallest entry",
    "channels": "the largest is looked for in all channels, not in each",
    "value": "dy is multiplied by the largest entry itself",
    "stride": "the stride is ignored",
    "overwritten": "= stands for +=",
}


@pytest.mark.parametrize("mistake", POOLS)
def test_max_pool(mistake):
    def backward(params, cache, dy):
        x, dy = np.asarray(cache[0]), np.asarray(dy)
        dx, by = np.zeros_like(x), 1 if mistake == "stride" else 2
        for n, r, s, c in np.ndindex(dy.shape):
            place = n, slice(r * by, r * by + 3), slice(s * by, s * by + 3)
            window, every = x[(*place, c)], x[place]
            share = {
                "all": np.ones((3, 3)),
                "shared": np.full((3, 3), 1 / 9),
                "size": abs(window) == abs(window).max(),
                "smallest": window == window.min(),
                "channels": window == every.max(),
                "value": (window == window.max()) * window,
            }.get(mistake, window == window.max())
            dx[(*place, c)] = dy[n, r, s, c] * share + (
                0 if mistake == "overwritten" else dx[(*place, c)]
            )
        return (), dx

    said = report(nn.MaxPool(3, stride=2), backward, x=normal(2, 7, 7, 2))
    assert ("✗" not in said) if mistake == "" else POOLS[mistake] in said


def conv(mistake):
    def backward(params, cache, dy):
        x, w, dy = (np.asarray(a) for a in (cache, params.w, dy))
        dx, dw = np.zeros_like(x), np.zeros_like(w)
        for n, r in np.ndindex(dy.shape[:2]):
            window = slice(r, r + 3)
            given = w @ dy[n, r]
            dx[n, window] = given + (0 if mistake == "dx" else dx[n, window])
            dw = x[n, window, :, None] * dy[n, r] + (0 if mistake == "dw" else dw)
        return nn.ConvParams(dw, dy.sum((0, 1))), dx

    return backward


@pytest.mark.parametrize(
    ("mistake", "words"),
    [("dx", "each overwrites what others gave"), ("dw", "only the last place of the last sample")],
)
def test_conv_that_overwrites(mistake, words):
    layer = nn.Conv1D(3, 3, padding="VALID")
    assert words in report(layer, conv(mistake), x=normal(2, 6, 2))


# ── Sequences ───────────────────────────────────────────────────────────────────────────────────

RNNS = {
    "dh": "dh stands in the place of dz, on the way to the step before",
    "slope": "only dy[n, t, j] is multiplied by 1 - h[n, t, j]², not Σ_k'' dz",
    "cut": "nothing is passed back from step 2 to step 1",
    "clipped": "is clipped: it is right up to 0.5 in size",
}


@pytest.mark.parametrize("mistake", RNNS)
def test_rnn(mistake):
    def backward(params, cache, dy):
        x, h, dy, (wx, wh, b) = *(np.asarray(a) for a in (cache.x, cache.states, dy)), params
        dwx, dwh, db, dx = (np.zeros(a.shape) for a in (wx, wh, b, x))
        later = np.zeros_like(h[0])
        for t in reversed(range(x.shape[1])):
            dh, slope = dy[:, t] + later, 1 - h[t] ** 2
            dz = dy[:, t] * slope + later if mistake == "slope" else dh * slope
            dwx, db = dwx + x[:, t].T @ dz, db + dz.sum(0)
            dwh = dwh + (h[t - 1].T @ dz if t else 0)
            dx[:, t] = dz @ wx.T
            later = (dh if mistake == "dh" else dz) @ wh.T * (mistake != "cut" or t != 2)
        if mistake == "clipped":
            dwx, dwh, db = (np.clip(d, -0.5, 0.5) for d in (dwx, dwh, db))
        return nn.RecurrentParams(dwx, dwh, db), dx

    assert RNNS[mistake] in report(nn.RNN(3), backward, x=normal(2, 5, 3))


GRUS = {
    "h for c": "the state before, h[n, t - 1, j], stands in the place of c[n, t, j]",
    "slope": "the factor 1 - g[n, t, j]² is left out",
    "1 - u": "1 - u[n, t + 1, j] stands in the place of u[n, t + 1, j]",
    "block": "of the sum over k, gate 0 of 3 is left out",
    "convention": "u and 1 - u have changed places",
}


@pytest.mark.parametrize("mistake", GRUS)
def test_gru(mistake):
    def backward(params, cache, dy):
        x, h, dy = (np.asarray(a) for a in (cache.x, cache.states, dy))
        wx, wh, (batch, steps, _), size = params.wx, params.wh, x.shape, params.wh.shape[0]
        dwx, dwh, db, dbh, dx = (np.zeros(np.shape(a)) for a in (*params, x))
        later = np.zeros((batch, size))
        for t in reversed(range(steps)):
            r, u, g, c = (np.asarray(gate[t]) for gate in cache.gates)
            before = h[t - 1] if t else np.zeros((batch, size))
            dh = dy[:, t] + later
            other = mistake == "convention"
            dg, du = dh * (u if other else 1 - u), dh * (before - g) * (-1 if other else 1)
            dzg = dg * (1 - g**2)
            dr = (dg if mistake == "slope" else dzg) * (before if mistake == "h for c" else c)
            dz = np.concatenate([dr * r * (1 - r), du * u * (1 - u), dzg], 1)
            dzh = np.concatenate([dz[:, : 2 * size], dzg * r], 1)
            dwx, db, dwh = dwx + x[:, t].T @ dz, db + dz.sum(0), dwh + before.T @ dzh
            dbh, dx[:, t] = dbh + dzh[:, 2 * size :].sum(0), dz @ wx.T
            first = size if mistake == "block" else 0
            direct = 1 - u if mistake in ("1 - u", "convention") else u
            later = dzh[:, first:] @ wh[:, first:].T + dh * direct
        return nn.GRUParams(dwx, dwh, db, dbh), dx

    said = report(nn.GRU(3), backward, x=normal(2, 4, 2))
    assert said.count(GRUS[mistake]) == 1  # of all gradients, and told once
    assert said.count("is wrong, by the mistake in that of params.wx.") >= 3


HEADS = {
    "merged": "the heads are merged by reshaping",
    "split": "the heads are split by reshaping",
    "mask": "the mask is forgotten where the weights of attention are computed again",
}


@pytest.mark.parametrize("mistake", HEADS)
def test_attention(mistake):
    def backward(params, cache, dy):
        x, q, k, v, o, p = (np.asarray(a) for a in (
            cache.x, cache.q, cache.k, cache.v, cache.o, cache.softmax
        ))  # fmt: skip
        (batch, steps, channels), heads, dy = x.shape, q.shape[1], np.asarray(dy)
        turned, flat = lambda a: a.swapaxes(1, 2), lambda a: a.reshape(-1, channels)
        do = dy @ params.wo.T
        if mistake == "split":
            do = do.reshape(batch, heads, steps, -1)
        else:
            do = turned(do.reshape(batch, steps, heads, -1))
        root = np.sqrt(q.shape[-1])
        if mistake == "mask":
            p = special.softmax(q @ k.swapaxes(-1, -2) / root, axis=-1)
        dp = do @ v.swapaxes(-1, -2)
        ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / root
        each = ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ do
        merge = (lambda a: a) if mistake == "merged" else turned
        dq, dk, dv = (merge(d).reshape(batch, steps, channels) for d in each)
        dw = [flat(x).T @ flat(d) for d in (dq, dk, dv)] + [flat(turned(o)).T @ flat(dy)]
        biases = [flat(d).sum(0) for d in (dq, dk, dv, dy)]
        dx = dq @ params.wq.T + dk @ params.wk.T + dv @ params.wv.T
        return nn.AttentionParams(*dw, *biases), dx

    said = report(nn.MultiHeadAttention(2, causal=True), backward, x=normal(2, 3, 4))
    assert HEADS[mistake] in said


# ── Networks ────────────────────────────────────────────────────────────────────────────────────

NETWORKS = {
    "x": "the input of the network stands in the place of x; the formula of [2]",
    "w": "w of [0] stands in the place of w; the formula of [2]",
    "no w": "is not multiplied by w",
    "a step": "is not a gradient but the parameter after a step: params[0].w - 0.1 times",
}


@pytest.mark.parametrize("mistake", NETWORKS)
def test_network(mistake):
    def backward(params, cache, dy):
        (w0, _), _, (w2, _) = params
        x, h, dy = np.asarray(cache[0]), np.asarray(cache[2]), np.asarray(dy)
        dh = dy if mistake == "no w" else dy @ (w0 if mistake == "w" else w2).T
        dz = dh * (1 - h**2)
        dw0 = w0 - 0.1 * x.T @ dz if mistake == "a step" else x.T @ dz
        dw2 = (x if mistake == "x" else h).T @ dy
        return (nn.DenseParams(dw0, dz.sum(0)), (), nn.DenseParams(dw2, dy.sum(0))), dz @ w0.T

    net = nn.chain(nn.Dense(4), nn.Tanh(), nn.Dense(4))
    assert NETWORKS[mistake] in report(net, backward, x=normal(5, 4))


def test_what_goes_round_is_added_too_early():
    net = nn.Residual(nn.chain(nn.LayerNorm(), nn.Dense(4)))

    def backward(params, cache, dy):
        norm, dense = net.body.layers
        ddense, d = dense.backward(params[1], cache[1], dy)
        dnorm, dx = norm.backward(params[0], cache[0], d + dy)
        return (dnorm, ddense), dx

    assert "what goes round the body is added after [0].body[1]" in report(
        net, backward, x=normal(5, 4)
    )


def test_a_slope_after_the_next_layer():
    norm, activation = nn.BatchNorm(), nn.ReLU()
    net = nn.chain(nn.Dense(4), norm, activation)

    def backward(params, cache, dy):
        dnorm, d = norm.backward(params[1], cache[1], dy)
        ddense, dx = net.layers[0].backward(
            params[0], cache[0], activation.backward((), cache[2], d)[1]
        )
        return (ddense, dnorm, ()), dx

    said = report(net, backward, x=normal(6, 3), key=KEY)
    assert "the slope of [2] is multiplied in after [1]" in said


def test_branches_in_another_order():
    net = nn.Parallel((nn.Dense(2), nn.Dense(3)))

    def backward(params, cache, dy):
        (first, second), _ = cache
        dfirst, dx = net.branches[0].backward(params[0], first, dy[:, 3:])
        dsecond, d = net.branches[1].backward(params[1], second, dy[:, :3])
        return (dfirst, dsecond), dx + d

    assert "dy is cut in another order of the branches" in report(net, backward, x=normal(5, 4))


@pytest.mark.parametrize(
    ("words", "put_back"),
    [
        ("dy is put back in column-major order", lambda dy: dy.reshape(2, 3, 4, 5, order="F")),
        (
            "dy is put back with the channels first",
            lambda dy: np.moveaxis(dy.reshape(2, 5, 3, 4), 1, -1),
        ),
    ],
)
def test_flatten(words, put_back):
    backward = lambda params, cache, dy: ((), put_back(np.asarray(dy)))
    assert words in report(nn.Flatten(), backward, x=normal(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("words", "dx"),
    [
        ("the mask is inverted", lambda kept, dy: (1 - kept) * dy / 0.7),
        ("the factor kept[n, i] is left out", lambda kept, dy: dy / 0.7),
        ("it is divided by the rate, not by 1 - rate", lambda kept, dy: kept * dy / 0.3),
        ("it is multiplied by 0.7", lambda kept, dy: kept * dy * 0.7),
    ],
)
def test_dropout(words, dx):
    backward = lambda params, cache, dy: ((), dx(cache, dy))
    assert words in report(nn.Dropout(0.3), backward, x=normal(6, 7), key=KEY)


# ── Softmax, activations and losses ─────────────────────────────────────────────────────────────

Y = special.softmax(normal(5, 5), axis=-1)


def rows(a):
    return a.sum(axis=-1, keepdims=True)


SOFTMAX = {
    "it is the derivative of LogSoftmax": lambda y, dy: dy - y * rows(dy),
    "keepdims=True is missing": lambda y, dy: y * (dy - (y * dy).sum(axis=-1)),
    "the numbers of the last sample are used for all samples": lambda y, dy: (
        y[-1] * (dy - rows(y[-1] * dy))
    ),
    "y and dy have changed places": lambda y, dy: dy * (y - rows(y * dy)),
}


@pytest.mark.parametrize("words", SOFTMAX)
def test_softmax(words):
    def backward(params, cache, dy):
        return (), SOFTMAX[words](np.asarray(cache.e / cache.total), np.asarray(dy))

    assert words in report(nn.Softmax(), backward, x=normal(5, 5))


GELUS = {
    "φ lacks its factor": lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2),
    "]²/2) in the density": lambda x: special.ndtr(x) + x * np.exp(-(x**2)) / np.sqrt(2 * np.pi),
    "the approximation x σ(1.702 x)": lambda x: (
        special.expit(1.702 * x) * (1 + 1.702 * x * special.expit(-1.702 * x))
    ),
}


@pytest.mark.parametrize("words", GELUS)
def test_gelu(words):
    backward = lambda params, x, dy: ((), GELUS[words](np.asarray(x)) * dy)
    assert words in report(nn.GELU(), backward, x=normal(5, 4))


T = np.array([0, 2, 1, 3, 2])
HOT = np.eye(4)[T]
Z = normal(5, 4)
P = special.softmax(Z, axis=-1)
PROBABILITIES, LABELS = special.expit(normal(6)), np.array([0, 1, 1, 0, 1, 0])
ERRORS, ZEROS = normal(5, 3), np.zeros((5, 3))
SMOOTHED = nn.SoftmaxCrossEntropy(smoothing=0.2)
LOSSES = [
    (nn.SoftmaxCrossEntropy(), Z, T, P / 5 - HOT, "not 1 if t[n] = k else 0 too"),
    (nn.SoftmaxCrossEntropy(), Z, T, (P - 1) * HOT / 5, "a gradient only where t[n] = k"),
    (nn.SoftmaxCrossEntropy(), Z, T, -HOT / P / 5, "the derivative by the probabilities, -t / p"),
    (nn.SoftmaxCrossEntropy(), Z, T, (P - HOT) / 20, "divided by 4, the number of values of k"),
    (SMOOTHED, Z, T, (P - 0.8 * HOT - 0.2 / 3) / 5, "3, one less than the number of values"),
    (SMOOTHED, Z, T, (P - 0.8 * HOT - 0.2 / 3 * (1 - HOT)) / 5, "among the other classes"),
    (nn.SoftmaxCrossEntropy(ignore=3), Z, T, (P - HOT) / 4, "counted[n] is taken always to hold"),
    (
        nn.BinaryCrossEntropy(), PROBABILITIES, LABELS, (PROBABILITIES - LABELS) / 6,
        "it is the derivative by the logit",
    ),
    (
        nn.BinaryCrossEntropy(), PROBABILITIES, LABELS, -LABELS / PROBABILITIES / 6,
        "there is no gradient where t[n] = 1 does not hold",
    ),
    (nn.MeanSquaredError(), ERRORS, ZEROS, 2 * ERRORS / 5, "5, the number of values of n0"),
    (nn.MeanAbsoluteError(), ERRORS, ZEROS, abs(ERRORS) / 15, "the cost itself stands"),
    (
        nn.Huber(0.5), ERRORS, ZEROS,
        np.where(abs(ERRORS) <= 0.5, 2 * ERRORS, np.sign(ERRORS) / 2) / 15,
        "it is 2 times the right one where",
    ),
    (nn.KLDivergence(), np.log(P), P[::-1], -(np.log(P[::-1]) + 1) / 5, "by the target, log t + 1"),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "y", "t", "claimed", "words"), LOSSES)
def test_loss(loss, y, t, claimed, words):
    assert words in report(loss, lambda cache: claimed, x=y, target=t)


def test_sample_weights_that_are_ignored():
    backward = lambda cache: 2 * ERRORS / 15
    weights = np.array([1, 2, 0.5, 3, 0.2])
    inputs = {"x": ERRORS, "target": ZEROS, "weights": weights}
    assert "ignores the sample weights" in report(nn.MeanSquaredError(), backward, **inputs)


# ── Shapes ──────────────────────────────────────────────────────────────────────────────────────

SHAPES = {
    "lacks a sum: it has shape (4, 2)": lambda dy: dy.sum(0),
    "lacks the sum over the batch": lambda dy: dy.sum(1),
    "is dy summed over axes 1 and 2, of shape (5,)": lambda dy: dy.sum((1, 2)),
    "has the right numbers, but the shape (1, 1, 2)": lambda dy: dy.sum((0, 1), keepdims=True),
    "is 20 times too small, and 20 is the number": lambda dy: dy.mean((0, 1)),
}


@pytest.mark.parametrize("words", SHAPES)
def test_a_sum_over_other_axes(words):
    layer = nn.Dense(2)

    def backward(params, cache, dy):
        (dw, _), dx = layer.backward(params, cache, dy)
        return nn.DenseParams(dw, SHAPES[words](np.asarray(dy))), dx

    assert words in report(layer, backward, x=normal(5, 4, 3))


def test_padding_that_is_not_cut_off():
    layer = nn.Conv1D(2, 3)

    def backward(params, cache, dy):
        dparams, dx = layer.backward(params, cache, dy)
        return dparams, np.pad(dx, ((0, 0), (1, 1), (0, 0)))

    assert "if the padding is cut off" in report(layer, backward, x=normal(3, 6, 2))


def test_a_factor_is_left_out_of_one_of_two_gradients():
    def backward(params, cache, dy):
        dparams, dx = nn.LayerNorm().backward(params, cache, dy)
        return dparams._replace(scale=dparams.bias), dx

    said = report(nn.LayerNorm(), backward, x=normal(5, 4))
    assert "the factor xhat[n, c] is left out" in said
    assert said.count("✓") == 2


def test_a_matrix_that_is_not_transposed():
    def backward(params, cache, dy):
        return nn.Dense(4).backward(params, cache, dy)[0], dy @ params.w

    said = report(nn.Dense(4), backward, x=normal(5, 4))
    assert "w[o, i] stands in the place of w[i, o]" in said
