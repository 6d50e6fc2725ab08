"""The code that all displays share: their axes, and their colours, which have a fixed meaning."""

import os
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure, SubFigure

from jaxnn.checks import InputError


class Palette(NamedTuple):
    """The colours of what is drawn.

    Attributes:
        value: of values, and of the outlines of neurons.
        weight: of weights.
        derivative: of ∂J/∂ of a node.
        weight_derivatives: of ∂J/∂ of the weights, for each layer in turn.
        paper: of what lies behind.
        faint: of remarks.
        panel: of the box of a layer whose numbers are known.
        lit: of what lies behind the numbers that a step computes.
    """

    value: str
    weight: str
    derivative: str
    weight_derivatives: tuple[str, ...]
    paper: str
    faint: str
    panel: str
    lit: str


LIGHT = Palette(
    "#1a1a1a", "#1f5fbf", "#c8202f", ("#b35900", "#6a3d9a", "#00786c", "#8c2d6b"),
    "white", "0.4", "#eef3fb", "#ffe58a",
)  # fmt: skip
DARK = Palette(
    "#ececec", "#8ab8ff", "#ff8f8f", ("#ffb366", "#c8a8f0", "#66d4c4", "#f09ad0"),
    "black", "0.7", "#1d2a40", "#6b5400",
)  # fmt: skip
CLASSES = ("#2f6fb7", "#e07b39", "#3d9a6d", "#8e5ea8", "#b8a03a", "#7a7a7a")


def palette(ax: Axes) -> Palette:
    """Return the colours for the background of the axes, such as that of ``dark_background``."""
    red, green, blue, _ = to_rgba(ax.get_facecolor())
    is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
    return (DARK if is_dark else LIGHT)._replace(paper=to_hex(ax.get_facecolor()))


class Display:
    """A drawing.

    Attributes:
        ax_: the axes in which it is drawn.
        figure_: their figure.
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def save(self, path: str | os.PathLike[str], **how: Any) -> None:
        """Save the figure, in the format of the path's ending, such as ``.png`` or ``.pdf``.

        Args:
            path: where to.
            how: what ``Figure.savefig`` takes, such as ``dpi=200``.
        """
        figure = self.ax_.get_figure(root=True)
        assert figure is not None
        figure.savefig(path, **how)

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
