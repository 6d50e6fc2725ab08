"""jaxnn: a neural-network library whose gradients you can read.

Every layer, activation and loss is a pure function with its hand-derived backward pass beneath it.
The contract is one page: ``jaxnn.types``.
"""

import importlib
from typing import Any

from jaxnn import backprop, checks, compose, descent, layers, losses, neuron, types
from jaxnn.backprop import apply, grad, value_and_grad
from jaxnn.certify import Certificate, CertificateError, certify
from jaxnn.checks import InputError
from jaxnn.compose import Sequential, chain, output_shape
from jaxnn.descent import Descent, gradient_descent
from jaxnn.layers import Dense, DenseParams, ReLU, Sigmoid, Step, Tanh
from jaxnn.losses import BinaryCrossEntropy, SigmoidBinaryCrossEntropy
from jaxnn.neuron import Neuron, NeuronParams, logistic_descent, perceptron_rule
from jaxnn.trace import Trace, trace
from jaxnn.types import Layer, Loss, from_json, layer, loss, to_json

__version__ = "0.1.0"

__all__ = [
    "BinaryCrossEntropy",
    "Certificate",
    "CertificateError",
    "Dense",
    "DenseParams",
    "Descent",
    "InputError",
    "Layer",
    "Loss",
    "Neuron",
    "NeuronParams",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "SigmoidBinaryCrossEntropy",
    "Step",
    "Tanh",
    "Trace",
    "apply",
    "backprop",
    "certify",
    "chain",
    "checks",
    "compose",
    "data",
    "descent",
    "from_json",
    "grad",
    "gradient_descent",
    "layer",
    "layers",
    "logistic_descent",
    "loss",
    "losses",
    "neuron",
    "output_shape",
    "perceptron_rule",
    "plots",
    "to_json",
    "trace",
    "types",
    "value_and_grad",
]

_ON_FIRST_USE = ("data", "plots")  # they import scikit-learn and matplotlib, which takes a second


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
