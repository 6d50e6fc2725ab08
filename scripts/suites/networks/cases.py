"""What is trained: the sizes, the data and the batches, the same for all."""

from typing import NamedTuple

import numpy as np


class DecoderSizes(NamedTuple):
    """The sizes of a decoder."""

    features: int
    heads: int
    layers: int
    vocabulary: int
    positions: int


RATE = 1e-3
VOCABULARY = 100  # of the decoder and the GRU
DECODER = DecoderSizes(features=128, heads=4, layers=3, vocabulary=VOCABULARY, positions=128)
FEATURES, HEADS, DEPTH = DECODER[:3]
EMBEDDED, HIDDEN = 64, 256  # of the GRU
STAGES, BLOCKS = (16, 32, 64), 2  # of the ResNet
BATCH_SIZE = {"lenet": 64, "resnet": 32, "gru": 32, "decoder": 16, "unet": 16}


def data(name):
    """Draw eight batches: the time does not depend on what is in them."""
    rng, rows = np.random.default_rng(0), 8 * BATCH_SIZE[name]
    if name in ("gru", "decoder"):
        tokens = rng.integers(0, VOCABULARY, (rows, {"gru": 65, "decoder": 129}[name])).astype(
            np.int32
        )
        return tokens[:, :-1], tokens[:, 1:]
    shape = {"lenet": (28, 28, 1), "resnet": (32, 32, 3), "unet": (64, 64, 3)}[name]
    x = rng.random((rows, *shape), dtype=np.float32)
    y = x.mean(-1, keepdims=True) if name == "unet" else rng.integers(0, 10, rows).astype(np.int32)
    return x, y


def batches(name, steps, *arrays):
    """Yield so many batches, shuffled anew whenever the rows are through."""
    rng, size = np.random.default_rng(0), BATCH_SIZE[name]
    for step in range(steps):
        at = step % (len(arrays[0]) // size)
        order = rng.permutation(len(arrays[0])) if at == 0 else order
        rows = order[at * size : (at + 1) * size]
        yield tuple(array[rows] for array in arrays)
