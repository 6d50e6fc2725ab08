"""The playground trains as the library does: in V8 and, if there is one, in a browser."""

import json
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from py_mini_racer import MiniRacer

import jaxnn as nn
from jaxnn.equations import settings_of
from jaxnn.formulas.javascript import compiled

ASSETS = resources.files("jaxnn.explanation").joinpath("assets")
EXACT = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(scope="module")
def engine():
    """Start V8 with the functions that compiled formulas use."""
    racer = MiniRacer()
    racer.eval(ASSETS.joinpath("functions.js").read_text(encoding="utf-8"))
    return racer


def run(engine, code, passes, arrays, sizes):
    """Run passes of compiled formulas; arrays that they define start as zeros."""
    given = {name: np.ravel(value).astype(float).tolist() for name, value in arrays.items()}
    engine.eval(f"var op = {code}, sizes = {json.dumps(sizes)}, arrays = {{}}")
    engine.eval(
        "for (const [name, axes] of Object.entries(op.shapes))"
        "  arrays[name] = new Float64Array(axes.reduce((size, axis) => size * sizes[axis], 1))"
    )
    engine.eval(f"for (const [k, v] of Object.entries({json.dumps(given)})) arrays[k].set(v)")
    for name in passes:
        engine.eval(f"op.{name}(arrays, sizes)")
    numbers = engine.eval(
        "JSON.stringify(Object.fromEntries(Object.entries(arrays).map(([k, v]) => [k, [...v]])))"
    )
    return {name: np.array(values) for name, values in json.loads(numbers).items()}


def assert_same(computed, **expected):
    for name, value in expected.items():
        np.testing.assert_allclose(computed[name], np.ravel(value), err_msg=name, **EXACT)


# ── Compiled formulas ──


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 3, 4)], ids=str)
def test_dense_for_several_sizes(sizes, engine):
    (batch, inputs, outputs), random = sizes, np.random.default_rng(0)
    x, w, b, dy = (
        jnp.asarray(random.standard_normal(shape))
        for shape in ((batch, inputs), (inputs, outputs), (outputs,), (batch, outputs))
    )
    layer, params = nn.Dense(outputs), nn.DenseParams(w, b)
    y, cache = layer.forward(params, x)
    (dw, db), dx = layer.backward(params, cache, dy)
    axes = {"x": ("B", "I"), "w": ("I", "O"), "b": ("O",), "y": ("B", "O"), "dy": ("B", "O")}
    computed = run(
        engine,
        compiled(layer.formulas, axes),
        ["forward", "backward"],
        {"x": x, "w": w, "b": b, "dy": dy},
        {"B": batch, "I": inputs, "O": outputs},
    )
    assert_same(computed, y=y, dw=dw, db=db, dx=dx)


ACTIVATIONS = [
    nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.SiLU(),
    nn.Softplus(), nn.Mish(), nn.GELU(), nn.GELU(form="tanh"), nn.HardSigmoid(), nn.Heaviside(),
    nn.Softmax(), nn.LogSoftmax(),
]  # fmt: skip


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activations(layer, engine):
    x = jnp.concatenate([jnp.linspace(-9, 9, 22), jnp.array([40.0, -40.0])]).reshape(4, 6)
    dy = jnp.asarray(np.random.default_rng(1).standard_normal(x.shape))
    y, cache = layer.forward((), x)
    _, dx = layer.backward((), cache, dy)
    axes = dict.fromkeys(("x", "y", "dy", "dx"), ("B", "F"))
    computed = run(
        engine,
        compiled(layer.formulas, axes, settings_of(layer)),
        ["forward", "backward"],
        {"x": x, "dy": dy},
        {"B": 4, "F": 6},
    )
    assert_same(computed, y=y, dx=dx)


LOSSES = [
    (nn.SigmoidBinaryCrossEntropy(), "two classes"),
    (nn.MeanSquaredError(), "two classes"),
    (nn.Huber(), "two classes"),
    (nn.SoftmaxCrossEntropy(), "classes"),
    (nn.SoftmaxCrossEntropy(smoothing=0.1), "classes"),
    (nn.SoftmaxCrossEntropy(), "probabilities"),
]


@pytest.mark.parametrize(("loss", "kind"), LOSSES, ids=str)
def test_losses(loss, kind, engine):
    random = np.random.default_rng(2)
    y = jnp.asarray(30 * random.standard_normal((5, 3)))
    t = {
        "two classes": random.integers(0, 2, (5, 3)).astype(float),
        "classes": random.integers(0, 3, 5),
        "probabilities": random.dirichlet(np.ones(3), 5),
    }[kind]
    value, cache = loss.forward(y, jnp.asarray(t))
    axes = {"y": ("B", "K"), "dy": ("B", "K"), "t": ("B", "K")[: t.ndim], "J": ()}
    code = compiled(
        loss.formulas,
        axes,
        settings_of(loss) | {"holds_classes": kind == "classes"},
        absent=["counted"],
        counts={"N": "B"},
    )
    computed = run(engine, code, ["forward", "backward"], {"y": y, "t": t}, {"B": 5, "K": 3})
    assert_same(computed, J=value, dy=loss.backward(cache))


def test_an_entry_outside_an_array_is_0(engine):
    formulas = nn.Formulas("y[n, i] = x[n, i - 1] + x[n, i / 2]", "dx[n, i] = dy[n, 2 * i]")
    axes = dict.fromkeys(("x", "y", "dy", "dx"), ("B", "F"))
    arrays = {"x": [[1, 2, 4]], "dy": [[1, 2, 4]]}
    computed = run(
        engine, compiled(formulas, axes), ["forward", "backward"], arrays, {"B": 1, "F": 3}
    )
    assert_same(computed, y=[1, 1, 2 + 2], dx=[1, 4, 0])


@pytest.mark.parametrize(
    ("formulas", "message"),
    [
        (nn.Formulas("for t in T:\n    y[n, t] = y[n, t - 1] + x[n, t]", "dx = dy"), "recurrence"),
        (nn.Formulas("y = x\ns = F + 1", "dx = dy"), "known name"),
    ],
)
def test_formulas_that_have_no_loops_are_refused(formulas, message):
    axes = dict.fromkeys(("x", "y", "dy", "dx"), ("B", "F"))
    with pytest.raises(nn.InputError, match=message):
        compiled(formulas, axes)
