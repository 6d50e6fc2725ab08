"""What ``@layer`` and ``@loss`` make of a class: a value with equality, a repr, and JSON.

A value holds plain settings and nothing else, see :mod:`jaxnn.types`.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.checks import InputError, check_key
from jaxnn.types import Layer, Params

T = TypeVar("T")

_REGISTRY: dict[str, type] = {}


@dataclass_transform(frozen_default=True)
def layer(cls: type[T]) -> type[T]:
    """Turn a class with ``init``, ``forward`` and ``backward`` into a layer value.

    The class becomes a frozen dataclass, equal and hashable by its settings, printed as the code
    that builds it, known to :func:`from_json`, and static to JAX. Its ``init`` is run as one
    compiled program and sees only the shape and dtype of the example.

    Raises:
        TypeError: if one of the three methods is missing.
        InputError: on construction, when a setting is not a plain value.
    """
    _require_methods(cls, ("init", "forward", "backward"))
    cls = _value(cls)
    cls.init = _compiled(cls.init)  # type: ignore[attr-defined]
    return cls


@dataclass_transform(frozen_default=True)
def loss(cls: type[T]) -> type[T]:
    """Turn a class with ``check``, ``forward`` and ``backward`` into a loss value, as :func:`layer` does.

    Raises:
        TypeError: if one of the three methods is missing.
        InputError: on construction, when a setting is not a plain value.
    """
    _require_methods(cls, ("check", "forward", "backward"))
    return _value(cls)


def _require_methods(cls: type, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not callable(getattr(cls, name, None))]
    if missing:
        raise TypeError(f"{cls.__name__}: expected the methods {', '.join(names)}; missing {', '.join(missing)}.")


def _value(cls: type[T]) -> type[T]:
    own_check = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        for field in dataclasses.fields(self):
            _require_plain(self, field.name, getattr(self, field.name))
        if own_check is not None:
            own_check(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    if "__repr__" not in cls.__dict__:
        cls.__repr__ = _repr  # type: ignore[method-assign]
    cls._repr_html_ = _repr_html  # type: ignore[attr-defined]
    cls.__eq__, cls.__hash__ = _equal, _hash  # type: ignore[method-assign]
    cls = dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)
    jax.tree_util.register_static(cls)
    _REGISTRY[_type_name(cls)] = cls
    return cls


def _require_plain(owner: Any, name: str, setting: Any) -> None:
    """Settings are ints, floats, strings, booleans, None, layers, and tuples of these."""
    kind = type(owner).__name__
    if isinstance(setting, tuple):
        for i, item in enumerate(setting):
            _require_plain(owner, f"{name}[{i}]", item)
    elif type(setting) is float:
        if not math.isfinite(setting):
            raise InputError(f"{kind}: expected {name} to be finite, got {setting}.")
    elif not (setting is None or type(setting) in (bool, int, str) or _is_value(setting)):
        cures = (
            (list, "write a tuple"),
            ((jax.Array, np.ndarray), "arrays belong in the parameters"),
            (Layer, "decorate its class with @jaxnn.layer"),
        )
        hint = next((f" ({cure})" for kind_of, cure in cures if isinstance(setting, kind_of)), "")
        raise InputError(
            f"{kind}: expected {name} to be a plain value (int, float, str, bool, None, a layer, or a "
            f"tuple of these), got {type(setting).__name__}{hint}."
        )


def _is_value(setting: Any) -> bool:
    return _REGISTRY.get(_type_name(type(setting))) is type(setting)


def _settings(self: Any) -> tuple[Any, ...]:
    return tuple(self.__dict__.values())  # in the order of the fields, in which __init__ set them


def _equal(self: Any, other: Any) -> Any:
    return _settings(self) == _settings(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash((type(self), _settings(self)))


def _repr(self: Any) -> str:
    """The call that builds this value, without the settings left at their defaults."""
    told = (f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)
    return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in told)})"


def _repr_html(self: Any) -> str:
    return notebook.fragment(notebook.tree(self))


def _compiled(init: Callable[[Any, Any, Any], Params]) -> Callable[[Any, Any, Any], Params]:
    """Run ``init`` as one program: drawing parameters op by op would compile a dozen tiny ones."""

    @functools.wraps(init)
    def run(self: Any, key: PRNGKeyArray, x: PyTree) -> Params:
        check_key(self, key)
        shape = jax.tree.map(functools.partial(_spec, self), x)
        if isinstance(key, jax.core.Tracer):  # already inside a program
            return init(self, key, shape)
        leaves, tree = jax.tree.flatten(shape)
        return _init_program(init, self, tuple(leaves), tree, key)

    return run


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _init_program(init: Any, self: Any, leaves: Any, tree: Any, key: PRNGKeyArray) -> Params:
    return init(self, key, jax.tree.unflatten(tree, leaves))


def _spec(owner: Any, x: Any) -> jax.ShapeDtypeStruct:
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        raise InputError(f"{owner!r}: expected an example array or ShapeDtypeStruct, got {type(x).__name__}.")
    return jax.ShapeDtypeStruct(x.shape, jnp.result_type(x))  # of the array: NumPy's float64 becomes JAX's in silence


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────


def to_json(value: Any) -> str:
    """Write a layer, network or loss as JSON: ``{"type": "Dense", "features": 3, ...}``.

    Raises:
        InputError: if ``value`` is not a layer or a loss.
    """
    if not _is_value(value):
        raise InputError(f"to_json: expected a layer or a loss, got {type(value).__name__}.")
    return json.dumps(_encode(value))


def from_json(text: str) -> Any:
    """Build the layer, network or loss that :func:`to_json` wrote.

    A layer of your own is found once its module has been imported; nothing is imported here.

    Raises:
        InputError: if the text is not such JSON, or names an unknown type or setting.
    """
    document = parse_json("from_json", text)
    try:
        value = _decode(document)
    except RecursionError as error:
        raise InputError("from_json: expected a network, got one that is nested too deeply.") from error
    if not _is_value(value):
        raise InputError(f"from_json: expected a layer or a loss, got {type(value).__name__}.")
    return value


def parse_json(who: str, text: str) -> Any:
    """Parse JSON in which no key comes twice.

    Raises:
        InputError: if it is none; ``who`` is named.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{who}: expected each key once, got {key!r} twice.")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"{who}: expected JSON, got a text that fails at {error}.") from error
    except RecursionError as error:
        raise InputError(f"{who}: expected JSON, got one that is nested too deeply.") from error


def _type_name(cls: type) -> str:
    """Our own types go by their bare names; others by module too, so that no two collide."""
    ours = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
    return cls.__name__ if ours else f"{cls.__module__}.{cls.__qualname__}"


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if _is_value(value):
        settings = {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": _type_name(type(value)), **settings}
    return value


def _decode(document: Any) -> Any:
    if isinstance(document, list):
        return tuple(_decode(item) for item in document)
    if not isinstance(document, dict):
        return document
    name = document.get("type")
    if not isinstance(name, str) or name not in _REGISTRY or name.startswith("_"):  # one of our own private types
        raise InputError(f"from_json: expected a known layer or loss type, got {name!r}.")
    cls = _REGISTRY[name]
    known = {field.name for field in dataclasses.fields(cls)}
    settings = {key: _decode(item) for key, item in document.items() if key != "type"}
    if unknown := sorted(set(settings) - known):
        raise InputError(f"from_json: expected settings of {name} among {sorted(known)}, got {unknown}.")
    try:
        return cls(**settings)
    except (InputError, RecursionError):
        raise
    except Exception as error:  # a setting of another type than the class checks for
        raise InputError(f"from_json: expected settings that {name} takes, got {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
