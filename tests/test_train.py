"""fit: the compiled loop against a plain one, and everything that happens around it."""

import logging
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn.training.batching import epoch_order, shuffle_seeds

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 4))
Y = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
NET = nn.chain(nn.Dense(8), nn.Tanh(), nn.Dense(3))
LOSS = nn.SoftmaxCrossEntropy()
ADAM = optax.adam(1e-2)


def fit(net=NET, loss=LOSS, optimizer=ADAM, data=(X, Y), **options):
    options = {"batch_size": 8, "key": KEY, **options}
    if "steps" not in options:
        options.setdefault("epochs", 3)
    return nn.fit(net, loss, optimizer, data, **options)


def by_hand(net, loss, optimizer, x, y, epochs, batch_size, shuffle=True, **options):
    """The same training as a plain Python loop over the public step."""
    state = nn.init_state(net, optimizer, x, KEY)
    (seed,) = shuffle_seeds(state.key)
    step, losses = jax.jit(nn.train_step(net, loss, optimizer, **options)), []
    for epoch in range(epochs):
        order = epoch_order(seed, epoch, len(x)) if shuffle else np.arange(len(x))
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            state, metrics = step(state, (x[rows], y[rows]))
            losses.append(float(metrics["loss"]))
    return state, np.array(losses)


def same(a, b, tolerance=0.0):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.allclose(p, q, rtol=tolerance, atol=tolerance) for p, q in leaves)


def compilations(work):
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            work()
    finally:
        logger.removeHandler(handler)
    return [text for text in seen if "Compiling" in text]


# ── The loop ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["hand", "auto"])
@pytest.mark.parametrize("rows", [37, 32], ids=["with a last small batch", "full batches alone"])
def test_fit_is_the_plain_loop(rows, method):
    result = fit(data=(X[:rows], Y[:rows]), method=method)
    state, losses = by_hand(NET, LOSS, ADAM, X[:rows], Y[:rows], 3, 8, method=method)
    np.testing.assert_allclose(result.history["step_loss"], losses, rtol=1e-12)
    assert same(result.params, state.params, 1e-12)
    assert int(result.state.step) == len(losses) == 3 * -(-rows // 8)
    assert result.stopped == "completed"


@pytest.mark.parametrize("donated", [False, True])
def test_the_derivatives_of_convolutions_by_jax_are_computed_one_step_a_call(tmp_path, donated):
    net = nn.chain(nn.Conv1D(2, 3), nn.ReLU(), nn.Flatten(), nn.Dense(3))
    images = X[..., None]
    options = {"net": net, "method": "auto", "keep_last_good": not donated, "epochs": 2}
    in_memory = options | {"data": (images, Y)}
    trained = fit(**in_memory).state.params
    assert same(trained, fit(**in_memory | {"method": "hand"}).state.params, 1e-12)
    fit(checkpoint=tmp_path, **in_memory | {"epochs": 1})
    assert same(trained, fit(checkpoint=tmp_path, **in_memory).state.params)
    batches = [(images[i : i + 10], Y[i : i + 10]) for i in range(0, 30, 10)]
    stream = options | {"data": batches, "batch_size": None}
    streamed = fit(**stream).history["step_loss"]
    assert same(streamed, fit(**stream | {"method": "hand"}).history["step_loss"], 1e-12)
    with pytest.raises(nn.TrainingError, match=r"not finite|the loss was"):
        fit(optimizer=optax.sgd(1e200), **in_memory)


def test_history_is_the_mean_over_the_rows_of_each_epoch():
    result = fit(epochs=2)
    weights = [8, 8, 8, 8, 5]
    expected = [
        np.average(part, weights=weights) for part in result.history["step_loss"].reshape(2, 5)
    ]
    np.testing.assert_allclose(result.history["loss"], expected, rtol=1e-14)
    assert result.history["step"].tolist() == [5, 10]


def test_the_same_call_gives_the_same_bits_and_another_key_others():
    first, second, other = fit(), fit(), fit(key=jax.random.key(1))
    assert same(first.params, second.params)
    assert np.array_equal(first.history["step_loss"], second.history["step_loss"])
    assert not same(first.params, other.params)


def test_going_on_from_a_state_is_the_run_that_went_through():
    whole = fit(epochs=4)
    half = fit(steps=7)  # in the middle of the second epoch
    rest = fit(state=half.state, key=None, epochs=4)
    assert same(whole.state.params, rest.state.params)
    assert same(whole.state.opt_state, rest.state.opt_state)
    both = np.concatenate([half.history["step_loss"], rest.history["step_loss"]])
    assert np.array_equal(whole.history["step_loss"], both)


def test_another_rate_seed_and_more_epochs_compile_nothing():
    def run(rate, epochs, seed, schedule):
        step_size = optax.cosine_decay_schedule(rate, 100) if schedule else rate
        net = nn.chain(nn.Dense(9), nn.Tanh(), nn.Dense(3))  # built anew each time
        fit(
            net,
            optimizer=optax.adamw(step_size, weight_decay=rate),
            epochs=epochs,
            key=jax.random.key(seed),
        )

    for schedule in (False, True):
        run(1e-2, 1, 0, schedule)
        assert compilations(lambda schedule=schedule: run(1e-3, 5, 3, schedule)) == []


def test_many_epochs_in_one_call_are_the_same_as_one_by_one():
    quiet = fit(epochs=50)
    watched = fit(epochs=50, callbacks=(lambda event: None,))
    assert same(quiet.params, watched.params)
    assert np.array_equal(quiet.history["loss"], watched.history["loss"])


def test_drop_last_and_the_given_order():
    result = fit(drop_last=True, shuffle=False, epochs=2)
    _, losses = by_hand(NET, LOSS, ADAM, X[:32], Y[:32], 2, 8, shuffle=False)
    np.testing.assert_allclose(result.history["step_loss"], losses, rtol=1e-12)


def test_it_learns():
    x = RNG.normal(size=(500, 2))
    y = (x[:, :1] * x[:, 1:] > 0).astype(int)
    net = nn.mlp(32, 1)
    found = fit(
        net, nn.SigmoidBinaryCrossEntropy(), data=(x[:400], y[:400]), epochs=60, batch_size=32
    )
    assert found.evaluate((x[400:], y[400:]), metrics=("accuracy",))["accuracy"] > 0.93


# ── Data ────────────────────────────────────────────────────────────────────────────────────────


class Batches:
    """An iterable that can be gone through again and again."""

    def __init__(self, size=8):
        self.size = size

    def __iter__(self):
        return ((X[i : i + self.size], Y[i : i + self.size]) for i in range(0, len(X), self.size))


def test_a_stream_is_trained_on_like_the_same_rows():
    rows = fit(shuffle=False, epochs=4)
    stream = fit(data=Batches(), batch_size=None, epochs=4)
    assert same(rows.params, stream.params)
    for name in rows.history:
        assert np.array_equal(rows.history[name], stream.history[name])


def test_records_may_come_at_any_distance():
    stream = fit(data=Batches(), batch_size=None, epochs=2, every=3)
    assert stream.history["step"].tolist() == [3, 6, 9, 10]
    assert np.average(stream.history["loss"], weights=[24, 21, 24, 5]) == pytest.approx(
        np.average(stream.history["step_loss"], weights=[8, 8, 8, 8, 5] * 2)
    )
    assert fit(epochs=2, every=4).history["step"].tolist() == [4, 8, 10]


def test_a_stream_of_single_pass_in_steps(tmp_path):
    np.save(tmp_path / "x.npy", X)
    memory_mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    batches = ((memory_mapped[i : i + 4], Y[i : i + 4]) for i in range(0, 36, 4))
    result = fit(data=batches, batch_size=None, steps=9, every=4)
    assert result.history["step"].tolist() == [4, 8, 9]
    assert same(
        result.params, fit(data=(X[:36], Y[:36]), batch_size=4, epochs=1, shuffle=False).params
    )


def test_a_stream_that_ends_too_early_loses_nothing():
    with pytest.raises(
        nn.TrainingError, match="for 3 epochs, got an iterator that was exhausted after 5"
    ) as caught:
        fit(data=iter(Batches()), batch_size=None, epochs=3)
    assert caught.value.result.history["step"].tolist() == [5]
    assert same(caught.value.result.params, fit(epochs=1, shuffle=False).params)


def test_an_error_of_the_stream_comes_through():
    def broken():
        yield X[:8], Y[:8]
        raise OSError("the disk is gone")

    with pytest.raises(nn.TrainingError, match="the disk is gone"):
        fit(data=broken(), batch_size=None, steps=2)


def test_dicts_and_structures_of_arrays():
    assert same(fit(data={"x": X, "target": Y}).params, fit().params)
    series = nn.Sequences(RNG.normal(size=(20, 5, 3)), np.arange(20) % 5 + 1, None)
    net = nn.chain(nn.GRU(4, output="last"), nn.Dense(2))
    result = fit(net, data=(series, np.arange(20) % 2), epochs=2)
    assert np.isfinite(result.history["loss"]).all()
    assert result.predict(series).shape == (20, 2)


def test_a_row_that_weighs_nothing_changes_nothing():
    spoilt = X.copy()
    spoilt[-5:] = 100.0
    weights = np.r_[np.ones(32), np.zeros(5)]
    a, b = (fit(data=(x, Y, weights), batch_size=37) for x in (X, spoilt))
    assert same(a.params, b.params)
    assert same(a.params, fit(data=(X[:32], Y[:32]), batch_size=32, shuffle=False).params, 1e-9)


# ── What is trained ─────────────────────────────────────────────────────────────────────────────


def test_running_statistics_move_and_no_optimizer_touches_them():
    net = nn.chain(nn.Dense(4), nn.BatchNorm(), nn.Dense(3))
    decayed = fit(net, optimizer=optax.adamw(1e-2, weight_decay=0.5), shuffle=False, drop_last=True)
    moments = decayed.params[1].moments.value
    assert moments.mean.shape == (4,)
    assert not np.allclose(moments.mean, 0)
    state, _ = by_hand(
        net, LOSS, optax.adamw(1e-2, weight_decay=0.5), X[:32], Y[:32], 3, 8, shuffle=False
    )
    assert same(moments, state.params[1].moments.value, 1e-12)
    assert (
        len(jax.tree.leaves(decayed.state.opt_state)) == 1 + 2 * 6
    )  # the count, and two moments a trained array
    both = [fit(net, method=method).params for method in ("hand", "auto")]
    assert same(*both, 1e-9)


def test_dropout_draws_anew_each_step_and_the_same_again():
    net = nn.chain(nn.Dense(8), nn.Dropout(0.5), nn.Dense(3))
    frozen = optax.sgd(0.0)
    first, second = (
        fit(net, optimizer=frozen, data=(X[:8], Y[:8]), shuffle=False, epochs=6) for _ in range(2)
    )
    assert len(set(first.history["step_loss"])) == 6
    assert np.array_equal(first.history["step_loss"], second.history["step_loss"])


def test_bfloat16_keeps_the_parameters_full():
    x = X.astype(np.float32)
    full = fit(data=(x, Y), params=single(NET.init(KEY, x)))
    half = fit(data=(x, Y), params=single(NET.init(KEY, x)), precision="bfloat16")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.params)} == {"float32"}
    assert not same(full.params, half.params)
    np.testing.assert_allclose(full.history["loss"], half.history["loss"], rtol=2e-2)
    norm = nn.chain(nn.Dense(4), nn.BatchNorm(), nn.Dense(3))
    params = fit(norm, data=(x, Y), params=single(norm.init(KEY, x)), precision="bfloat16").params
    assert params[1].moments.value.mean.dtype == jnp.float32


def single(params):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)


OPTIMIZERS = {
    "schedule and clipping": optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.sgd(optax.exponential_decay(0.1, 5, 0.9), momentum=0.9),
    ),
    "accumulation": optax.MultiSteps(optax.adam(1e-2), 3),
    "average of the updates": optax.chain(optax.adam(1e-2), optax.ema(0.9)),
    "masked decay": optax.adamw(
        1e-2, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    ),
    "reduce on plateau": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1)),
    "injected": optax.inject_hyperparams(optax.adam)(
        learning_rate=optax.linear_schedule(1e-2, 0, 10)
    ),
    "apply if finite": optax.apply_if_finite(optax.adam(1e-2), 3),
    "noisy": optax.noisy_sgd(1e-2, key=0),
    "adafactor": optax.adafactor(1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_of_optax(name):
    result = fit(optimizer=OPTIMIZERS[name], epochs=2)
    state, losses = by_hand(NET, LOSS, OPTIMIZERS[name], X, Y, 2, 8)
    np.testing.assert_allclose(result.history["step_loss"], losses, rtol=1e-6)
    assert same(result.params, state.params, 1e-6)


# ── Around the steps ────────────────────────────────────────────────────────────────────────────


def test_validation_and_metrics():
    result = fit(validation=(X[:10], Y[:10]), metrics=("accuracy",))
    expected = nn.evaluate(NET, LOSS, result.params, (X[:10], Y[:10]), metrics=("accuracy",))
    assert result.history["validation_loss"][-1] == pytest.approx(expected["loss"], rel=1e-12)
    assert result.history["validation_accuracy"][-1] == expected["accuracy"]
    assert result.evaluate((X[:10], Y[:10]))["loss"] == expected["loss"]


def test_early_stopping_waits_and_restores_the_best():
    rule = nn.EarlyStopping(patience=3, monitor="validation_loss")
    noise = RNG.integers(0, 3, 20)
    result = fit(
        epochs=300, optimizer=optax.adam(0.1), validation=(X[:20], noise), early_stopping=rule
    )
    losses = result.history["validation_loss"]
    assert result.stopped == "early stopping"
    assert len(losses) == losses.argmin() + 1 + 3 < 300
    assert result.evaluate((X[:20], noise))["loss"] == pytest.approx(losses.min(), rel=1e-12)
    assert not same(result.params, result.state.params)
    last = fit(
        epochs=300,
        optimizer=optax.adam(0.1),
        validation=(X[:20], noise),
        early_stopping=nn.EarlyStopping(3, restore_best=False),
    )
    assert same(last.params, last.state.params)


def test_callbacks_see_each_record_and_may_stop():
    seen = []

    def watch(event):
        seen.append((event.step, event.record["loss"], len(event.history), int(event.state.step)))
        return event.step >= 10

    result = fit(epochs=9, callbacks=(watch,))
    assert [row[0] for row in seen] == [5, 10] == result.history["step"].tolist()
    assert [row[1] for row in seen] == result.history["loss"].tolist()
    assert [row[2:] for row in seen] == [(1, 5), (2, 10)]
    assert result.stopped == "callback"


def test_a_callback_that_fails_loses_nothing():
    def broken(event):
        raise ZeroDivisionError("by the user")

    with pytest.raises(nn.TrainingError, match="by the user") as caught:
        fit(callbacks=(broken,))
    assert same(caught.value.result.params, fit(epochs=1).params)


def test_an_interrupt_loses_nothing():
    def interrupt(event):
        if event.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(nn.TrainingInterrupted) as caught:
        fit(epochs=9, callbacks=(interrupt,))
    assert same(caught.value.result.params, fit(epochs=2).params)
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("method", ["hand", "auto"])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_state(method):
    rate = optax.piecewise_constant_schedule(0.1, {6: 1e200})  # the seventh update is enormous
    options = {
        "optimizer": optax.sgd(rate),
        "loss": nn.MeanSquaredError(),
        "data": (X, X[:, :3]),
        "method": method,
    }
    with pytest.raises(
        nn.TrainingError, match=r"at step [89]; the last good state is that after step [67]\."
    ) as caught:
        fit(epochs=50, **options)
    result = caught.value.result
    good = int(result.state.step)
    assert np.isfinite(result.history["step_loss"]).all()
    assert len(result.history["step_loss"]) == good
    assert same(result.params, fit(steps=good, **options).params)
    with pytest.raises(nn.TrainingError, match="at step"):
        fit(epochs=50, keep_last_good=False, **options)


def test_donated_states_give_the_same_bits():
    assert same(fit(keep_last_good=False).params, fit().params)
    stream = fit(data=Batches(), batch_size=None, keep_last_good=False)
    assert same(stream.params, fit(shuffle=False).params)
    half = fit(epochs=1)
    rest = fit(state=half.state, key=None, keep_last_good=False)
    assert same(rest.params, fit().params)
    assert same(half.state.params, fit(epochs=1).params)  # still there: it was not donated


def test_the_bar_is_silent_unless_somebody_watches(capsys):
    fit()
    assert capsys.readouterr().err == ""
    fit(progress=True)
    shown = capsys.readouterr().err
    assert "15/15" in shown
    assert "loss=" in shown


def test_a_step_goes_through_scan_and_vmap():
    step = nn.train_step(NET, LOSS, ADAM)
    state = nn.init_state(NET, ADAM, X, KEY)
    batches = (jnp.asarray(X[:32]).reshape(4, 8, 4), jnp.asarray(Y[:32]).reshape(4, 8))
    scanned, metrics = jax.jit(lambda state: jax.lax.scan(step, state, batches))(state)
    assert metrics["loss"].shape == (4,)
    assert same(scanned.params, fit(data=(X[:32], Y[:32]), epochs=1, shuffle=False).params, 1e-12)
    many = jax.vmap(lambda key: nn.init_state(NET, ADAM, X, key))(jax.random.split(KEY, 3))
    stepped, _ = jax.vmap(step, in_axes=(0, None))(many, (X[:8], Y[:8]))
    assert stepped.step.tolist() == [1, 1, 1]


def test_nine_functions_from_fit_to_a_layer():
    ways = []

    @nn.layer
    class Watched(nn.Dense):
        def backward(self, params, cache, dy):
            frames = traceback.extract_stack()
            library = Path(nn.__file__).parent
            ways.append([f.name for f in frames if library in Path(f.filename).parents])
            return super().backward(params, cache, dy)

    fit(nn.chain(Watched(3)), data=(X[:32], Y[:32]))  # all batches are full
    checked_by_the_contract = "run"
    way = [name for name in ways[-1] if name != checked_by_the_contract]
    assert way[0] == "fit"
    assert way[-1] == "backward"
    assert len(way) == 9
