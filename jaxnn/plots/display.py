"""The code that all displays share: their axes, and their colours, which have a fixed meaning."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from jaxnn.checks import InputError

VALUE = "#1a1a1a"
WEIGHT = "#1f5fbf"  # blue
DERIVATIVE = "#c8202f"  # red: dJ/d(a node)
WEIGHT_DERIVATIVES = ("#b35900", "#6a3d9a", "#00786c", "#8c2d6b")  # for each layer in turn
CLASSES = ("#2f6fb7", "#e07b39", "#3d9a6d", "#8e5ea8", "#b8a03a", "#7a7a7a")


class Display:
    """A drawing, with its axes and its figure."""

    ax_: Axes
    figure_: Figure | SubFigure

    def _draw_in(self, ax: Axes | None, **subplots: Any) -> Axes:
        if not isinstance(ax, Axes | None):
            raise InputError(
                f"{type(self).__name__}: expected ax to be axes of matplotlib, got {ax!r}."
            )
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained", **subplots)
        self.ax_, self.figure_ = ax, ax.figure
        return ax


def format_number(value: float) -> str:
    """Write a number with five significant digits, a small one in scientific notation."""
    value = float(value) + 0.0  # so that -0.0 becomes 0.0
    return f"{value:.5g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.2e}"
