"""The networks in Flax nnx: a jitted step with a cached graph, as its performance guide advises."""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from suites.networks.cases import (
    BLOCKS,
    DECODER,
    EMBEDDED,
    HIDDEN,
    RATE,
    STAGES,
    VOCABULARY,
    batches,
)  # fmt: skip
from suites.networks.raw_jax import loss_of, rotate

halve = functools.partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))


class LeNet(nnx.Module):
    """LeNet-5."""

    def __init__(self, rngs):
        self.convs = nnx.List([nnx.Conv(i, o, (5, 5), rngs=rngs) for i, o in ((1, 6), (6, 16))])
        self.layers = nnx.List(
            [nnx.Linear(i, o, rngs=rngs) for i, o in ((784, 120), (120, 84), (84, 10))]
        )

    def __call__(self, x):
        """Two convolutions, three dense layers."""
        for conv in self.convs:
            x = halve(nnx.relu(conv(x)))
        x = x.reshape(len(x), -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class ConvNorm(nnx.Module):
    """A convolution without bias, normalised by the batch."""

    def __init__(self, size, i, o, stride, rngs):
        self.conv = nnx.Conv(i, o, (size, size), strides=stride, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(o, momentum=0.9, rngs=rngs)

    def __call__(self, x):
        """Convolve and normalise."""
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """Two convolutions, and a shortcut."""

    def __init__(self, i, o, stride, rngs):
        self.a, self.b = ConvNorm(3, i, o, stride, rngs), ConvNorm(3, o, o, 1, rngs)
        self.shortcut = None if stride == 1 else ConvNorm(1, i, o, stride, rngs)

    def __call__(self, x):
        """Add both."""
        return nnx.relu(
            self.b(nnx.relu(self.a(x))) + (x if self.shortcut is None else self.shortcut(x))
        )


class ResNet(nnx.Module):
    """Three stages of two blocks."""

    def __init__(self, rngs):
        blocks, before = [], STAGES[0]
        for stage, channels in enumerate(STAGES):
            for block in range(BLOCKS):
                blocks.append(Block(before, channels, 2 if stage > 0 and block == 0 else 1, rngs))
                before = channels
        self.first, self.blocks = ConvNorm(3, 3, STAGES[0], 1, rngs), nnx.List(blocks)
        self.last = nnx.Linear(before, 10, rngs=rngs)

    def __call__(self, x):
        """Go through the blocks."""
        x = nnx.relu(self.first(x))
        for block in self.blocks:
            x = block(x)
        return self.last(x.mean((1, 2)))


class GRU(nnx.Module):
    """Table, GRU, dense layer."""

    def __init__(self, rngs):
        self.table = nnx.Embed(VOCABULARY, EMBEDDED, rngs=rngs)
        self.rnn = nnx.RNN(nnx.GRUCell(EMBEDDED, HIDDEN, rngs=rngs))
        self.last = nnx.Linear(HIDDEN, VOCABULARY, rngs=rngs)

    def __call__(self, tokens):
        """Return scores at each time."""
        return self.last(self.rnn(self.table(tokens)))


def attend(q, k, v, **kwargs):
    """Attend with rotary positions."""
    return nnx.dot_product_attention(rotate(q), rotate(k), v, **kwargs)


class DecoderBlock(nnx.Module):
    """Attention and perceptron, normalised before."""

    def __init__(self, sizes, **how):
        features = sizes.features
        self.norm1, self.norm2 = (nnx.LayerNorm(features, **how) for _ in range(2))
        self.attention = nnx.MultiHeadAttention(
            sizes.heads, features, attention_fn=attend, decode=False, **how
        )
        self.up, self.down = (
            nnx.Linear(i * features, o * features, **how) for i, o in ((1, 4), (4, 1))
        )

    def __call__(self, x, mask):
        """Add each to what it came from."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class Decoder(nnx.Module):
    """A causal language model, embedding and output tied."""

    def __init__(self, rngs, sizes=DECODER, dtype=None):
        how = {"rngs": rngs, "dtype": dtype}
        self.table = nnx.Embed(sizes.vocabulary, sizes.features, **how)
        self.norm = nnx.LayerNorm(sizes.features, **how)
        self.blocks = nnx.List([DecoderBlock(sizes, **how) for _ in range(sizes.layers)])

    def __call__(self, tokens):
        """Return scores at each time."""
        x, mask = self.table(tokens), nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.table.attend(self.norm(x))


class UNet(nnx.Module):
    """Halve twice, double twice."""

    def __init__(self, rngs):
        sizes = ((3, 16), (16, 32), (32, 64), (32, 32), (16, 16))
        self.convs = nnx.List([nnx.Conv(i, o, (3, 3), rngs=rngs) for i, o in sizes])
        ups = ((64, 32), (32, 16))
        self.ups = nnx.List(
            [nnx.ConvTranspose(i, o, (2, 2), strides=(2, 2), rngs=rngs) for i, o in ups]
        )
        self.last = nnx.Conv(16, 1, (1, 1), rngs=rngs)

    def __call__(self, x):
        """Add what was before to what comes back."""
        first, second, third, fourth, fifth = self.convs
        a = nnx.relu(first(x))
        b = nnx.relu(second(halve(a)))
        b = nnx.relu(fourth(nnx.relu(b + self.ups[0](nnx.relu(third(halve(b)))))))
        return self.last(nnx.relu(fifth(nnx.relu(a + self.ups[1](b)))))


def mlp(rngs, width, depth, outputs, dtype=None):
    """Dense layers and ReLU."""
    how = {"rngs": rngs, "dtype": dtype}
    hidden = [part for _ in range(depth) for part in (nnx.Linear(width, width, **how), nnx.relu)]
    return nnx.Sequential(*hidden, nnx.Linear(width, outputs, **how))


NETWORKS = {"lenet": LeNet, "resnet": ResNet, "gru": GRU, "decoder": Decoder, "unet": UNet}


def jitted_step(model):
    """Return a step that has the graph of the model cached."""
    optimizer = nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        value, gradient = nnx.value_and_grad(lambda model: loss_of(model(x), y))(model)
        optimizer.update(model, gradient)
        return value

    return nnx.cached_partial(step, model, optimizer)


def trainer(model, x, y):
    """Train on one batch."""
    cached = jitted_step(model)
    x, y = jax.device_put((x, y))

    def train(steps):
        for _ in range(steps):
            value = cached(x, y)
        jax.block_until_ready(value)

    return train


def contestant(name, x, y):
    """A jitted step in a Python loop."""
    cached = jitted_step(NETWORKS[name](nnx.Rngs(0)))

    def run(steps):
        for batch in batches(name, steps, x, y):
            value = cached(*map(jnp.asarray, batch))
        jax.block_until_ready(value)

    return run
