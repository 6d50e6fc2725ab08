"""Test the test: plant mistakes in backward passes, and check whether each is caught.

There are two kinds of mistakes. :func:`planted` changes the result of a backward or its cache: a
flipped sign, a transpose, a factor of 1.0005, a lost or doubled 1/B, a lost sum over the batch, a
stale entry of the cache, two exchanged gradients. :func:`rewritten` changes the source of the
backward itself, and of the functions that only it uses: it drops a term, a factor, a minus sign or
a transpose, flips a sign, or replaces a sum by a mean, one place at a time. A mutant is caught if
its gradient differs from ``jax.vjp`` by more than a certificate allows, or if it does not run at
all.

A mutant that is not caught is *equivalent* if its gradient is right all the same; the reason is
then stated. Otherwise it was missed.
"""

import ast
import contextlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxnn.compose import Frozen
from jaxnn.gradcheck.certify import AUTODIFF_TOLERANCE
from jaxnn.gradcheck.vjp_claim import Claim, Floats, Leaves, is_float, relative_errors
from jaxnn.types import Cache, Layer, Loss
from jaxnn.values import children

EQUIVALENT = {
    "MaxPool.backward: sign flipped: -math.inf → math.inf": (
        "the padding value only has to differ from every finite maximum"
    ),
}
NOTHING = 1e-12  # of the whole gradient's norm; a leaf below it is only rounding error


Owner: TypeAlias = type | ModuleType
Found: TypeAlias = tuple[Owner, str, Callable[..., Any]]  # (owner, name, function)
Point: TypeAlias = tuple[Claim, Floats, PyTree, Leaves, Cache]  # the arguments of _runs_wrong


class Mutant(NamedTuple):
    """One planted mistake.

    Attributes:
        op: the layer or loss in which the mistake was planted.
        mistake: the change, and its place.
        verdict: "caught", "equivalent" or "missed".
        reason: the reason why the mutant is equivalent, or "".
    """

    op: str
    mistake: str
    verdict: str
    reason: str = ""


# ── Mistakes in the result or the cache of backward ─────────────────────────────────────────────


def planted(claim: Claim) -> list[Mutant]:
    """Plant every mistake that fits the shapes of the gradients, and compare with ``jax.vjp``."""
    random = np.random.default_rng(17)
    floats, dy = claim.floats, claim.random_dy(random)
    truth = [np.asarray(leaf) for leaf in jax.jit(claim.autodiff)(floats, dy)]
    right = [np.asarray(leaf) for leaf in jax.jit(claim.by_hand)(floats, dy)]
    whole = np.sqrt(sum((leaf**2).sum() for leaf in truth))
    op, mutants = repr(claim.op), []
    for i, name in enumerate(claim.names):
        nothing = np.linalg.norm(truth[i]) <= NOTHING * whole
        for mistake, leaf in _spoiled(claim, right, i, floats, dy):
            reason = "the true gradient is 0 everywhere" if nothing else ""
            if mistake.startswith(("B times", "1/B")) and claim.batch == 1:
                reason = "with a batch of one, B is 1"
            spoiled = [*right[:i], leaf, *right[i + 1 :]]
            mutants.append(_judged(op, f"{name}: {mistake}", _differs(spoiled, truth), reason))
        for j in range(i):
            if right[i].shape == right[j].shape:
                swapped = list(right)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                mistake = f"{claim.names[j]} and {name} exchanged"
                mutants.append(_judged(op, mistake, _differs(swapped, truth), ""))
    return mutants + _stale(claim, floats, dy, truth, random)


def _spoiled(
    claim: Claim, right: list[np.ndarray], i: int, floats: Floats, dy: PyTree
) -> Iterator[tuple[str, np.ndarray]]:
    leaf, batch = right[i], claim.batch
    yield "sign flipped", -leaf
    yield "factor 1.0005", 1.0005 * leaf
    yield "B times too large", batch * leaf
    yield "1/B too small", leaf / batch
    if leaf.ndim == 2 and leaf.shape[0] == leaf.shape[1] > 1:
        yield "transposed", leaf.T
    first = jax.tree.leaves(dy)[0]
    if claim.names[i].startswith("params") and first.ndim and first.shape[0] == batch > 1:
        only_first = jax.tree.map(lambda d: jnp.zeros_like(d).at[0].set(d[0]), dy)
        yield "batch sum lost", np.asarray(jax.jit(claim.by_hand)(floats, only_first)[i])


def _stale(
    claim: Claim, floats: Floats, dy: PyTree, truth: list[np.ndarray], random: np.random.Generator
) -> list[Mutant]:
    """Replace each entry of the cache by the entry for another input."""
    other_point = dict(claim.point)
    field = "x" if "x" in other_point else "prediction"
    other_point[field] = jax.tree.map(
        lambda leaf: (
            jnp.asarray(random.uniform(0.1, 0.9, leaf.shape), leaf.dtype)
            if is_float(leaf)
            else leaf[::-1]
        ),
        other_point[field],
    )
    cache, other = claim.forward(claim.point)[1], claim.forward(other_point)[1]
    paths = [
        jax.tree_util.keystr(path) or "whole"
        for path, _ in jax.tree_util.tree_leaves_with_path(cache)
    ]
    (leaves, structure), stale = jax.tree.flatten(cache), jax.tree.leaves(other)
    mutants = []
    for i, path in enumerate(paths):
        reason = ""
        if _equal(leaves[i], stale[i]):
            reason = "this entry is the same for both inputs"
        elif _holds_frozen(claim.op):
            reason = "a frozen body keeps it for its own parameters, whose gradient is not taken"
        mixed = jax.tree.unflatten(structure, [*leaves[:i], stale[i], *leaves[i + 1 :]])
        differs = _runs_wrong(claim, floats, dy, truth, mixed)
        mutants.append(_judged(repr(claim.op), f"cache entry {path} stale", differs, reason))
    return mutants


# ── Mistakes in the source of backward ──────────────────────────────────────────────────────────


def rewritten(claims: Sequence[Claim]) -> list[Mutant]:
    """Change the source of backward passes, one place at a time, and run all claims that use it."""
    random = np.random.default_rng(17)
    users: dict[tuple[Owner, str], tuple[Callable[..., Any], list[Point]]] = {}
    for claim in claims:
        dy = claim.random_dy(random)
        cache = claim.forward(claim.point)[1]  # it is kept, as no mutant changes the forward pass
        point = (claim, claim.floats, dy, jax.jit(claim.autodiff)(claim.floats, dy), cache)
        for owner, attribute, function in _only_backward(claim.op):
            users.setdefault((owner, attribute), (function, []))[1].append(point)
    mutants = []
    for (owner, attribute), (function, points) in users.items():
        for mistake, mutated in _rewrites(function):
            with _replaced(owner, attribute, mutated):
                caught = any(_runs_wrong(*point) for point in points)
            reason = EQUIVALENT.get(mistake, "")
            mutants.append(_judged(function.__module__, mistake, caught, reason))
    return mutants


def _only_backward(op: Layer | Loss) -> list[Found]:
    """Find ``backward`` and the functions of its module that it uses and ``forward`` does not."""
    forward = {
        name
        for start in ("init", "forward", "check", "check_input", "update_running")
        for _, name, _ in _reached(op, start)
    }
    return [
        found
        for found in _reached(op, "backward")
        if found[1] not in forward and "check" not in found[1]
    ]


def _reached(op: Layer | Loss, start: str) -> list[Found]:
    """Find the functions that a method uses.

    These are methods, functions of its module, and functions that this module imports from
    ``jaxnn.layers``.
    """
    found: dict[str, Found] = {}
    waiting = [(start, sys.modules[type(op).__module__])]
    while waiting:
        name, module = waiting.pop()
        owners = [cls for cls in type(op).__mro__ if _defines(cls, name)] + (
            [module] if hasattr(module, name) else []
        )
        function = (
            inspect.unwrap(vars(owners[0])[name])
            if owners and callable(vars(owners[0])[name])
            else None
        )
        if (
            name in found
            or not inspect.isfunction(function)
            or not function.__module__.startswith("jaxnn")
        ):
            continue
        imported = owners[0] is module and function.__module__ != module.__name__
        if not imported or function.__module__.startswith("jaxnn.layers."):
            found[name] = (owners[0], name, function)
            home = sys.modules[function.__module__]
            nodes = list(ast.walk(_parsed(function)))
            waiting += [(node.attr, home) for node in nodes if isinstance(node, ast.Attribute)]
            waiting += [(node.id, home) for node in nodes if isinstance(node, ast.Name)]
    return list(found.values())


def _defines(cls: type, name: str) -> bool:
    """Return whether a class defines a name itself, and does not only check an inherited method."""
    found = vars(cls).get(name)
    if not callable(found):
        return name in vars(cls)
    return getattr(inspect.unwrap(found), "__qualname__", "") == f"{cls.__qualname__}.{name}"


def _parsed(function: Callable[..., Any]) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _rewrites(function: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each mutant of a function, preceded by the change that was made."""
    sites = [node for node in ast.walk(_parsed(function).body[0]) if isinstance(node, ast.expr)]
    for i, site in enumerate(sites):
        for k, (what, _) in enumerate(_changes(site)):
            tree = _parsed(function)
            target = [node for node in ast.walk(tree.body[0]) if isinstance(node, ast.expr)][i]
            changed = _changes(target)[k][1]
            mistake = (
                f"{function.__qualname__}: {what}: {ast.unparse(target)} → {ast.unparse(changed)}"
            )
            tree = ast.fix_missing_locations(_Replace(target, changed).visit(tree))
            definition = tree.body[0]
            if isinstance(definition, ast.FunctionDef):
                _strip_annotations(definition)
            namespace: dict[str, Any] = {}
            exec(compile(tree, "<mutant>", "exec"), function.__globals__, namespace)
            yield mistake, namespace[function.__name__]


def _changes(node: ast.expr) -> list[tuple[str, ast.expr]]:
    """List the mistakes that can be made at one place of the source."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            flipped = ast.BinOp(left, ast.Sub(), right)
            return [("term dropped", left), ("term dropped", right), ("sign flipped", flipped)]
        case ast.BinOp(left, ast.Sub(), right):
            return [("term dropped", left), ("sign flipped", ast.BinOp(left, ast.Add(), right))]
        case ast.BinOp(left, ast.Mult() | ast.MatMult(), right):
            return [("factor dropped", left), ("factor dropped", right)]
        case ast.BinOp(left, ast.Div(), _):
            return [("factor dropped", left)]
        case ast.UnaryOp(ast.USub(), ast.Constant()):
            return []  # -1 is the last axis, not a change of sign
        case ast.UnaryOp(ast.USub(), operand):
            return [("sign flipped", operand)]
        case ast.Attribute(value, "T"):
            return [("transpose dropped", value)]
        case ast.Call(ast.Attribute(value, "sum" | "mean" as name), arguments, keywords):
            other = "mean" if name == "sum" else "sum"
            return [
                (
                    f"{other} for {name}",
                    ast.Call(ast.Attribute(value, other, ast.Load()), arguments, keywords),
                )
            ]
        case ast.Call(ast.Attribute(ast.Name("jnp"), "where"), [_, yes, no]):
            return [("condition dropped", yes), ("condition dropped", no)]
        case _:
            return []


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


def _strip_annotations(definition: ast.FunctionDef) -> None:
    definition.returns, definition.decorator_list = None, []
    for argument in definition.args.args + definition.args.kwonlyargs:
        argument.annotation = None


@contextlib.contextmanager
def _replaced(owner: Owner, attribute: str, function: Callable[..., Any]) -> Iterator[None]:
    original = vars(owner)[attribute]
    setattr(owner, attribute, function)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


# ── Verdicts ────────────────────────────────────────────────────────────────────────────────────


def _differs(leaves: Leaves, truth: Leaves) -> bool:
    error = max(relative_errors(leaves, truth), default=0.0)
    return not error <= AUTODIFF_TOLERANCE  # written so that NaN differs


def _runs_wrong(
    claim: Claim, floats: Floats, dy: PyTree, truth: Leaves, cache: Cache = None
) -> bool:
    try:
        return _differs(claim.by_hand(floats, dy, cache), truth)
    except Exception:  # a mutant may fail in any way; one that fails is caught
        return True


def _holds_frozen(op: Layer | Loss) -> bool:
    return isinstance(op, Frozen) or any(_holds_frozen(child.layer) for child in children(op))


def _equal(a: Array, b: Array) -> bool:
    if jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.array_equal(a, b)


def _judged(op: str, mistake: str, caught: bool, reason: str) -> Mutant:
    verdict = "caught" if caught else "equivalent" if reason else "missed"
    return Mutant(op, mistake, verdict, "" if caught else reason)
