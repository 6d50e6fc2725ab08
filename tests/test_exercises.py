"""The exercises outside the lessons: they are graded, and their worked solutions are right."""

import inspect
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))
with jax.numpy_rank_promotion("allow"):  # readers broadcast as in NumPy
    import exercises
    import ninja
    from lessons import practice

NAMES = [name for name in practice.names() if not name[0].isdigit()]


@pytest.fixture(autouse=True)
def as_for_a_reader():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def run_exercises(monkeypatch, capsys):
    """Run the script with some arguments; return its exit status and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["exercises.py", *map(str, arguments)])
        status = 0
        try:
            exercises.main()
        except SystemExit as end:
            status = end.code
        return status, "".join(capsys.readouterr())

    return run


def test_the_exercises_are_solved_by_the_library(run_exercises):
    status, out = run_exercises("--solutions")
    assert status == 0
    assert "6 of 6 right." in out


def test_the_worked_solutions_are_right(run_exercises, tmp_path):
    text = (SCRIPTS / "exercises.py").read_text()
    for name in NAMES:
        code = "".join(f"    {line}\n" for line in practice.code(name))
        gap = rf"(def {name}\(.*?)    raise NotImplementedError\n"
        text = re.sub(gap, lambda found, code=code: found[1] + code, text, flags=re.DOTALL)
    answers = tmp_path / "answers.py"
    answers.write_text(text)
    status, out = run_exercises("--answers", answers)
    assert (status, len(NAMES)) == (0, 6), out


def test_an_answer_is_graded(run_exercises, tmp_path):
    answers = tmp_path / "answers.py"
    answers.write_text(
        "def sigmoid(y, dy):\n    return y * (1 - y) * dy\n\n"
        "def dense(x, w, b, dy):\n    return dy @ w.T, dy.T @ x, dy.sum(axis=0)\n"
    )
    status, out = run_exercises("--answers", answers)
    assert status == 1
    assert "✓ The gradient of x is right" in out
    assert "✗ The gradient of params.w is the transpose" in out
    assert "attend: no answer" in out
    assert "1 of 6 right." in out
    assert "is not written yet" in run_exercises("--only", "sigmoid")[1]


def test_a_factor_that_has_the_value_of_the_batch_by_chance():
    """The root of 4, the size of a head, is 2, which is also the number of samples."""

    def answer(q, k, v, p, do):
        dp = do @ np.swapaxes(v, -1, -2)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        return ds @ k / 4, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ do

    op, _, adapt = exercises.EXERCISES["attend"]
    x = exercises.Heads(*(exercises.normal(2, 3, size, 4) for size in (4, 5, 5)))
    q, k, v = exercises.nn.diagnose(op, backward=adapt(answer), x=x).findings
    assert "it is divided by √(4) twice" in q.message
    assert "the division by √(4) is left out" in k.message
    assert v.verdict == "right"


def test_a_plain_mean_for_the_weighted_sum_of_the_softmax():
    def answer(q, k, v, p, do):
        dp = do @ np.swapaxes(v, -1, -2)
        ds = p * (dp - dp.mean(-1, keepdims=True)) / np.sqrt(q.shape[-1])
        return ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ do

    op, inputs, adapt = exercises.EXERCISES["attend"]
    said = str(exercises.nn.diagnose(op, backward=adapt(answer), **inputs))
    assert "a plain mean of dp[b, h, t, i] stands in the place of its sum weighted by p" in said
    assert "by the mistake in that of x.q" in said


def test_one_mistake_in_all_gradients_is_explained_once(tmp_path, run_exercises):
    (tmp_path / "answers.py").write_text(
        "def rnn_step(x, h_before, h, wx, wh, dh):\n"
        "    dz = dh * h * (1 - h)\n"
        "    return dz @ wx.T, dz @ wh.T, x.T @ dz, h_before.T @ dz, dz.sum(0)\n"
    )
    status, said = run_exercises("--only", "rnn_step", "--answers", tmp_path / "answers.py")
    assert status == 1
    assert said.count("the slope of the sigmoid stands in the place of that of tanh") == 1
    assert said.count("by the mistake in that of params.wx") == 4


def test_hints_and_solutions_are_shown_on_request(run_exercises):
    assert "Hint 1 of 2 for 4.1: dy/dx =" in run_exercises("--hint", "4.1")[1]
    assert "Hint 2 of 2 for 4.1: du/dx = 2" in run_exercises("--hint", "4.1", "2")[1]
    assert "return y * (1 - y) * dy" in run_exercises("--solution", "sigmoid")[1]
    status, out = run_exercises("--hint", "dens")
    assert status == 2
    assert "There is no exercise dens; there are 1.1" in out


# ── Ninja: each gradient of a small network ─────────────────────────────────────────────────────


def graded(capsys, *changes):
    """Grade the worked solution after some changes of its text; return the lines by name."""
    text = inspect.getsource(ninja.solution)
    for right, wrong in changes:
        assert right in text
        text = text.replace(right, wrong)
    scope = dict(vars(ninja))
    exec(text, scope)
    ninja.grade(scope["solution"])
    lines = capsys.readouterr().out.splitlines()
    return dict(line.split(": ", 1) for line in lines if line.startswith("d.")), lines[-1]


def test_the_network_is_that_of_the_library():
    import jaxnn as nn

    net = nn.chain(
        nn.Embedding(ninja.V, ninja.D), nn.Flatten(), nn.Dense(ninja.H), nn.Tanh(),
        nn.BatchNorm(epsilon=ninja.EPSILON), nn.Dense(ninja.V),
    )  # fmt: skip
    f, right = ninja.ARRAYS, ninja.RIGHT
    with jax.enable_x64(True):
        params = list(net.init(jax.random.key(0), f["tokens"]))
        params[0] = params[0]._replace(w=f["table"])
        params[2] = nn.DenseParams(f["w1"], f["b1"])
        params[4] = params[4]._replace(scale=f["gamma"], bias=f["beta"])
        params[5] = nn.DenseParams(f["w2"], f["b2"])
        trace = nn.trace(
            net,
            nn.SoftmaxCrossEntropy(),
            tuple(params),
            f["tokens"],
            f["labels"],
            jax.random.key(0),
        )
    np.testing.assert_allclose(trace.value, f["J"])
    np.testing.assert_allclose(trace.stages[0].dparams.w, right["table"], atol=1e-12)
    np.testing.assert_allclose(trace.stages[3].dx, right["z"], atol=1e-12)


def test_every_gradient_of_the_solution_is_right(capsys):
    lines, last = graded(capsys)
    assert list(lines) == [f"d.{name}" for name in ninja.LINKS]
    assert last == "24 of 24 right."
    assert lines["d.squares"] == "✓ It is exactly equal."


def test_mistakes_are_named_and_do_not_spread(capsys):
    lines, last = graded(
        capsys,
        (" + d.total[:, None]", ""),
        ("-d.centred.sum(axis=0)", "d.centred.sum(axis=0)"),
        ("(1 - f.a**2)", "(1 - f.a)"),
        ("f.total**2", "f.total"),
        ("d.variance / B", "d.variance"),
        ("d.z.sum(axis=0)", "d.z"),
    )
    assert last == "18 of 24 right."
    assert "the term dtotal[n] is left out; the formula is dexps[n, k] =" in lines["d.exps"]
    assert "wrong sign" in lines["d.mu"]
    assert "a[n, j] stands in the place of a[n, j]²" in lines["d.z"]
    assert "total[n] stands in the place of total[n]²" in lines["d.total"]
    assert "7 times too large" in lines["d.squares"]
    assert "✗ It lacks the sum over the batch" in lines["d.b1"] or "shape" in lines["d.b1"]
    assert "✓" in lines["d.table"]  # after all of these


def test_ninja_waits_for_its_reader(capsys):
    assert ninja.grade(ninja.ninja) == 0
    assert "d.logp: … It is still None." in capsys.readouterr().out

    def hasty(f, d):
        d.logp = ninja.RIGHT["logp"]
        d.p = d.total / f.p

    assert ninja.grade(hasty) == 1
    assert "d.p: … AttributeError: d.total is read before it is written" in capsys.readouterr().out

    def misspelt(f, d):
        d.lopg = 1

    assert ninja.grade(misspelt) == 0
    assert "there is no gradient d.lopg; there are logp" in capsys.readouterr().out


def test_ninja_shows_formulas_on_request(run_exercises):
    hint = run_exercises("ninja", "--hint", "exps")[1]
    assert "backward: dexps[n, k] = dp[n, k] * inverse_total[n] + dtotal[n]" in hint
    assert run_exercises("ninja", "--solution", "b1") == (0, "d.b1 = d.z.sum(axis=0)\n")
    assert "There is no array x1" in run_exercises("ninja", "--hint", "x1")[1]
    assert run_exercises("ninja", "--solutions")[0] == 0


def test_ninja_takes_an_answer_from_a_file(run_exercises, tmp_path):
    answers = tmp_path / "answers.py"
    answers.write_text("def ninja(f, d):\n    d.logp = 0 * f.logp\n")
    status, out = run_exercises("ninja", "--answers", answers)
    assert status == 1
    assert "d.logp: ✗ It is 0 everywhere" in out
    answers.write_text("def ninja(f, d):\n    d.logp = 'dp'\n")
    assert "d.logp: ✗ It is not an array" in run_exercises("ninja", "--answers", answers)[1]
    answers.write_text("")
    assert "expected a function ninja(f, d) in" in run_exercises("ninja", "--answers", answers)[1]
