"""Checks, hints and worked solutions for the exercises of the lessons.

The texts are those of ``solutions.md``, which is best opened last. In a lesson or a notebook::

    practice.hint("4.1")        # then practice.hint("4.1", 2), until there are no more
    practice.solution("4.1")

and in a terminal ``python scripts/exercises.py --hint 4.1`` or ``--solution 4.1``.
"""

import re
from pathlib import Path

import numpy as np

TEXTS = Path(__file__).with_name("solutions.md")


def check(name, answer, expected, *at):
    """Compare an answer with the expected one, and print whether it is right.

    Args:
        name: the number of the exercise, such as "4.1".
        answer: a number or an array, or a function of ``at``; None if it is not given yet.
        expected: the right answer, likewise.
        *at: the arguments at which two functions are compared.
    """
    digits = 1e-6 if callable(answer) else 1e-3  # a number may come from a pocket calculator
    try:
        answer = answer(*at) if callable(answer) else answer
    except NotImplementedError:
        answer = None
    if answer is None:
        print(f'… {name} waits for your answer. practice.hint("{name}") helps.')
        return
    answer = np.asarray(answer, float)
    expected = np.asarray(expected(*at) if callable(expected) else expected, float)
    print(f"{name}: {_judged(answer, expected, digits)}")


def _judged(answer, expected, digits):
    if answer.shape != expected.shape:
        return f"✗ It has shape {answer.shape}; expected {expected.shape}."
    if np.allclose(answer, expected, rtol=digits, atol=1e-15):
        return "✓ It is right."
    if np.allclose(answer, -expected, rtol=digits, atol=1e-15):
        return "✗ Its size is right, and its sign is wrong."
    if np.allclose(factors := answer / np.where(expected == 0, 1, expected), factors.flat[0]):
        return f"✗ It is {factors.flat[0]:.6g} times the right answer."
    return f"✗ It is {np.array2string(answer, precision=6)}, which is not right."


def hint(name, number=1):
    """Print a hint for an exercise: the first one, or that of a number."""
    hints = _parts(name)[0]
    if not 1 <= number <= len(hints):
        raise ValueError(f"Exercise {name} has {len(hints)} hints, numbered from 1; got {number}.")
    print(f"Hint {number} of {len(hints)} for {name}: {hints[number - 1]}")


def solution(name):
    """Print the worked solution of an exercise."""
    print(f"Solution of {name}: {_parts(name)[1]}")


def code(name):
    """Return the lines of code in the worked solution of an exercise."""
    return re.search(r"```python\n(.*?)```", _parts(name)[1], re.DOTALL)[1].splitlines()


def names():
    """Return the names of all exercises that have hints and a solution."""
    return re.findall(r"^## (.+)$", TEXTS.read_text(encoding="utf-8"), re.MULTILINE)


def _parts(name):
    """Return the hints of an exercise, and its solution."""
    sections = re.split(r"^## (.+)$", TEXTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = dict(zip(sections[1::2], sections[2::2], strict=True))
    if name not in texts:
        raise ValueError(f"There is no exercise {name}; there are {', '.join(texts)}.")
    hints, worked = texts[name].split("**Solution.**")
    return [text.strip() for text in hints.split("**Hint.**")[1:]], worked.strip()
