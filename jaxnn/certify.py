"""Is a hand-derived backward right? Three answers, side by side.

1. ``backward``, as written by hand;
2. ``jax.vjp`` of the undecorated ``forward``, JAX's own answer;
3. central differences of ``forward`` in float64, which know nothing of either.

The cotangent is random, never ones: against ones, the true gradient of a softmax is 0 and any wrong
one that sums to 0 would pass. Errors are relative norms, leaf by leaf: a tolerance that scaled with
the size of the output would let a small gradient be wrong. The hand-derived rule is run op by op,
under ``jit`` and under ``vmap``, and has to give the same numbers each time.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.checks import InputError, check_finite
from jaxnn.differences import Floats, compare
from jaxnn.types import Layer, Loss

AUTODIFF_TOLERANCE = 1e-12  # in float64; in a narrower dtype, a thousand units of its rounding
DIFFERENCES_TOLERANCE = 1e-6
FLOOR = 1e-3  # of the whole gradient's norm: a leaf far smaller is judged against this


class CertificateError(AssertionError):
    """A hand-derived gradient parts from the independent ones; names the leaf."""


@dataclasses.dataclass(frozen=True)
class Row:
    """The verdict on one leaf: the norm of its gradient, and the relative errors of the hand-derived one."""

    leaf: str
    norm: float
    vs_autodiff: float
    vs_differences: float
    passed: bool


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was compared, how far apart it was, and where it was run. Prints as a table."""

    name: str
    rows: tuple[Row, ...]
    kinks: tuple[str, ...]
    excluded: int
    directions: int
    dtype: str
    device: str
    versions: dict[str, str]

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
        """Give the certificate as plain data, for JSON."""
        told = dataclasses.asdict(self)
        return told | {
            "worst_vs_autodiff": self.worst_vs_autodiff,
            "worst_vs_differences": self.worst_vs_differences,
            "passed": self.passed,
        }

    def __str__(self) -> str:
        width = max(len("leaf"), *(len(row.leaf) for row in self.rows))
        lines = [self.name, f"{'leaf':<{width}}  gradient  vs jax.vjp  vs differences  verdict"]
        for row in self.rows:
            verdict = ("passed" if row.norm else "passed: 0 everywhere") if row.passed else "FAILED"
            errors = f"{row.vs_autodiff:11.1e}  {row.vs_differences:14.1e}"
            lines.append(f"{row.leaf:<{width}}  {row.norm:8.2g} {errors}  {verdict}")
        where = f"{self.dtype} on {self.device}, jax {self.versions['jax']}"
        kinks = f"; kinks at {', '.join(self.kinks)}" if self.kinks else ""
        crossed = f"; {self.excluded} of {self.directions} directions cross a kink" if self.excluded else ""
        return "\n".join([*lines, f"relative norms, {where}{kinks}{crossed}"])


def certify(
    op: Layer | Loss,
    x: PyTree,
    target: Array | None = None,
    *,
    params: PyTree = None,
    weights: Array | None = None,
    key: PRNGKeyArray | None = None,
    dtype: Any = "float64",
    seed: int = 0,
    raises: bool = True,
) -> Certificate:
    """Compare a hand-derived backward with ``jax.vjp`` and with finite differences.

    Runs in float64 whatever the configuration, unless another dtype is asked for; the differences
    are always made in float64.

    Args:
        op: a layer, a network or a loss: of this library, or your own.
        x: an example batch; for a loss, the predictions.
        target: for a loss, the targets.
        params: the layer's parameters; by default drawn with ``seed`` and jittered, so that no bias
            is 0 and no gain 1.
        weights: for a loss, the sample weights.
        key: a PRNG key, to certify the training mode.
        dtype: the dtype to certify in.
        seed: of the random parameters, cotangents and projections.
        raises: whether to raise when a gradient is wrong, or to return the failed certificate.

    Returns:
        A :class:`Certificate`, which prints as a table.

    Raises:
        CertificateError: if a gradient is wrong, naming the leaf.
        InputError: if ``op`` is neither a layer nor a loss, ``x`` is not finite, or a loss has no target.
    """
    check_finite("certify", "x", x)
    with jax.enable_x64(True):
        dtype = jnp.dtype(dtype)
        point, function, backward = _problem(op, x, target, params, weights, key, dtype, seed)
        rows, excluded, directions = _compare(point, function, backward, dtype, seed)
    device = jax.tree.leaves(jax.devices())[0]
    certificate = Certificate(
        name=repr(op),
        rows=rows,
        kinks=tuple(dict.fromkeys(_kinks(op))),
        excluded=excluded,
        directions=directions,
        dtype=str(dtype),
        device=f"{device.platform} ({device.device_kind})",
        versions={"jax": jax.__version__, "jaxlib": jaxlib.version.__version__, "numpy": np.__version__},
    )
    if raises and not certificate.passed:
        wrong = ", ".join(row.leaf for row in rows if not row.passed)
        raise CertificateError(f"The gradient is wrong with respect to {wrong}.\n{certificate}")
    return certificate


def _problem(
    op: Any, x: PyTree, target: Any, params: PyTree, weights: Any, key: Any, dtype: Any, seed: int
) -> tuple[PyTree, Callable[[PyTree], PyTree], Callable[[PyTree, PyTree], PyTree]]:
    """State a layer or a loss as one function of one tree, and its backward likewise."""
    cast = functools.partial(_cast, dtype=dtype)
    if isinstance(op, Layer):
        x = cast(x)
        if params is None:
            params = _jitter(np.random.default_rng(seed), op.init(jax.random.key(seed), x))
        point = {"params": cast(params), "x": x}

        def forward(point: Any) -> PyTree:
            return op.forward(point["params"], point["x"], key)[0]

        def backward(point: Any, dy: PyTree) -> PyTree:
            _, cache = op.forward(point["params"], point["x"], key)
            dparams, dx = op.backward(point["params"], cache, dy)
            return {"params": dparams, "x": dx}

    elif isinstance(op, Loss):
        if target is None:
            raise InputError(f"certify: expected a target for the loss {op!r}, got none.")
        target = jnp.asarray(target)
        point = {"prediction": cast(x)}

        def forward(point: Any) -> PyTree:
            return op.forward(point["prediction"], target, weights)[0]

        def backward(point: Any, dy: PyTree) -> PyTree:
            _, cache = op.forward(point["prediction"], target, weights)
            dprediction = op.backward(cache)
            return {"prediction": (dy * dprediction).astype(dprediction.dtype)}

    else:
        raise InputError(f"certify: expected a layer or a loss, got {op!r}.")
    return point, forward, backward


def _compare(
    point: PyTree,
    function: Callable[[PyTree], PyTree],
    backward: Callable[[PyTree, PyTree], PyTree],
    dtype: Any,
    seed: int,
) -> tuple[tuple[Row, ...], int, int]:
    floats, restore = _split_floats(point)
    random = np.random.default_rng(seed + 1)
    f = lambda floats: function(restore(floats))  # noqa: E731
    dy = _random_like(random, jax.eval_shape(f, floats))

    hand = functools.partial(_hand, backward, restore, point)

    @jax.jit
    def compiled(floats: Floats, dy: PyTree, half: tuple[Floats, PyTree]) -> tuple[Floats, Floats, Floats]:
        autodiff = jax.vjp(f, floats)[1](dy)[0]
        pair = jax.tree.map(lambda *copies: jnp.stack(copies), half, (floats, dy))
        mapped = [leaf[1] for leaf in jax.vmap(hand)(*pair)]
        return autodiff, hand(floats, dy), mapped

    half = jax.tree.map(lambda a: np.asarray(a) * np.asarray(0.5, a.dtype), (floats, dy))
    autodiff, *by_hand = compiled(floats, dy, half)
    by_hand.append(hand(floats, dy))  # op by op
    vs_autodiff = np.max([_relative(leaves, autodiff) for leaves in by_hand], axis=0)

    wide = [leaf.astype(jnp.float64) for leaf in floats]
    differences = compare(f, hand, wide, _cast(dy, jnp.float64), random)
    vs_differences = _relative(differences.by_hand, differences.by_differences)
    tolerance = AUTODIFF_TOLERANCE if dtype == jnp.float64 else 1e3 * float(jnp.finfo(dtype).eps)
    rows = tuple(
        Row(
            leaf=name,
            norm=float(np.linalg.norm(np.asarray(gradient, np.float64))),
            vs_autodiff=float(auto_error),
            vs_differences=float(error),
            passed=bool(auto_error <= tolerance and error <= DIFFERENCES_TOLERANCE),
        )
        for name, gradient, auto_error, error in zip(_names(point), autodiff, vs_autodiff, vs_differences, strict=True)
    )
    return rows, differences.excluded, differences.directions


def _hand(backward: Any, restore: Any, point: PyTree, floats: Floats, dy: PyTree) -> Floats:
    gradient = backward(restore(floats), dy)
    expected = jax.tree.map(lambda leaf: leaf if _is_float(leaf) else None, point)
    got, wanted = jax.tree.structure(gradient), jax.tree.structure(expected)
    if str(got) != str(wanted):
        raise CertificateError(f"The gradient has the wrong structure: expected {wanted}, got {got}.")
    for name, d, leaf in zip(_names(point), jax.tree.leaves(gradient), floats, strict=True):
        if (jnp.shape(d), jnp.result_type(d)) != (leaf.shape, leaf.dtype):
            raise CertificateError(
                f"The gradient with respect to {name} has the wrong type: expected {leaf.dtype}{list(leaf.shape)}, "
                f"got {jnp.result_type(d)}{list(jnp.shape(d))}."
            )
    return jax.tree.leaves(gradient)


# ── Small helpers ───────────────────────────────────────────────────────────────────────────────


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _cast(tree: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype) if _is_float(leaf) else jnp.asarray(leaf), tree)


def _split_floats(tree: PyTree) -> tuple[Floats, Callable[[Floats], PyTree]]:
    """Take the floating leaves out, and give the function that puts others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [leaf for leaf in leaves if _is_float(leaf)]

    def restore(floats: Floats) -> PyTree:
        given = iter(floats)
        return jax.tree.unflatten(structure, [next(given) if _is_float(leaf) else leaf for leaf in leaves])

    return floats, restore


def _names(point: PyTree) -> list[str]:
    """Name the floating leaves: ``params[0].w``, ``x``."""
    leaves = jax.tree_util.tree_leaves_with_path(point)
    return [str(path[0].key) + jax.tree_util.keystr(path[1:]) for path, leaf in leaves if _is_float(leaf)]


def _flatten(tree: PyTree) -> Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def _random_like(random: np.random.Generator, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), tree)


def _jitter(random: np.random.Generator, params: PyTree) -> PyTree:
    return jax.tree.map(lambda p: np.asarray(p) + 0.1 * random.standard_normal(p.shape), params)


def _relative(hand: Sequence[Any], reference: Sequence[Any]) -> list[float]:
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(hand, reference, strict=True)]
    norm_of_all = float(np.sqrt(sum((b**2).sum() for _, b in pairs)))
    return [_ratio(a, b, norm_of_all) for a, b in pairs]


def _ratio(a: np.ndarray, b: np.ndarray, norm_of_all: float) -> float:
    error, scale = np.linalg.norm(a - b), max(float(np.linalg.norm(b)), FLOOR * norm_of_all)
    return float(error / scale) if scale > 0 else float(error)


def _worst(errors: Any) -> float:
    return float(np.max([0.0, *errors]))  # NaN is the worst of all, and np.max keeps it


def _kinks(op: Any) -> list[str]:
    """Name the kinks of ``op`` and of every layer inside it."""
    own = [f"{type(op).__name__}: {op.kinks}"] if getattr(op, "kinks", "") else []
    fields = [getattr(op, f.name) for f in dataclasses.fields(op)] if dataclasses.is_dataclass(op) else []
    inner = [item for field in fields for item in (field if isinstance(field, tuple) else (field,))]
    return own + [kink for item in inner if isinstance(item, Layer) for kink in _kinks(item)]
