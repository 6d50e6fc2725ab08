"""Dropout, the one layer that draws from its key."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import check_floating, check_fraction, check_key, check_no_params, check_shape
from jaxnn.formulas import Formulas
from jaxnn.types import Cache, Static
from jaxnn.values import layer


@layer
class Dropout:
    """In training, set each entry to 0 with probability ``rate`` and divide the others by 1 - rate.

    At inference (``key=None``) the identity. The division ("inverted" dropout) keeps the expected
    output the same in both. (Srivastava et al., 2014)

    Args:
        rate: the probability to drop, in [0, 1).

    Raises:
        InputError: for a rate outside [0, 1).
    """

    rate: float
    per_position: ClassVar[bool] = True

    formulas = Formulas(
        """
        if training:
            y = kept * x / (1 - rate)
        else:
            y = x
        """,
        """
        if training:
            dx = kept * dy / (1 - rate)
        else:
            dx = dy
        """,
    )

    def __post_init__(self) -> None:
        check_fraction("Dropout", "rate", self.rate)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Return no parameters: ``()``."""
        return ()

    def forward(
        self, params: tuple[()], x: Float[Array, "*n"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*n"], Any]:
        """Return x with entries dropped, or x itself without a key."""
        check_no_params(self, params)
        check_floating(self, "x", x)
        if key is None or self.rate == 0:
            return x, Static(x.shape)  # only for the check of dy
        check_key(self, key)
        kept = jax.random.bernoulli(key, jnp.float32(1 - self.rate), x.shape)
        return jnp.where(
            kept, x / (1 - self.rate), 0
        ), kept  # kept: a byte an entry, cheaper than to draw it again

    def backward(
        self, params: tuple[()], cache: Cache, dy: Float[Array, "*n"]
    ) -> tuple[tuple[()], Float[Array, "*n"]]:
        """Return dy / (1 - rate) where the entry was kept."""
        if isinstance(cache, Static):
            check_shape(self, "dy", dy, cache.value)
            return (), dy
        check_shape(self, "dy", dy, cache.shape)
        return (), jnp.where(cache, dy / (1 - self.rate), 0)

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return which entries were kept; at inference, all are."""
        return (
            {"training": False} if isinstance(cache, Static) else {"training": True, "kept": cache}
        )
