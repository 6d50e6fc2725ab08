"""Metrics agree with those of scikit-learn, for batch sizes that do not divide the rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

import jaxnn as nn

RNG = np.random.default_rng(0)
N, K = 53, 4
LOGITS, CLASSES = RNG.normal(size=(N, K)), RNG.integers(0, K, N)
SCORES, LABELS = RNG.normal(size=(N, 1)), RNG.integers(0, 2, (N, 1))
NUMBERS, TARGETS = RNG.normal(size=(N, 2)) + 100, RNG.normal(size=(N, 2)) * [1, 5] + 100
WEIGHTS = RNG.uniform(0, 2, N)
WEIGHTS[:5] = 0
# these layers change nothing, so that the predictions are the inputs
HERE = (nn.Reshape((K,)), nn.Reshape((1,)), nn.Reshape((2,)))
SOFTMAX, SIGMOID = nn.SoftmaxCrossEntropy(), nn.SigmoidBinaryCrossEntropy()


def evaluate(net, loss, x, y, names, weights=None):
    data = (x, y) if weights is None else (x, y, weights)
    return nn.evaluate(net, loss, (), data, metrics=names, batch_size=8)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_many_classes(weights):
    found = evaluate(
        HERE[0], SOFTMAX, LOGITS, CLASSES, ("accuracy", "f1", "log_loss", "roc_auc"), weights
    )
    p, predicted = np.asarray(jax.nn.softmax(LOGITS)), LOGITS.argmax(axis=1)
    log_loss = reference.log_loss(CLASSES, p, sample_weight=weights, labels=range(K))
    assert found == pytest.approx(
        {
            "loss": log_loss,
            "accuracy": reference.accuracy_score(CLASSES, predicted, sample_weight=weights),
            "f1": reference.f1_score(CLASSES, predicted, average="macro", sample_weight=weights),
            "log_loss": log_loss,
            "roc_auc": reference.roc_auc_score(
                CLASSES, p, multi_class="ovr", sample_weight=weights
            ),
        },
        rel=2e-6,  # weights are float32
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", [SIGMOID, nn.BinaryCrossEntropy(), nn.Hinge()], ids=repr)
def test_two_classes(loss, weights):
    scores = (
        np.asarray(jax.nn.sigmoid(SCORES)) if isinstance(loss, nn.BinaryCrossEntropy) else SCORES
    )
    target = 2 * LABELS - 1 if isinstance(loss, nn.Hinge) else LABELS
    found = evaluate(HERE[1], loss, scores, target, ("accuracy", "f1", "roc_auc"), weights)
    predicted, labels = (SCORES[:, 0] > 0).astype(int), LABELS[:, 0]
    assert found["accuracy"] == pytest.approx(
        reference.accuracy_score(labels, predicted, sample_weight=weights)
    )
    assert found["f1"] == pytest.approx(
        reference.f1_score(labels, predicted, sample_weight=weights), rel=1e-6
    )
    assert found["roc_auc"] == pytest.approx(
        reference.roc_auc_score(labels, SCORES, sample_weight=weights), rel=1e-6
    )


def test_log_loss_of_two_classes():
    found = evaluate(HERE[1], SIGMOID, SCORES, LABELS, ("log_loss",))
    expected = reference.log_loss(LABELS[:, 0], np.asarray(jax.nn.sigmoid(SCORES[:, 0])))
    assert found == pytest.approx({"loss": expected, "log_loss": expected})


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_regression(weights):
    found = evaluate(HERE[2], nn.MeanSquaredError(), NUMBERS, TARGETS, ("r2",), weights)
    assert found["r2"] == pytest.approx(
        reference.r2_score(TARGETS, NUMBERS, sample_weight=weights), rel=1e-6
    )
    expected = reference.mean_squared_error(TARGETS, NUMBERS, sample_weight=weights)
    assert found["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("offset", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_r2_of_a_constant(offset, expected):
    y = np.full((10, 1), 3.0)
    assert (
        evaluate(nn.Reshape((1,)), nn.MeanSquaredError(), y + offset, y, ("r2",))["r2"] == expected
    )


def test_a_metric_that_the_data_do_not_define_is_nan_with_a_warning():
    with pytest.warns(UserWarning, match="evaluate: not a number on these data: 'r2'"):
        found = evaluate(HERE[2], nn.MeanSquaredError(), NUMBERS[:1], TARGETS[:1], ("r2",))
    assert np.isnan(found["r2"])
    with pytest.warns(UserWarning, match="'roc_auc'"):
        evaluate(HERE[1], SIGMOID, SCORES, 0 * LABELS, ("roc_auc",))


def test_batches_of_a_stream_are_divided():
    seen = []

    @nn.layer
    class Counting:
        def init(self, key, x):
            return ()

        def forward(self, params, x, key=None):
            seen.append(len(x))
            return x, ()

        def backward(self, params, cache, dy):
            return (), dy

    nn.evaluate(Counting(), SIGMOID, (), [(SCORES, LABELS)], batch_size=7)
    assert 7 in seen


def test_any_function_of_scikit_learn():
    worst = functools.partial(reference.max_error)
    found = nn.evaluate(
        nn.Reshape((1,)),
        nn.MeanSquaredError(),
        (),
        (SCORES, LABELS),
        metrics=(reference.max_error,),
    )
    assert found["max_error"] == pytest.approx(worst(LABELS[:, 0], SCORES[:, 0]))


def test_ignored_positions_do_not_count():
    logits, target = RNG.normal(size=(11, 5, K)), RNG.integers(0, K, (11, 5))
    kept = RNG.random((11, 5)) > 0.4
    found = evaluate(
        nn.Reshape((5, K)),
        nn.SoftmaxCrossEntropy(ignore=-1),
        logits,
        np.where(kept, target, -1),
        ("accuracy", "f1"),
    )
    right = logits.argmax(axis=-1)[kept]
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(target[kept], right))
    assert found["f1"] == pytest.approx(
        reference.f1_score(target[kept], right, average="macro"), rel=1e-6
    )
    whole, _ = nn.SoftmaxCrossEntropy(ignore=-1).forward(
        jnp.asarray(logits), np.where(kept, target, -1)
    )
    assert found["loss"] == pytest.approx(float(whole), rel=1e-6)


def test_batches_and_streams_are_the_whole():
    whole = nn.evaluate(HERE[0], SOFTMAX, (), (LOGITS, CLASSES), metrics=("f1", "roc_auc"))
    parts = [(LOGITS[i : i + 9], CLASSES[i : i + 9]) for i in range(0, N, 9)]
    assert nn.evaluate(HERE[0], SOFTMAX, (), parts, metrics=("f1", "roc_auc")) == pytest.approx(
        whole, rel=1e-9
    )
    net = nn.chain(nn.Dense(3), nn.Tanh())
    params = net.init(jax.random.key(0), LOGITS)
    expected = net.forward(params, jnp.asarray(LOGITS))[0]
    for size in (1, 8, N, 100):
        np.testing.assert_allclose(
            nn.predict(net, params, LOGITS, batch_size=size), expected, rtol=1e-12
        )
