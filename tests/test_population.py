"""Each member of a population equals its run alone, independently of the other members."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn as nn

M = 5
KEYS = jax.random.split(jax.random.key(1), M)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 4))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
NET, LOSS = nn.chain(nn.Dense(6), nn.Tanh(), nn.Dropout(0.2), nn.Dense(2)), nn.SoftmaxCrossEntropy()
RATES = np.geomspace(1e-3, 1e-1, M)


def injected(rate=1e-2):
    return optax.inject_hyperparams(optax.adam)(learning_rate=rate)


def populate(**options):
    options = {"keys": KEYS, "epochs": 3, "batch_size": 8, **options}
    return nn.fit_population(
        NET, LOSS, options.pop("optimizer", optax.adam(1e-2)), (X, Y), **options
    )


def solo(member, optimizer=None, data=(X, Y), **options):
    options = {"epochs": 3, "batch_size": 8, "key": KEYS[member], **options}
    return nn.fit(NET, LOSS, optimizer or optax.adam(1e-2), data, **options)


def assert_same(one, other, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("strategy", ["vmap", "map", 2])
def test_each_member_is_its_solo_run(strategy):
    together = populate(
        optimizer=injected(),
        hyperparameters={"learning_rate": RATES},
        strategy=strategy,
        validation=(X[:9], Y[:9]),
    )
    assert together.group == {"vmap": M, "map": 1}.get(strategy, strategy)
    assert len(together) == M
    for member in (0, M - 1):
        alone = solo(member, injected(float(RATES[member])), validation=(X[:9], Y[:9]))
        assert_same(together[member].params, alone.params)
        for name, values in alone.history.items():
            np.testing.assert_allclose(together[member].history[name], values, rtol=1e-9)


@pytest.mark.slow
def test_initial_scale_and_folds():
    scale, folds = (
        np.linspace(0.5, 2, M),
        (np.arange(37) % M != np.arange(M)[:, None]).astype(float),
    )
    together = populate(initial_scale=scale, weights=folds)
    for member in (1, 4):
        init_key, _ = jax.random.split(KEYS[member])
        scaled = jax.tree.map(
            lambda p, s=scale[member]: p * s if p.ndim > 1 else p, NET.init(init_key, X)
        )
        assert_same(
            together[member].params, solo(member, data=(X, Y, folds[member]), params=scaled).params
        )


def test_a_member_that_fails_is_marked_and_harms_no_other():
    rates = np.where(np.arange(M) == 2, 1.7e308, 1e-2)
    together = populate(
        optimizer=injected(), hyperparameters={"learning_rate": rates}, validation=(X, Y)
    )
    healthy = populate(
        optimizer=injected(), hyperparameters={"learning_rate": np.full(M, 1e-2)}, validation=(X, Y)
    )
    assert (together.failed > 0).tolist() == [False, False, True, False, False]
    for member in (0, 1, 3, 4):
        assert_same(together[member].params, healthy[member].params, 0.0)
    assert together.best() != 2
    assert np.isfinite(together.predict(X)).all()


@pytest.mark.slow
def test_best_and_the_ensemble():
    together = populate(epochs=20, validation=(X, Y), metrics=("accuracy",))
    last = together.history["validation_accuracy"][-1]
    assert last[together.best("validation_accuracy")] == last.max()
    each = together.predict_members(X, batch_size=10)
    assert each.shape == (M, 37, 2)
    np.testing.assert_allclose(each[3], together[3].predict(X), rtol=1e-9)
    np.testing.assert_allclose(together.predict(X), jax.nn.softmax(each).mean(axis=0), rtol=1e-12)


def test_a_population_resumes_bit_for_bit(tmp_path):
    whole = populate(epochs=4)

    def stop(event):
        if event.step == 10:
            raise KeyboardInterrupt

    options = {"epochs": 4, "checkpoint": nn.Checkpoints(tmp_path), "strategy": whole.group}
    with pytest.raises(nn.TrainingInterrupted):
        populate(callbacks=(stop,), **options)
    resumed = populate(**options)
    assert_same(whole.state.params, resumed.state.params, 0.0)
    for name, values in whole.history.items():
        assert np.array_equal(values, resumed.history[name])


def test_steps_and_going_round_the_rows():
    together = populate(epochs=None, steps=7, drop_last=True, shuffle=False)
    assert together.history["step"].tolist() == [4, 7]
    assert_same(
        together[1].params, solo(1, epochs=None, steps=7, drop_last=True, shuffle=False).params
    )
    assert jnp.isfinite(together.state.params[0].w).all()
