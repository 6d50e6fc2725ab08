"""Checkpoints: killed at any moment and resumed, the run ends in the same bits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn.training.checkpoint import Checkpoints

RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
NET, LOSS, ADAM = (
    nn.chain(nn.Dense(6), nn.BatchNorm(), nn.Tanh(), nn.Dense(2)),
    nn.SoftmaxCrossEntropy(),
    optax.adam(1e-2),
)


def fit(net=NET, optimizer=ADAM, **options):
    options = {
        "epochs": 6,
        "batch_size": 8,
        "key": jax.random.key(0),
        "validation": (X[:9], Y[:9]),
        **options,
    }
    return nn.fit(net, LOSS, optimizer, options.pop("data", (X, Y)), **options)


def stop_at(step):
    def callback(event):
        if event.step >= step:
            raise RuntimeError("stopped here")

    return callback


def interrupted(directory, step=15, **options):
    with pytest.raises(nn.TrainingError, match="stopped here"):
        fit(checkpoint=Checkpoints(directory), callbacks=(stop_at(step),), **options)


def assert_same_run(one, other):
    for a, b in zip(
        jax.tree.leaves((one.state, one.params)),
        jax.tree.leaves((other.state, other.params)),
        strict=True,
    ):
        if not jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert one.history.keys() == other.history.keys()
    for name, values in one.history.items():
        assert values.tobytes() == other.history[name].tobytes(), name
    assert one.stopped == other.stopped


def test_resume_gives_the_same_bits(tmp_path):
    interrupted(tmp_path / "a")
    assert Checkpoints(tmp_path / "a").steps() == (5, 10)
    assert_same_run(fit(), fit(checkpoint=str(tmp_path / "a")))
    done = fit(checkpoint=str(tmp_path / "a"))  # nothing left to do
    assert_same_run(fit(), done)


def test_keys_of_the_older_kind_resume_too(tmp_path):
    key = jax.random.PRNGKey(0)
    interrupted(tmp_path, key=key)
    assert_same_run(fit(key=key), fit(key=key, checkpoint=tmp_path))


def test_more_epochs_go_on_from_the_end(tmp_path):
    fit(epochs=2, checkpoint=str(tmp_path))
    assert_same_run(fit(), fit(checkpoint=str(tmp_path)))


def test_a_stream_resumes_where_it_was(tmp_path):
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 37, 8)]
    interrupted(tmp_path, data=batches, batch_size=None)
    resumed = fit(data=batches, batch_size=None, checkpoint=str(tmp_path))
    assert_same_run(fit(data=batches, batch_size=None), resumed)


def test_early_stopping_and_its_best_parameters_resume(tmp_path):
    options = {"epochs": 200, "optimizer": optax.adam(0.1), "early_stopping": nn.EarlyStopping(4)}
    whole = fit(**options)
    assert whole.stopped == "early stopping"
    interrupted(tmp_path, step=int(whole.state.step) - 5, **options)
    assert_same_run(whole, fit(checkpoint=str(tmp_path), **options))
    assert_same_run(whole, fit(checkpoint=str(tmp_path), **options))


def test_a_run_that_a_callback_stopped_stays_stopped(tmp_path):
    options = {"callbacks": (lambda event: event.step >= 10,), "checkpoint": str(tmp_path)}
    assert_same_run(fit(**options), fit(**options))


def test_the_last_and_the_best_are_kept(tmp_path):
    kept = Checkpoints(tmp_path, keep=2)
    result = fit(optimizer=optax.adam(0.3), epochs=8, checkpoint=kept)
    best = int(result.history["step"][result.history["validation_loss"].argmin()])
    assert kept.steps() == tuple(sorted({best, 35, 40}))
    assert kept.best() == best
    stored = kept.read(best).restore("state", result.state)
    assert (
        nn.evaluate(NET, LOSS, stored.params, (X[:9], Y[:9]))["loss"]
        == result.history["validation_loss"].min()
    )


def damage(directory, step, how):
    files = [
        path
        for path in (Path(directory) / str(step)).rglob("*")
        if path.is_file() and path.stat().st_size > 50
    ]
    largest = max(files, key=lambda path: path.stat().st_size)
    if how == "truncated":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif how == "a bit flipped":
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(bytes(content))
    else:
        shutil.rmtree(Path(directory) / str(step) / "arrays")


@pytest.mark.parametrize("how", ["truncated", "a bit flipped", "arrays gone"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(tmp_path, how):
    interrupted(tmp_path)
    damage(tmp_path, 10, how)
    with pytest.warns(UserWarning, match="checkpoint 10 is damaged .*; the one before it is used"):
        resumed = fit(checkpoint=str(tmp_path))
    assert_same_run(fit(), resumed)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    save = checkpoints._manager.save

    def full(step, **options):
        if step == 10:
            raise OSError(28, "No space left on device")
        return save(step, **options)

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(nn.TrainingError, match="No space left on device") as caught:
        fit(checkpoint=checkpoints)
    assert int(caught.value.result.state.step) == 10
    assert_same_run(fit(), fit(checkpoint=str(tmp_path)))


SCRIPT = """
import sys, hashlib
import jax, numpy as np, optax, jaxnn as nn
rng = np.random.default_rng(0)
x = rng.normal(size=(300, 20)).astype(np.float32)
y = (x[:, 0] * x[:, 1] > 0).astype(int)
net = nn.chain(nn.Dense(64), nn.Tanh(), nn.Dropout(0.1), nn.Dense(2))
print("ready", flush=True)
fit = nn.fit(net, nn.SoftmaxCrossEntropy(), optax.adam(1e-3), (x, y), epochs=25, batch_size=32,
             key=jax.random.key(0), checkpoint=sys.argv[1] if len(sys.argv) > 1 else None)
digest = hashlib.sha256()
for leaf in jax.tree.leaves((fit.params, fit.history)):
    digest.update(np.asarray(leaf).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again(tmp_path):
    """25 checkpoints are written one after another, so that many a kill comes in the middle of a write."""
    run = [sys.executable, "-c", SCRIPT]
    expected = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()[-1]
    moments = random.Random(0)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen([*run, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        before = steps_in(tmp_path)
        if kills < 6:
            while process.poll() is None and steps_in(tmp_path) == before:
                time.sleep(0.002)  # until the next checkpoint begins or ends
            time.sleep(moments.uniform(0, 0.08))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        output = process.communicate()[0].split()
        if process.returncode == 0:
            break
    assert kills >= 3
    assert output[-1] == expected


def steps_in(directory):
    return sorted(os.listdir(directory))
