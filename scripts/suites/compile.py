"""Check that the compile time does not grow with depth, and that nothing is compiled twice."""

import logging
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn as nn
from suites.measure import in_turn, table

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
    return {
        "repeat_24_over_2": ratio,
        "compiled_first": first,
        "compiled_again": second,
        "seconds": seconds,
    }
