"""Trained networks as files: safetensors to load again here, StableHLO to run anywhere without this library.

No pickle: a file holds arrays, and JSON that says what they are. safetensors comes with the extra
``checkpoint``.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxnn.checks import InputError
from jaxnn.types import Layer, Params, Running
from jaxnn.values import from_json, to_json

PLATFORMS = ("cpu", "cuda", "tpu")


def save_model(path: str | os.PathLike, net: Layer, params: Params) -> None:
    """Write a network and its parameters to a .safetensors file, whole or not at all.

    The network's JSON and the structure of its parameters stand in the file's metadata.

    Args:
        path: of the file.
        net: the network.
        params: its parameters, running statistics among them.

    Raises:
        InputError: if ``net`` is not a layer, or the parameters hold something else than arrays in tuples,
            named tuples, lists, dicts and None.
    """
    arrays: dict[str, Any] = {}
    structure = _encode(params, "", arrays)
    metadata = {"network": to_json(net), "params": json.dumps(structure)}
    beside = Path(f"{os.fspath(path)}.{os.getpid()}.part")
    try:
        _safetensors().save_file(arrays, beside, metadata)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_model(path: str | os.PathLike) -> tuple[Any, Params]:
    """Read what :func:`save_model` wrote.

    Layers and parameter types of your own are found once their modules have been imported.

    Returns:
        The network and its parameters.

    Raises:
        InputError: if the file is not such a one, or names an unknown type.
    """
    from safetensors import SafetensorError, safe_open

    library = _safetensors()
    try:
        with safe_open(path, framework="flax") as file:
            metadata = file.metadata() or {}
        arrays = library.load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"load_model: expected a safetensors file, got {os.fspath(path)!r}: {error}."
        ) from error
    if not {"network", "params"} <= set(metadata):
        raise InputError(
            f"load_model: expected a file of save_model's, got {os.fspath(path)!r} without a network."
        )
    return from_json(metadata["network"]), _decode(json.loads(metadata["params"]), arrays)


def export_function(net: Layer, params: Params, x: PyTree, *, any_batch: bool = True) -> bytes:
    """Compile inference down to a serialised StableHLO function, with the parameters in it.

    It runs with JAX alone: ``jax.export.deserialize(data).call(x)``, on CPU, CUDA and TPU. An input of several
    arrays is given as so many arguments, in the order of its leaves; an output of several comes as a tuple.

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


# ── The structure of parameters, as JSON ────────────────────────────────────────────────────────


def _encode(tree: Any, path: str, arrays: dict[str, Any]) -> Any:
    """Write a tree of parameters as JSON, and collect its arrays by their paths."""
    at = f"{path}." if path else ""
    if tree is None:
        return None
    if hasattr(tree, "shape"):
        arrays[path or "params"] = jnp.asarray(tree)
        return {"array": path or "params"}
    if isinstance(tree, Running):
        return {"running": _encode(tree.value, path, arrays)}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        fields = {name: _encode(getattr(tree, name), at + name, arrays) for name in tree._fields}
        return {"type": _name(type(tree)), "fields": fields}
    if isinstance(tree, tuple | list):
        return {
            type(tree).__name__: [
                _encode(value, f"{at}{i}", arrays) for i, value in enumerate(tree)
            ]
        }
    if isinstance(tree, dict):
        return {
            "dict": {name: _encode(value, f"{at}{name}", arrays) for name, value in tree.items()}
        }
    raise InputError(
        f"save_model: expected parameters of arrays and tuples, got {type(tree).__name__} at {path}."
    )


def _decode(document: Any, arrays: dict[str, Any]) -> Any:
    if document is None:
        return None
    match document:
        case {"array": name}:
            return arrays[name]
        case {"running": value}:
            return Running(_decode(value, arrays))
        case {"type": name, "fields": fields}:
            return _find(name)(**{key: _decode(value, arrays) for key, value in fields.items()})
        case {"tuple": items} | {"list": items}:
            decoded = [_decode(item, arrays) for item in items]
            return tuple(decoded) if "tuple" in document else decoded
        case {"dict": items}:
            return {key: _decode(value, arrays) for key, value in items.items()}
    raise InputError(f"load_model: expected a structure of parameters, got {document!r}.")


def _name(cls: type) -> str:
    """Our own types go by their public names, so that they may move from file to file."""
    package = __name__.partition(".")[0]
    ours = cls.__module__.partition(".")[0] == package
    return f"{package}:{cls.__name__}" if ours else f"{cls.__module__}:{cls.__qualname__}"


def _find(name: str) -> Any:
    """Look up a named tuple among the modules that are already imported; nothing else is ever called."""
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")):
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
