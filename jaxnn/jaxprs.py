"""Reading and running the operations of a traced function (a jaxpr) one by one."""

from typing import Any

from jax.extend.core import ClosedJaxpr, JaxprEqn


def inlined(operation: JaxprEqn) -> ClosedJaxpr | None:
    """Return the body of a nested ``jit``, which is read as if it stood in place of the call."""
    return operation.params["jaxpr"] if operation.primitive.name in ("jit", "pjit") else None


def results_of(operation: JaxprEqn, operands: list[Any]) -> list[Any]:
    """Run one operation."""
    primitive = operation.primitive
    results = primitive.bind(*operands, **primitive.get_bind_params(operation.params))
    return list(results) if primitive.multiple_results else [results]
