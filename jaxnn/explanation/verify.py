"""What a layer or loss from outside this library states is not believed: it is evaluated, and compared.

The library's own formulas are compared with their layers by its tests, once and for all.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnn.checks import InputError
from jaxnn.explanation.equations import Equations, Step, equations_of
from jaxnn.explanation.language.evaluate import evaluate
from jaxnn.explanation.language.expressions import refs
from jaxnn.tracing import Stage, Trace, named
from jaxnn.types import split_running

CLOSE = 1e-2  # of an array's largest entry: a wrong formula is further off, a rounded result nearer
ROUNDING = 1e-6  # of the largest number that goes into a formula: what cancels has no larger digits


def verified_equations(trace: Trace) -> Equations:
    """Write a trace as equations that hold.

    Raises:
        InputError: for a formula that does not give what its layer gives, or one that is missing.
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


def _is_foreign(op: Any) -> bool:
    return type(op).__module__.partition(".")[0] != "jaxnn"


def _check_value(equations: Equations, step: Step) -> None:
    given, stated = (
        np.asarray(equations.values[step.defines], float),
        evaluate(step.renamed, equations.values),
    )
    terms = (_largest(equations.values[ref.name]) for ref in refs(step.renamed.body))
    allowed = CLOSE * _largest(given) + ROUNDING * max(terms, default=0.0)
    differs = ~np.isclose(stated, given, rtol=0, atol=allowed, equal_nan=True)
    if differs.any():
        at = tuple(int(i) for i in np.argwhere(differs)[0])
        entry = f"{step.equation.name}[{', '.join(map(str, at))}]" if at else step.equation.name
        raise InputError(
            f"explain: expected the formulas of {step.op!r} to give {entry} = {given[at]:.6g}, as it does itself, "
            f"got {stated[at]:.6g}."
        )


def _largest(array: np.ndarray) -> float:
    return float(
        np.abs(array, where=np.isfinite(array), out=np.zeros(np.shape(array))).max(initial=0)
    )


def _wanted(stage: Stage) -> Iterator[str]:
    """Name what the formulas of a layer must define: its output and all derivatives that it gives."""
    yield from named("y", stage.y)
    for name, array in named("dx", stage.dx).items():
        if jnp.issubdtype(np.asarray(array).dtype, jnp.floating):
            yield name if name == "dx" else f"d{name}"
    yield from (f"d{name}" for name in named("", split_running(stage.params)[0]))


def _check_complete(equations: Equations, path: str, op: Any, wanted: Any) -> None:
    if path in equations.silent:
        return
    ids = next((step.ids for step in equations.steps if step.path == path), {})
    missing = [name for name in wanted if name in ids and ids[name] not in equations.by_definition]
    if missing or not ids:
        raise InputError(
            f"explain: expected the formulas of {op!r} to define {', '.join(missing) or 'y'}."
        )
