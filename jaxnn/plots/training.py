"""How training went: the history of one network, and of many."""

from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes

from jaxnn.checks import check_choice
from jaxnn.plots.display import CLASSES, Display

PREFIX = "validation_"


class HistoryDisplay(Display):
    """The losses of a fit, and beside them its metrics."""

    def __init__(self, history: dict[str, np.ndarray]) -> None:
        self.history = history

    @classmethod
    def from_fit(cls, fit: Any, *, axes: Any = None) -> Self:
        """Draw the history of ``fit``: the losses, and in a second panel the metrics, if there are any.

        Args:
            fit: what ``fit`` returned.
            axes: where to draw, one or two; by default in a new figure.
        """
        return cls(fit.history).plot(axes=axes)

    def plot(self, *, axes: Any = None) -> Self:
        """Draw the panels."""
        losses = [name for name in ("loss", f"{PREFIX}loss") if name in self.history]
        metrics = [name for name in self.history if name.startswith(PREFIX) and name not in losses]
        given = None if axes is None else np.atleast_1d(axes)
        count = 2 if metrics else 1
        first, *others = self._panels(given, count)
        names = {"loss": "training", f"{PREFIX}loss": "validation"}
        for name, color in zip(losses, CLASSES, strict=False):
            first.plot(
                self.history["step"], self.history[name], color=color, lw=1.8, label=names[name]
            )
        first.set(
            xlabel="step", ylabel="loss", yscale="log" if self._spans_decades(losses) else "linear"
        )
        for ax in others:
            for name, color in zip(metrics, CLASSES[2:] + CLASSES[:2], strict=False):
                label = name.removeprefix(PREFIX).replace("_", " ")
                ax.plot(self.history["step"], self.history[name], color=color, lw=1.8, label=label)
            ax.set(xlabel="step", ylabel="on validation data")
        for ax in (first, *others):
            ax.grid(color="0.92")
            ax.legend(frameon=False)
        return self

    def _panels(self, given: Any, count: int) -> list[Axes]:
        if given is None:
            import matplotlib.pyplot as plt

            _, made = plt.subplots(
                1, count, figsize=(4.6 * count, 3.4), layout="constrained", squeeze=False
            )
            given = made[0]
        self.ax_, self.figure_ = given[0], given[0].figure
        return list(given[:count])

    def _spans_decades(self, names: list[str]) -> bool:
        values = np.concatenate([self.history[name] for name in names])
        return bool(values.min() > 0 and values.max() / values.min() > 30)


class PopulationDisplay(Display):
    """One entry of the history of many members: each a thin line, the median and the middle half of them."""

    def __init__(self, step: np.ndarray, values: np.ndarray, name: str, best: int | None) -> None:
        self.step, self.values, self.name, self.best = step, values, name, best

    @classmethod
    def from_population(
        cls, population: Any, name: str = "loss", *, mode: str = "min", ax: Axes | None = None
    ) -> Self:
        """Draw the spread of an entry of the history over the members that did not fail.

        Args:
            population: what ``fit_population`` returned.
            name: the entry, such as "loss" or "validation_accuracy".
            mode: "min" if lower is better, "max" if higher is: which member is drawn as the best.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for an unknown entry or mode, or if every member failed.
        """
        check_choice(
            "PopulationDisplay",
            "name",
            name,
            tuple(sorted(set(population.history) - {"step", "step_loss"})),
        )
        best = population.best(name, mode)
        display = cls(population.history["step"], population.history[name], name, best)
        return display.plot(kept=population.failed == 0, ax=ax)

    def plot(self, *, kept: np.ndarray | None = None, ax: Axes | None = None) -> Self:
        """Draw the members of ``kept``."""
        ax = self._draw_in(ax, figsize=(5, 3.6))
        kept = np.ones(self.values.shape[1], bool) if kept is None else kept
        values = self.values[:, kept]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
        ax.plot(self.step, values, color="0.75", lw=0.4, alpha=0.6, zorder=1)
        ax.fill_between(
            self.step, low, high, color=CLASSES[0], alpha=0.25, lw=0, label="middle half", zorder=2
        )
        ax.plot(self.step, middle, color=CLASSES[0], lw=2, label="median", zorder=3)
        if self.best is not None:
            label = f"best, member {self.best}"
            ax.plot(
                self.step,
                self.values[:, self.best],
                color=CLASSES[1],
                lw=1.8,
                label=label,
                zorder=4,
            )
        failed = f", {np.sum(~kept)} failed" if not kept.all() else ""
        ax.set(
            xlabel="step", ylabel=self.name.replace("_", " "), title=f"{len(kept)} members{failed}"
        )
        ax.grid(color="0.92")
        ax.legend(frameon=False)
        return self


def history(fit: Any, *, axes: Any = None) -> HistoryDisplay:
    """Draw how a fit went; see :meth:`HistoryDisplay.from_fit`."""
    return HistoryDisplay.from_fit(fit, axes=axes)


def population(
    population: Any, name: str = "loss", *, mode: str = "min", ax: Axes | None = None
) -> PopulationDisplay:
    """Draw the spread of the members' curves; see :meth:`PopulationDisplay.from_population`."""
    return PopulationDisplay.from_population(population, name, mode=mode, ax=ax)
