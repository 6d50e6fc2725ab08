"""Run scripts/train.py and the suites of scripts/benchmark.py as a user does."""

import json
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn

SCRIPTS = Path(__file__).parent.parent / "scripts"
TRAIN = [sys.executable, str(SCRIPTS / "train.py")]


def train(tmp_path, task, *options, expect=0):
    command = [
        *TRAIN,
        task,
        "--out",
        str(tmp_path),
        "--json",
        str(tmp_path / "results.json"),
        *map(str, options),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == expect, run.stderr
    results = json.loads((tmp_path / "results.json").read_text()) if expect == 0 else None
    return results, run.stdout, run.stderr


def test_digits_with_nothing_else(tmp_path):
    results, shown, errors = train(tmp_path, "digits-mlp", "--epochs", 15)
    assert results["task"] == "digits-mlp"
    assert results["metrics"]["accuracy"] > 0.96
    assert results["seconds"] > 0
    assert len(results["history"]["validation_accuracy"]) == 15
    assert "[0]  Dense(features=256" in shown.replace("    ", "  ")
    assert "is, predicted" in shown
    assert (tmp_path / "digits-mlp.png").stat().st_size > 10_000
    assert errors == ""  # no progress bar outside a terminal


@pytest.mark.slow
def test_the_same_seed_gives_the_same_parameters(tmp_path):
    first, _, _ = train(tmp_path, "iris")
    again, _, _ = train(tmp_path, "iris")
    assert first["metrics"]["accuracy"] > 0.9
    assert first["params_sha256"] == again["params_sha256"]
    assert first["history"] == again["history"]


@pytest.mark.slow
def test_another_seed_and_the_other_route(tmp_path):
    results, _, _ = train(
        tmp_path, "diabetes", "--seed", 1, "--method", "auto", "--batch-size", 64, "--lr", 5e-3
    )
    assert results["metrics"]["r2"] > 0.35


KILLED = """
import os, runpy, signal, sys
from jaxnn.training.checkpoint import Checkpoints
save, steps = Checkpoints.save, []

def save_and_die(self, step, *rest):
    save(self, step, *rest)
    steps.append(step)
    if len(steps) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_die
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_killed_and_started_again_with_the_same_command(tmp_path):
    """The run is killed when its third of twelve checkpoints has begun, complete or not."""
    options = ("--epochs", 12, "--export", tmp_path / "model.safetensors")
    whole, _, _ = train(tmp_path, "moons", *options)
    folder = tmp_path / "checkpoints"
    task = ["moons", *map(str, options), "--checkpoint", str(folder), "--out", str(tmp_path)]
    command = [sys.executable, "-c", KILLED, *TRAIN[1:], *task]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed, _, _ = train(tmp_path, "moons", *options, "--checkpoint", folder)
    assert resumed["params_sha256"] == whole["params_sha256"]
    assert resumed["history"] == whole["history"]
    net, params = nn.load_model(tmp_path / "model.safetensors")
    assert nn.predict(net, params, jnp.ones((3, 2), jnp.float32)).shape == (3, 1)


@pytest.mark.slow
def test_a_language_model_learns_to_write(tmp_path):
    results, shown, _ = train(tmp_path, "text-gru", "--epochs", 1)
    assert results["metrics"]["bits_per_character"] < 2.6
    written = shown.split("bits/character")[1].partition("\n\n")[2].partition("\nfigure")[0]
    assert written.startswith("The ")
    assert len(written.strip()) > 200


@pytest.mark.slow
def test_mnist_from_a_file_and_without_a_network(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 28, 28)).astype(np.uint8), np.arange(200) % 10
    file = tmp_path / "mnist.npz"
    np.savez(file, x_train=images, y_train=labels, x_test=images[:50], y_test=labels[:50])
    results, _, _ = train(tmp_path, "mnist", "--data", file, "--epochs", 2)
    assert len(results["history"]["loss"]) == 2
    _, _, errors = train(tmp_path, "mnist", "--data", tmp_path / "nothing.npz", expect=1)
    assert errors.startswith("error: mnist: expected an .npz file with x_train")


def test_help_names_every_task():
    shown = subprocess.run([*TRAIN, "--help"], capture_output=True, text=True, check=True).stdout
    for task in (
        "iris",
        "moons",
        "digits-mlp",
        "digits-cnn",
        "diabetes",
        "text-gru",
        "text-transformer",
        "mnist",
    ):
        assert f"  {task} " in shown


@pytest.fixture
def suites(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_the_benchmark_trains_the_same_network_in_each_way(suites):
    from suites import measure, peers

    rng = np.random.default_rng(0)
    x, y = rng.random((70, 6), dtype=np.float32), rng.integers(0, 3, 70)
    contestants = {
        make.__name__: make((6, 5, 3), x, y, 32)
        for make in (peers.ours, peers.raw_jax, peers.sklearn)
    }
    with jax.numpy_rank_promotion("allow"):
        seconds = measure.in_turn(
            {name: lambda run=run: run(2) for name, run in contestants.items()}, rounds=3
        )
    assert [len(values) for values in seconds.values()] == [3, 3, 3]
    ratios = measure.against({"ours": [1.0, 2.0, 4.0], "other": [3.0, 4.0, 8.0]})
    assert ratios == {"ratio_to_other": 2.0}


def test_an_equal_network_compiles_nothing(suites):
    from suites import compile as suite

    assert suite.compilations(lambda: suite.again(1e-3, 2, 0)) > 0
    assert suite.compilations(lambda: suite.again(3e-3, 5, 1)) == 0


@pytest.mark.slow
def test_the_accelerator_suite_gives_figures_as_it_goes(suites, capsys):
    from suites import accelerator

    figures = None
    for number, figures in enumerate(accelerator.run(only="GELU")):
        assert figures["matrix_rate_float32"] > 0, number
    assert figures["GELU"]["bytes"] == 5 * 4 * 2048 * 1024
    assert figures["GELU"]["share_of_bandwidth"] > 0
    assert "share of bandwidth" in capsys.readouterr().out


def test_the_operations_of_a_step_are_counted(suites):
    from suites import accelerator

    # 6 operations a weight and token, and 12 L C T a token for the matrices of attention
    sizes, rows = accelerator.DecoderSizes(8, 2, layers=3, vocabulary=10, positions=5), 2
    weights = 12 * 3 * 8**2 + 10 * 8
    per_token = 6 * weights + 12 * 3 * 8 * 5
    found = accelerator.decoder_flops(sizes, rows)
    np.testing.assert_allclose(found, rows * 5 * per_token)
    net = accelerator.resnet50(64)
    shape = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    count = nn.summary(net, shape).total.parameters
    assert count == 25_557_032  # that of torchvision's resnet50


def test_each_layer_is_compared_with_float64_in_each_precision(tmp_path, monkeypatch):
    file = tmp_path / "parity.json"
    arguments = ["--only", "LogSoftmax()", "--precisions", "float32", "bfloat16", "--json", file]
    monkeypatch.setattr(sys, "argv", ["parity.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / "parity.py"), run_name="__main__")
    figures = json.loads(file.read_text())
    for precision, eps in (("float32", 2.0**-23), ("bfloat16", 2.0**-7)):
        assert 0 < figures[precision]["hand"] < 4 * eps
        assert figures[precision]["hand_ulps"] < 4
    assert figures["population"] < 1e-6
