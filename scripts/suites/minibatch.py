"""An epoch of minibatch training in this library and in others.

The network, the data, the batch size and the optimizer are the same.
"""

import functools
import time

import numpy as np

from jaxnn import data
from suites import peers
from suites.measure import against, in_turn, medians, table


def digits():
    """Load the handwritten digits, 1797 rows."""
    found = data.digits()
    return found.x, found.y


def pixels():
    """Draw 60,000 random rows of the shape of MNIST: the time does not depend on the values."""
    rng = np.random.default_rng(0)
    return rng.random((60_000, 784), dtype=np.float32), rng.integers(0, 10, 60_000).astype(np.int32)


CASES = {  # name: (sizes, data, batch size, epochs in a run, rounds)
    "digits": ((64, 32, 10), digits, 32, 100, 5),
    "mnist_small": ((784, 128, 10), pixels, 32, 3, 7),
    "mnist_large": ((784, 512, 512, 10), pixels, 128, 2, 7),
}


def run(only=""):
    """Time all contestants in turn, for each network."""
    figures = {}
    for name, (sizes, load, batch_size, epochs, rounds) in CASES.items():
        if only not in name:
            continue
        x, y = load()
        prepared, first = {}, {}
        for peer, make in peers.present().items():
            began = time.perf_counter()
            train = make(sizes, x, y, batch_size)
            train(1)
            first[peer] = time.perf_counter() - began
            prepared[peer] = train
        runs = {peer: functools.partial(train, epochs) for peer, train in prepared.items()}
        seconds = in_turn(runs, rounds)
        print(f"{name}: {'-'.join(map(str, sizes))}, batch {batch_size}, {len(x)} rows; an epoch:")
        table(seconds, per=epochs, unit="ms", scale=1e3)
        median = medians(seconds, per=epochs)
        ratios = against(seconds)
        shown = (f"{peer.removeprefix('ratio_to_')} {ratio:.2f}" for peer, ratio in ratios.items())
        print("  ".join(shown), "\n")
        figures[name] = median | ratios | {"first_epoch_with_compilation": first}
    return figures
