"""The same training, written for each library as its own documentation recommends.

Each function takes the sizes of a ReLU network, the data and the batch size, and returns
``run(epochs)``, which trains a new network with Adam on shuffled batches and waits for the result.
What a peer does once, such as compiling, is done by a first call.
"""

import functools
import importlib.util
import itertools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxnn as nn

RATE = 1e-3


def ours(sizes, x, y, batch_size):
    """The call that a user writes."""
    net, loss, optimizer = nn.mlp(*sizes[1:]), nn.SoftmaxCrossEntropy(), optax.adam(RATE)
    x, y = jnp.asarray(x), jnp.asarray(y)

    def run(epochs):
        return nn.fit(
            net,
            loss,
            optimizer,
            (x, y),
            epochs=epochs,
            batch_size=batch_size,
            key=jax.random.key(0),
            progress=False,
        )

    return run


def raw_jax(sizes, x, y, batch_size):
    """A loop by hand: one compiled, donated scan per epoch, rows shuffled by NumPy."""
    x, y, optimizer = jnp.asarray(x), jnp.asarray(y), optax.adam(RATE)
    steps = len(x) // batch_size

    @jax.jit
    def init(key):
        keys = jax.random.split(key, len(sizes) - 1)
        shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
        params = [
            (jax.random.normal(k, (i, o)) * (2 / i) ** 0.5, jnp.zeros(o)) for k, i, o in shapes
        ]
        return params, optimizer.init(params)

    def objective(params, x, y):
        *hidden, (w, b) = params
        for w_hidden, b_hidden in hidden:
            x = jax.nn.relu(x @ w_hidden + b_hidden)
        return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, y).mean()

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state, x, y, order):
        def step(state, rows):
            params, opt_state = state
            value, gradient = jax.value_and_grad(objective)(params, x[rows], y[rows])
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        return lax.scan(step, state, order)

    def run(epochs):
        state, rng = init(jax.random.key(0)), np.random.default_rng(0)
        for _ in range(epochs):
            order = rng.permutation(len(x))[: steps * batch_size].reshape(steps, batch_size)
            state, values = epoch(state, x, y, order)
            np.asarray(values)

    return run


def sklearn(sizes, x, y, batch_size):
    """scikit-learn's MLPClassifier."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    def run(epochs):
        model = MLPClassifier(
            sizes[1:-1], batch_size=batch_size, learning_rate_init=RATE, alpha=0.0,
            max_iter=epochs, tol=0.0,
            n_iter_no_change=epochs + 1, random_state=0,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)

    return run


def keras(sizes, x, y, batch_size, steps_per_execution=1):
    """Keras on JAX: compile and fit, as its guides begin."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras as library

    model = library.Sequential([library.Input((sizes[0],))])
    for width in sizes[1:-1]:
        model.add(library.layers.Dense(width, activation="relu"))
    model.add(library.layers.Dense(sizes[-1]))
    model.compile(
        optimizer=library.optimizers.Adam(RATE),
        loss=library.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=steps_per_execution,
    )

    def run(epochs):
        model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)

    return run


def keras_16_steps(sizes, x, y, batch_size):
    """Keras on JAX, told to run 16 steps a call."""
    return keras(sizes, x, y, batch_size, steps_per_execution=16)


def equinox(sizes, x, y, batch_size):
    """equinox: a filtered, jitted step in a Python loop, as its examples do."""
    import equinox as eqx

    optimizer = optax.adam(RATE)
    y = y.astype(np.int32)

    class Network(eqx.Module):
        layers: list

        def __init__(self, key):
            keys = jax.random.split(key, len(sizes) - 1)
            widths = zip(sizes[:-1], sizes[1:], keys, strict=True)
            self.layers = [eqx.nn.Linear(i, o, key=k) for i, o, k in widths]

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = jax.nn.relu(layer(x))
            return self.layers[-1](x)

    @eqx.filter_value_and_grad
    def objective(model, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()

    @eqx.filter_jit(donate="all-except-first")
    def step(batch, model, opt_state):
        value, gradient = objective(model, *batch)
        updates, opt_state = optimizer.update(gradient, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state, value

    def run(epochs):
        model = Network(jax.random.key(0))
        opt_state = optimizer.init(eqx.filter(model, eqx.is_array))
        for rows in orders(epochs, len(x), batch_size):
            model, opt_state, value = step((x[rows], y[rows]), model, opt_state)
        jax.block_until_ready(value)

    return run


def nnx(sizes, x, y, batch_size):
    """Flax nnx: a jitted step with its graph cached, as its guide on performance recommends."""
    from flax import nnx as library

    y = y.astype(np.int32)

    class Network(library.Module):
        def __init__(self, rngs):
            widths = itertools.pairwise(sizes)
            self.layers = library.List([library.Linear(i, o, rngs=rngs) for i, o in widths])

        def __call__(self, x):
            for layer in self.layers[:-1]:
                x = library.relu(layer(x))
            return self.layers[-1](x)

    @library.jit
    def step(model, optimizer, x, y):
        def objective(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        value, gradient = library.value_and_grad(objective)(model)
        optimizer.update(model, gradient)
        return value

    def run(epochs):
        model = Network(library.Rngs(0))
        optimizer = library.Optimizer(model, optax.adam(RATE), wrt=library.Param)
        cached = library.cached_partial(step, model, optimizer)
        for rows in orders(epochs, len(x), batch_size):
            value = cached(x[rows], y[rows])
        jax.block_until_ready(value)

    return run


def torch(sizes, x, y, batch_size, compiled=False):
    """PyTorch: tensors in memory, indexed by a permutation."""
    import torch as library

    library.set_num_threads(os.cpu_count())
    place = "cuda" if library.cuda.is_available() else "cpu"
    x, y = library.as_tensor(x, device=place), library.as_tensor(y.astype(np.int64), device=place)
    layers = []
    for i, o in itertools.pairwise(sizes):
        layers += [library.nn.Linear(i, o), library.nn.ReLU()]
    model = library.nn.Sequential(*layers[:-1]).to(place)
    criterion, adam = library.nn.CrossEntropyLoss(), library.optim.Adam(model.parameters(), lr=RATE)

    def step(x, y):
        adam.zero_grad()
        value = criterion(model(x), y)
        value.backward()
        adam.step()
        return value

    step = library.compile(step) if compiled else step

    def run(epochs):
        for _ in range(epochs):
            for rows in library.randperm(len(x), device=place).split(batch_size):
                value = step(x[rows], y[rows])
        value.item()

    return run


def torch_compile(sizes, x, y, batch_size):
    """PyTorch, the whole step through torch.compile."""
    return torch(sizes, x, y, batch_size, compiled=True)


def orders(epochs, n, batch_size):
    """Return the rows of each batch of some epochs, shuffled."""
    rng = np.random.default_rng(0)
    for _ in range(epochs):
        order = rng.permutation(n)
        for start in range(0, n, batch_size):
            yield order[start : start + batch_size]


MODULES = {
    sklearn: "sklearn",
    keras: "keras",
    keras_16_steps: "keras",
    equinox: "equinox",
    nnx: "flax",
    torch: "torch",
    torch_compile: "torch",
}


def present():
    """Return the contestants whose libraries are installed, by name."""
    here = [peer for peer, module in MODULES.items() if importlib.util.find_spec(module)]
    return {contestant.__name__: contestant for contestant in (ours, raw_jax, *here)}
