"""Composition of layers, the only place where the chain rule is written.

``Sequential.forward`` and ``Sequential.backward`` are the two loops of backpropagation as a lecture
presents them. Forward keeps the cache of every layer. Backward walks through the layers in reverse
and passes to each the derivative of the loss with respect to its output, which is the derivative
with respect to the next layer's input.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_array,
    check_choice,
    check_like,
    check_positive_int,
    check_shape,
    inside,
    is_kind,
    kind_of,
)
from jaxnn.conversion import as_example
from jaxnn.formulas import Formulas
from jaxnn.numerics import cast_floating
from jaxnn.padding import ANY, add_beside, apart, check_beside, in_form, keep, opened
from jaxnn.parameters import check_no_result
from jaxnn.rematerialization import NOTHING, POLICIES, run_again, run_and_keep
from jaxnn.types import (
    Cache,
    Kept,
    Layer,
    Params,
    Running,
    Static,
    check_input,
    join_running,
    split_running,
    update_running,
)
from jaxnn.values import check_layer, layer

# A loop over at most so many blocks is written out when it is compiled. Its caches then need not be
# stacked in larger arrays, which takes a step of a decoder of three blocks a tenth of its time.
WRITTEN_OUT = 4

DTYPES = ("float64", "float32", "float16", "bfloat16")


@layer
class Sequential:
    """Layers applied one after another: f = f_L ∘ … ∘ f_2 ∘ f_1.

    The parameters are a tuple with one entry per layer.

    Args:
        layers: f_1 … f_L, in the order in which they are applied.

    Raises:
        InputError: if there are none, or one of them is not a layer.
    """

    layers: tuple[Layer, ...]
    takes: ClassVar[str] = ANY

    def __post_init__(self) -> None:
        _check_layers(self, "layers", self.layers)

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.layers))})"

    def init(self, key: PRNGKeyArray, x: PyTree) -> tuple[Params, ...]:
        """Draw the parameters of each layer, for inputs like the output of the layer before it."""
        params, (y, beside) = [], apart(x)
        for i, child, child_key in numbered(self.layers, key):
            with inside(f"[{i}]"):
                given = beside.around(child, y)
                params.append(child.init(child_key, given))
                before, y = y, output_shape(child, params[-1], given)
            beside = beside.after(before, y)
        return tuple(params)

    def forward(
        self, params: tuple[Params, ...], x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        """Return y_L, the output of the last layer, and the caches of all layers."""
        check_params_tuple(self, params, len(self.layers))
        (y, beside), caches = apart(x), []
        came_with = beside
        for i, child, child_key in numbered(self.layers, key):
            before = y
            with inside(f"[{i}]"):
                y, cache = child.forward(params[i], beside.around(child, before), child_key)
            caches.append(cache)
            beside = beside.after(before, y)
        return y, keep(tuple(caches), came_with)

    def backward(
        self, params: tuple[Params, ...], cache: Cache, dy: PyTree
    ) -> tuple[tuple[Params, ...], PyTree]:
        """Return dJ/dθ of every layer, and dJ/dx.

        This is the chain rule, applied from the last layer to the first.
        """
        check_params_tuple(self, params, len(self.layers))
        caches, form = opened(cache)
        dparams, dbeside = list(params), dict[str, Any]()
        for i in reversed(range(len(self.layers))):
            with inside(f"[{i}]"):
                dparams[i], dx = self.layers[i].backward(params[i], caches[i], dy)
            dy = add_beside(dbeside, dx)  # dx of this layer is dy of the layer before it
        return tuple(dparams), in_form(form, dy, dbeside)

    def check_input(self, x: PyTree) -> None:
        """Let the first layer check its input, and check the lengths."""
        with inside("[0]"):
            check_given(self.layers[0], x)
        check_beside(self, x)

    def update_running(self, params: tuple[Params, ...], cache: Cache) -> tuple[Params, ...]:
        """Update the running statistics of each layer."""
        each = zip(self.layers, params, opened(cache)[0], strict=True)
        return tuple(update_running(*parts) for parts in each)


def chain(*layers: Layer) -> Sequential:
    """Compose layers in the order in which they are applied: ``chain(Dense(3), Sigmoid())``.

    A single list or tuple of layers is accepted, too, and stands for the layers in it.

    Raises:
        InputError: if there are none, or one of them is not a layer.
    """
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        return Sequential(tuple(layers[0]))
    return Sequential(layers)


@layer
class Residual:
    """A layer with a skip connection around it: y = x + f(x) (He et al., 2016).

    The parameters are those of ``body``.

    Args:
        body: the layer f, whose output has the shape of its input.
    """

    body: Layer
    takes: ClassVar[str] = ANY
    formulas = Formulas("y = x + f[0]", "dx = dy + df[0]")  # f[0] is the output of the body

    def __post_init__(self) -> None:
        _check_layers(self, "body", (self.body,))

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        """Draw the parameters of the body."""
        with inside(".body"):
            return self.body.init(key, given_to(self.body, x))

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Array, Cache]:
        """Return x + f(x)."""
        array, beside = apart(x)
        with inside(".body"):
            y, cache = self.body.forward(params, beside.around(self.body, array), key)
        check_like("Residual", "the body's output", y, array, "its input")
        return array + y, keep(cache, beside)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Params, PyTree]:
        """Return the body's dθ, and dx = dy + df.

        In forward x takes two ways, so in backward the derivatives of both ways add up.
        """
        body_cache, form = opened(cache)
        dbeside = dict[str, Any]()
        with inside(".body"):
            dparams, df = self.body.backward(params, body_cache, dy)
        return dparams, in_form(form, dy + add_beside(dbeside, df), dbeside)

    def check_input(self, x: PyTree) -> None:
        """Let the body check its input, and check the lengths."""
        with inside(".body"):
            check_given(self.body, x)
        check_beside(self, x)

    def update_running(self, params: Params, cache: Cache) -> Params:
        """Update the running statistics of the body."""
        return update_running(self.body, params, opened(cache)[0])


@layer
class Parallel:
    """Several layers applied to the same input, whose outputs are joined.

    The parameters are a tuple with one entry per branch.

    Args:
        branches: the layers.
        join: "concatenate" to concatenate the outputs along the last axis, or "add" to add them.
    """

    branches: tuple[Layer, ...]
    _: dataclasses.KW_ONLY
    join: str = "concatenate"
    takes: ClassVar[str] = ANY

    formulas = Formulas(
        """
        if join == "add":
            y = sum(f[b] for b in range(branches))
        else:
            for b in range(branches):
                y[n, start[b] + o] = f[b][n, o]
        """,
        """
        if join == "add":
            for b in range(branches):
                dy[b][*p] = dy[*p]
        else:
            for b in range(branches):
                dy[b][n, o:width[b]] = dy[n, o + start[b]]
        dx = sum(df[b] for b in range(branches))
        """,
    )

    def __post_init__(self) -> None:
        _check_layers(self, "branches", self.branches)
        check_choice("Parallel", "join", self.join, ("concatenate", "add"))

    def init(self, key: PRNGKeyArray, x: PyTree) -> tuple[Params, ...]:
        """Draw the parameters of each branch."""
        params = []
        for i, branch, branch_key in numbered(self.branches, key):
            with inside(f"[{i}]"):
                params.append(branch.init(branch_key, given_to(branch, x)))
        return tuple(params)

    def forward(
        self, params: tuple[Params, ...], x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Array, Cache]:
        """Return the outputs of all branches, concatenated or added."""
        check_params_tuple(self, params, len(self.branches))
        array, beside = apart(x)
        outputs: list[Array] = []
        caches = []
        for i, branch, branch_key in numbered(self.branches, key):
            with inside(f"[{i}]"):
                y, cache = branch.forward(params[i], beside.around(branch, array), branch_key)
            check_array("Parallel", f"the output of [{i}]", y)
            first = outputs[0] if outputs else y
            check_like(
                "Parallel", f"the output of [{i}]", y[..., :0], first[..., :0], "that of [0]"
            )
            outputs.append(y)
            caches.append(cache)
        widths = Static(tuple(y.shape[-1] for y in outputs))  # where to cut dy
        kept = keep((tuple(caches), widths), beside)
        if self.join == "concatenate":
            return jnp.concatenate(outputs, axis=-1), kept
        for y in outputs:
            check_like("Parallel", "each output", y, outputs[0], "that of [0]")
        return sum(outputs[1:], start=outputs[0]), kept

    def backward(
        self, params: tuple[Params, ...], cache: Cache, dy: Array
    ) -> tuple[tuple[Params, ...], PyTree]:
        """Return dθ of every branch, and dx.

        Each branch receives its part of dy if the outputs were concatenated, and all of dy if they
        were added. dx is the sum of the derivatives that the branches return.
        """
        check_params_tuple(self, params, len(self.branches))
        (caches, widths), form = opened(cache)
        if self.join == "concatenate":
            check_shape("Parallel", "dy", dy, ("...", sum(widths.value)))
            parts = jnp.split(dy, np.cumsum(widths.value)[:-1], axis=-1)
        else:
            parts = [dy] * len(self.branches)
        dparams, dx, dbeside = [], None, dict[str, Any]()
        for i, (branch, part) in enumerate(zip(self.branches, parts, strict=True)):
            with inside(f"[{i}]"):
                dbranch, df = branch.backward(params[i], caches[i], part)
            dparams.append(dbranch)
            df = add_beside(dbeside, df)
            dx = df if i == 0 else jax.tree.map(jnp.add, dx, df)
        return tuple(dparams), in_form(form, dx, dbeside)

    def check_input(self, x: PyTree) -> None:
        """Let each branch check the input, and check the lengths."""
        for i, branch in enumerate(self.branches):
            with inside(f"[{i}]"):
                check_given(branch, x)
        check_beside(self, x)

    def update_running(self, params: tuple[Params, ...], cache: Cache) -> tuple[Params, ...]:
        """Update the running statistics of each branch."""
        caches, _ = opened(cache)[0]
        each = zip(self.branches, params, caches, strict=True)
        return tuple(update_running(*parts) for parts in each)

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return the number of branches, and where the outputs of each begin and their number."""
        widths = opened(cache)[0][1].value
        starts = tuple(sum(widths[:i]) for i in range(len(widths)))
        values: dict[str, Any] = {"branches": len(self.branches), "start": starts, "width": widths}
        ids = jnp.issubdtype(jax.tree.leaves(x)[0].dtype, jnp.integer)
        return values | ({"dx": None} if ids else {})


@layer
class Repeat:
    """One block applied n times, each time with parameters of its own.

    The repetition is a single loop of the compiled program, so that the compile time does not grow
    with the depth. The parameters are those of the block, stacked along a new first axis.

    Args:
        block: the layer to repeat, whose output has the shape and dtype of its input.
        times: n, the number of repetitions.
    """

    block: Layer
    times: int
    takes: ClassVar[str] = ANY

    def __post_init__(self) -> None:
        _check_layers(self, "block", (self.block,))
        check_positive_int("Repeat", "times", self.times)

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        """Draw the parameters of all blocks at once."""
        given = given_to(self.block, x)
        with inside(".block"):
            keys = jax.random.split(key, self.times)
            params = jax.vmap(lambda key: self.block.init(key, given))(keys)
        after = output_shape(self.block, jax.tree.map(lambda leaf: leaf[0], params), given)
        check_like("Repeat", "the block's output", after, apart(x)[0], "its input")
        return params

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Array, Cache]:
        """Return the output of the last block, and the stacked caches of all blocks."""
        self._check(params)
        keys = None if key is None else jax.random.split(key, self.times)
        array, beside = apart(x)

        def step(y: Array, at: tuple[Params, Any]) -> tuple[Array, Any]:
            with inside(".block"):
                after, cache = self.block.forward(at[0], beside.around(self.block, y), at[1])
            check_like("Repeat", "the block's output", after, y, "its input")
            return after, cache

        y, caches = lax.scan(step, array, (params, keys), length=self.times, unroll=self._unroll)
        return y, keep(caches, beside)

    def backward(self, params: Params, cache: Cache, dy: Array) -> tuple[Params, PyTree]:
        """Return the stacked dθ of all blocks, and dx, by the same loop in reverse order."""
        self._check(params)
        caches, form = opened(cache)

        def step(dy: Array, at: tuple[Params, Any]) -> tuple[Array, tuple[Params, dict[str, Any]]]:
            dbeside = dict[str, Any]()
            with inside(".block"):
                dparams, df = self.block.backward(*at, dy)
            return add_beside(dbeside, df), (dparams, dbeside)

        back = lax.scan(
            step, dy, (params, caches), reverse=True, length=self.times, unroll=self._unroll
        )
        dx, (dparams, dbeside) = back
        return dparams, in_form(form, dx, jax.tree.map(lambda each: each.sum(axis=0), dbeside))

    def check_input(self, x: PyTree) -> None:
        """Let the block check its input, and check the lengths."""
        with inside(".block"):
            check_given(self.block, x)
        check_beside(self, x)

    def update_running(self, params: Params, cache: Cache) -> Params:
        """Update the running statistics of each block."""
        if not jax.tree.leaves(params):
            return params
        return jax.vmap(lambda p, c: update_running(self.block, p, c))(params, opened(cache)[0])

    @property
    def _unroll(self) -> int:
        """The number of blocks in the body of the loop."""
        return self.times if self.times <= WRITTEN_OUT else 1

    def _check(self, params: Params) -> None:
        for leaf in jax.tree.leaves(params):
            if jnp.ndim(leaf) == 0 or leaf.shape[0] != self.times:
                raise InputError(
                    f"Repeat: expected parameters stacked {self.times} times, "
                    f"got shape {jnp.shape(leaf)}."
                )


@layer
class Remat:
    """A layer that keeps only its input, and repeats its forward pass during the backward pass.

    This is rematerialisation, or gradient checkpointing (Chen et al., 2016): the cache shrinks to
    x, at the cost of one more forward pass. With a ``policy`` some results are kept, too, and only
    the rest is repeated (selective recomputation; Korthikanti et al., 2022). The parameters are
    those of ``body``.

    Args:
        body: the layer whose cache is not kept.
        policy: what is kept beside the input, by its name in :mod:`jax.checkpoint_policies`:
            nothing; with "dots_saveable" the results of all matrix products; with
            "dots_with_no_batch_dims_saveable" those of products with parameters, so that a
            transformer's scores and weights of attention, which are the largest, are repeated.
            Products inside a loop, such as a recurrent layer's, are repeated in any case.
    """

    body: Layer
    policy: str = NOTHING
    takes: ClassVar[str] = ANY

    def __post_init__(self) -> None:
        _check_layers(self, "body", (self.body,))
        check_choice("Remat", "policy", self.policy, POLICIES)

    def init(self, key: PRNGKeyArray, x: PyTree) -> Params:
        """Draw the parameters of the body."""
        with inside(".body"):
            return self.body.init(key, given_to(self.body, x))

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Any]:
        """Return the body's output, and as the cache the input, the key and what is kept."""
        with inside(".body"):
            (y, _), kept = run_and_keep(
                self.policy, self.body.forward, params, given_to(self.body, x), key
            )
        # enough to repeat the pass: the same key drops the same entries
        return y, (x, _again(key), kept)

    def backward(self, params: Params, cache: Cache, dy: PyTree) -> tuple[Params, PyTree]:
        """Run the body forward once more, and then backward."""
        x, key, kept = cache
        # without the barrier the compiler would recognise the first run and keep its cache
        x, dy = lax.optimization_barrier((x, dy))
        dbeside = dict[str, Any]()
        with inside(".body"):
            body_cache = run_again(
                self.policy, self.body.forward, kept, params, given_to(self.body, x), _again(key)
            )
            dparams, dx = self.body.backward(params, body_cache, dy)
        return dparams, in_form(apart(x)[1].form, add_beside(dbeside, dx), dbeside)

    def check_input(self, x: PyTree) -> None:
        """Let the body check its input, and check the lengths."""
        with inside(".body"):
            check_given(self.body, x)
        check_beside(self, x)

    def update_running(self, params: Params, cache: Cache) -> Params:
        """Update the body's running statistics, which requires another forward pass."""
        x, key, _ = cache
        _, body_cache = self.body.forward(params, given_to(self.body, x), _again(key))
        return update_running(self.body, params, body_cache)


@layer
class Frozen:
    """A layer that is frozen: it runs in inference mode, and nothing in it is trained.

    The parameters are those of ``body``, wrapped in :class:`~jaxnn.Running`. Their gradient is 0,
    no optimizer changes them (so there is no weight decay either), and running statistics stay as
    they are. The derivative passes through the layer to the layers before it. Parameters from
    elsewhere, such as those of a pretrained network, have to be wrapped by the caller:
    ``Running(pretrained)``.

    Args:
        body: the layer to freeze.
    """

    body: Layer
    takes: ClassVar[str] = ANY

    def __post_init__(self) -> None:
        _check_layers(self, "body", (self.body,))

    def init(self, key: PRNGKeyArray, x: PyTree) -> Running[Params]:
        """Draw the parameters of the body."""
        with inside(".body"):
            return Running(self.body.init(key, given_to(self.body, x)))

    def forward(
        self, params: Running[Params], x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        """Return the body's output in inference mode, whatever key is given."""
        self._check(params)
        array, beside = apart(x)
        still = lax.stop_gradient(params.value)
        with inside(".body"):
            y, cache = self.body.forward(still, beside.around(self.body, array), None)
        return y, keep(cache, beside)

    def backward(
        self, params: Running[Params], cache: Cache, dy: PyTree
    ) -> tuple[Running[Params], PyTree]:
        """Return zeros for the parameters, and the body's dx."""
        self._check(params)
        body_cache, form = opened(cache)
        dbeside = dict[str, Any]()
        with inside(".body"):
            _, dx = self.body.backward(params.value, body_cache, dy)
        dx = in_form(form, add_beside(dbeside, dx), dbeside)
        return jax.tree.map(jnp.zeros_like, params), dx

    def check_input(self, x: PyTree) -> None:
        """Let the body check its input, and check the lengths."""
        with inside(".body"):
            check_given(self.body, x)
        check_beside(self, x)

    def _check(self, params: Params) -> None:
        if not isinstance(params, Running):
            raise InputError(
                "Frozen: expected parameters wrapped as Running(params), "
                f"got {kind_of(params, 'params')}."
            )


@layer
class Cast:
    """A layer that computes in a precision of its own, whatever that of the layers around it is.

    In a network that is trained with ``precision="bfloat16"``, for example, ``Cast(Dense(10),
    "float32")`` is a head in single precision. The input and the parameters are cast to it, and the
    output and the derivatives are cast back. The parameters are those of ``body``, wrapped in
    :class:`~jaxnn.types.Kept`, so that training does not round them before they come here.

    Args:
        body: the layer.
        dtype: the precision: "float64", "float32", "float16" or "bfloat16".
    """

    body: Layer
    dtype: str
    takes: ClassVar[str] = ANY

    def __post_init__(self) -> None:
        _check_layers(self, "body", (self.body,))
        check_choice("Cast", "dtype", self.dtype, DTYPES)

    def init(self, key: PRNGKeyArray, x: PyTree) -> Kept[Params]:
        """Draw the parameters of the body, in the dtype of ``x``."""
        with inside(".body"):
            return Kept(self.body.init(key, given_to(self.body, x)))

    def forward(
        self, params: Kept[Params], x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Cache]:
        """Return the body's output, in the dtype of x if that is a floating one."""
        inner = self._cast(self._opened(params))
        array, beside = apart(x)
        with inside(".body"):
            y, cache = self.body.forward(inner, beside.around(self.body, self._cast(array)), key)
        outer = array.dtype.name if is_kind(array, jnp.floating) else self.dtype
        return cast_floating(y, outer), keep((cache, Static(outer)), beside)

    def backward(
        self, params: Kept[Params], cache: Cache, dy: PyTree
    ) -> tuple[Kept[Params], PyTree]:
        """Return the derivatives of the body, in the dtypes of the parameters and of x."""
        whole = self._opened(params)
        (body_cache, outer), form = opened(cache)
        dbeside = dict[str, Any]()
        with inside(".body"):
            dparams, dx = self.body.backward(self._cast(whole), body_cache, self._cast(dy))
        dx = cast_floating(add_beside(dbeside, dx), outer.value)
        return Kept(_like(dparams, whole)), in_form(form, dx, dbeside)

    def check_input(self, x: PyTree) -> None:
        """Let the body check its input, and check the lengths."""
        with inside(".body"):
            check_given(self.body, x)
        check_beside(self, x)

    def update_running(self, params: Kept[Params], cache: Cache) -> Kept[Params]:
        """Update the body's running statistics."""
        (body_cache, _), _ = opened(cache)
        updated = update_running(self.body, self._cast(params.value), body_cache)
        trained, running = split_running(params.value)
        return Kept(join_running(trained, _like(split_running(updated)[1], running)))

    def _cast(self, tree: PyTree) -> PyTree:
        if jax.dtypes.canonicalize_dtype(self.dtype) != self.dtype:
            raise InputError(
                "Cast: expected a dtype that JAX is set to have, got float64: set "
                'jax.config.update("jax_enable_x64", True) at the beginning.'
            )
        return cast_floating(tree, self.dtype)

    def _opened(self, params: Params) -> Params:
        if not isinstance(params, Kept):
            raise InputError(
                "Cast: expected parameters wrapped as Kept(params), "
                f"got {kind_of(params, 'params')}."
            )
        return params.value


def _like(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), tree, like)


def output_shape(net: Layer, params: Params, x: PyTree) -> PyTree:
    """Return the shape and dtype of the output for inputs like ``x``, without computing it.

    Raises:
        InputError: if ``net`` is not a layer, or x does not fit it.
    """
    check_layer("output_shape", net)
    check_no_result("output_shape", params)
    x = as_example("output_shape", "x", x)
    return jax.eval_shape(lambda params, x: net.forward(params, x)[0], params, x)


def numbered(
    layers: tuple[Layer, ...], key: PRNGKeyArray | None
) -> Iterator[tuple[int, Layer, Any]]:
    """Iterate over (number, layer, key), with a key for each layer, or None at inference."""
    return zip(itertools.count(), layers, split_key(key, len(layers)), strict=False)


def given_to(layer: Layer, x: PyTree) -> PyTree:
    """Return the part of an input with lengths or masks that a layer takes."""
    array, beside = apart(x)
    return beside.around(layer, array)


def check_given(layer: Layer, x: PyTree) -> None:
    """Let a layer check the values of the part of an input that it takes."""
    check_input(layer, given_to(layer, x))


def split_key(key: PRNGKeyArray | None, n: int) -> Any:
    """Return n keys, one for each of n layers, or n times None at inference."""
    return [None] * n if key is None else jax.random.split(key, n)


def _again(key: PRNGKeyArray | None) -> PRNGKeyArray | None:
    """Return a key for drawing the same numbers once more, which JAX otherwise takes for a slip."""
    return None if key is None else jax.random.clone(key)


def check_params_tuple(who: object, params: Params, n: int) -> None:
    """Check that the parameters are a tuple with one entry per layer."""
    if type(params) is not tuple or len(params) != n:
        got = f"one of {len(params)}" if type(params) is tuple else kind_of(params, "params")
        raise InputError(f"{type(who).__name__}: expected parameters as a tuple of {n}, got {got}.")


def _check_layers(who: object, name: str, layers: Any) -> None:
    if not isinstance(layers, tuple) or not layers:
        raise InputError(
            f"{type(who).__name__}: expected a tuple of at least one layer, got {layers!r}."
        )
    for child in layers:
        check_layer(type(who).__name__, child, f"each of {name}" if len(layers) > 1 else name)
