"""Gradient descent of a neuron in float64: the NumPy loop of the lecture against ours."""

import jax
import numpy as np

import jaxnn as nn
from jaxnn import data
from suites.measure import in_turn, medians, table


def numpy_descent(x, y, step_size=0.1, threshold=5e-5):
    """Run the loop of the lecture."""
    theta, previous, iterations = np.zeros(x.shape[1]), np.ones(x.shape[1]), 0
    while np.linalg.norm(theta - previous) > threshold:
        previous = theta
        prediction = 1 / (1 + np.exp(-x.dot(theta)))
        theta = previous + step_size * np.mean((y - prediction) * x.T, axis=1)
        iterations += 1
    return theta, iterations


def run(only=""):
    """Compare the NumPy loop of the lecture with ours."""
    with jax.enable_x64(True):
        return lecture_in_float64()


def lecture_in_float64():
    """Time the loops in turn, and check that their results agree."""
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

    ours()  # so that the first round does not include the start of JAX
    contestants = {"numpy": numpy_loop, "jaxnn, with compilation": ours_compiling, "jaxnn": ours}
    seconds = in_turn(contestants, rounds=5)
    (theta, iterations), (reference, expected) = results["jaxnn"], results["numpy"]
    assert iterations == expected, (iterations, expected)
    difference = float(np.abs(theta - reference).max())
    assert difference <= 1e-9, difference

    print(f"{iterations} iterations, theta within {difference:.1e} of NumPy's; time an iteration:")
    table(seconds, per=iterations, unit="µs", scale=1e6)
    median = medians(seconds)
    ratio, with_compile = (
        median["numpy"] / median[name] for name in ("jaxnn", "jaxnn, with compilation")
    )
    print(f"ratio: {ratio:.2f}\nratio with compilation: {with_compile:.2f}")
    return {
        "iterations": iterations,
        "theta_difference": difference,
        "seconds": seconds,
        "ratio": ratio,
        "ratio_with_compile": with_compile,
    }
