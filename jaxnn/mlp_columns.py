"""A multilayer perceptron as textbooks draw it: columns of neurons."""

from typing import NamedTuple

import numpy as np

from jaxnn.checks import InputError, kind_of
from jaxnn.compose import Sequential, chain
from jaxnn.layers import Dense
from jaxnn.layers.activations import Activation
from jaxnn.tracing import Trace
from jaxnn.types import Layer

MOST = 8  # neurons in a layer; with more, a trace is drawn as blocks


class Column(NamedTuple):
    """One layer of neurons.

    Attributes:
        size: the number of neurons.
        activation: the name of the function that they apply, "" for inputs and linear neurons.
        dense: the index of the Dense layer that computes them, None for the inputs.
        last: the index of the last layer that acts on them; its outputs are their values. None for
            the inputs.
    """

    size: int
    activation: str
    dense: int | None
    last: int | None


def columns_of(net: Layer, inputs: int) -> list[Column]:
    """Read a multilayer perceptron as columns of neurons.

    Raises:
        InputError: if ``net`` is not made of Dense layers and activations.
    """
    layers = net.layers if isinstance(net, Sequential) else chain(net).layers
    columns = [Column(inputs, "", None, None)]
    for i, child in enumerate(layers):
        if isinstance(child, Dense):
            columns.append(Column(child.features, "", i, i))
        elif columns[-1].dense is not None and isinstance(child, Activation):
            columns[-1] = columns[-1]._replace(activation=type(child).__name__, last=i)
        else:
            raise InputError(
                "A diagram expects a network of Dense layers and activations, "
                f"got {child!r} at [{i}]."
            )
    return columns


def columns_or_reason(trace: Trace) -> tuple[list[Column] | None, str]:
    """Read a network as columns of neurons, or return the reason why it cannot be drawn as such."""
    if not hasattr(trace, "stages"):
        raise InputError(f"BackpropDisplay: expected a Trace, got {kind_of(trace)}.")
    try:
        columns = columns_of(chain(*(stage.layer for stage in trace.stages)), np.shape(trace.x)[-1])
    except (InputError, IndexError):
        return None, "layers as blocks: not all are Dense layers and activations"
    if np.ndim(trace.x) != 2 or (widest := max(column.size for column in columns)) > MOST:
        reason = f"one has {widest} neurons, and a graph is drawn for up to {MOST}"
        return None, f"layers as blocks: {reason}"
    if (batch := len(trace.x)) != 1:
        reason = f"a graph is drawn for one sample, such as trace.sample(0), not for {batch}"
        return None, f"layers as blocks: {reason}"
    return columns, ""
