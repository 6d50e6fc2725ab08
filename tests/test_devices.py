"""Arrays on several devices train as they are: four devices of a process of their own."""

import os
import subprocess
import sys

import pytest

HEAD = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
import jaxnn as nn

x = np.random.default_rng(0).normal(size=(32, 8))
y = (x[:, 0] > 0).astype(int)
net, loss, rule = nn.mlp(16, 2), nn.SoftmaxCrossEntropy(), optax.adam(1e-2)


def train(x, y, **options):
    return nn.fit(net, loss, rule, (x, y), epochs=3, batch_size=8, key=jax.random.key(0), **options)


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13), a, b)


meshes = [jax.make_mesh((4,), ("data",)), Mesh(np.array(jax.devices()), ("data",))]
assert AxisType.Explicit in meshes[0].axis_types
alone = train(x, y)
for mesh in meshes:
    put = lambda a, *axes: jax.device_put(a, NamedSharding(mesh, P(*axes)))
"""
ROWS = """
    many = train(put(x, "data"), put(y, "data"), validation=(put(x, "data"), put(y, "data")))
    close(many.params, alone.params)
    close(many.history["step_loss"], alone.history["step_loss"])
    close(many.predict(put(x, "data")), alone.predict(x))
"""
PARAMETERS = """
    params = net.init(jax.random.key(1), x)
    wide = lambda a: put(a, *[None] * (a.ndim - 1), "data" if a.shape[-1] == 16 else None)
    many = train(put(x), put(y), params=jax.tree.map(wide, params))
    close(many.params, train(x, y, params=params).params)
    assert many.params[0].w.sharding.spec == P(None, "data")
    assert many.state.opt_state[0].mu[0].w.sharding.spec == P(None, "data")
"""
MEMBERS = """
    keys = jax.random.split(jax.random.key(0), 4)
    population = lambda x, y: nn.fit_population(net, loss, rule, (x, y), epochs=2, batch_size=8,
                                                keys=keys, strategy="vmap")
    close(population(put(x), put(y)).state.params, population(x, y).state.params)
"""


@pytest.mark.parametrize("body", [ROWS, PARAMETERS, MEMBERS], ids=["rows", "parameters", "members"])
def test_the_same_numbers_on_four_devices(body):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_ENABLE_X64": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    subprocess.run([sys.executable, "-c", HEAD + body], env=environment, check=True)
