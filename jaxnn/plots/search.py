"""The results of a search over hyperparameters."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from jaxnn.checks import InputError, check_choice
from jaxnn.plots.display import CLASSES, Display, palette

PREFIX = "param_"
DECADES = 30.0  # numbers whose ratio is larger than this are drawn on a logarithmic axis


class SearchDisplay(Display):
    """The scores of a search: over one hyperparameter, or parallel coordinates of several."""

    def __init__(self, results: Mapping[str, Any], parameters: Sequence[str], metric: str) -> None:
        self.results, self.parameters, self.metric = results, tuple(parameters), metric
        self.scores = np.asarray(results[f"mean_test_{metric}"], float)

    @classmethod
    def from_search(
        cls,
        search: Any,
        parameters: str | Sequence[str] | None = None,
        *,
        metric: str = "score",
        ax: Axes | None = None,
    ) -> Self:
        """Draw the scores of a search of scikit-learn, or of one of this library.

        For one hyperparameter, each candidate is drawn with its splits. For several, each candidate
        is a line that crosses an axis for each hyperparameter, and one for the mean score.

        Args:
            search: a search after ``fit``.
            parameters: a hyperparameter or several; by default all that were varied.
            metric: the name of the score, if there are several.
            ax: where to draw; by default in a new figure.

        Raises:
            InputError: for a search without results, or an unknown hyperparameter or metric.
        """
        results = getattr(search, "cv_results_", None)
        if not isinstance(results, Mapping):
            raise InputError(
                "SearchDisplay: expected a search that was fitted, such as PopulationSearchCV, "
                f"got a {type(search).__name__}."
            )
        known = [name.removeprefix(PREFIX) for name in results if name.startswith(PREFIX)]
        metrics = [name[len("mean_test_") :] for name in results if name.startswith("mean_test_")]
        check_choice("SearchDisplay", "metric", metric, tuple(metrics))
        if parameters is None:
            varied = [name for name in known if len(set(map(str, results[PREFIX + name]))) > 1]
            parameters = varied or known
        chosen = (parameters,) if isinstance(parameters, str) else tuple(parameters)
        for name in chosen:
            check_choice("SearchDisplay", "parameters", name, tuple(known))
        return cls(results, chosen, metric).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> Self:
        """Draw the candidates."""
        single = len(self.parameters) == 1
        ax = self._draw_in(ax, figsize=(5, 3.6) if single else (2 + 1.6 * len(self.parameters), 4))
        if single:
            self._draw_over(ax, self.parameters[0])
        else:
            self._draw_parallel(ax)
        return self

    def _draw_over(self, ax: Axes, parameter: str) -> None:
        """Draw the mean and the splits of each candidate, and the best mean of each value."""
        scale = _Scale(self.results[PREFIX + parameter])
        x = scale.places
        splits = [v for name, v in self.results.items() if self._is_split(name)]
        for number, values in enumerate(splits):
            label = "a split" if number == 0 else None
            ax.scatter(x, values, s=9, color="0.7", label=label, zorder=1)
        ax.scatter(x, self.scores, s=24, color=CLASSES[0], label="mean of the splits", zorder=2)
        distinct = np.unique(x)
        finite = np.where(np.isfinite(self.scores), self.scores, -np.inf)
        best = [finite[x == place].max() for place in distinct]
        ax.plot(distinct, best, color=CLASSES[0], lw=1.4, zorder=2)
        if np.isfinite(finite).any():
            top = int(finite.argmax())
            ax.scatter(
                x[top], self.scores[top], s=90, marker="*", color=CLASSES[1], label="best", zorder=3
            )
        ax.set_xticks(scale.ticks, scale.labels)
        ax.set(xlabel=parameter.rpartition("__")[2], ylabel=self.metric.replace("_", " "))
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.legend(frameon=False)

    def _draw_parallel(self, ax: Axes) -> None:
        """Draw each candidate as a line, with better ones above worse ones."""
        scales = [_Scale(self.results[PREFIX + name]) for name in self.parameters]
        scales.append(_Scale(self.scores))
        heights = np.stack([scale.heights for scale in scales], axis=1)
        order = np.argsort(np.where(np.isfinite(self.scores), self.scores, -np.inf))
        order = order[np.isfinite(self.scores[order])]
        finite = self.scores[order] if len(order) else np.zeros(1)
        colors = ScalarMappable(Normalize(finite.min(), finite.max()), "viridis")
        for i in order:
            ax.plot(heights[i], color=colors.to_rgba(self.scores[i]), lw=1.2, alpha=0.8)
        if len(order):
            ax.plot(heights[order[-1]], color=CLASSES[1], lw=2.6, label="best")
            ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        for place, scale in enumerate(scales):
            ax.axvline(place, color=palette(ax).value, lw=0.8)
            for height, label in zip(scale.tick_heights, scale.labels, strict=True):
                ax.annotate(
                    label, (place, height), (4, 0), textcoords="offset points", va="center",
                    fontsize=8, bbox={"boxstyle": "square,pad=0.1", "fc": "w", "ec": "none",
                                      "alpha": 0.7},
                )  # fmt: skip
        names = [name.rpartition("__")[2] for name in self.parameters]
        ax.set_xticks(range(len(scales)), [*names, self.metric.replace("_", " ")])
        ax.set(yticks=[], ylim=(-0.05, 1.05), xlim=(-0.1, len(scales) - 0.5))
        for side in ("left", "right", "top", "bottom"):
            ax.spines[side].set_visible(False)

    def _is_split(self, name: str) -> bool:
        return name.startswith("split") and name.endswith(f"_test_{self.metric}")


class _Scale:
    """The places of the values of one axis: numbers as they are or by logarithm, others by rank.

    Attributes:
        places: the place of each value.
        ticks: the places of the labels.
        labels: the texts of the labels.
    """

    def __init__(self, values: Any) -> None:
        try:
            numbers = np.array([float(value) for value in values])
        except (TypeError, ValueError):
            names = [str(value) for value in values]
            self.labels = sorted(set(names))
            self.places = np.array([self.labels.index(name) for name in names], float)
            self.ticks = np.arange(len(self.labels), dtype=float)
            return
        finite = numbers[np.isfinite(numbers)]
        logarithmic = len(finite) > 0 and finite.min() > 0 and finite.max() > DECADES * finite.min()
        self.places = np.log10(numbers) if logarithmic else numbers
        found = np.unique(self.places[np.isfinite(self.places)])
        if len(found) > 8:
            found = np.linspace(found.min(), found.max(), 5)
        self.ticks = found
        self.labels = [f"{10**place if logarithmic else place:.3g}" for place in found]

    @property
    def heights(self) -> np.ndarray:
        """The places between 0 and 1."""
        return self._height(self.places)

    @property
    def tick_heights(self) -> np.ndarray:
        """The places of the labels between 0 and 1."""
        return self._height(self.ticks)

    def _height(self, places: np.ndarray) -> np.ndarray:
        low, high = (self.ticks.min(), self.ticks.max()) if len(self.ticks) else (0.0, 1.0)
        return (places - low) / (high - low) if high > low else np.full(len(places), 0.5)


def search(
    search: Any,
    parameters: str | Sequence[str] | None = None,
    *,
    metric: str = "score",
    ax: Axes | None = None,
) -> SearchDisplay:
    """Draw the results of a search; see :meth:`SearchDisplay.from_search`."""
    return SearchDisplay.from_search(search, parameters, metric=metric, ax=ax)
