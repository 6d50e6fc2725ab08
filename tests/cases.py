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


def tokens(*shape, vocabulary, seed=1):
    return np.random.default_rng(seed).integers(0, vocabulary, shape)


def distribution(*shape, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


MASK = (
    np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 0, 1, 1]]) == 1
)  # the second query may look at nothing


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
    LayerCase(nn.Heaviside(), normal(4, 3)),
    LayerCase(nn.Sigmoid(), normal(4, 3, scale=3)),
    LayerCase(nn.HardSigmoid(), normal(4, 3, scale=3)),
    LayerCase(nn.Tanh(), normal(4, 3, scale=2)),
    LayerCase(nn.ReLU(), normal(4, 3)),
    LayerCase(nn.LeakyReLU(), normal(4, 3)),
    LayerCase(nn.LeakyReLU(slope=0.3), normal(2, 3, 2)),
    LayerCase(nn.ELU(), normal(4, 3)),
    LayerCase(nn.ELU(alpha=0.5), normal(4, 3)),
    LayerCase(nn.SELU(), normal(4, 3)),
    LayerCase(nn.Softplus(), normal(4, 3, scale=2)),
    LayerCase(nn.SiLU(), normal(4, 3, scale=2)),
    LayerCase(nn.Mish(), normal(4, 3, scale=2)),
    LayerCase(nn.GELU(), normal(4, 3, scale=2)),
    LayerCase(nn.GELU(form="tanh"), normal(4, 3, scale=2)),
    LayerCase(nn.Softmax(), normal(4, 3, scale=2)),
    LayerCase(nn.LogSoftmax(), normal(2, 4, 3, scale=2)),
    LayerCase(nn.Dense(3), normal(5, 4)),
    LayerCase(nn.Dense(2, bias=False, w_init=("normal", 1.0)), normal(5, 4)),
    LayerCase(nn.Dense(3, w_init="he_normal"), normal(2, 3, 3)),
    LayerCase(nn.Neuron(), normal(5, 4)),
    LayerCase(nn.Neuron(activation=nn.Tanh()), normal(5, 4)),
    LayerCase(nn.Conv1D(4, 3), normal(2, 6, 2)),
    LayerCase(
        nn.Conv1D(4, 3, stride=2, padding=2, dilation=2, groups=2, bias=False), normal(2, 7, 4)
    ),
    LayerCase(nn.Conv2D(2, 3), normal(2, 4, 5, 2)),
    LayerCase(nn.Conv2D(2, (3, 2), stride=(2, 1), padding="VALID"), normal(2, 6, 4, 2)),
    LayerCase(nn.Conv2D(4, 3, padding=((1, 0), (2, 1)), dilation=2, groups=2), normal(2, 6, 5, 2)),
    LayerCase(nn.Conv2D(6, 3, groups=3, stride=2), normal(2, 5, 4, 3)),  # depthwise
    LayerCase(nn.Conv2D(3, 1, stride=(2, 1)), normal(2, 5, 3, 2)),  # pointwise
    LayerCase(nn.ConvTranspose2D(3, 1, stride=2, padding=1, bias=False), normal(2, 3, 4, 2)),
    # from eight channels on, a CPU computes the derivative for the kernel in another way
    LayerCase(
        nn.Conv2D(8, (2, 3), stride=(2, 1), padding=((1, 1), (1, 2)), dilation=2),
        normal(2, 6, 6, 8),
    ),
    LayerCase(nn.Conv1D(16, 3, groups=2, padding="VALID"), normal(2, 5, 16)),
    LayerCase(nn.ConvTranspose1D(4, 3, stride=2), normal(2, 4, 2)),
    LayerCase(nn.ConvTranspose1D(4, 3, padding=1, dilation=2, groups=2), normal(2, 4, 2)),
    LayerCase(nn.ConvTranspose2D(2, 3, stride=2, padding="VALID", bias=False), normal(2, 2, 3, 2)),
    LayerCase(nn.ConvTranspose2D(4, (2, 3), stride=(1, 2), groups=2), normal(2, 3, 2, 2)),
    LayerCase(nn.MaxPool(2), normal(2, 4, 6, 2)),
    LayerCase(nn.MaxPool(3, stride=2, padding="SAME"), normal(2, 5, 4, 2)),
    LayerCase(nn.MaxPool((2,), stride=1), normal(2, 5, 2)),
    LayerCase(nn.AveragePool(2), normal(2, 5, 4, 2)),
    LayerCase(nn.AveragePool((3, 2), stride=(2, 1), padding="SAME"), normal(2, 5, 3, 2)),
    LayerCase(nn.GlobalAveragePool(), normal(2, 3, 2, 4)),
    LayerCase(nn.GlobalAveragePool(), nn.Sequences(normal(3, 4, 2), np.array([4, 2, 0]))),
    LayerCase(nn.Flatten(), normal(2, 3, 2)),
    LayerCase(nn.Reshape((2, 6)), normal(2, 4, 3)),
    LayerCase(nn.Dropout(0.4), normal(4, 5)),
    LayerCase(nn.Dropout(0.4), normal(4, 5), train=True),
    LayerCase(nn.Embedding(5, 3), tokens(2, 4, vocabulary=5)),
    LayerCase(nn.LanguageModel(5, 4, nn.chain(nn.Dense(4), nn.Tanh())), tokens(2, 3, vocabulary=5)),
    LayerCase(nn.LayerNorm(), normal(3, 2, 4, scale=3)),
    LayerCase(nn.RMSNorm(), normal(3, 5, scale=3)),
    LayerCase(nn.GroupNorm(2), normal(2, 3, 2, 4)),
    LayerCase(nn.BatchNorm(), normal(4, 2, 3)),
    LayerCase(nn.BatchNorm(), normal(4, 2, 3), train=True),
    LayerCase(nn.BatchNorm(momentum=0.5), normal(6, 3), train=True),
    LayerCase(nn.RNN(3), normal(2, 4, 3)),
    LayerCase(nn.RNN(3, output="last", reverse=True), normal(2, 4, 2)),
    LayerCase(
        nn.RNN(3, return_state=True),
        nn.Sequences(normal(3, 4, 2), np.array([4, 2, 0]), normal(3, 3, seed=2)),
    ),
    LayerCase(nn.LSTM(3), normal(2, 4, 3)),
    LayerCase(
        nn.LSTM(2, output="last", reverse=True), nn.Sequences(normal(3, 4, 2), np.array([4, 2, 1]))
    ),
    LayerCase(
        nn.LSTM(2, return_state=True),
        nn.Sequences(
            normal(2, 3, 2), None, nn.LSTMState(normal(2, 2, seed=2), normal(2, 2, seed=3))
        ),
    ),
    LayerCase(nn.GRU(3), normal(2, 4, 2)),
    LayerCase(nn.GRU(2, reverse=True), nn.Sequences(normal(3, 4, 2), np.array([4, 2, 1]))),
    LayerCase(
        nn.GRU(3, output="last", return_state=True),
        nn.Sequences(normal(2, 3, 2), None, normal(2, 3, seed=2)),
    ),
    LayerCase(nn.MultiHeadAttention(2), normal(2, 3, 4)),
    LayerCase(nn.MultiHeadAttention(2, causal=True, rotary=True, bias=False), normal(2, 4, 4)),
    LayerCase(nn.MultiHeadAttention(2, causal=True, rotary=True, block=2), normal(2, 5, 4)),
    LayerCase(nn.MultiHeadAttention(2, causal=True, rotary=True, block="fused"), normal(2, 5, 4)),
    LayerCase(
        nn.MultiHeadAttention(2),
        nn.AttentionInput(normal(2, 3, 4), normal(2, 5, 6, seed=1), MASK, np.array([5, 3])),
    ),
    LayerCase(
        nn.MultiHeadAttention(1, block=2),
        nn.AttentionInput(
            normal(2, 3, 4), normal(2, 5, 6, seed=1), MASK[None].repeat(2, axis=0), np.array([0, 4])
        ),
    ),
    LayerCase(
        nn.MultiHeadAttention(2), nn.AttentionInput(normal(2, 3, 4), mask=bits(2, 2, 3, 3) == 1)
    ),
    LayerCase(nn.SinusoidalPositions(), normal(2, 3, 5)),
    LayerCase(nn.chain(nn.Dense(3), nn.Tanh(), nn.chain(nn.Dense(2), nn.Sigmoid())), normal(5, 4)),
    LayerCase(nn.Residual(nn.chain(nn.Dense(4), nn.Tanh())), normal(3, 4)),
    LayerCase(nn.Parallel((nn.GRU(2), nn.GRU(2, reverse=True))), normal(2, 3, 2)),  # bidirectional
    LayerCase(
        nn.Parallel((nn.Dense(3), nn.chain(nn.Dense(3), nn.Tanh())), join="add"), normal(3, 2)
    ),
    LayerCase(
        nn.Repeat(nn.chain(nn.Dense(3), nn.Tanh(), nn.Dropout(0.2)), 3), normal(4, 3), train=True
    ),
    LayerCase(
        nn.Repeat(nn.MultiHeadAttention(2), 2),
        nn.AttentionInput(normal(2, 3, 4), normal(2, 5, 4, seed=1), lengths=np.array([5, 3])),
    ),
    LayerCase(
        nn.Remat(nn.chain(nn.Dense(3), nn.Tanh(), nn.Dropout(0.2))), normal(4, 3), train=True
    ),
    LayerCase(
        nn.Remat(nn.chain(nn.Dense(3), nn.GELU(), nn.Dropout(0.2)), policy="dots_saveable"),
        normal(4, 3),
        train=True,
    ),
    LayerCase(
        nn.Repeat(
            nn.Remat(
                nn.Residual(nn.MultiHeadAttention(2)), policy="dots_with_no_batch_dims_saveable"
            ),
            2,
        ),
        normal(2, 3, 4),
    ),
    LayerCase(
        nn.Frozen(nn.chain(nn.Dense(3), nn.BatchNorm(), nn.Dropout(0.2))), normal(4, 3), train=True
    ),
    LayerCase(nn.Cast(nn.chain(nn.Dense(3), nn.BatchNorm()), "float64"), normal(4, 3), train=True),
    LayerCase(
        nn.chain(nn.Dense(3), nn.Frozen(nn.chain(nn.Dense(2), nn.Tanh())), nn.Dense(1)),
        normal(4, 3),
        train=True,
    ),
    LayerCase(
        nn.Repeat(nn.Remat(nn.Residual(nn.chain(nn.BatchNorm(), nn.Dense(3)))), 2),
        normal(4, 3),
        train=True,
    ),
]

NETWORKS = [
    LayerCase(nn.mlp(5, 4, 2, activation=nn.Tanh()), normal(3, 4)),
    LayerCase(nn.lenet(3), normal(2, 8, 8, 1)),
    LayerCase(nn.resnet(2, features=(2, 4), blocks=1), normal(3, 4, 4, 1), train=True),
    LayerCase(
        nn.transformer_encoder(7, 3, features=4, heads=2, dropout=0.1),
        tokens(2, 5, vocabulary=7),
        train=True,
    ),
    LayerCase(nn.transformer_decoder(7, features=4, heads=2), tokens(2, 5, vocabulary=7)),
    LayerCase(nn.transformer_decoder(7, features=4, heads=2, block=2), tokens(2, 5, vocabulary=7)),
    LayerCase(nn.recurrent_classifier(7, 3, features=3), tokens(2, 4, vocabulary=7)),
]

LOSSES = [
    LossCase(nn.BinaryCrossEntropy(), probabilities(6, 1), bits(6, 1)),
    LossCase(nn.BinaryCrossEntropy(), probabilities(6), bits(6), np.arange(6.0)),
    LossCase(nn.SigmoidBinaryCrossEntropy(), normal(6, 2, scale=3), bits(6, 2)),
    LossCase(nn.SigmoidBinaryCrossEntropy(), normal(6, 2), bits(6, 2), np.arange(6.0)),
    LossCase(nn.SoftmaxCrossEntropy(), normal(5, 3, scale=3), tokens(5, vocabulary=3)),
    LossCase(
        nn.SoftmaxCrossEntropy(smoothing=0.1), normal(5, 3), tokens(5, vocabulary=3), np.arange(5.0)
    ),
    LossCase(nn.SoftmaxCrossEntropy(ignore=0), normal(2, 5, 3), tokens(2, 5, vocabulary=3)),
    LossCase(
        nn.SoftmaxCrossEntropy(smoothing=0.1, ignore=-1),
        normal(2, 5, 3),
        tokens(2, 5, vocabulary=4) - 1,
    ),
    LossCase(nn.SoftmaxCrossEntropy(smoothing=0.2), normal(4, 3), distribution(4, 3)),
    LossCase(nn.MeanSquaredError(), normal(5, 2), normal(5, 2, seed=1)),
    LossCase(nn.MeanSquaredError(), normal(5, 2), normal(5, 2, seed=1), np.arange(5.0)),
    LossCase(nn.MeanAbsoluteError(), normal(5, 2), normal(5, 2, seed=1), np.arange(5.0)),
    LossCase(nn.Huber(), normal(5, 2, scale=2), normal(5, 2, seed=1)),
    LossCase(nn.Huber(delta=0.3), normal(5, 2), normal(5, 2, seed=1), np.arange(5.0)),
    LossCase(nn.Hinge(), normal(6, 2), 2 * bits(6, 2) - 1, np.arange(6.0)),
    LossCase(nn.PerceptronCriterion(), normal(6, 2), 2 * bits(6, 2) - 1, np.arange(6.0)),
    LossCase(
        nn.KLDivergence(), np.log(distribution(4, 3)), distribution(4, 3, seed=5), np.arange(4.0)
    ),
    LossCase(nn.OptaxLoss("log_cosh"), normal(5, 2), normal(5, 2, seed=1), np.arange(5.0)),
    LossCase(
        nn.OptaxLoss("cosine_distance", (("epsilon", 1e-6),)), normal(5, 3), normal(5, 3, seed=1)
    ),
]
