"""What all activation functions share."""

from typing import ClassVar

import jax
from jaxtyping import Array, PRNGKeyArray

from jaxnn.checks import check_floating, check_like, check_no_params


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
