"""Checkpoints: killed at any moment and resumed, the run ends in the same bits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jaxnn as nn
from jaxnn.training import loop
from jaxnn.training.array_files import join_parts, write_arrays
from jaxnn.training.batching import ahead
from jaxnn.training.checkpoint import Checkpoints
from jaxnn.training.checkpoint_folder import DamagedError, Folder
from jaxnn.training.interrupts import Terminated, noting_signals

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


def test_a_record_that_an_interrupt_prevented_is_made_on_resume(tmp_path, monkeypatch):
    shown = loop._to_show

    def interrupt(loss):  # between the steps of a call and the record that is due after them
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_to_show", interrupt)
    with pytest.raises(nn.TrainingInterrupted):
        fit(checkpoint=tmp_path)
    monkeypatch.setattr(loop, "_to_show", shown)
    assert_same_run(fit(), fit(checkpoint=tmp_path))


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
        (Path(directory) / str(step) / "arrays").unlink()


@pytest.mark.parametrize("how", ["truncated", "a bit flipped", "arrays gone"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_used(tmp_path, how):
    interrupted(tmp_path)
    damage(tmp_path, 10, how)
    with pytest.warns(UserWarning, match="checkpoint 10 is damaged .*; checkpoint 5 is used"):
        resumed = fit(checkpoint=str(tmp_path))
    assert_same_run(fit(), resumed)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    finish = Folder.finish

    def full(self, step, document):
        if step == 10:
            raise OSError(28, "No space left on device")
        finish(self, step, document)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "finish", full)
        with pytest.raises(nn.TrainingError, match="No space left on device") as caught:
            fit(checkpoint=tmp_path)
    assert int(caught.value.result.state.step) == 10
    assert_same_run(fit(), fit(checkpoint=str(tmp_path)))


# ── What is not ours is left alone, and what can't be read is not lost ────────────────────────────


def saved(directory, *steps, **options):
    checkpoints = Checkpoints(directory, **options)
    for step in steps:
        checkpoints.save(step, {"a": np.arange(step)}, {"of": "a test"})
    checkpoints.wait()
    return checkpoints


def test_what_was_saved_is_told_by_name(tmp_path):
    tree = {"state": {"w": np.ones((2, 0)), "b": jax.numpy.ones(3, "bfloat16")}, "best": None}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, tree, {}, score=float("nan"))
    found = checkpoints.load()
    assert (found.step, found.has("state"), found.has("best")) == (3, True, False)
    restored = found.restore("state", tree["state"])
    assert (restored["w"].shape, restored["b"].dtype) == ((2, 0), "bfloat16")
    assert checkpoints.best() is None  # NaN is no score


@pytest.mark.parametrize("path", ["", "full"])
def test_a_folder_of_something_else_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full" / "2023").mkdir(parents=True)
    (tmp_path / "full" / "2023" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        nn.InputError,
        match="an empty one" if path == "" else "empty folder, or one with .*'2023' in",
    ):
        Checkpoints(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "2023", "thesis.txt"]


def test_something_else_among_the_checkpoints_is_left_alone(tmp_path):
    checkpoints = saved(tmp_path, 1, 2, keep=1)
    for number in (1, 2023):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "thesis.txt").write_text("years of work")
    (tmp_path / "1984").mkdir()
    with pytest.warns(UserWarning, match="2023 is not a checkpoint .*; checkpoint 2 is used"):
        assert checkpoints.load().step == 2
    checkpoints.save(3, {}, {})
    assert checkpoints.steps() == (1, 3, 1984, 2023)
    with pytest.raises(FileExistsError, match="expected nothing of this name"):
        checkpoints.save(2023, {}, {})
    checkpoints.wait()
    assert (tmp_path / "2023" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "EIO"), MemoryError()]
)
def test_what_cannot_be_read_now_is_neither_damaged_nor_passed_over(tmp_path, monkeypatch, error):
    checkpoints = saved(tmp_path, 1, 2)

    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("jaxnn.training.checkpoint_folder._digest", fails)
        with pytest.raises(type(error)):
            checkpoints.load()
    assert checkpoints.steps() == (1, 2)
    assert checkpoints.load().step == 2
    checkpoints.wait()


def test_an_array_on_several_devices_is_written_a_shard_at_a_time(tmp_path):
    """On four devices: two by two blocks, and two copies each of two halves."""
    process = python(SHARDED, tmp_path)
    output, errors = process.communicate(timeout=100)
    assert output == "[4, 2, 1]\n", errors
    arrays = Checkpoints(tmp_path).load().group("s")
    Checkpoints(tmp_path).wait()
    assert np.array_equal(arrays["blocks"], np.arange(24.0).reshape(6, 4))
    assert np.array_equal(arrays["halves"], np.arange(4.0))
    assert np.array_equal(arrays["number"], 3.0)


SHARDED = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxnn.training.array_files import pieces_of
from jaxnn.training.checkpoint import Checkpoints
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
tree = {"blocks": put(np.arange(24.0).reshape(6, 4), "a", "b"), "halves": put(np.arange(4.0), "a")}
tree["number"] = put(3.0)
print([len(pieces_of(tree[name], copy=False).blocks) for name in ("blocks", "halves", "number")])
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {"s": tree}, {})
checkpoints.wait()
"""


def test_where_all_are_damaged_training_starts_anew_only_when_told_to(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / str(step) / "entry.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(
            nn.InputError, match=r"expected a checkpoint that can be read in .*2.damaged"
        ):
            checkpoints.load()
    checkpoints.wait()
    anew = Checkpoints(tmp_path, start_anew=True)
    assert anew.load() is None
    anew.save(1, {}, {})
    anew.wait()
    assert sorted(os.listdir(tmp_path)) == ["1", "1.damaged", "2.damaged", "jaxnn-checkpoints"]


def test_a_renamed_checkpoint_is_not_believed(tmp_path):
    checkpoints = saved(tmp_path, 8, 12)
    (tmp_path / "12").rename(tmp_path / "16")
    with pytest.warns(
        UserWarning, match="checkpoint 16 is damaged .it holds step 12: its folder was renamed"
    ):
        assert checkpoints.load().step == 8
    checkpoints.wait()
    assert sorted(os.listdir(tmp_path)) == ["16.damaged", "8", "jaxnn-checkpoints"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 10**5, '{"sha256": 1}', "\xff", '{"a": 1, "sha256": "0"}']
)
def test_a_description_of_any_kind_is_told_to_be_damaged(tmp_path, text):
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "1" / "entry.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedError):
        checkpoints.read(1)


# ── One run a folder, and no hanging ──────────────────────────────────────────────────────────────


def python(code, *arguments):
    """Start a process without waiting for it."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


HOLD = """
import sys, time
from jaxnn.training.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
checkpoints.load()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path):
    saved(tmp_path, 1)
    first = python(HOLD, tmp_path)
    assert first.stdout.readline() == "held\n"
    second = Checkpoints(tmp_path)
    assert second.steps() == (1,)  # looking is allowed
    for use in (second.load, lambda: second.save(2, {}, {})):
        with pytest.raises(
            nn.InputError, match=r"one run at a time, got .*, where another process trains now"
        ):
            use()
    first.kill()
    first.communicate()
    assert second.load().step == 1
    second.wait()


def test_a_folder_that_was_removed_and_made_anew_is_locked_anew(tmp_path):
    saved(tmp_path / "run", 1).load()  # and never let go
    shutil.rmtree(tmp_path / "run")
    again = saved(tmp_path / "run")
    assert again.load() is None
    first = python(HOLD, tmp_path / "run")
    assert "another process trains now" in first.communicate(timeout=60)[1]
    again.wait()


def test_checkpoints_in_a_folder_that_cannot_be_written_to_can_be_read(tmp_path, monkeypatch):
    saved(tmp_path, 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.read(1).step == 1
    with pytest.raises(
        nn.InputError, match=r"expected a folder that can be written to, got .*Permission denied"
    ):
        checkpoints.load()


def test_a_second_thread_is_refused_until_the_first_has_ended(tmp_path):
    first = saved(tmp_path, 1)
    first.load()
    refused = []

    def other():
        try:
            Checkpoints(tmp_path).load()
        except nn.InputError as error:
            refused.append(str(error))

    for _ in range(2):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        first.wait()  # lets the folder go
    assert len(refused) == 1
    assert "thread 'MainThread' trains now" in refused[0]


LOSE = """
import shutil, sys
import numpy as np
from jaxnn.training.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(1, {"a": np.zeros(9)}, {})
shutil.rmtree(sys.argv[1])
open(sys.argv[1], "w").close()
try:
    checkpoints.save(2, {"a": np.zeros(9)}, {})
finally:
    print("out", flush=True)
"""
LARGE = """
import sys
import numpy as np
from jaxnn.training.checkpoint import Checkpoints
Checkpoints(sys.argv[1]).save(1, {"a": np.zeros(15_000_000)}, {})
print("out", flush=True)
"""


@pytest.mark.parametrize(
    ("code", "status", "last"), [(LOSE, 1, "NotADirectoryError"), (LARGE, 0, "")]
)
def test_a_process_ends_at_once_after_a_save_that_failed_or_was_not_waited_for(
    tmp_path, code, status, last
):
    process = python(code, tmp_path / "run")
    assert process.stdout.readline() == "out\n"
    began = time.perf_counter()
    _, errors = process.communicate(timeout=60)
    assert time.perf_counter() - began < 10
    assert process.returncode == status
    assert (errors.splitlines() or [""])[-1].partition(":")[0] == last
    assert len(errors.splitlines()) < 40


def test_a_stream_that_waits_forever_stops_nobody():
    never = threading.Event()

    def stream():
        yield 1
        never.wait()

    items = ahead(stream())
    assert next(items) == 1
    began = time.perf_counter()
    items.close()
    assert time.perf_counter() - began < 5
    never.set()


def test_a_large_state_is_written_while_training_goes_on_and_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnn.training.checkpoint.AT_ONCE", 0)
    go_on, name = threading.Event(), "jaxnn.training.checkpoint.write_arrays"
    monkeypatch.setattr(name, lambda *arguments: go_on.wait(60) and write_arrays(*arguments))
    checkpoints, numbers = Checkpoints(tmp_path), np.arange(9.0)
    checkpoints.save(1, {"a": numbers}, {})
    numbers[:] = 0  # as the next step may
    assert checkpoints.steps() == ()
    go_on.set()
    checkpoints.wait()
    assert checkpoints.read(1).arrays["['a']"].tolist() == list(range(9))
    monkeypatch.setattr(name, lambda *_: 1 / 0)
    checkpoints.save(2, {"a": numbers}, {})
    with pytest.raises(ZeroDivisionError):
        checkpoints.wait()
    checkpoints.wait()  # the error is told once


def test_a_process_that_does_not_write_its_part_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxnn.training.array_files.SECONDS", 0.05)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    write_arrays(tmp_path, {})
    with pytest.raises(TimeoutError, match="process 1 of 3 did not write its part within 0 s"):
        join_parts(tmp_path)


def test_a_termination_is_taken_like_an_interrupt_and_only_while_it_is_wanted():
    def terminated():
        with noting_signals(), noting_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(Terminated):
            terminated()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with noting_signals():  # somebody else's handler stays
            os.kill(os.getpid(), signal.SIGTERM)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(in_thread()))

        def in_thread():
            with noting_signals():
                return signal.getsignal(signal.SIGTERM)

        thread.start()
        thread.join()
        assert seen == [signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGTERM, before)


# ── Killed ────────────────────────────────────────────────────────────────────────────────────────

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
    """25 checkpoints follow one another, so that many a kill comes in the middle of a write."""
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


def test_an_interrupt_releases_the_folder_also_where_the_last_save_fails(tmp_path, monkeypatch):
    released = []

    def broken(*_, **__):
        raise OSError("no space")

    def interrupted(event):
        monkeypatch.setattr(Folder, "finish", broken)
        monkeypatch.setattr(Folder, "release", lambda folder: released.append(folder))
        raise KeyboardInterrupt

    x = np.ones((4, 3), np.float32)
    with pytest.raises(nn.TrainingInterrupted) as caught:
        nn.fit(nn.Dense(3), nn.MeanSquaredError(), optax.sgd(0.1), (x, x), epochs=5, batch_size=2,
               key=jax.random.key(0), checkpoint=tmp_path, callbacks=[interrupted])  # fmt: skip
    assert caught.value.result.stopped == "interrupted"
    assert released
