"""Check that the compile time does not grow with depth, and that nothing is compiled twice.

The ResNet's step, and the loop in which ``fit`` makes it, are also traced and compiled in turn with
a step in JAX alone.
"""

import functools
import logging
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn as nn
from jaxnn.training.batching import Batch
from jaxnn.training.compiled_loops import over_rows
from suites.measure import in_turn, table
from suites.networks import cases, ours, raw_jax

SHALLOW, DEEP = 2, 24


def first_step(times):
    """Build a network with the given number of transformer blocks, and make its first step."""
    body = nn.chain(
        nn.Repeat(nn.networks.transformer_block(64, 4, causal=True), times), nn.LayerNorm()
    )
    net, optimizer = nn.LanguageModel(100, 64, body), optax.adam(1e-3)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 100, (8, 33)))
    x, y = tokens[:, :-1], tokens[:, 1:]
    state = nn.init_state(net, optimizer, x, jax.random.key(0))
    step = jax.jit(nn.train_step(net, nn.SoftmaxCrossEntropy(), optimizer))
    jax.block_until_ready(step(state, (x, y)))


def compilations(work):
    """Count the programs that are compiled while ``work`` runs."""
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: (
        seen.append(record) if "Compiling" in record.getMessage() else None
    )
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        with jax.log_compiles():
            work()
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    return len(seen)


def again(rate, epochs, seed):
    """Build the same network again, and fit it."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((100, 8), dtype=np.float32), rng.integers(0, 3, 100)
    net, loss = nn.mlp(16, 3), nn.SoftmaxCrossEntropy()
    nn.fit(
        net, loss, optax.adam(rate), (x, y), epochs=epochs, batch_size=32, key=jax.random.key(seed)
    )


def program_of_fit(x, y, batch_size):
    """Trace and compile the loop in which ``fit`` trains the ResNet."""
    net, optimizer = ours.NETWORKS["resnet"], optax.adam(1e-3)
    state = nn.init_state(net, optimizer, x[:batch_size], jax.random.key(0))
    step = nn.train_step(net, nn.SoftmaxCrossEntropy(), optimizer)
    span, orders = np.array([0, 8]), np.arange(len(x))[None]
    loop = functools.partial(over_rows, step, batch_size=batch_size)
    arguments = {"data": Batch(x, y, None), "orders": orders}
    return lambda: jax.jit(loop, donate_argnums=0).lower(state, span, **arguments).compile()


def program_of_step(x, y, batch_size):
    """Trace and compile the ResNet's step in JAX alone."""
    step, state = raw_jax.step_and_state("resnet", x, y)
    return lambda: step.lower(state, x[:batch_size], y[:batch_size]).compile()


def resnet():
    """Compile both in turn, without a cache; return the seconds of each."""
    x, y = map(jnp.asarray, cases.data("resnet"))
    programs = {
        "fit": program_of_fit(x, y, cases.BATCH_SIZE["resnet"]),
        "raw_jax": program_of_step(x, y, cases.BATCH_SIZE["resnet"]),
    }

    def cold(program):
        jax.clear_caches()
        program()

    cold(programs["raw_jax"])
    return in_turn({k: functools.partial(cold, v) for k, v in programs.items()}, rounds=5)


def run(only=""):
    """Compile both depths in turn, without a cache; then train two equal networks."""

    def cold(times):
        jax.clear_caches()
        first_step(times)

    cold(SHALLOW)  # so that the first round does not include the start of JAX
    names = {SHALLOW: f"{SHALLOW} blocks", DEEP: f"{DEEP} blocks"}
    seconds = in_turn(
        {name: lambda times=times: cold(times) for times, name in names.items()}, rounds=5
    )
    table(seconds)
    pairs = zip(seconds[names[DEEP]], seconds[names[SHALLOW]], strict=True)
    ratio = statistics.median(deep / shallow for deep, shallow in pairs)
    first = compilations(lambda: again(1e-3, 2, 0))
    second = compilations(lambda: again(3e-3, 5, 1))
    print(f"first step, {DEEP} blocks over {SHALLOW}: {ratio:.2f}")
    print(
        f"programs compiled: {first} the first time, "
        f"{second} for an equal network, another rate, seed and epochs"
    )
    of_resnet = resnet()
    table(of_resnet)
    pairs = zip(of_resnet["fit"], of_resnet["raw_jax"], strict=True)
    of_fit = statistics.median(fit / raw for fit, raw in pairs)
    print(f"ResNet, the loop of fit over a step in JAX alone: {of_fit:.2f}")
    return {
        "resnet_fit_over_raw_jax": of_fit,
        "repeat_24_over_2": ratio,
        "compiled_first": first,
        "compiled_again": second,
        "seconds": seconds,
    }
