"""The layers, one file a kind. Each is a pure forward with its hand-derived backward beneath it."""

from jaxnn.layers.activations import ReLU, Sigmoid, Step, Tanh
from jaxnn.layers.dense import Dense, DenseParams

__all__ = ["Dense", "DenseParams", "ReLU", "Sigmoid", "Step", "Tanh"]
