"""Positions, which attention would not know of by itself.

B batch, T time, C channels, N heads, D = C/N.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import check_floating, check_no_params, check_positive, check_shape
from jaxnn.formulas import Formulas
from jaxnn.types import Cache, Static
from jaxnn.values import layer


def angles(time: int, channels: int, period: float = 10000.0) -> np.ndarray:
    """Return the angles t / period^(2i/channels) of position t and pair i, (T, channels/2)."""
    return np.arange(time)[:, None] / period ** (np.arange(0, channels, 2) / channels)


def rotate(x: Float[Array, "B N T D"], back: bool = False) -> Float[Array, "B N T D"]:
    """Turn each pair of channels (i, i + D/2) by the angle of its position, or back by it."""
    theta = angles(x.shape[2], x.shape[3])
    cos, sin = (jnp.asarray(f(theta), x.dtype)[None, None] for f in (np.cos, np.sin))
    a, b = jnp.split(x, 2, axis=-1)
    sin = -sin if back else sin
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


@layer
class SinusoidalPositions:
    """Add sines and cosines of the position to (B, T, C) (Vaswani et al., 2017).

    Channel 2i holds sin(t / period^(2i/C)), channel 2i + 1 the cosine.

    Args:
        period: the longest wavelength, over 2π.
    """

    _: dataclasses.KW_ONLY
    period: float = 10000.0
    per_position: ClassVar[bool] = True

    formulas = Formulas("y[n, t, c] = x[n, t, c] + waves[t, c]", "dx = dy")

    def __post_init__(self) -> None:
        check_positive("SinusoidalPositions", "period", self.period)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> tuple[()]:
        """Return no parameters: ``()``."""
        return ()

    def forward(
        self, params: tuple[()], x: Float[Array, "B T C"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B T C"], Static[tuple[int, ...]]]:
        """Return x plus the positions."""
        check_no_params(self, params)
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("B", "T", "C"))
        return x + jnp.asarray(self._waves(x), x.dtype)[None], Static(
            x.shape
        )  # only for the check of dy

    def backward(
        self, params: tuple[()], cache: Static[tuple[int, ...]], dy: Float[Array, "B T C"]
    ) -> tuple[tuple[()], Float[Array, "B T C"]]:
        """Return dy: what is added does not depend on x."""
        check_shape(self, "dy", dy, cache.value)
        return (), dy

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return the waves."""
        return {"waves": self._waves(x)}

    def _waves(self, x: PyTree) -> np.ndarray:
        """Return what is added, (T, C)."""
        theta = angles(x.shape[1], x.shape[2] + x.shape[2] % 2, self.period)
        return np.stack([np.sin(theta), np.cos(theta)], axis=-1).reshape(x.shape[1], -1)[
            :, : x.shape[2]
        ]
