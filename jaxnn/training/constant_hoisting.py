"""Functions with their constants taken out, so that one program serves every learning rate.

``optax.adam(1e-3)`` makes a pair of new functions every time it is called, and the learning rate is
a constant inside them. A compiled program that contains them would have to be compiled again each
time. Therefore :func:`hoist_constants` traces such a function and returns two things: a
:class:`Program`, which equals any other with the same operations in the same order, and the
constants that it contained.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jaxtyping import Array, PyTree

from jaxnn.jaxprs import inlined, results_of


@dataclasses.dataclass(frozen=True)
class Program:
    """The operations of a function without its constants, compared by ``text`` and structures.

    Attributes:
        text: all operations, in order, with every floating constant written as "#".
        inputs: the structure of the arguments.
        output: the structure of the result.
        traced: the operations themselves.
    """

    text: str
    inputs: Any
    output: PyTree
    traced: Any = dataclasses.field(compare=False, repr=False)

    def __call__(self, constants: tuple[Array, ...], *args: PyTree) -> PyTree:
        """Run the operations on ``args``, with these constants in them."""
        leaves, structure = jax.tree.flatten(args)
        assert structure == self.inputs, (structure, self.inputs)
        held = len(self.traced.consts)
        outputs = _evaluate(self.traced.jaxpr, constants[:held], leaves, iter(constants[held:]))
        return jax.tree.unflatten(self.output, outputs)


def hoist_constants(
    function: Callable[..., PyTree], *args: PyTree
) -> tuple[Program, tuple[Any, ...]]:
    """Trace ``function`` for arguments like ``args``, and separate its program from its constants.

    Returns:
        program: the program, for which ``program(constants, *args)`` is ``function(*args)``.
        constants: the arrays that the function held, and the floating constants of its arithmetic.
    """
    traced, output = jax.make_jaxpr(function, return_shape=True)(*args)
    lines: list[str] = []
    constants: list[Any] = []
    _describe(traced.jaxpr, lines, constants)
    program = Program(
        "\n".join(lines), jax.tree.structure(args), jax.tree.structure(output), traced
    )
    return program, (*traced.consts, *constants)


def _describe(jaxpr: Jaxpr, lines: list[str], constants: list[Any]) -> None:
    """Write the operations to ``lines``, and their constants to ``constants``.

    The constants are in the order in which :func:`_evaluate` reads them again.
    """
    names: dict[Any, str] = {}

    def define(variable: Any) -> str:
        names[variable] = f"v{len(names)}:{variable.aval}"
        return names[variable]

    lines.append("in " + " ".join(map(define, [*jaxpr.constvars, *jaxpr.invars])))
    for equation in jaxpr.eqns:
        read: list[str] = []
        for operand in equation.invars:
            if _is_number(equation, operand):
                constants.append(np.asarray(_value(operand), _dtype(operand)))
                read.append(f"#:{_dtype(operand)}")
            else:
                read.append(repr(operand.val) if isinstance(operand, Literal) else names[operand])
        inner = inlined(equation)
        settings = (
            "" if inner else " ".join(f"{name}={value}" for name, value in equation.params.items())
        )
        written = " ".join(map(define, equation.outvars))
        lines.append(f"{written} = {equation.primitive} [{settings}] {' '.join(read)}")
        if inner:
            _describe(inner.jaxpr, lines, constants)
    lines.append(
        "out "
        + " ".join(repr(v.val) if isinstance(v, Literal) else names[v] for v in jaxpr.outvars)
    )


def _evaluate(jaxpr: Jaxpr, held: Any, args: Any, numbers: Iterator[Any]) -> list[Any]:
    """Run the operations, with the next number wherever :func:`_describe` took a constant out."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*held, *args], strict=True))

    def read(equation: JaxprEqn | None, operand: Any) -> Any:
        if equation is not None and _is_number(equation, operand):
            return next(numbers)
        return operand.val if isinstance(operand, Literal) else values[operand]

    for equation in jaxpr.eqns:
        operands = [read(equation, operand) for operand in equation.invars]
        if inner := inlined(equation):
            results = _evaluate(inner.jaxpr, inner.consts, operands, numbers)
        else:
            results = results_of(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(None, operand) for operand in jaxpr.outvars]


def _value(literal: Any) -> Any:
    return literal.val


def _dtype(operand: Any) -> Any:
    return operand.aval.dtype


def _is_number(equation: JaxprEqn, operand: Any) -> bool:
    """Return whether an operand is a floating constant of plain arithmetic.

    A constant that is passed to a branch or a loop is not.
    """
    is_constant = isinstance(operand, Literal) and jnp.issubdtype(_dtype(operand), jnp.floating)
    return is_constant and (
        inlined(equation) is not None or not _holds_jaxpr(tuple(equation.params.values()))
    )


def _holds_jaxpr(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_holds_jaxpr, value))
    return isinstance(value, Jaxpr | ClosedJaxpr)
