"""The contract of the library. Read this file first.

Everything is built from two kinds of thing, and this page defines both.

A **layer** is three functions that belong together::

    init(key, x)                  -> params
    forward(params, x, key=None)  -> (y, cache)
    backward(params, cache, dy)   -> (dparams, dx)

A **loss** is two::

    forward(prediction, target, weights=None) -> (value, cache)
    backward(cache)                           -> dprediction

The rules that hold everywhere:

* **A layer is a value.** It holds plain settings and nothing else: no arrays, no state, no
  parameters. ``Dense(3) == Dense(3)``, it hashes, pickles, prints as the code that builds it, and
  goes to JSON and back. JAX treats it as a static part of the program, so it passes through
  ``jit``, ``vmap`` and ``scan`` as it is.
* **Parameters are pytrees**, made by ``init`` and passed in; ``()`` where there are none.
* **The cache** is a pytree that holds exactly what ``backward`` needs and nothing it could take
  from ``params``.
* **``backward`` is derived by hand.** ``dparams`` has the structure, shapes and dtypes of
  ``params``; ``dx`` has those of ``x`` (``None`` when ``x`` is integer).
* **The batch comes first.** A layer *sums* its parameter gradients over the batch. The ``1/B`` of
  a mean belongs to the loss, and to nothing else.
* ``key=None`` means inference; a key means training (dropout draws from it).

**Running statistics** (BatchNorm's mean and variance) are state that is not trained. They live among
the parameters, wrapped in :class:`Running`, where their gradient is 0. A layer that has some, or has
children that do, adds one method, and no signature of a layer without them is any wider for it::

    advance(params, cache) -> params

which gives the parameters with the statistics moved on by what that forward pass saw. The function
:func:`advance` calls it where there is one; :func:`split_running` takes the trained parameters and
the statistics apart, so that no optimizer touches the latter (weight decay would).

**Formulas** are what a layer says of itself, for whoever wants to see the numbers worked out: an optional
attribute ``formulas``, described in ``jaxnn.formulas``. Nothing that trains reads it.

The shape legend, used in every file::

    B  batch          T  time or sequence      I  input features
    O  output features  H, W  height, width    C  channels

``dz`` always means the derivative of the loss with respect to ``z``: ``x, dx``; ``w, dw``; ``y, dy``.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, dataclass_transform, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn import notebook
from jaxnn.checks import InputError, check_key

Params: TypeAlias = Any  # a pytree of arrays
Cache: TypeAlias = Any
AnyArray: TypeAlias = Array | np.ndarray  # what functions take that users call with their data


@runtime_checkable
class Layer(Protocol):
    """A differentiable function with parameters, and its hand-derived derivative."""

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        """Draw parameters for inputs shaped like ``x``, an example batch or its ShapeDtypeStruct."""

    def forward(self, params: Params, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, Cache]:
        """Compute the output, and keep what ``backward`` will need."""

    def backward(self, params: Params, cache: Cache, dy: PyTree) -> tuple[Params, PyTree]:
        """Take the derivative with respect to the output to those of parameters and input."""


@runtime_checkable
class Loss(Protocol):
    """A scalar objective of predictions and targets, and its hand-derived derivative."""

    def check(self, prediction: PyTree, target: PyTree) -> None:
        """Raise InputError for a target outside the loss's domain (values only where concrete)."""

    def forward(self, prediction: Array, target: AnyArray, weights: AnyArray | None = None) -> tuple[Array, Cache]:
        """Compute the (weighted) mean loss over the batch, and keep what ``backward`` will need."""

    def backward(self, cache: Cache) -> Array:
        """Give the derivative of the value with respect to the prediction."""


T = TypeVar("T")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Static(Generic[T]):
    """A plain hashable value carried in a cache as part of the program, not as an array.

    A bare shape tuple in a cache would turn into traced integers when the cache leaves one ``jit``
    and enters another. Wrapped in ``Static`` it stays a Python value.
    """

    value: T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Running(Generic[T]):
    """State among the parameters that is carried along, not trained: any pytree of arrays."""

    value: T


def advance(layer: Any, params: Params, cache: Cache) -> Params:
    """Give the parameters with their running statistics moved on by one forward pass."""
    return layer.advance(params, cache) if hasattr(layer, "advance") else params


def split_running(params: Params) -> tuple[Params, Params]:
    """Split parameters into the trained ones and the running statistics, each with None for the other."""
    is_running = lambda node: isinstance(node, Running)  # noqa: E731
    trained = jax.tree.map(lambda node: None if is_running(node) else node, params, is_leaf=is_running)
    running = jax.tree.map(lambda node: node if is_running(node) else None, params, is_leaf=is_running)
    return trained, running


def join_running(trained: Params, running: Params) -> Params:
    """Put together again what :func:`split_running` took apart."""
    is_gap = lambda node: node is None or isinstance(node, Running)  # noqa: E731
    return jax.tree.map(lambda a, b: b if a is None else a, trained, running, is_leaf=is_gap)


def check_input(layer: Any, x: PyTree) -> None:
    """Check an input's values where they are known: for callers that are about to trace it.

    A layer for which shapes do not tell everything (token ids, lengths) adds a method ``check_input(x)``;
    combinators hand it on to whoever sees x first.
    """
    if hasattr(layer, "check_input"):
        layer.check_input(x)


# ── Values: what @layer and @loss make of a class ───────────────────────────────────────────────

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
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"from_json: expected JSON, got a text that fails at {error}.") from error
    return _decode(document)


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
    if name not in _REGISTRY:
        raise InputError(f"from_json: expected a known layer or loss type, got {name!r}.")
    cls = _REGISTRY[name]
    known = {field.name for field in dataclasses.fields(cls)}
    settings = {key: _decode(item) for key, item in document.items() if key != "type"}
    if unknown := sorted(set(settings) - known):
        raise InputError(f"from_json: expected settings of {name} among {sorted(known)}, got {unknown}.")
    return cls(**settings)
