"""Population-based training: exchanges, schedules, failures, checkpoints, bad input."""

import numpy as np
import optax
import pytest
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxnn as nn
from jaxnn import plots
from jaxnn.sklearn import MLPClassifier, MLPRegressor, PopulationBasedTraining
from jaxnn.training import members
from jaxnn.training.loop import TrainingInterrupted

X, Y = load_iris(return_X_y=True)
MODEL = MLPClassifier((6,), batch_size=40, max_iter=20, random_state=0)
RATES = {"learning_rate_init": loguniform(1e-3, 0.3), "alpha": [1e-4, 1e-2, 1.0]}


def search(estimator=MODEL, distributions=RATES, **options):
    options = {"n_members": 8, "interval": 4, "random_state": 0, **options}
    return PopulationBasedTraining(estimator, distributions, **options)


def same_history(one, other):
    assert set(one.history_) == set(other.history_)
    for name, values in one.history_.items():
        np.testing.assert_array_equal(values, other.history_[name])
    for own, its in zip(one.best_estimator_.coefs_, other.best_estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(own, its)


def test_exchanges_and_the_schedule():
    found = search().fit(X, Y)
    history = found.history_
    assert history["epochs"].tolist() == [4, 8, 12, 16, 20]
    own = np.arange(8)
    assert (history["parent"][0] == own).all()
    for r in range(1, 5):
        scores, parent = history["score"][r - 1], history["parent"][r]
        order, moved = np.argsort(scores, kind="stable"), np.flatnonzero(parent != own)
        assert set(moved) <= set(order[:2])
        assert set(parent[moved]) <= set(order[-2:])
        assert (scores[parent[moved]] > scores[moved]).all()
        for name in ("param_learning_rate_init", "param_alpha"):
            stayed = np.flatnonzero(parent == own)
            assert (history[name][r, stayed] == history[name][r - 1, stayed]).all()
    assert (history["parent"][1:] != own).any()
    assert set(history["param_alpha"].ravel()) <= set(RATES["alpha"])
    assert [epochs for epochs, _ in found.schedule_] == [4, 8, 12, 16, 20]
    assert found.schedule_[-1][1] == found.best_params_
    assert found.best_score_ == history["score"][-1].max()
    assert found.best_estimator_.n_iter_ == 20
    assert found.score(X, Y) > 0.9
    assert found.predict_proba(X).shape == (150, 3)
    same_history(search().fit(X, Y), found)  # everything is drawn from the seed
    display = plots.search(found, "learning_rate_init")
    assert display.ax_.get_xlabel() == "learning_rate_init"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_member_that_stays_is_trained_as_if_alone():
    """No exchange changes a number where there is one value, and the best is replaced by none."""
    found = search(distributions={"alpha": [1e-3]}, n_members=4).fit(X, Y)
    best = found.best_index_
    assert (found.history_["parent"][:, best] == best).all()
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    rows, held_out = train_test_split(np.arange(150), test_size=0.2, random_state=seed, stratify=Y)
    alone = clone(found.best_estimator_).fit(X[rows], Y[rows])
    np.testing.assert_allclose(alone.loss_curve_, found.best_estimator_.loss_curve_, rtol=1e-6)
    assert found.best_score_ == alone.score(X[held_out], Y[held_out])


def test_a_replaced_member_goes_on_from_its_parent():
    distributions = {"learning_rate_init": [1e-6, 0.03]}
    found = search(distributions=distributions, resample_probability=0.0).fit(X, Y)
    history, own = found.history_, np.arange(8)
    moved = [(r, m) for r in range(1, 5) for m in own if history["parent"][r, m] != m]
    for r, m in moved:  # at the rate of the parent or the next one in the list
        before = history["score"][r - 1]
        assert history["score"][r, m] >= before[m]
    assert moved
    assert history["score"][-1].min() > history["score"][0].min() + 0.2


@pytest.mark.filterwarnings("error")
def test_members_that_fail_are_replaced():
    model = make_pipeline(StandardScaler(), clone(MODEL).set_params(optimizer="sgd"))
    distributions = {
        "mlpclassifier__learning_rate_init": [0.03, 1e38],
        "mlpclassifier__momentum": uniform(0.5, 0.49),
    }
    found = search(model, distributions, scoring="neg_log_loss", perturbation=[1.5]).fit(X, Y)
    scores = found.history_["score"]
    assert np.isnan(scores[0]).any()
    assert np.isfinite(found.best_score_)
    assert found.history_["param_mlpclassifier__momentum"].max() < 1
    assert found.best_estimator_["mlpclassifier"].n_iter_ == 20
    with pytest.raises(ValueError, match="the loss or score of every member is not finite"):
        search(model, {"mlpclassifier__learning_rate_init": [1e38]}).fit(X, Y)


def test_a_regressor_with_weights():
    x, y = load_diabetes(return_X_y=True)
    model = MLPRegressor((8,), max_iter=10, batch_size=64)
    weights = np.linspace(0.1, 2, len(x))
    found = search(model, {"learning_rate_init": loguniform(1e-3, 0.1)}, interval=3)
    found.fit(x, y / 100, sample_weight=weights)
    assert found.history_["epochs"].tolist() == [3, 6, 9, 10]
    assert found.predict(x).shape == (len(x),)
    assert not hasattr(found, "classes_")


def test_an_interrupted_population_goes_on(tmp_path, monkeypatch):
    expected = search().fit(X, Y)
    call, count = members.Blocks.__call__, []

    def interrupted(self, *arguments, **data):
        count.append(1)
        if len(count) % 9 == 0:
            raise KeyboardInterrupt
        return call(self, *arguments, **data)

    monkeypatch.setattr(members.Blocks, "__call__", interrupted)
    interrupts, found = [], None
    while found is None:
        try:
            found = search(checkpoint=tmp_path).fit(X, Y)
        except TrainingInterrupted as interrupt:
            interrupts.append(interrupt.result)
        assert len(interrupts) < 9
    rounds = [len(each.history_["epochs"]) for each in interrupts]
    assert rounds
    assert rounds == sorted(rounds)
    each = interrupts[-1]
    assert each.best_estimator_.n_iter_ == each.history_["epochs"][-1]
    same_history(found, expected)
    count.clear()
    same_history(search(checkpoint=tmp_path).fit(X, Y), expected)
    assert count == []  # nothing was left to train
    with pytest.raises(nn.InputError, match="checkpoints of the same settings"):
        search(checkpoint=tmp_path, quantile=0.5).fit(X, Y)
    with pytest.raises(nn.InputError, match="expected a folder with checkpoints of this search"):
        search(checkpoint=tmp_path, random_state=1).fit(X, Y)


def test_bad_input():
    for distributions in ({}, {"hidden_layer_sizes": [(3,)]}, {"alpha": [1], "a__alpha": [1]}):
        with pytest.raises(nn.InputError, match="expected distributions of alpha, learning_rate_"):
            search(distributions=distributions).fit(X, Y)
    for values in ([], "high", [None], 0.1):
        with pytest.raises(nn.InputError, match="expected alpha to have a list of numbers or a d"):
            search(distributions={"alpha": values}).fit(X, Y)
    for model in (LogisticRegression(), clone(MODEL).set_params(optimizer=optax.adam(0.1))):
        with pytest.raises(nn.InputError, match="expected an estimator of this library whose opti"):
            search(model, {"alpha": [1.0]}).fit(X, Y)
    with pytest.raises(nn.InputError, match="expected perturbation as positive factors"):
        search(perturbation=[-1.0]).fit(X, Y)
    with pytest.raises(nn.InputError, match="expected a number as random_state"):
        search(random_state=None, checkpoint="anywhere").fit(X, Y)
    with pytest.raises(ValueError, match="The 'n_members' parameter of PopulationBasedTraining"):
        search(n_members=1).fit(X, Y)
    with pytest.raises(ValueError, match="The 'alpha' parameter of MLPClassifier must be"):
        search(distributions={"alpha": [-1.0]}).fit(X, Y)
