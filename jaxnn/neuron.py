"""The artificial neuron: inputs, weights, an activation.   B batch, I inputs.

A neuron is a model f: ℝᴵ → [0, 1], f(x) = σ(θᵀx). With a step for σ it is the Perceptron
(Rosenblatt, 1958); with the logistic function it is logistic regression. A bias is the weight of an
input that is always 1: see ``jaxnn.data.with_ones``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, PRNGKeyArray

from jaxnn.checks import (
    check_concrete,
    check_finite,
    check_floating,
    check_labels,
    check_like,
    check_not_empty,
    check_params,
    check_positive_int,
    check_same_length,
    check_shape,
)
from jaxnn.descent import Descent, gradient_descent
from jaxnn.formulas import Formulas
from jaxnn.layers import Sigmoid
from jaxnn.networks import check_activation
from jaxnn.types import AnyArray, Cache, Layer
from jaxnn.values import layer


class NeuronParams(NamedTuple):
    """The weights ``theta`` (I,)."""

    theta: Float[Array, "I"]


@layer
class Neuron:
    """One neuron: y = activation(x θ), from inputs (B, I) to outputs (B,).

    Args:
        activation: a layer applied entry by entry; the logistic function by default.
    """

    activation: Layer = Sigmoid()
    formulas = Formulas(
        """
        x[0][n] = sum(x[n, i] * theta[i] for i in I)
        y = f[0]
        """,
        """
        dtheta[i] = sum(x[n, i] * df[0][n] for n in B)
        dx[n, i] = df[0][n] * theta[i]
        """,
    )

    def __post_init__(self) -> None:
        check_activation("Neuron", self.activation)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> NeuronParams:
        """Draw standard normal weights for inputs of shape (B, I)."""
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("B", "I"))
        return NeuronParams(jax.random.normal(key, x.shape[1:], x.dtype))

    def forward(
        self, params: NeuronParams, x: Float[Array, "B I"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B"], Cache]:
        """Return the activation of the weighted sum of the inputs."""
        check_params(self, params, NeuronParams)
        check_shape(self, "theta", params.theta, ("I",))
        check_shape(self, "x", x, ("B", params.theta.shape[0]))
        check_floating(self, "x", x, like=params.theta)
        z = x @ params.theta
        y, cache = self.activation.forward((), z)
        return y, (x, cache)  # dθ is a product with x

    def backward(
        self, params: NeuronParams, cache: Cache, dy: Float[Array, "B"]
    ) -> tuple[NeuronParams, Float[Array, "B I"]]:
        """Return dθ = xᵀ dz and dx = dz θᵀ, with dz = σ'(z) dy."""
        x, activation_cache = cache
        check_like(self, "dy", dy, x[:, 0], "the output")
        _, dz = self.activation.backward((), activation_cache, dy)
        return NeuronParams(x.T @ dz), jnp.outer(dz, params.theta)


def logistic_descent(
    x: Float[AnyArray, "B I"],
    y: Num[AnyArray, "B"],
    *,
    step_size: float = 0.1,
    threshold: float = 5e-5,
    max_iterations: int = 10_000_000,
    progress: bool = False,
) -> Descent:
    """Train a logistic neuron by gradient descent on the mean binary cross-entropy, from θ = 0.

    This is the loop of the lecture. The data are transposed once to (I, B), so that each iteration
    is two small matrix-vector products over contiguous rows.

    Args:
        x: inputs (B, I), floating; append a column of ones for a bias.
        y: labels (B,), 0 or 1.
        step_size: α, above 0.
        threshold: the norm of the change of θ at which to stop, above 0.
        max_iterations: the maximal number of updates.
        progress: whether to show the iterations on the terminal.

    Returns:
        The :class:`~jaxnn.descent.Descent`; its ``params`` are those of a :class:`Neuron`.

    Raises:
        InputError: for data that are empty, not floating point, not finite or of different lengths,
            labels other than 0 and 1, or a step size, threshold or limit that is not positive.
    """
    data, labels = _checked("logistic_descent", x, y)
    return gradient_descent(
        None,
        NeuronParams(jnp.asarray(np.zeros(data.shape[1], data.dtype))),
        np.ascontiguousarray(data.T),
        labels,
        gradient=_logistic_gradient,
        step_size=step_size,
        threshold=threshold,
        max_iterations=max_iterations,
        progress=progress,
    )


def _logistic_gradient(
    params: NeuronParams, xt: Float[Array, "I B"], y: Float[Array, "B"]
) -> NeuronParams:
    """Compute ∇J = 1/B Σ (σ(θᵀx) - y) x.

    The derivatives of the logarithm and of the sigmoid cancel to a difference.
    """
    residual = jax.nn.sigmoid(params.theta @ xt) - y
    return NeuronParams(xt @ residual / y.size)


class PerceptronRun(NamedTuple):
    """The result of the perceptron rule.

    Attributes:
        params: the weights.
        epochs: the number of passes over the data; if converged, the last one is without a mistake.
        mistakes: the number of all updates.
        converged: whether a whole pass made no mistake, which happens if a hyperplane separates the
            classes.
    """

    params: NeuronParams
    epochs: int
    mistakes: int
    converged: bool


def perceptron_rule(
    x: Float[AnyArray, "B I"], y: Num[AnyArray, "B"], *, max_epochs: int = 1000
) -> PerceptronRun:
    """Train a Perceptron by its own rule (Rosenblatt, 1958): θ := θ + (y - f(x)) x, by sample.

    Nothing is differentiated: a sample on the right side of the boundary changes nothing; one on
    the wrong side is added to the weights or subtracted from them. If the classes are separable by
    a margin γ and the norms of the inputs are at most R, the rule makes at most (R/γ)² mistakes
    (Novikoff, 1962).

    Args:
        x: inputs (B, I), floating; append a column of ones for a bias.
        y: labels (B,), 0 or 1.
        max_epochs: the maximal number of passes over the data.

    Raises:
        InputError: for data that are empty, not floating point, not finite or of different lengths,
            labels other than 0 and 1, or a limit that is not a positive integer.
    """
    data, labels = _checked("perceptron_rule", x, y)
    check_positive_int("perceptron_rule", "max_epochs", max_epochs)
    theta, epochs, total, last = _perceptron(data, labels, max_epochs)
    return PerceptronRun(NeuronParams(theta), int(epochs), int(total), int(last) == 0)


@jax.jit
def _perceptron(x: Array, y: Array, max_epochs: Array) -> tuple[Array, Array, Array, Array]:
    def learn(theta: Array, sample: tuple[Array, Array]) -> tuple[Array, Array]:
        xi, yi = sample
        error = yi - (xi @ theta > 0)
        return theta + error * xi, error != 0

    def epoch(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        theta, epochs, total, _ = state
        theta, mistaken = jax.lax.scan(learn, theta, (x, y))
        return theta, epochs + 1, total + mistaken.sum(), mistaken.sum()

    def unfinished(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[3] > 0) & (state[1] < max_epochs)

    zero = jnp.asarray(0)
    return jax.lax.while_loop(
        unfinished, epoch, (jnp.zeros(x.shape[1], x.dtype), zero, zero, zero + 1)
    )


def _checked(who: str, x: AnyArray, y: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    """Check the data on the host, where every value is known, and cast them to one dtype."""
    check_concrete(who, x=x, y=y)
    x, y = np.asarray(x), np.asarray(y)
    check_shape(who, "x", x, ("B", "I"))
    check_not_empty(who, "x", x)
    check_same_length(who, x=x, y=y)
    check_shape(who, "y", y, ("B",))
    check_floating(who, "x", x)
    check_finite(who, "x", x)
    check_labels(who, "y", y, (0, 1))
    dtype = jnp.result_type(x)
    return x.astype(dtype), y.astype(dtype)
