"""Activation functions, each with its derivative beneath it.

Applied entry by entry, they have no parameters, and their backward pass is one product::

    y  = f(x)
    dx = f'(x) * dy

What each keeps for the backward pass is whichever of ``x`` and ``y`` gives the cheaper ``f'``.
``kinks`` names the inputs at which ``f`` has no derivative; the value used there is a convention,
stated in the docstring.
"""

import math
from typing import Any, ClassVar

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

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Give no parameters: ``()``."""
        return ()

    def _check_forward(self, params: tuple[()], x: Array) -> None:
        check_no_params(self, params)
        check_floating(self, "x", x)

    def _check_backward(self, dy: Array, like: Array) -> None:
        check_like(self, "dy", dy, like, "the output")


@layer
class Step(Activation):
    """The Heaviside step, the Perceptron's activation (Rosenblatt, 1958): 1 where x > 0, else 0.

    Its derivative is 0 everywhere that it exists, so **no gradient passes**: a network with a Step
    cannot be trained by gradient descent, and the Perceptron learns by a rule of its own. At the
    jump, x = 0, the derivative is given as 0 too.
    """

    kinks: ClassVar[str] = "x = 0"
    formulas = Formulas("y = 1 if x > 0 else 0", "dx = 0 * dy")

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Static[tuple[int, ...]]]:
        """Return 1 where x > 0 and 0 elsewhere, in the dtype of ``x``."""
        self._check_forward(params, x)
        return (x > 0).astype(x.dtype), Static(x.shape)  # only for the check of dy

    def backward(
        self, params: tuple[()], cache: Static[tuple[int, ...]], dy: Float[Array, "*n"]
    ) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return zeros: the step is flat wherever it has a derivative."""
        check_shape(self, "dy", dy, cache.value)
        return (), jnp.zeros_like(dy)


@layer
class Sigmoid(Activation):
    r"""The logistic function, σ(x) = 1 / (1 + exp(-x)), with σ' = σ (1 - σ).

    Computed without overflow for inputs of any size: σ(±1000) is 1 and 0.
    """

    formulas = Formulas("y = σ(x)", "dx = y * (1 - y) * dy")

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
class Tanh(Activation):
    """The hyperbolic tangent, with tanh' = 1 - tanh²."""

    formulas = Formulas("y = tanh(x)", "dx = (1 - y**2) * dy")

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
class ReLU(Activation):
    """The rectified linear unit, max(0, x) (Nair and Hinton, 2010).

    At the kink, x = 0, the derivative is taken as 0: the convention of ``jax.nn.relu`` and of
    PyTorch, and the choice that trains best in the study of Bertoin et al., "Numerical influence
    of ReLU'(0) on backpropagation" (2021). ``jax.grad`` of ``jnp.maximum`` would give 1/2.
    """

    kinks: ClassVar[str] = "x = 0"
    formulas = Formulas("y = x if x > 0 else 0", "dx = dy if y > 0 else 0")

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


@layer
class HardSigmoid(Activation):
    """The piecewise linear sigmoid: 0 below -3, 1 above 3, x/6 + 1/2 between (Howard et al., 2019).

    At both kinks the derivative is taken as 0, as ``jax.nn.hard_sigmoid`` and PyTorch do.
    """

    kinks: ClassVar[str] = "x = ±3"
    formulas = Formulas("y = max(0, min(1, x / 6 + 1 / 2))", "dx = dy / 6 if abs(x) < 3 else 0")

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return x/6 + 1/2 cut off at 0 and 1."""
        self._check_forward(params, x)
        y = jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, x / 6 + 0.5)).astype(x.dtype)
        return y, x  # x: near the kinks y rounds to 0 and 1 too early

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return dy / 6 between the kinks."""
        x = cache
        self._check_backward(dy, x)
        return (), jnp.where(jnp.abs(x) < 3, dy / 6, 0)


@layer
class LeakyReLU(Activation):
    """x where it is positive, slope · x elsewhere (Maas et al., 2013). At 0 the derivative is ``slope``, as in PyTorch.

    Args:
        slope: the derivative for negative inputs.
    """

    slope: float = 0.01
    kinks: ClassVar[str] = "x = 0"
    formulas = Formulas("y = x if x > 0 else slope * x", "dx = dy if x > 0 else slope * dy")

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return x where x > 0 and slope · x elsewhere."""
        self._check_forward(params, x)
        return jnp.where(x > 0, x, self.slope * x), x  # x: its sign says which branch it was

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return dy where x > 0 and slope · dy elsewhere."""
        x = cache
        self._check_backward(dy, x)
        return (), jnp.where(x > 0, dy, self.slope * dy)


@layer
class ELU(Activation):
    """The exponential linear unit: x where it is positive, α (exp(x) - 1) elsewhere (Clevert et al., 2016).

    Args:
        alpha: α, minus the limit for large negative inputs. For α = 1 there is no kink at 0.
    """

    alpha: float = 1.0
    kinks: ClassVar[str] = "x = 0, unless α = 1"
    formulas = Formulas("y = x if x > 0 else alpha * expm1(x)", "dx = dy if x > 0 else alpha * exp(x) * dy")

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return x where x > 0 and α (exp(x) - 1) elsewhere."""
        self._check_forward(params, x)
        negative = jnp.where(x > 0, 0, x)  # exp must not overflow in the branch that is not taken
        return jnp.where(x > 0, x, self.alpha * jnp.expm1(negative)), x  # x: exp(x) keeps digits that y + α loses

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return dy where x > 0 and α exp(x) dy elsewhere."""
        x = cache
        self._check_backward(dy, x)
        return (), jnp.where(x > 0, dy, self.alpha * jnp.exp(x) * dy)


@layer
class SELU(Activation):
    """The self-normalising ELU: λ ELU(x), with λ and α that keep mean 0 and variance 1 (Klambauer et al., 2017)."""

    kinks: ClassVar[str] = "x = 0"
    ALPHA: ClassVar[float] = 1.6732632423543772
    LAMBDA: ClassVar[float] = 1.0507009873554805
    formulas = Formulas(
        "y = LAMBDA * (x if x > 0 else ALPHA * expm1(x))", "dx = LAMBDA * (dy if x > 0 else ALPHA * exp(x) * dy)"
    )

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return λ x where x > 0 and λ α (exp(x) - 1) elsewhere."""
        self._check_forward(params, x)
        negative = jnp.where(x > 0, 0, x)
        return self.LAMBDA * jnp.where(x > 0, x, self.ALPHA * jnp.expm1(negative)), x  # x: as in ELU

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return λ dy where x > 0 and λ α exp(x) dy elsewhere."""
        x = cache
        self._check_backward(dy, x)
        return (), self.LAMBDA * jnp.where(x > 0, dy, self.ALPHA * jnp.exp(x) * dy)


@layer
class Softplus(Activation):
    """The smooth ReLU, log(1 + exp(x)), whose derivative is the sigmoid (Dugas et al., 2001)."""

    formulas = Formulas("y = max(x, 0) + log1p(exp(-abs(x)))", "dx = σ(x) * dy")

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return log(1 + exp(x)), without overflow."""
        self._check_forward(params, x)
        return jnp.logaddexp(x, jnp.zeros_like(x)), x  # x: the derivative is σ(x)

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return σ(x) dy."""
        x = cache
        self._check_backward(dy, x)
        return (), jax.nn.sigmoid(x) * dy


@layer
class SiLU(Activation):
    """The sigmoid linear unit or swish, x σ(x) (Elfwing et al., 2018; Ramachandran et al., 2017)."""

    formulas = Formulas("y = x * σ(x)", "dx = σ(x) * (1 + x * (1 - σ(x))) * dy")

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return x σ(x)."""
        self._check_forward(params, x)
        return x * jax.nn.sigmoid(x), x  # x: σ(x) is cheaper to compute again than to keep

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return σ (1 + x (1 - σ)) dy, the product rule with σ' = σ (1 - σ)."""
        x = cache
        self._check_backward(dy, x)
        s = jax.nn.sigmoid(x)
        return (), s * (1 + x * (1 - s)) * dy


@layer
class Mish(Activation):
    """x tanh(softplus(x)) (Misra, 2019)."""

    formulas = Formulas(
        "a = tanh(max(x, 0) + log1p(exp(-abs(x))))\ny = x * a",
        "dx = (a + x * (1 - a**2) * σ(x)) * dy",
    )

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return x tanh(log(1 + exp(x)))."""
        self._check_forward(params, x)
        return x * jnp.tanh(jax.nn.softplus(x)), x  # x: both factors follow from it

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return (t + x (1 - t²) σ(x)) dy, with t = tanh(softplus(x)): product rule, then chain rule."""
        x = cache
        self._check_backward(dy, x)
        t = jnp.tanh(jax.nn.softplus(x))
        return (), (t + x * (1 - t) * (1 + t) * jax.nn.sigmoid(x)) * dy


@layer
class GELU(Activation):
    """The Gaussian error linear unit, x Φ(x), with Φ the normal distribution (Hendrycks and Gimpel, 2016).

    Args:
        form: "exact", or "tanh" for the paper's approximation Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    """

    form: str = "exact"
    CUBIC: ClassVar[float] = 0.044715
    SCALE: ClassVar[float] = math.sqrt(2 / math.pi)

    def __post_init__(self) -> None:
        check_choice("GELU", "form", self.form, ("exact", "tanh"))

    def formulas(self, x: Any, cache: Any) -> Formulas:
        """State what each form computes."""
        if self.form == "exact":
            return Formulas("y = x * Φ(x)", "dx = (Φ(x) + x * φ(x)) * dy")
        return Formulas(
            "t = tanh(SCALE * (x + CUBIC * x**3))\ny = x * (1 + t) / 2",
            "dx = ((1 + t) / 2 + x * (1 - t**2) / 2 * SCALE * (1 + 3 * CUBIC * x**2)) * dy",
        )

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Array]:
        """Return x Φ(x)."""
        self._check_forward(params, x)
        return x * self._phi(x), x  # x: Φ and its density follow from it

    def backward(self, params: tuple[()], cache: Array, dy: Float[Array, "*n"]) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return (Φ(x) + x φ(x)) dy, with φ = Φ' the normal density or, for "tanh", its approximation."""
        x = cache
        self._check_backward(dy, x)
        if self.form == "exact":
            u = self._below(x)
            density = jnp.exp(-(u * u)) / math.sqrt(2 * math.pi)  # erfc needs this exponential too: once for both
        else:
            t = self._tanh(x)
            density = (1 - t) * (1 + t) / 2 * self.SCALE * (1 + 3 * self.CUBIC * x * x)
        return (), (self._phi(x) + x * density) * dy

    def _phi(self, x: Array) -> Array:
        if self.form == "exact":
            return jax.scipy.special.erfc(self._below(x)) / 2  # erfc keeps the digits of the lower tail
        return (1 + self._tanh(x)) / 2

    def _below(self, x: Array) -> Array:
        return -x / math.sqrt(2)

    def _tanh(self, x: Array) -> Array:
        return jnp.tanh(self.SCALE * (x + self.CUBIC * x * x * x))
