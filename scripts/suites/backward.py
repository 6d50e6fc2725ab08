"""The hand-derived gradient against jax.grad, by time and memory, alone and inside a loop."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxnn as nn
from suites.measure import in_turn


def normal(*shape):
    """Draw float32 inputs."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def tokens(*shape):
    """Draw token ids below 100."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 100, shape))


IMAGES, ROWS, SERIES = normal(16, 32, 32, 16), normal(256, 1024), normal(32, 64, 128)
ACTIVATIONS = [
    nn.Heaviside(), nn.Sigmoid(), nn.HardSigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(),
    nn.ELU(), nn.SELU(), nn.Softplus(),
    nn.SiLU(), nn.Mish(), nn.GELU(), nn.GELU(form="tanh"), nn.Softmax(), nn.LogSoftmax(),
]  # fmt: skip
BACKWARD = {
    **{repr(layer): (layer, ROWS, None) for layer in ACTIVATIONS},
    "Dense": (nn.Dense(512), ROWS, None),
    "Conv1D": (nn.Conv1D(64, 5), SERIES, None),
    "Conv2D": (nn.Conv2D(32, 3), IMAGES, None),
    "Conv2D strided": (nn.Conv2D(32, 3, stride=2), IMAGES, None),
    "Conv2D depthwise": (nn.Conv2D(16, 3, groups=16), IMAGES, None),
    "ConvTranspose1D": (nn.ConvTranspose1D(64, 4, stride=2), SERIES, None),
    "ConvTranspose2D": (nn.ConvTranspose2D(16, 4, stride=2), IMAGES, None),
    "MaxPool": (nn.MaxPool(2), IMAGES, None),
    "MaxPool overlapping": (nn.MaxPool(3, stride=2, padding="SAME"), IMAGES, None),
    "AveragePool": (nn.AveragePool(2), IMAGES, None),
    "GlobalAveragePool": (nn.GlobalAveragePool(), IMAGES, None),
    "LayerNorm": (nn.LayerNorm(), ROWS, None),
    "RMSNorm": (nn.RMSNorm(), ROWS, None),
    "GroupNorm": (nn.GroupNorm(4), IMAGES, None),
    "BatchNorm": (nn.BatchNorm(), IMAGES, jax.random.key(0)),
    "Dropout": (nn.Dropout(0.5), ROWS, jax.random.key(0)),
    "Embedding": (nn.Embedding(100, 128), tokens(32, 64), None),
    "RNN": (nn.RNN(128), SERIES, None),
    "LSTM": (nn.LSTM(128), SERIES, None),
    "GRU": (nn.GRU(128), SERIES, None),
    "MultiHeadAttention": (nn.MultiHeadAttention(4), normal(8, 128, 128), None),
    "MultiHeadAttention causal rotary": (
        nn.MultiHeadAttention(4, causal=True, rotary=True),
        normal(8, 128, 128),
        None,
    ),
    "MultiHeadAttention in blocks": (
        nn.MultiHeadAttention(4, causal=True, block=64),
        normal(8, 256, 128),
        None,
    ),
    "Residual": (nn.Residual(nn.chain(nn.Dense(1024), nn.Tanh())), ROWS, None),
    "Parallel": (nn.Parallel((nn.GRU(64), nn.GRU(64, reverse=True))), SERIES, None),
    "Repeat": (nn.Repeat(nn.chain(nn.Dense(1024), nn.Tanh()), 4), ROWS, None),
    "mlp": (nn.mlp(512, 512, 10), ROWS, None),
    "lenet": (nn.lenet(10), normal(64, 28, 28, 1), None),
    "resnet": (nn.resnet(10, features=(8, 16), blocks=1), normal(16, 16, 16, 3), jax.random.key(0)),
    "transformer_encoder": (nn.transformer_encoder(100, 10), tokens(16, 64), None),
    "transformer_decoder": (nn.transformer_decoder(100), tokens(16, 64), None),
    "recurrent_classifier": (nn.recurrent_classifier(100, 10), tokens(16, 64), None),
}


def by_hand(net, params, x, key, dy):
    """Forward, then the hand-derived backward."""
    _, cache = net.forward(params, x, key)
    return net.backward(params, cache, dy)


def by_jax(net, params, x, key, dy):
    """JAX's reverse mode over the same forward."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jax.vjp(lambda params, x: net.forward(params, x, key)[0], params, x)[1](dy)
    return jax.vjp(lambda params: net.forward(params, x, key)[0], params)[1](dy)


LOOPS = 4  # gradients in one compiled loop


def one_step(net, key, carry):
    """Run the hand-derived gradient on inputs that depend on the last result."""

    def touched(tree, result):
        nothing = sum(leaf.reshape(-1)[0] for leaf in jax.tree.leaves(result)) * 1e-30
        return jax.tree.map(
            lambda leaf: leaf.at[(0,) * leaf.ndim].add(nothing.astype(leaf.dtype)), tree
        )

    inputs, result = carry
    inputs = touched(inputs, result)
    return inputs, by_hand(net, *inputs[:2], key, inputs[2])


def in_loop(net, key, carry):
    """Make such steps in one compiled loop."""
    return lax.fori_loop(0, LOOPS, lambda _, carry: one_step(net, key, carry), carry)


def measure_backward(net, x, key):
    """Run both compiled gradients of one layer in turn, and the one by hand inside a loop."""
    params = net.init(jax.random.key(0), x)
    dy = normal(*nn.output_shape(net, params, x).shape)
    programs = {
        route.__name__: jax.jit(route, static_argnums=0).lower(net, params, x, key, dy).compile()
        for route in (by_hand, by_jax)
    }

    def runner(program, times):
        def run():
            for _ in range(times):
                jax.block_until_ready(program(params, x, key, dy))

        return run

    def stepper(steps, times):
        """Return a function that makes steps, each on the memory of the one before."""
        result = jax.eval_shape(lambda: by_hand(net, params, x, key, dy))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), result)
        carry = jax.tree.map(jnp.array, ((params, x, dy), nothing))
        program = jax.jit(steps, static_argnums=0, donate_argnums=2)
        program = program.lower(net, key, carry).compile()

        def run():
            nonlocal carry
            for _ in range(times):
                carry = jax.block_until_ready(program(key, carry))

        return run

    once = min(in_turn({"by_jax": runner(programs["by_jax"], 1)}, rounds=5)["by_jax"])
    times = max(1, int(2e-3 / once))  # calls a sample, so that each lasts some milliseconds
    runs = {name: runner(program, times) for name, program in programs.items()}
    runs |= {"one_step": stepper(one_step, times * LOOPS), "in_loop": stepper(in_loop, times)}
    seconds = in_turn(runs, rounds=max(20, min(150, int(0.6 / (once * times)))))
    for name in ("one_step", "in_loop"):
        seconds[name] = [value / LOOPS for value in seconds[name]]
    median = {name: statistics.median(values) / times for name, values in seconds.items()}
    memory = {
        name: program.memory_analysis().temp_size_in_bytes for name, program in programs.items()
    }
    return {
        "time_ratio": median["by_hand"] / median["by_jax"],
        "memory_ratio": memory["by_hand"] / memory["by_jax"]
        if memory["by_jax"]
        else 1.0 + memory["by_hand"],
        "loop_ratio": statistics.median(
            a / b for a, b in zip(seconds["in_loop"], seconds["one_step"], strict=True)
        ),
        "microseconds": {name: value * 1e6 for name, value in median.items()},
        "temporary_bytes": memory,
    }


def run(only=""):
    """Run time in turn, and temporary memory, of the hand-derived gradients against jax.grad."""
    figures = {}
    print(
        f"{'layer':<34}  {'by hand, µs':>12}  {'jax.grad, µs':>12}  "
        f"{'a step, µs':>12}  {'in a loop, µs':>13}  {'time ratio':>10}  "
        f"{'memory ratio':>12}  {'loop ratio':>10}"
    )
    for name, case in BACKWARD.items():
        if only in name:
            row = figures[name] = measure_backward(*case)
            times = "  ".join(f"{value:12.0f}" for value in row["microseconds"].values())
            ratios = (
                f"{row['time_ratio']:10.2f}  {row['memory_ratio']:12.2f}  {row['loop_ratio']:10.2f}"
            )
            print(f"{name:<34}  {times}   {ratios}", flush=True)
    return figures
