"""The pictures of layers that are not dense, in the page, and the page of a small transformer."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import traces
from test_page import BROWSER, compute, data_of, engine, looks_like, use, with_script

import jaxnn as nn

__all__ = ["engine"]  # a fixture
ROOT = Path(__file__).parent.parent
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def lstm(**settings):
    net = nn.chain(nn.LSTM(2, **settings), nn.Dense(1))
    return traces.drawn(net, nn.MeanSquaredError(), random(1, 3, 2), np.zeros((1, 3, 1)))


def attention(heads=1):
    net = nn.chain(nn.MultiHeadAttention(heads, causal=True), nn.Dense(2))
    return traces.drawn(net, nn.MeanSquaredError(), random(1, 3, 4), np.zeros((1, 3, 2)))


def picture_of(trace, k=0):
    return data_of(nn.explain(trace, "html"))["pictures"][k]


def shown(picture):
    return {(grid["identity"], *grid["place"]): grid for grid in picture["grids"]}


def test_a_convolution_is_an_image_a_kernel_and_an_output():
    trace = traces.convolution()
    grids = shown(picture_of(trace))
    shapes = {identity: grid["shape"] for (identity, *_), grid in grids.items()}
    assert shapes == {"x": [4, 4], "w@1": [2, 2], "b@1": [1, 1], "y@1": [3, 3]}
    assert [grid["slope"] for grid in grids.values()] == ["dx", "dw@1", "db@1", "dy@1"]


@pytest.mark.parametrize(
    ("layer", "x", "expected"),
    [
        (nn.Conv2D(3, 2), random(1, 3, 3, 2), {"x": 2, "w@1": 6, "b@1": 3, "y@1": 3}),
        (nn.Conv2D(2, 2, groups=2), random(1, 3, 3, 4), {"x": 4, "w@1": 4, "b@1": 2, "y@1": 2}),
        (nn.Conv1D(2, 2, bias=False), random(1, 5, 1), {"x": 1, "w@1": 2, "y@1": 2}),
        (nn.ConvTranspose2D(2, 2), random(1, 2, 2, 3), {"x": 3, "w@1": 6, "b@1": 2, "y@1": 2}),
        (nn.AveragePool(2), random(1, 4, 4, 2), {"x": 2, "count@1": 1, "y@1": 2}),
        (nn.GRU(2), random(1, 3, 2), {"h@1": 3, "r@1": 3, "u@1": 3, "g@1": 3, "z@1": 9, "x": 3}),
        (nn.RNN(2, reverse=True), random(1, 3, 2), {"h@1": 3, "z@1": 3, "x": 3}),
    ],
    ids=lambda value: repr(value) if hasattr(value, "formulas") else "",
)
def test_each_channel_and_step_of_time_has_a_grid(layer, x, expected):
    net = nn.chain(layer, nn.Flatten(), nn.Dense(1))
    picture = picture_of(traces.drawn(net, nn.MeanSquaredError(), x, np.zeros((1, 1))))
    found = [grid["identity"] for grid in picture["grids"]]
    assert {identity: found.count(identity) for identity in found} == expected
    places = [tuple(grid["place"]) for grid in picture["grids"]]
    assert len(set(places)) == len(places)  # none covers another
    assert all(0 <= k < len(found) for pair in picture["arrows"] for k in pair)


@pytest.mark.parametrize(("reverse", "first", "second"), [(False, 1, 2), (True, 2, 1)])
def test_a_recurrent_network_is_unrolled(reverse, first, second):
    """The cell of each step is computed from that of the step before, or after; z from its h."""
    picture = picture_of(lstm(reverse=reverse))
    grids = picture["grids"]
    named = lambda pair: [(grids[k]["identity"], grids[k]["at"][1]) for k in pair[:2]]
    arrows, around = (list(map(named, picture[kind])) for kind in ("arrows", "around"))
    lanes = {(grids[start]["at"][1], lane) for start, _, lane in picture["around"]}
    assert len(lanes) == len({lane for _, lane in lanes}) == 2  # of two states, no shared line
    assert [("c@1", first), ("c@1", second)] in arrows
    assert [("c@1", second), ("c@1", first)] not in arrows
    assert [("h@1", first), ("z@1", second)] in around
    assert [("h@1", second), ("z@1", first)] not in around
    within = [(one, other) for (one, t), (other, u) in arrows if t == u == first]
    assert within.count(("x", "z@1")) == 4  # one for each gate
    for gate, end in {"i": "c", "f": "c", "g": "c", "o": "h"}.items():
        assert within.count(("z@1", f"{gate}@1")) == within.count((f"{gate}@1", f"{end}@1")) == 1


def test_the_reset_gate_acts_on_the_candidate():
    """And the state enters all three gates; z is the part of the input alone."""
    net = nn.chain(nn.GRU(2), nn.Flatten(), nn.Dense(1))
    x = random(1, 2, 2)
    picture = picture_of(traces.drawn(net, nn.MeanSquaredError(), x, np.zeros((1, 1))))
    grids = picture["grids"]
    arrows = [[grids[k]["identity"][0] for k in pair] for pair in picture["arrows"]]
    assert ["r", "g"] in arrows
    assert ["r", "h"] not in arrows
    around = [[grids[k]["identity"][0] for k in pair[:2]] for pair in picture["around"]]
    assert sorted(around) == [["h", "g"], ["h", "r"], ["h", "u"]]


def test_attention_has_the_matrix_of_each_head():
    picture = picture_of(attention(heads=2))
    at = {grid["note"]: grid["at"] for grid in picture["grids"] if grid["identity"] == "p@1"}
    assert at == {
        "head 1, 0 right of the diagonal": ["sample", 0, ["r", 0], ["c", 0]],
        "head 2, 0 right of the diagonal": ["sample", 1, ["r", 0], ["c", 0]],
    }
    weights = [grid for grid in picture["grids"] if grid["identity"] == "wq@1"]
    assert [(grid["at"][1], grid["shape"]) for grid in weights] == [
        (["c", 0], [4, 2]),
        (["c", 2], [4, 2]),
    ]


USE = """<script>window.addEventListener("load", () => {
  const by = (id) => document.getElementById(id);
  const all = (what) => [...document.querySelectorAll(what)];
  const click = (element) => element.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  const seen = {}, cell = all(".cell:not(:has(.editable))")[1];
  click(cell);
  seen.clicked = by("formula").textContent;
  seen.value = cell.querySelector("text").textContent;
  seen.frames = all(".window").filter((frame) => frame.style.display === "").length;
  click(cell);
  seen.again = [by("where").textContent.split(" ")[0], by("formula").textContent];
  seen.slope = document.querySelector(".cell.now .slope").textContent; // perhaps in another picture
  backprop.go(0);
  const number = document.querySelector(".cell .editable"), before = backprop.arrays.J.data[0];
  number.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp", bubbles: true }));
  seen.moved = backprop.arrays.J.data[0] !== before;
  const targets = all("button, input:not([type=checkbox]), .ask, summary, .cell rect");
  const boxes = targets.map((target) => target.getBoundingClientRect());
  seen.lowest = Math.min(...boxes.filter(({ width }) => width > 0).map(({ height }) => height));
  seen.layers = [...by("layers").children].map((button) => button.textContent);
  by("layers").lastChild.click();
  seen.last = by("where").textContent;
  seen.wide = document.documentElement.scrollWidth <= window.innerWidth;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});</script></body>"""


@needs_browser
@pytest.mark.parametrize(
    "make", [traces.convolution, lstm, attention], ids=lambda make: make.__name__
)
def test_each_number_of_a_picture_leads_to_its_formulas(make, tmp_path):
    trace = make()
    seen = use(nn.explain(trace, "html"), tmp_path, USE)
    entry, slope, frames = {
        traces.convolution: ("z1,2,1", "δ1,2,1", 1),  # the window of the kernel
        lstm: ("h1,2", "∂J∂h1,2", 0),
        attention: ("q1,1,2", "∂J∂q1,1,2", 2),  # a row of x, a column of the weights
    }[make]
    assert (seen["clicked"].split("(")[0], seen["frames"]) == (entry, frames)
    assert seen["again"][0] == "Backward"
    assert seen["again"][1].startswith(slope)
    assert seen["value"] != ""
    assert seen["slope"] != ""
    assert seen["moved"]
    assert seen["layers"][0].startswith("1 ")
    assert seen["last"].endswith(f"loss: {trace.loss!r}")
    assert seen["wide"]
    assert seen["lowest"] >= 24  # pixels, for a finger


# ── A transformer that reads a word ──


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    """Run the script on a word, and return its page."""
    out = tmp_path_factory.mktemp("characters") / "page.html"
    given, sys.argv = sys.argv, ["character_page.py", "--text", "hello", "--out", str(out)]
    try:
        runpy.run_path(str(ROOT / "scripts" / "character_page.py"), run_name="__main__")
    finally:
        sys.argv = given
    return out.read_text(encoding="utf-8")


def test_the_page_of_a_transformer_computes_what_the_library_does(characters, engine):
    arrays = data_of(characters)["arrays"]  # those of the library
    computed = compute(engine, characters)
    for name, array in arrays.items():
        np.testing.assert_allclose(
            computed[name], array["data"], rtol=1e-12, atol=1e-12, err_msg=name
        )
    assert arrays["J"]["data"][0] < 0.5  # it has learned something: by chance it would be log 4
    assert len(characters) < 1_000_000
    assert {"dq@3.1.2", "dk@3.1.2", "dv@3.1.2", "dscore@3.1.2", "m_2@3.1.1"} <= set(arrays)


CHARACTERS = """<script>window.addEventListener("load", () => {
  const by = (id) => document.getElementById(id);
  const all = (what) => [...document.querySelectorAll(what)];
  const seen = {}, texts = (what) => all(what).map((text) => text.textContent);
  backprop.go(0);
  seen.embedding = texts(".token");
  seen.x = texts(".cell .editable").slice(0, 4);
  seen.lit = backprop.moments.map((_, k) => {
    backprop.go(k);
    return document.querySelector(".cell.now") !== null;
  });
  const buttons = [...by("layers").children];
  buttons.find((button) => button.textContent.includes("Multi")).click();
  seen.attention = texts(".token");
  const last = all(".cell:has(.slope)").pop();
  last.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  seen.entry = by("formula").textContent;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});</script></body>"""


@needs_browser
def test_the_tokens_are_labelled_by_their_characters(characters, tmp_path):
    seen = use(characters, tmp_path, CHARACTERS)
    word, vocabulary = [*"hell"], [*"ehlo"]
    assert seen["embedding"] == [*word, *vocabulary, *word]
    assert seen["x"] == word
    assert seen["attention"].count("h") == 10  # of x, q, k, v, o, y, and twice of s and p
    assert all(seen["lit"])  # each step lights a number of the picture
    assert seen["entry"].startswith(("∂J∂y4,4", "y4,4"))


ASKED = """<script>window.addEventListener("load", () => {
  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("trace").textContent), seen = [];
  const steps = Number(by("slider").max) + 1;
  by("ask").click();
  for (let k = 0; k < steps; k += 7) {
    backprop.go(k);
    const one = { asks: !by("question").hidden, hidden: by("result").textContent === "" };
    const { s, at } = backprop.moments[k], array = backprop.arrays[data.steps[s].defines];
    const value = array.data[at.reduce((flat, i, axis) => flat * array.shape[axis] + i, 0)];
    by("answer").value = String(value);
    by("question").requestSubmit();
    one.shows = by("result").textContent !== "" && by("question").hidden;
    seen.push({ ...one, score: by("score").textContent });
  }
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});</script></body>"""


@needs_browser
def test_a_page_of_many_numbers_asks_for_the_one_that_is_written_out(characters, tmp_path):
    seen = use(characters, tmp_path, ASKED)
    assert len(seen) > 5
    for k, one in enumerate(seen, start=1):
        score = f"{k} of {k} right at the first try"
        assert one == {"asks": True, "hidden": True, "shows": True, "score": score}


LOOK = """<script>window.addEventListener("load", () => backprop.show("dscore@3.1.2", 9));
</script></body>"""


@needs_browser
def test_the_transformer_looks_as_in_the_readme(characters, tmp_path):
    """The tolerance allows for other fonts and, after training, for other last digits."""
    assert looks_like("page-characters.png", characters, LOOK, "1240,850", tmp_path)


FRAMED = """<script>window.addEventListener("message", ({ data }) => {
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(data);
  document.body.append(out);
});</script>"""
TELL = """<script>window.addEventListener("load", () => {
  document.getElementById("last").click();
  window.parent.postMessage({ count: document.getElementById("count").textContent }, "*");
});</script></body>"""


@needs_browser
def test_it_works_in_the_frame_of_a_notebook(tmp_path):
    page = nn.explain(attention(), "html")
    framed = type(page)(with_script(page, TELL))._repr_html_()
    (tmp_path / "notebook.html").write_text(f"<body>{FRAMED}{framed}</body>", encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu"]
    # in one process, since a frame in a process of its own would not be waited for
    command += ["--disable-features=IsolateSandboxedIframes", "--disable-site-isolation-trials"]
    command += ["--virtual-time-budget=4000", "--dump-dom", (tmp_path / "notebook.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    count = re.search(r'<pre id="seen">{"count":"(\d+) / (\d+)"}</pre>', shown)
    assert count[1] == count[2]


@needs_browser
def test_it_can_be_printed(characters, tmp_path):
    """On paper there are no controls, and the picture is there as a whole."""
    (tmp_path / "page.html").write_text(with_script(characters, LOOK), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += ["--virtual-time-budget=4000", f"--print-to-pdf={tmp_path / 'page.pdf'}"]
    subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()], capture_output=True, timeout=120, check=True
    )
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "abcd"}, "expected one token for each step of time of the input"),
        ({"tokens": [1, 2, 3]}, "expected tokens to be texts"),
        ({"vocabulary": 3}, "expected vocabulary to be texts"),
        ({"tokens": "abc", "format": "text"}, 'expected format "html" with tokens'),
    ],
)
def test_names_that_do_not_fit_are_refused(options, message):
    with pytest.raises(nn.InputError, match=message):
        nn.explain(lstm(), **({"format": "html"} | options))


# ── The same exercise on paper ──


def test_page_and_worksheet_of_a_seed_have_the_same_numbers():
    trace = traces.lecture()
    data = data_of(nn.explain(trace, "html", seed=7))["arrays"]
    sheet = nn.explain(trace, "text", seed=7)
    assert data != data_of(nn.explain(trace, "html", seed=8))["arrays"]
    assert all(f"{value:.6g}" in sheet for value in data["y@1"]["data"])
    assert set(np.ravel(data["w@1"]["data"])) <= {k / 2 for k in range(-4, 5)}
