"""Searches: ours, whole and by halving, against scikit-learn's with its own perceptron.

64 candidates on five splits of digits, the same grid and settings for all. The scores are those of
cross-validation. Over ten seeds it is counted how often halving finds the winner of the whole
search, and how often one that is as good but for the standard error of the difference: the best few
differ by less than that, and their order changes from epoch to epoch.

Then candidates of 24 different widths, which share programs by padding, against a program for each
width; both with what it takes to compile them.
"""

import contextlib
import os
import time
import unittest.mock
import warnings

import jax
import numpy as np
from sklearn.datasets import load_digits
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier

import jaxnn.sklearn as ours

EPOCHS = 54
SEEDS = 10
GRID = {
    "learning_rate_init": np.geomspace(3e-4, 3e-2, 8),
    "alpha": np.geomspace(1e-4, 10.0, 8),
}
SETTINGS = {  # each candidate makes all passes, so that the libraries do the same work
    "hidden_layer_sizes": (32,), "batch_size": 32, "max_iter": EPOCHS,
    "tol": 0.0, "n_iter_no_change": 1000,
}  # fmt: skip


def run(only=""):
    """Time the four searches in turn, compare their winners, and return the figures."""
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # in the processes of scikit-learn's search, too
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    figures, found = {"candidates": 64, "splits": 5, "epochs": EPOCHS}, {}
    for name in ("ours_first", *(name for name in SEARCHES if only in name)):
        began = time.perf_counter()
        found[name] = search(name.removesuffix("_first"), 0).fit(x, y)
        figures[f"{name}_s"] = seconds = time.perf_counter() - began
        figures[f"{name}_score"] = score = found[name].best_score_
        best = {key: f"{value:.2g}" for key, value in found[name].best_params_.items()}
        print(f"{name:<12}{seconds:>9.1f} s   score {score:.4f}   {best}", flush=True)
    if only:
        return figures
    figures |= widths(x, y)
    figures["ratio_to_gridsearchcv"] = figures["gridsearchcv_s"] / figures["ours_s"]
    figures["ratio_to_gridsearchcv_cold"] = figures["gridsearchcv_s"] / figures["ours_first_s"]
    figures["ratio_to_halvinggridsearchcv"] = (
        figures["halvinggridsearchcv_s"] / figures["halving_s"]
    )
    seconds, same, tied, lost = {"ours": [], "halving": []}, 0, 0, []
    for seed in range(SEEDS):
        for name in seconds:
            began = time.perf_counter()
            found[name] = search(name, seed).fit(x, y)
            seconds[name].append(time.perf_counter() - began)
        chosen = {key: found["halving"].best_params_[key] for key in GRID}
        same += chosen == found["ours"].best_params_
        mean, error = loss_of(found["ours"], chosen)
        tied += mean <= error
        lost.append(mean)
    figures["halving_ratio"] = float(np.median(np.divide(seconds["ours"], seconds["halving"])))
    figures |= {"same_winner": same, "tied_winner": tied, "seeds": SEEDS}
    figures["score_lost_by_halving"] = lost
    for name in (
        "ratio_to_gridsearchcv", "ratio_to_gridsearchcv_cold", "ratio_to_halvinggridsearchcv",
        "halving_ratio", "same_winner", "tied_winner",
    ):  # fmt: skip
        print(f"{name:<30}{figures[name]:.2f}")
    print(f"the score that halving loses: {np.round(lost, 4)}")
    return figures


def widths(x, y):
    """Time a search over widths, with the programs that it chooses and with one for each width."""
    grid = {"hidden_layer_sizes": [(n,) for n in range(10, 106, 4)], "learning_rate_init": [0.003]}
    own = ours.MLPClassifier(random_state=0, **SETTINGS | {"max_iter": 20})
    figures = {}
    for name in ("widths", "widths_apart"):
        apart = unittest.mock.patch("jaxnn.sklearn.together.pays", return_value=False)
        jax.clear_caches()
        began = time.perf_counter()
        with apart if name == "widths_apart" else contextlib.nullcontext():
            found = ours.PopulationSearchCV(own, grid, cv=5).fit(x, y)
        figures[f"{name}_s"] = seconds = time.perf_counter() - began
        figures[f"{name}_score"] = found.best_score_
        print(f"{name:<12}{seconds:>9.1f} s   score {found.best_score_:.4f}", flush=True)
    return figures | {"widths_ratio": figures["widths_apart_s"] / figures["widths_s"]}


SEARCHES = ("ours", "gridsearchcv", "halving", "halvinggridsearchcv")


def search(name, seed, **how):
    """Return one of the searches, with the estimator of its library."""
    how |= {"cv": StratifiedKFold(5, shuffle=True, random_state=seed)}
    own = ours.MLPClassifier(random_state=seed, **SETTINGS)
    other = MLPClassifier(random_state=seed, **SETTINGS)
    if name == "ours":
        return ours.PopulationSearchCV(own, GRID, **how)
    if name == "halving":
        return ours.PopulationHalvingSearchCV(own, GRID, **how)
    if name == "gridsearchcv":
        return GridSearchCV(other, GRID, n_jobs=-1, **how)
    how |= {"resource": "max_iter", "max_resources": EPOCHS, "random_state": 0}
    return HalvingGridSearchCV(other, GRID, n_jobs=-1, **how)


def loss_of(found, parameters):
    """Return how much lower a candidate scores than the best one, and the standard error of it."""
    results = found.cv_results_
    scores = np.array([results[f"split{i}_test_score"] for i in range(5)])
    lower = scores[:, found.best_index_] - scores[:, results["params"].index(parameters)]
    return float(lower.mean()), float(lower.std(ddof=1) / np.sqrt(len(lower)))
