"""The lessons run as scripts, with the exercise solved, and as notebooks, as they are; their figures are looked at."""

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from matplotlib.testing.compare import compare_images
from nbclient import NotebookClient

LESSONS = sorted((Path(__file__).parent.parent / "scripts" / "lessons").glob("*.py"))
BASELINE = Path(__file__).parent / "baseline"
TOLERANCE = 12  # of the root mean square of pixels: other versions round otherwise
YOUR_TURN = "    raise NotImplementedError  # your turn\n"

ANSWERS = {
    "01_neuron": """
        dz = y * (1 - y) * dy
        return nn.NeuronParams(x.T @ dz), jnp.outer(dz, params.theta)
    """,
    "02_activations": "return (), (1 - y**2) * dy",
    "03_layers": "return nn.DenseParams(x.T @ dy, dy.sum(axis=0)), dy @ w.T",
    "04_chain_rule": "return ((), ()), 2 * (1 - y**2) * dy",
    "05_backprop_by_hand": """
        dz = y * (1 - y) * dy
        du = h * (1 - h) * (dz @ v.T)
        return (nn.DenseParams(x.T @ du, None), (), nn.DenseParams(h.T @ dz, None), ()), du @ w.T
    """,
    "06_descent": "return share * jnp.clip(prediction - target, -1, 1)",
    "07_initialisation": "return (), dy * np.where(x > 0, 1, 0.1)",
    "08_convolution": """
        before, after = x[:, :-1], x[:, 1:]
        dw = jnp.stack([(before * dy).sum(), (after * dy).sum()]).reshape(2, 1, 1)
        dx = jnp.zeros_like(x).at[:, :-1].add(dy * w[0]).at[:, 1:].add(dy * w[1])
        return nn.ConvParams(dw, None), dx
    """,
    "09_recurrence": """
        dh = 0
        for t in reversed(range(dy.shape[1])):
            dx[t] = dh = dy[:, t] + a * dh
        return (), jax.numpy.stack(dx, axis=1)
    """,
    "10_attention": "return (), y * (dy - (y * dy).sum(axis=-1, keepdims=True))",
    "11_thousand_networks": "return share * (jax.nn.sigmoid(z) - t)",
    "12_many_devices": "return share * 2 * (prediction - target)",
    "13_your_own_layer": "return SlopeParams((jnp.minimum(x, 0) * dy).sum()), dy * jnp.where(x > 0, 1, a)",
}


GROUPS = ([name for name in ANSWERS if name != "12_many_devices"], ["12_many_devices"])


def test_every_lesson_has_an_exercise_and_an_answer():
    assert [lesson.stem for lesson in LESSONS] == list(ANSWERS)
    assert all(lesson.read_text().count(YOUR_TURN) == 1 for lesson in LESSONS)
    assert all("**Question.**" in lesson.read_text() for lesson in LESSONS)


def solved(lesson):
    lines = [line.removeprefix("        ") for line in ANSWERS[lesson.stem].strip("\n").splitlines()]
    return lesson.read_text().replace(YOUR_TURN, "".join(f"    {line.rstrip()}\n" for line in lines))


RUNNER = """
import runpy, sys
for script in sys.argv[1:]:
    print("=== " + script)
    runpy.run_path(script)
"""


@pytest.mark.slow
def test_as_scripts_and_as_notebooks(tmp_path):
    """One after the other, so that the second finds what the first has compiled."""
    run_as_scripts(tmp_path)
    run_as_notebooks(tmp_path)


def run_as_scripts(tmp_path):
    """One process runs all, their exercises solved; the twelfth, which wants devices of its own, another."""
    for lesson in LESSONS:
        (tmp_path / lesson.name).write_text(solved(lesson))
    for group in GROUPS:
        command = [sys.executable, "-W", "error", "-c", RUNNER, *(f"{name}.py" for name in group)]
        environment = os.environ | {"MPLBACKEND": "agg"}
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        reports = run.stdout.split("=== ")[1:]
        assert len(reports) == len(group)
        for report in reports:
            assert "✓ The gradient of" in report  # the answer is graded, and right
            assert "✗" not in report
    pictures = [f"lesson-{lesson.stem[:2]}.png" for lesson in LESSONS]
    compared = (compare_images(str(BASELINE / name), str(tmp_path / name), tol=TOLERANCE) for name in pictures)
    assert [difference for difference in compared if difference] == []


def run_as_notebooks(tmp_path):
    """One kernel runs the cells of all lessons, one after another; the twelfth has a kernel of its own."""
    books = {lesson.stem: jupytext.read(lesson, fmt="py:percent") for lesson in LESSONS}
    for group in GROUPS:
        cells = [cell for name in group for cell in books[name].cells]
        assert sum(cell.cell_type == "markdown" for cell in cells) >= 3 * len(group)
        book = nbformat.v4.new_notebook(cells=cells)
        NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
        shown = [out for cell in book.cells for out in cell.get("outputs", [])]
        assert sum("image/png" in out.get("data", {}) for out in shown) >= len(group)
        text = "".join(out.get("text", "") for out in shown)
        assert "step/s" in text or "nn.fit(" not in "".join(cell.source for cell in cells)  # somebody watches the bar
        assert text.count("✗ The backward is not written yet") == len(group)
