"""Training on four devices, which gives the numbers of one. Run as a script, by test_devices.py.

Each function is one test. They run in a process of their own, because the number of devices is
fixed when JAX starts.
"""

import collections
import re
import sys
import tempfile

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxnn as nn
from jaxnn.training.layout_cost import traced_step

KEY = jax.random.key(0)
x = np.random.default_rng(0).normal(size=(32, 8))
y = (x[:, 0] > 0).astype(int)
net, loss, rule = nn.mlp(16, 2), nn.SoftmaxCrossEntropy(), optax.adam(1e-2)
DATA = Mesh(np.array(jax.devices()), ("data",))
MODEL = jax.make_mesh((4,), ("model",))
BOTH_KINDS = (jax.make_mesh((4,), ("data",)), DATA)  # with explicit and with automatic axes
assert AxisType.Explicit in BOTH_KINDS[0].axis_types


def square(*names):
    return Mesh(np.array(jax.devices()).reshape(2, 2), names)


def train(x=x, y=y, **options):
    given = {"epochs": 3, "batch_size": 8, "key": KEY} | options
    return nn.fit(net, loss, rule, (x, y), **given)


def population(x=x, y=y, members=8, **options):
    keys = jax.random.split(KEY, members)
    given = {"epochs": 2, "batch_size": 8, "keys": keys} | options
    return nn.fit_population(net, loss, rule, (x, y), **given).state.params


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13), a, b)


def put(mesh, array, *axes):
    return jax.device_put(array, NamedSharding(mesh, P(*axes)))


def rows_given():
    alone = train()
    for mesh in BOTH_KINDS:
        given = put(mesh, x, "data"), put(mesh, y, "data")
        many = train(*given, validation=given)
        close(many.params, alone.params)
        close(many.history["step_loss"], alone.history["step_loss"])
        close(many.predict(given[0]), alone.predict(x))


def wide(mesh):
    """Return a function that divides the last axis of an array if it has the length 16."""
    return lambda a: put(mesh, a, *[None] * (a.ndim - 1), "data" if a.shape[-1] == 16 else None)


def parameters_given():
    for mesh in BOTH_KINDS:
        params = net.init(jax.random.key(1), x)
        many = train(put(mesh, x), put(mesh, y), params=jax.tree.map(wide(mesh), params))
        close(many.params, train(params=params).params)
        assert many.params[0].w.sharding.spec == P(None, "data")
        assert many.state.opt_state[0].mu[0].w.sharding.spec == P(None, "data")


def members_given():
    for mesh in BOTH_KINDS:
        many = population(put(mesh, x), put(mesh, y), 4, strategy="vmap")
        close(many, population(members=4, strategy="vmap"))


def modes():
    validation = {"validation": (x, y), "metrics": ["accuracy"]}
    alone, rest = train(**validation), train(x[:30], y[:30]).params
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 32, 8)]
    stream = lambda **on: nn.fit(net, loss, rule, batches, epochs=2, key=KEY, **on).params
    for rules, mesh, where in [
        ((), DATA, P()),
        (nn.FULLY_SHARDED, BOTH_KINDS[0], P(None, "data")),
        (nn.TENSOR_PARALLEL, MODEL, P(None, "model")),
        (nn.TENSOR_PARALLEL + nn.FULLY_SHARDED, square("data", "model"), P(None, "model")),
        ([(r"0..w", P("data"))], DATA, P(None, "data")),
    ]:
        many = train(mesh=mesh, rules=rules, **validation)
        close(many.params, alone.params)
        for name in ("step_loss", "validation_loss", "validation_accuracy"):
            close(many.history[name], alone.history[name])
        for w in (many.params[0].w, many.state.opt_state[0].mu[0].w):
            assert w.sharding.is_equivalent_to(NamedSharding(w.sharding.mesh, where), 2), w.sharding
        # the last rows are not divided evenly
        close(train(x[:30], y[:30], mesh=mesh, rules=rules).params, rest)
        close(stream(mesh=mesh, rules=rules), stream())


def sequences():
    words = np.random.default_rng(0).integers(0, 12, (16, 8))
    rows, both = (words, np.roll(words, -1, 1)), nn.TENSOR_PARALLEL + nn.FULLY_SHARDED
    for layers in (2, 5):  # written out, and in a loop
        model = nn.transformer_decoder(12, features=16, heads=4, layers=layers)
        read = lambda model=model, **on: (
            nn.fit(model, loss, rule, rows, epochs=1, batch_size=8, key=KEY, **on).params
        )
        alone = read()
        close(read(mesh=square("data", "model"), rules=both), alone)
        close(read(mesh=square("data", "sequence")), alone)
        close(read(mesh=DATA, rules=nn.FULLY_SHARDED), alone)
        close(read(mesh=DATA, rules=[("wq", P("data", None))]), alone)


def members():
    close(population(mesh=jax.make_mesh((4,), ("population",))), population(strategy="vmap"))


def resumed():
    folder = tempfile.mkdtemp()

    def begun(devices, epochs, **on):
        mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
        return train(epochs=epochs, checkpoint=folder, mesh=mesh, rules=nn.FULLY_SHARDED, **on)

    alone = train().params
    begun(4, 1)
    fewer = begun(2, 3, early_stopping=nn.EarlyStopping(monitor="loss"))
    close(fewer.state.params, alone)
    for leaf in jax.tree.leaves((fewer.state.params, fewer.state.opt_state, fewer.params)):
        assert len(leaf.devices()) == 2
    assert not fewer.state.params[0].w.is_fully_replicated
    close(train(checkpoint=folder).params, alone)  # on a single device


def plan(rules, mesh, net=net, batch=None):
    rows = jax.ShapeDtypeStruct((32, 8), float), jax.ShapeDtypeStruct((32,), int)
    return nn.sharding_plan(net, loss, rule, batch or rows, mesh=mesh, rules=rules)


def kinds(plan):
    return collections.Counter((each.kind, each.in_loop) for each in plan.collectives)


def programs():
    shapes = jax.eval_shape(net.init, KEY, x)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes)) * 8

    # data parallel: one sum of all gradients, and of the loss, in a step
    data = plan((), DATA)
    assert kinds(data) == {("all-reduce", False): 1}
    assert data.collectives[0].bytes == size + 8
    assert data.state_bytes == 3 * size + 4 + 4 + 8  # Adam's two moments; count, step and key

    # fully sharded: each parameter that is divided is collected once, and the sum is the same
    sharded = plan(nn.FULLY_SHARDED, DATA)
    divided = [each for each in sharded.params if any(each.spec)]
    assert kinds(sharded) == {("all-reduce", False): 1, ("all-gather", False): len(divided)}
    collected = sum(c.bytes for c in sharded.collectives if c.kind == "all-gather")
    assert collected == sum(4 * each.bytes for each in divided)
    assert sharded.state_bytes < data.state_bytes / 3

    # tensor parallel: in each block two sums forward and two backward, one after attention and one
    # after the perceptron, as in the paper
    words = jax.ShapeDtypeStruct((16, 8), int)
    model = nn.transformer_decoder(12, features=16, heads=4, layers=5)
    tensor = plan(nn.TENSOR_PARALLEL, MODEL, model, (words, words))
    sums = [each for each in tensor.collectives if each.in_loop]
    assert [each.kind for each in sums] == ["all-reduce"] * 4
    activation = 16 * 8 * 16 * 8
    assert sorted(each.bytes for each in sums) == [activation * n for n in (1, 1, 1, 3)]
    assert "4 all-reduce an iteration of a loop" in str(tensor)

    # fully sharded, in a loop: each block collects its own parameters, forward and backward, and
    # only the others are collected at the beginning
    deep = plan(nn.FULLY_SHARDED, DATA, model, (words, words))
    of_blocks = [each for each in deep.params if len(each.shape) > 1 and each.shape[0] == 5]
    by_block = [c for c in deep.collectives if c.kind == "all-gather" and c.in_loop]
    backward = [each for each in of_blocks if not re.search(r"\.b\w*$", each.path)]  # no biases
    whole = sum(4 * each.bytes // 5 for each in of_blocks + backward)
    assert sum(c.bytes for c in by_block) == whole
    others = [each for each in deep.params if any(each.spec) and each not in of_blocks]
    at_once = [c for c in deep.collectives if c.kind == "all-gather" and not c.in_loop]
    assert sum(c.bytes for c in at_once) == sum(4 * each.bytes for each in others)


def lowered():
    """Every layout is written for GPUs and TPUs, too, with its divisions; nothing is compiled."""
    words = jax.ShapeDtypeStruct((16, 8), int)
    decoder = nn.transformer_decoder(12, features=16, heads=4, layers=2)
    images, labels = (
        jax.ShapeDtypeStruct((16, 8, 8, 3), np.float32),
        jax.ShapeDtypeStruct((16,), int),
    )
    for model, batch, mesh, rules in [
        (net, (x, y), DATA, ()),
        (net, (x, y), DATA, nn.FULLY_SHARDED),
        (decoder, (words, words), MODEL, nn.TENSOR_PARALLEL),
        (decoder, (words, words), square("data", "sequence"), ()),
        (nn.resnet(10), (images, labels), DATA, nn.FULLY_SHARDED),
    ]:
        for precision in (None, "bfloat16"):
            traced = traced_step(model, loss, rule, batch, mesh, rules, precision)[2]
            for platform in ("cuda", "tpu"):
                text = traced.lower(lowering_platforms=(platform,)).as_text()
                assert "sharding" in text
                assert "xla_python_cpu_callback" not in text


def refused():
    for options, words in [
        ({"mesh": 4}, "expected mesh to be a jax.sharding.Mesh, got 4"),
        ({"mesh": MODEL}, "expected a mesh with an axis 'data' or 'sequence', or rules"),
        ({"rules": nn.FULLY_SHARDED}, "expected a mesh for the rules, got None"),
        ({"rules": "all"}, "expected rules as a sequence of pairs"),
        ({"rules": [("w",)]}, "expected each rule as a pair"),
        ({"rules": [("(", P())]}, "expected a regular expression in the rule"),
        ({"rules": [("w", P("model"))]}, "expected axes of the mesh, ('data',)"),
        ({"rules": nn.TENSOR_PARALLEL}, "got 'model' in the rule"),
        ({"rules": [("wq", P("data"))]}, "expected a rule that matches a parameter"),
        ({"rules": [("b", P(None, "data"))]}, "for at most 1 axes of [0].b"),
        ({"rules": [("2..b", P("data"))]}, "axis 0 of [2].b, of length 2"),
        ({"batch_size": 6}, "the 4 devices along 'data' divide evenly, got 6"),
    ]:
        on = {} if words == "expected a mesh for the rules, got None" else {"mesh": DATA}
        expect(words, train, **(on | options))
    expect("axis 'population'", population, mesh=DATA)
    expect("divide evenly, got 6", population, members=6, mesh=jax.make_mesh((4,), ("population",)))


def expect(words, call, **options):
    with pytest.raises(nn.InputError) as error:
        call(**options)
    assert words in str(error.value), error.value


TESTS = (
    rows_given, parameters_given, members_given, modes, sequences, members, resumed, programs,
    lowered, refused,
)  # fmt: skip

if __name__ == "__main__":
    {test.__name__: test for test in TESTS}[sys.argv[1]]()
