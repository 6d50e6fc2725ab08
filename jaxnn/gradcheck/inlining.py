"""Equations into which the ones before them are put, for mistakes that span two lines.

In ``dr = dg * c`` with ``dg = dh * (1 - u) * (1 - g**2)`` put in, the slope can be left out of dr
alone, and with ``dc[t + 1]`` put into ``dc[t]`` what comes from further steps can be.
"""

from collections.abc import Iterator, Sequence

from jaxnn.formulas.expressions import (
    Equation,
    Expr,
    Index,
    Ref,
    overs,
    refs,
    replace,
    substitute,
)
from jaxnn.formulas.folding import fold


def inlined(equation: Equation, before: Sequence[Equation]) -> Iterator[Equation]:
    """Put each of the equations before into one that mentions what they define.

    Args:
        equation: an equation of the backward pass.
        before: the other equations of its layer, and itself if it is computed step by step.
    """
    for other in before:
        if all(isinstance(part, Index) for part in other.at):
            mentions = [ref for ref in dict.fromkeys(refs(equation.body)) if _is_of(ref, other)]
            for ref in mentions:
                yield _put_into(equation, ref, other)


def _is_of(ref: Ref, other: Equation) -> bool:
    return ref.name == other.name and ref.at is not None and len(ref.at) == len(other.at)


def _put_into(equation: Equation, ref: Ref, other: Equation) -> Equation:
    """Put the right side of an equation in the place of one mention of what it defines."""
    bound = [letter for over in overs(other.body) for letter in over.letters]
    new = {letter: f"{letter}''" for letter in bound}  # letters that the equation does not use
    body = _renamed_letters(other.body, new)
    at = {part.name: index for part, index in zip(other.at, ref.at or (), strict=True)}  # type: ignore[union-attr]
    body = substitute(body, at)
    sizes = {**equation.sizes, **{new[k]: other.sizes[k] for k in bound}}
    whole = replace(equation.body, lambda one: body if one == ref else one)
    return equation._replace(body=fold(whole, sizes), sizes=sizes)


def _renamed_letters(node: Expr, new: dict[str, str]) -> Expr:
    letters = {old: Index(name) for old, name in new.items()}
    widened = replace(node, lambda ref: ref, lambda bound: tuple(new.get(k, k) for k in bound))
    return substitute(widened, letters)
