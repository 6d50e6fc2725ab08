"""Measure the library against what it is compared with, as ratios within one run.

    python scripts/benchmark.py SUITE [--only NAME] [--json FILE]

Each suite takes the contestants in turn (A B A B ...), waits for every result, quotes the median
with its spread, and tells compilation apart. With --json the figures, versions and device are
written to a file. The peers come with the extra ``bench``; one that is not installed is left out.
"""

import argparse
import importlib
import importlib.metadata
import inspect
import json
import os
import platform
from pathlib import Path

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = (
    "false"  # here and in child processes: what is compiled is measured
)

import jax

SUITES = {
    "lecture": "the neuron's descent: NumPy's loop and the compiled one",
    "backward": "each hand-derived gradient and jax.grad of the same forward",
    "minibatch": "an epoch of three networks: scikit-learn, Keras, equinox, nnx, PyTorch, JAX",
    "models": "a step of LeNet, ResNet, GRU, decoder, U-Net: PyTorch, equinox, nnx, JAX",
    "population": "256 networks at once: solo runs and scikit-learn",
    "estimators": "jaxnn.sklearn and scikit-learn: seconds of fit, and scores",
    "search": "64 candidates on five splits: ours, halving, GridSearchCV, HalvingGridSearchCV",
    "startup": "import, and from the start of the process to a trained classifier",
    "accelerator": "steps as shares of the device's own matrix rate and bandwidth",
    "tasks": "what others reach on the tasks of scripts/train.py",
    "compile": "the first step of 24 blocks and of 2",
}
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "scikit-learn", "keras", "equinox", "flax", "torch")


def environment():
    """Say what was measured with."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    device = jax.devices()[0]
    return {
        **versions,
        "python": platform.python_version(),
        "device": f"{device.platform} {device.device_kind}",
        "machine": platform.machine(),
    }


def main():
    """Run one suite, print its table, and write its figures."""
    lines = [f"  {name:<12}{about}" for name, about in SUITES.items()]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="suites:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=SUITES, metavar="SUITE", help="one of the suites below")
    parser.add_argument(
        "--only", default="", metavar="NAME", help="only the cases whose name has NAME"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = parser.parse_args()

    suite = importlib.import_module(f"suites.{arguments.suite}")
    figures = suite.run(only=arguments.only)
    # a long suite yields its figures as it goes, so that a run that is cut off still counts
    for found in figures if inspect.isgenerator(figures) else [figures]:
        if arguments.json:
            results = {arguments.suite: found, "environment": environment()}
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
