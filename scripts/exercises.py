"""Exercises: write a backward pass, run the script, and see which gradients are wrong, and why.

    python scripts/exercises.py [--only NAME] [--answers FILE.py] [--solutions]
    python scripts/exercises.py ninja [--answers FILE.py] [--solutions]
    python scripts/exercises.py [ninja] --hint NAME [NUMBER]
    python scripts/exercises.py [ninja] --solution NAME

Each function below receives arrays of the forward pass and dy, the derivative of the loss with
respect to its output. It has to return the derivatives that its docstring names. Write the answers
here, or write functions of the same names into a file of your own and name that file with
--answers. With --solutions the library's own backward passes are graded.

The last exercise, ninja, has a file of its own, scripts/ninja.py: the whole backward pass of a
network in 24 small steps. The exercises of the lessons have hints and solutions too: --hint 4.1.

B batch, T time, I input features, O output features, H hidden features, C channels,
D features of a head.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from lessons import practice

import jaxnn as nn
from jaxnn.formulas import Formulas
from jaxnn.layers import attention


def sigmoid(y, dy):
    """For y = σ(x), return dx."""
    raise NotImplementedError


def dense(x, w, b, dy):
    """For y = x w + b, with x (B, I), w (I, O), b (O,), return dx, dw, db."""
    raise NotImplementedError


def softmax_cross_entropy(logits, labels):
    """For J = mean over the batch of -log softmax(logits)[label], logits (B, K), return dlogits."""
    raise NotImplementedError


def batch_norm(x, mean, variance, scale, epsilon, dy):
    """For y = scale (x - mean) / √(variance + ε) + bias, over the batch axis of x (B, C).

    Return dx, dscale, dbias. The mean and the variance, (1, C), are those of x: the derivative
    flows through them too.
    """
    raise NotImplementedError


def rnn_step(x, h_before, h, wx, wh, dh):
    """For h = tanh(x wx + h_before wh + b), with x (B, I), h (B, H).

    Return dx, dh_before, dwx, dwh, db.
    """
    raise NotImplementedError


def attend(q, k, v, p, do):
    """For p = softmax(q kᵀ / √D) along the keys, o = p v; q, k, v and o (B, heads, T, D).

    Return dq, dk, dv.
    """
    raise NotImplementedError


# ── Adapters between the contract of a layer and the functions above, and the solutions ─────────


class Heads(NamedTuple):
    """Queries, keys and values, each (B, heads, T, D)."""

    q: jax.Array
    k: jax.Array
    v: jax.Array


@nn.layer
class Attend:
    """Scaled dot-product attention without projections, of Heads."""

    formulas = Formulas(
        """
        s[b, h, t, j] = sum(q[b, h, t, d] * k[b, h, j, d] for d in D) / sqrt(D)
        p[b, h, t, j] = exp(s[b, h, t, j]) / sum(exp(s[b, h, t, i]) for i in S)
        y[b, h, t, d] = sum(p[b, h, t, j] * v[b, h, j, d] for j in S)
        """,
        """
        dv[b, h, j, d] = sum(p[b, h, t, j] * dy[b, h, t, d] for t in T)
        dp[b, h, t, j] = sum(dy[b, h, t, d] * v[b, h, j, d] for d in D)
        ds[b, h, t, j] = p[b, h, t, j] * (
            dp[b, h, t, j] - sum(p[b, h, t, i] * dp[b, h, t, i] for i in S)
        )
        dq[b, h, t, d] = sum(ds[b, h, t, j] * k[b, h, j, d] for j in S) / sqrt(D)
        dk[b, h, j, d] = sum(ds[b, h, t, j] * q[b, h, t, d] for t in T) / sqrt(D)
        """,
    )

    def init(self, key, x):
        """Return no parameters."""
        return ()

    def forward(self, params, x, key=None):
        """Return the output o, and the cache (q, k, v, o, p)."""
        o, p = attention.attend(*x, None)
        return o, (*x, o, p)

    def backward(self, params, cache, dy):
        """Return the derivatives of the three."""
        return (), Heads(*attention.attend_backward(*cache, dy))


def normal(*shape):
    """Draw standard normal inputs, which are equal in each run."""
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)


def as_dense(answer):
    """Adapt an answer for Dense to the contract."""

    def backward(params, x, dy):
        dx, dw, db = answer(x, params.w, params.b, dy)
        return nn.DenseParams(dw, db), dx

    return backward


def as_batch_norm(answer):
    """Adapt an answer for BatchNorm to the contract."""

    def backward(params, cache, dy):
        x, mean, variance, _ = cache
        dx, dscale, dbias = answer(x, mean, variance, params.scale, nn.BatchNorm().epsilon, dy)
        # the running statistics are not trained: their derivative is 0
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros._replace(scale=dscale, bias=dbias), dx

    return backward


def as_rnn_step(answer):
    """Adapt an answer for one step of an RNN to a sequence of one step."""

    def backward(params, cache, dy):
        x, h_before, h, *_ = cache
        dx, dh_before, dwx, dwh, db = answer(x[:, 0], h_before, h[0], params.wx, params.wh, dy)
        dsequences = nn.Sequences(jnp.expand_dims(dx, 1), None, dh_before)
        return nn.RecurrentParams(dwx, dwh, db), dsequences

    return backward


EXERCISES = {  # name: (operation, inputs, the adapter from an answer to a backward)
    "sigmoid": (
        nn.Sigmoid(),
        {"x": normal(4, 3)},
        lambda answer: lambda params, y, dy: ((), answer(y, dy)),
    ),
    "dense": (nn.Dense(4), {"x": normal(5, 4)}, as_dense),
    "softmax_cross_entropy": (
        nn.SoftmaxCrossEntropy(),
        {"x": normal(5, 3), "target": np.arange(5) % 3},
        lambda answer: lambda cache: answer(cache.prediction, cache.target),
    ),
    "batch_norm": (nn.BatchNorm(), {"x": normal(6, 3), "key": jax.random.key(0)}, as_batch_norm),
    "rnn_step": (
        nn.RNN(3, output="last"),
        {"x": nn.Sequences(normal(5, 1, 2), None, normal(5, 3))},
        as_rnn_step,
    ),
    "attend": (
        Attend(),
        # no two sizes are equal, and none is the root of another
        {"x": Heads(normal(2, 3, 4, 7), normal(2, 3, 5, 7), normal(2, 3, 5, 7) + 1)},
        lambda answer: lambda params, cache, do: ((), Heads(*answer(*cache[:3], cache[4], do))),
    ),
}


def grade(name, answer=None):
    """Grade one answer, or the library's own solution."""
    op, inputs, adapt = EXERCISES[name]
    return nn.diagnose(op, backward=op.backward if answer is None else adapt(answer), **inputs)


def load(path):
    """Load the answers from a file."""
    spec = importlib.util.spec_from_file_location("answers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def grade_all(names, answers):
    """Grade the answers, or the library's own if they are None; return how many are right."""
    right = 0
    for name in names:
        if answers is not None and name not in answers:
            print(f"{name}: no answer\n")
            continue
        diagnosis = grade(name, None if answers is None else answers[name])
        right += diagnosis.right
        print(f"{name}: {diagnosis}\n")
    print(f"{right} of {len(names)} right.")
    return right


def main():
    """Grade the answers, and exit with 0 if all of them are right; or show a hint or a solution."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercise", nargs="?", choices=["ninja"], help="the exercise in ninja.py")
    parser.add_argument("--only", choices=EXERCISES, help="grade only this exercise")
    parser.add_argument("--answers", type=Path, help="a file with functions of the same names")
    parser.add_argument("--solutions", action="store_true", help="grade the right answers")
    parser.add_argument(
        "--hint", nargs="+", metavar=("NAME", "NUMBER"), help="show a hint for an exercise"
    )
    parser.add_argument("--solution", metavar="NAME", help="show the solution of an exercise")
    arguments = parser.parse_args()
    if arguments.answers and not arguments.answers.is_file():
        parser.error(f"expected --answers to be a file, got {arguments.answers}")

    try:
        right = run_ninja(arguments) if arguments.exercise == "ninja" else run(arguments)
    except ValueError as error:  # there is no such hint or solution
        parser.error(str(error))
    sys.exit(0 if right else 1)


def run(arguments):
    """Show what is asked for, or grade the answers; return whether all of them are right."""
    if arguments.hint:
        practice.hint(arguments.hint[0], *map(int, arguments.hint[1:2]))
        return True
    if arguments.solution:
        practice.solution(arguments.solution)
        return True
    names = [arguments.only] if arguments.only else list(EXERCISES)
    answers = load(arguments.answers) if arguments.answers else globals()
    return grade_all(names, None if arguments.solutions else answers) == len(names)


def run_ninja(arguments):
    """Do the same for the exercise in ninja.py."""
    import ninja

    if arguments.hint:
        ninja.hint(arguments.hint[0])
        return True
    if arguments.solution:
        ninja.show_solution(arguments.solution)
        return True
    answer = load(arguments.answers).get("ninja") if arguments.answers else ninja.ninja
    if answer is None:
        raise ValueError(f"expected a function ninja(f, d) in {arguments.answers}")
    return ninja.grade(ninja.solution if arguments.solutions else answer) == len(ninja.LINKS)


if __name__ == "__main__":
    main()
