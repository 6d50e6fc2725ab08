"""How near training comes to what the device can do: its own matrix rate and its bandwidth.

Both are measured first. A step of a large network is then given as a share of the matrix rate, by
the floating-point operations that the network itself needs (a transformer's as Narayanan et al.,
2021, count them, without those that are repeated to save memory), and layers that mostly move
numbers as a share of the bandwidth, by the bytes that have to be read and written at least.
"""

import dataclasses
import functools
import importlib.util
import math
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxnn as nn
from jaxnn import data
from suites.measure import in_turn
from suites.networks.cases import DecoderSizes

ROUNDS = 5
KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What fits on a kind of device, and keeps it busy."""

    product: int  # rows and columns of the matrices whose product is timed
    stream: int  # numbers in the arrays that are copied
    mlp: tuple[int, int, int]  # width, hidden layers, batch
    resnet: tuple[int, int, int]  # channels of the first stage, batch, height and width
    decoders: dict[str, tuple[DecoderSizes, int]]  # and the batch
    rows: tuple[int, int]  # of the layers that mostly move numbers
    members: tuple[int, int]  # of the populations
    steps: int  # that are timed at once


LARGE = Sizes(
    product=8192,
    stream=2**28,
    mlp=(8192, 4, 8192),
    resnet=(64, 128, 224),
    decoders={"decoder-124M": (DecoderSizes(768, 12, 12, 50304, 1024), 16),
              "decoder-350M": (DecoderSizes(1024, 16, 24, 50304, 1024), 8)},
    rows=(32768, 4096),
    members=(1024, 16384),
    steps=10,
)  # fmt: skip
SMALL = Sizes(
    product=1024,
    stream=2**24,
    mlp=(512, 2, 256),
    resnet=(8, 8, 32),
    decoders={"decoder-small": (DecoderSizes(128, 4, 2, 512, 128), 4)},
    rows=(2048, 1024),
    members=(64, 256),
    steps=20,
)


def run(only=""):
    """Measure everything whose name has ``only``, and yield the figures after each part."""
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    sizes = SMALL if on_cpu else LARGE
    precision = "float32" if on_cpu else "bfloat16"
    print(f"{device.platform} {device.device_kind}; training in {precision}", flush=True)
    figures = {"precision": precision}
    for name in ("float32", "tf32", "bfloat16") if not on_cpu else ("float32",):
        figures[f"matrix_rate_{name}"] = rate = matrix_rate(sizes.product, name)
        print(f"matrix products in {name}: {rate / 1e12:.3g} TFLOP/s", flush=True)
    figures["bandwidth"] = bandwidth(sizes.stream)
    print(f"bandwidth: {figures['bandwidth'] / 1e9:.4g} GB/s", flush=True)
    yield figures
    parts = trainings(sizes, precision) | moved(sizes.rows) | {
        "lecture": lecture,
        **{f"population-{m}": functools.partial(population, m) for m in sizes.members},
    }  # fmt: skip
    for name, measure in parts.items():
        if only not in name:
            continue
        try:
            figures[name] = found = measure()
        except Exception as error:  # one that does not fit must not cost the others
            figures[name] = found = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        if "flops" in found:
            share = found["flops"] / found["seconds"] / figures[f"matrix_rate_{precision}"]
            found["share_of_matrix_rate"] = share
        if "bytes" in found:
            share = found["bytes"] / found["seconds"] / figures["bandwidth"]
            found["share_of_bandwidth"] = share
        print(f"{name}: {told(found)}", flush=True)
        yield figures
    print()
    for name, found in figures.items():
        if isinstance(found, dict):
            print(f"{name:<24}  {told(found)}")


def told(found):
    """Write what was found about one case in a line."""
    units = {"seconds": (1e3, "ms"), "tokens_per_second": (1, "tokens/s")}
    parts = []
    for name, value in found.items():
        if isinstance(value, str):
            parts.append(value)
        elif name in units:
            scale, unit = units[name]
            parts.append(f"{value * scale:.4g} {unit}")
        elif name not in ("flops", "bytes"):
            parts.append(f"{name.replace('_', ' ')} {value:.3g}")
    return ", ".join(parts)


# ── What the device can do ──────────────────────────────────────────────────────────────────────


def best_of(run):
    """Return the seconds of the fastest of some runs, after one that compiles."""
    run()
    return min(in_turn({"": run}, ROUNDS)[""])


def matrix_rate(n, precision):
    """Return the floating-point operations a second of products of square matrices."""
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    products = {"tf32": "tensorfloat32", "float32": "float32"}.get(precision)
    times = 16

    @jax.jit
    def chain(a, b):
        with jax.default_matmul_precision(products) if products else jax.named_scope("product"):
            return lax.fori_loop(0, times, lambda _, a: a @ b, a)

    a = jnp.ones((n, n), dtype)
    b = jnp.eye(n, dtype=dtype)
    return 2 * n**3 * times / best_of(lambda: jax.block_until_ready(chain(a, b)))


def bandwidth(n):
    """Return the bytes a second of reading an array and writing it that no cache holds."""
    times, x = 8, jnp.ones(n, "float32")

    @jax.jit
    def scale(x):
        return lax.fori_loop(0, times, lambda _, x: x * 1.0001, x)

    return 2 * x.nbytes * times / best_of(lambda: jax.block_until_ready(scale(x)))


# ── Training steps ──────────────────────────────────────────────────────────────────────────────


def trainings(sizes, precision):
    """Return the cases of training: our own by hand and by jax.grad, and the peers'."""
    width, depth, batch = sizes.mlp
    rng = np.random.default_rng(0)
    mlp = nn.mlp(*[width] * depth, 16)
    x = rng.standard_normal((2 * batch, width), np.float32)
    classes = rng.integers(0, 16, 2 * batch)
    weights = width * width * depth + width * 16
    # forward, and the derivatives for weights and inputs; the first layer's input needs none
    flops = 2 * batch * (3 * weights - width * width)
    cases = {}
    for method in ("hand", "auto"):
        cases[f"mlp-{method}"] = functools.partial(
            step_of_fit, mlp, x, classes, batch, sizes.steps, precision, method, flops
        )
    first = x[:batch], classes[:batch]
    cases |= peers("mlp", "mlp", (width, depth, 16), *first, sizes.steps, flops)
    channels, images, side = sizes.resnet
    net = resnet50(channels)
    pictures = rng.standard_normal((2 * images, side, side, 3), np.float32)
    kinds = rng.integers(0, 1000, 2 * images)
    for method in ("hand", "auto"):
        cases[f"resnet50-{method}"] = functools.partial(
            step_of_fit, net, pictures, kinds, images, sizes.steps, precision, method,
            functools.partial(flops_of, net, pictures[:images]),
        )  # fmt: skip
    for name, (own, rows) in sizes.decoders.items():
        decoder = functools.partial(
            nn.transformer_decoder,
            own.vocabulary, features=own.features, heads=own.heads, layers=own.layers,
        )  # fmt: skip
        tokens = rng.integers(0, own.vocabulary, (2 * rows, own.positions + 1)).astype(np.int32)
        needed = decoder_flops(own, rows)
        plain, fused = decoder(), decoder(block="fused")
        contestants = {"hand": (plain, "hand"), "auto": (plain, "auto")}
        if jax.default_backend() == "gpu":  # elsewhere there is no such kernel
            contestants["fused"] = fused, "hand"
        for which, (net, method) in contestants.items():
            cases[f"{name}-{which}"] = functools.partial(
                step_of_fit, net, tokens[:, :-1], tokens[:, 1:], rows, sizes.steps, precision,
                method, needed, rows * own.positions,
            )  # fmt: skip
        first = tokens[:rows, :-1], tokens[:rows, 1:]
        cases |= peers(name, "decoder", own, *first, sizes.steps, needed, rows * own.positions)
    return cases


def decoder_flops(sizes, rows):
    """Return the operations of a step, as Narayanan et al. (2021) count them: 72 B T L C² (…)."""
    features, _, layers, vocabulary, positions = sizes
    ratio = 1 + positions / (6 * features) + vocabulary / (12 * layers * features)
    return 72 * rows * positions * layers * features**2 * ratio


def resnet50(channels):
    """Build ResNet-50 (He et al., 2016): 3, 4, 6 and 3 bottlenecks of three convolutions."""

    def conv(features, size, stride=1):
        settings = {"stride": stride, "bias": False, "w_init": "he_normal"}
        return nn.Conv2D(features, size, **settings), nn.BatchNorm()

    stages, before = [*conv(channels, 7, 2), nn.ReLU(), nn.MaxPool(3, stride=2, padding="SAME")], 0
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = channels * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            body = nn.chain(
                *conv(inner, 1), nn.ReLU(), *conv(inner, 3, stride), nn.ReLU(), *conv(4 * inner, 1)
            )
            same = before == 4 * inner
            shortcut = nn.chain(*conv(4 * inner, 1, stride))
            joined = nn.Residual(body) if same else nn.Parallel((body, shortcut), join="add")
            stages += [joined, nn.ReLU()]
            before = 4 * inner
    return nn.chain(*stages, nn.GlobalAveragePool(), nn.Dense(1000))


def flops_of(net, x):
    """Return the operations of both passes, as the summary counts them."""
    total = nn.summary(net, x).total
    return total.forward_flops + total.backward_flops


def step_of_fit(net, x, y, batch, steps, precision, method, flops, tokens=0):
    """Time a step in ``fit``, from runs of two lengths, so that what happens once cancels out."""
    rule = optax.adam(1e-4)
    given = {"batch_size": batch, "key": KEY, "method": method, "precision": precision}
    x, y = jax.device_put((x, y))
    params = nn.fit(net, nn.SoftmaxCrossEntropy(), rule, (x, y), steps=1, **given).params
    fit = functools.partial(
        nn.fit, net, nn.SoftmaxCrossEntropy(), rule, (x, y), params=params, progress=False, **given
    )
    runs = {n: functools.partial(fit, steps=n) for n in (steps, 3 * steps)}
    for run in runs.values():
        run()
    spans = in_turn(runs, ROUNDS)
    each = [(b - a) / (2 * steps) for a, b in zip(spans[steps], spans[3 * steps], strict=True)]
    seconds = statistics.median(each)
    found = {"seconds": seconds, "flops": flops() if callable(flops) else flops}
    return found | ({"tokens_per_second": tokens / seconds} if tokens else {})


def peers(case, kind, sizes, x, y, steps, flops, tokens=0):
    """Return the same step in the libraries that are installed."""
    return {
        f"{case}-{library}": functools.partial(
            step_of_peer, library, kind, sizes, x, y, steps, flops, tokens
        )
        for library in ("torch", "flax")
        if importlib.util.find_spec(library)
    }


def step_of_peer(library, kind, sizes, x, y, steps, flops, tokens):
    """Time steps in a loop."""
    if library == "torch":
        from suites.networks import torch as module

        model = module.mlp(*sizes) if kind == "mlp" else module.Decoder(sizes)
    else:
        from flax import nnx

        from suites.networks import nnx as module

        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        make = functools.partial(module.mlp if kind == "mlp" else module.Decoder, nnx.Rngs(0))
        model = make(*sizes, dtype=dtype) if kind == "mlp" else make(sizes, dtype=dtype)
    train = module.trainer(model, x, y)
    train(2)
    seconds = statistics.median(in_turn({"": lambda: train(steps)}, ROUNDS)[""]) / steps
    found = {"seconds": seconds, "flops": flops}
    return found | ({"tokens_per_second": tokens / seconds} if tokens else {})


# ── Layers that mostly move numbers ─────────────────────────────────────────────────────────────


def moved(shape):
    """Return the cases; each array that must be read or written once counts once."""
    layers = {
        "LayerNorm": nn.LayerNorm(), "RMSNorm": nn.RMSNorm(), "Softmax": nn.Softmax(),
        "GELU": nn.GELU(),
    }  # fmt: skip
    cases = {name: functools.partial(both_passes, layer, shape) for name, layer in layers.items()}
    return cases | {
        "SoftmaxCrossEntropy": functools.partial(loss_passes, shape),
        "Adam": functools.partial(adam_update, math.prod(shape)),
    }


def timed(program, *arguments):
    """Return the seconds of a call: the median over rounds of several calls."""
    program = jax.jit(program)
    jax.block_until_ready(program(*arguments))
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(10):
            result = program(*arguments)
        jax.block_until_ready(result)
        rounds.append((time.perf_counter() - began) / 10)
    return statistics.median(rounds)


def both_passes(layer, shape):
    """Time forward and backward: x read, y written; x and dy read, dx written."""
    x = jax.random.normal(KEY, shape, "float32")
    params = layer.init(KEY, x)

    def passes(params, x, dy):
        y, cache = layer.forward(params, x)
        # without the barrier the compiler would put both passes into one
        y, cache, dy = lax.optimization_barrier((y, cache, dy))
        return y, layer.backward(params, cache, dy)

    return {"seconds": timed(passes, params, x, x), "bytes": 5 * x.nbytes}


def loss_passes(shape):
    """Time the value and the derivative: the logits read once for each, the derivative written."""
    logits, loss = jax.random.normal(KEY, shape, "float32"), nn.SoftmaxCrossEntropy()
    classes = jax.random.randint(KEY, shape[:1], 0, shape[1])

    def passes(logits, classes):
        value, cache = loss.forward(logits, classes)
        return value, loss.backward(cache)

    return {"seconds": timed(passes, logits, classes), "bytes": 3 * logits.nbytes}


def adam_update(count):
    """Time an update: gradient, parameter and two moments read, three of them written."""
    params, rule = jnp.ones(count, "float32"), optax.adam(1e-3)

    def update(gradient, state, params):
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return {
        "seconds": timed(update, params, rule.init(params), params),
        "bytes": 7 * params.nbytes,
    }


# ── The smallest things ─────────────────────────────────────────────────────────────────────────


def lecture():
    """Time an iteration of the lecture's neuron, to its threshold."""
    iris = data.iris_setosa()
    x, y = data.with_ones(iris.x).astype(np.float32), iris.y
    nn.logistic_descent(x, y)
    seconds, iterations = [], 0
    for _ in range(3):
        began = time.perf_counter()
        iterations = int(nn.logistic_descent(x, y).iterations)
        seconds.append(time.perf_counter() - began)
    return {"microseconds_an_iteration": statistics.median(seconds) / iterations * 1e6}


def population(members):
    """Time an epoch of a member of a population, against that of a network alone."""
    digits, epochs = data.digits(), 2
    net, loss, rule = nn.mlp(32, 10), nn.SoftmaxCrossEntropy(), optax.adam(1e-3)
    given = {"batch_size": 32, "progress": False}
    rows = digits.x.astype(np.float32), digits.y
    keys = jax.random.split(KEY, members)
    many = functools.partial(nn.fit_population, net, loss, rule, rows, keys=keys, **given)
    alone = functools.partial(nn.fit, net, loss, rule, rows, key=KEY, **given)
    spans = {}
    for name, train in (("many", many), ("alone", alone)):
        train(epochs=epochs)
        taken = in_turn({n: functools.partial(train, epochs=n) for n in (1, 1 + epochs)}, 3)
        spans[name] = statistics.median(
            (b - a) / epochs for a, b in zip(taken[1], taken[1 + epochs], strict=True)
        )
    each = spans["many"] / members
    return {"microseconds_a_member_and_epoch": each * 1e6, "times_solo": each / spans["alone"]}
