"""Every formula is right: evaluated by NumPy alone, its result is that of its layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAYERS, LOSSES, NETWORKS

import jaxnn as nn
from jaxnn.equations import VALUE, ArrayId, equations_of
from jaxnn.formulas.names import Names
from jaxnn.formulas.reading import read


def weigh(dy):
    """Create a loss that is linear in the output, with the derivative dy."""

    @nn.loss
    class Weigh:
        def check(self, prediction, target):
            pass

        def forward(self, prediction, target, weights=None):
            parts = jax.tree.map(lambda y, d: (y * d).sum(), prediction, dy)
            return sum(jax.tree.leaves(parts)), None

        def backward(self, cache):
            return jax.tree.map(jnp.asarray, dy)

    return Weigh()


def trace_with_random_slopes(case):
    random = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * random.standard_normal(leaf.shape), case.params()
    )
    y = jax.eval_shape(lambda p, x: case.layer.forward(p, x, case.key)[0], params, case.x)
    dy = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape), y)
    return nn.trace(case.layer, weigh(dy), params, case.x, np.zeros(()), case.key)


def worst(equations):
    """Compute all arrays from inputs, parameters and dy, and compare with those of the layers."""
    defined = {step.defines for step in equations.steps}
    computed = equations.recompute({})
    errors = [np.abs(computed[name] - equations.values[name]).max(initial=0.0) for name in defined]
    return np.max(errors), defined  # np.max returns NaN if there is one, which is below no bound


# a Repeat states no formulas for an input that is more than an array
STATED = [c for c in LAYERS if not isinstance(c.layer, nn.Repeat) or isinstance(c.x, np.ndarray)]


@pytest.mark.parametrize("case", [*STATED, NETWORKS[2], NETWORKS[4]], ids=lambda case: case.id)
def test_formulas_give_what_the_layer_gives(case):
    trace = trace_with_random_slopes(case)
    equations = equations_of(trace)
    assert equations.silent == ["loss"]  # only the loss above states no formulas
    error, defined = worst(equations)
    assert error < 1e-10
    trained = {id_.gradient for id_, kind in equations.free.items() if kind == "parameter"}
    assert trained <= defined  # the derivative of every parameter has a formula
    last = str(len(trace.stages))
    assert any(id_.name.split(".")[0] == "y" and id_.layer == last for id_ in defined)
    assert jax.tree.leaves(case.x)[0].dtype.kind == "i" or any(
        id_.is_gradient and id_.name.split(".")[0] == "x" and not id_.layer for id_ in defined
    )


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.id)
def test_formulas_give_what_the_loss_gives(case):
    """The formulas describe the unweighted mean, so that the weights of a case are not used."""
    prediction = np.asarray(case.prediction)
    identity = nn.LeakyReLU(slope=1.0)
    trace = nn.trace(identity, case.loss, (), prediction, case.target)
    equations = equations_of(trace)
    if isinstance(case.loss, nn.OptaxLoss):
        assert equations.silent == ["loss"]  # JAX differentiates it, so that it states no formulas
        return
    error, defined = worst(equations)
    assert {VALUE, ArrayId("y", "1", is_gradient=True)} <= defined
    assert error < 1e-12


@nn.layer
class Liar(nn.Tanh):
    formulas = nn.Formulas("y = tanh(x)", "dx = (1 - y) * dy")


@nn.layer
class Forgetful(nn.Dense):
    formulas = nn.Formulas(
        "y[n, o] = sum(x[n, i] * w[i, o] for i in I) + b[o]", "db[o] = sum(dy[n, o] for n in B)"
    )


@nn.loss
class Scaled:
    """Half a squared error times a setting; ``lie`` is added to the formula of its derivative."""

    scale: float = 3.0
    lie: bool = False

    def check(self, prediction, target):
        pass

    def forward(self, prediction, target, weights=None):
        return self.scale * ((prediction - target) ** 2).sum() / 2, (prediction, target)

    def backward(self, cache):
        prediction, target = cache
        return self.scale * (prediction - target)

    formulas = nn.Formulas(
        """
        error[n, i] = y[n, i] - t[n, i]
        J = scale * sum(error[n, i] ** 2 for n in B for i in I) / 2
        """,
        """
        if lie:
            dy = scale * error + 1
        else:
            dy = scale * error
        """,
    )


X = np.linspace(-1, 1, 6).reshape(2, 3)


def test_a_formula_that_lies_is_found():
    assert (
        worst(equations_of(nn.trace(Liar(), nn.MeanSquaredError(), (), X, np.zeros((2, 3)))))[0]
        > 1e-3
    )


@pytest.mark.parametrize(
    ("net", "loss", "message"),
    [
        (
            Liar(),
            nn.MeanSquaredError(),
            "expected the formulas of Liar() to give dx[0, 0] = -0.106",
        ),
        (
            Forgetful(3),
            nn.MeanSquaredError(),
            "expected the formulas of Forgetful(features=3) to define dx, dw.",
        ),
        (
            nn.Tanh(),
            Scaled(lie=True),
            "to give dy[0, 0] = -2.28478, as its code does, got -1.28478.",
        ),
    ],
)
@pytest.mark.parametrize("form", ["text", "latex", "html"])
def test_formulas_from_outside_are_not_believed(net, loss, message, form):
    trace = nn.trace(net, loss, net.init(jax.random.key(0), X), X, np.zeros((2, 3)))
    with pytest.raises(nn.InputError) as error:
        nn.explain(trace, form)
    assert message in str(error.value)


def test_a_loss_of_ones_own_has_settings_and_several_formulas():
    trace = nn.trace(nn.Tanh(), Scaled(), (), X, np.zeros((2, 3)))
    assert worst(equations_of(trace))[0] < 1e-15
    assert "∂J/∂a⁽¹⁾[1, 1] = 3·error[1, 1] = 3×(-0.761594)" in nn.explain(trace)


def test_saturated_inputs_stay_finite():
    x = np.array([[1000.0, -1000.0, 0.0]])
    for net, loss, target in (
        (nn.Softmax(), nn.MeanSquaredError(), np.zeros((1, 3))),
        (nn.Sigmoid(), nn.MeanSquaredError(), np.zeros((1, 3))),
        (nn.GELU(), nn.SoftmaxCrossEntropy(), np.array([1])),
    ):
        computed = equations_of(nn.trace(net, loss, (), x, target)).recompute({})
        assert all(np.isfinite(value).all() for value in computed.values())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("y[n] = import os", "expected an equation in the notation"),
        ("y[n] + 1", "expected an equation in the notation"),
        ("y[n] = open(x[n])", "expected an equation in the notation"),
        ("y[n, o] = x @ w", "expected an equation in the notation"),
        ("y[n] = x[n] * q[n]", "expected a known name, got 'q'"),
        ("y[n, k] = x[n, k + 1]", "expected an array that says how far k counts"),
        ("y[n, k] = x[k, n, k, n]", "expected at most 2 letters for x"),
    ],
)
def test_formulas_that_are_none(line, message):
    with pytest.raises(nn.InputError, match=message.replace("[", r"\[")):
        read(line, Names({"x": (2, 3)}, {}))
