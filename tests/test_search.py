"""Searches: results of scikit-learn's own, halving, what can't be trained together, interrupts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxnn as nn
from jaxnn import plots
from jaxnn.sklearn import (
    MLPClassifier,
    MLPRegressor,
    PopulationHalvingSearchCV,
    PopulationSearchCV,
    widening,
)
from jaxnn.training import members
from jaxnn.training.loop import TrainingInterrupted

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
MODEL = MLPClassifier((6,), batch_size=40, max_iter=12, random_state=0, learning_rate_init=0.03)
GRID = {"alpha": [1e-4, 1.0], "learning_rate_init": [0.003, 0.03]}


def same_results(ours, theirs, **tolerance):
    """Compare all but the times."""
    assert set(theirs.cv_results_) == set(ours.cv_results_)
    for name, column in theirs.cv_results_.items():
        if "score" in name and "time" not in name and "rank" not in name:
            np.testing.assert_allclose(ours.cv_results_[name], column, **tolerance)
        elif name.startswith("param_"):
            assert list(ours.cv_results_[name]) == list(column)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_index_ == theirs.best_index_


@pytest.fixture
def calls(monkeypatch):
    """Count the members that each common training begins with."""
    counts, train = [], members.train_members

    def counted(who, going, *rest, **options):
        counts.append(len(going))
        train(who, going, *rest, **options)

    monkeypatch.setattr("jaxnn.sklearn.together.train_members", counted)
    return counts


def test_the_results_are_those_of_grid_search(calls):
    """Folds of 112 and 113 rows, two metrics, and losses to compare the parameters themselves."""
    how = {
        "scoring": {"accuracy": "accuracy", "loss": "neg_log_loss"}, "refit": "loss",
        "cv": StratifiedKFold(4, shuffle=True, random_state=1), "return_train_score": True,
    }  # fmt: skip
    ours = PopulationSearchCV(MODEL, GRID, **how).fit(X, Y)
    assert calls == [16]
    theirs = GridSearchCV(MODEL, GRID, **how).fit(X, Y)
    same_results(ours, theirs, rtol=1e-6)
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert ours.trained_alone_ == {}
    assert ours.n_splits_ == 4


def test_members_that_end_at_different_times():
    """Some stop early and some at their own max_iter; more members than a block holds."""
    model = clone(MODEL).set_params(tol=0.02, n_iter_no_change=2)
    grid = {"max_iter": [5, 40], "learning_rate_init": [0.001, 0.03, 0.3], "tol": [0.02, 0]}
    ours = PopulationSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y)
    theirs = GridSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y)
    same_results(ours, theirs, rtol=1e-5)


@pytest.mark.slow  # four programs
def test_groups_of_one_program_each(calls):
    grid = {
        "hidden_layer_sizes": [(4,), (4, 3)], "optimizer": ["adam", "sgd"], "momentum": [0.5, 0.9],
        "random_state": [0, 1],
    }  # fmt: skip
    ours = PopulationSearchCV(MODEL, grid, cv=2, scoring="neg_log_loss").fit(X, Y)
    assert calls == [8, 8, 8, 8]
    same_results(ours, GridSearchCV(MODEL, grid, cv=2, scoring="neg_log_loss").fit(X, Y), rtol=1e-6)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(("optimizer", "activation"), [("adam", "relu"), ("sgd", "tanh")])
def test_narrow_networks_share_the_program_of_a_wide_one(
    optimizer, activation, early_stopping, calls
):
    """Neither of (4, 6) and (6, 4) is as wide as the other, but (8, 8) is wider than both."""
    model = clone(MODEL).set_params(
        optimizer=optimizer, activation=activation, early_stopping=early_stopping, alpha=0.1
    )
    grid = {"hidden_layer_sizes": [(4, 6), (8, 8), (6, 4), (5,)]}
    ours = PopulationSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y)
    assert sorted(calls) == [3, 9]
    theirs = GridSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y)
    same_results(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": ["logistic"]},  # of 0 is 1/2
        {"optimizer": [optax.adafactor(0.01)]},  # it takes means over rows and columns
        {"network": [nn.chain(nn.Dense(n), nn.Dropout(0.1), nn.Dense(3)) for n in (4, 6)]},
    ],
)  # fmt: skip
def test_what_would_differ_if_it_were_wider_has_its_own_program(changes, calls):
    grid = {"hidden_layer_sizes": [(4,), (6,)]} if "network" not in changes else {}
    model = clone(MODEL).set_params(max_iter=2)
    ours = PopulationSearchCV(model, grid | changes, cv=2, scoring="neg_log_loss").fit(X, Y)
    assert calls == [2, 2]
    theirs = GridSearchCV(model, grid | changes, cv=2, scoring="neg_log_loss").fit(X, Y)
    same_results(ours, theirs, rtol=1e-6)


def test_a_wide_program_pays_while_the_work_is_small():
    def member(width):
        net = nn.chain(nn.Dense(width), nn.ReLU(), nn.Dense(3))
        params = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 4), float))
        return SimpleNamespace(state=SimpleNamespace(params=params))

    narrow, wide = member(10), member(110)
    assert widening.size(wide) - widening.size(narrow) == 800
    assert widening.pays(narrow, wide, 3_000_000)
    assert not widening.pays(narrow, wide, 4_000_000)


def test_regression_weights_and_distributions():
    x, y = load_diabetes(return_X_y=True)
    weights = np.linspace(0.1, 2, len(x))
    model = MLPRegressor((8,), max_iter=5, random_state=0, batch_size=64)
    how = {"n_iter": 3, "cv": 3, "random_state": 4}
    numbers = {"alpha": loguniform(1e-4, 1), "learning_rate_init": loguniform(1e-3, 1e-1)}
    ours = PopulationSearchCV(model, numbers, **how).fit(x, y / 100, sample_weight=weights)
    theirs = RandomizedSearchCV(model, numbers, **how).fit(x, y / 100, sample_weight=weights)
    same_results(ours, theirs, rtol=1e-6)


def test_a_pipeline_trains_together_too(calls):
    model = make_pipeline(StandardScaler(), MODEL)
    grid = {f"mlpclassifier__{name}": values for name, values in GRID.items()}
    ours = PopulationSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y)
    assert calls == [12]
    same_results(ours, GridSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y), rtol=1e-6)
    halving = PopulationHalvingSearchCV(
        model, grid, cv=3, factor=3, min_resources="exhaust", resource="mlpclassifier__max_iter"
    )
    assert halving.fit(X, Y).n_resources_ == [4, 12]
    assert calls == [12, 12, 6]


def test_splits_that_lack_a_class():
    """The rows are sorted by their class, of which each split lacks one: labels differ by split."""
    ours = PopulationSearchCV(MODEL, GRID, cv=KFold(3), return_train_score=True).fit(X, Y)
    theirs = GridSearchCV(MODEL, GRID, cv=KFold(3), return_train_score=True).fit(X, Y)
    same_results(ours, theirs)


@pytest.mark.slow
def test_networks_with_batch_statistics():
    net = nn.chain(nn.Dense(6), nn.BatchNorm(), nn.ReLU(), nn.Dense(3))
    model = clone(MODEL).set_params(network=net)
    ours = PopulationSearchCV(model, GRID, cv=3, scoring="neg_log_loss").fit(X, Y)
    theirs = GridSearchCV(model, GRID, cv=3, scoring="neg_log_loss").fit(X, Y)
    same_results(ours, theirs, rtol=1e-6)


@pytest.mark.slow
def test_an_optimizer_of_ones_own(calls):
    optimizer = optax.adamw(optax.cosine_decay_schedule(0.03, 40))
    model = clone(MODEL).set_params(optimizer=optimizer)
    grid = {"alpha": [1e-3, 1.0], "random_state": [0, 1]}
    ours = PopulationSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y)
    assert calls == [12]
    same_results(ours, GridSearchCV(model, grid, cv=3, scoring="neg_log_loss").fit(X, Y), rtol=1e-6)


def test_without_a_seed_the_members_still_train_together(calls):
    model = clone(MODEL).set_params(random_state=None)
    search = PopulationSearchCV(model, GRID, cv=3).fit(X, Y)
    assert calls == [12]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.filterwarnings("ignore:Some fits failed", "ignore:One or more of the test scores")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_a_member_that_fails_harms_no_other():
    grid = {"optimizer": ["sgd"], "learning_rate_init": [0.01, 1e38], "momentum": [0.0]}
    ours = PopulationSearchCV(MODEL, grid, cv=3).fit(X, Y)
    scores = ours.cv_results_["mean_test_score"]
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
    with pytest.raises(nn.TrainingError, match="the loss was nan at step"):
        PopulationSearchCV(MODEL, grid, cv=3, error_score="raise").fit(X, Y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_a_network_that_does_not_fit_harms_no_other():
    grid = [{"alpha": [1e-4]}, {"network": [nn.mlp(4, 2)]}, {"loss": [nn.MeanSquaredError()]}]
    scores = PopulationSearchCV(MODEL, grid, cv=3).fit(X, Y).cv_results_["mean_test_score"]
    assert np.isfinite(scores).tolist() == [True, False, False]


def test_halving_continues_with_the_survivors(calls):
    grid = {"alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [0.003, 0.01, 0.03]}
    search = PopulationHalvingSearchCV(
        MODEL, grid, cv=3, factor=3, max_resources=18, min_resources="exhaust"
    ).fit(X, Y)
    assert search.n_candidates_ == [9, 3, 1]
    assert search.n_resources_ == [2, 6, 18]
    assert calls == [27, 9, 3]
    results = search.cv_results_
    assert list(results["iter"]) == [0] * 9 + [1] * 3 + [2]
    assert search.best_params_["max_iter"] == 18
    for row, parameters in enumerate(results["params"]):  # each is as good as trained anew
        alone = GridSearchCV(MODEL, {k: [v] for k, v in parameters.items()}, cv=3, refit=False)
        expected = alone.fit(X, Y).cv_results_["mean_test_score"][0]
        assert results["mean_test_score"][row] == pytest.approx(expected)


def test_halving_takes_the_first_of_the_candidates_that_are_equal():
    grid = {"alpha": [0.0, 1e-12, 1e-11], "learning_rate_init": [0.003, 0.03]}
    search = PopulationHalvingSearchCV(
        MODEL, grid, cv=3, factor=2, max_resources=12, min_resources=6, refit=False
    ).fit(X, Y)
    assert search.n_candidates_ == [6, 3]
    assert len(set(search.cv_results_["mean_test_score"][6:])) == 1  # the same but for alpha
    assert search.best_params_ == {"alpha": 0.0, "learning_rate_init": 0.03, "max_iter": 12}


def test_halving_looks_early_and_trains_the_survivors_to_the_end():
    grid = {"alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [0.003, 0.01, 0.03]}
    search = PopulationHalvingSearchCV(MODEL, grid, cv=3, max_resources=40, refit=False).fit(X, Y)
    assert (search.n_resources_, search.n_candidates_) == ([3, 40], [9, 2])
    assert search.n_iterations_ == 2
    assert list(search.cv_results_["n_resources"]) == [3] * 9 + [40] * 2
    best = {name: [value] for name, value in search.best_params_.items()}
    alone = GridSearchCV(MODEL, best, cv=3, refit=False).fit(X, Y)
    assert search.best_score_ == pytest.approx(alone.best_score_)


def test_halving_of_what_has_no_epochs():
    with pytest.raises(ValueError, match="Cannot use parameter max_iter as the resource"):
        PopulationHalvingSearchCV(MODEL, {"max_iter": [1, 2]}).fit(X, Y)
    with pytest.raises(ValueError, match="Cannot use resource=max_iter which is not supported"):
        PopulationHalvingSearchCV(StandardScaler(), {"with_mean": [True]}, scoring="accuracy").fit(
            X, Y
        )
    with pytest.raises(ValueError, match="must yield consistent folds"):
        PopulationHalvingSearchCV(MODEL, GRID, cv=KFold(2, shuffle=True)).fit(X, Y)


def test_early_stopping_on_rows_that_are_held_out(calls):
    model = clone(MODEL).set_params(early_stopping=True, n_iter_no_change=3, max_iter=30)
    grid = {"learning_rate_init": [0.003, 0.1, 0.3]}
    how = {"cv": 3, "scoring": "neg_log_loss"}
    ours = PopulationSearchCV(model, grid, **how).fit(X, Y)
    assert calls == [9]
    same_results(ours, GridSearchCV(model, grid, **how).fit(X, Y), rtol=1e-6)


def test_what_cannot_be_trained_together_is_said():
    with pytest.warns(UserWarning, match="1 of 1 .* alone: MLPClassifier has no network of this"):
        search = PopulationSearchCV(Theirs((2,), max_iter=2), {"alpha": [0.0]}, cv=2).fit(X, Y)
    assert set(search.trained_alone_) == {0}


def test_bad_grids_have_the_errors_of_scikit_learn():
    for search in (PopulationSearchCV, PopulationHalvingSearchCV):
        with pytest.raises(ValueError, match="Invalid parameter 'alpa' for estimator MLPClass"):
            search(MODEL, {"alpa": [1]}).fit(X, Y)
        with pytest.raises(TypeError, match="Parameter grid for parameter 'alpha' needs to be"):
            search(MODEL, {"alpha": 1}).fit(X, Y)
        with pytest.raises(ValueError, match="The 'n_iter' parameter"):
            search(MODEL, {"alpha": [1]}, n_iter=0).fit(X, Y)
        with pytest.raises(ValueError, match="All the 2 fits failed"):
            search(MODEL, {"hidden_layer_sizes": ["wide"]}, cv=2).fit(X, Y)
        wrong = search(MODEL, {"network": [nn.mlp(4, 2)]}, cv=2, error_score="raise")
        with pytest.raises(ValueError, match="with 3 outputs for each of 75 rows"):
            wrong.fit(X, Y)


@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_search_hands_over_what_it_has(monkeypatch):
    call, count = members.Blocks.__call__, []

    def interrupted(self, *arguments, **data):
        count.append(1)
        if len(count) > 20:
            raise KeyboardInterrupt
        return call(self, *arguments, **data)

    monkeypatch.setattr(members.Blocks, "__call__", interrupted)
    grid = {"hidden_layer_sizes": [(6,), (5, 4)], "learning_rate_init": [0.01, 0.03]}
    with pytest.raises(TrainingInterrupted, match="PopulationSearchCV was interrupted") as caught:
        PopulationSearchCV(clone(MODEL).set_params(max_iter=15), grid, cv=3).fit(X, Y)
    found = caught.value.result
    scores = found.cv_results_["mean_test_score"]
    assert np.isfinite(scores).sum() >= 2
    assert found.best_score_ == np.nanmax(scores)
    assert found.best_params_["hidden_layer_sizes"] == (6,) or np.isfinite(scores).all()
    assert not hasattr(found, "best_estimator_")


RESUMED = {
    "alpha": [1e-4, 1.0],
    "learning_rate_init": [0.003, 0.03, 0.1],
    "hidden_layer_sizes": [(6,), (5,), (4, 3)],  # two programs, the first for two widths
}


def same_scores(found, expected):
    """Compare the scores bit for bit."""
    assert found.cv_results_["params"] == expected.cv_results_["params"]
    for name, column in expected.cv_results_.items():
        if "test" in name and "time" not in name:
            np.testing.assert_array_equal(found.cv_results_[name], column)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("search", [PopulationSearchCV, PopulationHalvingSearchCV])
@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_search_goes_on(search, early_stopping, tmp_path, monkeypatch, calls):
    how = {"early_stopping": early_stopping, "n_iter_no_change": 3}
    model = clone(MODEL).set_params(max_iter=18, **how)
    how = {"cv": 3, "scoring": "neg_log_loss", "refit": False}
    expected = search(model, RESUMED, **how).fit(X, Y)
    call, count = members.Blocks.__call__, []

    def interrupted(self, *arguments, **data):
        count.append(1)
        if len(count) % 7 == 0:
            raise KeyboardInterrupt
        return call(self, *arguments, **data)

    monkeypatch.setattr(members.Blocks, "__call__", interrupted)
    interrupts, found = 0, None
    while found is None:
        try:
            found = search(model, RESUMED, checkpoint=tmp_path, **how).fit(X, Y)
        except TrainingInterrupted:
            interrupts += 1
        assert interrupts <= 8
    assert interrupts
    same_scores(found, expected)
    calls.clear()  # nothing is left to train
    same_scores(search(model, RESUMED, checkpoint=str(tmp_path), **how).fit(X, Y), expected)
    assert calls == []


KILLED = """
import sys, warnings
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_search import MODEL, RESUMED, X, Y
from sklearn.base import clone
from jaxnn.sklearn import PopulationHalvingSearchCV
warnings.simplefilter("ignore")
model = clone(MODEL).set_params(max_iter=180)
search = PopulationHalvingSearchCV(
    model, RESUMED, cv=3, scoring="neg_log_loss", refit=False, checkpoint=sys.argv[2] or None
).fit(X, Y)
results = search.cv_results_
np.savez(sys.argv[3], **{k: v for k, v in results.items() if "test" in k and "time" not in k})
"""


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path):
    folder, tests = tmp_path / "checkpoints", str(Path(__file__).parent)
    run = [sys.executable, "-c", KILLED, tests]
    subprocess.run([*run, "", tmp_path / "expected.npz"], check=True)
    seen = 0
    for _ in range(3):  # each time after it has got further
        process = subprocess.Popen([*run, folder, tmp_path / "found.npz"])
        before, until = seen, time.monotonic() + 60
        while seen < before + 200 and process.poll() is None and time.monotonic() < until:
            names = os.listdir(folder) if folder.exists() else []
            seen = max([int(name) for name in names if name.isdecimal()], default=0)
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert seen >= before + 200
    assert not (tmp_path / "found.npz").exists()
    subprocess.run([*run, folder, tmp_path / "found.npz"], check=True)
    found, expected = np.load(tmp_path / "found.npz"), np.load(tmp_path / "expected.npz")
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_checkpoints_of_another_search(tmp_path):
    PopulationSearchCV(MODEL, GRID, cv=3, refit=False, checkpoint=tmp_path).fit(X, Y)
    other = PopulationSearchCV(clone(MODEL).set_params(activation="tanh"), GRID, cv=3)
    with pytest.raises(nn.InputError, match="PopulationSearchCV: expected a folder with check"):
        other.set_params(checkpoint=tmp_path).fit(X, Y)
    with pytest.raises(ValueError, match="The 'checkpoint' parameter of PopulationSearchCV must"):
        other.set_params(checkpoint=3).fit(X, Y)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(nn.InputError, match=r"got .*notes\.txt' in it"):
        other.set_params(checkpoint=tmp_path / "other").fit(X, Y)
    other.set_params(checkpoint=nn.Checkpoints(tmp_path / "anew", every=5)).fit(X, Y)
    assert len(list((tmp_path / "anew").glob("[0-9]*"))) == 3


def test_the_bar_shows_the_best_so_far(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a bar is cut off at the width of the terminal
    monkeypatch.setenv("LINES", "50")
    PopulationHalvingSearchCV(MODEL, GRID, cv=3, factor=3, progress=True).fit(X, Y)
    shown = capsys.readouterr().err
    assert "PopulationHalvingSearchCV, program 1 of 1:" in shown
    assert "program 1 of 1, best so far 0." in shown
    assert "lowest=" in shown


def test_a_search_is_an_estimator():
    search = PopulationSearchCV(MODEL, GRID, cv=2, random_state=3)
    again = clone(search)
    assert again.get_params()["param_grid"] == GRID
    assert repr(again).startswith("PopulationSearchCV(")
    halving = clone(PopulationHalvingSearchCV(MODEL, GRID, cv=3, max_resources=36)).fit(X, Y)
    assert halving.predict(X).shape == (150,)
    assert halving.score(X, Y) > 0.5


def finished_search():
    """Return a stand-in for a search, so that the picture does not depend on training."""
    rates, alphas = np.geomspace(1e-3, 0.3, 6), (1e-5, 1e-3, 1e-1)
    grid = [{"learning_rate_init": rate, "alpha": alpha} for rate in rates for alpha in alphas]
    mean = np.array(
        [0.95 - 0.1 * np.log10(g["learning_rate_init"] / 0.02) ** 2 - g["alpha"] for g in grid]
    )
    splits = {f"split{i}_test_score": mean + 0.02 * (i - 1) for i in range(3)}
    columns = {f"param_{name}": np.array([g[name] for g in grid]) for name in grid[0]}
    return SimpleNamespace(cv_results_={"mean_test_score": mean, **splits, **columns})


@pytest.mark.mpl_image_compare(savefig_kwargs={"dpi": 90})
def test_search_picture():
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=[1, 1.2])
    plots.search(finished_search(), "learning_rate_init", ax=axes[0])
    plots.search(finished_search(), ax=axes[1])
    return figure


def test_a_picture_of_texts_failures_and_bad_input():
    search = PopulationSearchCV(MODEL, {"alpha": [0.0]})
    with pytest.raises(nn.InputError, match="a search that was fitted"):
        plots.search(search)
    finished = finished_search()
    with pytest.raises(nn.InputError, match="expected parameters"):
        plots.search(finished, "momentum")
    with pytest.raises(nn.InputError, match="expected metric"):
        plots.search(finished, metric="accuracy")
    finished.cv_results_["mean_test_score"][3] = np.nan
    finished.cv_results_["param_optimizer"] = np.array(["adam", "sgd"] * 9)
    display = plots.search(finished)
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == ["learning_rate_init", "alpha", "optimizer", "score"]
    assert len(display.ax_.get_lines()) == 17 + 1 + 4
    assert plots.search(finished, "optimizer").ax_.get_xlabel() == "optimizer"
