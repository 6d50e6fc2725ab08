"""Compare this device, in each precision, with float64 on the CPU: every layer and loss.

    python scripts/parity.py [--json FILE] [--only NAME] [--precisions float32 bfloat16 ...]

Inputs, parameters and cotangents are rounded to the precision first, so that both sides start from
the same numbers. For the outputs and all gradients of a layer together, the table gives the largest
relative norm of the deviation of one array, by hand and by ``jax.vjp`` of the same forward, and the
largest deviation of a number in units in the last place (ulps) of the largest number of its array.
Numbers next to a kink, where rounding decides which side counts, are set apart and counted. In the
end, networks that are trained as a population are compared with the same networks trained alone.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnn as nn

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import cases  # noqa: E402, the table of cases, which the tests use too

# the dtype of the passes, and the precision of products of matrices
PRECISIONS = {
    "float64": ("float64", "float32"),
    "float32": ("float32", "float32"),
    "tf32": ("float32", "tensorfloat32"),
    "default": ("float32", "default"),
    "bfloat16": ("bfloat16", "default"),
}
LEAST = 0.01  # the least size by which an array is measured, as a share of the largest of a case
NEAR = 64  # a number that changes by more ulps than this when x changes by one is next to a kink


def rounded(tree, dtype):
    """Round the floating arrays of a tree to a dtype."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, dtype) if is_floating(leaf) else jnp.asarray(leaf), tree
    )


def is_floating(leaf):
    """Return whether an array holds floating numbers, and is no PRNG key."""
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def passes(case, method):
    """Return the function ``(params, x, dy) -> all outputs and gradients`` of a layer."""

    def run(params, x, dy):
        if method == "hand":
            y, cache = case.layer.forward(params, x, case.key)
            return floats((y, case.layer.backward(params, cache, like(dy, y))))
        differentiable = any(map(is_floating, jax.tree.leaves(x)))
        if differentiable:
            y, vjp = jax.vjp(lambda p, x: case.layer.forward(p, x, case.key)[0], params, x)
        else:
            y, vjp = jax.vjp(lambda p: case.layer.forward(p, x, case.key)[0], params)
        return floats((y, vjp(like(dy, y))))

    return jax.jit(run)


def loss_passes(case, method):
    """Return the function ``(nothing, prediction, nothing) -> value and gradient`` of a loss."""

    def run(_, prediction, __):
        target = jnp.asarray(case.target)
        target = target.astype(prediction.dtype) if is_floating(target) else target
        if method == "hand":
            value, cache = case.loss.forward(prediction, target, case.weights)
            return floats((value, case.loss.backward(cache)))
        value_and_grad = jax.value_and_grad(lambda p: case.loss.forward(p, target, case.weights)[0])
        return floats(value_and_grad(prediction))

    return jax.jit(run)


def like(dy, y):
    """Give the cotangents the dtypes of the outputs."""
    return jax.tree.map(lambda d, leaf: d.astype(leaf.dtype), dy, y)


def floats(tree):
    """Return the floating arrays of a tree in a list."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]


def arrays_of(case):
    """Return parameters, input and cotangents of a case, in float64."""
    if isinstance(case, cases.LossCase):
        return (), case.prediction, ()
    params = case.params()
    y = nn.output_shape(case.layer, params, case.x)
    rng = np.random.default_rng(1)
    return params, case.x, jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), y)


def compare(case, precision):
    """Return the deviations of both methods from float64, and the ulps of the one by hand."""
    dtype, products = PRECISIONS[precision]
    make = loss_passes if isinstance(case, cases.LossCase) else passes
    given = rounded(arrays_of(case), dtype)
    eps = float(jnp.finfo(dtype).eps)
    with jax.default_device(jax.devices("cpu")[0]):
        params, x, dy = exact = rounded(jax.device_get(given), "float64")
        truth = make(case, "auto")(*exact)
        moved = jax.tree.map(lambda leaf: leaf * (1 + eps) if is_floating(leaf) else leaf, x)
        beside = make(case, "auto")(params, moved, dy)
    truth, beside = ([np.asarray(leaf) for leaf in leaves] for leaves in (truth, beside))
    # an array that is 0 but for rounding is measured by the others
    least = LEAST * max(float(np.abs(leaf).max(initial=0)) for leaf in truth)
    size = [max(float(np.abs(leaf).max(initial=0)), least) for leaf in truth]
    far = [np.abs(b - t) <= NEAR * eps * s for t, b, s in zip(truth, beside, size, strict=True)]
    found = {"kinks": int(sum((~keep).sum() for keep in far))}
    for method in ("hand", "auto"):
        with jax.default_matmul_precision(products):
            made = [np.asarray(leaf, np.float64) for leaf in make(case, method)(*given)]
        off = [np.where(keep, m - t, 0) for m, t, keep in zip(made, truth, far, strict=True)]
        found[method] = max(
            np.linalg.norm(d) / max(np.linalg.norm(t), s)
            for d, t, s in zip(off, truth, size, strict=True)
        )
        found[f"{method}_ulps"] = max(
            float(np.abs(d).max(initial=0)) / (s * eps) for d, s in zip(off, size, strict=True)
        )
    return found


def population():
    """Return how far members of a population are from the same networks trained alone."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 8)).astype(np.float32), np.arange(64) % 3
    given = {"epochs": 3, "batch_size": 16, "progress": False}
    net, loss, rule = nn.mlp(16, 3), nn.SoftmaxCrossEntropy(), optax.adam(1e-2)
    keys = jax.random.split(jax.random.key(0), 4)
    many = nn.fit_population(net, loss, rule, (x, y), keys=keys, **given)
    off = 0.0
    for i, key in enumerate(keys):
        alone = nn.fit(net, loss, rule, (x, y), key=key, **given)
        for a, b in zip(
            jax.tree.leaves(many[i].params), jax.tree.leaves(alone.params), strict=True
        ):
            off = max(off, float(np.linalg.norm(a - b) / np.linalg.norm(b)))
    return off


def main(argv=None):
    """Print the table, say what holds for all of it, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--only", default="", metavar="NAME", help="only the cases with this name")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    arguments = parser.parse_args(argv)
    table = [*cases.LAYERS, *cases.NETWORKS, *cases.LOSSES]
    selected = [case for case in table if arguments.only in case.id]
    if not selected:
        parser.error(f"expected a name that occurs in the table of cases, got {arguments.only!r}")
    device = jax.devices()[0]
    figures = {"device": f"{device.platform} {device.device_kind}", "cases": {}}
    print(figures["device"])
    for precision in arguments.precisions:
        print(f"\n{precision:<10}  {'by hand':>9}  {'jax.vjp':>9}  {'ulps':>8}  kinks")
        rows = figures["cases"][precision] = {}
        for i, case in enumerate(selected):  # two may differ in their input only
            name = f"{case.id}, {sum(case.id == other.id for other in selected[:i]) + 1}"
            rows[name] = row = compare(case, precision)
            numbers = f"{row['hand']:9.1e}  {row['auto']:9.1e}  {row['hand_ulps']:8.1f}"
            print(f"{'':<10}  {numbers}  {row['kinks']:5}  {case.id[:60]}", flush=True)
        worst = {name: max(row[name] for row in rows.values()) for name in ("hand", "auto")}
        ulps = max(row["hand_ulps"] for row in rows.values())
        print(
            f"{precision}: by hand every array is within {worst['hand']:.1e} of float64 in relative"
            f" norm, and every number within {ulps:.0f} ulps; by jax.vjp {worst['auto']:.1e}"
        )
        figures[precision] = worst | {"hand_ulps": ulps}
    figures["population"] = population()
    print(f"\na population's members are within {figures['population']:.1e} of solo runs")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
