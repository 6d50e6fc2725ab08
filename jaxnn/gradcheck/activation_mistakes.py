"""The usual mistakes with activations, and the gradients that result from them."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.compose import Sequential
from jaxnn.gradcheck.vjp_claim import Claim
from jaxnn.layers.activations import Activation
from jaxnn.types import Cache, Layer, Params

Slope = Callable[[Array, Array, Array], Array]  # (x, y, dy) -> dx


def wrong_derivatives(claim: Claim, dy: PyTree) -> Iterator[tuple[str, str, str, list[np.ndarray]]]:
    """Compute the gradients that result if one activation is differentiated wrongly.

    Yields:
        The name of the activation, a word for the mistake, a sentence with {name} for the
        activation, and the gradients.
    """
    op = claim.op
    if not isinstance(op, Layer):
        return
    children = op.layers if isinstance(op, Sequential) else (op,)
    for n, child in enumerate(children):
        if jax.tree.leaves(claim.point.get("params", ())) and not isinstance(op, Sequential):
            return
        if not isinstance(child, Activation) and not _is_elementwise(child):
            continue
        for what, sentence, slope in _slopes(child):
            parts: list[Layer | _WithSlope] = list(children)
            parts[n] = _WithSlope(child, slope)
            try:
                gradient = jax.tree.leaves(_walk(parts, claim, dy))
            except Exception:
                continue
            if len(gradient) == len(claim.names):
                yield type(child).__name__, what, sentence, [np.asarray(leaf) for leaf in gradient]


def _is_elementwise(child: Layer) -> bool:
    """Return whether each entry of the output depends only on the same entry of the input."""
    probe = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    try:
        change = child.forward((), probe)[0] != child.forward((), probe.at[0, 0].add(0.5))[0]
    except Exception:  # it has parameters, or expects another input
        return False
    return change.shape == probe.shape and not np.ravel(change)[1:].any()


def _slopes(child: Layer) -> Iterator[tuple[str, str, Slope]]:
    """Yield the usual wrong derivatives of an elementwise layer: (what, sentence, slope)."""
    at = lambda point, dy: jax.vjp(lambda z: child.forward((), z)[0], point)[1](dy)[0]  # noqa: E731
    yield (
        "derivative left out",
        "lacks the derivative of {name}: dy was passed through as it is. "
        "Multiply by the slope of {name}.",
        lambda x, y, dy: dy,
    )
    yield (
        "derivative alone",
        "has the derivative of {name} but not dy: the chain rule multiplies the two.",
        lambda x, y, dy: at(x, jnp.ones_like(dy)),
    )
    yield (
        "derivative at output",
        "takes the derivative of {name} at its output; it belongs at its input.",
        lambda x, y, dy: at(y, dy),
    )
    yield (
        "derivative of input",
        "uses the formula of {name}'s derivative that is written in terms of its output, "
        "with the input put in.",
        lambda x, y, dy: child.backward((), x, dy)[1],
    )


class _WithSlope:
    """An elementwise layer whose derivative is replaced by another."""

    def __init__(self, child: Layer, slope: Slope) -> None:
        self.child, self.slope = child, slope

    def forward(
        self, params: Params, x: Array, key: PRNGKeyArray | None = None
    ) -> tuple[Array, Cache]:
        y, _ = self.child.forward(params, x, key)
        return y, (x, y)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Params, Array]:
        x, y = cache
        return (), self.slope(x, y, dy)


def _walk(parts: Sequence[Layer | _WithSlope], claim: Claim, dy: PyTree) -> PyTree:
    """Run the forward and backward passes of layers in a row, and return the gradients."""
    params = claim.point["params"]
    params = params if isinstance(claim.op, Sequential) else (params,)
    y, caches = claim.point["x"], []
    for part, part_params in zip(parts, params, strict=True):
        y, cache = part.forward(part_params, y, None)
        caches.append(cache)
    dparams: list[Params] = []
    for part, part_params, cache in reversed(list(zip(parts, params, caches, strict=True))):
        dpart, dy = part.backward(part_params, cache, dy)
        dparams.insert(0, dpart)
    return {"params": tuple(dparams), "x": dy}
