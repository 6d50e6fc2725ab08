"""Compare the pictures with their baselines, which README shows too."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxnn as nn
from jaxnn import data, plots

compared = pytest.mark.mpl_image_compare(savefig_kwargs={"dpi": 90})

NET = nn.chain(nn.Dense(3, bias=False), nn.Sigmoid(), nn.Dense(1, bias=False), nn.Sigmoid())
PARAMS = (
    nn.DenseParams(jnp.array([[1.0, -1.0, 3.0], [2.0, 2.0, -1.0]]), None),
    (),
    nn.DenseParams(jnp.array([[0.1], [0.5], [-0.1]]), None),
    (),
)


def worked_example():
    return nn.trace(NET, nn.BinaryCrossEntropy(), PARAMS, np.array([[5.0, 3.0]]), np.array([[1]]))


@compared
def test_worked_example():
    return plots.BackpropDisplay.from_trace(worked_example()).figure_


@compared
def test_network():
    return plots.NetworkDisplay.from_network(
        nn.chain(nn.Dense(4), nn.ReLU(), nn.Dense(3), nn.Tanh(), nn.Dense(2)), 3
    ).figure_


@compared
def test_activations():
    figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained")
    for activation, ax in zip(
        [nn.Heaviside(), nn.Sigmoid(), nn.Tanh(), nn.ReLU()], axes, strict=True
    ):
        display = plots.ActivationDisplay.from_layer(activation, ax=ax)
        assert display.ax_ is ax
        assert display.figure_ is figure
    return figure


@compared
def test_boundary():
    iris = data.iris_setosa()
    theta = nn.NeuronParams(jnp.array([11.65976942, -12.81530848, -23.12053766]))
    predict = lambda x: nn.apply(nn.Neuron(), theta, data.with_ones(x))
    ax = plots.BoundaryDisplay.from_function(predict, iris.x).ax_
    names = {"feature_names": iris.feature_names, "class_names": iris.class_names}
    return plots.ScatterDisplay.from_data(iris.x, iris.y, **names, ax=ax).figure_


@compared
def test_curves():
    steps = np.arange(1, 50)
    return plots.CurvesDisplay.from_history(
        {"loss": 1 / steps, "score": 1 - 1 / steps}, title="one sample"
    ).figure_


@pytest.mark.parametrize(
    ("inputs", "hidden", "outputs"),
    [(2, 3, 1), (3, 3, 3), (1, 1, 1), (1, 3, 2), (3, 2, 3), (3, 1, 3)],
)
def test_no_label_covers_another(inputs, hidden, outputs):
    net = nn.chain(nn.Dense(hidden), nn.Tanh(), nn.Dense(outputs))
    x = np.linspace(-1, 1, inputs)[None]
    params = net.init(jax.random.key(0), x)
    trace = nn.trace(net, nn.SigmoidBinaryCrossEntropy(), params, x, np.ones((1, outputs)))
    display = plots.BackpropDisplay.from_trace(trace)
    display.figure_.canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in display.ax_.texts if t.get_text()]
    clashes = [
        (a, b)
        for i, (a, box) in enumerate(boxes)
        for b, other in boxes[:i]
        if box.padded(-2).overlaps(other.padded(-2))
    ]
    assert clashes == []


def test_the_worked_example_shows_every_number():
    texts = {t.get_text() for t in plots.BackpropDisplay.from_trace(worked_example()).ax_.texts}
    shown = {
        "0.99998",
        "0.73106",
        "0.59038",
        "-1.6938",
        "-0.20481",
        "-0.20134",
        "-0.29946",
        "$J$ = 0.52699",
        "1.26e-06",
    }
    assert shown <= texts


def trained(steps=40):
    """Compute a history by a formula, so that the picture does not depend on the machine."""
    step = np.arange(1, steps + 1) * 45
    loss, validation = 2.3 * np.exp(-step / 300) + 0.02, 2.3 * np.exp(-step / 280) + 0.07
    history = {
        "step": step,
        "loss": loss,
        "validation_loss": validation,
        "validation_accuracy": 1 - validation / 3,
    }
    return nn.Fit(
        NET, nn.BinaryCrossEntropy(), PARAMS, None, history | {"step_loss": loss}, "completed"
    )


@compared
def test_history():
    display = plots.history(trained())
    assert [ax.get_ylabel() for ax in display.figure_.axes] == ["loss", "on validation data"]
    return display.figure_


def test_history_without_validation_is_one_panel():
    fit = trained()
    fit.history.pop("validation_loss"), fit.history.pop("validation_accuracy")
    _, ax = plt.subplots()
    display = plots.history(fit, axes=ax)
    assert display.ax_ is ax
    assert len(plots.history(fit).figure_.axes) == 1


@compared
def test_population():
    step, rng = np.arange(1, 31) * 45, np.random.default_rng(0)
    rates = rng.uniform(100, 500, 40)
    loss = 2.3 * np.exp(-step[:, None] / rates) + rng.uniform(0.02, 0.1, 40)
    failed = np.where(np.arange(40) % 20 == 3, 70, 0)
    loss[:, failed > 0] = np.nan
    history = {"step": step, "loss": loss, "step_loss": loss}
    many = nn.Population(NET, nn.BinaryCrossEntropy(), None, history, failed, 40, "completed")
    display = plots.population(many)
    assert display.ax_.get_title() == "40 members, 2 failed"
    return display.figure_
