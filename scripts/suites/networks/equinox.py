"""The networks in equinox: modules of one sample, vmapped; a filtered, jitted step."""

import equinox as eqx
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
from suites.networks.raw_jax import loss_of, rotate


def keys():
    """Yield keys without end."""
    key = jax.random.key(0)
    while True:
        key, one = jax.random.split(key)
        yield one


class LeNet(eqx.Module):
    """LeNet-5."""

    layers: list

    def __init__(self, key):
        relu, pool = eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)
        self.layers = [
            eqx.nn.Conv2d(1, 6, 5, padding=2, key=next(key)), relu, pool,
            eqx.nn.Conv2d(6, 16, 5, padding=2, key=next(key)), relu, pool, eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(784, 120, key=next(key)), relu,
            eqx.nn.Linear(120, 84, key=next(key)), relu,
            eqx.nn.Linear(84, 10, key=next(key)),
        ]  # fmt: skip

    def __call__(self, x, state):
        """Go through the layers."""
        for layer in self.layers:
            x = layer(x)
        return x, state


class ConvNorm(eqx.Module):
    """A convolution without bias, normalised by the batch."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self, size, i, o, stride, key):
        self.conv = eqx.nn.Conv2d(i, o, size, stride, size // 2, use_bias=False, key=next(key))
        self.norm = eqx.nn.BatchNorm(o, "batch", mode="batch")

    def __call__(self, x, state):
        """Return the output and the moments moved on."""
        return self.norm(self.conv(x), state)


class ResNet(eqx.Module):
    """Three stages of two blocks."""

    first: ConvNorm
    blocks: list
    last: eqx.nn.Linear

    def __init__(self, key):
        self.first, self.blocks, before = ConvNorm(3, 3, STAGES[0], 1, key), [], STAGES[0]
        for stage, channels in enumerate(STAGES):
            for block in range(BLOCKS):
                stride = 2 if stage > 0 and block == 0 else 1
                body = (
                    ConvNorm(3, before, channels, stride, key),
                    ConvNorm(3, channels, channels, 1, key),
                )
                self.blocks.append(
                    (*body, None if stride == 1 else ConvNorm(1, before, channels, stride, key))
                )
                before = channels
        self.last = eqx.nn.Linear(before, 10, key=next(key))

    def __call__(self, x, state):
        """Hand the state through."""
        x, state = self.first(x, state)
        x = jax.nn.relu(x)
        for a, b, shortcut in self.blocks:
            y, state = a(x, state)
            y, state = b(jax.nn.relu(y), state)
            x, state = (x, state) if shortcut is None else shortcut(x, state)
            x = jax.nn.relu(x + y)
        return self.last(x.mean((1, 2))), state


class GRU(eqx.Module):
    """Table, GRU, dense layer."""

    table: eqx.nn.Embedding
    cell: eqx.nn.GRUCell
    last: eqx.nn.Linear

    def __init__(self, key):
        self.table = eqx.nn.Embedding(VOCABULARY, EMBEDDED, key=next(key))
        self.cell = eqx.nn.GRUCell(EMBEDDED, HIDDEN, key=next(key))
        self.last = eqx.nn.Linear(HIDDEN, VOCABULARY, key=next(key))

    def __call__(self, tokens, state):
        """Scan over time."""

        def step(h, x):
            h = self.cell(x, h)
            return h, h

        _, h = lax.scan(step, jnp.zeros(HIDDEN), jax.vmap(self.table)(tokens))
        return jax.vmap(self.last)(h), state


class DecoderBlock(eqx.Module):
    """Attention and perceptron, normalised before."""

    norms: list
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, key):
        self.norms = [eqx.nn.LayerNorm(FEATURES), eqx.nn.LayerNorm(FEATURES)]
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        self.attention = eqx.nn.MultiheadAttention(HEADS, FEATURES, **biases, key=next(key))
        self.up = eqx.nn.Linear(FEATURES, 4 * FEATURES, key=next(key))
        self.down = eqx.nn.Linear(4 * FEATURES, FEATURES, key=next(key))

    def __call__(self, x):
        """Add each to what it came from."""
        z = jax.vmap(self.norms[0])(x)
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        turned = lambda q, k, v: (rotate(q), rotate(k), v)  # noqa: E731
        x = x + self.attention(z, z, z, mask=mask, process_heads=turned)
        z = jax.vmap(self.norms[1])(x)
        return x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(z)))


class Decoder(eqx.Module):
    """A causal language model, embedding and output tied."""

    table: eqx.nn.Embedding
    blocks: list
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        self.table = eqx.nn.Embedding(VOCABULARY, FEATURES, key=next(key))
        self.blocks = [DecoderBlock(key) for _ in range(DEPTH)]
        self.norm = eqx.nn.LayerNorm(FEATURES)

    def __call__(self, tokens, state):
        """Return scores at each time."""
        x = jax.vmap(self.table)(tokens)
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x) @ self.table.weight.T, state


class UNet(eqx.Module):
    """Halve twice, double twice."""

    convs: list
    ups: list
    last: eqx.nn.Conv2d

    def __init__(self, key):
        sizes = ((3, 16), (16, 32), (32, 64), (32, 32), (16, 16))
        self.convs = [eqx.nn.Conv2d(i, o, 3, padding=1, key=next(key)) for i, o in sizes]
        self.ups = [
            eqx.nn.ConvTranspose2d(i, o, 2, 2, key=next(key)) for i, o in ((64, 32), (32, 16))
        ]
        self.last = eqx.nn.Conv2d(16, 1, 1, key=next(key))

    def __call__(self, x, state):
        """Add what was before to what comes back."""
        relu, pool, (first, second, third, fourth, fifth) = (
            jax.nn.relu,
            eqx.nn.MaxPool2d(2, 2),
            self.convs,
        )
        a = relu(first(x))
        b = relu(second(pool(a)))
        b = relu(fourth(relu(b + self.ups[0](relu(third(pool(b)))))))
        return self.last(relu(fifth(relu(a + self.ups[1](b))))), state


NETWORKS = {"lenet": LeNet, "resnet": ResNet, "gru": GRU, "decoder": Decoder, "unet": UNet}


def contestant(name, x, y):
    """A filtered, jitted step in a Python loop."""
    x, y = (np.moveaxis(a, -1, 1).copy() if a.ndim == 4 else a for a in (x, y))
    model, running = eqx.nn.make_with_state(NETWORKS[name])(keys())
    optimizer = optax.adam(RATE)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_value_and_grad(has_aux=True)
    def objective(model, running, x, y):
        prediction, running = jax.vmap(
            model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
        )(x, running)
        return loss_of(prediction, y), running

    @eqx.filter_jit(donate="all-except-first")
    def step(batch, model, running, opt_state):
        (value, running), gradient = objective(model, running, *batch)
        updates, opt_state = optimizer.update(
            gradient, opt_state, eqx.filter(model, eqx.is_inexact_array)
        )
        return eqx.apply_updates(model, updates), running, opt_state, value

    def run(steps):
        nonlocal model, running, opt_state
        for batch in batches(name, steps, x, y):
            model, running, opt_state, value = step(batch, model, running, opt_state)
        jax.block_until_ready(value)

    return run
