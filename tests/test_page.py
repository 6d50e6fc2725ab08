"""The page computes the numbers of the library, in V8 and, if there is one, in a browser."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest
import traces
from matplotlib.testing.compare import compare_images
from py_mini_racer import MiniRacer

import jaxnn as nn
from jaxnn.equations import equations_of
from jaxnn.explanation.page import key

BASELINE = Path(__file__).parent / "baseline"
BROWSER = next(
    filter(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")), None
)


def data_of(page):
    return json.loads(
        re.search(r'<script id="trace" type="application/json">(.*?)</script>', page, re.DOTALL)[1]
    )


@pytest.fixture(scope="module")
def engine():
    """Start V8 with the part of the page that computes."""
    racer = MiniRacer()
    assets = resources.files("jaxnn.explanation").joinpath("assets")
    for name in ("functions.js", "engine.js", "asking.js"):
        racer.eval(assets.joinpath(name).read_text(encoding="utf-8"))
    return racer


def compute(engine, page, changed=()):
    """Compute all equations by the code of the page; arrays that they define start as zeros."""
    data = data_of(page)
    flat = {name: array["data"] for name, array in data["arrays"].items()} | dict(changed)
    for step in data["steps"]:
        flat[step["defines"]] = [0.0] * len(flat[step["defines"]])
    engine.eval(f"var flat = {json.dumps(flat)}")
    engine.eval("for (const id of Object.keys(flat)) flat[id] = Float64Array.from(flat[id])")
    engine.eval(re.search(r"^const (STEPS = \[.*?^\]);", page, re.DOTALL | re.MULTILINE)[1])
    engine.eval("recompute(STEPS, flat)")
    lists = "Object.fromEntries(Object.entries(flat).map(([id, data]) => [id, Array.from(data)]))"
    computed = json.loads(engine.eval(f"JSON.stringify({lists})"))
    return {name: np.asarray(array, float) for name, array in computed.items()}


def assert_same(computed, equations):
    for step in equations.steps:
        np.testing.assert_allclose(
            computed[key(step.defines)],
            np.ravel(equations.values[step.defines]),
            rtol=1e-12,
            atol=1e-12,
            err_msg=key(step.defines),
        )


# ── The numbers ──


def test_each_branch_of_a_sum_has_the_derivative_of_the_sum(engine):
    trace = traces.added_branches()
    assert_same(compute(engine, nn.explain(trace, "html")), equations_of(trace))


@pytest.mark.parametrize("name", traces.ALL)
def test_the_page_computes_what_the_library_does(name, engine):
    trace = traces.ALL[name]()
    assert_same(compute(engine, nn.explain(trace, "html")), equations_of(trace))


@pytest.mark.parametrize("seed", range(8))
def test_random_small_networks(seed, engine):
    random = np.random.default_rng(seed)
    activations = (
        nn.Sigmoid(),
        nn.Tanh(),
        nn.ReLU(),
        nn.GELU(),
        nn.Softplus(),
        nn.ELU(),
        nn.SiLU(),
        nn.Softmax(),
    )
    hidden = []
    for _ in range(random.integers(1, 3)):
        hidden.append(nn.Dense(int(random.integers(1, 6)), bias=bool(random.integers(2))))
        hidden.append(activations[random.integers(len(activations))])
    classes, batch = int(random.integers(2, 4)), int(random.integers(1, 4))
    net = nn.chain(*hidden, nn.Dense(classes))
    loss, target = [
        (nn.SoftmaxCrossEntropy(smoothing=0.1), random.integers(0, classes, batch)),
        (nn.SigmoidBinaryCrossEntropy(), random.integers(0, 2, (batch, classes))),
        (nn.Huber(), random.standard_normal((batch, classes))),
    ][seed % 3]
    trace = traces.drawn(net, loss, random.standard_normal((batch, 3)), target, seed)
    assert_same(compute(engine, nn.explain(trace, "html")), equations_of(trace))


def test_changed_numbers_give_what_the_library_gives_for_them(engine):
    trace = traces.relu_classes()
    page = nn.explain(trace, "html")
    weights = data_of(page)["arrays"]["w@1"]["data"]
    weights[3] = -0.25
    w = trace.params[0].w.copy()
    w[0, 3] = -0.25
    params = (trace.params[0]._replace(w=w), *trace.params[1:])
    changed = nn.trace(trace.net, trace.loss, params, np.array([[0.7, -1.3]]), np.array([2]))
    assert_same(
        compute(engine, page, {"x": [0.7, -1.3], "t": [2], "w@1": weights}), equations_of(changed)
    )


def test_what_decides_a_case_is_lit(engine):
    """A derivative of 0 comes from somewhere: from the sign of z, from another largest entry."""
    net = nn.chain(nn.ReLU(), nn.MaxPool(2), nn.Flatten())
    x = np.array([[[1.0], [2.0], [-3.0], [-4.0]]])
    page = nn.explain(traces.drawn(net, nn.MeanSquaredError(), x, np.zeros((1, 2))), "html")
    compute(engine, page)
    shapes = {name: array["shape"] for name, array in data_of(page)["arrays"].items()}
    defines = [step["defines"] for step in data_of(page)["steps"]]

    def lit(name, *letters):
        written = f"STEPS[{defines.index(name)}].written(trees, flat, {list(letters)})"
        engine.eval(f"var trees = treesOf({json.dumps(shapes)})")
        return json.loads(engine.eval(f"JSON.stringify(mentions({written}))"))

    assert lit("y@1", 0, 2, 0) == [["x", [0, 2, 0]]]
    assert lit("dy@1", 0, 0, 0) == [["first@2", [0, 0, 0]]]
    assert lit("dy@1", 0, 1, 0) == [["first@2", [0, 0, 0]], ["dy@2", [0, 0, 0]]]
    assert lit("dx", 0, 3, 0) == [["y@1", [0, 3, 0]]]


def test_the_functions_are_exact_over_their_range(engine):
    x = np.concatenate([np.linspace(-12, 12, 481), [-40.0, -800.0, 800.0]])
    net = nn.chain(nn.GELU(), nn.Dense(1))
    trace = traces.drawn(net, nn.MeanSquaredError(), x[None], np.zeros((1, 1)))
    computed = compute(engine, nn.explain(trace, "html"))
    np.testing.assert_allclose(computed["y@1"], trace.stages[0].y[0], rtol=1e-12, atol=1e-14)
    for activation in (nn.Sigmoid(), nn.Softplus(), nn.Mish()):
        trace = traces.drawn(
            nn.chain(activation), nn.MeanSquaredError(), x[None], np.zeros((1, len(x)))
        )
        computed = compute(engine, nn.explain(trace, "html"))
        assert np.isfinite(computed["dx"]).all()
        np.testing.assert_allclose(computed["y@1"], trace.stages[0].y[0], rtol=1e-12, atol=1e-14)


# ── The page ──


class Parsed(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_can_be_used_by_all():
    page = nn.explain(traces.lecture(), "html")
    tags = Parsed(page).tags
    assert not [attrs for _, attrs in tags if "src" in attrs or "href" in attrs]
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(|localStorage", page
    )
    assert ("html", {"lang": "en"}) in tags
    assert any(attrs.get("name") == "viewport" for _, attrs in tags)
    assert any(attrs.get("aria-live") == "polite" for _, attrs in tags)
    assert all("type" in attrs for tag, attrs in tags if tag == "button")
    assert "prefers-color-scheme: dark" in page
    assert page.isascii() or 'charset="utf-8"' in page
    shown = page._repr_html_()
    assert shown.startswith('<iframe sandbox="allow-scripts" srcdoc=')
    assert '"Backpropagation, step by step"' in shown


def test_a_network_too_large_for_a_page_is_refused():
    trace = traces.drawn(
        nn.mlp(400, 400, 1), nn.MeanSquaredError(), np.ones((1, 2)), np.ones((1, 1))
    )
    with pytest.raises(
        nn.InputError, match=r"expected at most 200,000 numbers for a page, got \d{3},\d{3}"
    ):
        nn.explain(trace, "html")


DRIVER = """<script>window.addEventListener("load", () => {
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  const by = (id) => document.getElementById(id), seen = {};
  const numbers = () => Object.fromEntries(
    Object.entries(backprop.arrays).map(([id, { data }]) => [id, Array.from(data)]));
  const state = () => ["where", "formula", "numbers", "result"].map((id) => by(id).textContent);
  for (let i = 0; i < 10; i++) press("ArrowRight");
  by("back").click();
  seen.tenth = state();
  seen.lit = document.querySelectorAll("line.used, line.now").length;
  const weights = [...document.querySelectorAll("#graph .chip.editable")];
  seen.labels = weights.map((text) => text.textContent).filter(Boolean).length;
  press("End");
  seen.last = by("count").textContent;
  seen.disabled = by("forward").disabled;
  const input = document.querySelector('input[aria-label^="W of layer 1"]');
  const type = (value) => {
    input.value = value;
    input.dispatchEvent(new Event("input", {bubbles: true}));
  };
  const chip = document.querySelector('#graph .chip[aria-label^="W of layer 1"]');
  if (chip) {  // a number of the graph: by keyboard, by typing over it, by dragging
    const before = Number(chip.getAttribute("aria-valuenow"));
    chip.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowUp", bubbles: true}));
    seen.up = Number(chip.getAttribute("aria-valuenow")) - before;
    chip.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
    by("over").value = "0.75";
    by("over").dispatchEvent(new Event("input", {bubbles: true}));
    seen.typed = Number(chip.getAttribute("aria-valuenow"));
    by("over").blur();
    const pointer = (kind, x) => new PointerEvent(kind, {pointerId: 1, clientX: x, bubbles: true});
    chip.setPointerCapture = () => {};
    chip.dispatchEvent(pointer("pointerdown", 100));
    chip.dispatchEvent(pointer("pointermove", 120));
    chip.dispatchEvent(pointer("pointerup", 120));
    seen.dragged = Number(chip.getAttribute("aria-valuenow"));
    const known = document.querySelector("#graph .value.known:not(.editable)");
    known.dispatchEvent(new MouseEvent("click", {bubbles: true}));
    seen.clicked = by("where").textContent;
  }
  type("");
  seen.problem = by("problem").textContent;
  type("0.25");
  seen.noProblem = by("problem").textContent;
  seen.edited = numbers();
  by("rate").value = "0.5";
  by("rate").dispatchEvent(new Event("input"));
  for (let i = 0; i < 3; i++) by("descend").click();
  seen.descended = numbers();
  seen.curve = by("curve-note").textContent;
  by("ask").click();
  const answer = (text) => {
    by("answer").value = text;
    by("question").requestSubmit();
    return by("verdict").textContent;
  };
  backprop.go(0);
  seen.hidden = by("result").textContent;
  seen.wrong = answer(String(-backprop.arrays["y@1"].data[0]));
  by("show").click();
  seen.score = by("score").textContent;
  by("ask").click();
  by("reset").click();
  seen.reset = numbers();
  seen.wide = document.documentElement.scrollWidth <= window.innerWidth;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});</script></body>"""


def with_script(page, end):
    """Add a script before the end of the page, and to the scripts that its policy allows."""
    script = re.search(r"<script>(.*)</script>", end, re.DOTALL)[1]
    source = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page.replace("script-src ", f"script-src 'sha256-{source}' ").replace("</body>", end)


def use(page, tmp_path, driver=DRIVER, *options):
    """Open a page in a browser window as narrow as a phone, use it, and return what it shows."""
    (tmp_path / "page.html").write_text(with_script(page, driver), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900"]
    command += options
    command += ["--virtual-time-budget=4000", "--dump-dom", (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', shown, re.DOTALL)[1]))


def library(trace, steps, rate):
    """Change one weight and make steps of descent, as the user of the page does."""
    first = trace.params[0]
    w = first.w.copy() if hasattr(first, "w") else first.wx.copy()
    w.flat[0] = 0.25
    params = (
        first._replace(w=w) if hasattr(first, "w") else first._replace(wx=w),
        *trace.params[1:],
    )
    for _ in range(steps):
        _, gradient = nn.value_and_grad(trace.net, trace.loss)(params, trace.x, trace.target)
        params = jax.tree.map(lambda p, d: p - rate * d, params, gradient)
    return equations_of(nn.trace(trace.net, trace.loss, params, trace.x, trace.target))


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; V8 computes the same above")
@pytest.mark.parametrize(
    "name", [name for name in traces.ALL if name not in ("nested", "a recurrent net")]
)
def test_in_a_browser(name, tmp_path):
    trace = traces.ALL[name]()
    seen = use(nn.explain(trace, "html"), tmp_path)
    flat = lambda arrays: {key: np.asarray(array) for key, array in arrays.items()}
    assert_same(flat(seen["edited"]), library(trace, 0, 0.5))
    assert_same(flat(seen["descended"]), library(trace, 3, 0.5))
    assert_same(flat(seen["reset"]), equations_of(trace))
    assert seen["problem"].startswith("Expected a number for W")
    assert seen["noProblem"] == ""
    assert seen["curve"].endswith("in 3 steps")
    assert seen["disabled"]
    assert seen["wide"]  # nothing extends beyond the edge
    count, total = seen["last"].split(" / ")
    assert count == total
    assert seen["hidden"] == ""
    assert seen["score"] == "0 of 1 right at the first try"
    if name != "a convolution on a 4 x 4 image":
        assert seen["up"] == pytest.approx(0.1)
        assert (seen["typed"], seen["dragged"]) == (0.75, 0.95)
        assert seen["clicked"] == f"Backward · layer 1: {trace.net.layers[0]!r}"
    if name == "the lecture's example":
        where, formula, numbers, result = seen["tenth"]
        assert where == "Backward · loss: BinaryCrossEntropy()"
        assert formula == "∂J∂a(2)=−1a(2)"  # fractions are typeset, not written in a line
        assert (numbers, result) == ("=−10.590378", "=−1.69383")
        assert seen["wrong"] == "No: it seems that the sign is wrong."
        assert seen["labels"] == 9  # every edge bears its weight
        assert int(total) == 28
    if name == "ReLU, biases, three classes":
        assert seen["lit"] == 4  # the edges to the output that is computed in this step


def test_a_wrong_answer_is_explained(engine):
    engine.eval("var node = ['t', 'sum', [['o', '*', ['n', 2], ['n', 3]], ['n', 5]]]")
    why = lambda answer: engine.eval(f"mistakeIn({answer}, node, null)")
    assert why(-11) == "the sign is wrong"
    assert why(6) == why(5) == "a term of the sum is missing"
    assert why(8) == why(7) == "a factor is missing"
    assert why(100) == ""


CHOOSE = """<script>window.addEventListener("load", () => {
  backprop.choose(2);
  const out = document.createElement("pre");
  out.id = "seen";
  const seen = [...Array(backprop.moments.length).keys()].map((k) => {
    backprop.go(k);
    return document.getElementById("formula").textContent;
  });
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_batch_is_shown_one_sample_at_a_time(tmp_path):
    """XOR: the steps are those of the sample that is chosen, and of the weights."""
    net = nn.chain(nn.Dense(2), nn.Tanh(), nn.Dense(1), nn.Sigmoid())
    x = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    trace = traces.drawn(net, nn.BinaryCrossEntropy(), x, np.array([[0], [1], [1], [0]]))
    seen = use(nn.explain(trace, "html"), tmp_path, CHOOSE)
    assert len(seen) == (2 + 2 + 1 + 1 + 1) + (1 + 1 + 2 + 1 + 2 + 2 + 4 + 2 + 2)
    assert seen[0] == "z3,1(1)=x3,1·W1,1(1) +x3,2·W2,1(1) +b1(1)"
    sums = [line for line in seen if line.startswith("∂J∂W")]
    assert len(sums) == 6
    assert all(line.count("+") == 3 for line in sums)  # the weights are shared by four samples


TARGET = """<script>window.addEventListener("load", () => {
  const out = document.createElement("pre");
  const nodes = [...document.querySelectorAll("#graph text.j.editable")];
  backprop.go(backprop.moments.length - 1);
  out.id = "seen";
  out.textContent = JSON.stringify(nodes.map((node) => node.textContent));
  document.body.append(out);
});</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("classes", [[2], [1, 2, 0]])
def test_a_class_stands_beside_the_loss(tmp_path, classes):
    net = nn.chain(nn.Dense(2), nn.Tanh(), nn.Dense(3))
    x = np.arange(2.0 * len(classes)).reshape(-1, 2)
    trace = traces.drawn(net, nn.SoftmaxCrossEntropy(), x, np.array(classes))
    assert use(nn.explain(trace, "html"), tmp_path, TARGET) == [str(classes[0])]


HOSTILE = "</script><img src=x onerror=alert(1)> /*JS*/ `b` \\input{a} ^ ~ $"


@nn.layer
class Noted(nn.Tanh):
    """A layer whose representation holds text of any kind."""

    note: str = ""


def test_a_setting_is_shown_as_the_text_that_it_is():
    net = nn.chain(nn.Dense(2), Noted(note=HOSTILE), nn.Dense(1), nn.Sigmoid())
    x = np.ones((1, 2))
    params = net.init(jax.random.key(0), x)
    trace = nn.trace(net, nn.BinaryCrossEntropy(), params, x, np.array([[1]]))
    page = nn.explain(trace, "html")
    assert "<img" not in page
    assert page.count("</script>") == 2  # the data's and the code's own
    assert any(HOSTILE[:9] in group["title"] for group in data_of(page)["groups"])
    assert nn.explain(trace, "html")._repr_html_().startswith('<iframe sandbox="allow-scripts" ')
    assert "`` Noted(note=" in nn.explain(trace, "markdown")
    latex = nn.explain(trace, "latex")
    assert r"\textbackslash{}input\{a\} \textasciicircum{} \textasciitilde{} \$" in latex
    assert r"\input" not in latex


LOOK = """<script>window.addEventListener("load", () => backprop.go(21))</script></body>"""


def looks_like(name, page, driver, size, folder):
    """Return whether a page, after a script has used it, looks like a baseline image."""
    (folder / "page.html").write_text(with_script(page, driver), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={size}", "--virtual-time-budget=4000"]
    command += [f"--screenshot={folder / name}", (folder / "page.html").as_uri()]
    for _ in range(3):  # Chromium at times takes a picture before the last rows are painted
        subprocess.run(command, capture_output=True, timeout=120, check=True)
        if compare_images(str(BASELINE / name), str(folder / name), tol=15) is None:
            return True
    return False


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here to take a picture with")
def test_it_looks_as_in_the_readme(tmp_path):
    """The tolerance allows for other fonts; without its graph a page differs by 17, empty by 33."""
    assert looks_like("page.png", nn.explain(traces.lecture(), "html"), LOOK, "900,810", tmp_path)
