"""Data sets that ship with the dependencies: nothing is downloaded."""

import os
from typing import NamedTuple

import numpy as np

from jaxnn.checks import InputError, check_positive_int


class Dataset(NamedTuple):
    """Inputs and labels, with their names.

    Attributes:
        x: inputs (B, I).
        y: integer labels, or numbers, (B,).
        feature_names: I names, with units.
        class_names: one name a label.
    """

    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]


def iris_setosa() -> Dataset:
    """The lecture's data: is an Iris flower Setosa (0) or not (1), by the size of its sepals in cm?

    150 flowers, measured by Anderson (1935), published by Fisher (1936): x is (150, 2), the length
    and width of the sepal.
    """
    from sklearn.datasets import load_iris

    iris = load_iris()
    return Dataset(
        x=iris.data[:, :2],
        y=(iris.target > 0).astype(np.int32),
        feature_names=("Sepal length (cm)", "Sepal width (cm)"),
        class_names=("Setosa", "Non-Setosa"),
    )


def iris() -> Dataset:
    """All 150 Iris flowers: x (150, 4) in cm, and three species (Anderson, 1935; Fisher, 1936)."""
    from sklearn.datasets import load_iris

    found = load_iris()
    return Dataset(
        found.data.astype(np.float32),
        found.target.astype(np.int32),
        tuple(found.feature_names),
        tuple(map(str, found.target_names)),
    )


def moons(n: int = 1000, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Two interleaving half circles, of a standard deviation of ``noise``: x (n, 2), two classes."""
    from sklearn.datasets import make_moons

    x, y = make_moons(n, noise=noise, random_state=seed)
    return Dataset(x.astype(np.float32), y.astype(np.int32), ("x₁", "x₂"), ("upper", "lower"))


def digits() -> Dataset:
    """Handwritten digits, 1797 of 8 x 8 pixels: x (1797, 64) in [0, 1], ten classes (Alpaydin and Kaynak, 1998)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Dataset(
        (found.data / 16).astype(np.float32),
        found.target.astype(np.int32),
        tuple(found.feature_names),
        tuple(map(str, found.target_names)),
    )


def diabetes() -> Dataset:
    """The progression of diabetes in 442 patients after a year: x (442, 10), y (442,) (Efron et al., 2004)."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    return Dataset(
        found.data.astype(np.float32),
        found.target.astype(np.float32),
        tuple(found.feature_names),
        ("progression",),
    )


def mnist(path: str | os.PathLike | None = None) -> tuple[Dataset, Dataset]:
    """The MNIST digits, x (n, 784) in [0, 1]: 60,000 to train on and 10,000 to test (LeCun et al., 1998).

    Args:
        path: an .npz file with x_train, y_train, x_test and y_test; by default they are fetched from OpenML.

    Raises:
        InputError: if the file is not such a one, or OpenML cannot be reached.
    """
    if path is None:
        from sklearn.datasets import fetch_openml

        try:
            x, y = fetch_openml(
                "mnist_784", version=1, as_frame=False, parser="liac-arff", return_X_y=True
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"mnist: expected OpenML to answer, got: {error}. Without a network, give an .npz file with x_train, "
                "y_train, x_test and y_test."
            ) from error
        parts = ((x[:60000], y[:60000]), (x[60000:], y[60000:]))
    else:
        try:
            with np.load(path) as file:
                parts = ((file["x_train"], file["y_train"]), (file["x_test"], file["y_test"]))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"mnist: expected an .npz file with x_train, y_train, x_test and y_test, got {path} ({error})."
            ) from error
    names = tuple(map(str, range(10)))
    pixels = tuple(f"pixel_{row}_{column}" for row in range(28) for column in range(28))
    train, test = (
        Dataset(
            (np.asarray(x).reshape(len(x), 784) / 255).astype(np.float32),
            y.astype(np.int32),
            pixels,
            names,
        )
        for x, y in parts
    )
    return train, test


def python_topics() -> str:
    """English text that ships with Python: its own help topics, about half a million characters."""
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


class Text(NamedTuple):
    """A text as windows of characters, and the characters that follow each.

    Attributes:
        x: ids (n, T).
        y: the ids one place further on (n, T).
        vocabulary: the character of each id.
    """

    x: np.ndarray
    y: np.ndarray
    vocabulary: str


def characters(text: str, length: int, vocabulary: str) -> Text:
    """Cut a text into windows of ``length`` characters, end to end; each is to be told from those before it.

    Raises:
        InputError: for a text shorter than a window, or with characters that are not in the vocabulary.
    """
    check_positive_int("characters", "length", length)
    known = {character: i for i, character in enumerate(vocabulary)}
    if unknown := sorted(set(text) - set(known)):
        raise InputError(f"characters: expected characters of the vocabulary, got {unknown[0]!r}.")
    ids = np.array([known[character] for character in text], np.int32)
    n = (len(ids) - 1) // length
    if n < 1:
        raise InputError(
            f"characters: expected a text longer than {length} characters, got {len(ids)}."
        )
    return Text(
        ids[: n * length].reshape(n, length), ids[1 : n * length + 1].reshape(n, length), vocabulary
    )


def split(dataset: Dataset, test: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Hold out a part of the rows, drawn at random; of each class the same part, where y are classes."""
    from sklearn.model_selection import train_test_split

    x, y = dataset.x, dataset.y
    classes = y if np.issubdtype(y.dtype, np.integer) else None
    parts = train_test_split(x, y, test_size=test, random_state=seed, stratify=classes)
    return dataset._replace(x=parts[0], y=parts[2]), dataset._replace(x=parts[1], y=parts[3])


def with_ones(x: np.ndarray) -> np.ndarray:
    """Append a column of ones to x (B, I), so that the last weight of a neuron is its bias."""
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
