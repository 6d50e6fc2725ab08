"""Networks out of all layers and combinators, drawn by hypothesis, and what must hold for each.

A network that fails is shrunk to a small one, and reported as the call that runs it again::

    check(chain(Dense(features=5), ReLU()), MeanSquaredError(), "vector", batch=1, seed=0, key=None)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import jaxnn as nn
from jaxnn.backprop import by_autodiff, by_hand

VOCABULARY, WIDTH = 7, 4  # tokens; and the number of channels of every input
ACTIVATIONS = [
    nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(), nn.ELU(), nn.SELU(), nn.GELU(),
    nn.GELU(form="tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(), nn.HardSigmoid(), nn.Softmax(),
    nn.LogSoftmax(),
]  # fmt: skip
ANYWHERE = [  # for any input (B, …, C) of floats, with a result of the same shape
    *ACTIVATIONS, nn.LayerNorm(), nn.RMSNorm(), nn.BatchNorm(), nn.Dropout(0.3),
]  # fmt: skip
IMAGES = {  # layers of images (B, H, W, C), and the kind of their results
    nn.Conv2D(3, kernel_size=3): "image",
    nn.Conv2D(WIDTH, kernel_size=3, stride=2, groups=2): "image",
    nn.Conv2D(2, kernel_size=2, dilation=2): "image",
    nn.ConvTranspose2D(3, kernel_size=3, stride=2): "image",
    nn.MaxPool(2): "image",
    nn.AveragePool(2): "image",
    nn.GroupNorm(1): "image",
    nn.GlobalAveragePool(): "vector",
    nn.Flatten(): "vector",
}
SEQUENCES = {  # layers of sequences (B, T, C)
    nn.RNN(3): "sequence",
    nn.GRU(3): "sequence",
    nn.LSTM(3, reverse=True): "sequence",
    nn.LSTM(4, output="last"): "vector",
    nn.MultiHeadAttention(2, causal=True, rotary=True): "sequence",
    nn.MultiHeadAttention(1, block=2): "sequence",
    nn.Conv1D(3, kernel_size=2): "sequence",
    nn.ConvTranspose1D(3, kernel_size=2, stride=2): "sequence",
    nn.SinusoidalPositions(): "sequence",
    nn.GlobalAveragePool(): "vector",
    nn.Flatten(): "vector",
}
LAYERS = {"image": IMAGES, "sequence": SEQUENCES, "vector": {nn.Dense(5): "vector"}}
INPUTS = {
    "image": lambda batch, random: random.normal(size=(batch, 6, 6, WIDTH)),
    "sequence": lambda batch, random: random.normal(size=(batch, 5, WIDTH)),
    "padded": lambda batch, random: nn.Sequences(
        random.normal(size=(batch, 5, WIDTH)), random.integers(1, 6, batch).astype(np.int32)
    ),
    "tokens": lambda batch, random: random.integers(0, VOCABULARY, (batch, 5)),
    "vector": lambda batch, random: random.normal(size=(batch, WIDTH)),
}
LOSSES = [nn.MeanSquaredError(), nn.Huber(), nn.SigmoidBinaryCrossEntropy()]


@st.composite
def networks(draw):
    """Draw a network and the kind of its input."""
    given = draw(st.sampled_from(list(INPUTS)))
    kind = "sequence" if given in ("padded", "tokens") else given
    layers = [nn.Embedding(VOCABULARY, WIDTH)] if given == "tokens" else []
    for _ in range(draw(st.integers(1, 4))):
        layer, kind = draw(steps(kind))
        layers.append(layer)
    return nn.chain(*layers), given


@st.composite
def steps(draw, kind):
    """Draw a layer or a combinator for an input of a kind; return it and the kind of its result."""
    anywhere, own = st.sampled_from(ANYWHERE), st.sampled_from(list(LAYERS[kind].items()))
    match draw(st.sampled_from(["anywhere", "own", "wrapped", "residual", "repeat", "parallel"])):
        case "anywhere":
            return draw(anywhere), kind
        case "own":
            return draw(own)
        case "wrapped":
            layer, result = draw(own)
            return draw(st.sampled_from([nn.Remat, nn.Frozen]))(layer), result
        case "parallel":
            join = draw(st.sampled_from(["add", "concatenate"]))
            return nn.Parallel((draw(anywhere), draw(anywhere)), join=join), kind
        case combinator:
            block = nn.chain(*draw(st.lists(anywhere, min_size=1, max_size=2)))
            return nn.Residual(block) if combinator == "residual" else nn.Repeat(block, 2), kind


def check(net, loss, kind, batch, seed, key, *, dtypes=("float32", "bfloat16")):
    """Check the gradients of one network, for which the words say what must hold."""
    random = np.random.default_rng(seed)
    x = jax.tree.map(jnp.asarray, INPUTS[kind](batch, random))
    key = None if key is None else jax.random.key(key)
    params = net.init(jax.random.key(seed), x)
    y = jax.eval_shape(lambda: net.forward(params, x, key)[0])
    target = jnp.asarray(random.integers(0, 2, y.shape), float)
    batch = (params, x, target, None, key)

    @jax.jit
    def both(*batch):
        return by_hand(net, loss, *batch).dparams, by_autodiff(net, loss, *batch).dparams

    hand, auto = both(*batch)
    worst = float(error(hand, auto))
    assert worst < 1e-10, f"hand and auto differ by {worst:.1e}"
    worst = float(error(by_hand(net, loss, *batch).dparams, hand))
    assert worst < 1e-10, f"compiled and operation by operation differ by {worst:.1e}"
    for dtype in dtypes:
        narrow = jax.tree.map(functools.partial(cast, dtype), batch)
        errors = [float(error(got, hand)) for got in both(*narrow)]
        allowed = 4 * errors[1] + 16 * float(jnp.finfo(dtype).eps)
        assert errors[0] <= allowed, (
            f"in {dtype} the error by hand is {errors[0]:.1e}, by jax.grad {errors[1]:.1e}"
        )


def cast(dtype, leaf):
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def error(got, expected):
    """Return the error of a whole gradient, relative to its norm."""
    pairs = list(zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True))
    squares = sum(np.sum((np.asarray(a, float) - np.asarray(b, float)) ** 2) for a, b in pairs)
    norm = sum(np.sum(np.asarray(b, float) ** 2) for _, b in pairs)
    return np.sqrt(squares / max(norm, 1e-12))


def campaign(examples, dtypes, *, same_each_time):
    """Return a function that checks so many networks, and raises for the smallest that fails."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=same_each_time,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        networks(),
        st.sampled_from(LOSSES),
        st.integers(1, 3),
        st.integers(0, 10**6),
        st.sampled_from([None, 5]),
    )
    def run(net_and_kind, loss, batch, seed, key):
        net, kind = net_and_kind
        try:
            check(net, loss, kind, batch, seed, key, dtypes=dtypes)
        except nn.InputError:  # the layers do not fit one another
            reject()
        except Exception as failure:
            call = f"check({net!r}, {loss!r}, {kind!r}, {batch}, {seed}, {key})"
            raise AssertionError(f"{call}: {failure}") from failure

    return run
