"""Ordinary mistakes in a call: wrong kinds, swapped arguments, lists in the place of arrays.

Each is refused with an error of this library that names what was expected and what came.
"""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn import data, parameters

pytestmark = pytest.mark.usefixtures("as_users_see_it")

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(12, 4))
Y = np.arange(12) % 3
SEQUENCES = np.random.default_rng(1).normal(size=(2, 5, 4))
NET = nn.mlp(8, 3)
PARAMS = NET.init(KEY, X)
LOSS, MSE, SGD = nn.SoftmaxCrossEntropy(), nn.MeanSquaredError(), optax.sgd(0.1)
DENSE = nn.Dense(3)
DENSE_PARAMS = DENSE.init(KEY, X)
STATE, STEP = nn.init_state(NET, SGD, X, KEY), nn.train_step(NET, LOSS, SGD)
GRADIENT = nn.value_and_grad(NET, LOSS)
NEURON = nn.Neuron()
TRACE = nn.trace(NET, LOSS, PARAMS, X[:1], Y[:1])
TRACE_OF_NUMBERS = nn.trace(NET, MSE, PARAMS, X[:1], np.ones((1, 3)))
STATE_OF_GRU = jnp.ones((2, 3))


class Frame:
    """What a data frame is to this library: rows that are converted by ``to_numpy``."""

    shape = X.shape

    def to_numpy(self):
        return X


def fit(**changes):
    given = {"data": (X, Y), "epochs": 1, "batch_size": 4, "key": KEY} | changes
    return nn.fit(NET, LOSS, SGD, **given)


def population(**changes):
    given = {"keys": jax.random.split(KEY, 2), "epochs": 1, "batch_size": 4} | changes
    return nn.fit_population(NET, LOSS, SGD, (X, Y), **given)


def descend(objective=lambda p: (p**2).sum(), start=(1.0, 2.0), **changes):
    given = {"step_size": 0.1, "threshold": 1e-3} | changes
    return nn.gradient_descent(objective, jnp.array(start), **given)


def with_one_number(layer, x, field):
    """Run a layer with a single number in the place of an array, which would be broadcast."""
    params = layer.init(KEY, x)
    return layer.forward(params._replace(**{field: jnp.ones(1)}), jnp.asarray(x))


def plan(batch, **changes):
    mesh = {"mesh": jax.make_mesh((1,), ("data",))} | changes
    return nn.sharding_plan(NET, LOSS, SGD, batch, **mesh)


def own(init=lambda: (), forward=lambda x: (x, ()), backward=lambda dy: ((), dy)):
    """A layer that breaks the contract in one of its functions."""

    @nn.layer
    class Own:
        def init(self, key, x):
            return init()

        def forward(self, params, x, key=None):
            return forward(x)

        def backward(self, params, cache, dy):
            return backward(dy)

    return Own()


def own_loss(forward):
    @nn.loss
    class OwnLoss:
        def check(self, prediction, target):
            pass

        def forward(self, prediction, target, weights=None):
            return forward(prediction, target)

        def backward(self, cache):
            return cache

    return OwnLoss()


def learn(layer):
    net = nn.chain(nn.Dense(3), layer)
    return nn.value_and_grad(net, LOSS)(net.init(KEY, X), X, Y)


def run(layer, x, example=X):
    return layer.forward(layer.init(KEY, example), x)


MISTAKES = {
    # one number in the place of many
    "bias of LayerNorm": lambda: with_one_number(nn.LayerNorm(), X, "bias"),
    "bias of BatchNorm": lambda: with_one_number(nn.BatchNorm(), X, "bias"),
    "bias of GroupNorm": lambda: with_one_number(nn.GroupNorm(groups=2), X, "bias"),
    "bias of LSTM": lambda: with_one_number(nn.LSTM(3), SEQUENCES, "b"),
    "bias of RNN": lambda: with_one_number(nn.RNN(3), SEQUENCES, "b"),
    "bias of GRU": lambda: with_one_number(nn.GRU(3), SEQUENCES, "bh"),
    "bias of queries": lambda: with_one_number(nn.MultiHeadAttention(2), SEQUENCES, "bq"),
    "bias of attention": lambda: with_one_number(nn.MultiHeadAttention(2), SEQUENCES, "bo"),
    "theta as a matrix": lambda: NEURON.forward(
        NEURON.init(KEY, X)._replace(theta=jnp.ones((4, 1))), X
    ),
    "a gradient of other shape": lambda: descend(None, gradient=lambda p: p[:1]),
    # nothing to learn from
    "weights of 0 in fit": lambda: fit(data=(X, Y, np.zeros(12))),
    "weights of 0 in evaluate": lambda: nn.evaluate(NET, LOSS, PARAMS, (X, Y, np.zeros(12))),
    "a single class": lambda: LOSS.forward(X[:, :1], np.zeros(12, int)),
    "probabilities for log-probabilities": lambda: nn.KLDivergence().check(
        jnp.full((2, 2), 0.5), jnp.full((2, 2), 0.5)
    ),
    "NaN in a trace": lambda: nn.trace(NET, LOSS, PARAMS, X * np.nan, Y),
    # settings of another kind
    "ignore as text": lambda: nn.SoftmaxCrossEntropy(ignore="pad"),
    "ignore between classes": lambda: nn.SoftmaxCrossEntropy(ignore=-1.5),
    "slope as text": lambda: nn.LeakyReLU("0.1"),
    "slope as a flag": lambda: nn.LeakyReLU(True),
    "alpha of None": lambda: nn.ELU(None),
    "forget bias as text": lambda: nn.LSTM(3, forget_bias="1"),
    "activation as text": lambda: nn.Neuron("sigmoid"),
    "activation as a number": lambda: nn.Neuron(3),
    "softmax of one neuron": lambda: nn.Neuron(nn.Softmax()),
    "padding of a fraction": lambda: nn.Conv2D(3, 3, padding=1.5),
    "initialiser's argument as text": lambda: nn.Dense(3, w_init=("normal", "x")),
    "features as one number": lambda: nn.resnet(10, features=16),
    "classes in Parallel": lambda: nn.Parallel(nn.Dense, nn.Dense),
    "layers in Parallel": lambda: nn.Parallel(nn.Dense(2), nn.Dense(2)),
    "start_anew as text": lambda: nn.Checkpoints("never", start_anew="no"),
    "Checkpoints(None)": lambda: nn.Checkpoints(None),
    "Checkpoints(3)": lambda: nn.Checkpoints(3),
    "min_delta as text": lambda: nn.EarlyStopping(min_delta="a"),
    "option of optax as text": lambda: nn.OptaxLoss(
        "huber_loss", options=(("delta", "a"),)
    ).forward(X, X),
    # options that would have been ignored
    "certify(key=0)": lambda: nn.certify(DENSE, X, key=0),
    "certify(raises='no')": lambda: nn.certify(DENSE, X, raises="no"),
    "certify(dtype=None)": lambda: nn.certify(DENSE, X, dtype=None),
    "certify a layer with a target": lambda: nn.certify(DENSE, X, target=Y),
    "diagnose(key=3)": lambda: nn.diagnose(DENSE, backward=DENSE.backward, x=X, key=3),
    "progress as text": lambda: fit(progress="bar"),
    # data and weights in containers
    "target as a tuple": lambda: GRADIENT(PARAMS, X, (Y, Y)),
    "target as a dict": lambda: GRADIENT(PARAMS, X, {"a": Y}),
    "weights as a tuple": lambda: GRADIENT(PARAMS, X, Y, (1, 2)),
    "weights as a dict": lambda: GRADIENT(PARAMS, X, Y, {"a": 1}),
    "fit: target as a tuple": lambda: fit(data=(X, (Y, Y))),
    "fit: target as a dict": lambda: fit(data=(X, {"a": Y})),
    "fit: weights as a tuple": lambda: fit(data=(X, Y, (Y,))),
    "fit: weights as a dict": lambda: fit(data=(X, Y, {"a": Y})),
    "fit: data as a list": lambda: fit(data=[X, Y]),
    "fit: params as text": lambda: fit(params="file"),
    "fit: params as a list": lambda: fit(params=[1.0]),
    "fit: params of another network": lambda: fit(params=DENSE_PARAMS),
    "fit: a path with NUL": lambda: fit(checkpoint="a\0b"),
    "init_state: params as a list": lambda: nn.init_state(NET, SGD, X, KEY, params=[1.0, 2.0]),
    "population: values as text": lambda: population(hyperparameters={"learning_rate": ["a", "b"]}),
    "population: ragged weights": lambda: population(weights=[[1, 2], [1]]),
    "population: a member by name": lambda: population()["best"],
    # a step of training
    "step: no state": lambda: STEP(None, (X, Y)),
    "step: params for a state": lambda: STEP(PARAMS, (X, Y)),
    "step: no batch": lambda: STEP(STATE, None),
    "step: x alone": lambda: STEP(STATE, X),
    "step: x and target in one array": lambda: STEP(STATE, np.stack([X, X])),
    "step: swapped": lambda: STEP((X, Y), STATE),
    "step: text": lambda: STEP(STATE, ("a", "b")),
    # gradients
    "gradient: no params": lambda: GRADIENT(None, X, Y),
    "gradient: params as text": lambda: GRADIENT("p", X, Y),
    "gradient: params as lists": lambda: GRADIENT([[1.0, 2.0]], X, Y),
    "gradient: swapped": lambda: GRADIENT(X, PARAMS, Y),
    "gradient: x as text": lambda: GRADIENT(PARAMS, "x", Y),
    "gradient: no x": lambda: GRADIENT(PARAMS, None, Y),
    "gradient: no target": lambda: GRADIENT(PARAMS, X, None),
    "gradient: key as a number": lambda: GRADIENT(PARAMS, X, Y, None, 0),
    "gradient: key as text": lambda: GRADIENT(PARAMS, X, Y, None, "k"),
    "gradient: a class": lambda: nn.value_and_grad(nn.ReLU, LOSS),
    # inference
    "apply: no params": lambda: nn.apply(NET, None, X),
    "apply: no x": lambda: nn.apply(NET, PARAMS, None),
    "apply: x as text": lambda: nn.apply(NET, PARAMS, "x"),
    "apply: key as a number": lambda: nn.apply(NET, PARAMS, X, 0),
    "apply: swapped": lambda: nn.apply(PARAMS, NET, X),
    "apply: x for params": lambda: nn.apply(NET, X, PARAMS),
    "apply: a class": lambda: nn.apply(nn.ReLU, (), X),
    "predict: no params": lambda: nn.predict(NET, None, X),
    "predict: no x": lambda: nn.predict(NET, PARAMS, None),
    "predict: swapped": lambda: nn.predict(NET, X, PARAMS),
    "predict: a class": lambda: nn.predict(nn.ReLU, (), X),
    "predict: params as text": lambda: nn.predict(NET, "p", X),
    "predict: params as a list": lambda: nn.predict(NET, [1.0], X),
    "predict: a list of layers": lambda: nn.predict([NET], PARAMS, X),
    "evaluate: no params": lambda: nn.evaluate(NET, LOSS, None, (X, Y)),
    "evaluate: a class": lambda: nn.evaluate(NET, nn.SoftmaxCrossEntropy, PARAMS, (X, Y)),
    "evaluate: swapped": lambda: nn.evaluate(LOSS, NET, PARAMS, (X, Y)),
    "evaluate: params as text": lambda: nn.evaluate(NET, LOSS, "p", (X, Y)),
    "evaluate: no data": lambda: nn.evaluate(NET, LOSS, PARAMS, None),
    "metric of text": lambda: nn.evaluate(
        NET, LOSS, PARAMS, (X, Y), metrics=lambda target, prediction: "a"
    ),
    "metric of None": lambda: nn.evaluate(
        NET, LOSS, PARAMS, (X, Y), metrics=lambda target, prediction: None
    ),
    # examples
    "init: key as a number": lambda: NET.init(0, X),
    "init: a list": lambda: NET.init(KEY, [1, 2]),
    "init: a shape": lambda: NET.init(KEY, (4,)),
    "init: None": lambda: NET.init(KEY, None),
    "summary: a list of sizes": lambda: nn.summary(NET, [4]),
    "summary: a shape": lambda: nn.summary(NET, (12, 4)),
    "summary: text": lambda: nn.summary(NET, "x"),
    "summary: None": lambda: nn.summary(NET, None),
    "summary: a class": lambda: nn.summary(nn.ReLU, X),
    "export: a shape": lambda: nn.export_function(NET, PARAMS, (12, 4)),
    "export: no params": lambda: nn.export_function(NET, None, X),
    "export: no network": lambda: nn.export_function(None, PARAMS, X),
    "trace: no x": lambda: nn.trace(NET, LOSS, PARAMS, None, Y),
    "trace: no loss": lambda: nn.trace(NET, None, PARAMS, X, Y),
    "trace: no network": lambda: nn.trace(None, LOSS, PARAMS, X, Y),
    "trace: no params": lambda: nn.trace(NET, LOSS, None, X, Y),
    "trace: no target": lambda: nn.trace(NET, LOSS, PARAMS, X, None),
    # files
    "save: params of another network": lambda: nn.save_model("never", NET, DENSE_PARAMS, X),
    "save: no params": lambda: nn.save_model("never", NET, (), X),
    "save: None": lambda: nn.save_model("never", NET, None, X),
    "save: an array": lambda: nn.save_model("never", NET, X, X),
    "save: a list": lambda: nn.save_model("never", NET, [X], X),
    "save: a shape": lambda: nn.save_model("never", NET, PARAMS, (12, 4)),
    "save: no such folder": lambda: nn.save_model("no/such/folder", NET, PARAMS, X),
    "save: an empty path": lambda: nn.save_model("", NET, PARAMS, X),
    "save: a folder": lambda: nn.save_model("/", NET, PARAMS, X),
    "save: no path": lambda: nn.save_model(None, NET, PARAMS, X),
    "load: no path": lambda: nn.load_model(None),
    "load: a number": lambda: nn.load_model(3),
    "load: a path with NUL": lambda: nn.load_model("a\0b"),
    # layers and losses, called directly
    "layer: a list": lambda: DENSE.forward(DENSE_PARAMS, [[1.0, 2.0, 3.0, 4.0]]),
    "layer: a frame": lambda: DENSE.forward(DENSE_PARAMS, Frame()),
    "layer: text": lambda: DENSE.forward(DENSE_PARAMS, "x"),
    "layer: None": lambda: DENSE.forward(DENSE_PARAMS, None),
    "layer: a list of params": lambda: DENSE.forward([X, Y], X),
    "layer: lists in params": lambda: DENSE.forward(nn.DenseParams([[1.0] * 3] * 4, [0.0] * 3), X),
    "ReLU of a list": lambda: run(nn.ReLU(), [1.0, 2.0]),
    "ReLU of text": lambda: run(nn.ReLU(), "x"),
    "ReLU of a frame": lambda: run(nn.ReLU(), Frame()),
    "Softmax of a list": lambda: run(nn.Softmax(), [1.0, 2.0]),
    "Flatten of a list": lambda: run(nn.Flatten(), [[1.0]]),
    "Conv2D of a list": lambda: nn.Conv2D(3, 3).init(KEY, [[1.0]]),
    "MaxPool of a list": lambda: nn.MaxPool(2).forward((), [[1.0]]),
    "Dropout of a list": lambda: nn.Dropout(0.5).forward((), [1.0], KEY),
    "Dropout with a number": lambda: nn.Dropout(0.5).forward((), X, 0),
    "LayerNorm of a list": lambda: run(nn.LayerNorm(), [[1.0] * 4]),
    "Embedding of a list": lambda: run(nn.Embedding(5, 2), [1, 2], Y),
    "chain of a list": lambda: NET.forward(PARAMS, [[1.0] * 4]),
    "LSTM of a list": lambda: run(nn.LSTM(3), [[[1.0] * 4]], SEQUENCES),
    "attention of a list": lambda: run(nn.MultiHeadAttention(2), [[[1.0] * 4]], SEQUENCES),
    "lengths as a list": lambda: run(nn.LSTM(3), (SEQUENCES, [5, 3]), SEQUENCES),
    "lists in a loss": lambda: MSE.forward([1.0], [1.0]),
    "target as a list": lambda: MSE.forward(X, [[1.0] * 4] * 12),
    "target as a frame": lambda: MSE.forward(X, Frame()),
    "classes as a list": lambda: LOSS.forward(X, [0] * 12),
    "classes as text": lambda: LOSS.forward(X, "a"),
    "classes of None": lambda: LOSS.forward(X, None),
    "weights as a list": lambda: MSE.forward(X, X, [1.0] * 12),
    "dy of None": lambda: DENSE.backward(DENSE_PARAMS, X, None),
    "dy as a list": lambda: DENSE.backward(DENSE_PARAMS, X, [1.0]),
    # keys, results and masked entries in the place of data or parameters
    "fit: a key for x": lambda: fit(data=(KEY, Y)),
    "evaluate: a key for a target": lambda: nn.evaluate(NET, LOSS, PARAMS, (X, KEY)),
    "summary: a key": lambda: nn.summary(NET, KEY),
    "output_shape: a key": lambda: nn.output_shape(NET, PARAMS, KEY),
    "output_shape: a state": lambda: nn.output_shape(NET, STATE, X),
    "explain_nan: a state": lambda: nn.explain_nan(NET, LOSS, STATE, X, Y),
    "save_model: a state": lambda: nn.save_model("never", NET, STATE, X),
    "init: text in an array": lambda: DENSE.init(KEY, np.array([["a"]])),
    "layer: masked entries": lambda: DENSE.forward(DENSE_PARAMS, np.ma.masked_array(X)),
    "init_state: a number": lambda: nn.init_state(NET, SGD, 3, KEY),
    "init_state: a shape": lambda: nn.init_state(NET, SGD, (4,), KEY),
    "step: a state of another optimizer": lambda: nn.train_step(NET, LOSS, optax.adam(0.1))(
        STATE, (X, Y)
    ),
    "gradient: weights as text": lambda: GRADIENT(PARAMS, X, Y, "w"),
    "complex weights": lambda: MSE.forward(X, X, np.ones(12) * 1j),
    "certify: params of NaN": lambda: nn.certify(
        DENSE, X, params=jax.tree.map(lambda p: p * np.nan, DENSE_PARAMS)
    ),
    "certify: weights of 0": lambda: nn.certify(LOSS, X, Y, weights=np.zeros(12)),
    "a sample that is a flag": lambda: nn.trace(NET, LOSS, PARAMS, X, Y).sample(True),
    "no window": lambda: nn.MaxPool(None),
    "a list of validation batches, of which one lacks its target": lambda: fit(validation=[(X,)]),
    "rows of raw bytes": lambda: nn.predict(NET, PARAMS, X.astype(np.float32).view("V4")),
    "plan: x alone": lambda: plan(X),
    "plan: no batch": lambda: plan(None),
    "plan: devices without a mesh": lambda: plan((X, Y), mesh=jax.devices()),
    # layers and losses of one's own that break the contract
    "forward without a cache": lambda: own(forward=lambda x: x).forward((), X),
    "forward of three": lambda: own(forward=lambda x: (x, x, x)).forward((), X),
    "forward of nothing": lambda: learn(own(forward=lambda x: None)),
    "backward of one": lambda: learn(own(backward=lambda dy: dy)),
    "backward of nothing": lambda: nn.certify(own(backward=lambda dy: None), X),
    "init of a number": lambda: learn(own(init=lambda: 3)),
    "init of text": lambda: learn(own(init=lambda: "p")),
    "a gradient that lacks the parameters": lambda: learn(own(init=lambda: (jnp.ones(3),))),
    "a gradient of another shape": lambda: learn(
        own(init=lambda: (jnp.ones(3),), backward=lambda dy: ((jnp.ones((1, 3)),), dy))
    ),
    "a loss for each row": lambda: own_loss(lambda p, t: ((p - t) ** 2, ())).forward(X, X),
    "a loss without a cache": lambda: own_loss(lambda p, t: 3.0).forward(X, X),
    "a loss of None": lambda: own_loss(lambda p, t: (None, ())).forward(X, X),
    "an integer loss": lambda: own_loss(lambda p, t: (jnp.array(1), ())).forward(X, X),
    "text in a cache": lambda: nn.summary(own(forward=lambda x: (x, (x, "text"))), X),
    "predict: params of NaN": lambda: nn.predict(
        NET, jax.tree.map(lambda p: p * np.nan, PARAMS), X
    ),
    # nothing useful could be computed
    "BatchNorm of one row": lambda: nn.BatchNorm().forward(
        nn.BatchNorm().init(KEY, X), jnp.asarray(X[:1]), KEY
    ),
    "LayerNorm of one feature": lambda: nn.LayerNorm().init(KEY, X[:, :1]),
    "GroupNorm of one channel": lambda: nn.GroupNorm(4).init(KEY, X),
    "Softmax of one logit": lambda: nn.Softmax().init(KEY, X[:, :1]),
    "LogSoftmax of one logit": lambda: nn.LogSoftmax().init(KEY, X[:, :1]),
    "Softmax of no logits": lambda: nn.Softmax().forward((), jnp.ones((3, 0))),
    "Softmax of a number": lambda: nn.Softmax().forward((), jnp.ones(())),
    "Flatten of a number": lambda: nn.Flatten().forward((), jnp.ones(())),
    "Reshape of a number": lambda: nn.Reshape((1,)).forward((), jnp.ones(())),
    "an initialiser of kernels for a matrix": lambda: nn.Dense(3, w_init="delta_orthogonal").init(
        KEY, X
    ),
    # keys, states and layers of another kind
    "forward: key as a number": lambda: NET.forward(PARAMS, jnp.asarray(X), 0),
    "forward of one layer: key as a number": lambda: DENSE.forward(DENSE_PARAMS, jnp.asarray(X), 0),
    "forward: many keys": lambda: NET.forward(PARAMS, jnp.asarray(X), jax.random.split(KEY, 3)),
    "gradient: a key for weights": lambda: GRADIENT(PARAMS, X, Y, KEY),
    "GRU: a pair for a state": lambda: run(
        nn.GRU(3),
        nn.Sequences(jnp.asarray(SEQUENCES), None, (STATE_OF_GRU, STATE_OF_GRU)),
        SEQUENCES,
    ),
    "LSTM: an array for a state": lambda: run(
        nn.LSTM(3), nn.Sequences(jnp.asarray(SEQUENCES), None, STATE_OF_GRU), SEQUENCES
    ),
    "LSTM: a pair for a state": lambda: run(
        nn.LSTM(3),
        nn.Sequences(jnp.asarray(SEQUENCES), None, (STATE_OF_GRU, STATE_OF_GRU)),
        SEQUENCES,
    ),
    "Parallel of states": lambda: run(
        nn.Parallel((nn.GRU(3, return_state=True),)), jnp.asarray(SEQUENCES), SEQUENCES
    ),
    "layer of a number": lambda: nn.layer(3),
    "loss of a number": lambda: nn.loss(3),
    "a loss in a chain": lambda: nn.chain(DENSE, LOSS),
    "a body that is a class": lambda: nn.Residual(nn.Dense),
    "lengths as a list, in init": lambda: nn.GRU(3).init(KEY, nn.Sequences(SEQUENCES, [5, 3])),
    "from_json of a dict": lambda: nn.from_json({"type": "ReLU"}),
    # an option without effect
    "digits of a figure": lambda: nn.explain(
        nn.trace(NET, LOSS, PARAMS, X[:2], Y[:2]), "figure", digits=3
    ),
    # a function that looks at values, inside of a program
    "fit under jit": lambda: jax.jit(lambda x: fit(data=(x, Y)))(X),
    "fit under jit, with another key": lambda: jax.jit(lambda key: fit(key=key))(KEY),
    "fit under jit, of nothing traced": lambda: jax.jit(lambda _: fit())(1.0),
    "evaluate under jit": lambda: jax.jit(lambda x: nn.evaluate(NET, LOSS, PARAMS, (x, Y)))(X),
    "trace under jit": lambda: jax.jit(lambda x: nn.trace(NET, LOSS, PARAMS, x, Y))(X),
    "certify under jit": lambda: jax.jit(lambda x: nn.certify(NET, x))(X),
    "explain_nan under jit": lambda: jax.jit(lambda x: nn.explain_nan(NET, LOSS, PARAMS, x, Y))(X),
    "save_model under jit": lambda: jax.jit(lambda p: nn.save_model("never", NET, p, X))(PARAMS),
    # gradient descent
    "descent: step as text": lambda: descend(step_size="a"),
    "descent: threshold as text": lambda: descend(threshold="a"),
    "descent: too many iterations": lambda: descend(max_iterations=10**12),
    "descent: an array as objective's value": lambda: descend(lambda p: p),
    "descent: text as objective's value": lambda: descend(lambda p: "a"),
    # what an adversary found
    "trace: a result as params": lambda: nn.trace(NET, LOSS, fit(), X, Y),
    "trace: text as params": lambda: nn.trace(NET, LOSS, "params", X, Y),
    "loss scaling: text": lambda: nn.loss_scaling("adam"),
    "loss scaling: what makes an optimizer": lambda: nn.loss_scaling(optax.adam),
    "loss backward: None": lambda: MSE.backward(None),
    "join_running: other parts": lambda: nn.join_running(PARAMS, PARAMS[:1]),
    "rules: a function of one argument": lambda: plan((X, Y), rules=[("w", lambda shape: None)]),
    "rules: a function that returns None": lambda: plan((X, Y), rules=[("w", lambda s, m: None)]),
    "init: an initializer of negative spread": lambda: nn.Dense(3, w_init=("normal", -1.0)),
    "init: a kernel larger than the image": lambda: nn.Conv2D(16, 9, padding="VALID").init(
        KEY, np.zeros((1, 8, 8, 4))
    ),
    "split: no test rows": lambda: data.split(data.iris(), test=0),
    "early stopping without validation": lambda: fit(early_stopping=nn.EarlyStopping()),
    "early stopping: a bool as number": lambda: nn.EarlyStopping(min_delta=True),
    "explain: a bool as seed": lambda: nn.explain(TRACE, seed=True),
    "explain: words for real numbers": lambda: nn.explain(
        TRACE_OF_NUMBERS, "html", vocabulary=["a"]
    ),
    "plots: a network as trace": lambda: nn.plots.BackpropDisplay.from_trace(NET),
    "plots: text as frame": lambda: nn.plots.BackpropDisplay.from_trace(TRACE, frame="a"),
    "probabilities outside of [0, 1], compiled": lambda: nn.value_and_grad(
        nn.Dense(1), nn.BinaryCrossEntropy()
    )(nn.DenseParams(jnp.full((4, 1), 9.0), jnp.zeros(1)), X, Y[:, None] % 2),
    "descent: no objective": lambda: descend(None),
    "descent: objective as text": lambda: descend("a"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_in_our_own_words(name):
    with pytest.raises(nn.InputError, match=r"expected .* got |expected .*functions"):
        MISTAKES[name]()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: nn.apply(NET, jax.tree.map(lambda p: np.ones(p.shape, int), PARAMS), X),
            "expected parameters of a floating dtype, got int",
        ),
        (lambda: jax.jit(nn.Dropout)(0.5), r"got a traced array of shape \(\) \(under jit"),
        (lambda: NET.init(KEY, X[:, :0]), "at least one entry along each axis, got shape"),
        (lambda: nn.output_shape(LOSS, (), X), "got the loss SoftmaxCrossEntropy"),
        (
            lambda: nn.OptaxLoss("softmax_cross_entropy_with_integer_labels").check(X, Y - 9),
            r"expected target in \[0, 4\), got -9",
        ),
        (
            lambda: nn.trace(NET, LOSS, PARAMS, X, Y).sample(-21),
            r"expected the number of a sample in \[-12, 12\), got -21",
        ),
        (
            lambda: nn.GRU(3).init(KEY, nn.Sequences(SEQUENCES, [5, 3])),
            "expected x.lengths as an array or ShapeDtypeStruct, got a list",
        ),
        (lambda: nn.from_json({"type": "ReLU"}), "got a dict: write json.dumps of it"),
        (lambda: GRADIENT(PARAMS, X, Y, KEY), "expected weights to hold numbers, got a PRNG key"),
    ],
)
def test_a_message_names_the_mistake(call, message):
    with pytest.raises(nn.InputError, match=message):
        call()


ONE_OF_EACH = {type(case.layer): case for case in reversed(cases.LAYERS)}.values()


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.id)
def test_a_cache_that_forward_did_not_return_is_refused(case):
    params = case.params()
    y, cache = jax.jit(case.layer.forward)(params, case.x, case.key)
    for invented in (None, (), "a", jnp.ones(1)) if jax.tree.leaves(cache) else ():
        with pytest.raises(nn.InputError, match=r"expected .* got "):
            case.layer.backward(params, invented, y)


def test_an_error_in_a_layer_of_ones_own_is_left_as_it_is():
    broken = own(backward=lambda dy: dy.no_such_attribute)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        learn(broken)


@pytest.mark.parametrize("optimizer", [optax.clip(1.0), optax.scale_by_adam(), optax.identity()])
def test_an_optimizer_that_climbs_is_told(optimizer):
    with pytest.warns(UserWarning, match="fit: the updates of this optimizer have the sign of the"):
        nn.fit(NET, LOSS, optimizer, (X, Y), epochs=1, batch_size=4, key=KEY)


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (nn.Softmax(), nn.SoftmaxCrossEntropy()),
        (nn.chain(nn.Dense(2), nn.Sigmoid()), nn.SigmoidBinaryCrossEntropy()),
    ],
)
def test_probabilities_given_to_a_loss_of_logits_are_told(last, loss):
    net = nn.chain(NET, last)
    with pytest.warns(UserWarning, match="takes the numbers before it, the logits. Leave"):
        nn.value_and_grad(net, loss)
    with pytest.warns(UserWarning, match="train_step: the network ends with"):
        nn.train_step(net, loss, SGD)


def test_an_objective_of_nan_has_not_converged():
    found = descend(lambda p: jnp.log(-p).sum(), step_size=0.1, threshold=1e-3)
    assert found.diverged
    assert not found.converged


def test_classes_that_cannot_be_make_the_loss_nan_in_a_program():
    _, metrics = jax.jit(nn.train_step(NET, LOSS, SGD))(STATE, (X, Y + 9))
    assert np.isnan(metrics["loss"])


def test_a_certificate_says_in_which_mode():
    assert "at inference, float64" in str(nn.certify(nn.Dropout(0.5), X))
    assert "in training, float64" in str(nn.certify(nn.Dropout(0.5), X, key=KEY))


def test_a_list_of_traced_rows_is_an_array():
    rows = jax.jit(lambda x: nn.apply(NET, PARAMS, [x[0], x[1]]))(X)
    np.testing.assert_allclose(rows, nn.apply(NET, PARAMS, X[:2]), rtol=1e-12)


def test_a_network_is_not_written_out_with_its_numbers():
    with pytest.raises(nn.InputError, match=r"expected net to be a layer, got a tuple\.$"):
        nn.apply(PARAMS, NET, X)


def test_rows_of_float64_are_taken_without_a_warning():
    with jax.enable_x64(False):
        params = NET.init(KEY, X)
        assert (
            fit(data=(X.tolist(), Y.tolist()), params=params).state.params[0].w.dtype == "float32"
        )


def test_a_guess_may_be_a_list_of_numbers():
    found = nn.gradient_descent(lambda p: (p**2).sum(), [1.0, 2.0], step_size=0.1, threshold=1e-3)
    assert found.converged
    assert found.params.shape == (2,)


def test_numbers_of_numpy_are_settings_like_those_of_python():
    layer = nn.Conv2D(np.int64(3), (np.int32(3), 3))
    assert layer == nn.Conv2D(3, (3, 3))
    assert type(layer.features) is int
    assert nn.from_json(nn.to_json(layer)) == layer


def test_a_frame_is_converted_where_data_are_expected():
    assert np.array_equal(nn.apply(NET, PARAMS, Frame()), nn.apply(NET, PARAMS, X))


def test_what_is_not_a_number_stays_so_behind_a_step():
    assert np.isnan(nn.Heaviside().forward((), jnp.array([np.nan, 1.0]))[0]).tolist() == [
        True,
        False,
    ]


def test_parameters_are_compared_once_for_each_input():
    layer = nn.chain(nn.Dense(3), nn.Dense(2))
    params = layer.init(KEY, X)
    nn.predict(layer, params, X)
    before = parameters._made.cache_info().misses
    nn.predict(layer, params, X)
    nn.apply(layer, params, X)
    nn.value_and_grad(layer, nn.SoftmaxCrossEntropy())(params, X, Y % 2)
    assert parameters._made.cache_info().misses == before
