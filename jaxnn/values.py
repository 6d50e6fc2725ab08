"""The decorators ``@layer`` and ``@loss``, which turn a class into a value.

A value has equality, a repr and a JSON form. It holds plain settings and nothing else, see
:mod:`jaxnn.types`.
"""

import dataclasses
import functools
import json
import math
import numbers
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, dataclass_transform, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.checks import (
    InputError,
    check_array,
    check_bool,
    check_key,
    is_array,
    is_kind,
    kind_of,
)
from jaxnn.formulas import documented
from jaxnn.programs import compiled
from jaxnn.types import Layer, Loss, Params

T = TypeVar("T")

_REGISTRY: dict[str, type] = {}


@dataclass_transform(frozen_default=True)
def layer(cls: type[T]) -> type[T]:
    """Turn a class with ``init``, ``forward`` and ``backward`` into a layer value.

    The class becomes a frozen dataclass whose equality and hash follow from its settings. It prints
    as the code that builds it, is known to :func:`from_json`, and is static to JAX. Its ``init``
    runs as one compiled program and sees only the shape and dtype of the example. Its ``forward``
    refuses a key that is none; what it and ``backward`` return has to be a pair.

    Raises:
        TypeError: if one of the three methods is missing.
        InputError: if ``cls`` is not a class; on construction, when a setting is not a plain value.
    """
    _require_methods("layer", cls, ("init", "forward", "backward"))
    cls = _value(cls)
    cls.init = _compiled(cls.init)  # type: ignore[attr-defined]
    cls.forward = _checked_forward(_method(cls, "forward"))  # type: ignore[attr-defined]
    cls.backward = _checked_backward(_method(cls, "backward"))  # type: ignore[attr-defined]
    return cls


@dataclass_transform(frozen_default=True)
def loss(cls: type[T]) -> type[T]:
    """Turn a class with ``check``, ``forward`` and ``backward`` into a loss value.

    The class gets the same properties as from :func:`layer`.

    Raises:
        TypeError: if one of the three methods is missing.
        InputError: on construction, when a setting is not a plain value.
    """
    _require_methods("loss", cls, ("check", "forward", "backward"))
    cls = _value(cls)
    cls.forward = _checked_value(_method(cls, "forward"))  # type: ignore[attr-defined]
    cls.backward = _checked_slope(_method(cls, "backward"))  # type: ignore[attr-defined]
    return cls


def check_layer(who: str, layer: Any, name: str = "net") -> None:
    """Check that a value is a layer, and neither a mere class nor a loss."""
    if isinstance(layer, type) or not isinstance(layer, Layer):
        raise InputError(f"{who}: expected {name} to be a layer, got {_told(layer)}.")


def check_network(who: str, net: Any, loss: Any) -> None:
    """Check that ``net`` is a layer and ``loss`` a loss, and that neither is a mere class."""
    check_layer(who, net)
    if isinstance(loss, type) or not isinstance(loss, Loss):
        raise InputError(f"{who}: expected loss to be a loss, got {_told(loss)}.")


def _told(given: Any) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}; write {given.__name__}()"
    if isinstance(given, Loss):
        return f"the loss {given!r}, which is no part of a network"
    return (
        repr(given)
        if isinstance(given, str | numbers.Number | None) or callable(given)
        else kind_of(given, "net")
    )


def _require_methods(who: str, cls: type, names: tuple[str, ...]) -> None:
    if not isinstance(cls, type):
        raise InputError(f"{who}: expected a class, which it decorates, got {cls!r}.")
    missing = [name for name in names if not callable(getattr(cls, name, None))]
    if missing:
        raise TypeError(
            f"{cls.__name__}: expected the methods {', '.join(names)}; "
            f"missing {', '.join(missing)}."
        )


def _value(cls: type[T]) -> type[T]:
    own_check = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        for field in dataclasses.fields(self):
            setting = _as_plain(getattr(self, field.name))
            object.__setattr__(self, field.name, setting)
            _require_plain(self, field.name, setting)
            if field.type in (bool, "bool"):
                check_bool(cls.__name__, field.name, setting)
        if own_check is not None:
            own_check(self)
        for field in dataclasses.fields(self):
            _require_type(cls.__name__, field, getattr(self, field.name))

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    if "__repr__" not in cls.__dict__:
        cls.__repr__ = _repr  # type: ignore[method-assign]
    cls._repr_html_ = _repr_html  # type: ignore[attr-defined]
    cls.__eq__, cls.__hash__ = _equal, _hash  # type: ignore[method-assign]
    cls = dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)
    cls.__init__ = _few_positions(cls, cls.__init__)  # type: ignore[method-assign]
    cls.__doc__ = documented(cls.__doc__, cls.__dict__.get("formulas"))
    jax.tree_util.register_static(cls)
    _REGISTRY[_type_name(cls)] = cls
    return cls


def _few_positions(cls: type, init: Callable[..., None]) -> Callable[..., None]:
    """Refuse more positional settings than the class has, and show the right call in the error."""
    positional = [f.name for f in dataclasses.fields(cls) if not f.kw_only]

    @functools.wraps(init)
    def run(self: Any, *settings: Any, **named: Any) -> None:
        if len(settings) > len(positional):
            raise InputError(_right_call(cls, settings, positional))
        init(self, *settings, **named)

    return run


def _right_call(cls: type, settings: tuple[Any, ...], positional: list[str]) -> str:
    """Return the error message for too many positional settings.

    In other libraries the number of inputs comes first, so one setting too many is often just that.
    """
    call = lambda arguments: f"{cls.__name__}({', '.join(arguments)})"  # noqa: E731
    shown = [repr(setting) for setting in settings]
    allowed = (
        f"only {', '.join(positional)} by position" if positional else "no setting by position"
    )
    others = [f.name for f in dataclasses.fields(cls) if f.kw_only]
    named = f", and {', '.join(others)} by name" if others else ""
    told = f"{call(shown)}: expected {allowed}{named}, got {len(settings)} by position."
    kinds: list[Any] = [cls.__annotations__[name] for name in positional]
    if [get_origin(kind) for kind in kinds] == [tuple]:
        together = f"({', '.join(shown)})"
        return f"{told} Write {call([together])}."
    takes_sizes = hasattr(cls, "init") and (positional or ["features"])[0] in ("features", "heads")
    all_sizes = all(type(setting) is int for setting in settings)
    if takes_sizes and all_sizes and len(settings) == len(positional) + 1:
        return f"{told} The size of the input is taken from the data: write {call(shown[1:])}."
    return told


def _as_plain(setting: Any) -> Any:
    """Return a number of NumPy, alone or in a tuple, as one of Python."""
    if isinstance(setting, tuple) and not hasattr(setting, "_fields"):
        return tuple(map(_as_plain, setting))
    return setting.item() if isinstance(setting, np.generic) else setting


_PLAIN = {int: "an integer", float: "a number", str: "a text", Layer: "a layer", type(None): "None"}


def _require_type(who: str, field: Any, setting: Any) -> None:
    """Check a setting against its annotation, if that is a plain type or a union of such."""
    kinds = get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    if not set(kinds) <= set(_PLAIN):
        return
    allowed = (*kinds, int) if float in kinds else kinds
    if isinstance(setting, bool) or not isinstance(setting, allowed):
        expected = " or ".join(_PLAIN[kind] for kind in kinds)
        raise InputError(f"{who}: expected {field.name} to be {expected}, got {setting!r}.")


def _require_plain(owner: Any, name: str, setting: Any) -> None:
    """Check that a setting is an int, float, str, bool, None, a layer, or a tuple of these."""
    kind = type(owner).__name__
    if isinstance(setting, tuple):
        for i, item in enumerate(setting):
            _require_plain(owner, f"{name}[{i}]", item)
    elif type(setting) is float:
        if not math.isfinite(setting):
            raise InputError(f"{kind}: expected {name} to be finite, got {setting}.")
    elif not (setting is None or type(setting) in (bool, int, str) or _is_value(setting)):
        cures: tuple[tuple[Any, str], ...] = (
            (list, "write a tuple"),
            ((jax.Array, np.ndarray), "arrays belong in the parameters"),
            (Layer, "decorate its class with @jaxnn.layer"),
        )
        if isinstance(setting, type):
            cures = ((type, f"write {setting.__name__}(...)"),)
        hint = next((f" ({cure})" for wrong, cure in cures if isinstance(setting, wrong)), "")
        is_traced = isinstance(setting, jax.core.Tracer)
        got = kind_of(setting) if is_traced else f"{type(setting).__name__}{hint}"
        raise InputError(
            f"{kind}: expected {name} to be a plain value (int, float, str, bool, None, a layer, "
            f"or a tuple of these), got {got}."
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
    """Return the call that builds this value, without the settings that have their defaults."""
    told = (f for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)
    return (
        f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in told)})"
    )


def _repr_html(self: Any) -> str:
    return notebook.fragment(notebook.tree(tree_of(self)))


# ── The layers inside a value ───────────────────────────────────────────────────────────────────


class Child(NamedTuple):
    """A layer inside another.

    Attributes:
        path: what is appended to the path of the outer layer, such as "[2]" for one of several
            layers, or ".body" for a single one.
        layer: the layer.
        field: the field that holds it.
    """

    path: str
    layer: Any
    field: str


def children(value: Any) -> list[Child]:
    """List the layers inside a layer, in the order of its fields.

    Everything that walks through a network does so by this function.
    """
    found: list[Child] = []
    for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
        inner = getattr(value, field.name)
        if isinstance(inner, Layer):
            found.append(Child(f".{field.name}", inner, field.name))
        elif isinstance(inner, tuple) and all(isinstance(item, Layer) for item in inner):
            found += [Child(f"[{i}]", item, field.name) for i, item in enumerate(inner)]
    return found


def with_children(value: Any, change: Callable[[Child], Any]) -> Any:
    """Return a layer with each of the layers inside it replaced by what ``change`` returns."""
    changes: dict[str, Any] = {}
    for child in children(value):
        made = change(child)
        is_one_of_several = isinstance(getattr(value, child.field), tuple)
        changes[child.field] = (*changes.get(child.field, ()), made) if is_one_of_several else made
    return dataclasses.replace(value, **changes) if changes else value


def tree_of(value: Any, path: str = "") -> notebook.Tree:
    """Return the tree of a value and the layers inside it, in the form that a notebook shows."""
    inner = [tree_of(child.layer, path + child.path) for child in children(value)]
    name = f"{type(value).__name__} of {len(inner)}" if len(inner) > 1 else type(value).__name__
    return notebook.Tree(path, name if inner else repr(value), inner)


def _compiled(init: Callable[[Any, Any, Any], Params]) -> Callable[[Any, Any, Any], Params]:
    """Wrap ``init`` so that it runs as one compiled program.

    Drawing parameters operation by operation would compile a dozen tiny programs.
    """

    @functools.wraps(init)
    def run(self: Any, key: PRNGKeyArray, x: PyTree) -> Params:
        check_key(self, key)
        shape = jax.tree_util.tree_map_with_path(
            functools.partial(_spec, self), x, is_leaf=lambda part: isinstance(part, list)
        )
        for leaf in jax.tree.leaves(shape):
            if 0 in leaf.shape[1:]:
                raise InputError(
                    f"{self!r}: expected an input with at least one entry along each axis, "
                    f"got shape {leaf.shape}."
                )
        leaves, tree = jax.tree.flatten(shape)
        return _init_program(init, self, tuple(leaves), tree, key)

    return run


@compiled(settings=4, runs_once=True)
def _init_program(init: Any, self: Any, leaves: Any, tree: PyTree, key: PRNGKeyArray) -> Params:
    return _drawn(init, self, key, jax.tree.unflatten(tree, leaves))


def _drawn(init: Callable[[Any, Any, Any], Params], self: Any, key: Any, x: PyTree) -> Params:
    try:
        params = init(self, key, x)
    except TypeError as error:
        if "ShapeDtypeStruct" in str(error):
            raise InputError(
                f"{self!r}: expected an init that needs only the shape and the dtype of x; it is "
                "given a jax.ShapeDtypeStruct, which has no values."
            ) from error
        raise
    for leaf in jax.tree.leaves(params):
        if not is_array(leaf):
            raise InputError(f"{self!r}: expected init to return arrays, got {kind_of(leaf)}.")
    return params


def _method(cls: type, name: str) -> Callable[..., Any]:
    """Return a method of a class; one that is inherited is looked up at each call.

    A method that is replaced in the base class later, as mutations do, so takes effect.
    """
    if name in cls.__dict__:
        return cls.__dict__[name]

    @functools.wraps(getattr(cls, name))
    def inherited(self: Any, *arguments: Any, **named: Any) -> Any:
        return getattr(super(cls, self), name)(*arguments, **named)

    return inherited


def _checked_forward(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's ``forward`` to refuse a key that is none, and a result of another form."""

    @functools.wraps(forward)
    def run(self: Any, params: Params, x: PyTree, key: PRNGKeyArray | None = None) -> Any:
        if key is not None:
            check_key(self, key)
        y, cache = _pair(self, "forward to return (y, cache)", forward(self, params, x, key))
        if not _is_ours(type(self)):
            _check_cache(self, cache)
        return y, cache

    return run


def _check_cache(layer: Any, cache: Any) -> None:
    """Check that a cache holds arrays and numbers, which alone can leave a compiled program."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(cache):
        if not is_array(leaf) and not isinstance(leaf, numbers.Number):
            place = f"cache{jax.tree_util.keystr(path)}"
            raise InputError(
                f"{layer!r}: expected a cache of arrays, got {kind_of(leaf)} at {place}; write "
                "jaxnn.types.Static(value) for what is a setting of the program."
            )


def _checked_backward(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a layer's ``backward`` to refuse a foreign cache, and a result of another form.

    The layers of this library are certified: where one of them fails in another way than by an
    error of its own checks, it was not given what its ``forward`` returned. A layer of a user's may
    have a mistake in it, whose error is left as it is.
    """

    @functools.wraps(backward)
    def run(self: Any, params: Params, cache: Any, dy: PyTree) -> Any:
        try:
            made = backward(self, params, cache, dy)
        except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            if isinstance(error, InputError) or not _all_ours(self):
                raise
            raise _foreign_cache(self, kind_of(cache)) from error
        dparams, dx = _pair(self, "backward to return (dparams, dx)", made)
        if _is_ours(type(self)) and _shapes(dparams) != _shapes(params) and _all_ours(self):
            raise _foreign_cache(self, "one of other shapes")
        return dparams, dx

    return run


def _foreign_cache(layer: Any, got: str) -> InputError:
    return InputError(
        f"{layer!r}: expected params, the cache that forward returned for them, and dy like its "
        f"output, got {got} as the cache."
    )


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


def _checked_value(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a loss's ``forward`` to refuse a value that is not one number."""

    @functools.wraps(forward)
    def run(self: Any, *arguments: Any, **named: Any) -> Any:
        made = forward(self, *arguments, **named)
        value, cache = _pair(self, "forward to return (value, cache)", made)
        if not is_array(value) or value.shape or not is_kind(value, jnp.floating):
            got = value.dtype if is_array(value) and not value.shape else kind_of(value)
            raise InputError(
                f"{self!r}: expected forward to return a floating scalar as the value, got {got}."
            )
        return value, cache

    return run


def _checked_slope(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a loss's ``backward`` to refuse a foreign cache, as that of a layer does."""

    @functools.wraps(backward)
    def run(self: Any, cache: Any) -> Any:
        try:
            return backward(self, cache)
        except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            if isinstance(error, InputError) or not _is_ours(type(self)):
                raise
            raise InputError(
                f"{self!r}: expected the cache that forward returned, got {kind_of(cache)}."
            ) from error

    return run


def _pair(who: Any, wanted: str, made: Any) -> Any:
    if not isinstance(made, tuple) or len(made) != 2:
        got = f"a tuple of {len(made)}" if isinstance(made, tuple) else kind_of(made)
        raise InputError(f"{who!r}: expected {wanted}, got {got}.")
    return made


def _spec(owner: Any, path: tuple[Any, ...], x: PyTree) -> jax.ShapeDtypeStruct:
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        wanted = f"x{jax.tree_util.keystr(path)} as an array" if path else "an example array"
        raise InputError(f"{owner!r}: expected {wanted} or ShapeDtypeStruct, got {kind_of(x)}.")
    check_array(owner, f"x{jax.tree_util.keystr(path)}", x)
    # the dtype is that of the array for JAX, in which NumPy's float64 silently becomes JAX's own
    return jax.ShapeDtypeStruct(x.shape, jnp.result_type(x))


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

    A layer of your own is found once its module has been imported; this function imports nothing.

    Raises:
        InputError: if the text is not such JSON, or names an unknown type or setting.
    """
    if not isinstance(text, str | bytes):
        cure = ": write json.dumps of it" if isinstance(text, dict) else ""
        raise InputError(f"from_json: expected JSON as a text, got {kind_of(text)}{cure}.")
    document = parse_json("from_json", text)
    try:
        value = _decode(document)
    except RecursionError as error:
        raise InputError(
            "from_json: expected a network, got one that is nested too deeply."
        ) from error
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
    """Return the name of a type in JSON.

    Types of this library have their bare names; other types have their module's name before it, so
    that no two collide.
    """
    return cls.__name__ if _is_ours(cls) else f"{cls.__module__}.{cls.__qualname__}"


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _all_ours(value: Any) -> bool:
    """Return whether a layer and all layers inside it are those of this library."""
    inner = (child.layer for child in children(value))
    return _is_ours(type(value)) and all(map(_all_ours, inner))


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
    cls = _find(name)
    if cls is None:
        raise InputError(f"from_json: expected a known layer or loss type, got {name!r}.")
    known = {field.name for field in dataclasses.fields(cls)}
    settings = {key: _decode(item) for key, item in document.items() if key != "type"}
    if unknown := sorted(set(settings) - known):
        raise InputError(
            f"from_json: expected settings of {name} among {sorted(known)}, got {unknown}."
        )
    try:
        return cls(**settings)
    except RecursionError:
        raise
    except InputError as error:
        raise InputError(f"from_json: {error}") from error
    except Exception as error:  # a setting of another type than the class checks for
        raise InputError(
            f"from_json: expected settings that {name} takes, got {type(error).__name__}: {error}."
        ) from error


def _find(name: Any) -> Any:
    """Find a type by its name, among the public types of this library and those of a user."""
    if not isinstance(name, str) or name.startswith("_"):
        return None
    found = _REGISTRY.get(name) if "." in name else getattr(sys.modules["jaxnn"], name, None)
    return found if found is not None and _REGISTRY.get(_type_name(found)) is found else None
