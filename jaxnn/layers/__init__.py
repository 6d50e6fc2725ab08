"""The layers, one file a kind. Each is a pure forward with its hand-derived backward beneath it."""

from jaxnn.layers.activations import (
    ELU,
    GELU,
    SELU,
    HardSigmoid,
    Heaviside,
    LeakyReLU,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Step,
    Tanh,
)
from jaxnn.layers.attention import AttentionInput, AttentionParams, MultiHeadAttention
from jaxnn.layers.convolution import Conv1D, Conv2D, ConvParams, ConvTranspose1D, ConvTranspose2D
from jaxnn.layers.dense import Dense, DenseParams
from jaxnn.layers.dropout import Dropout
from jaxnn.layers.embedding import (
    Embedding,
    EmbeddingParams,
    LanguageModel,
    LanguageModelParams,
    TiedEmbedding,
    TiedParams,
)
from jaxnn.layers.normalization import (
    BatchNorm,
    BatchNormParams,
    GroupNorm,
    LayerNorm,
    Moments,
    NormParams,
    RMSNorm,
    RMSNormParams,
)
from jaxnn.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from jaxnn.layers.positions import SinusoidalPositions
from jaxnn.layers.recurrent import GRU, LSTM, RNN, GRUParams, LSTMState, RecurrentParams
from jaxnn.layers.reshape import Flatten, Reshape
from jaxnn.layers.softmax import LogSoftmax, Softmax
from jaxnn.padding import Sequences

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "AttentionInput",
    "AttentionParams",
    "AveragePool",
    "BatchNorm",
    "BatchNormParams",
    "Conv1D",
    "Conv2D",
    "ConvParams",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "Dense",
    "DenseParams",
    "Dropout",
    "Embedding",
    "EmbeddingParams",
    "Flatten",
    "GRUParams",
    "GlobalAveragePool",
    "GroupNorm",
    "HardSigmoid",
    "Heaviside",
    "LSTMState",
    "LanguageModel",
    "LanguageModelParams",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool",
    "Mish",
    "Moments",
    "MultiHeadAttention",
    "NormParams",
    "RMSNorm",
    "RMSNormParams",
    "ReLU",
    "RecurrentParams",
    "Reshape",
    "Sequences",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositions",
    "Softmax",
    "Softplus",
    "Step",
    "Tanh",
    "TiedEmbedding",
    "TiedParams",
]
