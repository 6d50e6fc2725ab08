"""Activation functions, each with its derivative beneath it.

Applied entry by entry, they have no parameters, and their backward pass is one product::

    y  = f(x)
    dx = f'(x) dy

:class:`Entrywise` is the frame that they share. What remains in each is these two equations:
``_value`` computes f(x), and ``_derivative`` computes f'(x) dy from whichever of x and y gives the
cheaper f'. ``kinks`` names the inputs at which f has no derivative; the value used there is a
convention, stated in the docstring.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxnn.checks import check_choice, check_floating, check_like, check_no_params, check_shape
from jaxnn.formulas import Formulas
from jaxnn.types import Static
from jaxnn.values import layer


class Activation:
    """A function without parameters, whose output has the shape of its input."""

    kinks: ClassVar[str] = ""
    per_position: ClassVar[bool] = True

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Return no parameters: ``()``."""
        return ()

    def _check_forward(self, params: tuple[()], x: Array) -> None:
        check_no_params(self, params)
        check_floating(self, "x", x)

    def _check_backward(self, dy: Array, like: Array) -> None:
        check_like(self, "dy", dy, like, "the output")


class Entrywise(Activation):
    """A function applied entry by entry."""

    keeps: ClassVar[str] = "x"  # which of x and y the derivative is computed from

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return y = f(x), and keep whichever of x and y the derivative is computed from."""
        self._check_forward(params, x)
        y = self._value(x)
        return y, y if self.keeps == "y" else x

    def backward(
        self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]
    ) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return dx = f'(x) dy."""
        self._check_backward(dy, cache)
        return (), self._derivative(cache, dy)

    def _value(self, x: Array) -> Array:
        raise NotImplementedError

    def _derivative(self, kept: Array, dy: Array) -> Array:
        raise NotImplementedError


@layer
class Heaviside(Activation):
    """The Heaviside step, the Perceptron's activation (Rosenblatt, 1958): 1 where x > 0, else 0.

    Its derivative is 0 everywhere that it exists, so **no gradient passes**: a network with a step
    in it cannot be trained by gradient descent, and the Perceptron learns by a rule of its own. At
    the jump, x = 0, the derivative is given as 0 too.
    """

    kinks: ClassVar[str] = "x = 0"
    formulas = Formulas("y = 1 if x > 0 else 0", "dx = 0 * dy")

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Static[tuple[int, ...]]]:
        """Return 1 where x > 0 and 0 elsewhere, in the dtype of ``x``."""
        self._check_forward(params, x)
        y = jnp.where(jnp.isnan(x), x, (x > 0).astype(x.dtype))
        return y, Static(x.shape)  # only for the check of dy

    def backward(
        self, params: tuple[()], cache: Static[tuple[int, ...]], dy: Float[Array, "*n"]
    ) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return zeros: the step is flat wherever it has a derivative."""
        check_shape(self, "dy", dy, cache.value)
        return (), jnp.zeros_like(dy)


Step = Heaviside  # its earlier name


@layer
class Sigmoid(Entrywise):
    r"""The logistic function, σ(x) = 1 / (1 + exp(-x)), with σ' = σ (1 - σ).

    Computed without overflow for inputs of any size: σ(±1000) is 1 and 0.
    """

    formulas = Formulas("y = σ(x)", "dx = y * (1 - y) * dy")
    keeps: ClassVar[str] = "y"

    def _value(self, x: Array) -> Array:
        return jax.nn.sigmoid(x)

    def _derivative(self, y: Array, dy: Array) -> Array:
        return y * (1 - y) * dy


@layer
class Tanh(Entrywise):
    """The hyperbolic tangent, with tanh' = 1 - tanh²."""

    formulas = Formulas("y = tanh(x)", "dx = (1 - y**2) * dy")
    keeps: ClassVar[str] = "y"

    def _value(self, x: Array) -> Array:
        return jnp.tanh(x)

    def _derivative(self, y: Array, dy: Array) -> Array:
        return (1 - y) * (1 + y) * dy  # the factored form keeps its digits where |y| is near 1


@layer
class ReLU(Entrywise):
    """The rectified linear unit, max(0, x) (Nair and Hinton, 2010).

    At the kink, x = 0, the derivative is taken as 0: the convention of ``jax.nn.relu`` and of
    PyTorch, and the choice that trains best in the study of Bertoin et al., "Numerical influence of
    ReLU'(0) on backpropagation" (2021). ``jax.grad`` of ``jnp.maximum`` would give 1/2.
    """

    kinks: ClassVar[str] = "x = 0"
    formulas = Formulas("y = x if x > 0 else 0", "dx = dy if y > 0 else 0")
    keeps: ClassVar[str] = "y"  # positive exactly where x is, and the next layer keeps it anyway

    def _value(self, x: Array) -> Array:
        return jnp.where(x <= 0, 0, x)  # so written, NaN is not taken for 0

    def _derivative(self, y: Array, dy: Array) -> Array:
        return jnp.where(y > 0, dy, 0)


@layer
class HardSigmoid(Entrywise):
    """The piecewise linear sigmoid: 0 below -3, 1 above 3, x/6 + 1/2 between (Howard et al., 2019).

    At both kinks the derivative is taken as 0, as ``jax.nn.hard_sigmoid`` and PyTorch do. Computed
    from x, since y rounds to 0 and 1 too early near the kinks.
    """

    kinks: ClassVar[str] = "x = ±3"
    formulas = Formulas("y = max(0, min(1, x / 6 + 1 / 2))", "dx = dy / 6 if abs(x) < 3 else 0")

    def _value(self, x: Array) -> Array:
        return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, x / 6 + 0.5)).astype(x.dtype)

    def _derivative(self, x: Array, dy: Array) -> Array:
        return jnp.where(jnp.abs(x) < 3, dy / 6, 0)


@layer
class LeakyReLU(Entrywise):
    """x where it is positive, slope · x elsewhere (Maas et al., 2013).

    At 0 the derivative is ``slope``, as in PyTorch.

    Args:
        slope: the derivative for negative inputs.
    """

    slope: float = 0.01
    kinks: ClassVar[str] = "x = 0"
    formulas = Formulas("y = x if x > 0 else slope * x", "dx = dy if x > 0 else slope * dy")

    def _value(self, x: Array) -> Array:
        return jnp.where(x > 0, x, self.slope * x)

    def _derivative(self, x: Array, dy: Array) -> Array:
        return jnp.where(x > 0, dy, self.slope * dy)


@layer
class ELU(Entrywise):
    """The exponential linear unit: x where x > 0, α (exp(x) - 1) elsewhere (Clevert et al., 2016).

    Computed from x, since exp(x) keeps digits that y + α loses.

    Args:
        alpha: α, minus the limit for large negative inputs. For α = 1 there is no kink at 0.
    """

    alpha: float = 1.0
    kinks: ClassVar[str] = "x = 0, unless α = 1"
    formulas = Formulas(
        "y = x if x > 0 else alpha * expm1(x)", "dx = dy if x > 0 else alpha * exp(x) * dy"
    )

    def _value(self, x: Array) -> Array:
        return jnp.where(x > 0, x, self.alpha * jnp.expm1(_not_positive(x)))

    def _derivative(self, x: Array, dy: Array) -> Array:
        return jnp.where(x > 0, dy, self.alpha * jnp.exp(_not_positive(x)) * dy)


def _not_positive(x: Array) -> Array:
    """Return x with 0 for positive entries: exp must not overflow in the branch that is not taken.

    The overflow would not be seen in the result, and would be in its derivative, as 0 · ∞.
    """
    return jnp.where(x > 0, 0, x)


@layer
class SELU(Entrywise):
    """λ ELU(x), with λ and α that keep mean 0 and variance 1 (Klambauer et al., 2017)."""

    kinks: ClassVar[str] = "x = 0"
    ALPHA: ClassVar[float] = 1.6732632423543772
    LAMBDA: ClassVar[float] = 1.0507009873554805
    formulas = Formulas(
        "y = LAMBDA * (x if x > 0 else ALPHA * expm1(x))",
        "dx = LAMBDA * (dy if x > 0 else ALPHA * exp(x) * dy)",
    )

    def _value(self, x: Array) -> Array:
        return self.LAMBDA * jnp.where(x > 0, x, self.ALPHA * jnp.expm1(_not_positive(x)))

    def _derivative(self, x: Array, dy: Array) -> Array:
        return self.LAMBDA * jnp.where(x > 0, dy, self.ALPHA * jnp.exp(_not_positive(x)) * dy)


@layer
class Softplus(Entrywise):
    """The smooth ReLU, log(1 + exp(x)), whose derivative is the sigmoid (Dugas et al., 2001)."""

    formulas = Formulas("y = max(x, 0) + log1p(exp(-abs(x)))", "dx = σ(x) * dy")

    def _value(self, x: Array) -> Array:
        return jnp.logaddexp(x, jnp.zeros_like(x))  # without overflow

    def _derivative(self, x: Array, dy: Array) -> Array:
        return jax.nn.sigmoid(x) * dy


@layer
class SiLU(Entrywise):
    """The sigmoid linear unit or swish, x σ(x) (Elfwing et al., 2018; Ramachandran et al., 2017).

    Its derivative is σ (1 + x (1 - σ)), by the product rule and σ' = σ (1 - σ).
    """

    formulas = Formulas("y = x * σ(x)", "dx = σ(x) * (1 + x * (1 - σ(x))) * dy")

    def _value(self, x: Array) -> Array:
        return x * jax.nn.sigmoid(x)

    def _derivative(self, x: Array, dy: Array) -> Array:
        s = jax.nn.sigmoid(x)  # cheaper to compute again than to keep
        return s * (1 + x * (1 - s)) * dy


@layer
class Mish(Entrywise):
    """x tanh(softplus(x)) (Misra, 2019).

    With t = tanh(softplus(x)), its derivative is t + x (1 - t²) σ(x), by the product and the chain
    rule.
    """

    formulas = Formulas(
        "a = tanh(max(x, 0) + log1p(exp(-abs(x))))\ny = x * a",
        "dx = (a + x * (1 - a**2) * σ(x)) * dy",
    )

    def _value(self, x: Array) -> Array:
        return x * jnp.tanh(jax.nn.softplus(x))

    def _derivative(self, x: Array, dy: Array) -> Array:
        t = jnp.tanh(jax.nn.softplus(x))
        return (t + x * (1 - t) * (1 + t) * jax.nn.sigmoid(x)) * dy


@layer
class GELU(Entrywise):
    """x Φ(x), with Φ the standard normal distribution function (Hendrycks and Gimpel, 2016).

    Its derivative is Φ(x) + x φ(x), with φ = Φ' the normal density or, for "tanh", its
    approximation.

    Args:
        form: "exact", or "tanh" for the paper's approximation Φ(x) ≈ (1 + tanh(u)) / 2 = σ(2u),
            with u = √(2/π) (x + 0.044715 x³). It is computed as σ(2u), which keeps its digits where
            tanh(u) is near -1.
    """

    _: dataclasses.KW_ONLY
    form: str = "exact"
    CUBIC: ClassVar[float] = 0.044715
    SCALE: ClassVar[float] = math.sqrt(2 / math.pi)
    BEYOND: ClassVar[float] = 25.0  # where the approximate density is 0 in float64

    formulas = Formulas(
        """
        if form == "exact":
            y = x * Φ(x)
        else:
            s = σ(2 * SCALE * (x + CUBIC * x**3))
            y = x * s
        """,
        """
        if form == "exact":
            dx = (Φ(x) + x * φ(x)) * dy
        else:
            dx = (s + x * s * (1 - s) * 2 * SCALE * (1 + 3 * CUBIC * x**2)) * dy
        """,
    )

    def __post_init__(self) -> None:
        check_choice("GELU", "form", self.form, ("exact", "tanh"))

    def _value(self, x: Array) -> Array:
        if self.form == "exact":
            return (
                x * jax.scipy.special.erfc(self._below(x)) / 2
            )  # erfc keeps the lower tail's digits
        return x * jax.nn.sigmoid(2 * self._u(x))

    def _derivative(self, x: Array, dy: Array) -> Array:
        if self.form == "exact":
            z = self._below(x)
            phi = jax.scipy.special.erfc(z) / 2
            density = jnp.exp(-(z * z)) / math.sqrt(2 * math.pi)  # erfc needs this exponential too
            return (phi + x * density) * dy
        phi = jax.nn.sigmoid(2 * self._u(x))
        inner = jnp.clip(x, -self.BEYOND, self.BEYOND)  # so that 0 · x² is 0 for any x
        density = phi * (1 - phi) * 2 * self.SCALE * (1 + 3 * self.CUBIC * inner * inner)
        return (phi + inner * density) * dy

    def _below(self, x: Array) -> Array:
        return -x / math.sqrt(2)

    def _u(self, x: Array) -> Array:
        return self.SCALE * (x + self.CUBIC * x * x * x)
