"""The estimators of jaxnn.sklearn and scikit-learn's own, with the same settings.

``fit`` is timed in turn: the first call, which compiles, and the later ones. The scores on rows
held out, over ten seeds with the same splits, follow in a second table.
"""

import time
import warnings

import numpy as np
from sklearn.datasets import (
    load_diabetes,
    load_digits,
    load_iris,
    make_circles,
    make_classification,
    make_moons,
)
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxnn.sklearn as ours
from suites.compile import compilations

ROUNDS = 5
SEEDS = 10


def digits(rows):
    """Return the first rows of the digits."""
    x, y = load_digits(return_X_y=True)
    return (x[:rows] / 16).astype(np.float32), y[:rows]


def images(rows):
    """Return rows of 784 numbers in ten classes, of the size of MNIST."""
    x, y = make_classification(
        rows, 784, n_informative=60, n_classes=10, class_sep=2.0, random_state=0
    )
    return x.astype(np.float32), y


# name: the data, and the settings
CASES = {
    "digits_100": (digits, 100, {"max_iter": 100}),
    "digits": (digits, 1797, {"max_iter": 50}),
    "digits_32": (digits, 1797, {"max_iter": 50, "batch_size": 32, "hidden_layer_sizes": (32,)}),
    "rows_10000": (images, 10_000, {"max_iter": 5, "hidden_layer_sizes": (128,)}),
    "rows_60000": (images, 60_000, {"max_iter": 3, "hidden_layer_sizes": (128,)}),
}


def seconds(fit):
    """Return how long a call takes."""
    began = time.perf_counter()
    fit()
    return time.perf_counter() - began


def run(only=""):
    """Time the cases, compare the scores, print both tables, and return the figures."""
    warnings.simplefilter("ignore")
    figures = {}
    print(f"{'case':<12}{'ours, first':>12}{'ours, again':>12}{'theirs':>9}{'ratio':>8}"
          f"{'with first':>12}{'compiles again':>16}")  # fmt: skip
    for name, (load, rows, settings) in CASES.items():
        if only in name:
            figures[name] = timed(name, *load(rows), settings)
    for name, task in TASKS.items():
        if only in name:
            figures[f"score_{name}"] = scored(name, *task)
    return figures


def timed(name, x, y, settings):
    """Time one case, the two libraries in turn."""
    settings = {**settings, "tol": 0.0, "n_iter_no_change": 1000}
    make = lambda cls, seed: cls(random_state=seed, **settings)  # noqa: E731
    first = seconds(lambda: make(ours.MLPClassifier, 0).fit(x, y))
    own, theirs = [], []
    for seed in range(ROUNDS):
        own.append(seconds(lambda seed=seed: make(ours.MLPClassifier, seed).fit(x, y)))
        theirs.append(seconds(lambda seed=seed: make(MLPClassifier, seed).fit(x, y)))
    fewer = len(x) - 1  # as between the folds of a cross-validation
    compiled = compilations(lambda: make(ours.MLPClassifier, 1).fit(x[:fewer], y[:fewer]))
    again, other = float(np.median(own)), float(np.median(theirs))
    print(
        f"{name:<12}{first:>11.2f}s{again:>11.3f}s{other:>8.2f}s{other / again:>8.1f}"
        f"{other / first:>12.1f}{compiled:>16}"
    )
    return {
        "first_s": first, "warm_s": again, "sklearn_s": other, "spread": [min(own), max(own)],
        "sklearn_spread": [min(theirs), max(theirs)], "ratio_warm": other / again,
        "ratio_cold": other / first, "compilations_of_other_rows": compiled,
    }  # fmt: skip


def moons(return_X_y):
    """Return two interleaved half circles."""
    return make_moons(100, noise=0.3, random_state=0)


def circles(return_X_y):
    """Return a circle within a circle."""
    return make_circles(100, noise=0.2, factor=0.5, random_state=1)


def separable(return_X_y):
    """Return two classes that a line nearly divides."""
    x, y = make_classification(
        n_features=2, n_redundant=0, n_informative=2, random_state=0, n_clusters_per_class=1
    )
    return x + 2 * np.random.default_rng(2).uniform(size=x.shape), y


CLASSIFIERS = MLPClassifier, ours.MLPClassifier
# name: the data, the two estimators, and the settings that they share
TASKS = {
    "digits": (load_digits, CLASSIFIERS, {"max_iter": 100}),
    "iris": (load_iris, CLASSIFIERS, {"max_iter": 1000}),
    "diabetes": (
        load_diabetes,
        (MLPRegressor, ours.MLPRegressor),
        # those of scikit-learn's example of partial dependence
        {"hidden_layer_sizes": (30, 15), "learning_rate_init": 0.01, "early_stopping": True},
    ),
    # scikit-learn's example of the weights of a network, with digits that it ships
    "weights": (
        load_digits,
        CLASSIFIERS,
        {"hidden_layer_sizes": (40,), "max_iter": 8, "solver": "sgd", "learning_rate_init": 0.2},
    ),
}
# scikit-learn's example of the strength of regularisation, with Adam: L-BFGS is not a rule of optax
# that takes batches
for load in (moons, circles, separable):
    for alpha in np.logspace(-1, 1, 5):
        settings = {"hidden_layer_sizes": (10, 10), "alpha": alpha, "max_iter": 2000}
        TASKS[f"{load.__name__}_{alpha:.2g}"] = (load, CLASSIFIERS, settings)


def scored(name, load, classes, settings):
    """Score both libraries on rows held out, over the same splits."""
    x, y = load(return_X_y=True)
    scores = {}
    for who, cls in zip(("sklearn", "ours"), classes, strict=True):
        scores[who] = []
        for seed in range(SEEDS):
            parts = train_test_split(x, y, test_size=0.25, random_state=seed)
            own = dict(settings)
            if who == "ours" and "solver" in own:
                own["optimizer"] = own.pop("solver")
            model = make_pipeline(StandardScaler(), cls(random_state=seed, **own))
            scores[who].append(model.fit(parts[0], parts[2]).score(parts[1], parts[3]))
    means = {who: float(np.mean(each)) for who, each in scores.items()}
    print(
        f"{name:<14} ours {means['ours']:.4f} ± {np.std(scores['ours']):.4f}, "
        f"scikit-learn {means['sklearn']:.4f} ± {np.std(scores['sklearn']):.4f}"
    )
    return {**means, "scores": scores}
