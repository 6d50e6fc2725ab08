"""Matplotlib displays in the style of scikit-learn: ``Display.from_...(..., ax=None)``.

Each display draws into the given axes, or creates its own, and keeps them as ``ax_`` and
``figure_``. None of them needs a screen.
"""

from jaxnn.plots.activation import ActivationDisplay
from jaxnn.plots.curves import CurvesDisplay
from jaxnn.plots.data import BoundaryDisplay, ScatterDisplay
from jaxnn.plots.diagram import NetworkDisplay
from jaxnn.plots.search import SearchDisplay, search
from jaxnn.plots.training import HistoryDisplay, PopulationDisplay, history, population
from jaxnn.plots.worked import BackpropDisplay

__all__ = [
    "ActivationDisplay",
    "BackpropDisplay",
    "BoundaryDisplay",
    "CurvesDisplay",
    "HistoryDisplay",
    "NetworkDisplay",
    "PopulationDisplay",
    "ScatterDisplay",
    "SearchDisplay",
    "history",
    "population",
    "search",
]
