"""Estimators with the conventions of scikit-learn, trained by this library.

They stand in the place of scikit-learn's own: in pipelines, cross-validation and grid search, with
data frames, string labels and sample weights. Data of float64 are computed in float64, and data of
float32 in float32, as scikit-learn does.
"""

from jaxnn.sklearn.evolving import PopulationBasedTraining
from jaxnn.sklearn.mlp import MLPClassifier, MLPRegressor
from jaxnn.sklearn.neurons import LogisticNeuron, Perceptron
from jaxnn.sklearn.search import PopulationHalvingSearchCV, PopulationSearchCV
from jaxnn.sklearn.transformer import NetworkTransformer

__all__ = [
    "LogisticNeuron",
    "MLPClassifier",
    "MLPRegressor",
    "NetworkTransformer",
    "Perceptron",
    "PopulationBasedTraining",
    "PopulationHalvingSearchCV",
    "PopulationSearchCV",
]
