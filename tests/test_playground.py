"""The playground trains as the library does: in V8 and, if there is one, in a browser."""

import html
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.testing.compare import compare_images
from py_mini_racer import MiniRacer
from test_page import BASELINE, BROWSER, Parsed, with_script

import jaxnn as nn
from jaxnn.equations import settings_of
from jaxnn.explanation.playground import ACTIVATIONS, BUILT_IN, operations
from jaxnn.formulas.javascript import compiled

ROOT = Path(__file__).parent.parent
ASSETS = resources.files("jaxnn.explanation").joinpath("assets")
EXACT = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(scope="module")
def engine():
    """Start V8 with the part of the page that computes."""
    racer = MiniRacer()
    racer.eval(ASSETS.joinpath("functions.js").read_text(encoding="utf-8"))
    racer.eval(operations())
    racer.eval(ASSETS.joinpath("training.js").read_text(encoding="utf-8"))
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


LAYERS = [
    nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.SiLU(),
    nn.Softplus(), nn.Mish(), nn.GELU(), nn.GELU(form="tanh"), nn.HardSigmoid(), nn.Heaviside(),
    nn.Softmax(), nn.LogSoftmax(),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=str)
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
        (nn.Formulas("y[n, x] = x[n, x]", "dx = dy"), "letters that name no array, got {'x'}"),
        (nn.Formulas("y[n, i] = x[n, i] if i < 1500 else 0", "dx = dy"), "of all sizes"),
    ],
)
def test_formulas_that_have_no_loops_are_refused(formulas, message):
    axes = dict.fromkeys(("x", "y", "dy", "dx"), ("B", "F"))
    with pytest.raises(nn.InputError, match=message):
        compiled(formulas, axes)


# ── Steps of training ──

OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "adam": optax.adam,
}


def library(setting, classes):
    """Build the network, the loss and the optimizer that a setting of the page stands for."""
    activation = ACTIVATIONS[setting["activation"]]
    hidden = [part for width in setting["hidden"] for part in (nn.Dense(width), activation) if part]
    net = nn.chain(*hidden, nn.Dense(1 if classes == 2 else classes))
    cross_entropy = nn.SigmoidBinaryCrossEntropy() if classes == 2 else nn.SoftmaxCrossEntropy()
    loss = nn.MeanSquaredError() if setting["loss"] == "squared error" else cross_entropy
    weights_only = lambda params: jax.tree.map(lambda leaf: leaf.ndim == 2, params)
    decay = optax.add_decayed_weights(setting["l2"], weights_only)
    return net, loss, optax.chain(decay, OPTIMIZERS[setting["optimizer"]](setting["rate"]))


def parameters(net, x, layers):
    """Give a network the weights of the page."""
    params = net.init(jax.random.key(0), x)
    given = iter(layers)
    return tuple(
        nn.DenseParams(*map(jnp.reshape, numbers(next(given)), (p.w.shape, p.b.shape))) if p else p
        for p in params
    )


def numbers(layer):
    return jnp.array(layer["w"], float), jnp.array(layer["b"], float)


def targets(loss, labels, classes):
    if isinstance(loss, nn.SoftmaxCrossEntropy):
        return labels
    one_hot = np.eye(classes)[labels]
    return jnp.asarray(one_hot[:, 1:] if classes == 2 else one_hot)


def assert_steps(setting, points, classes, before, steps):
    """Make the same steps, on the same points, with the library and optax."""
    net, loss, optimizer = library(setting, classes)
    x, labels = jnp.asarray(np.array(points)[:, :2]), np.array(points)[:, 2].astype(int)
    params = parameters(net, x, before)
    state = optimizer.init(params)
    for step in steps:
        rows = np.array(step["chosen"])
        value_and_grad = nn.value_and_grad(net, loss)
        _, gradient = value_and_grad(params, x[rows], targets(loss, labels[rows], classes))
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        expected = [part for part in params if part]
        for layer, computed in zip(expected, step["layers"], strict=True):
            np.testing.assert_allclose(np.ravel(layer.w), computed["w"], **EXACT)
            np.testing.assert_allclose(layer.b, computed["b"], **EXACT)
    return net, loss, params


COPY = "network.layers.map(({ w, b }) => ({ w: [...w], b: [...b] }))"

STEPS = """(() => {
  const setting = %s, points = %s, sizes = %s;
  const network = makeNetwork(sizes, setting.activation, %s);
  drawWeights(network, setting.seed);
  const training = makeTraining(network, setting), numbers = points.map((_, k) => k);
  const before = %s, steps = [];
  for (let k = 0; k < 5; k++) {
    takeStep(training, points, numbers);
    steps.push({ chosen: training.before.chosen, layers: %s });
  }
  return JSON.stringify({ before, steps });
})()"""


@pytest.mark.parametrize(
    ("optimizer", "activation", "loss", "classes", "batch", "l2"),
    [
        ("sgd", "tanh", "cross-entropy", 2, 0, 0.0),
        ("momentum", "sigmoid", "cross-entropy", 2, 4, 0.01),
        ("adam", "relu", "cross-entropy", 3, 4, 0.0),
        ("adam", "gelu", "squared error", 2, 0, 0.1),
        ("sgd", "linear", "squared error", 3, 5, 0.0),
    ],
)
def test_steps_equal_those_of_the_library(optimizer, activation, loss, classes, batch, l2, engine):
    random = np.random.default_rng(3)
    labels = np.arange(12) % classes
    points = np.column_stack([random.standard_normal((12, 2)), labels]).tolist()
    setting = {
        "hidden": [4, 3], "activation": activation, "loss": loss, "optimizer": optimizer,
        "rate": 0.1, "batch": batch, "l2": l2, "seed": 5,
    }  # fmt: skip
    kind = "softmax" if classes > 2 else "sigmoid cross-entropy"
    kind = "squared" if loss == "squared error" else kind
    sizes = [2, 4, 3, 1 if classes == 2 else classes]
    arguments = (json.dumps(part) for part in (setting, points, sizes, kind))
    made = json.loads(engine.eval(STEPS % (*arguments, COPY, COPY)))
    assert_steps(setting, points, classes, made["before"], made["steps"])
    chosen = [number for step in made["steps"][: 12 // (batch or 12)] for number in step["chosen"]]
    assert len(chosen) == len(set(chosen))  # an epoch takes each point once


# ── The page ──


def test_the_page_is_self_contained_and_can_be_used_by_all():
    page = nn.playground()
    tags = Parsed(page).tags
    assert not [attrs for _, attrs in tags if "src" in attrs or "href" in attrs]
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(|localStorage", page
    )
    assert ("html", {"lang": "en"}) in tags
    assert any(attrs.get("aria-live") == "polite" for _, attrs in tags)
    assert all("type" in attrs for tag, attrs in tags if tag == "button")
    assert "prefers-color-scheme: dark" in page
    assert page._repr_html_().startswith('<iframe sandbox="allow-scripts" srcdoc=')


X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [3.0, 1.0]])
Y = np.array([0, 1, 2, 1])


def given(page):
    found = re.search(r'<script id="given" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_points_of_ones_own_are_scaled():
    data = given(nn.playground((X, Y), hidden=(3,), batch_size=None))
    points = np.array(data["sets"]["yours"]["points"])
    np.testing.assert_allclose(points[:, :2].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(points[:, :2].std(axis=0), 1, atol=1e-3)
    assert sorted(points[:, 2]) == [0, 1, 1, 2]
    assert data["setting"]["data"] == "yours"
    assert data["setting"]["batch"] == 0


def test_the_built_in_data_are_the_same_each_time():
    sets = given(nn.playground())["sets"]
    assert sets == given(nn.playground())["sets"]
    assert {name: len(made["points"]) for name, made in sets.items()} == {
        name: 150 if name == "iris" else 200 for name in BUILT_IN
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "moon"}, "expected data to be one of 'moons', .*, got 'moon'"),
        ({"data": X}, "expected data to be one of .*, or \\(x, y\\), got a ndarray"),
        ({"data": (X.T, Y)}, r"expected x of shape \(n, 2\), got \(2, 4\)"),
        ({"data": (X, Y[:3])}, "expected y with as many rows as x"),
        ({"data": (X, Y + 2)}, "expected classes from 0 to 3, got 4"),
        ({"data": (X * np.nan, Y)}, "expected finite x"),
        ({"data": (X[:1], Y[:1])}, "expected 2 to 2000 points, got 1"),
        ({"hidden": 8}, "expected hidden as a tuple of integers, got 8"),
        ({"hidden": (8, 0)}, "expected the widths in hidden to be an integer of at least 1"),
        ({"hidden": (13,)}, "expected at most 12 neurons in a layer, got 13"),
        ({"hidden": (2,) * 7}, "expected at most 6 hidden layers, got 7"),
        ({"activation": "Tanh"}, "expected activation to be one of 'tanh'"),
        ({"loss": "hinge"}, "expected loss to be one of 'cross-entropy', 'squared error'"),
        ({"learning_rate": 0.0}, "expected learning_rate to be a finite number above 0"),
        ({"optimizer": "lion"}, "expected optimizer to be one of 'sgd', 'momentum', 'adam'"),
        ({"batch_size": 0}, "expected batch_size to be an integer of at least 1, got 0"),
        ({"l2": -0.1}, "expected l2 to be a number of at least 0, got -0.1"),
        ({"seed": 1.5}, "expected seed to be an integer of at least 0, got 1.5"),
    ],
)
def test_bad_calls(arguments, message):
    with pytest.raises(nn.InputError, match=f"playground: {message}"):
        nn.playground(**arguments)


def test_the_script_writes_the_page(tmp_path):
    rows, out = tmp_path / "rows.csv", tmp_path / "page.html"
    rows.write_text("0,1,1\n1,0,2\n2,5,3\n3,1,2\n")
    command = [sys.executable, "scripts/playground.py", "--out", out, "--data", rows]
    command += ["--hidden", "3", "--optimizer", "sgd"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().endswith(f"The page is in {out}. Open it in a browser.")
    expected = nn.playground((X, Y), hidden=(3,), optimizer="sgd")
    assert out.read_text(encoding="utf-8") == expected


# ── In a browser ──

DRIVER = """<script>window.addEventListener("load", async () => {
  window.requestAnimationFrame = (draw) => setTimeout(draw, 16); // a page that is dumped draws none
  const by = (id) => document.getElementById(id), seen = {}, { state } = playground;
  const wait = () => new Promise((done) => setTimeout(done, 100));
  const type = (id, value) => {
    by(id).value = value;
    by(id).dispatchEvent(new Event("input", { bubbles: true }));
  };
  const choose = (id, value) => {
    by(id).value = value;
    by(id).dispatchEvent(new Event("change", { bubbles: true }));
  };
  const press = (element, key) =>
    element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const labelled = (text) => document.querySelector(`[aria-label="${text}"]`);
  const layers = (network) => network.layers.map(({ w, b }) => ({ w: [...w], b: [...b] }));
  const clickAt = (x, y) => {
    const box = by("plane").getBoundingClientRect();
    const place = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
    by("plane").dispatchEvent(new MouseEvent("click", { ...place, bubbles: true }));
  };

  type("rate", "-1");
  seen.problem = by("problem").textContent;
  type("rate", "0.1");
  seen.noProblem = by("problem").textContent;
  type("batch", "16");
  type("l2", "0.01");
  choose("optimizer", "momentum");
  choose("activation", "sigmoid");
  labelled("layer 1: one neuron fewer").click();
  by("shallower").click();
  by("deeper").click();
  labelled("layer 2: one neuron fewer").click();
  seen.focused = document.activeElement.getAttribute("aria-label");
  seen.sizes = state.network.sizes;
  seen.neurons = document.querySelectorAll(".neuron").length;

  seen.before = layers(state.network);
  seen.steps = [];
  for (let k = 0; k < 3; k++) {
    by("step").click();
    seen.steps.push({ chosen: [...state.training.before.chosen], layers: layers(state.network) });
  }
  seen.said = by("said").textContent;
  seen.now = state.now;
  seen.points = state.points;
  seen.train = state.train;
  seen.setting = { ...state.setting };

  by("show").click();
  seen.title = by("shown-title").textContent;
  seen.focusedTitle = document.activeElement === by("shown-title");
  document.querySelectorAll(".layer")[0].querySelectorAll(".scroll")[1].querySelector("button").click();
  seen.formula = [...by("formula").children].map((part) => part.textContent);
  seen.gradient = state.shown.network.layers[0].dw[0];
  press(document.querySelector("#tables button"), "ArrowRight");
  seen.moved = document.activeElement.closest("td").cellIndex;
  by("after").click();
  seen.chosen = by("chosen").textContent;
  by("show").click();

  seen.link = playground.fragment();
  const before = JSON.stringify(state.setting);
  by("reset").click();
  location.hash = "data=circles&hidden=3&activation=nonsense&rate=-3";
  await wait();
  seen.other = { ...state.setting };
  location.hash = seen.link;
  await wait();
  seen.restored = JSON.stringify(state.setting) === before;

  by("plane").scrollIntoView();
  document.querySelector('#adds input[value="2"]').click();
  clickAt(0.75, 0.25);
  seen.added = state.points.at(-1).map((x) => x / (state.radius || 1));
  seen.outputs = state.network.sizes.at(-1);
  by("plane").focus();
  press(by("plane"), "ArrowUp");
  press(by("plane"), "Enter");
  seen.count = state.points.length;
  seen.own = playground.fragment();
  playground.takeSetting(playground.readFragment(seen.own));
  seen.restoredPoints = playground.fragment() === seen.own;

  by("pasted").value = "1, 2, three";
  by("paste").click();
  seen.wrongRow = by("problem").textContent;
  by("pasted").value = "0 0 1\\n0 1 2\\n1 0 2\\n1 1 1";
  by("paste").click();
  seen.pasted = state.points;
  by("run").click();
  for (let k = 0; k < 20 && !state.steps; k++) await wait();
  seen.pressed = by("run").getAttribute("aria-pressed");
  by("run").click();
  seen.ran = state.steps;
  choose("speed", "25");
  seen.measured = await playground.measure(0.3);
  seen.wide = document.documentElement.scrollWidth <= window.innerWidth;
  seen.framed = window.parent !== window;
  const text = JSON.stringify(seen);
  window.parent.postMessage(text, "*");
  document.title = "done";
});</script></body>"""

# shows what the page sends, be it in a frame or not
REPORT = """<script>window.addEventListener("message", (event) => {
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = event.data;
  document.body.append(out);
});</script></body>"""


def shown_by_browser(page, folder, *options):
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    # a frame in a process of its own would not be waited for
    command += ["--disable-features=IsolateSandboxedIframes"]
    command += ["--virtual-time-budget=6000", *options, (folder / "page.html").as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def use(page, folder):
    shown = shown_by_browser(page, folder, "--window-size=500,900", "--dump-dom")
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', shown, re.DOTALL)[1]))


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; V8 computes the same")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Use the page in a window as narrow as a phone."""
    page = with_script(with_script(nn.playground(), REPORT), DRIVER)
    return use(page, tmp_path_factory.mktemp("playground"))


@needs_browser
def test_steps_in_a_browser_equal_those_of_the_library(seen):
    assert seen["sizes"] == [2, 7, 6, 1]
    assert seen["neurons"] == 16
    expected = {
        "rate": 0.1,
        "batch": 16,
        "l2": 0.01,
        "optimizer": "momentum",
        "activation": "sigmoid",
    }
    assert expected.items() <= seen["setting"].items()
    net, loss, params = assert_steps(
        seen["setting"], seen["points"], 2, seen["before"], seen["steps"]
    )
    points = np.array(seen["points"])[seen["train"]]
    prediction = nn.apply(net, params, jnp.asarray(points[:, :2]))
    value, _ = loss.forward(prediction, targets(loss, points[:, 2].astype(int), 2))
    np.testing.assert_allclose(seen["now"]["train"]["J"], value, **EXACT)
    right = (np.asarray(prediction)[:, 0] > 0) == points[:, 2]
    assert seen["now"]["train"]["accuracy"] == pytest.approx(right.mean())
    assert len(seen["train"]) == 160
    assert seen["said"].startswith("One step taken, now at step 3. J is ")


@needs_browser
def test_a_step_is_shown_by_its_numbers(seen):
    assert seen["title"] == "Step 3: backpropagation by its numbers"
    assert seen["focusedTitle"]
    where, symbols, numbers, result, term, decay, momentum, step = seen["formula"]
    assert where.startswith("Gradient, layer 1: the weight from input 1 to neuron 1")
    assert symbols.startswith("∂J/∂W1,1(1)=x1,1⋅δ1,1(1)+x2,1⋅δ2,1(1)+…+x16,1⋅δ16,1(1)")
    assert numbers.startswith("=")
    assert float(plain(result.removeprefix("="))) == pytest.approx(seen["gradient"], rel=1e-5)
    assert term.startswith("Of it, the chosen point's term: ")
    assert decay.startswith("With λ times the weight: g=")
    assert momentum.startswith("Momentum: m←0.9×")
    name, _, new = step.rpartition("=")
    assert name.startswith("The step: W1,1(1)←")
    assert float(plain(new)) == pytest.approx(seen["steps"][-1]["layers"][0]["w"][0], rel=1e-5)
    assert seen["moved"] == 2  # the arrow keys go from number to number
    assert seen["chosen"].startswith("point 2 of the 16 in this step: x = (")


def plain(text):
    """Write a number of the page as Python does."""
    mantissa, _, exponent = text.replace("−", "-").partition("×10")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    return mantissa + (f"e{exponent.translate(digits)}" if exponent else "")


@needs_browser
def test_what_one_does_in_a_browser(seen):
    assert seen["problem"] == "Expected a learning rate above 0; the last good value stays."
    assert seen["noProblem"] == ""
    assert seen["focused"] == "layer 2: one neuron fewer"
    assert seen["other"]["data"] == "circles"
    assert seen["other"]["hidden"] == [3]
    assert seen["other"]["activation"] == "tanh"  # what makes no sense is left out
    assert seen["restored"]
    assert seen["outputs"] == 3  # for the point of a third class
    np.testing.assert_allclose(seen["added"][:2], [0.5, 0.5], atol=0.01)
    assert seen["count"] == 202
    assert seen["restoredPoints"]
    assert seen["wrongRow"] == 'Expected "x, y, class" with a class from 1 to 4, got "1, 2, three".'
    assert seen["pasted"] == [[-1, -1, 0], [-1, 1, 1], [1, -1, 1], [1, 1, 0]]
    assert seen["pressed"] == "true"
    assert seen["ran"] > 0
    assert seen["measured"]["steps"] == pytest.approx(25 * seen["measured"]["drawings"])
    assert seen["wide"]  # nothing extends beyond the edge


@needs_browser
def test_it_works_in_the_frame_of_a_notebook(seen, tmp_path):
    page = type(nn.playground())(with_script(nn.playground(), DRIVER))
    inside = use(f"<!DOCTYPE html><body>{page._repr_html_()}{REPORT}", tmp_path)
    assert inside["framed"]
    assert inside["steps"] == seen["steps"]


PICK_ALL = """<script>window.addEventListener("load", () => {
  const by = (id) => document.getElementById(id), wrong = [];
  let picked = 0;
  window.addEventListener("error", (event) => wrong.push(event.message));
  for (const setting of %s) {
    playground.takeSetting({ setting: { ...playground.state.setting, ...setting }, points: [] });
    playground.step(2);
    playground.render();
    by("show").click();
    for (const button of document.querySelectorAll("#tables button")) {
      button.click();
      picked++;
      const lines = [...by("formula").children].map((part) => part.textContent);
      if (/undefined|not a number|null/.test(lines.join())) wrong.push([setting, lines]);
    }
    by("show").click();
  }
  window.postMessage(JSON.stringify({ picked, wrong }), "*");
});</script></body>"""


@needs_browser
def test_every_number_of_every_kind_of_network_has_a_formula(tmp_path):
    settings = [
        {"activation": activation, "hidden": [2], "data": "iris", "batch": 4, "l2": 0.1}
        for activation in ACTIVATIONS
    ]
    settings += [
        {"optimizer": optimizer, "loss": loss, "data": data, "hidden": hidden, "batch": 0}
        for optimizer, loss, data, hidden in [
            ("sgd", "squared error", "iris", []),
            ("momentum", "squared error", "xor", [2]),
            ("adam", "cross-entropy", "xor", [1]),
        ]
    ]
    page = with_script(with_script(nn.playground(), REPORT), PICK_ALL % json.dumps(settings))
    seen = use(page, tmp_path)
    assert seen["wrong"] == []
    assert seen["picked"] > 300


LOOK = """<script>window.addEventListener("load", () => {
  for (let k = 0; k < 60; k++) playground.step(5);
  playground.render();
});</script></body>"""


@needs_browser
def test_it_looks_as_in_the_readme(tmp_path):
    """The tolerance allows for other fonts; without the network it differs by 22, empty by 46."""
    picture = tmp_path / "playground.png"
    page = with_script(nn.playground(), LOOK)
    shown_by_browser(page, tmp_path, "--window-size=1240,990", f"--screenshot={picture}")
    assert compare_images(str(BASELINE / "playground.png"), str(picture), tol=18) is None
