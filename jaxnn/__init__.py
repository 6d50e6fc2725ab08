"""jaxnn: a neural-network library whose gradients you can read.

Every layer, activation and loss is a pure function with its hand-derived backward pass beneath it.
The contract is one page: ``jaxnn.types``.
"""

import contextlib
import gc
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax  # noqa: F401 -- before collection is put off: what others make is theirs to collect
import optax  # noqa: F401


@contextlib.contextmanager
def _collecting_later() -> Iterator[None]:
    """Put off the full garbage collection that importing JAX has left due: it takes twice as long as this import."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.collect(0)  # what was made meanwhile, and no more
            gc.enable()


with _collecting_later():
    from jaxnn import backprop, checks, compose, descent, layers, losses, networks, neuron, types
    from jaxnn.backprop import apply, grad, value_and_grad
    from jaxnn.checks import InputError
    from jaxnn.compose import Parallel, Remat, Repeat, Residual, Sequential, chain, output_shape
    from jaxnn.descent import Descent, gradient_descent
    from jaxnn.formulas import Formulas
    from jaxnn.gradcheck.certify import Certificate, CertificateError, certify
    from jaxnn.gradcheck.diagnose import Diagnosis, diagnose
    from jaxnn.layers import (
        ELU,
        GELU,
        GRU,
        LSTM,
        RNN,
        SELU,
        AttentionInput,
        AttentionParams,
        AveragePool,
        BatchNorm,
        BatchNormParams,
        Conv1D,
        Conv2D,
        ConvParams,
        ConvTranspose1D,
        ConvTranspose2D,
        Dense,
        DenseParams,
        Dropout,
        Embedding,
        EmbeddingParams,
        Flatten,
        GlobalAveragePool,
        GroupNorm,
        GRUParams,
        HardSigmoid,
        LayerNorm,
        LeakyReLU,
        LogSoftmax,
        LSTMState,
        MaxPool,
        Mish,
        Moments,
        MultiHeadAttention,
        NormParams,
        RecurrentParams,
        ReLU,
        Reshape,
        RMSNorm,
        RMSNormParams,
        Sequences,
        Sigmoid,
        SiLU,
        SinusoidalPositions,
        Softmax,
        Softplus,
        Step,
        Tanh,
        TiedEmbedding,
        TiedParams,
    )
    from jaxnn.losses import (
        BinaryCrossEntropy,
        Hinge,
        Huber,
        KLDivergence,
        MeanAbsoluteError,
        MeanSquaredError,
        OptaxLoss,
        PerceptronCriterion,
        SigmoidBinaryCrossEntropy,
        SoftmaxCrossEntropy,
    )
    from jaxnn.networks import lenet, mlp, recurrent_classifier, resnet, transformer_decoder, transformer_encoder
    from jaxnn.neuron import Neuron, NeuronParams, logistic_descent, perceptron_rule
    from jaxnn.tracing import Stage, Trace, trace
    from jaxnn.types import Layer, Loss, Running, advance, join_running, split_running
    from jaxnn.values import from_json, layer, loss, to_json

if TYPE_CHECKING:
    from jaxnn import data, plots
    from jaxnn.explanation import explain
    from jaxnn.serialization import export_function, load_model, save_model
    from jaxnn.summarize import summary
    from jaxnn.training.checkpoint import Checkpoints
    from jaxnn.training.evaluation import evaluate, predict
    from jaxnn.training.fit import Fit, TrainingError, TrainingInterrupted, fit
    from jaxnn.training.loop import EarlyStopping, Event
    from jaxnn.training.population import Population, fit_population
    from jaxnn.training.train_step import TrainState, init_state, train_step

__version__ = "0.1.0"

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
    "BinaryCrossEntropy",
    "Certificate",
    "CertificateError",
    "Checkpoints",
    "Conv1D",
    "Conv2D",
    "ConvParams",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "Dense",
    "DenseParams",
    "Descent",
    "Diagnosis",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "EmbeddingParams",
    "Event",
    "Fit",
    "Flatten",
    "Formulas",
    "GRUParams",
    "GlobalAveragePool",
    "GroupNorm",
    "HardSigmoid",
    "Hinge",
    "Huber",
    "InputError",
    "KLDivergence",
    "LSTMState",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
    "MaxPool",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Mish",
    "Moments",
    "MultiHeadAttention",
    "Neuron",
    "NeuronParams",
    "NormParams",
    "OptaxLoss",
    "Parallel",
    "PerceptronCriterion",
    "Population",
    "RMSNorm",
    "RMSNormParams",
    "ReLU",
    "RecurrentParams",
    "Remat",
    "Repeat",
    "Reshape",
    "Residual",
    "Running",
    "Sequences",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SigmoidBinaryCrossEntropy",
    "SinusoidalPositions",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Softplus",
    "Stage",
    "Step",
    "Tanh",
    "TiedEmbedding",
    "TiedParams",
    "Trace",
    "TrainState",
    "TrainingError",
    "TrainingInterrupted",
    "advance",
    "apply",
    "backprop",
    "certify",
    "chain",
    "checks",
    "compose",
    "data",
    "descent",
    "diagnose",
    "evaluate",
    "explain",
    "export_function",
    "fit",
    "fit_population",
    "from_json",
    "grad",
    "gradient_descent",
    "init_state",
    "join_running",
    "layer",
    "layers",
    "lenet",
    "load_model",
    "logistic_descent",
    "loss",
    "losses",
    "mlp",
    "networks",
    "neuron",
    "output_shape",
    "perceptron_rule",
    "plots",
    "predict",
    "recurrent_classifier",
    "resnet",
    "save_model",
    "split_running",
    "summary",
    "to_json",
    "trace",
    "train_step",
    "transformer_decoder",
    "transformer_encoder",
    "types",
    "value_and_grad",
]

# what training and drawing need is imported on first use: scikit-learn and matplotlib alone take a second
_ON_FIRST_USE = {
    "data": "",
    "plots": "",
    "Checkpoints": "training.checkpoint",
    "EarlyStopping": "training.loop",
    "Event": "training.loop",
    "Fit": "training.fit",
    "Population": "training.population",
    "TrainState": "training.train_step",
    "TrainingError": "training.fit",
    "TrainingInterrupted": "training.fit",
    "evaluate": "training.evaluation",
    "explain": "explanation",
    "export_function": "serialization",
    "fit": "training.fit",
    "fit_population": "training.population",
    "init_state": "training.train_step",
    "load_model": "serialization",
    "predict": "training.evaluation",
    "save_model": "serialization",
    "summary": "summarize",
    "train_step": "training.train_step",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_ON_FIRST_USE[name] or name}")
    value = getattr(module, name) if _ON_FIRST_USE[name] else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
