"""Bad input raises an InputError at the call, which states what was expected and what came."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn import data, plots

pytestmark = pytest.mark.usefixtures("as_users_see_it")

NET = nn.chain(nn.Dense(3), nn.Sigmoid(), nn.Dense(1), nn.Sigmoid())
X, Y = np.ones((4, 5)), np.ones((4, 1))
PARAMS = NET.init(jax.random.key(0), X)
BCE = nn.BinaryCrossEntropy()
GRAD = nn.value_and_grad(NET, BCE)
OTHER = nn.chain(nn.Dense(3), nn.Sigmoid()).init(jax.random.key(0), X)
NAN = np.where(np.arange(20).reshape(4, 5) == 7, np.nan, 1.0)


KEY = jax.random.key(0)
GRU = nn.GRU(3)
LANGUAGE = nn.chain(nn.Embedding(5, 2), nn.GRU(2, output="last"))
LANGUAGE_PARAMS = LANGUAGE.init(KEY, np.array([[0]]))
ATTENTION = nn.MultiHeadAttention(2)
ATTENTION_PARAMS = ATTENTION.init(KEY, np.ones((2, 3, 4)))


def quadratic(p):
    return jnp.sum(p**2)


CASES = {
    "wrong number of features": (
        lambda: GRAD(PARAMS, np.ones((7, 3)), np.ones((7, 1))),
        "[0] Dense(features=3): expected x of shape (..., B, 5), got (7, 3).",
    ),
    "path in a nested network": (
        lambda: nn.chain(nn.ReLU(), NET).forward(((), PARAMS), jnp.ones((7, 3))),
        "[1][0] Dense(features=3): expected x of shape (..., B, 5), got (7, 3).",
    ),
    "no batch axis": (
        lambda: nn.Dense(3).init(jax.random.key(0), np.ones(5)),
        "Dense(features=3): expected x of shape (..., B, I), got (5,).",
    ),
    "integer data": (
        lambda: GRAD(PARAMS, X.astype(int), Y),
        "expected x of dtype float64, like the parameters, got int64.",
    ),
    "integer data to an activation": (
        lambda: nn.Tanh().forward((), jnp.arange(3)),
        "Tanh(): expected x of a floating dtype, got int64.",
    ),
    "NaN data": (
        lambda: GRAD(PARAMS, NAN, Y),
        "value_and_grad: expected finite x, got nan at x[1, 2].",
    ),
    "infinite data": (
        lambda: nn.logistic_descent(X * np.inf, Y[:, 0]),
        "logistic_descent: expected finite x, got inf at x[0, 0].",
    ),
    "labels outside {0, 1}": (
        lambda: GRAD(PARAMS, X, Y * 2),
        "BinaryCrossEntropy(): expected target in {0, 1}, got 2.0.",
    ),
    "labels of a neuron": (
        lambda: nn.logistic_descent(X, np.arange(4)),
        "logistic_descent: expected y in {0, 1}, got 2.",
    ),
    "labels for the perceptron": (
        lambda: nn.perceptron_rule(X, -np.ones(4)),
        "perceptron_rule: expected y in {0, 1}, got -1.0.",
    ),
    "predictions that are no probabilities": (
        lambda: BCE.forward(jnp.full((2, 1), 1.5), jnp.ones((2, 1))),
        "BinaryCrossEntropy(): expected probabilities in [0, 1], got 1.5.",
    ),
    "empty batch": (
        lambda: GRAD(PARAMS, X[:0], Y[:0]),
        "value_and_grad: expected x with at least one sample, got shape (0, 5).",
    ),
    "empty batch to a loss": (
        lambda: BCE.forward(jnp.ones((0, 1)), jnp.ones((0, 1))),
        "at least one sample, got shape (0, 1).",
    ),
    "empty batch to a neuron": (
        lambda: nn.logistic_descent(X[:0], Y[:0, 0]),
        "at least one sample, got shape (0, 5).",
    ),
    "mismatched lengths": (
        lambda: GRAD(PARAMS, X, Y[:3]),
        "value_and_grad: expected target with as many rows as x (4), got 3.",
    ),
    "target that would broadcast": (
        lambda: GRAD(PARAMS, X, Y[:, 0]),
        "BinaryCrossEntropy(): expected target of shape (4, 1), like the prediction, got (4,).",
    ),
    "gradient that would broadcast": (
        lambda: nn.Sigmoid().backward((), jnp.ones((4, 3)), jnp.ones((4, 1))),
        "Sigmoid(): expected dy of shape (4, 3), like the output, got (4, 1).",
    ),
    "gradient of another layer": (
        lambda: nn.Dense(3).backward(PARAMS[0], jnp.asarray(X), jnp.ones((4, 2))),
        "Dense(features=3): expected dy of shape (4, 3), got (4, 2).",
    ),
    "weights of the wrong length": (
        lambda: GRAD(PARAMS, X, Y, np.ones(3)),
        "expected weights of shape (4,), got (3,).",
    ),
    "negative weights": (
        lambda: BCE.forward(jnp.full((2, 1), 0.5), jnp.ones((2, 1)), jnp.array([1.0, -1.0])),
        "expected finite weights of at least 0, got -1.0.",
    ),
    "parameters of another network": (
        lambda: GRAD(OTHER, X, Y),
        "Sequential: expected parameters as a tuple of 4, got one of 2.",
    ),
    "parameters of another layer": (
        lambda: nn.Dense(2).forward(PARAMS[0], jnp.asarray(X)),
        "Dense(features=2): expected w of shape (I, 2), got (5, 3).",
    ),
    "parameters of no layer": (
        lambda: nn.Dense(2).forward(jnp.ones((5, 2)), jnp.asarray(X)),
        "Dense(features=2): expected parameters of type DenseParams, got an array of shape (5, 2).",
    ),
    "parameters without a bias": (
        lambda: nn.Dense(3, bias=False).forward(PARAMS[0], jnp.asarray(X)),
        "Dense(features=3, bias=False): expected parameters without a bias b.",
    ),
    "parameters for an activation": (
        lambda: nn.ReLU().forward(PARAMS[0], jnp.ones(3)),
        "ReLU(): expected no parameters",
    ),
    "two precisions": (
        lambda: GRAD(PARAMS, X.astype("float32"), Y),
        "[0] Dense(features=3): expected x of dtype float64, like the parameters, got float32.",
    ),
    "a seed for a key": (
        lambda: NET.init(0, X),
        "expected a PRNG key such as jax.random.key(0), got 0.",
    ),
    "a list for a batch": (
        lambda: nn.Dense(3).init(jax.random.key(0), [[1.0]]),
        "expected an example array",
    ),
    "features of 0": (
        lambda: nn.Dense(0),
        "Dense: expected features to be an integer of at least 1, got 0.",
    ),
    "an unknown initialiser": (
        lambda: nn.Dense(2, w_init="xavier"),
        "Dense: expected w_init to be one of",
    ),
    "an initialiser's arguments": (
        lambda: nn.Dense(2, w_init=("normal", 1.0, 2.0, 3.0)),
        "arguments that fit jax.nn.initializers.normal",
    ),
    "an empty chain": (
        lambda: nn.chain(),
        "Sequential: expected a tuple of at least one layer, got ().",
    ),
    "a chain of functions": (
        lambda: nn.chain(jnp.tanh),
        "Sequential: expected layers[0] to be a plain value",
    ),
    "a method": (
        lambda: nn.value_and_grad(NET, BCE, "numeric"),
        "expected method to be one of 'hand', 'auto', got 'numeric'.",
    ),
    "a loss for a net": (
        lambda: nn.value_and_grad(BCE, BCE),
        "expected net to be a layer, got the loss BinaryCrossEntropy(), which is no part of a network.",
    ),
    "a function for a loss": (
        lambda: nn.value_and_grad(NET, jnp.mean),
        "expected loss to be a loss",
    ),
    "a step of 0": (
        lambda: nn.gradient_descent(quadratic, jnp.ones(2), step_size=0, threshold=1e-3),
        "gradient_descent: expected step_size to be a finite number above 0, got 0.",
    ),
    "a threshold of 0": (
        lambda: nn.logistic_descent(X, Y[:, 0], threshold=0.0),
        "gradient_descent: expected threshold to be a finite number above 0, got 0.0.",
    ),
    "an infinite step": (
        lambda: nn.gradient_descent(quadratic, jnp.ones(2), step_size=np.inf, threshold=1e-3),
        "expected step_size to be a finite number above 0, got inf.",
    ),
    "no iterations": (
        lambda: nn.gradient_descent(
            quadratic, jnp.ones(2), step_size=0.1, threshold=1e-3, max_iterations=0
        ),
        "expected max_iterations to be an integer of at least 1, got 0.",
    ),
    "an integer guess": (
        lambda: nn.gradient_descent(quadratic, jnp.arange(2), step_size=0.1, threshold=1e-3),
        "expected the initial guess of a floating dtype, got int64.",
    ),
    "a guess that is not finite": (
        lambda: nn.gradient_descent(
            quadratic, jnp.array([1.0, jnp.nan]), step_size=0.1, threshold=1e-3
        ),
        "expected finite the initial guess, got nan",
    ),
    "neither objective nor gradient": (
        lambda: nn.gradient_descent(None, jnp.ones(2), step_size=0.1, threshold=1e-3),
        "expected either an objective or its gradient, got both or neither.",
    ),
    "a traced neuron": (
        lambda: jax.jit(nn.logistic_descent)(X, Y[:, 0]),
        "expected x with known values, got a traced array",
    ),
    "a certificate of nothing": (
        lambda: nn.certify(jnp.tanh, X),
        "certify: expected a layer or a loss",
    ),
    "a certificate without a target": (
        lambda: nn.certify(BCE, X / 2),
        "expected a target for the loss BinaryCrossEntropy()",
    ),
    "a certificate at NaN": (
        lambda: nn.certify(nn.Tanh(), NAN),
        "certify: expected finite x, got nan at x[1, 2].",
    ),
    "a diagram of something else": (
        lambda: plots.NetworkDisplay.from_network(nn.chain(nn.Neuron()), 2),
        "expects a network of Dense layers and activations, got Neuron() at [0].",
    ),
    "a diagram with a layer that is no activation": (
        lambda: plots.NetworkDisplay.from_network(nn.chain(nn.Dense(3), nn.LayerNorm()), 2),
        "expects a network of Dense layers and activations, got LayerNorm() at [1].",
    ),
    "a scatter of three features": (
        lambda: plots.ScatterDisplay.from_data(np.ones((4, 3)), np.ones(4)),
        "ScatterDisplay: expected x of shape (B, 2), got (4, 3).",
    ),
    "a frame of the worked example that is not there": (
        lambda: plots.BackpropDisplay.from_trace(nn.trace(NET, BCE, PARAMS, X[:1], Y[:1]), frame=9),
        "BackpropDisplay: expected a frame below 9, got 9.",
    ),
    # ── layers beyond Dense ──
    "channels that groups do not divide": (
        lambda: nn.Conv2D(4, 3, groups=2).init(KEY, np.ones((1, 5, 5, 3))),
        "Conv2D(features=4, kernel_size=3, groups=2): expected channels divisible by groups 2, got 3.",
    ),
    "features that groups do not divide": (
        lambda: nn.Conv1D(5, 3, groups=2),
        "Conv1D: expected features divisible by groups 2, got 5.",
    ),
    "channels that norm groups do not divide": (
        lambda: nn.GroupNorm(3).init(KEY, np.ones((1, 5, 4))),
        "GroupNorm(groups=3): expected channels divisible by groups 3, got 4.",
    ),
    "channels that heads do not divide": (
        lambda: nn.MultiHeadAttention(3).init(KEY, np.ones((1, 5, 4))),
        "MultiHeadAttention(heads=3): expected channels divisible by heads 3, got 4.",
    ),
    "an odd head under rotary positions": (
        lambda: nn.MultiHeadAttention(2, rotary=True).init(KEY, np.ones((1, 5, 6))),
        "expected an even number of channels a head, got 3.",
    ),
    "a kernel larger than its input": (
        lambda: nn.chain(nn.ReLU(), nn.Conv2D(4, 5, padding="VALID")).init(
            KEY, np.ones((1, 4, 4, 1))
        ),
        "[1] Conv2D(features=4, kernel_size=5, padding='VALID'): expected an input of at least 5 points along each axis under the kernel, padding included, got 4.",
    ),
    "a window larger than its input": (
        lambda: nn.MaxPool(3).init(KEY, np.ones((1, 2, 2, 1))),
        "MaxPool(window=3): expected an input of at least (3, 3) points, got (2, 2).",
    ),
    "an image to a one-dimensional convolution": (
        lambda: nn.Conv1D(4, 3).init(KEY, np.ones((1, 4, 4, 1))),
        "Conv1D(features=4, kernel_size=3): expected x of shape (B, H, C), got (1, 4, 4, 1).",
    ),
    "rows to a pool": (
        lambda: nn.MaxPool(2).init(KEY, np.ones((4, 4))),
        "expected x of shape (B, T, C) or (B, H, W, C), got (4, 4).",
    ),
    "a negative kernel": (
        lambda: nn.Conv2D(4, -3),
        "Conv2D: expected kernel_size to be an integer of at least 1, got -3.",
    ),
    "a stride of 0": (
        lambda: nn.Conv2D(4, 3, stride=(1, 0)),
        "Conv2D: expected stride to be an integer of at least 1, got 0.",
    ),
    "three strides for two axes": (
        lambda: nn.Conv2D(4, 3, stride=(1, 1, 1)),
        "Conv2D: expected stride with 2 entries, got (1, 1, 1).",
    ),
    "negative padding": (
        lambda: nn.Conv1D(4, 3, padding=-1),
        "Conv1D: expected padding of at least 0, got -1.",
    ),
    "an unknown padding": (
        lambda: nn.Conv1D(4, 3, padding="FULL"),
        "Conv1D: expected padding 'SAME', 'VALID', an int or pairs, got 'FULL'.",
    ),
    "padding that leaves nothing": (
        lambda: (
            nn.ConvTranspose1D(4, 3, padding=3).init(KEY, np.ones((1, 3, 1)))
            and nn.output_shape(
                nn.ConvTranspose1D(4, 3, padding=3),
                nn.ConvTranspose1D(4, 3, padding=3).init(KEY, np.ones((1, 3, 1))),
                jnp.ones((1, 3, 1)),
            )
        ),
        "expected padding that leaves an output, got one of size (-1,).",
    ),
    "a rate of 1": (lambda: nn.Dropout(1.0), "Dropout: expected rate in [0, 1), got 1.0."),
    "a negative rate": (lambda: nn.Dropout(-0.1), "Dropout: expected rate in [0, 1), got -0.1."),
    "a token outside the vocabulary": (
        lambda: nn.chain(nn.Embedding(5, 2), nn.Flatten()).forward(
            (nn.EmbeddingParams(jnp.ones((5, 2))), ()), jnp.array([[1, 5]])
        ),
        "[0] Embedding(vocabulary=5, features=2): expected token ids in [0, 5), got 5.",
    ),
    "a token outside the vocabulary, in a compiled gradient": (
        lambda: nn.value_and_grad(LANGUAGE, nn.SoftmaxCrossEntropy())(
            LANGUAGE_PARAMS, np.array([[1, 5]]), np.array([0])
        ),
        "[0] Embedding(vocabulary=5, features=2): expected token ids in [0, 5), got 5.",
    ),
    "a token outside the vocabulary, in the bridge": (
        lambda: nn.apply(LANGUAGE, LANGUAGE_PARAMS, np.array([[1, 5]])),
        "[0] Embedding(vocabulary=5, features=2): expected token ids in [0, 5), got 5.",
    ),
    "lengths longer than the sequence, in the bridge": (
        lambda: nn.apply(
            nn.Residual(GRU), GRU.init(KEY, X[None]), nn.Sequences(X[None], np.array([5]))
        ),
        "GRU(features=3): expected lengths in [0, 4], got 5.",
    ),
    "a negative token": (
        lambda: nn.Embedding(5, 2).forward(nn.EmbeddingParams(jnp.ones((5, 2))), jnp.array([-1])),
        "expected token ids in [0, 5), got -1.",
    ),
    "tokens that are no integers": (
        lambda: nn.Embedding(5, 2).init(KEY, np.ones((1, 2))),
        "expected token ids of an integer dtype, got float64.",
    ),
    "a mask of the wrong shape": (
        lambda: ATTENTION.forward(
            ATTENTION_PARAMS, nn.AttentionInput(jnp.ones((2, 3, 4)), mask=jnp.ones((2, 3), bool))
        ),
        "MultiHeadAttention(heads=2): expected mask of a shape among [(3, 3), (2, 3, 3), (2, 2, 3, 3)], got (2, 3).",
    ),
    "a mask of numbers": (
        lambda: ATTENTION.forward(
            ATTENTION_PARAMS, nn.AttentionInput(jnp.ones((2, 3, 4)), mask=jnp.ones((3, 3)))
        ),
        "expected a boolean mask, got float64.",
    ),
    "keys longer than the sequence": (
        lambda: ATTENTION.forward(
            ATTENTION_PARAMS, nn.AttentionInput(jnp.ones((2, 3, 4)), lengths=jnp.array([3, 4]))
        ),
        "MultiHeadAttention(heads=2): expected lengths in [0, 3], got 4.",
    ),
    "lengths longer than the sequence": (
        lambda: GRU.forward(
            GRU.init(KEY, X[None]), nn.Sequences(jnp.asarray(X[None]), jnp.array([5]))
        ),
        "GRU(features=3): expected lengths in [0, 4], got 5.",
    ),
    "lengths that are no integers": (
        lambda: GRU.forward(
            GRU.init(KEY, X[None]), nn.Sequences(jnp.asarray(X[None]), jnp.array([2.0]))
        ),
        "expected lengths of an integer dtype, got float64.",
    ),
    "an initial state of the wrong size": (
        lambda: GRU.forward(
            GRU.init(KEY, X[None]), nn.Sequences(jnp.asarray(X[None]), None, jnp.ones((1, 2)))
        ),
        "GRU(features=3): expected the initial state of shape (1, 3), got (1, 2).",
    ),
    "an output that is neither": (
        lambda: nn.LSTM(3, output="first"),
        "LSTM: expected output to be one of 'sequence', 'last', got 'first'.",
    ),
    "rows to a recurrent layer": (
        lambda: GRU.init(KEY, X),
        "GRU(features=3): expected x of shape (B, T, I), got (4, 5).",
    ),
    "a reshape that does not fit": (
        lambda: nn.Reshape((2, 2)).forward((), jnp.ones((3, 5))),
        "Reshape(shape=(2, 2)): expected samples of 4 numbers, got shape (3, 5).",
    ),
    "a residual that changes the shape": (
        lambda: nn.Residual(nn.Dense(3)).forward(PARAMS[0], jnp.asarray(X)),
        "Residual: expected the body's output of shape (4, 5), like its input, got (4, 3).",
    ),
    "a repeated block that changes the shape": (
        lambda: nn.output_shape(
            nn.Repeat(nn.Dense(3), 2), nn.Repeat(nn.Dense(3), 2).init(KEY, X), jnp.asarray(X)
        ),
        "Repeat: expected the block's output of shape (4, 5), like its input, got (4, 3).",
    ),
    "parameters for another depth": (
        lambda: nn.Repeat(nn.Dense(5), 3).forward(
            nn.Repeat(nn.Dense(5), 2).init(KEY, X), jnp.asarray(X)
        ),
        "Repeat: expected parameters stacked 3 times, got shape (2, 5, 5).",
    ),
    "branches that do not add up": (
        lambda: (
            nn.Parallel((nn.Dense(2), nn.Dense(3)), join="add").init(KEY, X)
            and nn.output_shape(
                nn.Parallel((nn.Dense(2), nn.Dense(3)), join="add"),
                nn.Parallel((nn.Dense(2), nn.Dense(3))).init(KEY, X),
                jnp.asarray(X),
            )
        ),
        "Parallel: expected each output of shape (4, 2), like that of [0], got (4, 3).",
    ),
    "a join that is neither": (
        lambda: nn.Parallel((nn.ReLU(),), join="stack"),
        "Parallel: expected join to be one of 'concatenate', 'add', got 'stack'.",
    ),
    "the path through every combinator": (
        lambda: nn.chain(nn.Residual(nn.Parallel((nn.ReLU(), nn.Remat(nn.Dense(3)))))).forward(
            (((), PARAMS[0]),), jnp.ones((7, 3))
        ),
        "[0].body[1].body Dense(features=3): expected x of shape (..., B, 5), got (7, 3).",
    ),
    "classes outside the range": (
        lambda: nn.SoftmaxCrossEntropy().forward(jnp.ones((2, 3)), jnp.array([0, 3])),
        "SoftmaxCrossEntropy(): expected classes in [0, 3), got 3.",
    ),
    "rows that are no probabilities": (
        lambda: nn.SoftmaxCrossEntropy().forward(jnp.ones((2, 3)), jnp.ones((2, 3))),
        "SoftmaxCrossEntropy(): expected target rows of probabilities, got one that sums to 3.",
    ),
    "labels that are no signs": (
        lambda: nn.Hinge().forward(jnp.ones((2, 1)), jnp.array([[0], [1]])),
        "Hinge(): expected target in {1, -1}, got 0.",
    ),
    "smoothing of 1": (
        lambda: nn.SoftmaxCrossEntropy(smoothing=1.0),
        "SoftmaxCrossEntropy: expected smoothing in [0, 1), got 1.0.",
    ),
    "a loss that optax does not have": (
        lambda: nn.OptaxLoss("mse"),
        "OptaxLoss: expected the name of a function in optax.losses, got 'mse'.",
    ),
    "a backward that is none": (
        lambda: nn.diagnose(nn.Tanh(), backward=3, x=X),
        "diagnose: expected backward to be a function, got int.",
    ),
    "a single sample to grade": (
        lambda: nn.diagnose(nn.Tanh(), backward=nn.Tanh().backward, x=X[:1]),
        "diagnose: expected a batch of at least two samples",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused_with_a_message_that_helps(name):
    call, message = CASES[name]
    with pytest.raises(nn.InputError, match=re.escape(message)):
        call()


def test_under_jit_shapes_are_still_checked():
    with pytest.raises(
        nn.InputError, match=re.escape("expected x of shape (..., B, 5), got (7, 3).")
    ):
        jax.jit(GRAD)(PARAMS, jnp.ones((7, 3)), jnp.ones((7, 1)))


def test_iris_is_what_the_lecture_uses():
    iris = data.iris_setosa()
    assert iris.x.shape == (150, 2)
    assert np.bincount(iris.y).tolist() == [50, 100]
    np.testing.assert_array_equal(iris.x[0], [5.1, 3.5])
    assert iris.feature_names == ("Sepal length (cm)", "Sepal width (cm)")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Dropout("half"), "expected rate in .* got 'half'"),
        (lambda: nn.BatchNorm(momentum="0.9"), "expected momentum in .* got '0.9'"),
        (lambda: nn.SoftmaxCrossEntropy(smoothing="a"), "expected smoothing in .* got 'a'"),
        (lambda: nn.Huber("1"), "expected delta to be a finite number above 0, got '1'"),
        (lambda: nn.LayerNorm(epsilon=None), "expected epsilon to be .* got None"),
        (lambda: nn.certify(nn.Dense, np.ones((2, 3))), r"got the class Dense; write Dense\(\)"),
        (
            lambda: nn.Sequential(nn.ReLU(), nn.Tanh()),
            r"Write Sequential\(\(ReLU\(\), Tanh\(\)\)\)",
        ),
        (lambda: nn.summary(nn.ReLU, np.ones((2, 3))), "expected net to be a layer"),
        (
            lambda: nn.explain_nan(
                nn.ReLU(), nn.SoftmaxCrossEntropy(), (), np.ones((2, 3)), np.array([0, 9])
            ),
            "got 9",
        ),
    ],
)
def test_settings_as_text_and_classes_are_refused(call, message):
    with pytest.raises(nn.InputError, match=message):
        call()
