"""Write a page on which a small network is trained while one looks.

    python scripts/playground.py [--out playground.html] [--data moons] [--hidden 8 8] [...]

The page opens in any browser, without a server or a network. Everything that can be chosen here
can be changed there, too. Points of your own come from a file with rows of "x, y, class", in which
classes count from 1.
"""

import argparse
from pathlib import Path

import numpy as np

import jaxnn as nn
from jaxnn.explanation.playground import ACTIVATIONS, BUILT_IN, LOSSES, OPTIMIZERS


def parse():
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("playground.html"), help="the page")
    parser.add_argument("--data", default="moons", help=f"{', '.join(BUILT_IN)}, or a CSV file")
    parser.add_argument("--hidden", type=int, nargs="*", default=[8, 8], help="width of each layer")
    parser.add_argument("--activation", default="tanh", help=", ".join(ACTIVATIONS))
    parser.add_argument("--loss", default="cross-entropy", help=" or ".join(LOSSES))
    parser.add_argument("--learning-rate", type=float, default=0.03)
    parser.add_argument("--optimizer", default="adam", help=", ".join(OPTIMIZERS))
    parser.add_argument("--batch-size", type=int, default=20, help="points in a step")
    parser.add_argument("--l2", type=float, default=0.0, help="the factor of the regularisation")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and batches")
    return parser.parse_args()


def points(path):
    """Read rows of "x, y, class" from a file; the library counts classes from 0."""
    rows = np.loadtxt(path, delimiter=",", ndmin=2)
    return rows[:, :2], rows[:, 2].astype(int) - 1


def main():
    """Write the page, and say where it is."""
    options = parse()
    page = nn.playground(
        options.data if options.data in BUILT_IN else points(options.data),
        hidden=tuple(options.hidden),
        activation=options.activation,
        loss=options.loss,
        learning_rate=options.learning_rate,
        optimizer=options.optimizer,
        batch_size=options.batch_size,
        l2=options.l2,
        seed=options.seed,
    )
    options.out.write_text(page, encoding="utf-8")
    print(f"The page is in {options.out}. Open it in a browser.")


if __name__ == "__main__":
    main()
