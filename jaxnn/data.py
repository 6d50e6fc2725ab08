"""Data sets. Except for MNIST, they are part of the dependencies, and nothing is downloaded."""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxnn.checks import InputError, check_fraction, check_positive, check_positive_int, check_shape
from jaxnn.conversion import as_arrays


class Dataset(NamedTuple):
    """Inputs and labels, with their names.

    Attributes:
        x: inputs (B, I).
        y: integer labels, or numbers, (B,).
        feature_names: I names, with units.
        class_names: one name for each label.
    """

    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]


def iris_setosa() -> Dataset:
    """Load the data of the lecture: is an Iris flower Setosa (0) or not (1)?

    There are 150 flowers, measured by Anderson (1935) and published by Fisher (1936).
    x is (150, 2), the length and width of the sepals in cm.
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
    """Load all 150 Iris flowers: x (150, 4) in cm, three species (Anderson, 1935; Fisher, 1936)."""
    from sklearn.datasets import load_iris

    found = load_iris()
    return Dataset(
        found.data.astype(np.float32),
        found.target.astype(np.int32),
        tuple(found.feature_names),
        tuple(map(str, found.target_names)),
    )


def moons(n: int = 1000, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Draw two interleaving half circles: x (n, 2), two classes.

    Args:
        n: the number of points.
        noise: the standard deviation of the Gaussian noise that is added to x.
        seed: the seed of the random numbers.
    """
    from sklearn.datasets import make_moons

    check_positive_int("moons", "n", n)
    with _in_our_words("moons"):
        x, y = make_moons(n, noise=noise, random_state=seed)
    return Dataset(x.astype(np.float32), y.astype(np.int32), ("x₁", "x₂"), ("upper", "lower"))


def digits() -> Dataset:
    """Load 1797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998).

    x is (1797, 64), in [0, 1], and there are ten classes.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    return Dataset(
        (found.data / 16).astype(np.float32),
        found.target.astype(np.int32),
        tuple(found.feature_names),
        tuple(map(str, found.target_names)),
    )


def diabetes() -> Dataset:
    """Load the progression of diabetes in 442 patients after one year (Efron et al., 2004).

    x is (442, 10) and y is (442,).
    """
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    return Dataset(
        found.data.astype(np.float32),
        found.target.astype(np.float32),
        tuple(found.feature_names),
        ("progression",),
    )


def mnist(path: str | os.PathLike | None = None) -> tuple[Dataset, Dataset]:
    """Load the MNIST digits (LeCun et al., 1998): 60,000 for training and 10,000 for testing.

    x is (n, 784), in [0, 1].

    Args:
        path: an .npz file with x_train, y_train, x_test and y_test; by default the data are
            downloaded from OpenML.

    Raises:
        InputError: if the file cannot be read or has other contents, or if OpenML cannot be
            reached.
    """
    if path is None:
        from sklearn.datasets import fetch_openml

        try:
            x, y = fetch_openml(
                "mnist_784", version=1, as_frame=False, parser="liac-arff", return_X_y=True
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"mnist: expected OpenML to answer, got: {error}. Without a network, "
                "give an .npz file with x_train, y_train, x_test and y_test."
            ) from error
        parts = ((x[:60000], y[:60000]), (x[60000:], y[60000:]))
    else:
        try:
            with np.load(path) as file:
                parts = ((file["x_train"], file["y_train"]), (file["x_test"], file["y_test"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "mnist: expected an .npz file with x_train, y_train, x_test and y_test, "
                f"got {path} ({error})."
            ) from error
    for images, labels in parts:
        if np.shape(images)[1:] not in ((28, 28), (784,)) or len(images) != len(labels):
            raise InputError(
                "mnist: expected images of shape (n, 28, 28) and n labels, "
                f"got {np.shape(images)} and {np.shape(labels)}."
            )
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
    """Load the help topics of Python, an English text of about half a million characters."""
    from pydoc_data.topics import topics

    return "".join(topics[name] for name in sorted(topics))


class Text(NamedTuple):
    """A text as windows of characters, and the characters that follow each.

    Attributes:
        x: the ids of the characters (n, T).
        y: the ids of the characters one place later (n, T).
        vocabulary: the character of each id.
    """

    x: np.ndarray
    y: np.ndarray
    vocabulary: str


def characters(text: str, length: int, vocabulary: str) -> Text:
    """Cut a text into consecutive windows of ``length`` characters.

    The task is to predict each character from those before it.

    Raises:
        InputError: for a text that is shorter than a window, or that contains characters that are
            not in the vocabulary.
    """
    check_positive_int("characters", "length", length)
    if not isinstance(text, str) or not isinstance(vocabulary, str):
        kinds = type(text).__name__, type(vocabulary).__name__
        raise InputError(f"characters: expected text and vocabulary as str, got {kinds}.")
    if len(set(vocabulary)) < len(vocabulary):
        raise InputError(f"characters: expected different characters, got {vocabulary!r}.")
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
    """Hold out a random part of the rows for testing.

    If y are classes, the same part of each class is held out.

    Args:
        dataset: the data.
        test: the fraction of the rows to hold out.
        seed: the seed of the random numbers.

    Returns:
        The rows for training, and those for testing.

    Raises:
        InputError: for anything but a Dataset and a fraction that leaves rows on both sides.
    """
    from sklearn.model_selection import train_test_split

    if not isinstance(dataset, Dataset):
        raise InputError(f"split: expected a Dataset, got a {type(dataset).__name__}.")
    check_fraction("split", "test", test)
    check_positive("split", "test", test)
    x, y = dataset.x, dataset.y
    classes = y if np.issubdtype(y.dtype, np.integer) else None
    with _in_our_words("split"):
        parts = train_test_split(x, y, test_size=test, random_state=seed, stratify=classes)
    return dataset._replace(x=parts[0], y=parts[2]), dataset._replace(x=parts[1], y=parts[3])


def with_ones(x: np.ndarray) -> np.ndarray:
    """Append a column of ones to x (B, I), so that the last weight of a neuron is its bias.

    Raises:
        InputError: for x of another shape.
    """
    x = np.asarray(as_arrays("with_ones", "x", x))
    check_shape("with_ones", "x", x, ("B", "I"))
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


@contextlib.contextmanager
def _in_our_words(who: str) -> Iterator[None]:
    """Turn the errors of scikit-learn about arguments into errors of this library."""
    try:
        yield
    except (ValueError, TypeError) as error:
        words = str(error).replace("test_size", "test").replace("random_state", "seed")
        raise InputError(f"{who}: {words}") from error
