"""Small networks whose traces many tests use: the example of the lecture, and others."""

import jax
import numpy as np

import jaxnn as nn

NET = nn.chain(nn.Dense(3, bias=False), nn.Sigmoid(), nn.Dense(1, bias=False), nn.Sigmoid())
W, V = np.array([[1.0, -1, 3], [2, 2, -1]]), np.array([[0.1], [0.5], [-0.1]])


def lecture(label=1):
    params = (nn.DenseParams(W, None), (), nn.DenseParams(V, None), ())
    return nn.trace(
        NET, nn.BinaryCrossEntropy(), params, np.array([[5.0, 3.0]]), np.array([[label]])
    )


def drawn(net, loss, x, target, seed=0):
    """Trace a network with random parameters, including the biases."""
    params = net.init(jax.random.key(seed), x)
    random = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.3 * random.standard_normal(leaf.shape), params
    )
    return nn.trace(net, loss, params, x, target)


def relu_classes(seed=0, batch=1):
    random = np.random.default_rng(seed)
    net = nn.chain(nn.Dense(4), nn.ReLU(), nn.Dense(3))
    target = random.integers(0, 3, batch)
    return drawn(net, nn.SoftmaxCrossEntropy(), random.standard_normal((batch, 2)), target, seed)


def recurrent(seed=0):
    random = np.random.default_rng(seed)
    net = nn.chain(nn.RNN(2, output="last"), nn.Dense(1))
    return drawn(
        net,
        nn.MeanSquaredError(),
        random.standard_normal((1, 3, 2)),
        random.standard_normal((1, 1)),
        seed,
    )


def convolution(seed=0):
    random = np.random.default_rng(seed)
    net = nn.chain(
        nn.Conv2D(1, 2, padding="VALID"), nn.ReLU(), nn.Flatten(), nn.Dense(1), nn.Sigmoid()
    )
    return drawn(
        net, nn.BinaryCrossEntropy(), random.standard_normal((1, 4, 4, 1)), np.array([[1]]), seed
    )


def nested(seed=0):
    """Trace a network with residuals, normalisation, attention, branches and repetition."""
    random = np.random.default_rng(seed)
    attention = nn.Residual(nn.chain(nn.LayerNorm(), nn.MultiHeadAttention(1, causal=True)))
    both = nn.Parallel((nn.Dense(2), nn.chain(nn.Dense(1), nn.GELU())))
    net = nn.chain(
        attention, nn.Repeat(nn.chain(nn.Dense(2), nn.Tanh()), 2), both, nn.GlobalAveragePool()
    )
    return drawn(
        net, nn.SoftmaxCrossEntropy(), random.standard_normal((1, 2, 2)), np.array([1]), seed
    )


def added_branches(seed=0):
    random = np.random.default_rng(seed)
    branches = nn.Parallel((nn.Dense(2), nn.chain(nn.Dense(2), nn.Tanh())), join="add")
    net = nn.chain(branches, nn.Dense(2))
    return drawn(
        net, nn.SoftmaxCrossEntropy(), random.standard_normal((2, 3)), np.array([1, 0]), seed
    )


ALL = {
    "the lecture's example": lecture,
    "ReLU, biases, three classes": relu_classes,
    "a recurrent net": recurrent,
    "a convolution on a 4 x 4 image": convolution,
    "nested": nested,
}


@nn.layer
class Twice:
    """A user's combinator without formulas."""

    body: nn.Layer

    def init(self, key, x):
        return self.body.init(key, x)

    def forward(self, params, x, key=None):
        y, cache = self.body.forward(params, x)
        return 2 * y, cache

    def backward(self, params, cache, dy):
        return self.body.backward(params, cache, 2 * dy)
