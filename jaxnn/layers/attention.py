"""Attention.

B batch, T queries, S keys, C channels, N heads, D = C/N channels of a head.

    q, k, v = x wq, c wk, c wv        s = q kᵀ / √D        p = softmax(s)
    o = p v                           y = o wo

and backwards, with δ = Σ_d do · o, which equals Σ_s p · dp and so needs no row of p::

    dv = pᵀ do        dp = do vᵀ        ds = p (dp - δ)        dq = ds k / √D        dk = dsᵀ q / √D
"""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_choice,
    check_floating,
    check_lengths,
    check_params,
    check_positive_int,
    check_shape,
)
from jaxnn.formulas import Formulas, SameAs
from jaxnn.layers.dot_product import (
    Kernel,
    LogSum,
    attend,
    attend_backward,
    attend_fused,
    attend_fused_backward,
    attend_in_blocks,
    attend_in_blocks_backward,
    fused_kernel,
)
from jaxnn.layers.initializers import Initializer, check_initializer, initialize
from jaxnn.layers.positions import angles, rotate
from jaxnn.numerics import broadcast_last, flatten_batch
from jaxnn.types import AnyArray, Cache, Static
from jaxnn.values import layer


class AttentionParams(NamedTuple):
    """Projections ``wq``, ``wk``, ``wv``, ``wo``, each (C, C), and biases (C,) or None."""

    wq: Float[Array, "C C"]
    wk: Float[Array, "S C"]
    wv: Float[Array, "S C"]
    wo: Float[Array, "C C"]
    bq: Float[Array, "C"] | None
    bk: Float[Array, "C"] | None
    bv: Float[Array, "C"] | None
    bo: Float[Array, "C"] | None


class AttentionInput(NamedTuple):
    """What attention may take in the place of a plain array.

    Attributes:
        x: where the queries come from, (B, T, C).
        context: where keys and values come from, (B, S, C'), or None for x itself.
        mask: which query may look at which key, boolean (T, S) or (B, T, S) or (B, N, T, S), or
            None.
        lengths: how many keys of each sample are real, integers (B,), or None for all S.
    """

    x: Float[Array, "B T C"]
    context: Float[Array, "B S K"] | None = None
    mask: Bool[Array, "..."] | None = None
    lengths: Int[Array, "B"] | None = None


class AttentionCache(NamedTuple):
    """What attention keeps for the backward pass.

    Attributes:
        x: where the queries came from (B, T, C): dwq is a product with it.
        context: where keys and values came from (B, S, C'), or None for x.
        q: the queries (B, N, T, D): dk is a product with them.
        k: the keys (B, N, S, D): dq is a product with them.
        v: the values (B, N, S, D): dp is a product with them.
        o: what each head gathered (B, N, T, D): dwo is a product with it, and δ a sum over it.
        softmax: p (B, N, T, S) itself, or in blocks the logarithm of each row's sum, which makes p
            again; None for the fused kernel.
        allowed: who saw whom, to make p again; None where p is kept, or where all is allowed.
        in_parts: whether the input was an AttentionInput, as its gradient then is.
    """

    x: Array
    context: Array | None
    q: Array
    k: Array
    v: Array
    o: Array
    softmax: Array | LogSum | None
    allowed: Array | None
    in_parts: Static[bool]


@layer
class MultiHeadAttention:
    """Multi-head scaled dot-product attention (Vaswani et al., 2017), self or cross.

    A query that may look at no key at all gets the output 0 from its heads, not NaN.

    Args:
        heads: N; they share the C channels of x among them.
        causal: whether query t may look only at keys s ≤ t.
        rotary: whether queries and keys are turned by their position (RoFormer, Su et al., 2021).
        block: None to keep the (T, S) matrix p for the backward pass; or how many queries to take
            at a time, keeping only the logarithm of each row's sum, from which p is made again, a
            block at a time (FlashAttention, Dao et al., 2022): memory linear in T, for one more
            product; or "fused" for the kernel of ``jax.nn.dot_product_attention`` and its
            derivative where there is one: on NVIDIA GPUs, in bfloat16 and float16, for D up to 128
            and a multiple of 8. Elsewhere that is the same as None.
        bias: whether the projections have biases.
        w_init: how the projections are drawn, by a name from ``jax.nn.initializers``.
    """

    heads: int
    _: dataclasses.KW_ONLY
    causal: bool = False
    rotary: bool = False
    block: int | str | None = None
    bias: bool = True
    w_init: Initializer = "glorot_uniform"
    takes: ClassVar[type] = AttentionInput

    # n sample, h head, t query, s key, d channel of a head, c and j channels of all heads
    formula_notes: ClassVar[dict[str, str]] = {
        "q": "what each position looks for; its indices are head, position and channel",
        "k": "what each position is found by, with the same indices",
        "v": "what each position hands on, with the same indices",
        "score": "how well each key answers each query; its indices are head, query and key",
        "p": "the weight of each key for each query, 0 where a mask excludes the key",
    }
    formulas = Formulas(
        """
        if rotary:
            q0[n, h:heads, t, d:D] = sum(x[n, t, c] * wq[c, h * D + d] for c in C) + bq[h * D + d]
            k0[n, h:heads, s, d:D] = (
                sum(context[n, s, c] * wk[c, h * D + d] for c in C) + bk[h * D + d]
            )
            q[n, h, t, d] = (
                q0[n, h, t, d] * cos[t, d] - q0[n, h, t, d + D // 2] * sin[t, d]
                if d < D // 2
                else q0[n, h, t, d - D // 2] * sin[t, d - D // 2]
                + q0[n, h, t, d] * cos[t, d - D // 2]
            )
            k[n, h, s, d] = (
                k0[n, h, s, d] * cos[s, d] - k0[n, h, s, d + D // 2] * sin[s, d]
                if d < D // 2
                else k0[n, h, s, d - D // 2] * sin[s, d - D // 2]
                + k0[n, h, s, d] * cos[s, d - D // 2]
            )
        else:
            q[n, h:heads, t, d:D] = sum(x[n, t, c] * wq[c, h * D + d] for c in C) + bq[h * D + d]
            k[n, h:heads, s, d:D] = (
                sum(context[n, s, c] * wk[c, h * D + d] for c in C) + bk[h * D + d]
            )
        v[n, h:heads, s, d:D] = sum(context[n, s, c] * wv[c, h * D + d] for c in C) + bv[h * D + d]
        score[n, h, t, s] = sum(q[n, h, t, d] * k[n, h, s, d] for d in range(D)) / sqrt(D)
        p[n, h, t, s] = (
            exp(score[n, h, t, s]) / sum(exp(score[n, h, t, j]) for j in S if allowed[n, h, t, j])
            if allowed[n, h, t, s]
            else 0
        )
        o[n, h, t, d] = sum(p[n, h, t, s] * v[n, h, s, d] for s in S)
        y[n, t, c] = sum(o[n, j // D, t, j % D] * wo[j, c] for j in J) + bo[c]
        """,
        """
        do[n, h, t, d] = sum(dy[n, t, c] * wo[h * D + d, c] for c in C)
        dv[n, h, s, d] = sum(p[n, h, t, s] * do[n, h, t, d] for t in T)
        dp[n, h, t, s] = sum(do[n, h, t, d] * v[n, h, s, d] for d in range(D))
        dscore[n, h, t, s] = p[n, h, t, s] * (
            dp[n, h, t, s] - sum(p[n, h, t, j] * dp[n, h, t, j] for j in S)
        )
        dq[n, h, t, d] = sum(dscore[n, h, t, s] * k[n, h, s, d] for s in S) / sqrt(D)
        dk[n, h, s, d] = sum(dscore[n, h, t, s] * q[n, h, t, d] for t in T) / sqrt(D)
        dwo[j, c] = sum(o[n, j // D, t, j % D] * dy[n, t, c] for n in B for t in T)
        dbo[c] = sum(dy[n, t, c] for n in B for t in T)
        if rotary:
            dq0[n, h, t, d] = (
                dq[n, h, t, d] * cos[t, d] + dq[n, h, t, d + D // 2] * sin[t, d]
                if d < D // 2
                else dq[n, h, t, d] * cos[t, d - D // 2]
                - dq[n, h, t, d - D // 2] * sin[t, d - D // 2]
            )
            dk0[n, h, s, d] = (
                dk[n, h, s, d] * cos[s, d] + dk[n, h, s, d + D // 2] * sin[s, d]
                if d < D // 2
                else dk[n, h, s, d] * cos[s, d - D // 2]
                - dk[n, h, s, d - D // 2] * sin[s, d - D // 2]
            )
        dwq[c, j] = sum(x[n, t, c] * dq0[n, j // D, t, j % D] for n in B for t in T)
        dwk[c, j] = sum(context[n, s, c] * dk0[n, j // D, s, j % D] for n in B for s in S)
        dwv[c, j] = sum(context[n, s, c] * dv[n, j // D, s, j % D] for n in B for s in S)
        dbq[j] = sum(dq0[n, j // D, t, j % D] for n in B for t in T)
        dbk[j] = sum(dk0[n, j // D, s, j % D] for n in B for s in S)
        dbv[j] = sum(dv[n, j // D, s, j % D] for n in B for s in S)
        if crossed:
            dx[n, t, c] = sum(dq0[n, j // D, t, j % D] * wq[c, j] for j in J)
            dcontext[n, s, c] = sum(
                dk0[n, j // D, s, j % D] * wk[c, j] + dv[n, j // D, s, j % D] * wv[c, j] for j in J
            )
        else:
            dx[n, t, c] = sum(
                dq0[n, j // D, t, j % D] * wq[c, j]
                + dk0[n, j // D, t, j % D] * wk[c, j]
                + dv[n, j // D, t, j % D] * wv[c, j]
                for j in J
            )
        """,
    )

    def __post_init__(self) -> None:
        check_positive_int("MultiHeadAttention", "heads", self.heads)
        if isinstance(self.block, str):
            check_choice("MultiHeadAttention", "block", self.block, ("fused",))
        elif self.block is not None:
            check_positive_int("MultiHeadAttention", "block", self.block)
        check_initializer("MultiHeadAttention", "w_init", self.w_init)

    def check_input(self, x: PyTree) -> None:
        """Check that no length exceeds the keys."""
        if isinstance(x, AttentionInput) and x.lengths is not None:
            check_lengths(self, x.lengths, *(x.x if x.context is None else x.context).shape[:2])

    def init(self, key: PRNGKeyArray, x: PyTree) -> AttentionParams:
        """Draw the projections for inputs (B, T, C), in the dtype of ``x``."""
        given = x if isinstance(x, AttentionInput) else AttentionInput(x)
        check_floating(self, "x", given.x)
        check_shape(self, "x", given.x, ("B", "T", "C"))
        channels = given.x.shape[-1]
        context = channels if given.context is None else given.context.shape[-1]
        if channels % self.heads:
            raise InputError(
                f"{self}: expected channels divisible by heads {self.heads}, got {channels}."
            )
        if self.rotary and channels // self.heads % 2:
            raise InputError(
                f"{self}: expected an even number of channels a head, got {channels // self.heads}."
            )
        inputs = (channels, context, context, channels)
        draw = functools.partial(initialize, self.w_init, dtype=given.x.dtype)
        keys = jax.random.split(key, 4)
        weights = [draw(k, shape=(n, channels)) for k, n in zip(keys, inputs, strict=True)]
        biases = [jnp.zeros(channels, given.x.dtype) if self.bias else None for _ in inputs]
        return AttentionParams(*weights, *biases)

    def forward(
        self, params: AttentionParams, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Array, Any]:
        """Let each query gather values from the keys that it may look at.

        Args:
            params: the projections.
            x: inputs (B, T, C) that attend to themselves, or :class:`AttentionInput`.
            key: not used.

        Returns:
            y (B, T, C), and the cache.
        """
        given = x if isinstance(x, AttentionInput) else AttentionInput(x)
        self._check(params, given)
        context = given.x if given.context is None else given.context
        q = self._heads(given.x, params.wq, params.bq)  # (B, N, T, D)
        k = self._heads(context, params.wk, params.bk)
        v = self._heads(context, params.wv, params.bv)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        kernel = self._kernel(q)
        causal = self.causal and kernel is None  # the kernel does not need a mask for it
        allowed = self._allowed(given, q.shape[2], k.shape[2], causal=causal)
        softmax: Array | LogSum | None = None
        if kernel is not None:
            o = attend_fused(q, k, v, allowed, self.causal, kernel)
        elif isinstance(self.block, int):
            o, softmax = attend_in_blocks(q, k, v, allowed, self.block)
        else:
            o, softmax = attend(q, k, v, allowed)
            allowed = None
        in_parts = Static(isinstance(x, AttentionInput))
        cache = AttentionCache(given.x, given.context, q, k, v, o, softmax, allowed, in_parts)
        return _affine(_merge(o), params.wo, params.bo), cache

    def backward(
        self, params: AttentionParams, cache: AttentionCache, dy: Float[Array, "B T C"]
    ) -> tuple[AttentionParams, Any]:
        """Return dparams, summed over batch and time, and dx (and dcontext)."""
        x, context, q, k, v, o, softmax, allowed, in_parts = cache
        check_shape(self, "dy", dy, x.shape)
        do = self._split(dy @ params.wo.T)
        if softmax is None:
            kernel = self._kernel(q) or "xla"
            dq, dk, dv = attend_fused_backward(q, k, v, allowed, self.causal, kernel, do)
        elif isinstance(softmax, LogSum):
            block = self.block if isinstance(self.block, int) else q.shape[2]
            dq, dk, dv = attend_in_blocks_backward(q, k, v, o, softmax, allowed, do, block)
        else:
            dq, dk, dv = attend_backward(q, k, v, o, softmax, do)
        if self.rotary:
            # the transpose of a rotation turns back
            dq, dk = rotate(dq, back=True), rotate(dk, back=True)
        dq, dk, dv = _merge(dq), _merge(dk), _merge(dv)
        source = x if context is None else context
        dparams = AttentionParams(
            wq=flatten_batch(x).T @ flatten_batch(dq),
            wk=flatten_batch(source).T @ flatten_batch(dk),
            wv=flatten_batch(source).T @ flatten_batch(dv),
            wo=flatten_batch(_merge(o)).T @ flatten_batch(dy),
            bq=self._bias_backward(dq),
            bk=self._bias_backward(dk),
            bv=self._bias_backward(dv),
            bo=self._bias_backward(dy),
        )
        dx, dsource = dq @ params.wq.T, dk @ params.wk.T + dv @ params.wv.T
        if context is None:  # x was the source of all three
            return dparams, AttentionInput(dx + dsource) if in_parts.value else dx + dsource
        return dparams, AttentionInput(dx, dsource)

    def _bias_backward(self, d: Float[Array, "B T C"]) -> Float[Array, "C"] | None:
        """Return Σ d over batch and time, or None for a layer without biases."""
        return flatten_batch(d).sum(axis=0) if self.bias else None

    def _check(self, params: AttentionParams, given: AttentionInput) -> None:
        check_params(self, params, AttentionParams)
        channels = params.wq.shape[1]
        check_shape(self, "x", given.x, ("B", "T", params.wq.shape[0]))
        check_floating(self, "x", given.x, like=params.wq)
        if channels % self.heads:
            raise InputError(
                f"{self}: expected channels divisible by heads {self.heads}, got {channels}."
            )
        if (params.bq is None) == self.bias:
            raise InputError(
                f"{self}: expected parameters {'with' if self.bias else 'without'} biases."
            )
        for name in ("bq", "bk", "bv", "bo") if self.bias else ():
            check_shape(self, name, getattr(params, name), (channels,))
        batch, queries = given.x.shape[:2]
        keys = queries
        if given.context is None:
            check_shape(self, "wk", params.wk, params.wq.shape)
        else:
            check_shape(self, "context", given.context, (batch, "S", params.wk.shape[0]))
            check_floating(self, "context", given.context, like=params.wq)
            keys = given.context.shape[1]
        if not queries or not keys:
            raise InputError(
                f"{self}: expected at least one query and one key, got {queries} and {keys}."
            )
        if given.mask is not None:
            fits = [(queries, keys), (batch, queries, keys), (batch, self.heads, queries, keys)]
            if jnp.shape(given.mask) not in fits:
                raise InputError(
                    f"{self}: expected mask of a shape among {fits}, got {jnp.shape(given.mask)}."
                )
            if not jnp.issubdtype(jnp.result_type(given.mask), jnp.bool_):
                raise InputError(
                    f"{self}: expected a boolean mask, got {jnp.result_type(given.mask)}."
                )
        if given.lengths is not None:
            check_lengths(self, given.lengths, batch, keys)

    def _kernel(self, q: Array) -> Kernel | None:
        return fused_kernel(q) if self.block == "fused" else None

    def _heads(self, x: Array, w: Array, b: Array | None) -> Float[Array, "B N T D"]:
        return self._split(_affine(x, w, b))

    def _split(self, x: Float[Array, "B T C"]) -> Float[Array, "B N T D"]:
        return jnp.swapaxes(x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads), 1, 2)

    def _allowed(self, given: AttentionInput, queries: int, keys: int, *, causal: bool) -> Any:
        """Join the masks into one (b, n, T, S), with size 1 where all agree; None without any."""
        masks = []
        if causal:
            t, s = jnp.arange(queries), jnp.arange(keys)
            masks.append((jnp.expand_dims(s, 0) <= jnp.expand_dims(t, 1))[None, None])
        if given.mask is not None:
            masks.append(_by_sample_and_head(given.mask))
        if given.lengths is not None:
            present = jnp.expand_dims(jnp.arange(keys), 0) < jnp.expand_dims(given.lengths, 1)
            whole = (len(present), 1, queries, keys)
            masks.append(jnp.broadcast_to(present[:, None, None], whole))
        return functools.reduce(jnp.logical_and, masks) if masks else None

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return D, the channels of a head, the scores that are allowed, and the angles."""
        given = x if isinstance(x, AttentionInput) else AttentionInput(x)
        context = given.x if given.context is None else given.context
        queries, keys = given.x.shape[1], context.shape[1]
        size = given.x.shape[-1] // self.heads
        values: dict[str, Any] = {"D": size, "crossed": given.context is not None, "allowed": None}
        if given.context is None:
            values["context"] = SameAs("x")
        allowed = self._allowed(given, queries, keys, causal=self.causal)
        if allowed is not None:
            whole = (given.x.shape[0], self.heads, queries, keys)
            values["allowed"] = np.broadcast_to(allowed, whole)
        if self.rotary:
            theta = angles(max(queries, keys), size)
            values |= {"cos": np.cos(theta), "sin": np.sin(theta)}
        else:
            values |= {"dq0": SameAs("dq"), "dk0": SameAs("dk")}
        return values


def _by_sample_and_head(mask: Bool[AnyArray, "..."]) -> Bool[Array, "b n T S"]:
    """Add the axes that a mask lacks: (T, S) serves all samples, (B, T, S) all heads."""
    mask = jnp.asarray(mask)
    if mask.ndim == 2:
        return mask[None, None]
    return mask[:, None] if mask.ndim == 3 else mask


def _merge(x: Float[Array, "B N T D"]) -> Float[Array, "B T C"]:
    x = jnp.swapaxes(x, 1, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


def _affine(x: Array, w: Array, b: Array | None) -> Array:
    return x @ w if b is None else x @ w + broadcast_last(b, x.ndim)
