"""Losses: the value, and the derivative with respect to the prediction, derived by hand.

Each loss is a mean over all entries of the prediction, so the factor ``1/B`` of the batch is
applied here and nowhere else. With sample weights it is the weighted mean ``Σ w ℓ / Σ w``::

    value       = Σ share ℓ(prediction, target)        share = w / Σ w, or 1/n without weights
    dprediction = share ℓ'(prediction, target)

Values and sums are computed in at least float32; the gradient has the dtype of the prediction.
"""

from jaxnn.losses.adapter import OptaxLoss
from jaxnn.losses.binary import (
    BinaryCrossEntropy,
    Hinge,
    PerceptronCriterion,
    SigmoidBinaryCrossEntropy,
)
from jaxnn.losses.categorical import KLDivergence, SoftmaxCrossEntropy
from jaxnn.losses.regression import Huber, MeanAbsoluteError, MeanSquaredError

__all__ = [
    "BinaryCrossEntropy",
    "Hinge",
    "Huber",
    "KLDivergence",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "OptaxLoss",
    "PerceptronCriterion",
    "SigmoidBinaryCrossEntropy",
    "SoftmaxCrossEntropy",
]
