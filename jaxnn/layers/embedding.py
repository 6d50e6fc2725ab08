"""Rows of a table, looked up by integers.   B batch, T time, V vocabulary, F features."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_array,
    check_params,
    check_positive_int,
    check_shape,
    inside,
    is_concrete,
)
from jaxnn.formulas import Formulas
from jaxnn.layers.initializers import Initializer, check_initializer, initialize
from jaxnn.numerics import flatten_batch
from jaxnn.padding import ANY, add_beside, apart, check_beside, in_form, keep, opened
from jaxnn.types import Cache, Layer, Params, update_running
from jaxnn.values import check_layer, layer


class EmbeddingParams(NamedTuple):
    """The table ``w`` (V, F), a row a token."""

    w: Float[Array, "V F"]


@layer
class Embedding:
    """Replace each token id by its row of a table: (B, …) integers to (B, …, F).

    Ids outside the vocabulary are refused where their values are known; under ``jit`` they are not,
    and are clipped to the nearest valid id, forward and backward alike.

    Args:
        vocabulary: V, the number of rows.
        features: F, their length.
        w_init: how the table is drawn, by a name from ``jax.nn.initializers``.
    """

    vocabulary: int
    features: int
    _: dataclasses.KW_ONLY
    w_init: Initializer = ("normal", 1.0)
    per_position: ClassVar[bool] = True

    formulas = Formulas("y[n, f] = w[x[n], f]", "dw[v, f] = sum(dy[n, f] for n in B if x[n] == v)")

    def __post_init__(self) -> None:
        check_positive_int("Embedding", "vocabulary", self.vocabulary)
        check_positive_int("Embedding", "features", self.features)
        check_initializer("Embedding", "w_init", self.w_init)

    def check_input(self, x: PyTree) -> None:
        """Check that ids are in the vocabulary."""
        check_tokens(self, x, self.vocabulary)

    def init(self, key: PRNGKeyArray, x: jax.ShapeDtypeStruct) -> EmbeddingParams:
        """Draw the table in JAX's default float dtype."""
        check_tokens(self, x, self.vocabulary)
        return EmbeddingParams(
            initialize(self.w_init, key, (self.vocabulary, self.features), jnp.result_type(float))
        )

    def forward(
        self, params: EmbeddingParams, x: Int[Array, "B *T"], key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B *T F"], Array]:
        """Return the row of each id."""
        check_params(self, params, EmbeddingParams)
        check_shape(self, "w", params.w, (self.vocabulary, self.features))
        x = valid_tokens(self, x, self.vocabulary)
        return params.w[x], x  # x: which rows the gradient belongs to

    def backward(
        self, params: EmbeddingParams, cache: Int[Array, "B *T"], dy: Float[Array, "B *T F"]
    ) -> tuple[EmbeddingParams, None]:
        """Return dw, in which each row sums dy over the places where its token stood.

        Ids have no derivative.
        """
        x = cache
        check_shape(self, "dy", dy, (*x.shape, self.features))
        return EmbeddingParams(_sum_by_token(params.w, x, dy)), None


class LanguageModelParams(NamedTuple):
    """The table ``w`` (V, F), used at both ends, and the parameters of the body."""

    w: Float[Array, "V F"]
    body: Params


class LanguageModelCache(NamedTuple):
    """What a language model keeps for its backward pass.

    Attributes:
        x: the tokens (B, T): which rows of w the gradient belongs to.
        h: what the body gave (B, T, F): dw of the output layer is a product with it.
        body: the cache of the body.
    """

    x: Int[Array, "B T"]
    h: Float[Array, "B T F"]
    body: Cache


@layer
class LanguageModel:
    """A language model whose output layer is its embedding, transposed (Press and Wolf, 2017).

    Tokens (B, T) become rows of w, go through ``body`` (B, T, F) to (B, T, F), and are scored
    against every row of w again, giving logits (B, T, V). The gradient of w has a part from each
    end.

    Args:
        vocabulary: V, the number of rows.
        features: F, their length.
        body: the layer between the two ends.
        w_init: how the table is drawn, by a name from ``jax.nn.initializers``.
    """

    vocabulary: int
    features: int
    body: Layer
    _: dataclasses.KW_ONLY
    w_init: Initializer = ("normal", 0.02)
    takes: ClassVar[str] = ANY

    formulas = Formulas(
        """
        x[0][n, t, e] = w[x[n, t], e]
        y[n, t, v] = sum(f[0][n, t, e] * w[v, e] for e in E)
        """,
        """
        dy[0][n, t, e] = sum(dy[n, t, v] * w[v, e] for v in V)
        dw[v, e] = sum(
            dy[n, t, v] * f[0][n, t, e] + (df[0][n, t, e] if x[n, t] == v else 0)
            for n in B for t in T
        )
        """,
    )

    def __post_init__(self) -> None:
        check_positive_int("LanguageModel", "vocabulary", self.vocabulary)
        check_positive_int("LanguageModel", "features", self.features)
        check_initializer("LanguageModel", "w_init", self.w_init)
        check_layer("LanguageModel", self.body, "body")

    def check_input(self, x: PyTree) -> None:
        """Check that ids are in the vocabulary, and lengths in the sequence."""
        check_beside(self, x)
        check_tokens(self, apart(x)[0], self.vocabulary)

    def init(self, key: PRNGKeyArray, x: PyTree) -> LanguageModelParams:
        """Draw the table in JAX's default float dtype, and the parameters of the body."""
        tokens, beside = apart(x)
        check_tokens(self, tokens, self.vocabulary)
        key_w, key_body = jax.random.split(key)
        shape = (self.vocabulary, self.features)
        w = initialize(self.w_init, key_w, shape, jnp.result_type(float))
        vectors = jax.ShapeDtypeStruct((*tokens.shape, self.features), w.dtype)
        with inside(".body"):
            body = self.body.init(key_body, beside.around(self.body, vectors))
        return LanguageModelParams(w, body)

    def forward(
        self, params: LanguageModelParams, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "B T V"], Cache]:
        """Return a logit for each token of the vocabulary at each place of (B, T) tokens."""
        check_params(self, params, LanguageModelParams)
        check_shape(self, "w", params.w, (self.vocabulary, self.features))
        tokens, beside = apart(x)
        tokens = valid_tokens(self, tokens, self.vocabulary)
        with inside(".body"):
            vectors = beside.around(self.body, params.w[tokens])
            h, cache = self.body.forward(params.body, vectors, key)
        check_shape(self, "the body's output", h, (*tokens.shape, self.features))
        return h @ params.w.T, keep(LanguageModelCache(tokens, h, cache), beside)

    def backward(
        self, params: LanguageModelParams, cache: Cache, dy: Float[Array, "B T V"]
    ) -> tuple[LanguageModelParams, PyTree]:
        """Return dw = dyᵀ h + the sum by token of the body's dx, and the body's dθ."""
        (x, h, body_cache), form = opened(cache)
        check_shape(self, "dy", dy, (*x.shape, self.vocabulary))
        dw_output = flatten_batch(dy).T @ flatten_batch(h)
        dbeside = dict[str, Any]()
        with inside(".body"):
            dbody, dx = self.body.backward(params.body, body_cache, dy @ params.w)
        dw_input = _sum_by_token(params.w, x, add_beside(dbeside, dx))
        return LanguageModelParams(dw_output + dw_input, dbody), in_form(form, None, dbeside)

    def update_running(self, params: LanguageModelParams, cache: Cache) -> LanguageModelParams:
        """Update the body's running statistics."""
        body = update_running(self.body, params.body, opened(cache)[0].body)
        return params._replace(body=body)


TiedEmbedding, TiedParams = LanguageModel, LanguageModelParams  # their earlier names


def check_tokens(who: object, x: PyTree, vocabulary: int) -> None:
    """Check that ids are integers in [0, vocabulary), the range where values are known."""
    check_array(who, "token ids", x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise InputError(f"{who}: expected token ids of an integer dtype, got {x.dtype}.")
    if is_concrete(x):
        ids = np.asarray(x)
        if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
            wrong = ids[(ids < 0) | (ids >= vocabulary)].flat[0]
            raise InputError(f"{who}: expected token ids in [0, {vocabulary}), got {wrong}.")


def valid_tokens(who: object, x: Array, vocabulary: int) -> Array:
    """Check ids where their values are known, and clip them where they are not."""
    check_tokens(who, x, vocabulary)
    return jnp.clip(x, 0, vocabulary - 1)


def _sum_by_token(w: Array, x: Array, dy: Array) -> Array:
    return jnp.zeros_like(w).at[x].add(dy)
