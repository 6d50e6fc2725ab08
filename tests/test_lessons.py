"""Run the lessons as notebooks with solved exercises, and one unsolved; compare the figures."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from matplotlib.testing.compare import compare_images
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "scripts" / "lessons"
LESSONS = sorted(FOLDER.glob("[0-9]*.py"))
BASELINE = Path(__file__).parent / "baseline"
TOLERANCE = 12  # root mean square of the pixels: rounding depends on versions
LESSON = {lesson.stem: lesson for lesson in LESSONS}
YOUR_TURN = re.compile(r"^( *).*# your turn: (\S+)\n", re.MULTILINE)
DEVICES = "12_many_devices"  # needs a process of its own
GROUPS = ([name for name in LESSON if name != DEVICES], [DEVICES])

spec = importlib.util.spec_from_file_location("practice", FOLDER / "practice.py")
practice = importlib.util.module_from_spec(spec)
spec.loader.exec_module(practice)


def exercises(lesson):
    return [name for _, name in YOUR_TURN.findall(lesson.read_text())]


def solved(lesson):
    """Put the code of the worked solutions in place of the lines that wait for the reader."""
    return YOUR_TURN.sub(
        lambda gap: "".join(f"{gap[1]}{line}\n" for line in practice.code(gap[2])),
        lesson.read_text(),
    )


def test_every_lesson_has_exercises_in_steps_with_hints_and_solutions():
    in_lessons = [name for lesson in LESSONS for name in exercises(lesson)]
    assert in_lessons == [name for name in practice.names() if name[0].isdigit()]
    for number, lesson in enumerate(LESSONS, start=1):
        text = lesson.read_text()
        steps = [re.search(rf"{name}, (\w+ ?\w*)\.\*\*", text)[1] for name in exercises(lesson)]
        assert steps == ["a number", "a formula", *["code"] * (len(steps) - 2)], lesson.stem
        assert all(name.startswith(f"{number}.") for name in exercises(lesson))
        assert "**The idea.**" in text
        assert "**In numbers" in text
        assert "**In code.**" in text


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (None, 1.0, "… 9.9 waits for your answer"),
        (1.0004, 1.0, "9.9: ✓ It is right."),
        (-1.0, 1.0, "sign is wrong"),
        (2.0, 1.0, "2 times the right answer"),
        ([1.0, 2.0], 1.0, "has shape (2,); expected ()"),
        ([1.0, 2.0], [1.0, 3.0], "is [1. 2.], which is not right"),
    ],
)
def test_an_answer_is_checked(capsys, answer, expected, said):
    practice.check("9.9", answer, expected)
    assert said in capsys.readouterr().out


def test_a_formula_is_checked_more_strictly_than_a_number(capsys):
    practice.check("9.9", lambda x: 1.0004 * x, lambda x: x, 2.0)
    assert "✗ It is 1.0004 times" in capsys.readouterr().out


def test_hints_come_one_at_a_time(capsys):
    practice.hint("5.4")
    practice.hint("5.4", 3)
    practice.solution("4.1")
    out = capsys.readouterr().out
    assert out.startswith("Hint 1 of 3 for 5.4: Begin at the end")
    assert "Hint 3 of 3" in out
    assert "Solution of 4.1: 2 · (1 - 0.5800) = 0.8399." in out
    with pytest.raises(ValueError, match="has 3 hints"):
        practice.hint("5.4", 4)
    with pytest.raises(ValueError, match=r"There is no exercise 4\.9"):
        practice.solution("4.9")


@pytest.mark.slow
def test_every_lesson_runs_solved_as_a_notebook(tmp_path):
    """One kernel runs the cells of all lessons in turn, except the twelfth, which has its own."""
    for group in GROUPS:
        first = nbformat.v4.new_code_cell(
            f"import sys, warnings; sys.path.insert(0, {str(FOLDER)!r})\n"
            "warnings.simplefilter('error')"
        )
        books = [jupytext.reads(solved(LESSON[name]), fmt="py:percent") for name in group]
        cells = [cell for book in books for cell in book.cells]
        assert sum(cell.cell_type == "markdown" for cell in cells) >= 3 * len(group)
        book = nbformat.v4.new_notebook(cells=[first, *cells])
        where = {"metadata": {"path": tmp_path}}
        NotebookClient(book, timeout=300, kernel_name="python3", resources=where).execute()
        shown = [out for cell in book.cells for out in cell.get("outputs", [])]
        assert sum("image/png" in out.get("data", {}) for out in shown) >= len(group)
        text = "".join(out.get("text", "") for out in shown)
        checked = [name for lesson in group for name in exercises(LESSON[lesson])]
        graded = sum("nn.diagnose(" in cell.source for cell in cells)
        assert text.count("✓ It is right.") == len(checked) - graded
        assert text.count("✓ The gradient of") >= graded
        assert "✗" not in text
        assert "… " not in text
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
    assert run.stdout.count("waits for your answer") == 2
    assert run.stdout.count("✗ The backward is not written yet") == 1
