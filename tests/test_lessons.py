"""Run the lessons as notebooks with solved exercises, and one unsolved; compare the figures."""

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
TOLERANCE = 12  # root mean square of the pixels: rounding depends on versions
LESSON = {lesson.stem: lesson for lesson in LESSONS}
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
    "13_your_own_layer": """
        da = (jnp.minimum(x, 0) * dy).sum()
        return SlopeParams(da), dy * jnp.where(x > 0, 1, a)
    """,
}


GROUPS = ([name for name in ANSWERS if name != "12_many_devices"], ["12_many_devices"])


def test_every_lesson_has_an_exercise_and_an_answer():
    assert [lesson.stem for lesson in LESSONS] == list(ANSWERS)
    assert all(lesson.read_text().count(YOUR_TURN) == 1 for lesson in LESSONS)


def solved(lesson):
    lines = [
        line.removeprefix("        ") for line in ANSWERS[lesson.stem].strip("\n").splitlines()
    ]
    return lesson.read_text().replace(
        YOUR_TURN, "".join(f"    {line.rstrip()}\n" for line in lines)
    )


@pytest.mark.slow
def test_every_lesson_runs_solved_as_a_notebook(tmp_path):
    """One kernel runs the cells of all lessons in turn, except the twelfth, which has its own."""
    for group in GROUPS:
        strict = nbformat.v4.new_code_cell("import warnings; warnings.simplefilter('error')")
        books = [jupytext.reads(solved(LESSON[name]), fmt="py:percent") for name in group]
        cells = [cell for book in books for cell in book.cells]
        assert sum(cell.cell_type == "markdown" for cell in cells) >= 3 * len(group)
        book = nbformat.v4.new_notebook(cells=[strict, *cells])
        where = {"metadata": {"path": tmp_path}}
        NotebookClient(book, timeout=300, kernel_name="python3", resources=where).execute()
        shown = [out for cell in book.cells for out in cell.get("outputs", [])]
        assert sum("image/png" in out.get("data", {}) for out in shown) >= len(group)
        text = "".join(out.get("text", "") for out in shown)
        assert text.count("✓ The gradient of") >= len(group)  # every answer is graded as right
        assert "✗" not in text
        trains = any("nn.fit(" in cell.source for cell in cells)
        assert "step/s" in text or not trains  # a notebook shows the progress bar
    pictures = [f"lesson-{lesson.stem[:2]}.png" for lesson in LESSONS]
    compared = (
        compare_images(str(BASELINE / name), str(tmp_path / name), tol=TOLERANCE)
        for name in pictures
    )
    assert [difference for difference in compared if difference] == []


def test_a_lesson_as_it_is_runs_as_a_script_and_waits_for_its_reader(tmp_path):
    command = [sys.executable, "-W", "error", str(LESSON["04_chain_rule"])]
    environment = os.environ | {"MPLBACKEND": "agg"}
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout.count("✗ The backward is not written yet") == 1
