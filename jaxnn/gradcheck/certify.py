"""Check a hand-derived backward by comparing three answers.

1. ``backward``, as written by hand;
2. ``jax.vjp`` of the undecorated ``forward``, which is JAX's own answer;
3. central differences of ``forward`` in float64, which depend on neither of them.

The cotangent is random, never ones: with ones, the true gradient of a softmax is 0, and any wrong
gradient that sums to 0 would pass. Errors are relative norms, leaf by leaf: a tolerance in
proportion to the size of the output would accept a wrong gradient if that gradient is small. The
hand-derived rule is run op by op, and compiled under ``vmap``, and has to return the same numbers
each time. A backward is linear in dy: several cotangents are compared, of sizes from 1/1000
to 1000. It depends on no earlier call: a second point is compared, op by op.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.checks import InputError, check_bool
from jaxnn.gradcheck.finite_differences import Comparison, compare
from jaxnn.gradcheck.vjp_claim import (
    Claim,
    Floats,
    WrongForm,
    cast,
    check_batch,
    relative_errors,
    state_claim,
)
from jaxnn.layers import BatchNorm, Dropout
from jaxnn.types import AnyArray, Layer, Loss
from jaxnn.values import children

AUTODIFF_TOLERANCE = 1e-12  # in float64; in a narrower dtype, 1000 times its epsilon
DIFFERENCES_TOLERANCE = 1e-6
SCALES = (1.0, 1e3, 1e-3)  # of the cotangents
NOTHING = 1e-9  # of the largest gradient; one below it is only rounding error


class CertificateError(AssertionError):
    """A hand-derived gradient differs from the independent ones; the message names the leaf."""


@dataclasses.dataclass(frozen=True)
class LeafCheck:
    """The result for one leaf.

    Attributes:
        leaf: the name of the leaf.
        norm: the norm of its gradient.
        vs_autodiff: the relative error of the hand-derived gradient against ``jax.vjp``.
        vs_differences: its relative error against central differences.
        shown: whether any direction that changes the output crosses no kink, and the gradient is
            not 0 at this point alone. Otherwise the comparison shows nothing, and ``passed`` is
            False.
        passed: whether both errors are within their tolerances.
    """

    leaf: str
    norm: float
    vs_autodiff: float
    vs_differences: float
    shown: bool
    passed: bool


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The gradients that were compared, their errors, and the device. Prints as a table."""

    name: str
    rows: tuple[LeafCheck, ...]
    kinks: tuple[str, ...]
    excluded: int
    directions: int
    dtype: str
    device: str
    versions: dict[str, str]
    mode: str

    @property
    def passed(self) -> bool:
        """Whether every leaf passed."""
        return all(row.passed for row in self.rows)

    @property
    def worst_vs_autodiff(self) -> float:
        """The largest relative error against ``jax.vjp`` of any leaf."""
        return _worst(row.vs_autodiff for row in self.rows)

    @property
    def worst_vs_differences(self) -> float:
        """The largest relative error against central differences of any leaf."""
        return _worst(row.vs_differences for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as plain data, for JSON."""
        return dataclasses.asdict(self) | {
            "worst_vs_autodiff": self.worst_vs_autodiff,
            "worst_vs_differences": self.worst_vs_differences,
            "passed": self.passed,
        }

    def __str__(self) -> str:
        width = max(len("leaf"), *(len(row.leaf) for row in self.rows))
        lines = [self.name, f"{'leaf':<{width}}  gradient  vs jax.vjp  vs differences  verdict"]
        for row in self.rows:
            errors = f"{row.vs_autodiff:11.1e}  {row.vs_differences:14.1e}"
            lines.append(f"{row.leaf:<{width}}  {row.norm:8.2g} {errors}  {_verdict(row)}")
        where = f"{self.mode}{self.dtype} on {self.device}, jax {self.versions['jax']}"
        kinks = f"; kinks at {', '.join(self.kinks)}" if self.kinks else ""
        crossed = (
            f"; {self.excluded} of {self.directions} directions cross a kink"
            if self.excluded
            else ""
        )
        return "\n".join([*lines, f"relative norms, {where}{kinks}{crossed}"])

    def _repr_html_(self) -> str:
        head = ("leaf", "gradient", "vs jax.vjp", "vs differences", "verdict")
        rows = [
            (
                row.leaf,
                f"{row.norm:.2g}",
                f"{row.vs_autodiff:.1e}",
                f"{row.vs_differences:.1e}",
                _verdict(row),
            )
            for row in self.rows
        ]
        table = notebook.table(head, rows, bad=[not row.passed for row in self.rows])
        return notebook.fragment(
            notebook.line(self.name), table, notebook.line(str(self).splitlines()[-1])
        )


def _is_floating(dtype: Any) -> bool:
    try:
        return dtype is not None and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:  # it names no dtype
        return False


def _verdict(row: LeafCheck) -> str:
    if not row.shown:
        return "NOT SHOWN"
    return ("passed" if row.norm else "passed: 0 everywhere") if row.passed else "FAILED"


def certify(
    op: Layer | Loss,
    x: PyTree,
    target: AnyArray | None = None,
    *,
    params: PyTree = None,
    weights: AnyArray | None = None,
    key: PRNGKeyArray | None = None,
    dtype: DTypeLike = "float64",
    seed: int = 0,
    raises: bool = True,
) -> Certificate:
    """Compare a hand-derived backward with ``jax.vjp`` and with finite differences.

    The comparison runs in float64, independently of JAX's configuration, unless another dtype is
    requested; the finite differences are always computed in float64.

    Args:
        op: a layer, a network or a loss, from this library or your own.
        x: an example batch of at least two samples, as one cannot distinguish a sum over the batch
            from a mean; for a loss, the predictions.
        target: for a loss, the targets.
        params: the layer's parameters; by default drawn with ``seed`` and jittered, so that no bias
            is 0 and no gain 1.
        weights: for a loss, the sample weights.
        key: a PRNG key, to check the training mode; None to check inference.
        dtype: the dtype in which to compare.
        seed: the seed of the random parameters, cotangents and projections.
        raises: whether to raise an error if a gradient is wrong; otherwise the failed certificate
            is returned.

    Returns:
        A :class:`Certificate`, which prints as a table.

    Raises:
        CertificateError: if a gradient is wrong, or not shown because every direction crosses a
            kink, or because it is 0 at this point but not at others; the message names the leaf.
        InputError: if ``op`` is neither a layer nor a loss, if ``x`` is not finite or has only one
            sample, or if a loss has no target.
    """
    check_bool("certify", "raises", raises)
    if not _is_floating(dtype):
        raise InputError(f"certify: expected a floating dtype, got {dtype!r}.")
    with jax.enable_x64(True):
        dtype = jnp.dtype(dtype)
        claim = state_claim(
            "certify",
            op,
            x,
            target,
            params=params,
            weights=weights,
            key=key,
            dtype=dtype,
            seed=seed,
        )
        check_batch("certify", claim)
        try:
            rows, comparison, flat = _compare(claim, dtype, np.random.default_rng(seed + 1))
        except WrongForm as finding:
            raise CertificateError(str(finding)) from None
    device = jax.devices()[0]
    certificate = Certificate(
        name=repr(op),
        rows=rows,
        kinks=tuple(dict.fromkeys(_kinks(op))),
        excluded=comparison.excluded,
        directions=comparison.directions,
        dtype=str(dtype),
        device=f"{device.platform} ({device.device_kind})",
        versions={
            "jax": jax.__version__,
            "jaxlib": jaxlib.version.__version__,
            "numpy": np.__version__,
        },
        mode=("at inference, " if key is None else "in training, ") if _has_modes(op) else "",
    )
    if raises and not certificate.passed:
        wrong = ", ".join(row.leaf for row in rows if row.shown and not row.passed)
        hidden = ", ".join(row.leaf for row in rows if not row.shown and row.leaf not in flat)
        findings = [f"The gradient is wrong with respect to {wrong}."] if wrong else []
        if hidden:
            findings.append(f"Every direction of {hidden} crosses a kink: expected another x.")
        if flat:
            findings.append(
                f"The gradient with respect to {', '.join(flat)} is 0 at this x, "
                "but not at others: expected another x."
            )
        raise CertificateError("\n".join([*findings, str(certificate)]))
    return certificate


def _has_modes(op: Any) -> bool:
    """Return whether a layer, or one inside it, computes something else in training."""
    return isinstance(op, Dropout | BatchNorm) or any(_has_modes(c.layer) for c in children(op))


def _compare(
    claim: Claim, dtype: np.dtype, random: np.random.Generator
) -> tuple[tuple[LeafCheck, ...], Comparison, list[str]]:
    """Compare each leaf; return also the names of those whose gradient is 0 at this point alone."""
    floats = claim.floats
    cotangents = [_scaled(claim.random_dy(random), scale) for scale in SCALES]
    dy, half = cotangents[0], [_scaled(leaf, 0.5) for leaf in floats]
    points = [(floats, dy), (half, dy), *((floats, other) for other in cotangents[1:])]

    @jax.jit
    def compiled(points: list[tuple[Floats, PyTree]]) -> tuple[Floats, Floats]:
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
        return jax.vmap(claim.autodiff)(*together), jax.vmap(claim.by_hand)(*together)

    autodiffs, mapped = compiled(points)
    expected = [[leaf[i] for leaf in autodiffs] for i in range(len(points))]
    by_hand = [(i, [leaf[i] for leaf in mapped]) for i in range(len(points))]
    by_hand += [(i, claim.by_hand(*points[i])) for i in (0, 1)]  # op by op, at two points
    vs_autodiff = np.max([relative_errors(leaves, expected[i]) for i, leaves in by_hand], axis=0)
    autodiff = expected[0]

    comparison = compare(claim, cast(floats, jnp.float64), cast(dy, jnp.float64), random)
    vs_differences = relative_errors(comparison.by_hand, comparison.by_differences)
    at_zero = [
        shown and not np.any(leaf) for shown, leaf in zip(comparison.shown, autodiff, strict=True)
    ]
    flat = _flat_here_only(claim, at_zero, dy, random) if any(at_zero) else []
    tolerance = AUTODIFF_TOLERANCE if dtype == jnp.float64 else 1e3 * float(jnp.finfo(dtype).eps)
    rows = tuple(
        LeafCheck(
            leaf=name,
            norm=float(np.linalg.norm(np.asarray(gradient, np.float64))),
            vs_autodiff=float(auto_error),
            vs_differences=float(error),
            shown=shown and name not in flat,
            passed=bool(
                shown
                and name not in flat
                and auto_error <= tolerance
                and error <= DIFFERENCES_TOLERANCE
            ),
        )
        for name, gradient, auto_error, error, shown in zip(
            claim.names, autodiff, vs_autodiff, vs_differences, comparison.shown, strict=True
        )
    )
    return rows, comparison, flat


def _flat_here_only(
    claim: Claim, at_zero: list[bool], dy: PyTree, random: np.random.Generator
) -> list[str]:
    """Return the names of the leaves whose gradient is 0 here, but not at some other point.

    Such a point, at which a ReLU is not active, tells nothing about the gradient. A gradient that
    is 0 at other points, too, is taken to be 0 everywhere, as that of a step function is.
    """
    others = [
        [-leaf for leaf in claim.floats],
        [jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype) for leaf in claim.floats],
    ]
    sizes = np.array(
        [
            [
                np.linalg.norm(np.asarray(leaf, np.float64))
                for leaf in jax.jit(claim.autodiff)(at, dy)
            ]
            for at in others
        ]
    )
    moves = (np.isfinite(sizes) & (sizes > NOTHING * np.nanmax(sizes))).any(axis=0)
    return [name for name, *both in zip(claim.names, at_zero, moves, strict=True) if all(both)]


def _scaled(tree: PyTree, scale: float) -> PyTree:
    return jax.tree.map(lambda a: a * jnp.asarray(scale, a.dtype), tree)


def _worst(errors: Iterable[float]) -> float:
    return float(np.max([0.0, *errors]))  # NaN counts as the largest error: np.max returns it


def _kinks(op: Layer | Loss) -> list[str]:
    """Return the kinks of ``op`` and of every layer inside it, with their names."""
    stated = getattr(op, "kinks", "")
    own = [f"{type(op).__name__}: {stated}"] if stated else []
    return own + [kink for child in children(op) for kink in _kinks(child.layer)]
