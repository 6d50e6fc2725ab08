"""Activation functions, each with its derivative beneath it.

Applied entry by entry, they have no parameters, and their backward pass is one product::

    y  = f(x)
    dx = f'(x) * dy

What each keeps for the backward pass is whichever of ``x`` and ``y`` gives the cheaper ``f'``.
``kinks`` names the inputs at which ``f`` has no derivative; the value used there is a convention,
stated in the docstring.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxnn.checks import check_floating, check_like, check_no_params
from jaxnn.types import layer


class Elementwise:
    """What all activations share: no parameters, and the checks of input and gradient."""

    kinks: ClassVar[str] = ""

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Give no parameters: ``()``."""
        return ()

    def _check_forward(self, params: tuple[()], x: Array) -> None:
        check_no_params(self, params)
        check_floating(self, "x", x)

    def _check_backward(self, dy: Array, like: Array) -> None:
        check_like(self, "dy", dy, like, "the output")


@layer
class Step(Elementwise):
    """The Heaviside step, the Perceptron's activation (Rosenblatt, 1958): 1 where x > 0, else 0.

    Its derivative is 0 everywhere that it exists, so **no gradient passes**: a network with a Step
    cannot be trained by gradient descent, and the Perceptron learns by a rule of its own. At the
    jump, x = 0, the derivative is given as 0 too.
    """

    kinks: ClassVar[str] = "x = 0"

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return 1 where x > 0 and 0 elsewhere, in the dtype of ``x``."""
        self._check_forward(params, x)
        y = (x > 0).astype(x.dtype)
        return y, y  # y: for its shape alone

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return zeros: the step is flat wherever it has a derivative."""
        self._check_backward(dy, cache)
        return (), jnp.zeros_like(dy)


@layer
class Sigmoid(Elementwise):
    r"""The logistic function, σ(x) = 1 / (1 + exp(-x)), with σ' = σ (1 - σ).

    Computed without overflow for inputs of any size: σ(±1000) is 1 and 0.
    """

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return σ(x)."""
        self._check_forward(params, x)
        y = jax.nn.sigmoid(x)
        return y, y  # y: the derivative is a polynomial in it

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return σ(x) (1 - σ(x)) dy."""
        y = cache
        self._check_backward(dy, y)
        return (), y * (1 - y) * dy


@layer
class Tanh(Elementwise):
    """The hyperbolic tangent, with tanh' = 1 - tanh²."""

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return tanh(x)."""
        self._check_forward(params, x)
        y = jnp.tanh(x)
        return y, y  # y: the derivative is a polynomial in it

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return (1 - tanh²(x)) dy."""
        y = cache
        self._check_backward(dy, y)
        return (), (1 - y) * (1 + y) * dy  # the factored form keeps its digits where |y| is near 1


@layer
class ReLU(Elementwise):
    """The rectified linear unit, max(0, x) (Nair and Hinton, 2010).

    At the kink, x = 0, the derivative is taken as 0: the convention of ``jax.nn.relu`` and of
    PyTorch, and the choice that trains best in the study of Bertoin et al., "Numerical influence
    of ReLU'(0) on backpropagation" (2021). ``jax.grad`` of ``jnp.maximum`` would give 1/2.
    """

    kinks: ClassVar[str] = "x = 0"

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return x where x > 0 and 0 elsewhere."""
        self._check_forward(params, x)
        y = jnp.where(x > 0, x, 0)
        return y, y  # y: positive exactly where x is, and the next layer keeps it anyway

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Let dy pass where the unit was active."""
        y = cache
        self._check_backward(dy, y)
        return (), jnp.where(y > 0, dy, 0)
