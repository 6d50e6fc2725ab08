"""Scaled dot-product attention: whole, in blocks, and by JAX's fused kernel.

B batch, N heads, T queries, S keys, D channels of a head; the arrays are (B, N, T or S, D).
"""

import functools
import math
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxnn.numerics import upcast

Kernel: TypeAlias = Literal["cudnn", "xla"]


class LogSum(NamedTuple):
    """log Σ exp(s) of each row in two parts, (B, N, T, 1), exact however large s is.

    Attributes:
        highest: max s.
        rest: log Σ exp(s - highest).
    """

    highest: Array
    rest: Array


def _scores(q: Array, k: Array, allowed: Array | None) -> Float[Array, "B N T S"]:
    s = upcast(jnp.einsum("bntd,bnsd->bnts", q, k)) / math.sqrt(q.shape[-1])
    return s if allowed is None else jnp.where(allowed, s, -jnp.inf)


def _softmax(s: Array) -> tuple[Array, LogSum]:
    """Return the softmax of each row and the logarithm of its sum; a row of only -∞ becomes 0."""
    highest = lax.stop_gradient(s.max(axis=-1, keepdims=True))
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    e = jnp.exp(s - highest)
    total = e.sum(axis=-1, keepdims=True)
    total = jnp.where(total > 0, total, 1)
    return e / total, LogSum(highest, jnp.log(total))


def attend(q: Array, k: Array, v: Array, allowed: Array | None) -> tuple[Array, Array]:
    """Return o = softmax(q kᵀ / √D) v, and the softmax p; all (B, N, T or S, D)."""
    p = _softmax(_scores(q, k, allowed))[0].astype(v.dtype)
    return jnp.einsum("bnts,bnsd->bntd", p, v), p


def attend_backward(
    q: Array, k: Array, v: Array, o: Array, p: Array, do: Array
) -> tuple[Array, Array, Array]:
    """Return dq, dk and dv."""
    dv = jnp.einsum("bnts,bntd->bnsd", p, do)
    dp = upcast(jnp.einsum("bntd,bnsd->bnts", do, v))
    delta = (upcast(do) * upcast(o)).sum(axis=-1, keepdims=True)
    ds = (upcast(p) * (dp - delta) / math.sqrt(q.shape[-1])).astype(q.dtype)
    return jnp.einsum("bnts,bnsd->bntd", ds, k), jnp.einsum("bnts,bntd->bnsd", ds, q), dv


def attend_in_blocks(
    q: Array, k: Array, v: Array, allowed: Array | None, block: int
) -> tuple[Array, LogSum]:
    """Return o and the logarithm of each row's sum, ``block`` queries at a time."""

    def one_block(at: Any) -> tuple[Array, LogSum]:
        q, allowed = at
        p, log_sum = _softmax(_scores(q, k, allowed))
        return jnp.einsum("bnts,bnsd->bntd", p.astype(v.dtype), v), log_sum

    o, log_sum = lax.map(one_block, _blocks((q, allowed), block))
    whole = functools.partial(_unblocked, queries=q.shape[2])
    return whole(o), jax.tree.map(whole, log_sum)


def attend_in_blocks_backward(
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    log_sum: LogSum,
    allowed: Array | None,
    do: Array,
    block: int,
) -> tuple[Array, Array, Array]:
    """Return dq, dk and dv, making p again a block at a time."""

    def step(sums: tuple[Array, Array], at: Any) -> tuple[tuple[Array, Array], Array]:
        q, o, log_sum, allowed, do = at
        s = _scores(q, k, allowed)
        p = jnp.exp((s - log_sum.highest) - log_sum.rest).astype(v.dtype)  # the softmax again
        dq, dk, dv = attend_backward(q, k, v, o, p, do)
        return (sums[0] + dk, sums[1] + dv), dq

    start = (jnp.zeros_like(k), jnp.zeros_like(v))
    (dk, dv), dq = lax.scan(step, start, _blocks((q, o, log_sum, allowed, do), block))
    return _unblocked(dq, q.shape[2]), dk, dv


def _blocks(arrays: Any, block: int) -> Any:
    """Cut axis 2, the queries, into blocks along a new first axis; zeros fill the last block."""

    def cut(x: Array) -> Array:
        count = -(-x.shape[2] // block)
        x = jnp.pad(x, ((0, 0), (0, 0), (0, count * block - x.shape[2]), (0, 0)))
        return jnp.moveaxis(x.reshape(*x.shape[:2], count, block, x.shape[3]), 2, 0)

    return jax.tree.map(cut, arrays)


def _unblocked(x: Array, queries: int) -> Array:
    x = jnp.moveaxis(x, 0, 2)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], x.shape[4])[:, :, :queries]


def fused_kernel(q: Array) -> Kernel | None:
    """Return the kernel of ``jax.nn.dot_product_attention`` for queries like these, or None.

    There is one for NVIDIA GPUs, of cuDNN, in bfloat16 and float16, with up to 128 channels a
    head, a multiple of 8.
    """
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] <= 128 and q.shape[-1] % 8 == 0
    return "cudnn" if fits and jax.default_backend() == "gpu" else None


def attend_fused(
    q: Array, k: Array, v: Array, allowed: Array | None, causal: bool, kernel: Kernel
) -> Array:
    """Return o by a kernel that keeps nothing of size T x S.

    Args:
        q: the queries.
        k: the keys.
        v: the values.
        allowed: who may look at whom besides ``causal``, or None for all.
        causal: whether query t may look only at keys s ≤ t.
        kernel: the implementation of ``jax.nn.dot_product_attention``.
    """
    q, k, v = (jnp.swapaxes(z, 1, 2) for z in (q, k, v))  # it takes (B, T, N, D)
    o = jax.nn.dot_product_attention(q, k, v, mask=allowed, is_causal=causal, implementation=kernel)
    if allowed is not None:  # a query that may look at nothing gets 0
        seen = (
            allowed & jnp.tri(q.shape[1], k.shape[1], dtype=bool)[None, None] if causal else allowed
        )
        o = jnp.where(jnp.swapaxes(seen.any(axis=-1, keepdims=True), 1, 2), o, 0)
    return jnp.swapaxes(o, 1, 2)


def attend_fused_backward(
    q: Array, k: Array, v: Array, allowed: Array | None, causal: bool, kernel: Kernel, do: Array
) -> tuple[Array, Array, Array]:
    """Return dq, dk and dv by the derivative that comes with the kernel."""
    forward = functools.partial(attend_fused, allowed=allowed, causal=causal, kernel=kernel)
    return jax.vjp(forward, q, k, v)[1](do)
