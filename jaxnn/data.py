"""Data sets that ship with the dependencies: nothing is downloaded."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Inputs and labels, with their names.

    Attributes:
        x: inputs (B, I).
        y: integer labels (B,).
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


def with_ones(x: np.ndarray) -> np.ndarray:
    """Append a column of ones to x (B, I), so that the last weight of a neuron is its bias."""
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
