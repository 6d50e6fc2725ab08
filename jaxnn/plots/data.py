"""Labelled points in the plane, and the regions a classifier assigns to the labels."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from numpy.typing import ArrayLike

from jaxnn.checks import (
    InputError,
    check_finite,
    check_not_empty,
    check_positive,
    check_positive_int,
    check_same_length,
    check_shape,
)
from jaxnn.conversion import as_arrays
from jaxnn.plots.display import CLASSES, Display, palette


def _points(who: str, x: ArrayLike) -> np.ndarray:
    """Check points in the plane, at least one and all of them finite."""
    points = np.asarray(as_arrays(who, "x", x))
    check_shape(who, "x", points, ("B", 2))
    check_not_empty(who, "x", points)
    check_finite(who, "x", points)
    return points


class ScatterDisplay(Display):
    """Points of two features, coloured by label."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, feature_names: Sequence[str], class_names: Sequence[str]
    ) -> None:
        self.x, self.y, self.feature_names, self.class_names = x, y, feature_names, class_names

    @classmethod
    def from_data(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        *,
        feature_names: Sequence[str] = ("x₁", "x₂"),
        class_names: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw x (B, 2), coloured by the integer labels y (B,).

        Raises:
            InputError: for x of another shape, if the numbers of points and labels differ, for
                labels that are no integers of at least 0, or names that are too few.
        """
        who = "ScatterDisplay"
        x, y = _points(who, x), np.asarray(y)
        check_shape(who, "y", y, ("B",))
        check_same_length(who, x=x, y=y)
        if not (y.astype(int) == y).all() or y.min() < 0:
            wrong = y[(y.astype(int) != y) | (y < 0)][0]
            raise InputError(f"{who}: expected labels 0, 1, …, got {wrong}.")
        names = [f"class {k}" for k in range(int(y.max()) + 1)]
        if class_names is not None:
            names = list(class_names)
        if len(names) <= y.max() or len(feature_names) != 2:
            raise InputError(
                f"{who}: expected a name for each of the {int(y.max()) + 1} classes and the two "
                f"features, got {names} and {list(feature_names)}."
            )
        return cls(x, y.astype(int), feature_names, names).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the points, with a colour and a marker for each class."""
        ax = self._draw_in(ax, figsize=(5, 4))
        markers = "os^Dvp"
        for k, name in enumerate(self.class_names):
            points = self.x[self.y == k]
            color, marker = CLASSES[k % len(CLASSES)], markers[k % len(markers)]
            ax.scatter(
                points[:, 0],
                points[:, 1],
                s=42,
                color=color,
                marker=marker,
                edgecolor=palette(ax).paper,
                lw=0.6,
                label=name,
            )
        ax.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1])
        ax.legend(loc="lower right", framealpha=0.9)
        return self


class BoundaryDisplay(Display):
    """The probability of class 1 over the plane, and the line where it is one half."""

    def __init__(self, xx: np.ndarray, yy: np.ndarray, probability: np.ndarray) -> None:
        self.xx, self.yy, self.probability = xx, yy, probability

    @classmethod
    def from_function(
        cls,
        predict: Callable[[np.ndarray], ArrayLike],
        x: ArrayLike,
        *,
        resolution: int = 200,
        margin: float = 0.5,
        ax: Axes | None = None,
    ) -> Self:
        """Draw a classifier of two features around the points x.

        Args:
            predict: a function that returns the probability of class 1, (n,) or (n, 1), for inputs
                (n, 2).
            x: the points (B, 2) that the picture has to contain.
            resolution: the number of grid points along each axis.
            margin: how far the picture extends beyond the points, in the units of x.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for x or probabilities of another shape, or outside [0, 1].
        """
        who = "BoundaryDisplay"
        x = _points(who, x)
        check_positive_int(who, "resolution", resolution)
        check_positive(who, "margin", margin)
        if not callable(predict):
            raise InputError(f"{who}: expected predict to be a function, got {predict!r}.")
        (left, bottom), (right, top) = x.min(axis=0) - margin, x.max(axis=0) + margin
        xx, yy = np.meshgrid(
            np.linspace(left, right, resolution), np.linspace(bottom, top, resolution)
        )
        grid = np.stack([xx.ravel(), yy.ravel()], axis=1).astype(x.dtype)
        probability = np.asarray(predict(grid)).squeeze()
        check_shape(who, "predict(x)", probability, (len(grid),))
        if not ((probability >= 0) & (probability <= 1)).all():
            raise InputError(
                f"{who}: expected probabilities in [0, 1], got numbers from {probability.min():g} "
                f"to {probability.max():g}."
            )
        return cls(xx, yy, probability.reshape(xx.shape)).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the two regions, and the boundary between them."""
        ax = self._draw_in(ax, figsize=(5, 4))
        pale = ListedColormap(
            [tuple(1 - 0.35 * (1 - c) for c in to_rgb(color)) for color in CLASSES[:2]]
        )
        ax.pcolormesh(
            self.xx, self.yy, self.probability >= 0.5, cmap=pale, vmin=0, vmax=1, rasterized=True
        )
        if self.probability.min() < 0.5 <= self.probability.max():
            ax.contour(
                self.xx, self.yy, self.probability, levels=[0.5], colors="0.2", linewidths=1.2
            )
        return self
