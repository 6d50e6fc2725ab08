"""Central finite differences in float64: a check that uses no rules of differentiation.

For small claims the whole Jacobians are compared. In large claims each leaf is probed along a few
random directions; a wrong entry anywhere in the leaf changes the derivatives along them. If the
slope jumps within one step along a direction, the direction crosses a kink; it then says nothing
about the derivative, and is excluded.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from jaxnn.gradcheck.vjp_claim import Claim, Floats

STEP = 1e-5  # the error of the five-point difference, O(step⁴) + O(ε / step), is then near 1e-11
FULL_JACOBIAN = 4096  # entries; above this number, random projections are used
PROJECTIONS = 8  # random directions for each leaf
# a jump in slope across one step, relative to the largest slope, that no smooth function shows
KINK = 1e-3


class Comparison(NamedTuple):
    """The derivatives of each leaf, by hand and by differences, where the function is smooth.

    Attributes:
        by_hand: an array for each leaf, 0 where the function is not smooth.
        by_differences: the same derivatives by finite differences.
        shown: for each leaf, whether they show anything: not if directions were excluded and the
            derivatives along all others are 0.
        excluded: the number of directions that cross a kink.
        directions: the number of all directions.
    """

    by_hand: list[np.ndarray]
    by_differences: list[np.ndarray]
    shown: list[bool]
    excluded: int
    directions: int


def compare(
    claim: Claim,
    floats: Floats,
    dy: PyTree,
    random: np.random.Generator,
) -> Comparison:
    """Compare the derivatives of the backward with the differences of the forward, leaf by leaf.

    Args:
        claim: the function and its claimed backward.
        floats: the point at which to differentiate, in float64.
        dy: a cotangent, for the projections.
        random: the generator that draws the directions.
    """
    outputs = sum(leaf.size for leaf in jax.tree.leaves(dy))
    if outputs * sum(leaf.size for leaf in floats) <= FULL_JACOBIAN:
        return _full_jacobian(claim, floats, dy)
    return _projections(claim, floats, dy, random)


def _full_jacobian(claim: Claim, floats: Floats, dy: PyTree) -> Comparison:
    flat_dy, restore_dy = ravel_pytree(dy)
    point, restore = ravel_pytree(floats)
    rows = jax.jit(jax.vmap(lambda e: claim.by_hand(floats, restore_dy(e))))(np.eye(flat_dy.size))
    by_hand = np.concatenate(
        [np.asarray(leaf).reshape(flat_dy.size, -1) for leaf in rows], axis=1
    ).T

    @jax.jit
    def shifted(step: Array) -> Float[Array, "inputs outputs"]:
        return jax.lax.map(
            lambda i: ravel_pytree(claim.value(restore(point.at[i].add(step))))[0],
            jnp.arange(point.size),
        )

    return _split(by_hand, *_central(shifted), [leaf.size for leaf in floats])


def _projections(
    claim: Claim,
    floats: Floats,
    dy: PyTree,
    random: np.random.Generator,
) -> Comparison:
    flat_dy = ravel_pytree(dy)[0]
    along = [jnp.asarray(random.standard_normal((PROJECTIONS, *leaf.shape))) for leaf in floats]
    gradient = jax.jit(claim.by_hand)(floats, dy)
    by_hand = np.concatenate(
        [jnp.tensordot(v, d, d.ndim) for v, d in zip(along, gradient, strict=True)]
    )

    @jax.jit
    def shifted(step: Array) -> Float[Array, "directions"]:
        def value(leaf_and_direction: Array) -> Array:
            moved, direction = leaf_and_direction
            shifts = [step * (moved == i) * v[direction] for i, v in enumerate(along)]
            y = claim.value([leaf + shift for leaf, shift in zip(floats, shifts, strict=True)])
            return ravel_pytree(y)[0] @ flat_dy

        pairs = [(i, j) for i in range(len(floats)) for j in range(PROJECTIONS)]
        return jax.lax.map(value, jnp.asarray(pairs))

    return _split(by_hand, *_central(shifted), [PROJECTIONS] * len(floats))


def _central(shifted: Callable[[float], Array]) -> tuple[np.ndarray, np.ndarray]:
    """Return the five-point central differences, and the jump in slope between the two sides."""
    far_minus, minus, here, plus, far_plus = (
        np.asarray(shifted(n * STEP)) for n in (-2.0, -1.0, 0.0, 1.0, 2.0)
    )
    slope = (8 * (plus - minus) - (far_plus - far_minus)) / (12 * STEP)
    return slope, np.abs(far_plus - 2 * here + far_minus) / (2 * STEP)


def _split(
    by_hand: np.ndarray, differences: np.ndarray, jump: np.ndarray, sizes: list[int]
) -> Comparison:
    smooth = ~(jump > KINK * max(1.0, float(np.abs(differences).max(initial=0))))
    kept, cuts = (
        (np.where(smooth, slopes, 0) for slopes in (by_hand, differences)),
        np.cumsum(sizes)[:-1],
    )
    claimed, found, whole = (np.split(array, cuts) for array in (*kept, smooth))
    return Comparison(
        claimed,
        found,
        shown=[
            bool(smooth.all() or a.any() or b.any())
            for a, b, smooth in zip(claimed, found, whole, strict=True)
        ],
        excluded=int((~smooth).sum()),
        directions=smooth.size,
    )
