"""The one table of cases: every public layer and loss, with inputs that exercise it.

Each contract test runs over all of it, and a test fails if something public is missing.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

import jaxnn as nn


def normal(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


def bits(*shape, seed=1):
    return np.random.default_rng(seed).integers(0, 2, shape)


def probabilities(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.05, 0.95, shape)


@dataclasses.dataclass(frozen=True)
class LayerCase:
    layer: Any
    x: Any
    train: bool = False  # whether to run with a key

    @property
    def id(self):
        return repr(self.layer) + (", training" if self.train else "")

    @property
    def key(self):
        return jax.random.key(3) if self.train else None

    def params(self):
        return self.layer.init(jax.random.key(0), self.x)


@dataclasses.dataclass(frozen=True)
class LossCase:
    loss: Any
    prediction: Any
    target: Any
    weights: Any = None

    @property
    def id(self):
        return repr(self.loss) + ("" if self.weights is None else ", weighted")


LAYERS = [
    LayerCase(nn.Step(), normal(4, 3)),
    LayerCase(nn.Sigmoid(), normal(4, 3, scale=3)),
    LayerCase(nn.Tanh(), normal(4, 3, scale=2)),
    LayerCase(nn.ReLU(), normal(4, 3)),
    LayerCase(nn.Dense(3), normal(5, 4)),
    LayerCase(nn.Dense(2, bias=False, w_init=("normal", 1.0)), normal(5, 4)),
    LayerCase(nn.Dense(3, w_init="he_normal"), normal(2, 3, 4)),
    LayerCase(nn.Neuron(), normal(5, 4)),
    LayerCase(nn.Neuron(activation=nn.Tanh()), normal(5, 4)),
    LayerCase(nn.chain(nn.Dense(3), nn.Tanh(), nn.chain(nn.Dense(2), nn.Sigmoid())), normal(5, 4)),
]

LOSSES = [
    LossCase(nn.BinaryCrossEntropy(), probabilities(6, 1), bits(6, 1)),
    LossCase(nn.BinaryCrossEntropy(), probabilities(6), bits(6), np.arange(6.0)),
    LossCase(nn.SigmoidBinaryCrossEntropy(), normal(6, 2, scale=3), bits(6, 2)),
    LossCase(nn.SigmoidBinaryCrossEntropy(), normal(6, 2), bits(6, 2), np.arange(6.0)),
]
