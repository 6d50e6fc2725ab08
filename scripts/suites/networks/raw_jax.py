"""The networks in JAX alone: parameters in lists, a jitted step over donated state."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from suites.networks.cases import (
    BLOCKS,
    DEPTH,
    EMBEDDED,
    FEATURES,
    HEADS,
    HIDDEN,
    RATE,
    STAGES,
    VOCABULARY,
    batches,
)  # fmt: skip

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def draw(*shape):
    """Draw a weight; all axes but the last feed a unit."""
    return (
        np.random.default_rng(0).normal(0, math.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)
    )


def affine(*shape):
    """Make the weight and the bias of a dense layer or a convolution."""
    return draw(*shape), np.zeros(shape[-1], np.float32)


def norm_params(features):
    """Make the gain and the shift of a normalisation."""
    return np.ones(features, np.float32), np.zeros(features, np.float32)


def dense(params, x):
    """Multiply and add."""
    return x @ params[0] + params[1]


def conv(w, x, stride=1):
    """Slide a kernel."""
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=DIMENSIONS)


def conv_relu(params, x):
    """Slide a kernel, add a bias, rectify."""
    return jax.nn.relu(conv(params[0], x) + params[1])


def pool(x):
    """Take the maximum of 2 x 2."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def double(params, x):
    """Transpose a convolution of stride 2."""
    return (
        lax.conv_transpose(x, params[0], (2, 2), "SAME", dimension_numbers=DIMENSIONS) + params[1]
    )


def normalize(params, x, axes=-1):
    """Subtract the mean, divide by the deviation, scale and shift; give the moments too."""
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * params[0] + params[1], (mean, variance)


def lenet_params():
    """LeNet-5."""
    return [
        affine(5, 5, 1, 6),
        affine(5, 5, 6, 16),
        affine(784, 120),
        affine(120, 84),
        affine(84, 10),
    ]


def lenet(params, x):
    """Two convolutions, three dense layers."""
    first, second, *hidden, last = params
    x = pool(conv_relu(second, pool(conv_relu(first, x)))).reshape(len(x), -1)
    for layer in hidden:
        x = jax.nn.relu(dense(layer, x))
    return dense(last, x)


def conv_norm_params(size, i, o):
    """Make a convolution without bias, and its normalisation."""
    return draw(size, size, i, o), norm_params(o)


def resnet_params():
    """Three stages of two blocks."""
    blocks, before = [], STAGES[0]
    for stage, channels in enumerate(STAGES):
        for block in range(BLOCKS):
            halves = stage > 0 and block == 0
            body = [conv_norm_params(3, before, channels), conv_norm_params(3, channels, channels)]
            blocks.append((body, conv_norm_params(1, before, channels) if halves else None))
            before = channels
    return conv_norm_params(3, 3, STAGES[0]), blocks, affine(before, 10)


def resnet(params, x):
    """Normalise by the batch, and give its moments beside the scores."""
    first, blocks, last = params
    moments = []

    def conv_norm(params, x, stride=1):
        y, seen = normalize(params[1], conv(params[0], x, stride), (0, 1, 2))
        moments.append(seen)
        return y

    x = jax.nn.relu(conv_norm(first, x))
    for (a, b), shortcut in blocks:
        stride = 1 if shortcut is None else 2
        y = conv_norm(b, jax.nn.relu(conv_norm(a, x, stride)))
        x = jax.nn.relu(y + (x if shortcut is None else conv_norm(shortcut, x, stride)))
    return dense(last, x.mean((1, 2))), moments


def gru_params():
    """Table, GRU, dense layer."""
    gru = (*affine(EMBEDDED, 3 * HIDDEN), *affine(HIDDEN, 3 * HIDDEN))
    return draw(VOCABULARY, EMBEDDED), gru, affine(HIDDEN, VOCABULARY)


def gru(params, tokens):
    """Scan over time."""
    table, (wx, bx, wh, bh), last = params

    def step(h, zx):
        (xr, xu, xn), (hr, hu, hn) = (jnp.split(z, 3, -1) for z in (zx, h @ wh + bh))
        r, u = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xu + hu)
        h = (1 - u) * jnp.tanh(xn + r * hn) + u * h
        return h, h

    zx = table[tokens] @ wx + bx
    _, h = lax.scan(step, jnp.zeros((len(tokens), HIDDEN)), zx.swapaxes(0, 1))
    return dense(last, h.swapaxes(0, 1))


def decoder_params():
    """Table, blocks, and a last normalisation."""
    block = lambda: (  # noqa: E731
        norm_params(FEATURES), affine(FEATURES, 3 * FEATURES), affine(FEATURES, FEATURES),
        norm_params(FEATURES), affine(FEATURES, 4 * FEATURES), affine(4 * FEATURES, FEATURES),
    )  # fmt: skip
    return draw(VOCABULARY, FEATURES), [block() for _ in range(DEPTH)], norm_params(FEATURES)


def rotate(x):
    """Turn pairs of channels of (..., T, N, D) by their position."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[-3])[:, None, None] * 10000.0 ** (-np.arange(half) / half)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def decoder(params, tokens):
    """Attention and perceptron in turn, normalised before."""
    table, blocks, last = params
    x = table[tokens]
    for norm1, qkv, out, norm2, up, down in blocks:
        parts = jnp.split(dense(qkv, normalize(norm1, x)[0]), 3, -1)
        q, k, v = (part.reshape(*part.shape[:2], HEADS, -1) for part in parts)
        o = jax.nn.dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
        x = x + dense(out, o.reshape(x.shape))
        x = x + dense(down, jax.nn.gelu(dense(up, normalize(norm2, x)[0])))
    return normalize(last, x)[0] @ table.T


def unet_params():
    """The way down, the way up."""
    return [
        affine(3, 3, 3, 16), affine(3, 3, 16, 32), affine(3, 3, 32, 64), affine(2, 2, 64, 32),
        affine(3, 3, 32, 32),
        affine(2, 2, 32, 16), affine(3, 3, 16, 16), affine(1, 1, 16, 1),
    ]  # fmt: skip


def unet(params, x):
    """Halve twice, double twice."""
    first, second, third, up1, fourth, up2, fifth, last = params
    a = conv_relu(first, x)
    b = conv_relu(second, pool(a))
    b = conv_relu(fourth, jax.nn.relu(b + double(up1, conv_relu(third, pool(b)))))
    a = conv_relu(fifth, jax.nn.relu(a + double(up2, b)))
    return conv(last[0], a) + last[1]


NETWORKS = {
    "lenet": (lenet_params, lenet),
    "resnet": (resnet_params, resnet),
    "gru": (gru_params, gru),
    "decoder": (decoder_params, decoder),
    "unet": (unet_params, unet),
}


def loss_of(prediction, y):
    """Cross-entropy for classes, squared error for images."""
    if jnp.issubdtype(y.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(prediction, y).mean()
    return ((prediction - y) ** 2).mean()


def step_and_state(name, x, y):
    """A jitted step over donated state, and the first state."""
    (make, apply), optimizer = NETWORKS[name], optax.adam(RATE)

    def objective(params, x, y):
        prediction, moments = apply(params, x) if name == "resnet" else (apply(params, x), ())
        return loss_of(prediction, y), moments

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, x, y):
        params, opt_state, running = state
        (value, moments), gradient = jax.value_and_grad(objective, has_aux=True)(params, x, y)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        running = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, running, moments)
        return (optax.apply_updates(params, updates), opt_state, running), value

    params = jax.tree.map(jnp.asarray, make())
    moments = jax.eval_shape(objective, params, x[:1], y[:1])[1]
    state = (
        params,
        optimizer.init(params),
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), moments),
    )
    return step, state


def contestant(name, x, y):
    """A jitted step."""
    step, state = step_and_state(name, x, y)

    def run(steps):
        nonlocal state
        for batch in batches(name, steps, x, y):
            state, value = step(state, *batch)
        jax.block_until_ready(value)

    return run
