"""A forward pass that is run twice, of which the second run takes some values from the first.

The values are chosen by a policy of :mod:`jax.checkpoint_policies`: a function that says of an
operation, from its name and the shapes of its operands, whether its results are kept. What is
needed only to compute a kept value is not computed again, because the compiler removes it.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, PyTree

from jaxnn.jaxprs import inlined, results_of

NOTHING = "nothing_saveable"
POLICIES = (NOTHING, "dots_saveable", "dots_with_no_batch_dims_saveable")

Forward = Callable[..., tuple[PyTree, PyTree]]  # a pure function of pytrees, to y and the cache
Kept = tuple[list[Array] | None, ...]  # of each operation that may be kept; None if nobody needs it
At = Callable[[JaxprEqn, Callable[[], list[Array]]], list[Array]]


def run_and_keep(
    policy: str, forward: Forward, *args: PyTree
) -> tuple[tuple[PyTree, PyTree], Kept]:
    """Return ``forward(*args)``, and the values that the policy keeps and the cache depends on."""
    if policy == NOTHING:
        return forward(*args), ()
    keeps = getattr(jax.checkpoint_policies, policy)
    kept = list[list[Array] | None]()

    def at(operation: JaxprEqn, compute: Callable[[], list[Array]]) -> list[Array]:
        results = compute()
        if _is_kept(keeps, operation):
            kept.append(results)
        return results

    result = _run(forward, args, at)
    needed = _needed(lambda kept: run_again(policy, forward, kept, *args), tuple(kept))
    return result, tuple(one if needs else None for one, needs in zip(kept, needed, strict=True))


def run_again(policy: str, forward: Forward, kept: Kept, *args: PyTree) -> PyTree:
    """Return the cache of ``forward(*args)`` for the same arguments, with the values kept."""
    if policy == NOTHING:
        return forward(*args)[1]
    keeps = getattr(jax.checkpoint_policies, policy)
    in_order: Iterator[list[Array] | None] = iter(kept)

    def at(operation: JaxprEqn, compute: Callable[[], list[Array]]) -> list[Array]:
        if not _is_kept(keeps, operation):
            return compute()
        results = next(in_order)
        return list(map(_unneeded, operation.outvars)) if results is None else results

    return _run(forward, args, at)[1]


def _unneeded(variable: Any) -> Array:
    """Return something in the place of a value that nobody needs."""
    return jnp.zeros(variable.aval.shape, variable.aval.dtype)


def _needed(function: Callable[[Kept], PyTree], kept: Kept) -> list[bool]:
    """Return of which of the kept values the result of a function depends."""
    program = jax.make_jaxpr(function)(kept).jaxpr
    alive = {variable for variable in program.outvars if isinstance(variable, Var)}
    for operation in reversed(program.eqns):
        if not alive.isdisjoint(operation.outvars):
            alive.update(v for v in operation.invars if isinstance(v, Var))
    leaves, needed = iter(program.invars), []
    for one in kept:
        of_results = [next(leaves) in alive for _ in one or ()]
        needed.append(any(of_results))
    return needed


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
