"""A page on which a small network is trained while one looks, and any step is shown by its numbers.

The page computes by the formulas that the layers and losses of this library state: they are
compiled into JavaScript, with the widths of the layers as arguments, so that a reader can change
these. Nothing is fetched from a network, and the security policy of the page forbids all else.
"""

import base64
import hashlib
import html
import json
import math
import numbers
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike

from jaxnn.checks import (
    InputError,
    check_choice,
    check_finite,
    check_positive,
    check_positive_int,
    check_same_length,
    check_shape,
)
from jaxnn.data import Dataset, iris, moons
from jaxnn.equations import settings_of
from jaxnn.formulas.javascript import compiled
from jaxnn.layers import ELU, GELU, Dense, LeakyReLU, ReLU, Sigmoid, SiLU, Softplus, Tanh
from jaxnn.losses import MeanSquaredError, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy

__all__ = ["Playground", "playground"]

ACTIVATIONS = {
    "tanh": Tanh(),
    "relu": ReLU(),
    "sigmoid": Sigmoid(),
    "leaky relu": LeakyReLU(),
    "elu": ELU(),
    "gelu": GELU(),
    "silu": SiLU(),
    "softplus": Softplus(),
    "linear": None,
}
LOSSES = ("cross-entropy", "squared error")
OPTIMIZERS = ("sgd", "momentum", "adam")
BUILT_IN = ("moons", "circles", "spirals", "xor", "iris")
DEEPEST, WIDEST = 6, 12  # what the page can draw so that it stays legible
MOST_CLASSES, MOST_POINTS = 4, 2000
SPEEDS = (1, 5, 25)  # steps between two drawings
POINTS = 200
SEED = 0  # of the built-in data
SCRIPTS = (
    "functions.js", "compiled_writing.js", "training.js", "setting.js", "pictures.js", "numbers.js",
    "playground.js",
)  # fmt: skip


class Playground(str):
    """A page that a notebook shows in a frame."""

    def _repr_html_(self) -> str:
        style = "width:100%;height:900px;border:1px solid #8a8f98"
        return (
            f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(str(self))}" '
            f'style="{style}" title="A neural network to play with"></iframe>'
        )


class _Points(NamedTuple):
    """A data set as the page has it.

    Attributes:
        x: inputs (n, 2), each of mean 0 and standard deviation 1.
        y: classes (n,).
        axes: the names of the two features.
        classes: the names of the classes.
    """

    x: np.ndarray
    y: np.ndarray
    axes: tuple[str, ...]
    classes: tuple[str, ...]


def playground(
    data: str | Dataset | tuple[ArrayLike, ArrayLike] = "moons",
    *,
    hidden: tuple[int, ...] = (8, 8),
    activation: str = "tanh",
    loss: str = "cross-entropy",
    learning_rate: float = 0.03,
    optimizer: str = "adam",
    batch_size: int | None = 20,
    l2: float = 0.0,
    seed: int = 0,
) -> Playground:
    """Make a page on which a small network learns to tell apart the classes of points in a plane.

    The page shows the decision boundary, the response of each neuron, the weights, the sizes of the
    gradients and the loss while it trains. Everything can be changed there: the points, the
    network, the optimizer. "Show this step" shows the whole backpropagation of a step, number by
    number. A fifth of the points is held out. The page computes in float64 by the library's own
    formulas; a step agrees with that of the library and optax.

    Args:
        data: "moons", "circles", "spirals", "xor" or "iris", or your own points (x, y): inputs
            (n, 2), and classes (n,) that count from 0, four at most. All inputs are scaled to mean
            0 and standard deviation 1.
        hidden: the number of neurons of each hidden layer, from 0 to 6 layers of 1 to 12 neurons.
        activation: the activation of the hidden layers: "tanh", "relu", "sigmoid", "leaky relu",
            "elu", "gelu", "silu", "softplus", or "linear" for none.
        loss: "cross-entropy", on the logit of two classes or the logits of more, or "squared
            error", of the outputs against 0 and 1.
        learning_rate: the learning rate.
        optimizer: "sgd", "momentum" (0.9), or "adam", as in optax.
        batch_size: the number of points in a step, or None for all of them.
        l2: λ; λ times each weight is added to its gradient, as if λ/2 times the sum of all squared
            weights were added to J. Biases are left out.
        seed: the seed of the initial weights and of the order of the points.

    Returns:
        The page as a string, which a notebook displays. Written to a file, it opens in any browser.

    Raises:
        InputError: for an argument that is none of these.
    """
    sets = {name: _built_in(name) for name in BUILT_IN}
    if isinstance(data, str):
        check_choice("playground", "data", data, BUILT_IN)
    else:
        sets["yours"] = _yours(data)
    setting = {
        "data": data if isinstance(data, str) else "yours",
        "hidden": _checked_hidden(hidden),
        "activation": activation,
        "loss": loss,
        "optimizer": optimizer,
        "speed": SPEEDS[1],
    }
    check_choice("playground", "activation", activation, tuple(ACTIVATIONS))
    check_choice("playground", "loss", loss, LOSSES)
    check_positive("playground", "learning_rate", learning_rate)
    check_choice("playground", "optimizer", optimizer, OPTIMIZERS)
    if batch_size is not None:
        check_positive_int("playground", "batch_size", batch_size)
    if not _is(numbers.Real, l2) or not 0 <= l2 < math.inf:
        raise InputError(f"playground: expected l2 to be a number of at least 0, got {l2!r}.")
    if not _is(numbers.Integral, seed) or not 0 <= seed < 2**31:
        raise InputError(f"playground: expected seed to be an integer of at least 0, got {seed!r}.")
    plain = {"rate": float(learning_rate), "batch": int(batch_size or 0), "l2": float(l2)}
    return Playground(_page(sets, setting | plain | {"seed": int(seed)}))


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _checked_hidden(hidden: Any) -> list[int]:
    if not isinstance(hidden, tuple | list):
        raise InputError(f"playground: expected hidden as a tuple of integers, got {hidden!r}.")
    if len(hidden) > DEEPEST:
        raise InputError(
            f"playground: expected at most {DEEPEST} hidden layers, got {len(hidden)}."
        )
    for width in hidden:
        check_positive_int("playground", "the widths in hidden", width)
        if width > WIDEST:
            raise InputError(
                f"playground: expected at most {WIDEST} neurons in a layer, got {width}."
            )
    return [int(width) for width in hidden]


# ── Data ──


def _built_in(name: str) -> _Points:
    random = np.random.default_rng(SEED)
    match name:
        case "moons":
            found = moons(POINTS, noise=0.15, seed=SEED)
            return _points(found.x, found.y)
        case "circles":
            from sklearn.datasets import make_circles

            return _points(*make_circles(POINTS, noise=0.1, factor=0.45, random_state=SEED))
        case "spirals":
            y = np.arange(POINTS) % 2
            turn = np.sqrt(random.uniform(0.03, 1, POINTS)) * 3 * np.pi
            angle = turn + np.pi * y
            x = turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
            return _points(x + random.normal(0, 0.35, x.shape), y)
        case "xor":
            x = random.uniform(-1, 1, (POINTS, 2))
            x += 0.12 * np.sign(x)  # a gap between the classes
            return _points(x, (x[:, 0] * x[:, 1] > 0).astype(int))
    found = iris()  # the two features that tell the species apart best
    names = ("petal length", "petal width")
    return _points(found.x[:, 2:], found.y, names, found.class_names)


def _yours(data: Any) -> _Points:
    """Check the points of a caller."""
    names = data.feature_names if isinstance(data, Dataset) else ("x₁", "x₂")
    classes = data.class_names if isinstance(data, Dataset) else None
    pair = data[:2] if isinstance(data, Dataset) else data
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        kinds = ", ".join(map(repr, BUILT_IN))
        raise InputError(
            f"playground: expected data to be one of {kinds}, or (x, y), got {_brief(data)}."
        )
    x, y = (np.asarray(part) for part in pair)
    check_shape("playground", "x", x, ("n", 2))
    check_shape("playground", "y", y, ("n",))
    check_same_length("playground", x=x, y=y)
    check_finite("playground", "x", x)
    if not 2 <= len(x) <= MOST_POINTS:
        raise InputError(f"playground: expected 2 to {MOST_POINTS} points, got {len(x)}.")
    if not np.isin(y, range(MOST_CLASSES)).all():
        wrong = y[~np.isin(y, range(MOST_CLASSES))][0]
        raise InputError(f"playground: expected classes from 0 to {MOST_CLASSES - 1}, got {wrong}.")
    return _points(x.astype(float), y.astype(int), names, classes)


def _brief(data: Any) -> str:
    """Say what was given, however large it is."""
    if isinstance(data, tuple | list):
        return f"a {type(data).__name__} of length {len(data)}"
    return f"a {type(data).__name__}"


def _points(
    x: np.ndarray,
    y: np.ndarray,
    axes: tuple[str, ...] = ("x₁", "x₂"),
    classes: tuple[str, ...] | None = None,
) -> _Points:
    """Scale the inputs, and bring the points into an order of which every fifth can be held out."""
    x = np.asarray(x, float)
    spread = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)
    order = np.random.default_rng(SEED).permutation(len(x))
    count = max(2, int(y.max()) + 1)
    names = classes or tuple(f"class {k + 1}" for k in range(count))
    return _Points(x[order].round(3), y[order], axes, names[:count])


# ── The page ──


def _page(sets: Mapping[str, _Points], setting: Mapping[str, Any]) -> str:
    assets = resources.files("jaxnn.explanation").joinpath("assets")
    asset = lambda name: assets.joinpath(name).read_text(encoding="utf-8")  # noqa: E731
    data = {
        "sets": {
            name: {
                "points": [
                    [*x, label] for x, label in zip(s.x.tolist(), s.y.tolist(), strict=True)
                ],
                "axes": s.axes,
                "classes": s.classes,
            }
            for name, s in sets.items()
        },
        "setting": setting,
        "activations": list(ACTIVATIONS),
        "losses": LOSSES,
        "optimizers": OPTIMIZERS,
        "speeds": SPEEDS,
        "deepest": DEEPEST,
        "widest": WIDEST,
        "mostClasses": MOST_CLASSES,
        "mostPoints": MOST_POINTS,
    }
    script = "\n".join([asset(SCRIPTS[0]), operations(), *map(asset, SCRIPTS[1:])])
    parts = {
        "/*CSS*/": asset("playground.css"),
        "/*HASH*/": base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode(),
        "/*JS*/": script,
        "/*DATA*/": json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),
    }
    # in one pass, so that a mark inside a name stays the text that it is
    marks = "|".join(map(re.escape, parts))
    return re.sub(marks, lambda mark: parts[mark[0]], asset("playground.html"))


def operations() -> str:
    """Compile the formulas of everything that a network in the page can consist of."""
    entries = {"dense": _dense()} | {
        name: compiled(
            layer.formulas, dict.fromkeys(("x", "y", "dy", "dx"), ("B", "F")), settings_of(layer)
        )
        for name, layer in ACTIVATIONS.items()
        if layer is not None
    }
    rows = {"y": ("B", "K"), "dy": ("B", "K"), "t": ("B", "K"), "J": ()}
    entries["sigmoid cross-entropy"] = compiled(SigmoidBinaryCrossEntropy.formulas, rows)
    entries["squared"] = compiled(MeanSquaredError.formulas, rows)
    entries["softmax"] = compiled(
        SoftmaxCrossEntropy.formulas,
        rows | {"t": ("B",)},
        settings_of(SoftmaxCrossEntropy()) | {"holds_classes": True},
        absent=["counted"],
        counts={"N": "B"},
    )
    listed = "\n".join(
        "\n".join(f"  {line}" for line in f"{json.dumps(name)}: {code},".splitlines())
        for name, code in entries.items()
    )
    remark = "// Made of the formulas that the layers and losses state."
    return f"{remark}\nconst OPS = {{\n{listed}\n}};\n"


def _dense() -> str:
    axes = {"x": ("B", "I"), "w": ("I", "O"), "b": ("O",), "y": ("B", "O"), "dy": ("B", "O")}
    return compiled(Dense.formulas, axes)
