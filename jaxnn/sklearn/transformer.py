"""The activations of a layer as features."""

import numbers
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
    clone,
)
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted

from jaxnn.compose import Sequential
from jaxnn.sklearn.mlp import MLPClassifier
from jaxnn.sklearn.network import NetworkEstimator


class NetworkTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The activations of a layer of a trained network, as features for another estimator.

    Args:
        estimator: the estimator whose network is trained, an ``MLPClassifier`` by default.
        layers: the number of layers of its network to run: the features are the output of the last
            of them. Negative numbers count from the end; -1 leaves out the output layer.
        random_state: the seed of the estimator, in the place of its own; None to keep that.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "layers": [Interval(numbers.Integral, None, None, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self, estimator: Any = None, *, layers: int = -1, random_state: Any = None
    ) -> None:
        self.estimator, self.layers, self.random_state = estimator, layers, random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, **fit_params: Any) -> Self:
        """Train the network on inputs X and targets y."""
        chosen = MLPClassifier() if self.estimator is None else self.estimator
        if not isinstance(chosen, NetworkEstimator):
            raise ValueError(
                "NetworkTransformer: expected estimator to be one of jaxnn.sklearn that has a "
                f"network, such as MLPClassifier(), got {chosen!r}."
            )
        self.estimator_ = clone(chosen)
        if self.random_state is not None:
            self.estimator_.set_params(random_state=self.random_state)
        self.estimator_.fit(X, y, **fit_params)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        net = self.estimator_.network_
        count = len(net.layers) if isinstance(net, Sequential) else 0
        if not (-count < self.layers < 0 or 0 < self.layers <= count):
            raise ValueError(
                "NetworkTransformer: expected layers to be a number of layers of the network, "
                f"which is a chain of {count}, got {self.layers}."
            )
        self._n_features_out = self._features(X).shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the activations (n, features)."""
        check_is_fitted(self)
        return self._features(X)

    def _features(self, X: Any) -> np.ndarray:
        rows = self.estimator_._rows(X)
        return self.estimator_._outputs(rows, self.layers).reshape(len(rows), -1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        return tags
