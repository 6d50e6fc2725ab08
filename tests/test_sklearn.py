"""The estimators: scikit-learn's own conformance suite, and what its users do with an estimator."""

import pickle
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
import pytest
import sklearn
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import DecisionBoundaryDisplay, permutation_importance
from sklearn.model_selection import GridSearchCV, LearningCurveDisplay
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import jaxnn as nn
from jaxnn.sklearn import (
    LogisticNeuron,
    MLPClassifier,
    MLPRegressor,
    NetworkTransformer,
    Perceptron,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
NAMES = load_iris().target_names[Y]
QUICK = {"max_iter": 60, "hidden_layer_sizes": (8,), "random_state": 0, "learning_rate_init": 0.02}


ESTIMATORS = [
    MLPClassifier(max_iter=100),
    MLPRegressor(max_iter=100),
    Perceptron(),
    LogisticNeuron(),
    NetworkTransformer(MLPClassifier(max_iter=5)),
]
CHECKS = [pair for each in ESTIMATORS for pair in estimator_checks_generator(each, mark="skip")]


def name_of(value):
    return getattr(value, "func", value).__name__ if callable(value) else type(value).__name__


@pytest.mark.slow  # minutes of compilation
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=name_of)
def test_conformance(estimator, check):
    check(estimator)


def test_frames_and_text_labels_in_a_pipeline():
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler().set_output(transform="pandas"), MLPClassifier(**QUICK))
    model.fit(frame, NAMES)
    assert set(model.predict(frame)) == set(NAMES)
    assert list(model.classes_) == sorted(set(NAMES))
    assert list(model[-1].feature_names_in_) == list("abcd")
    p = model.predict_proba(frame)
    assert p.shape == (150, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert np.array_equal(model.classes_[p.argmax(axis=1)], model.predict(frame))
    np.testing.assert_allclose(np.log(p), model.predict_log_proba(frame))


def test_the_precision_is_that_of_the_data():
    for dtype in (np.float32, np.float64):
        model = MLPClassifier(**QUICK).fit(X.astype(dtype), Y)
        assert {leaf.dtype for leaf in model.coefs_} == {np.dtype(dtype)}
        assert model.predict_proba(X.astype(dtype)).dtype == dtype


def test_the_gradient_of_an_epoch_is_scikit_learns():
    """From the same weights, one step of descent on all rows leads both to the same place."""
    settings = {
        "hidden_layer_sizes": (5,), "activation": "tanh", "alpha": 0.3, "batch_size": 150,
        "max_iter": 1, "learning_rate_init": 0.1, "momentum": 0.0, "warm_start": True,
        "random_state": 0,
    }  # fmt: skip
    ours = MLPClassifier(optimizer="sgd", **settings).fit(X, Y)
    theirs = Theirs(solver="sgd", nesterovs_momentum=False, **settings).fit(X, Y)
    theirs.coefs_ = [w.copy() for w in ours.coefs_]
    theirs.intercepts_ = [b.copy() for b in ours.intercepts_]
    ours.fit(X, Y)
    theirs.fit(X, Y)
    for a, b in zip(
        ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_search_a_pickle_and_the_same_seed():
    search = GridSearchCV(MLPClassifier(**QUICK), {"alpha": [1e-4, 10.0]}, cv=3).fit(X, Y)
    assert search.best_score_ > 0.8
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(again.predict_proba(X), search.predict_proba(X))
    assert again.network_ == search.best_estimator_.network_
    same = sklearn.clone(search.best_estimator_).fit(X, Y)
    assert np.array_equal(same.predict_proba(X), search.predict_proba(X))


@pytest.mark.parametrize(
    "estimator",
    [
        MLPClassifier(**QUICK),
        MLPRegressor(**QUICK, early_stopping=True),
        MLPClassifier(**QUICK, network=nn.chain(nn.Dense(5), nn.Tanh(), nn.Dense(1))),
        Perceptron(),
        LogisticNeuron(max_iter=50),
        NetworkTransformer(MLPClassifier(**QUICK)),
    ],
)
def test_a_file_of_skops_needs_trust_in_the_estimators_alone(estimator):
    fitted = estimator.fit(X[Y < 2], Y[Y < 2])
    data = skops.io.dumps(fitted)
    foreign = skops.io.get_untrusted_types(data=data)
    parts = [fitted, getattr(fitted, "estimator_", fitted), getattr(fitted, "network", None)]
    assert {name.split(".")[0] for name in foreign} == {"jaxnn"}
    own = {f"{type(part).__module__}.{type(part).__qualname__}" for part in parts}
    if getattr(fitted, "network", None) is None:
        assert set(foreign) <= own
    again = skops.io.loads(data, trusted=foreign)
    use = "transform" if hasattr(fitted, "transform") else "predict"
    assert np.array_equal(getattr(again, use)(X), getattr(fitted, use)(X))


def test_several_labels_and_several_numbers():
    x, labels = make_multilabel_classification(80, 6, n_classes=3, random_state=0)
    model = MLPClassifier(**QUICK | {"max_iter": 100}).fit(x, labels)
    assert model.predict(x).shape == labels.shape
    assert model.score(x, labels) > 0.5
    x, y = load_diabetes(return_X_y=True)
    both = MLPRegressor(**QUICK).fit(x, np.stack([y, -y], axis=1) / 100)
    assert both.predict(x).shape == (442, 2)


def test_weights_of_samples_and_classes():
    few = np.where(Y == 2, 0.0, 1.0)
    model = MLPClassifier(**QUICK | {"max_iter": 60}).fit(X, Y, sample_weight=few)
    assert 2 not in model.predict(X)
    same = MLPClassifier(**QUICK, class_weight={0: 1.0, 1: 1.0, 2: 1.0}).fit(X, Y)
    assert np.array_equal(same.coefs_[0], MLPClassifier(**QUICK).fit(X, Y).coefs_[0])
    with pytest.raises(ValueError, match="Negative values"):
        model.fit(X, Y, sample_weight=-np.ones(150))


def test_going_on():
    begun = MLPClassifier(**QUICK | {"max_iter": 3, "warm_start": True}).fit(X, Y)
    assert begun.fit(X, Y).n_iter_ == len(begun.loss_curve_) == 6
    parts = MLPClassifier(**QUICK)
    for rows in (slice(0, 60), slice(60, 150)):
        parts.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
    assert parts.n_iter_ == 2
    with pytest.raises(ValueError, match="`y` has classes not in"):
        parts.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier().partial_fit(X, Y)
    with pytest.raises(ValueError, match="has the same classes as in the previous call"):
        begun.fit(X[Y < 2], Y[Y < 2])
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4"):
        begun.predict(X[:, :3])


def test_early_stopping_keeps_the_best():
    model = MLPClassifier(**QUICK | {"max_iter": 200}, early_stopping=True, n_iter_no_change=3)
    model.fit(X, Y)
    assert model.n_iter_ < 200
    assert model.best_validation_score_ == max(model.validation_scores_)
    with pytest.warns(ConvergenceWarning, match="the loss still improved after max_iter=2"):
        MLPClassifier(**QUICK | {"max_iter": 2}).fit(X, Y)


def test_a_network_and_an_optimizer_of_ones_own():
    net = nn.chain(nn.Dense(6), nn.BatchNorm(), nn.ReLU(), nn.Dense(3))
    model = MLPClassifier(network=net, optimizer=optax.adamw(0.02), max_iter=200).fit(X, Y)
    assert model.network_ == net
    assert model.score(X, Y) > 0.8
    with pytest.raises(ValueError, match="expected a network with 3 outputs for each of 150 rows"):
        MLPClassifier(network=nn.mlp(4, 2)).fit(X, Y)
    with pytest.raises(ValueError, match="the name of an optimizer of optax, got 'adem'"):
        MLPClassifier(optimizer="adem").fit(X, Y)
    with pytest.raises(ValueError, match="'activation' parameter"):
        MLPClassifier(activation="rel").fit(X, Y)


def test_activations_as_features():
    features = NetworkTransformer(MLPClassifier(**QUICK)).set_output(transform="pandas")
    found = features.fit_transform(X, Y)
    assert found.shape == (150, 8)
    assert list(found.columns[:1]) == ["networktransformer0"]
    model = make_pipeline(NetworkTransformer(MLPClassifier(**QUICK)), KNeighborsClassifier())
    assert model.fit(X, Y).score(X, Y) > 0.8
    with pytest.raises(ValueError, match="expected layers to be a number of layers"):
        NetworkTransformer(MLPClassifier(**QUICK), layers=7).fit(X, Y)


def test_neurons_classify():
    two = Y < 2
    assert Perceptron().fit(X[two], Y[two]).score(X[two], Y[two]) == 1
    model = LogisticNeuron(max_iter=5000).fit(X, NAMES)
    assert model.score(X, NAMES) > 0.8
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    with pytest.raises(ValueError, match="only one class"):
        Perceptron().fit(X[:50], Y[:50])


def test_tools_of_scikit_learn():
    plane, model = X[:, 2:], MLPClassifier(**QUICK)
    assert CalibratedClassifierCV(model, cv=2).fit(plane, Y).predict_proba(plane).shape == (150, 3)
    model.fit(plane, Y)
    assert permutation_importance(model, plane, Y, n_repeats=2).importances.shape == (2, 2)
    DecisionBoundaryDisplay.from_estimator(model, plane, grid_resolution=10)
    LearningCurveDisplay.from_estimator(model, plane, Y, cv=2, train_sizes=[0.5, 1.0], shuffle=True)
    plt.close("all")


def test_folds_share_one_program(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    from suites.compile import compilations

    model = MLPClassifier(**QUICK)
    model.fit(X[:149], Y[:149]).score(X[:149], Y[:149])
    assert compilations(lambda: model.fit(X[:148], Y[:148]).score(X[:148], Y[:148])) == 0
    sys.modules.pop("suites.compile")


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (MLPClassifier((5.5,)), "integers of at least 1, got"),
        (MLPClassifier(True), "integers of at least 1, got True"),
        (MLPClassifier(class_weight="balance"), "'class_weight' parameter"),
        (NetworkTransformer(KNeighborsClassifier()), "expected estimator to be one of jaxnn"),
    ],
)
def test_a_wrong_setting_is_told_by_fit(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, Y)


def test_coefficients_are_those_of_dense_layers_and_come_with_fit():
    network = nn.chain(nn.Dense(2), nn.LayerNorm(), nn.Dense(3, bias=False))
    estimator = MLPClassifier(network=network, max_iter=2)
    assert not hasattr(estimator, "coefs_")
    estimator.fit(X, Y)
    assert [w.shape for w in estimator.coefs_] == [(4, 2), (2, 3)]
    assert [b.shape for b in estimator.intercepts_] == [(2,)]


@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
def test_a_neuron_that_has_not_converged_is_told():
    with pytest.warns(ConvergenceWarning, match="Perceptron has not converged after max_iter=3"):
        Perceptron(max_iter=3).fit(X, Y)
    with pytest.warns(ConvergenceWarning, match="LogisticNeuron has not converged"):
        LogisticNeuron(max_iter=3).fit(X, Y)


def test_a_batch_larger_than_the_data_is_told():
    with pytest.warns(UserWarning, match="batch_size=1000, larger than the 150 samples"):
        MLPClassifier(batch_size=1000, max_iter=2).fit(X, Y)
