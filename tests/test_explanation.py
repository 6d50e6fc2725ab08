"""Explanations as text, LaTeX, Markdown and pictures contain the right formulas and numbers."""

import base64
import io
import itertools
import re
import shutil
import subprocess
import xml.etree.ElementTree

import jax
import matplotlib as mpl
import numpy as np
import pytest
import traces
from IPython.lib.pretty import pretty
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from PIL import Image
from scipy.special import expit, ndtr

import jaxnn as nn
from jaxnn import plots
from jaxnn.explanation.matrices import BLANK
from jaxnn.explanation.worksheet import redraw
from jaxnn.formulas.expressions import Num, Op, Spot
from jaxnn.formulas.printing import LatexWriter, Writer

# what the lecture publishes, to its digits
LECTURE = {
    "h": ["0.999983299", "0.731059", "0.9999938558"],
    "y": ["0.590378"],
    "J": ["0.526992"],
    "dJ/dy": ["-1.69383"],
    "dJ/dV": ["-0.409615", "-0.299458", "-0.409619"],
    "dJ/dh": ["-0.0409622", "-0.204811", "0.0409622"],
    "dJ/dW": [
        "-3.42058e-06",
        "-0.201341",
        "1.25839e-06",
        "-2.05235e-06",
        "-0.120805",
        "7.55032e-07",
    ],
}
NUMBERS = [number for numbers in LECTURE.values() for number in numbers]


def as_latex_number(number):
    mantissa, _, exponent = number.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if exponent else mantissa


# ── Text ──


def test_the_lectures_numbers_in_text():
    text = nn.explain(traces.lecture())
    assert [number for number in NUMBERS if f"= {number}\n" not in text] == []
    assert "    z⁽¹⁾[2] = x[1]·W⁽¹⁾[1, 2] + x[2]·W⁽¹⁾[2, 2] = 5×(-1) + 3×2 = 1\n" in text
    assert "    ∂J/∂a⁽²⁾ = -1 / a⁽²⁾ = -1 / 0.590378 = -1.69383\n" in text
    assert (
        text.index("Forward")
        < text.index("J = -log(a⁽²⁾)")
        < text.index("Backward")
        < text.index("∂J/∂a⁽²⁾ = -1 / a⁽²⁾")
    )


def test_the_other_label():
    text = nn.explain(traces.lecture(label=0), digits=8)
    assert "J = -log(1 - a⁽²⁾) = -log(1 - 0.590378) = 0.8925205" in text
    assert "∂J/∂a⁽²⁾ = 1 / (1 - a⁽²⁾) = 1 / (1 - 0.590378) = 2.4412751" in text


FUNCTIONS = {
    "σ": expit, "Φ": ndtr, "φ": lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi),
    "tanh": np.tanh, "log": np.log, "exp": np.exp, "sqrt": np.sqrt, "max": max,
}  # fmt: skip


@pytest.mark.parametrize("name", traces.ALL)
def test_the_numbers_put_in_give_the_result(name):
    """Each line is computed in the way of a reader with a calculator."""
    checked = 0
    for line in nn.explain(traces.ALL[name](), digits=12).splitlines():
        parts = [part.strip() for part in line.split(" = ")]
        if not line.startswith("    ") or len(parts) != 4 or "…" in line:
            continue
        sum_ = parts[2].replace("×", "*").replace("²", "**2").replace("√", "sqrt")
        value = eval(sum_, {"__builtins__": {}}, FUNCTIONS)
        assert value == pytest.approx(float(parts[3]), rel=1e-8, abs=1e-10), line
        checked += 1
    assert checked > 15


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ReLU, biases, three classes", "z⁽¹⁾[o] = Σ_i x[i]·W⁽¹⁾[i, o] + b⁽¹⁾[o]"),
        ("ReLU, biases, three classes", "J = log(exp(z⁽²⁾[1]) + exp(z⁽²⁾[2]) + exp(z⁽²⁾[3])) - z"),
        ("a recurrent net", "h⁽¹⁾[3, j] = tanh(z⁽¹⁾[3, j])"),
        ("a recurrent net", "∂J/∂h⁽¹⁾[2, j] = Σ_k ∂J/∂z⁽¹⁾[3, k]·W_h⁽¹⁾[j, k]"),
        (
            "a convolution on a 4 x 4 image",
            "z⁽¹⁾[r, s, o] = Σ_klc x[r + k - 1, s + l - 1, c]·W⁽¹⁾[k, l, c, o] + b⁽¹⁾[o]",
        ),
        (
            "a convolution on a 4 x 4 image",
            "∂J/∂x[p, q, c] = Σ_rso δ⁽¹⁾[r, s, o]·W⁽¹⁾[p - r + 1, q - s + 1, c, o]",
        ),
        ("nested", "y⁽¹⁾[i, j] = x[i, j] + y⁽¹·¹⁾[i, j]"),
        (
            "nested",
            "∂J/∂s⁽¹·¹·²⁾[h, t, s] = p⁽¹·¹·²⁾[h, t, s]·(∂J/∂p⁽¹·¹·²⁾[h, t, s] "
            "- Σ_j p⁽¹·¹·²⁾[h, t, j]·∂J/∂p⁽¹·¹·²⁾[h, t, j])",
        ),
    ],
)
def test_formulas_of_other_layers(name, words):
    assert words in nn.explain(traces.ALL[name]())


def test_one_derivative_factor_by_factor():
    assert nn.explain(traces.lecture(), of="[0].w[0, 1]").splitlines() == [
        "∂J/∂W⁽¹⁾[1, 2], back from the loss; in the code, this number is [0].w[0, 1]",
        f"  ∂J/∂a⁽²⁾             = {'-1 / a⁽²⁾':32} = {'-1 / 0.590378':23} = -1.69383",
        f"  ∂a⁽²⁾/∂z⁽²⁾          = {'a⁽²⁾·(1 - a⁽²⁾)':32} = 0.590378×(1 - 0.590378) = 0.241832",
        f"  ∂z⁽²⁾/∂a⁽¹⁾[2]       = {'W⁽²⁾[2, 1]':32}   {'':23} = 0.5",
        f"  ∂a⁽¹⁾[2]/∂z⁽¹⁾[2]    = {'a⁽¹⁾[2]·(1 - a⁽¹⁾[2])':32}"
        " = 0.731059×(1 - 0.731059) = 0.196612",
        f"  ∂z⁽¹⁾[2]/∂W⁽¹⁾[1, 2] = {'x[1]':32}   {'':23} = 5",
        f"  ∂J/∂W⁽¹⁾[1, 2]       = -1.69383×0.241832×0.5×0.196612×5 {'':25} = -0.201341",
    ]


@pytest.mark.parametrize("name", traces.ALL)
def test_the_last_line_of_a_chain_is_the_derivative(name):
    trace = traces.ALL[name]()
    place = {
        "a recurrent net": "[0].wh[0, 1]",
        "a convolution on a 4 x 4 image": "[0].w[0, 1, 0, 0]",
        "nested": "[2][1][0].w[0, 0]",
    }
    place = place.get(name, "[0].w[0, 1]")
    text = nn.explain(trace, of=place, digits=9)
    assert float(text.split()[-1]) == pytest.approx(float(trace.at(place).derivative), rel=1e-7)


def test_a_layer_without_formulas_is_named():
    @nn.layer
    class Silent(nn.Tanh):
        formulas = None

    trace = traces.drawn(
        nn.chain(nn.Dense(2), Silent()), nn.MeanSquaredError(), np.ones((1, 2)), np.ones((1, 2))
    )
    assert "[1]: states no formulas" in nn.explain(trace)
    assert "∂J/∂W⁽¹⁾[1, 1] = x[1]·δ⁽¹⁾[1]" in nn.explain(trace)
    with pytest.raises(nn.InputError, match=r"expected formulas for a page, got none of \[1\]"):
        nn.explain(trace, "html")


def test_a_combinator_without_formulas_is_not_guessed_at():
    trace = traces.drawn(
        nn.chain(nn.Dense(2), traces.Twice(nn.Dense(2))),
        nn.Huber(),
        np.ones((1, 2)),
        np.ones((1, 2)),
    )
    assert "[1]: states no formulas" in nn.explain(trace)
    assert "[1].body" not in nn.explain(trace)


def residual():
    net = nn.chain(nn.Dense(2), nn.Residual(nn.chain(nn.Dense(2), nn.Tanh())), nn.Dense(1))
    return traces.drawn(net, nn.MeanSquaredError(), np.array([[1.0, 2.0]]), np.ones((1, 1)))


def test_inside_a_residual_each_number_has_its_own_name():
    text = nn.explain(residual())
    assert "y⁽²⁾[1] = z⁽¹⁾[1] + a⁽²·¹⁾[1]" in text
    assert "δ⁽¹⁾[1] = ∂J/∂y⁽²⁾[1] + ∂J/∂x⁽²·¹⁾[1]" in text
    chain = nn.explain(residual(), of="[0].w[0, 0]")
    assert "= 1 - a⁽²·¹⁾[1]²" in chain
    assert "∂x⁽²·¹⁾[1]/∂z⁽¹⁾[1]" in chain


def test_the_negation_of_a_negative_number_has_parentheses():
    node = Op("-", Num(0), Spot("m1", (0,)))
    assert Writer(lambda spot: "-1.5")(node) == "-(-1.5)"
    assert LatexWriter(lambda spot: "-1.5")(node) == r"-\left(-1.5\right)"
    assert Writer(lambda spot: "1.5")(node) == "-1.5"


def test_a_divisor_keeps_its_parentheses():
    trace = traces.drawn(
        nn.Sigmoid(), nn.BinaryCrossEntropy(), np.ones((2, 1)), np.array([[1], [0]])
    )
    assert "= 1 else 1 / (1 - a⁽¹⁾[n0, n1])) / 2" in nn.explain(trace)


def test_a_chain_does_not_pass_over_a_layer_without_formulas():
    @nn.layer
    class Double:
        def init(self, key, x):
            return ()

        def forward(self, params, x, key=None):
            return 2 * x, None

        def backward(self, params, cache, dy):
            return (), 2 * dy

    net = nn.chain(nn.Dense(2), Double(), nn.Dense(1))
    trace = traces.drawn(net, nn.MeanSquaredError(), np.ones((1, 2)), np.ones((1, 1)))
    lines = nn.explain(trace).splitlines()
    places = [k for k, line in enumerate(lines) if line.startswith("[1]: states no formulas")]
    third = "Layer 3: [2] Dense(features=1); W⁽³⁾ = [2].w, b⁽³⁾ = [2].b"
    headings = [lines.index(third), lines.index("Backward")]
    assert len(places) == 2
    assert places[0] < headings[0] < headings[1] < places[1]
    assert "∂J/∂z⁽³⁾" in nn.explain(trace, of="[2].w[0, 0]")
    with pytest.raises(nn.InputError, match=r"expected a formula .* by z⁽¹⁾.*stated by \[1\]"):
        nn.explain(trace, of="[0].w[0, 0]")


# ── LaTeX and Markdown ──


def test_a_blank_sheet_leaves_open_which_case_holds():
    sheet, answers = nn.explain(traces.relu_classes(), "latex", blanks=True).split(r"\newpage")
    assert sheet.count(r"\begin{cases} z^{(1)}_") == 4
    assert r"\begin{cases}" not in answers


def test_an_exercise_has_something_to_compute():
    net = nn.chain(nn.Dense(2), nn.ReLU(), nn.Dense(1), nn.Sigmoid())
    trace = traces.drawn(
        net, nn.BinaryCrossEntropy(), np.array([[1.0, 2.0], [0.5, 1.0]]), np.array([[1], [0]])
    )
    for seed in range(12):
        drawn = redraw(trace, seed)
        assert np.any(drawn.stages[0].dparams.w)
        assert np.any(drawn.x[0] != drawn.x[1])


def test_the_lectures_numbers_in_latex():
    latex = nn.explain(traces.lecture(), "latex")
    assert [number for number in NUMBERS if f"= {as_latex_number(number)}" not in latex] == []
    symbols = r"z^{(1)}_{1} &= x_{1} \, W^{(1)}_{1, 1} + x_{2} \, W^{(1)}_{2, 1}"
    assert rf"{symbols} = 5 \times 1 + 3 \times 2 = 11" in latex


def test_blanks_hold_no_answers_and_the_answers_follow():
    task, answers = nn.explain(traces.lecture(), "latex", blanks=True).split(r"\newpage")
    assert [number for number in NUMBERS if as_latex_number(number) in task] == []
    assert task.count(r"\underline") == 2 * 9 + 2 * 19
    assert r"$\sigma(z) = 1 / (1 + e^{-z})$, and $\log$ is the natural logarithm." in task
    assert r"\underline{\hspace{14em}} = \underline{\hspace{5em}}" in task  # room for four numbers
    assert [number for number in NUMBERS if as_latex_number(number) not in answers] == []


def test_thirty_worksheets_differ():
    sheets = [
        nn.explain(traces.lecture(), "markdown", blanks=True, seed=seed) for seed in range(30)
    ]
    assert len(set(sheets)) == 30
    assert sheets[3] == nn.explain(traces.lecture(), "markdown", blanks=True, seed=3)
    assert re.search(r"W\^\{\(1\)\} &= \\begin\{pmatrix\} (-?[\d.]+ ?(&|\\\\)? ?)+\\end", sheets[0])


@pytest.mark.parametrize("seed", range(4))
def test_drawn_numbers_are_moderate_and_at_no_kink(seed):
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 1))
    net = nn.chain(
        nn.Conv2D(2, (3, 3)), nn.ReLU(), nn.MaxPool(2), nn.Flatten(), nn.Dense(3)
    )  # fmt: skip
    params = net.init(jax.random.key(0), x)
    drawn = redraw(nn.trace(net, nn.SoftmaxCrossEntropy(), params, x, np.array([1])), seed)
    z, a = (np.asarray(stage.y) for stage in drawn.stages[:2])
    windows = a[0].reshape(3, 2, 3, 2, 2).transpose(0, 2, 4, 1, 3).reshape(-1, 4)
    assert np.abs(z).max() <= 3
    assert z.all()
    assert ((windows == windows.max(-1, keepdims=True)).sum(-1) == 1).all()


MATRIX = re.compile(r"^(.*) &= \\begin{pmatrix} (.*) \\end{pmatrix}", re.MULTILINE)


def matrices_of(latex):
    return [(name, re.split(r" & | \\\\ ", cells)) for name, cells in MATRIX.findall(latex)]


def test_a_long_worksheet_asks_for_a_few_entries_and_gives_the_others():
    x, target = np.linspace(-1, 1, 8).reshape(1, 4, 2), np.array([[1, 0, 1, 1]])
    net, loss = nn.chain(nn.LSTM(3), nn.Dense(2)), nn.SoftmaxCrossEntropy()
    sheet = nn.explain(
        nn.trace(net, loss, net.init(jax.random.key(0), x), x, target), "latex", blanks=True
    )
    task, answers = (part.split(r"\section*{Forward}")[1] for part in sheet.split(r"\newpage"))
    asked = 0
    for (name, cells), (same, whole) in zip(matrices_of(task), matrices_of(answers), strict=True):
        assert name == same
        for cell, value in zip(cells, whole, strict=True):
            asked += cell != value
            assert cell in (value, BLANK)
            assert cell == value or f"= {value}" in answers
    assert 50 < asked < 120


def lines_of(markdown):
    for block in re.findall(
        r"\\begin\{aligned\}\n(.*?)\n\\end\{aligned\}", markdown, flags=re.DOTALL
    ):
        yield from (
            line.replace("&", "") for line in block.split(" \\\\\n") if "pmatrix" not in line
        )


@pytest.mark.parametrize("name", ["ReLU, biases, three classes", "a recurrent net", "nested"])
def test_equations_are_well_formed(name):
    """Matplotlib reads a part of TeX, and rejects unknown commands and unbalanced braces."""
    parser = MathTextParser("path")
    lines = list(lines_of(nn.explain(traces.ALL[name](), "markdown")))
    assert len(lines) > 40
    known = {
        r"\operatorname{log1p}": r"\log",
        r"\operatorname{abs}": r"\log",
        r"\bigl": "",
        r"\bigr": "",
    }
    for word, plain in known.items():
        lines = [line.replace(word, plain) for line in lines]
    for line in {re.sub(r"\d+(\.\d+)?", "1", line) for line in lines}:  # one line of each form
        parser.parse(f"${line}$")


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no LaTeX here; matplotlib reads the equations above"
)
@pytest.mark.parametrize("name", traces.ALL)
def test_latex_compiles(name, tmp_path):
    (tmp_path / "sheet.tex").write_text(nn.explain(traces.ALL[name](), "latex", blanks=True))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "sheet.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


# ── Pictures ──


def overlapping(display):
    display.figure_.canvas.draw()
    renderer = display.figure_.canvas.get_renderer()
    texts = [text for text in display.ax_.findobj(Text) if text.get_text().strip()]
    boxes = [
        (text.get_text(), text.get_window_extent(renderer).shrunk(0.97, 0.9)) for text in texts
    ]
    return [
        (a, b) for (a, box), (b, other) in itertools.combinations(boxes, 2) if box.overlaps(other)
    ]


@pytest.mark.parametrize("sizes", [(2, 3, 1), (3, 3, 3), (2, 4, 3), (8, 8, 8, 3)])
def test_nothing_overlaps(sizes):
    net = nn.mlp(*sizes[1:])
    x = np.random.default_rng(0).standard_normal((1, sizes[0]))
    trace = traces.drawn(net, nn.MeanSquaredError(), x, np.ones((1, sizes[-1])))
    display = plots.BackpropDisplay.from_trace(trace)
    assert overlapping(display) == []
    written = {text.get_text() for text in display.ax_.findobj(Text)}
    significant = ".5g" if max(sizes) <= 3 else ".3g"
    for value in [
        *trace.stages[-1].y[0],
        *trace.stages[0].params.w.ravel(),
        *trace.stages[0].params.b,
    ]:
        assert any(f"{value:{significant}}" in text for text in written)


def test_the_lectures_numbers_in_the_figure():
    display = nn.explain(traces.lecture(), "figure")
    written = " ".join(text.get_text() for text in display.ax_.findobj(Text))
    assert [
        number for number in NUMBERS if plots.display.format_number(float(number)) not in written
    ] == []


def test_larger_layers_are_drawn_as_blocks_and_the_picture_says_so():
    trace = traces.drawn(nn.mlp(9, 2), nn.MeanSquaredError(), np.ones((1, 2)), np.ones((1, 2)))
    display = plots.BackpropDisplay.from_trace(trace)
    written = " ".join(text.get_text() for text in display.ax_.findobj(Text))
    assert "one has 9 neurons, and a graph is drawn for up to 8" in written
    assert "(1, 9)" in written
    assert f"{np.linalg.norm(trace.stages[0].y):.3g}" in written
    assert overlapping(plots.BackpropDisplay.from_trace(traces.nested())) == []


def test_a_batch_is_drawn_as_blocks_and_one_sample_of_it_as_a_graph():
    trace = traces.relu_classes(batch=3)
    display = nn.explain(trace, "figure")
    assert any(
        "such as trace.sample(0), not for 3" in text.get_text()
        for text in display.ax_.findobj(Text)
    )
    assert overlapping(display) == []
    assert len(nn.explain(trace.sample(0), "frames")) == 9


def test_frames_show_more_and_more():
    frames = nn.explain(traces.lecture(), "frames")
    texts = [{t.get_text() for t in figure.axes[0].texts} for figure in frames]
    assert len(frames) == 9
    assert all(before <= after for before, after in itertools.pairwise(texts))
    assert "-0.20134" in texts[-1] - texts[-3]


def test_a_frame_lights_what_its_step_computes_and_shows_the_formula():
    deep = nn.chain(nn.Conv2D(2, 2), nn.Tanh(), nn.Flatten(), nn.Dense(2))
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 1))
    params = deep.init(jax.random.key(1), x)
    blocks = nn.trace(deep, nn.SoftmaxCrossEntropy(), params, x, np.array([0, 1]))
    for trace, formula in (
        (traces.lecture(), r"\partial J/\partial W^{(2)} = {a^{(1)}}^{\top}\, \delta^{(2)}"),
        (blocks, "dx[n, i] = sum(dy[n, o] * w[i, o] for o in O)"),
    ):
        known, titles = set(), []
        for figure in nn.explain(trace, "frames"):
            axes = figure.axes[0]
            lit = plots.display.palette(axes).lit
            boxed = [t for t in axes.texts if t.get_bbox_patch() is not None]
            shown = {t.get_text() for t in axes.texts if any(map(str.isdigit, t.get_text()))}
            lights = {t.get_text() for t in boxed if same_color(t.get_bbox_patch(), lit)}
            assert lights <= shown
            assert lights >= (shown - known if known else set())
            assert lights
            known |= shown
            titles.append(axes.get_title())
        assert any(formula in title for title in titles), titles


def test_blocks_show_the_kernels_of_convolutions():
    net = nn.chain(nn.Repeat(nn.Residual(nn.Conv2D(6, 3)), 2), nn.Flatten(), nn.Dense(2))
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    params = net.init(jax.random.key(1), x)
    trace = nn.trace(net, nn.SoftmaxCrossEntropy(), params, x, np.array([0, 1]))
    axes = nn.explain(trace, "figure").ax_
    convolutions = [stage for stage in trace.own_work() if isinstance(stage.layer, nn.Conv2D)]
    expected = [
        w[:, :, 0, k] for stage in convolutions for w in (stage.params.w, stage.dparams.w)
        for k in range(5)
    ]  # fmt: skip
    assert len(axes.images) == len(expected) > 0
    for image, kernel in zip(axes.images, expected, strict=True):
        np.testing.assert_array_equal(image.get_array(), kernel)
    assert axes.get_title() == ""


def same_color(patch, color):
    return mpl.colors.same_color(patch.get_facecolor(), color)


def test_an_animation_and_an_svg_are_one_call_away():
    gif = nn.explain(traces.lecture(), "gif")
    with Image.open(io.BytesIO(gif)) as animation:
        assert animation.n_frames == 9
        assert animation.info["loop"] == 0
    assert base64.b64encode(gif).decode() in gif._repr_html_()
    svg = nn.explain(traces.lecture(), "svg")
    assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg == nn.explain(traces.lecture(), "svg")
    assert svg._repr_svg_() == svg
    assert isinstance(nn.explain(traces.lecture(), "figure"), plots.BackpropDisplay)


def test_a_notebook_prints_text_line_by_line():
    for form in ("text", "latex"):
        text = nn.explain(traces.lecture(), form)
        assert pretty(text) == text


# ── Bad calls ──


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: nn.explain(t, "pdf"),
            "expected format to be one of 'text', 'latex'.* got 'pdf'",
        ),
        (lambda t: nn.explain("trace"), "expected a Trace, as jaxnn.trace returns it, got str"),
        (lambda t: nn.explain(t - t), "expected the trace of one pass, got the difference of two"),
        (lambda t: nn.explain(t, "html", of="[0].w[0, 0]"), 'expected format "text" with of'),
        (lambda t: nn.explain(t, blanks=True), 'expected format "latex" or "markdown" with blanks'),
        (lambda t: nn.explain(t, digits=0), "expected digits to be an integer of at least 1"),
        (lambda t: nn.explain(t, of="[0].w"), r"expected the place of one number, got '\[0\].w'"),
        (lambda t: nn.explain(t, of="[9].w[0]"), "expected a place in one of the layers"),
    ],
)
def test_bad_calls(call, message):
    with pytest.raises(nn.InputError, match=message):
        call(traces.lecture())


def test_a_chain_that_nobody_could_read_is_refused():
    trace = traces.drawn(
        nn.mlp(150, 100, 1, activation=nn.Tanh()),
        nn.MeanSquaredError(),
        np.ones((1, 2)),
        np.ones((1, 1)),
    )
    with pytest.raises(nn.InputError, match="expected a chain of at most 200 numbers"):
        nn.explain(trace, of="[0].w[0, 0]")
