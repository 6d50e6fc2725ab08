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

from jaxnn.checks import InputError, check_bool, check_concrete
from jaxnn.conversion import as_example
from jaxnn.parameters import check_fit, check_no_result, named_leaves
from jaxnn.types import Layer, Params, Running
from jaxnn.values import check_layer, from_json, parse_json, to_json

PLATFORMS = ("cpu", "cuda", "tpu")


def save_model(path: str | os.PathLike, net: Layer, params: Params, x: PyTree) -> None:
    """Write a network and its parameters to a .safetensors file, whole or not at all.

    The network's JSON and the structure of its parameters stand in the file's metadata.

    Args:
        path: of the file.
        net: the network.
        params: its parameters, running statistics among them.
        x: an example batch, or its ShapeDtypeStruct. Its shape and dtype are saved too. The
            parameters are compared with those that ``net.init`` makes for it, here and when they
            are loaded.

    Raises:
        InputError: if ``net`` is not a layer, the parameters hold something else than finite arrays
            in tuples, named tuples, lists, dicts and None, or they are not those of ``net``; the
            first is named.
    """
    check_layer("save_model", net)
    check_no_result("save_model", params)
    check_concrete("save_model", params=params)
    file = _checked_path("save_model", path)
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(
            f"save_model: expected the path of a file in a folder that exists, got {str(path)!r}."
        )
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
    shape = as_example("save_model", "x", x)
    check_fit("save_model", net, params, shape, dtypes=True)
    metadata["float"] = str(jnp.result_type(float))
    metadata["x"] = json.dumps(
        _encode(shape, "", lambda _, leaf: {"shape": leaf.shape, "dtype": str(leaf.dtype)})
    )
    beside = Path(f"{file}.{os.getpid()}.part")
    try:
        _safetensors().save_file(arrays, beside, metadata)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)


def load_model(path: str | os.PathLike) -> tuple[Any, Params]:
    """Read what :func:`save_model` wrote.

    Layers and parameter types of your own are found once their modules have been imported.
    The parameters are compared with those that the network makes for the example that was saved.

    Returns:
        The network and its parameters.

    Raises:
        InputError: if the file is not such a one, names an unknown type, or holds other arrays than
            finite ones that fit the network; the first is named.
    """
    from safetensors import SafetensorError, safe_open

    library = _safetensors()
    path = _checked_path("load_model", path)
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
    _check_arrays("load_model", named_leaves(params))
    if "x" in metadata:
        same = metadata.get("float") == str(jnp.result_type(float))
        x = _read_tree("x", metadata["x"], None)
        check_fit("load_model", net, params, x, dtypes=True, bits=same)
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
        InputError: if x or the parameters do not fit the network.
    """
    from jax import export

    check_layer("export_function", net)
    check_bool("export_function", "any_batch", any_batch)
    x = as_example("export_function", "x", x)
    check_fit("export_function", net, params, x)

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


def _check_arrays(who: str, arrays: Mapping[str, Any]) -> None:
    """Check that each array holds plain numbers, and finite ones."""
    for name, array in arrays.items():
        if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
            raise InputError(
                f"{who}: expected {name} to be numbers, got an array of dtype {array.dtype}."
            )
        if not bool(jnp.isfinite(array).all()):
            raise InputError(f"{who}: expected finite numbers in {name}, got NaN or infinity.")


def _checked_path(who: str, path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
        raise InputError(f"{who}: expected the path of a file, got {path!r}.")
    return Path(path)


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
