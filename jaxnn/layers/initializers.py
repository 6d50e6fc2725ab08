"""JAX's own initialisers, by name, so that the settings of a layer stay plain values.

A name (``"glorot_uniform"``) calls the factory of that name in ``jax.nn.initializers`` with its
defaults; a tuple adds arguments: ``("normal", 1.0)`` is ``jax.nn.initializers.normal(1.0)``.
"""

import numbers
from typing import Any

import jax
from jaxtyping import Array, PRNGKeyArray

from jaxnn.checks import InputError, check_choice
from jaxnn.numerics import at_least_single

Initializer = str | tuple[str | float, ...]

SCALED = (  # factories that take a few numbers and return an initialiser
    "constant", "delta_orthogonal", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform",
    "kaiming_normal", "kaiming_uniform", "lecun_normal", "lecun_uniform", "normal", "orthogonal",
    "truncated_normal", "uniform", "variance_scaling", "xavier_normal", "xavier_uniform",
)  # fmt: skip
FIXED = ("ones", "zeros")  # initialisers themselves
SPREAD = ("normal", "truncated_normal", "uniform")  # their arguments are a width


def check_initializer(who: str, name: str, setting: Initializer) -> None:
    """Check that ``setting`` names an initialiser of JAX and that its arguments fit."""
    word, *arguments = setting if isinstance(setting, tuple) and setting else (setting,)
    check_choice(who, name, word, FIXED + SCALED)
    if word in SPREAD and any(isinstance(a, numbers.Real) and a <= 0 for a in arguments):
        raise InputError(f"{who}: expected {name} with a spread above 0, got {setting!r}.")
    if word in FIXED and arguments:
        raise InputError(f"{who}: expected {name} {word!r} without arguments, got {setting!r}.")
    try:
        draw = _factory(setting)
        if arguments:  # which may be of a kind that shows only when a number is drawn
            jax.eval_shape(lambda: draw(jax.random.key(0), (3, 2, 2), jax.numpy.float32))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{who}: expected arguments that fit jax.nn.initializers.{word}, "
            f"got {setting!r} ({error})."
        ) from None


def initialize(
    setting: Initializer, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any
) -> Array:
    """Draw an array of this shape and dtype with the named initialiser, in at least float32.

    Raises:
        InputError: for an initialiser that draws only arrays of other shapes.
    """
    try:
        return _factory(setting)(key, shape, at_least_single(dtype)).astype(dtype)
    except ValueError as error:
        raise InputError(
            f"initializer {setting!r}: expected a shape that it can draw, got {shape}: {error}"
        ) from error


def _factory(setting: Initializer) -> Any:
    word, *arguments = setting if isinstance(setting, tuple) else (setting,)
    named = getattr(jax.nn.initializers, str(word))
    return named if word in FIXED else named(*arguments)
