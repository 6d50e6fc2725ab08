"""A forward pass that is run twice, of which the second run takes some values from the first.

The values are chosen by a policy of :mod:`jax.checkpoint_policies`: a function that says of an
operation, from its name and the shapes of its operands, whether its results are kept. What is
needed only to compute a kept value is not computed again, because the compiler removes it.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, PyTree

from jaxnn.jaxprs import inlined, results_of

NOTHING = "nothing_saveable"
POLICIES = (NOTHING, "dots_saveable", "dots_with_no_batch_dims_saveable")

Forward = Callable[..., PyTree]  # a pure function of pytrees
Kept = tuple[list[Array], ...]  # the results of each operation whose results are kept
At = Callable[[JaxprEqn, Callable[[], list[Array]]], list[Array]]


def run_and_keep(policy: str, forward: Forward, *args: PyTree) -> tuple[PyTree, Kept]:
    """Return ``forward(*args)``, and the values that the policy keeps."""
    if policy == NOTHING:
        return forward(*args), ()
    keeps = getattr(jax.checkpoint_policies, policy)
    kept = list[list[Array]]()

    def at(operation: JaxprEqn, compute: Callable[[], list[Array]]) -> list[Array]:
        results = compute()
        if _is_kept(keeps, operation):
            kept.append(results)
        return results

    return _run(forward, args, at), tuple(kept)


def run_again(policy: str, forward: Forward, kept: Kept, *args: PyTree) -> PyTree:
    """Return ``forward(*args)`` for the same arguments, with the values that were kept."""
    if policy == NOTHING:
        return forward(*args)
    keeps = getattr(jax.checkpoint_policies, policy)
    in_order: Iterator[list[Array]] = iter(kept)

    def at(operation: JaxprEqn, compute: Callable[[], list[Array]]) -> list[Array]:
        return next(in_order) if _is_kept(keeps, operation) else compute()

    return _run(forward, args, at)


def _is_kept(keeps: Callable[..., Any], operation: JaxprEqn) -> bool:
    shapes = (operand.aval for operand in operation.invars)
    return keeps(operation.primitive, *shapes, **operation.params) is True


def _run(forward: Forward, args: tuple[PyTree, ...], at: At) -> PyTree:
    program, result = jax.make_jaxpr(forward, return_shape=True)(*args)
    flat = _evaluate(program.jaxpr, [*program.consts, *jax.tree.leaves(args)], at)
    return jax.tree.unflatten(jax.tree.structure(result), flat)


def _evaluate(jaxpr: Jaxpr, given: list[Array], at: At) -> list[Array]:
    """Compute operation by operation; functions that were jitted are entered."""
    values = dict[Var, Any](zip([*jaxpr.constvars, *jaxpr.invars], given, strict=True))

    def read(operand: Var | Literal) -> Any:
        return operand.val if isinstance(operand, Literal) else values[operand]

    def compute(operation: JaxprEqn) -> list[Array]:
        operands = [read(operand) for operand in operation.invars]
        if inner := inlined(operation):
            return _evaluate(inner.jaxpr, [*inner.consts, *operands], at)
        return results_of(operation, operands)

    for operation in jaxpr.eqns:
        results = at(operation, functools.partial(compute, operation))
        values.update(zip(operation.outvars, results, strict=True))
    return [read(result) for result in jaxpr.outvars]
