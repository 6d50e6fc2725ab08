"""Waiting times of a new user: the import, and a classifier that is trained in a new process."""

import os
import statistics
import subprocess
import sys

from suites.measure import in_turn, table

DIGITS = """
import jax, optax, jaxnn as nn
from jaxnn import data
train, test = data.split(data.digits())
fit = nn.fit(nn.mlp(32, 10), nn.SoftmaxCrossEntropy(), optax.adam(3e-3), (train.x, train.y),
             epochs=30, batch_size=32, key=jax.random.key(0))
print(fit.evaluate((test.x, test.y), metrics=("accuracy",))["accuracy"])
"""


def python(code):
    """Run code in a new process, and return its output."""
    cached = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=cached
    )
    return run.stdout


def run(only=""):
    """Time the two imports in turn, then a few runs of the whole classifier in new processes."""
    imports = {
        "jaxnn": lambda: python("import jaxnn"),
        "jax, optax": lambda: python("import jax, optax"),
    }
    for start in imports.values():
        start()  # the first time, Python compiles the files
    seconds = in_turn(imports, rounds=21)
    table(seconds)
    ratio = statistics.median(
        a / b for a, b in zip(seconds["jaxnn"], seconds["jax, optax"], strict=True)
    )
    accuracies = []
    cold = in_turn(
        {"a digits classifier, from cold": lambda: accuracies.append(float(python(DIGITS)))},
        rounds=5,
    )
    table(cold)
    print(f"import ratio {ratio:.3f}; accuracy of the classifier {accuracies[0]:.4f}")
    (times,) = cold.values()
    return {
        "import_ratio": ratio,
        "cold_digits_seconds": statistics.median(times),
        "cold_digits_accuracy": accuracies[0],
        "seconds": seconds | cold,
    }
