"""Curves over the steps of training."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from jaxnn.checks import InputError, check_shape
from jaxnn.plots.display import CLASSES, Display


class CurvesDisplay(Display):
    """Named curves over steps or epochs: loss, score, accuracy."""

    def __init__(self, curves: Mapping[str, np.ndarray]) -> None:
        self.curves = curves

    @classmethod
    def from_history(
        cls,
        history: Mapping[str, ArrayLike],
        *,
        xlabel: str = "step",
        ylabel: str = "",
        title: str = "",
        ax: Axes | None = None,
    ) -> Self:
        """Draw each entry of ``history``, a mapping from names to one value for each step.

        Args:
            history: the curves, by name.
            xlabel: the label of the horizontal axis, the unit of a step.
            ylabel: the label of the vertical axis, the quantity that is drawn.
            title: the title of the axes.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for anything but a dict of curves with one number for each step.
        """
        if not isinstance(history, Mapping) or not history:
            raise InputError(
                "CurvesDisplay: expected a dict of curves by name, got "
                f"{'none' if isinstance(history, Mapping) else type(history).__name__}."
            )
        curves = {name: np.asarray(values) for name, values in history.items()}
        for name, values in curves.items():
            check_shape("CurvesDisplay", repr(name), values, ("steps",))
        return cls(curves).plot(xlabel=xlabel, ylabel=ylabel, title=title, ax=ax)

    def plot(
        self, *, xlabel: str = "step", ylabel: str = "", title: str = "", ax: Axes | None = None
    ) -> Self:
        """Draw the curves in the order of the mapping."""
        ax = self._draw_in(ax, figsize=(5, 3.5))
        for (name, values), color in zip(
            self.curves.items(), CLASSES * len(self.curves), strict=False
        ):
            ax.plot(np.arange(1, len(values) + 1), values, label=name, color=color, lw=1.8)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        ax.grid(color="0.92")
        ax.legend(frameon=False)
        return self
