"""Trained networks as files: safetensors to load again here, StableHLO to run anywhere.

No pickle: a file holds arrays, and JSON that says what they are. safetensors comes with the extra
``checkpoint``.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.types import Layer, Params, Running
from jaxnn.values import from_json, parse_json, to_json

PLATFORMS = ("cpu", "cuda", "tpu")


def save_model(path: str | os.PathLike, net: Layer, params: Params, x: PyTree = None) -> None:
    """Write a network and its parameters to a .safetensors file, whole or not at all.

    The network's JSON and the structure of its parameters stand in the file's metadata.

    Args:
        path: of the file.
        net: the network.
        params: its parameters, running statistics among them.
        x: an example batch, or its ShapeDtypeStruct. Its shape and dtype are saved too, and the
            parameters compared with those that ``net.init`` makes for it, here and when they are
            loaded.

    Raises:
        InputError: if ``net`` is not a layer, the parameters hold something else than finite arrays
            in tuples, named tuples, lists, dicts and None, or they are not those of ``net``; the
            first is named.
    """
    if not isinstance(net, Layer) or isinstance(net, type):
        raise InputError(f"save_model: expected net to be a layer, got {type(net).__name__}.")
    arrays: dict[str, Any] = {}

    def collect(path: str, leaf: Any) -> dict[str, Any]:
        name = path or "params"
        if name in arrays:
            raise InputError(
                f"save_model: expected each array by a name of its own, got two called {name!r}."
            )
        arrays[name] = jnp.asarray(leaf)
        return {"array": name}

    metadata = {"network": to_json(net), "params": json.dumps(_encode(params, "", collect))}
    _check_arrays("save_model", arrays)
    if x is not None:
        shape = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(leaf)), x
        )
        _check_fit("save_model", net, params, shape)
        metadata["float"] = str(jnp.result_type(float))
        metadata["x"] = json.dumps(
            _encode(shape, "", lambda _, leaf: {"shape": leaf.shape, "dtype": str(leaf.dtype)})
        )
    beside = Path(f"{os.fspath(path)}.{os.getpid()}.part")
    try:
        _safetensors().save_file(arrays, beside, metadata)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_model(path: str | os.PathLike) -> tuple[Any, Params]:
    """Read what :func:`save_model` wrote.

    Layers and parameter types of your own are found once their modules have been imported.
    Parameters that were saved with an example ``x`` are known to be those of the network; without
    one, no shape can be checked.

    Returns:
        The network and its parameters.

    Raises:
        InputError: if the file is not such a one, names an unknown type, or holds other arrays than
            finite ones that fit the network; the first is named.
    """
    from safetensors import SafetensorError, safe_open

    library = _safetensors()
    try:
        with safe_open(path, framework="flax") as file:
            metadata = file.metadata() or {}
        arrays = library.load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"load_model: expected a safetensors file, got {os.fspath(path)!r}: {error}."
        ) from error
    if not {"network", "params"} <= set(metadata):
        raise InputError(
            "load_model: expected a file of save_model's, "
            f"got {os.fspath(path)!r} without a network."
        )
    net = from_json(metadata["network"])
    if not isinstance(net, Layer):
        raise InputError(f"load_model: expected a network, got {net!r}.")
    params = _read_tree("params", metadata["params"], arrays.pop)
    if arrays:
        raise InputError(
            f"load_model: expected no array but those of the parameters, got {min(arrays)!r}, too."
        )
    _check_arrays("load_model", _named(params))
    if "x" in metadata:
        same = metadata.get("float") == str(jnp.result_type(float))
        _check_fit(
            "load_model", net, params, _read_tree("x", metadata["x"], None), as_32_bits=not same
        )
    return net, params


def export_function(net: Layer, params: Params, x: PyTree, *, any_batch: bool = True) -> bytes:
    """Compile inference down to a serialised StableHLO function, with the parameters in it.

    It runs with JAX alone: ``jax.export.deserialize(data).call(x)``, on CPU, CUDA and TPU. An input
    of several arrays is given as so many arguments, in the order of its leaves; an output of
    several comes as a tuple.

    Args:
        net: the network.
        params: its parameters.
        x: an example batch, or its ShapeDtypeStruct.
        any_batch: whether the function takes any number of rows, or just as many as ``x`` has.

    Raises:
        InputError: if x does not fit the network.
    """
    from jax import export

    def spec(leaf: Any) -> jax.ShapeDtypeStruct:
        shape = ("rows", *leaf.shape[1:]) if any_batch else leaf.shape
        symbolic = (
            export.symbolic_shape(", ".join(map(str, shape)), scope=scope) if any_batch else shape
        )
        return jax.ShapeDtypeStruct(symbolic, jnp.result_type(leaf.dtype))

    def function(*leaves: Any) -> Any:
        outputs = tuple(
            jax.tree.leaves(net.forward(params, jax.tree.unflatten(structure, leaves))[0])
        )
        return outputs[0] if len(outputs) == 1 else outputs

    scope = export.SymbolicScope()
    leaves, structure = jax.tree.flatten(x)
    return bytes(
        export.export(jax.jit(function), platforms=PLATFORMS)(*map(spec, leaves)).serialize()
    )


# ── Do the parameters fit the network? ────────────────────────────────────────────────────────────


def _check_arrays(who: str, arrays: Mapping[str, Any]) -> None:
    """Check that each array holds plain numbers, and finite ones."""
    for name, array in arrays.items():
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise InputError(
                f"{who}: expected {name} to be numbers, got an array of dtype {array.dtype}."
            )
        if not bool(jnp.isfinite(array).all()):
            raise InputError(f"{who}: expected finite numbers in {name}, got NaN or infinity.")


def _check_fit(
    who: str, net: Layer, params: Params, x: PyTree, *, as_32_bits: bool = False
) -> None:
    """Compare parameters with those that the network makes; the first that differs is named.

    Args:
        who: whom the errors name.
        net: the network.
        params: its parameters.
        x: shapes and dtypes of the example.
        as_32_bits: whether 64 bits count as 32, since JAX was configured to make the other when it
            saved.
    """
    try:
        made = jax.eval_shape(net.init, jax.random.key(0), x)
    except InputError as error:
        raise InputError(f"{who}: expected x that the network takes: {error}") from error
    except Exception as error:  # sizes beyond all measure overflow in many ways
        raise InputError(
            f"{who}: expected a network that takes x, got {type(error).__name__}: {error}."
        ) from error
    wanted, found = _named(made), _named(params)
    for name in [*wanted, *found]:
        expected, got = (_kind(arrays.get(name), as_32_bits) for arrays in (wanted, found))
        if expected != got:
            raise InputError(f"{who}: expected {name} to be {expected}, got {got}.")
    expected, got = (str(jax.tree.structure(tree)) for tree in (made, params))
    if expected != got:
        raise InputError(f"{who}: expected parameters of structure {expected}, got {got}.")


def _named(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}


def _kind(array: Any, as_32_bits: bool) -> str:
    if array is None:
        return "nothing"
    dtype = str(array.dtype)
    return f"{dtype.replace('64', '32') if as_32_bits else dtype}{list(array.shape)}"


# ── The structure of parameters, as JSON ──────────────────────────────────────────────────────────


def _encode(tree: Any, path: str, write: Callable[[str, Any], Any]) -> Any:
    """Write a tree as JSON; ``write`` gives the JSON of an array, by its path."""
    at = f"{path}." if path else ""
    if tree is None:
        return None
    if hasattr(tree, "shape"):
        return write(path, tree)
    if isinstance(tree, Running):
        return {"running": _encode(tree.value, path, write)}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields = {name: _encode(getattr(tree, name), at + name, write) for name in tree._fields}
        return {"type": _name(type(tree)), "fields": fields}
    if isinstance(tree, tuple | list):
        return {
            type(tree).__name__: [_encode(value, f"{at}{i}", write) for i, value in enumerate(tree)]
        }
    if isinstance(tree, dict) and all(isinstance(name, str) for name in tree):
        return {
            "dict": {name: _encode(value, f"{at}{name}", write) for name, value in tree.items()}
        }
    what = "a dict with keys that are no strings" if isinstance(tree, dict) else type(tree).__name__
    raise InputError(f"save_model: expected parameters of arrays and tuples, got {what} at {path}.")


def _read_tree(what: str, text: str, take: Callable[[str], Any] | None) -> Any:
    """Read a tree back; ``take`` gives each array, once. None is for shapes and dtypes."""
    document = parse_json("load_model", text)
    try:
        return _decode(document, take)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(
            f"load_model: expected each array of {what} once in the file, got no {error}."
        ) from error
    except Exception as error:  # whatever a document of another form makes of its reader
        raise InputError(
            f"load_model: expected a structure of {what}, got {type(error).__name__}: {error}."
        ) from error


def _decode(document: Any, take: Callable[[str], Any] | None) -> Any:
    if document is None:
        return None
    if not isinstance(document, dict):
        raise InputError(f"load_model: expected a structure of parameters, got {document!r}.")
    match document:
        case {"array": str(name), **rest} if not rest and take:
            return take(name)
        case {"shape": list(shape), "dtype": str(dtype), **rest} if not rest and not take:
            known = jax.dtypes.canonicalize_dtype(dtype)  # 32 bits where JAX makes no 64
            return jax.ShapeDtypeStruct(tuple(shape), known)
        case {"running": value, **rest} if not rest:
            return Running(_decode(value, take))
        case {"type": str(name), "fields": dict(fields), **rest} if not rest:
            return _find(name)(**{key: _decode(value, take) for key, value in fields.items()})
        case {"tuple": list(items), **rest} if not rest:
            return tuple(_decode(item, take) for item in items)
        case {"list": list(items), **rest} if not rest:
            return [_decode(item, take) for item in items]
        case {"dict": dict(items), **rest} if not rest:
            return {key: _decode(value, take) for key, value in items.items()}
    raise InputError(f"load_model: expected a structure of parameters, got {sorted(document)}.")


def _name(cls: type) -> str:
    """Our own types go by their public names, so that they may move from file to file."""
    package = __name__.partition(".")[0]
    ours = cls.__module__.partition(".")[0] == package
    return f"{package}:{cls.__name__}" if ours else f"{cls.__module__}:{cls.__qualname__}"


def _find(name: str) -> Any:
    """Look up a named tuple in modules that are imported; nothing else is ever called."""
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, None)
    private = module.startswith(
        f"{__name__.partition('.')[0]}."
    )  # our own public ones are found in the package
    if private or not (
        isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")
    ):
        raise InputError(f"load_model: expected a known type of parameters, got {name!r}.")
    return found


def _safetensors() -> Any:
    try:
        import safetensors.flax as library
    except ImportError as error:
        raise InputError(
            "expected safetensors; install the extra: pip install '.[checkpoint]'."
        ) from error
    return library
