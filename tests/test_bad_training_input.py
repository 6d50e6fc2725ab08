"""Bad input to training, refused before any work is done."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn import data, plots
from jaxnn.training import checkpoint_hook
from jaxnn.training import fit as fit_module
from jaxnn.training.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("as_users_see_it")

KEY = jax.random.key(0)
X, Y = np.ones((10, 4)), np.arange(10) % 3
NAN = np.where(np.arange(40).reshape(10, 4) == 7, np.nan, 1.0)
NET, LOSS, ADAM = (
    nn.chain(nn.Dense(5), nn.Tanh(), nn.Dense(3)),
    nn.SoftmaxCrossEntropy(),
    optax.adam(1e-2),
)
NORMED, IGNORING = (
    nn.chain(nn.Dense(5), nn.BatchNorm(), nn.Dense(3)),
    nn.SoftmaxCrossEntropy(ignore=0),
)
NANS = jax.tree.map(lambda p: p * np.nan, NET.init(KEY, X))
REGRESSION = nn.chain(nn.Dense(1)), nn.MeanSquaredError(), ADAM, (X, X[:, :1])
KEYS = jax.random.split(KEY, 3)


def fit(*leading, **options):
    leading = leading or (NET, LOSS, ADAM, (X, Y))
    if "epochs" not in options and "steps" not in options:
        options["epochs"] = 2
    return nn.fit(*leading, **{"batch_size": 4, "key": KEY, "validation": None, **options})


def populate(**options):
    return nn.fit_population(
        NET,
        LOSS,
        options.pop("optimizer", ADAM),
        (X, Y),
        **{"keys": KEYS, "epochs": 1, "batch_size": 4, **options},
    )


def nothing(target, prediction):
    pass


def failing(target, prediction):
    return 1 / 0


def stream(*batches):
    return fit(NET, LOSS, ADAM, list(batches), batch_size=None)


CASES = {
    "a batch larger than the data": (
        lambda: fit(batch_size=11),
        "fit: expected a batch_size of at most the 10 rows of the data, got 11.",
    ),
    "no batch size": (
        lambda: fit(batch_size=None),
        "fit: expected a batch_size for arrays, got None.",
    ),
    "a batch size for a stream": (
        lambda: fit(NET, LOSS, ADAM, [(X, Y)]),
        "fit: expected no batch_size for an iterable of batches, got 4.",
    ),
    "no epochs": (
        lambda: fit(epochs=0),
        "fit: expected epochs to be an integer of at least 1, got 0.",
    ),
    "half an epoch": (
        lambda: fit(epochs=0.5),
        "fit: expected epochs to be an integer of at least 1, got 0.5.",
    ),
    "epochs and steps": (
        lambda: fit(epochs=1, steps=2),
        "fit: expected either epochs or steps, got epochs=1 and steps=2.",
    ),
    "neither epochs nor steps": (
        lambda: fit(epochs=None),
        "fit: expected either epochs or steps, got epochs=None and steps=None.",
    ),
    "fewer steps than were made": (
        lambda: fit(state=fit().state, key=None, steps=3),
        "fit: expected at least the 6 steps already made, got 3 in all.",
    ),
    "labels out of range": (
        lambda: fit(NET, LOSS, ADAM, (X, Y + 1)),
        "SoftmaxCrossEntropy(): expected classes in [0, 3), got 3.",
    ),
    "labels out of range for validation": (
        lambda: fit(validation=(X, Y - 1)),
        "SoftmaxCrossEntropy(): expected classes in [0, 3), got -1.",
    ),
    "NaN in the data": (
        lambda: fit(NET, LOSS, ADAM, (NAN, Y)),
        "fit: expected finite x, got nan at x[1, 3].",
    ),
    "NaN in the validation": (
        lambda: fit(validation=(NAN, Y)),
        "fit: expected finite x, got nan at x[1, 3].",
    ),
    "NaN in a stream": (lambda: stream((NAN, Y)), "fit: expected finite x, got nan at x[1, 3]."),
    "data of another width": (
        lambda: fit(NET, LOSS, ADAM, (X, Y), params=NET.init(KEY, X[:, :3])),
        "fit: expected params[0].w to be an array of shape (4, 5) for this x, "
        "got an array of shape (3, 5).",
    ),
    "rows that differ in number": (
        lambda: fit(NET, LOSS, ADAM, (X, Y[:9])),
        "fit: expected target with as many rows as x (10), got 9.",
    ),
    "weights that differ in number": (
        lambda: fit(NET, LOSS, ADAM, (X, Y, np.ones(3))),
        "fit: expected weights with as many rows as x (10), got 3.",
    ),
    "negative weights": (
        lambda: fit(NET, LOSS, ADAM, (X, Y, np.linspace(-1, 1, 10))),
        "fit: expected finite weights of at least 0, got -1.0.",
    ),
    "inputs alone": (
        lambda: fit(NET, LOSS, ADAM, (X,)),
        "fit: expected data (x, target) or (x, target, weights), got 1 entries.",
    ),
    "an array": (
        lambda: fit(NET, LOSS, ADAM, X),
        "fit: expected data (x, target) or (x, target, weights), got an array of shape (10, 4).",
    ),
    "a number": (
        lambda: fit(NET, LOSS, ADAM, 3, batch_size=None),
        "fit: expected data (x, target) or an iterable of such batches, got int.",
    ),
    "a dict of other names": (
        lambda: fit(NET, LOSS, ADAM, {"x": X, "y": Y}),
        "fit: expected a dict of x, target and perhaps weights, got ['x', 'y'].",
    ),
    "no rows": (
        lambda: fit(NET, LOSS, ADAM, (X[:0], Y[:0])),
        "fit: expected x with at least one sample, got shape",
    ),
    "an empty stream": (
        lambda: stream(),
        "fit: expected an iterable of batches, got one that is exhausted.",
    ),
    "an optimizer of another kind": (
        lambda: fit(NET, LOSS, 0.1, (X, Y)),
        "fit: expected optimizer to be an optax.GradientTransformation, got float.",
    ),
    "an optimizer of a rate for each of three": (
        lambda: fit(NET, LOSS, optax.sgd(np.ones(3)), (X, Y)),
        "fit: expected an optimizer that updates from gradient and value, got: ",
    ),
    "an optimizer of no parameters": (
        lambda: fit(NET, LOSS, optax.GradientTransformation(None, None), (X, Y)),
        "fit: expected an optimizer that takes these parameters, got TypeError: ",
    ),
    "an optimizer that wants the function": (
        lambda: fit(NET, LOSS, optax.lbfgs(), (X, Y)),
        "fit: expected an optimizer that updates from gradient and value, got: ",
    ),
    "a loss for a network": (
        lambda: fit(LOSS, LOSS, ADAM, (X, Y)),
        "fit: expected net to be a layer, got",
    ),
    "no loss": (
        lambda: fit(NET, None, ADAM, (X, Y)),
        "fit: expected loss to be a loss, got None.",
    ),
    "no key": (
        lambda: fit(key=None),
        "fit: expected a PRNG key such as jax.random.key(0), got None.",
    ),
    "a seed for a key": (
        lambda: fit(key=3),
        "fit: expected a PRNG key such as jax.random.key(0), got 3.",
    ),
    "parameters and state": (
        lambda: fit(state=fit().state, params=()),
        "fit: expected either params or state to start from, got both.",
    ),
    "a key and a state": (
        lambda: fit(state=fit().state),
        "fit: expected either key or state, which has a key of its own, got both. To use another key, pass state._replace(key=key).",
    ),
    "a fit for a state": (
        lambda: fit(state=fit(), key=None),
        "fit: expected state to be a TrainState, got a Fit; pass its .state.",
    ),
    "a fit for parameters": (
        lambda: fit(params=fit()),
        "fit: expected the parameters of a network, got a Fit; pass its .params.",
    ),
    "parameters that are not finite": (
        lambda: fit(params=jax.tree.map(lambda p: p * np.nan, NET.init(KEY, X))),
        "fit: expected finite params, got nan at params[0].w[0, 0].",
    ),
    "a state that is not finite": (
        lambda: fit(state=nn.init_state(NET, ADAM, X, KEY)._replace(params=NANS), key=None),
        "fit: expected finite state, got nan at state[0].w[0, 0].",
    ),
    "parameters to evaluate that are not finite": (
        lambda: nn.evaluate(NET, LOSS, NANS, (X, Y)),
        "evaluate: expected finite params, got nan at params[0].w[0, 0].",
    ),
    "a fit to evaluate": (
        lambda: nn.evaluate(NET, LOSS, fit(), (X, Y)),
        "evaluate: expected the parameters of a network, got a Fit; pass its .params.",
    ),
    "a fit to predict from": (
        lambda: nn.predict(NET, fit(), X),
        "predict: expected params to be an array, got a Fit; pass its .params.",
    ),
    "a state to predict from": (
        lambda: nn.predict(NET, fit().state, X),
        "expected parameters as a tuple of 3, got a TrainState; pass its .params.",
    ),
    "inputs without features": (
        lambda: fit(NET, LOSS, ADAM, (X[:, :0], Y)),
        "fit: expected x with at least one entry along each axis, got shape (10, 0).",
    ),
    "nothing to train": (
        lambda: fit(nn.ReLU(), nn.MeanSquaredError(), ADAM, (X, X)),
        "fit: expected a network with parameters to train, got none.",
    ),
    "nothing but what is frozen": (
        lambda: fit(nn.chain(nn.Frozen(NET), nn.Tanh()), LOSS, ADAM, (X, Y)),
        "fit: expected a network with parameters to train, got only frozen ones.",
    ),
    "many networks with nothing to train": (
        lambda: nn.fit_population(
            nn.Frozen(NET), LOSS, ADAM, (X, Y), keys=KEYS, epochs=1, batch_size=4
        ),
        "fit_population: expected a network with parameters to train, got only frozen ones.",
    ),
    "a target that is ignored": (
        lambda: fit(NET, nn.SoftmaxCrossEntropy(ignore=0), ADAM, (X, 0 * Y)),
        "fit: expected a target that SoftmaxCrossEntropy(ignore=0) does not ignore, got none.",
    ),
    "a target to evaluate that is ignored": (
        lambda: nn.evaluate(NET, IGNORING, NET.init(KEY, X), (X, 0 * Y)),
        "evaluate: expected a target that SoftmaxCrossEntropy(ignore=0) does not ignore, got none.",
    ),
    "a stream to evaluate that is ignored": (
        lambda: nn.evaluate(NET, IGNORING, NET.init(KEY, X), [(X, 0 * Y)]),
        "evaluate: expected at least one position that counts, got none in any batch.",
    ),
    "the rest of a stream": (
        lambda: fit(NET, LOSS, ADAM, [(X, Y)], batch_size=None, drop_last=True),
        "fit: expected drop_last with arrays, got an iterable of batches.",
    ),
    "a last batch of one row": (
        lambda: fit(NORMED, LOSS, ADAM, (X[:9], Y[:9])),
        "fit: expected batches of at least two rows, by another batch_size or by drop_last: "
        "[1] BatchNorm(): expected at least two values of each channel in training, as one has no variance, got shape (1, 5).",
    ),
    "a batch of one row in a stream": (
        lambda: fit(NORMED, LOSS, ADAM, [(X, Y), (X[:1], Y[:1])], batch_size=None),
        "[1] BatchNorm(): expected at least two values of each channel in training",
    ),
    "a last batch of one row for many": (
        lambda: nn.fit_population(
            NORMED, LOSS, ADAM, (X[:9], Y[:9]), keys=KEYS, epochs=1, batch_size=4
        ),
        "fit_population: expected batches of at least two rows",
    ),
    "numbers that float16 cannot hold": (
        lambda: fit(NET, LOSS, ADAM, (np.float16(1e4) * X.astype(np.float16), Y), epochs=9),
        " in float16, which holds no numbers above 65504; the last good state is that after step",
    ),
    "a metric of nothing": (
        lambda: fit().evaluate((X, Y), metrics=(nothing,)),
        "metric 'nothing': expected a real number, got None.",
    ),
    "a metric of a complex number": (
        lambda: fit().evaluate((X, Y), metrics=(lambda target, prediction: 1j,)),
        "metric '<lambda>': expected a real number, got 1j.",
    ),
    "a metric of many numbers": (
        lambda: fit().evaluate((X, Y), metrics=(lambda target, prediction: target,)),
        "metric '<lambda>': expected a real number, got an array of shape (10,).",
    ),
    "a metric that fails": (
        lambda: fit(validation=(X, Y), metrics=(failing,)),
        "metric 'failing': expected a real number, got ZeroDivisionError: division by zero.",
    ),
    "parameters for a state": (
        lambda: fit(state=NET.init(KEY, X)),
        "fit: expected state to be a TrainState, got a tuple.",
    ),
    "a precision that there is not": (
        lambda: fit(precision="float8"),
        "fit: expected precision to be one of 'bfloat16', 'float16', 'tf32', 'float32', 'float64', got 'float8'.",
    ),
    "a method that there is not": (
        lambda: fit(method="magic"),
        "fit: expected method to be one of",
    ),
    "an unknown metric": (
        lambda: fit(validation=(X, Y), metrics=("precision",)),
        "fit: expected a metric among 'accuracy', 'log_loss', 'f1', 'roc_auc', 'r2', got 'precision'.",
    ),
    "a metric that does not fit": (
        lambda: fit(*REGRESSION, validation=(X, X[:, :1]), metrics=("accuracy",)),
        "fit: expected metric 'accuracy' with a loss of classes, which has the methods classes and true_classes, ",
    ),
    "a metric by itself": (
        lambda: fit(validation=(X, Y), metrics="accuracy"),
        "fit: expected metrics as a tuple of names or functions, got 'accuracy'.",
    ),
    "a number of checkpoints": (
        lambda: fit(checkpoint=3),
        "fit: expected checkpoint to be a folder or Checkpoints, got int.",
    ),
    "metrics of nothing": (
        lambda: fit(metrics=("accuracy",)),
        "fit: expected validation data for metrics ('accuracy',), got none.",
    ),
    "a monitor that there is not": (
        lambda: fit(early_stopping=nn.EarlyStopping()),
        "EarlyStopping: expected validation= in the call, for 'validation_loss', got none.",
    ),
    "no patience": (
        lambda: nn.EarlyStopping(patience=0),
        "EarlyStopping: expected patience to be an integer of at least 1, got 0.",
    ),
    "an improvement below nothing": (
        lambda: nn.EarlyStopping(min_delta=-1.0),
        "EarlyStopping: expected min_delta of at least 0, got -1.0.",
    ),
    "NaN to predict from": (
        lambda: nn.predict(NET, NET.init(KEY, X), NAN),
        "predict: expected finite x, got nan at",
    ),
    "nothing to evaluate": (
        lambda: nn.evaluate(NET, LOSS, NET.init(KEY, X), []),
        "evaluate: expected at least one batch, got none.",
    ),
    "no network to sum up": (
        lambda: nn.summary(LOSS, X),
        "summary: expected net to be a layer, got",
    ),
    "a key for many": (
        lambda: populate(keys=KEY),
        "fit_population: expected keys such as jax.random.split(jax.random.key(0), 8), got shape ()",
    ),
    "rates for another number of members": (
        lambda: populate(hyperparameters={"learning_rate": [0.1, 0.2]}),
        "fit_population: expected hyperparameter 'learning_rate' of shape (3,), got (2,).",
    ),
    "a hyperparameter that cannot vary": (
        lambda: populate(hyperparameters={"learning_rate": [0.1, 0.2, 0.3]}),
        "fit_population: expected hyperparameter 'learning_rate' in the optimizer's state, got none: make it variable",
    ),
    "folds of another shape": (
        lambda: populate(weights=np.ones((3, 9))),
        "fit_population: expected weights of shape (3, 10), got (3, 9).",
    ),
    "folds that weigh less than nothing": (
        lambda: populate(weights=-np.ones((3, 10))),
        "fit_population: expected finite weights of at least 0, got -1.0.",
    ),
    "a strategy that there is not": (
        lambda: populate(strategy="pmap"),
        "fit_population: expected strategy to be one of 'auto', 'vmap', 'map', got 'pmap'.",
    ),
    "the best by an unknown name": (
        lambda: populate().best("accuracy"),
        "Population.best: expected by to be one of 'loss', got 'accuracy'.",
    ),
    "a curve by an unknown name": (
        lambda: plots.population(populate(), "accuracy"),
        "PopulationDisplay: expected name to be one of 'loss', got 'accuracy'.",
    ),
    "a character that is not known": (
        lambda: data.characters("abcé", 2, "abc"),
        "characters: expected characters of the vocabulary, got 'é'.",
    ),
    "a text shorter than a window": (
        lambda: data.characters("abc", 5, "abc"),
        "characters: expected a text longer than 5 characters, got 3.",
    ),
    "a function for parameters": (
        lambda: nn.save_model("/tmp/never", NET, (len,), X),
        "save_model: expected parameters of arrays and tuples, got builtin_function_or_method at 0.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused_with_a_message_that_helps(name):
    call, message = CASES[name]
    with pytest.raises((nn.InputError, nn.TrainingError), match=re.escape(message)):
        call()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(nn.InputError, match="expected a folder that can be written to, got"):
        fit(checkpoint=str(tmp_path / "file" / "folder"))


def test_a_checkpoint_of_something_else(tmp_path):
    where = str(tmp_path)
    fit(checkpoint=where)

    def refuses(message, *leading, **options):
        with pytest.raises(nn.InputError, match=message):
            fit(*leading, checkpoint=where, epochs=3, **options)

    other = nn.chain(nn.Dense(6), nn.Tanh(), nn.Dense(3))
    refuses(
        r"another run: expected network.layers\[0\].features to be 6, got 5.",
        other,
        LOSS,
        ADAM,
        (X, Y),
    )
    refuses(
        r"expected loss.smoothing to be 0.1, got 0.0.",
        NET,
        nn.SoftmaxCrossEntropy(smoothing=0.1),
        ADAM,
        (X, Y),
    )
    refuses(r"expected data.batch_size to be 5, got 4.", batch_size=5)
    refuses(
        r"expected nothing at \['state'\].opt_state\[0\].count, got an array.",
        NET,
        LOSS,
        optax.sgd(0.1),
        (X, Y),
    )
    refuses(r"another run: expected key data \[\d+, \d+\], got", key=jax.random.key(1))
    refuses(r"expected optimizer", NET, LOSS, optax.adamw(1e-2), (X, Y))
    refuses(
        r"expected constants of the optimizer\[\d+\] to be -?0.5, got",
        NET,
        LOSS,
        optax.adam(0.5),
        (X, Y),
    )
    refuses(r"expected checksum of the data to be \d+, got \d+", NET, LOSS, ADAM, (2 * X, Y))
    refuses(r"expected checksum of the data", NET, LOSS, ADAM, (X, Y, np.arange(10.0)))
    refuses(r"expected order.shuffle to be False, got True", shuffle=False)
    refuses(r"expected order.drop_last to be True, got False", drop_last=True)
    refuses(r"expected checksum of the start to be \d+, got None", params=NET.init(KEY, X))
    refuses(r"expected records\[1\] to be 'validation_loss', got None", validation=(X, Y))
    scored = tmp_path / "scored"
    fit(checkpoint=scored, validation=(X, Y))
    with pytest.raises(nn.InputError, match=r"expected checksum of the validation data to be \d+"):
        fit(checkpoint=scored, validation=(2 * X, Y))
    assert len(fit(checkpoint=where, epochs=3).history["loss"]) == 3  # and nothing was lost
    assert Checkpoints(where).steps() == (3, 6, 9)


@pytest.mark.parametrize("step", ["best", -1, None])
def test_a_checkpoint_by_another_name_than_its_step(tmp_path, step):
    with pytest.raises(nn.InputError, match="expected step to be an integer of at least 0, got"):
        Checkpoints(tmp_path).save(step, X, {})


def test_a_checkpoint_of_other_hyperparameters_in_the_state(tmp_path):
    def run(rate, **options):
        rule = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
        return fit(NET, LOSS, rule, (X, Y), checkpoint=tmp_path, **options)

    run(0.1)
    with pytest.raises(nn.InputError, match=r"learning_rate.* to be 0.5\d*, got 0.1\d*"):
        run(0.5, epochs=3)
    assert len(run(0.1, epochs=3).history["loss"]) == 3


def test_a_finished_run_goes_on_with_another_rate_from_its_state(tmp_path):
    fit(checkpoint=tmp_path)
    found = Checkpoints(tmp_path).read(6)
    state = found.restore("state", nn.init_state(NET, ADAM, X, KEY))
    more = fit(NET, LOSS, optax.adam(0.5), (X, Y), state=state, key=None, epochs=3)
    assert int(more.state.step) == 9


def test_a_run_that_began_with_parameters_resumes_with_the_same(tmp_path):
    params = NET.init(jax.random.key(3), X)
    first = fit(params=params, checkpoint=tmp_path)
    again = fit(params=params, checkpoint=tmp_path)
    assert np.array_equal(first.history["step_loss"], again.history["step_loss"])


def test_a_checkpoint_of_an_earlier_version_that_describes_less_is_resumed(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        described = checkpoint_hook.describe_run
        earlier.setattr(
            fit_module,
            "describe_run",
            lambda *a, **k: {n: v for n, v in described(*a, **k).items() if "checksum" not in n},
        )
        fit(checkpoint=tmp_path)
    assert len(fit(checkpoint=tmp_path, epochs=3).history["loss"]) == 3


def test_files_that_are_no_models(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(nn.InputError, match="load_model: expected a safetensors file, got"):
        nn.load_model(path)
    path.write_text("no model")
    with pytest.raises(nn.InputError, match="load_model: expected a safetensors file, got"):
        nn.load_model(path)
    nn.save_model(path, NET, NET.init(KEY, X), X)
    content = path.read_bytes()
    forged = content.replace(b"jaxnn:DenseParams", b"builtins:evalxxxx")
    assert forged != content
    path.write_bytes(forged)
    with pytest.raises(
        nn.InputError,
        match="load_model: expected a known type of parameters, got 'builtins:evalxxxx'",
    ):
        nn.load_model(path)
    from safetensors.numpy import save_file

    save_file({"w": np.ones(3)}, path, {"network": json.dumps(3)})
    with pytest.raises(nn.InputError, match="expected a file of save_model's"):
        nn.load_model(path)


def test_mnist_from_a_file_that_is_none(tmp_path):
    path = Path(tmp_path / "mnist.npz")
    with pytest.raises(nn.InputError, match=r"mnist: expected an \.npz file with x_train"):
        data.mnist(path)
    np.savez(path, x_train=np.zeros((2, 28, 28)))
    with pytest.raises(nn.InputError, match=r"mnist: expected an \.npz file with x_train"):
        data.mnist(path)


ROWS, ZEROS = np.ones((8, 3), np.float32), np.zeros((8, 1), np.float32)


def train_on(data=(ROWS, ZEROS), **options):
    size = {"batch_size": 4} if isinstance(data, tuple) else {}
    options = {"epochs": 2, "key": jax.random.key(0), **size, **options}
    return nn.fit(nn.Dense(1), nn.MeanSquaredError(), optax.sgd(0.1), data, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": 5}, "expected early_stopping to be an EarlyStopping, got 5"),
        ({"callbacks": print}, "expected callbacks to be a list of functions"),
        ({"callbacks": ["print"]}, "expected callbacks to be a list of functions"),
        ({"validation": iter([(ROWS, ZEROS)])}, "validation data that can be read again"),
        ({"params": nn.DenseParams(np.ones((3, 1), np.float32), np.ones(5, np.float32))},
         r"params.b to be an array of shape \(1,\) for this x, got an array of shape \(5,\)"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("as_users_see_it")
def test_what_acts_on_a_run_is_checked_before_it(options, message):
    with pytest.raises(nn.InputError, match=message):
        train_on(**options)


def test_none_among_the_batches_is_no_end():
    with pytest.raises(nn.TrainingError, match="got NoneType"):
        train_on([(ROWS, ZEROS), None, (ROWS, ZEROS)])
