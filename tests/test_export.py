"""Models as files: the same network and numbers come back, and run without this library."""

import contextlib
import json
import subprocess
import sys
from typing import NamedTuple

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.flax import load_file, save_file

import jaxnn as nn
from jaxnn.serialization import PLATFORMS


@pytest.mark.parametrize("case", cases.NETWORKS, ids=lambda case: case.id)
def test_save_and_load(case, tmp_path):
    params = case.params()
    nn.save_model(tmp_path / "model.safetensors", case.layer, params, case.x)
    net, loaded = nn.load_model(tmp_path / "model.safetensors")
    assert net == case.layer
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


class ScaleParams(NamedTuple):
    factors: dict
    rest: list


@nn.layer
class Scale:
    def init(self, key, x):
        return ScaleParams(
            {"a": jnp.ones((), jnp.bfloat16), "b": jnp.zeros((2, 0))}, [jnp.arange(3), None]
        )

    def forward(self, params, x, key=None):
        return x * params.factors["a"], x

    def backward(self, params, cache, dy):
        raise NotImplementedError


def test_parameters_of_your_own(tmp_path):
    params = Scale().init(jax.random.key(0), jnp.ones(3))
    nn.save_model(tmp_path / "own.safetensors", Scale(), params, jnp.ones(3))
    net, loaded = nn.load_model(tmp_path / "own.safetensors")
    assert net == Scale()
    assert type(loaded) is ScaleParams
    assert loaded.factors["a"].dtype == jnp.bfloat16
    assert loaded.factors["b"].shape == (2, 0)
    assert loaded.rest[0].tolist() == [0, 1, 2]
    assert loaded.rest[1] is None


# ── A file that does not hold a network and its own parameters is refused ─────────────────────────

NET = nn.chain(nn.Dense(3), nn.BatchNorm(), nn.Dense(2))
X = jnp.ones((4, 5))
PARAMS = NET.init(jax.random.key(0), X)


def with_bias(bias):
    return (PARAMS[0]._replace(b=bias), *PARAMS[1:])


def test_an_example_is_saved_too_and_any_input_can_be_one(tmp_path):
    x = nn.Sequences(np.ones((3, 4, 2), np.float32), np.array([4, 1, 2]), None)
    net = nn.GRU(3, return_state=True)
    params = net.init(jax.random.key(0), x)
    nn.save_model(tmp_path / "model", net, params, x)
    assert nn.load_model(tmp_path / "model")[0] == net
    nn.save_model(tmp_path / "model", net, params, jax.eval_shape(lambda: x))
    with jax.enable_x64(False):  # saved with 64 bits, and loaded where JAX makes 32 of them
        assert nn.load_model(tmp_path / "model")[0] == net


BIAS = r"params\[0\].b to be float64\[3\] for this x, got"


@pytest.mark.parametrize(
    ("net", "params", "message"),
    [
        (3, PARAMS, "expected net to be a layer, got 3"),
        (nn.MeanSquaredError(), (), "expected net to be a layer, got the loss MeanSquaredError"),
        (nn.Dense, PARAMS, "expected net to be a layer, got the class Dense"),
        (
            NET,
            with_bias(jnp.ones(1)),
            r"params\[0\].b to be float64\[3\] for this x, got float64\[1\]",
        ),
        (
            NET,
            with_bias(jnp.ones(())),
            r"params\[0\].b to be float64\[3\] for this x, got float64\[\]",
        ),
        (
            NET,
            with_bias(jnp.ones(3, jnp.float32)),
            r"params\[0\].b to be float64\[3\] for this x, got float32\[3\]",
        ),
        (
            NET,
            with_bias(jnp.ones(3, int)),
            r"params\[0\].b to be float64\[3\] for this x, got int64\[3\]",
        ),
        (NET, with_bias(None), r"params\[0\].b to be float64\[3\] for this x, got nothing"),
        (NET, with_bias(jnp.array([0, jnp.nan, 0])), "expected finite numbers in 0.b, got NaN"),
        (NET, with_bias(jax.random.key(0)), r"0.b to be numbers, got an array of dtype key"),
        (NET, (*PARAMS, jnp.ones(2)), r"params\[3\] to be nothing for this x, got float64\[2\]"),
        (NET, list(PARAMS), "parameters of structure"),
        (
            NET,
            {"a": {"b": X}, "a.b": X},
            "expected each array by a name of its own, got two called 'a.b'",
        ),
        (NET, {1: X}, "got a dict with keys that are no strings"),
        (nn.chain(nn.Conv2D(3, 3)), PARAMS, "expected x that the network takes"),
    ],
)
def test_parameters_of_another_network_are_not_saved(
    tmp_path, as_users_see_it, net, params, message
):
    with pytest.raises(nn.InputError, match=f"save_model: .*{message}"):
        nn.save_model(tmp_path / "model", net, params, X)
    assert list(tmp_path.iterdir()) == []


def rewritten(path, change):
    """Write a model, and then the same file with other metadata and arrays."""
    nn.save_model(path, NET, PARAMS, X)
    with safe_open(path, framework="flax") as file:
        metadata = {
            name: json.loads(text) for name, text in file.metadata().items() if name != "float"
        }
    arrays = dict(load_file(path))
    change(metadata, arrays)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in metadata.items()
    }
    save_file(arrays, path, {**texts, "float": "float64"})


FIRST = lambda metadata: metadata["params"]["tuple"][0]
CHANGES = {
    "a scalar bias": (
        lambda m, a: a.update({"0.b": jnp.ones(())}),
        r"params\[0\].b to be float64\[3\] for this x, got",
    ),
    "another dtype": (
        lambda m, a: a.update({"0.b": jnp.ones(3, jnp.float32)}),
        r"float64\[3\] for this x, got float32\[3\]",
    ),
    "a NaN": (
        lambda m, a: a.update({"0.b": jnp.full(3, jnp.nan)}),
        "finite numbers in .*b, got NaN",
    ),
    "one array more": (
        lambda m, a: a.update({"zz": X}),
        "no array but those of the parameters, got 'zz'",
    ),
    "one array less": (
        lambda m, a: a.pop("0.b"),
        "each array of params once in the file, got no '0.b'",
    ),
    "one array twice": (
        lambda m, a: FIRST(m)["fields"].update(b={"array": "0.w"}),
        "once in the file, got no '0.w'",
    ),
    "a network that is 3": (
        lambda m, a: m.update(network=3),
        "expected a layer or a loss, got int",
    ),
    "a loss": (
        lambda m, a: m.update(network={"type": "MeanSquaredError"}),
        "expected a network, got Mean",
    ),
    "a number for a tree": (lambda m, a: m.update(params=3), "structure of parameters, got 3"),
    "a list for a tree": (lambda m, a: m.update(params=[1]), "structure of parameters, got"),
    "no JSON": (lambda m, a: m.update(params="{"), "expected JSON"),
    "a deep tree": (lambda m, a: m.update(params='{"tuple":[' * 9999), "nested too deeply"),
    "a tree too deep": (
        lambda m, a: m.update(params='{"running":' * 900 + "null" + "}" * 900),
        "expected",
    ),
    "a key twice": (
        lambda m, a: m.update(params='{"tuple": [], "tuple": []}'),
        "each key once, got 'tuple' twice",
    ),
    "a tuple that is none": (
        lambda m, a: m.update(params={"tuple": 3}),
        "structure of parameters, got",
    ),
    "a name that is none": (
        lambda m, a: m.update(params={"array": ["a"]}),
        "structure of parameters, got",
    ),
    "a key too much": (lambda m, a: m["params"].update(more=1), "structure of parameters, got"),
    "fields that are wrong": (lambda m, a: FIRST(m).update(fields={"q": None}), "got TypeError"),
    "a private type": (
        lambda m, a: FIRST(m).update(type="jaxnn.layers.recurrent:_Form"),
        "a known type of param",
    ),
    "a type that is none": (
        lambda m, a: FIRST(m).update(type="os:system"),
        "a known type of parameters",
    ),
    "an x that is none": (
        lambda m, a: m.update(x={"shape": ["a"], "dtype": "float32"}),
        "expected",
    ),
    "an x below zero": (
        lambda m, a: m.update(x={"shape": [-4, 5], "dtype": "float32"}),
        "expected",
    ),
    "an x without a dtype": (
        lambda m, a: m.update(x={"shape": [4, 5], "dtype": "florin"}),
        "structure of x, got Type",
    ),
    "an enormous x": (
        lambda m, a: m.update(x={"shape": [10**12, 10**12], "dtype": "float32"}),
        "expected",
    ),
    "enormous layers": (
        lambda m, a: m.update(network={"type": "Dense", "features": 10**12}),
        "expected",
    ),
    "layers beyond measure": (
        lambda m, a: m.update(network={"type": "Dense", "features": 10**30}),
        "expected",
    ),
    "layers without end": (
        lambda m, a: m.update(
            network={"type": "Repeat", "block": {"type": "Dense", "features": 5}, "times": 10**12}
        ),
        "expected",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_of_another_network_is_refused(tmp_path, as_users_see_it, change):
    change, message = CHANGES[change]
    rewritten(tmp_path / "model", change)
    with pytest.raises(nn.InputError, match=f"(load_model|from_json): .*{message}"):
        nn.load_model(tmp_path / "model")


def test_a_file_that_is_cut_or_changed_anywhere_never_raises_anything_else(tmp_path):
    nn.save_model(tmp_path / "model", NET, PARAMS, X)
    content = (tmp_path / "model").read_bytes()
    moments = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        at = int(moments.integers(len(content) - 400 * int(moments.integers(2))))
        changed[at] ^= 1 << int(moments.integers(8))
        (tmp_path / "model").write_bytes(
            bytes(changed[: at + 1]) if moments.integers(4) == 0 else bytes(changed)
        )
        with contextlib.suppress(nn.InputError):
            nn.load_model(tmp_path / "model")


# ── StableHLO ─────────────────────────────────────────────────────────────────────────────────────

RUN = """
import sys, numpy as np, jax
from jax import export
jax.config.update("jax_enable_x64", True)
function = export.deserialize(open(sys.argv[1], "rb").read())
np.save(sys.argv[3], function.call(np.load(sys.argv[2])))
assert not any(name.partition(".")[0] == "jaxnn" for name in sys.modules)
"""


def test_an_exported_function_runs_without_this_library(tmp_path):
    net = nn.chain(
        nn.Conv2D(3, 3), nn.BatchNorm(), nn.ReLU(), nn.MaxPool(2), nn.Flatten(), nn.Dense(2)
    )
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 1))
    params = net.init(jax.random.key(0), x[:2])
    (tmp_path / "function").write_bytes(nn.export_function(net, params, x[:2]))
    np.save(tmp_path / "x.npy", x)
    subprocess.run(
        [sys.executable, "-c", RUN, *(tmp_path / n for n in ("function", "x.npy", "y.npy"))],
        check=True,
    )
    expected, _ = net.forward(params, jnp.asarray(x))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-12)


def test_an_exported_function_of_several_arrays():
    series = nn.Sequences(
        np.random.default_rng(0).normal(size=(3, 4, 2)), np.array([4, 1, 2]), None
    )
    net = nn.GRU(3, return_state=True)
    params = net.init(jax.random.key(0), series)
    function = jax.export.deserialize(nn.export_function(net, params, series))
    assert set(function.platforms) == set(PLATFORMS)
    y, state = function.call(series.x, series.lengths)
    expected, _ = net.forward(params, jax.tree.map(jnp.asarray, series))
    for a, b in zip((y, state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
