"""Models as files: the same network and numbers come back, and run without this library."""

import subprocess
import sys
from typing import NamedTuple

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn as nn
from jaxnn.serialization import PLATFORMS


@pytest.mark.parametrize("case", cases.NETWORKS, ids=lambda case: case.id)
def test_save_and_load(case, tmp_path):
    params = case.params()
    nn.save_model(tmp_path / "model.safetensors", case.layer, params)
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
    nn.save_model(tmp_path / "own.safetensors", Scale(), params)
    net, loaded = nn.load_model(tmp_path / "own.safetensors")
    assert net == Scale()
    assert type(loaded) is ScaleParams
    assert loaded.factors["a"].dtype == jnp.bfloat16
    assert loaded.factors["b"].shape == (2, 0)
    assert loaded.rest[0].tolist() == [0, 1, 2]
    assert loaded.rest[1] is None


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
