"""Measure the library against what it is compared with, as ratios within one run.

    python scripts/benchmark.py lecture [--json FILE]

Each suite takes the contestants in turn (A B A B ...), waits for every result, quotes the median
with its spread, and tells compilation apart. With --json the figures, versions and device are
written to a file.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import jax
import numpy as np

import jaxnn as nn
from jaxnn import data

jax.config.update("jax_enable_x64", True)


def in_turn(contestants, rounds):
    """Run each contestant once a round; give each one's seconds, a list a name."""
    seconds = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def table(seconds, per=1, unit="s", scale=1.0):
    """Print the median and the spread of each contestant."""
    width = max(map(len, seconds))
    for name, values in seconds.items():
        low, mid, high = (f(values) * scale / per for f in (min, statistics.median, max))
        print(f"{name:<{width}}  {mid:10.4g} {unit}   ({low:.4g} to {high:.4g})")


# ── lecture: the neuron's descent to its threshold, in float64 ──────────────────────────────────


def numpy_descent(x, y, step_size=0.1, threshold=5e-5):
    """The lecture's own loop."""
    theta, previous, iterations = np.zeros(x.shape[1]), np.ones(x.shape[1]), 0
    while np.linalg.norm(theta - previous) > threshold:
        previous = theta
        prediction = 1 / (1 + np.exp(-x.dot(theta)))
        theta = previous + step_size * np.mean((y - prediction) * x.T, axis=1)
        iterations += 1
    return theta, iterations


def lecture():
    """The lecture's NumPy loop against ours."""
    iris = data.iris_setosa()
    x, y = data.with_ones(iris.x), iris.y
    results = {}

    def numpy_loop():
        results["numpy"] = numpy_descent(x, y)

    def ours():
        run = nn.logistic_descent(x, y)
        results["jaxnn"] = np.asarray(run.params.theta), run.iterations

    def ours_compiling():
        jax.clear_caches()
        ours()

    ours()  # so that the first round does not also start JAX
    contestants = {"numpy": numpy_loop, "jaxnn, with compilation": ours_compiling, "jaxnn": ours}
    seconds = in_turn(contestants, rounds=5)
    (theta, iterations), (reference, expected) = results["jaxnn"], results["numpy"]
    assert iterations == expected, (iterations, expected)
    difference = float(np.abs(theta - reference).max())
    assert difference <= 1e-9, difference

    print(f"{iterations} iterations, theta within {difference:.1e} of NumPy's; microseconds an iteration:")
    table(seconds, per=iterations, unit="µs", scale=1e6)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "iterations": iterations,
        "theta_difference": difference,
        "seconds": seconds,
        "ratio": median["numpy"] / median["jaxnn"],
        "ratio_with_compile": median["numpy"] / median["jaxnn, with compilation"],
    }


SUITES = {"lecture": lecture}


def main():
    """Run one suite, print its table, and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES, help="what to measure")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()

    figures = SUITES[arguments.suite]()
    for name, value in figures.items():
        if name.startswith("ratio"):
            print(f"{name}: {value:.2f}")
    if arguments.json:
        environment = {
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "device": str(jax.devices()[0].device_kind),
            "machine": platform.machine(),
        }
        arguments.json.write_text(json.dumps({arguments.suite: figures, "environment": environment}, indent=2) + "\n")


if __name__ == "__main__":
    main()
