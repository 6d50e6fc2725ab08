"""The course of training: the history of one network, and of a population of networks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from matplotlib.axes import Axes

from jaxnn.checks import InputError, check_choice, kind_of
from jaxnn.plots.display import CLASSES, Display

if TYPE_CHECKING:  # so that drawing loads nothing else
    from jaxnn.training.fit import Fit
    from jaxnn.training.population import Population

PREFIX = "validation_"


class HistoryDisplay(Display):
    """The losses of a fit, and its metrics in a second panel."""

    def __init__(self, history: dict[str, np.ndarray]) -> None:
        self.history = history

    @classmethod
    def from_fit(cls, fit: "Fit", *, axes: Axes | Sequence[Axes] | None = None) -> Self:
        """Draw the losses of a fit and, in a second panel, its metrics, if there are any.

        Args:
            fit: the result of ``fit``.
            axes: where to draw, one or two axes; by default in a new figure.
        """
        if not isinstance(getattr(fit, "history", None), dict) or not hasattr(fit, "net"):
            raise InputError(
                f"HistoryDisplay: expected the result of fit, got a {type(fit).__name__}."
            )
        return cls(fit.history).plot(axes=axes)

    def plot(self, *, axes: Axes | Sequence[Axes] | None = None) -> Self:
        """Draw the panels."""
        losses = [name for name in ("loss", f"{PREFIX}loss") if name in self.history]
        metrics = [name for name in self.history if name.startswith(PREFIX) and name not in losses]
        given = None if axes is None else np.atleast_1d(np.asarray(axes, dtype=object))
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

    def _panels(self, given: np.ndarray | None, count: int) -> list[Axes]:
        if given is None:
            import matplotlib.pyplot as plt

            _, made = plt.subplots(
                1, count, figsize=(4.6 * count, 3.4), layout="constrained", squeeze=False
            )
            given = made[0]
        given = np.ravel(given)
        if len(given) != count or not all(hasattr(ax, "plot") for ax in given):
            raise InputError(
                f"{type(self).__name__}: expected {count} axes of matplotlib, got {len(given)} of "
                f"{kind_of(given[0]) if len(given) else 'nothing'}."
            )
        self.ax_, self.figure_ = given[0], given[0].figure
        return list(given[:count])

    def _spans_decades(self, names: list[str]) -> bool:
        values = np.concatenate([self.history[name] for name in names])
        return bool(values.min() > 0 and values.max() / values.min() > 30)


class PopulationDisplay(Display):
    """One entry of the history of many members: thin lines, their median and their middle half."""

    def __init__(self, step: np.ndarray, values: np.ndarray, name: str, best: int | None) -> None:
        self.step, self.values, self.name, self.best = step, values, name, best

    @classmethod
    def from_population(
        cls,
        population: "Population",
        name: str = "loss",
        *,
        mode: str = "min",
        ax: Axes | None = None,
    ) -> Self:
        """Draw the spread of an entry of the history over the members that did not fail.

        Args:
            population: the result of ``fit_population``.
            name: the entry, such as "loss" or "validation_accuracy".
            mode: "min" if lower values are better, "max" if higher ones are; it decides which
                member is drawn as the best.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for an unknown entry or mode, or if every member failed.
        """
        if not hasattr(population, "failed"):
            raise InputError(
                "PopulationDisplay: expected the result of fit_population, "
                f"got a {type(population).__name__}."
            )
        names = sorted(set(population.history) - {"step", "step_loss"})
        check_choice("PopulationDisplay", "name", name, tuple(names))
        best = population.best(name, mode)
        display = cls(population.history["step"], population.history[name], name, best)
        return display.plot(kept=population.failed == 0, ax=ax)

    def plot(self, *, kept: np.ndarray | None = None, ax: Axes | None = None) -> Self:
        """Draw the members that the mask ``kept`` selects; by default all."""
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
            best = self.values[:, self.best]
            ax.plot(self.step, best, color=CLASSES[1], lw=1.8, label=label, zorder=4)
        failed = f", {np.sum(~kept)} failed" if not kept.all() else ""
        ax.set(
            xlabel="step", ylabel=self.name.replace("_", " "), title=f"{len(kept)} members{failed}"
        )
        ax.grid(color="0.92")
        ax.legend(frameon=False)
        return self


def history(fit: "Fit", *, axes: Axes | Sequence[Axes] | None = None) -> HistoryDisplay:
    """Draw the history of a fit; see :meth:`HistoryDisplay.from_fit`."""
    return HistoryDisplay.from_fit(fit, axes=axes)


def population(
    population: "Population", name: str = "loss", *, mode: str = "min", ax: Axes | None = None
) -> PopulationDisplay:
    """Draw the spread of the members' curves; see :meth:`PopulationDisplay.from_population`."""
    return PopulationDisplay.from_population(population, name, mode=mode, ax=ax)
