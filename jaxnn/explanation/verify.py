"""Verify the formulas of layers and losses from outside this library.

They are not trusted: each one is evaluated, and compared with the result of the code beside it. The
library's own formulas are compared with their layers by its tests.
"""

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import InputError
from jaxnn.equations import Equations, Step, equations_of
from jaxnn.formulas.evaluate import evaluate, places
from jaxnn.formulas.expressions import refs
from jaxnn.tracing import Stage, Trace, named
from jaxnn.types import Layer, Loss, split_running

CLOSE = 1e-2  # of an array's largest entry: rounding errors are smaller, wrong formulas differ more
ROUNDING = 1e-6  # of the largest number in a formula: after cancellation, this error may remain


def verified_equations(trace: Trace) -> Equations:
    """Write a trace as equations, and verify those that come from outside this library.

    Raises:
        InputError: for a formula whose value differs from that of its layer or loss, or one that is
            missing.
    """
    equations = equations_of(trace)
    for step in equations.steps:
        if _is_foreign(step.op):
            _check_value(equations, step)
    for stage in (stage for top in trace.stages for stage in top):
        if _is_foreign(stage.layer):
            _check_complete(equations, stage.path, stage.layer, _wanted(stage))
    if _is_foreign(trace.loss):
        _check_complete(equations, "loss", trace.loss, ("J", *named("dy", trace.dprediction)))
    return equations


def _is_foreign(op: Layer | Loss) -> bool:
    return type(op).__module__.partition(".")[0] != "jaxnn"


def _check_value(equations: Equations, step: Step) -> None:
    equation = step.renamed
    where = places(equation)
    given = np.asarray(equations.values[step.defines], float)[where]
    stated = evaluate(equation, equations.values)
    terms = (_largest(equations.values[ref.name]) for ref in refs(equation.body))
    allowed = CLOSE * _largest(given) + ROUNDING * max(terms, default=0.0)
    differs = ~np.isclose(stated, given, rtol=0, atol=allowed, equal_nan=True)
    if differs.any():
        first = tuple(int(i) for i in np.argwhere(differs)[0])
        at = [str(axis[first]) for axis in where]
        entry = f"{step.equation.name}[{', '.join(at)}]" if at else step.equation.name
        raise InputError(
            f"explain: expected the formulas of {step.op!r} to give {entry} = {given[first]:.6g}, "
            f"as its code does, got {stated[first]:.6g}."
        )


def _largest(array: np.ndarray) -> float:
    return float(
        np.abs(array, where=np.isfinite(array), out=np.zeros(np.shape(array))).max(initial=0)
    )


def _wanted(stage: Stage) -> Iterator[str]:
    """Yield the names that the formulas of a layer must define: its output and its gradients."""
    yield from named("y", stage.y)
    for name, array in named("dx", stage.dx).items():
        if jnp.issubdtype(np.asarray(array).dtype, jnp.floating):
            yield name if name == "dx" else f"d{name}"
    yield from (f"d{name}" for name in named("", split_running(stage.params)[0]))


def _check_complete(
    equations: Equations, path: str, op: Layer | Loss, wanted: Iterable[str]
) -> None:
    if path in equations.silent:
        return
    ids = next((step.ids for step in equations.steps if step.path == path), {})
    missing = [name for name in wanted if name in ids and ids[name] not in equations.by_definition]
    if missing or not ids:
        raise InputError(
            f"explain: expected the formulas of {op!r} to define {', '.join(missing) or 'y'}."
        )
