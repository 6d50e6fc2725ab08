"""Compare outputs and gradients with those of PyTorch for the same weights, to 1e-10 in float64.

``fixtures/torch.npz`` was made by ``fixtures/make_torch.py``; no PyTorch is needed here. Each entry
of the table states how PyTorch's layouts are converted to those of this library; gradients have the
layout of the arrays to which they belong.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

STORED = np.load(Path(__file__).parent / "fixtures" / "torch.npz")
FOLDED = "bias_hh"  # PyTorch's second bias of recurrent layers, which adds to the first


def of(name, prefix):
    """Return the arrays that are stored for a case under a prefix: ``w.``, ``d.in.``, …"""
    start = f"{name}/{prefix}"
    return {
        key.removeprefix(start): jnp.asarray(STORED[key])
        for key in STORED.files
        if key.startswith(start)
    }


# ── Layouts ─────────────────────────────────────────────────────────────────────────────────────


def channels_last(v):
    return jnp.moveaxis(v, 1, -1)


def linear(w):
    return nn.DenseParams(w["weight"].T, w.get("bias"))


def kernel(w):
    """Convert (O, C/g, *k) to (*k, C/g, O); likewise for a transposed convolution."""
    return nn.ConvParams(jnp.moveaxis(w["weight"], (1, 0), (-2, -1)), w.get("bias"))


def scale_and_bias(w):
    return nn.NormParams(w["weight"], w["bias"])


def recurrent(w, suffix="_l0"):
    """Add the two biases; their gradients are not added, as each is already that of the sum."""
    gradients = "is gradient" in w
    wx, wh, b, bh = (w[f"{name}{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", FOLDED))
    if len(b) == 3 * wh.shape[1]:  # GRU: the candidate's second bias stays inside the reset gate
        h = wh.shape[1]
        joined = b if gradients else b + bh.at[2 * h :].set(0)
        return nn.GRUParams(wx.T, wh.T, joined, bh[2 * h :])
    return nn.RecurrentParams(wx.T, wh.T, b if gradients else b + bh)


def both_ways(w):
    return recurrent(w), recurrent(w, "_l0_reverse")


def projections(w):
    bq, bk, bv = jnp.split(w["in_proj_bias"], 3)
    if "in_proj_weight" in w:
        wq, wk, wv = jnp.split(w["in_proj_weight"], 3)
    else:
        wq, wk, wv = (w[f"{name}_proj_weight"] for name in "qkv")
    return nn.AttentionParams(
        wq.T, wk.T, wv.T, w["out_proj.weight"].T, bq, bk, bv, w["out_proj.bias"]
    )


def plain(v):
    return v["x"]


def image(v):
    return channels_last(v["x"])


def started(v):
    return nn.Sequences(
        v["x"], None, state_of([v[name] for name in sorted(v) if name.startswith("s")])
    )


def padded(v):
    return nn.Sequences(v["x"], v.get("lengths"))


def state_of(states):
    states = [s[0] for s in states]  # PyTorch has an axis of layers
    return states[0] if len(states) == 1 else nn.LSTMState(*states)


def one(outputs):
    return outputs[0]


def one_image(outputs):
    return channels_last(outputs[0]) if outputs[0].ndim > 2 else outputs[0]


def with_state(outputs):
    return outputs[0], state_of(outputs[1:])


MASK = jnp.array([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [1, 1, 1, 0, 1], [0, 1, 1, 1, 1]]) == 1


def masked(v):
    return nn.AttentionInput(
        v["x"], v["context"], None if v.get("is gradient") is not None else MASK
    )


def key_padded(v):
    return nn.AttentionInput(
        v["x"],
        v["context"],
        lengths=None if v.get("is gradient") is not None else jnp.array([5, 3]),
    )


class Case(NamedTuple):
    layer: nn.Layer
    params: Callable = lambda w: ()
    x: Callable = plain
    y: Callable = one
    key: jax.Array | None = None


KEY = jax.random.key(0)
CASES = {
    "dense": Case(nn.Dense(3), linear),
    "dense_without_bias": Case(nn.Dense(3, bias=False), linear),
    **{
        name: Case(layer, kernel, image, one_image)
        for name, layer in {
            "conv1d": nn.Conv1D(6, 3, stride=2, padding=2, dilation=2, groups=2),
            "conv2d": nn.Conv2D(3, (3, 2), padding="VALID"),
            "conv2d_strided": nn.Conv2D(6, 3, stride=2, padding=1, groups=2),
            "conv2d_depthwise": nn.Conv2D(6, 3, padding=2, dilation=2, groups=3, bias=False),
            "conv_transpose1d": nn.ConvTranspose1D(6, 3, stride=2, padding=1, groups=2),
            "conv_transpose2d": nn.ConvTranspose2D(
                3, (3, 2), stride=2, dilation=2, padding="VALID"
            ),
        }.items()
    },
    "max_pool1d": Case(nn.MaxPool(3, stride=2), x=image, y=one_image),
    "max_pool2d": Case(nn.MaxPool(3, stride=2), x=image, y=one_image),
    "average_pool1d": Case(nn.AveragePool(2), x=image, y=one_image),
    "average_pool2d": Case(nn.AveragePool((3, 2), stride=(2, 1)), x=image, y=one_image),
    "global_average_pool": Case(nn.GlobalAveragePool(), x=image, y=one_image),
    **{
        f"{name}{variant}": Case(kind(4, return_state=True), recurrent, x, with_state)
        for name, kind in {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}.items()
        for variant, x in {"": plain, "_started": started, "_padded": padded}.items()
    },
    **{
        f"{name}_both_ways": Case(nn.Parallel((kind(4), kind(4, reverse=True))), both_ways)
        for name, kind in {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}.items()
    },
    **{
        f"{name}, block {block}": Case(
            nn.MultiHeadAttention(2, block=block, causal=causal), projections, x
        )
        for name, causal, x in [
            ("attention", False, plain),
            ("attention_causal", True, plain),
            ("attention_cross", False, masked),
            ("attention_padded", False, key_padded),
        ]
        for block in (None, 3)
    },
    "layer_norm": Case(nn.LayerNorm(), scale_and_bias),
    "rms_norm": Case(nn.RMSNorm(), lambda w: nn.RMSNormParams(w["weight"])),
    "group_norm": Case(nn.GroupNorm(2), scale_and_bias, image, one_image),
    "embedding": Case(nn.Embedding(5, 3), lambda w: nn.EmbeddingParams(w["weight"])),
    **{
        f"activation_{repr(layer).removesuffix('()')}": Case(layer)
        for layer in [
            nn.Sigmoid(), nn.HardSigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(), nn.ELU(),
            nn.SELU(), nn.Softplus(), nn.SiLU(), nn.Mish(), nn.GELU(), nn.Softmax(),
            nn.LogSoftmax(),
        ]
    },
    "activation_GELU_tanh": Case(nn.GELU(form="tanh")),
}  # fmt: skip


def assert_same(ours, theirs):
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(compare, ours, theirs)


@pytest.mark.parametrize("name", CASES)
def test_layer_agrees_with_pytorch(name):
    case, stored = CASES[name], name.partition(",")[0]
    params, x = case.params(of(stored, "w.")), case.x(of(stored, "in."))
    outputs, dy = (case.y(list(of(stored, prefix).values())) for prefix in ("out.", "dy."))

    y, cache = case.layer.forward(params, x, case.key)
    assert_same(y, outputs)
    dparams, dx = case.layer.backward(params, cache, dy)
    mark = {"is gradient": jnp.ones(())}
    assert_same(dparams, case.params(of(stored, "d.w.") | mark))
    if dx is not None:
        assert_same(dx, case.x(of(stored, "d.in.") | mark))


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_agrees_with_pytorch(training):
    name = "batch_norm" if training else "batch_norm_inference"
    layer, w, after = nn.BatchNorm(), of(name, "w."), of("batch_norm", "after.")
    fresh = nn.Moments(jnp.zeros(3), jnp.ones(3))
    moments = nn.Running(fresh if training else nn.Moments(after["mean"], after["variance"]))
    params = nn.BatchNormParams(w["weight"], w["bias"], moments)

    y, cache = layer.forward(params, image(of(name, "in.")), KEY if training else None)
    assert_same(y, channels_last(of(name, "out.")["0"]))
    dparams, dx = layer.backward(params, cache, channels_last(of(name, "dy.")["0"]))
    assert_same(dx, image(of(name, "d.in.")))
    assert_same((dparams.scale, dparams.bias), tuple(of(name, "d.w.").values()))
    moved = nn.advance(layer, params, cache).moments.value
    assert_same(moved, nn.Moments(after["mean"], after["variance"]))


LOSSES = {
    "BinaryCrossEntropy": nn.BinaryCrossEntropy(),
    "SigmoidBinaryCrossEntropy": nn.SigmoidBinaryCrossEntropy(),
    "SoftmaxCrossEntropy": nn.SoftmaxCrossEntropy(),
    "SoftmaxCrossEntropy_soft": nn.SoftmaxCrossEntropy(),
    "SoftmaxCrossEntropy_smooth": nn.SoftmaxCrossEntropy(smoothing=0.1),
    "SoftmaxCrossEntropy_ignore": nn.SoftmaxCrossEntropy(ignore=1),
    "MeanSquaredError": nn.MeanSquaredError(),
    "MeanAbsoluteError": nn.MeanAbsoluteError(),
    "Huber": nn.Huber(delta=0.7),
    "Hinge": nn.Hinge(),
    "PerceptronCriterion": nn.PerceptronCriterion(),
    "KLDivergence": nn.KLDivergence(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_agrees_with_pytorch(name):
    loss, stored = LOSSES[name], f"loss_{name}"
    prediction, target = of(stored, "in.")["prediction"], jnp.asarray(STORED[f"{stored}/target"])
    value, cache = loss.forward(prediction, target)
    assert_same(value, of(stored, "out.")["0"])
    assert_same(of(stored, "dy.")["0"] * loss.backward(cache), of(stored, "d.in.")["prediction"])


def test_every_stored_case_is_compared():
    stored = {name.partition("/")[0] for name in STORED.files}
    compared = {name.partition(",")[0] for name in CASES} | {f"loss_{name}" for name in LOSSES}
    assert stored == compared | {"batch_norm", "batch_norm_inference"}
