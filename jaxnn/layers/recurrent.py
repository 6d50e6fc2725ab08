"""Recurrent layers: the walk through time, the way back through it, and each layer's step.

B batch, T time, I input features, H hidden features (``features``), G gates.

All walk the same way. Forward, the inputs' share of every pre-activation is one product for all
times, ``x wx + b``, and a scan adds ``h wh`` step by step. Backward, a scan in the opposite
direction carries dJ/dh (and dJ/dc) from each step to the one before and gives dz, the derivative at
the pre-activations, for every time; the derivatives of the weights are then one product each::

    dwx = xᵀ dz        dwh = h_previousᵀ dz        db = Σ dz        dx = dz wxᵀ

Autodiff of the scan would add up dwh step by step.

Padded sequences: where t is not below the sample's length, the state is carried over unchanged and
the output is 0. A reversed layer so starts at each sample's own last step.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxnn.checks import (
    InputError,
    check_choice,
    check_floating,
    check_lengths,
    check_params,
    check_positive_int,
    check_shape,
    kind_of,
)
from jaxnn.formulas import Formulas, SameAs
from jaxnn.layers.initializers import Initializer, check_initializer, initialize
from jaxnn.numerics import flatten_batch
from jaxnn.padding import Sequences
from jaxnn.types import Cache, Params, Static
from jaxnn.values import layer


class RecurrentParams(NamedTuple):
    """Weights of the input ``wx`` (I, G·H) and the state ``wh`` (H, G·H), and bias ``b`` (G·H,)."""

    wx: Float[Array, "I GH"]
    wh: Float[Array, "H GH"]
    b: Float[Array, "GH"]


class GRUParams(NamedTuple):
    """As :class:`RecurrentParams`, with ``bh`` (H,), the candidate's bias inside the reset gate."""

    wx: Float[Array, "I GH"]
    wh: Float[Array, "H GH"]
    b: Float[Array, "GH"]
    bh: Float[Array, "H"]


class LSTMState(NamedTuple):
    """The output ``h`` and the cell ``c``, each (B, H)."""

    h: Float[Array, "B H"]
    c: Float[Array, "B H"]


class _Form(NamedTuple):
    """How the input came, so that its gradient can go back in the same form."""

    sequences: bool
    state: bool


class RecurrentCache(NamedTuple):
    """What a recurrent layer keeps for the backward pass. All but x and start have the time first.

    Attributes:
        x: the inputs (B, T, I): dwx is a product with them.
        start: the initial state.
        states: the state after each step; that before it is the one after the step before.
        gates: what each step kept of its own, such as the activations of its gates.
        mask: which steps count, (T, B, 1), or None where all do.
        form: how the input came.
    """

    x: Float[Array, "B T I"]
    start: PyTree
    states: PyTree
    gates: PyTree
    mask: Array | None
    form: Static[_Form]


@dataclasses.dataclass(frozen=True, repr=False)
class Recurrent:
    """A walk through time, forward and back.

    A layer adds ``_step``, one step forward from the inputs' share of the pre-activations,
    ``_step_backward``, its derivative, and the formulas of both.
    """

    gates: ClassVar[int]
    params_type: ClassVar[type]
    takes: ClassVar[type] = Sequences
    features: int
    _: dataclasses.KW_ONLY
    output: str = "sequence"
    reverse: bool = False
    return_state: bool = False
    w_init: Initializer = "glorot_uniform"
    wh_init: Initializer = "orthogonal"

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_positive_int(name, "features", self.features)
        check_choice(name, "output", self.output, ("sequence", "last"))
        check_initializer(name, "w_init", self.w_init)
        check_initializer(name, "wh_init", self.wh_init)

    def check_input(self, x: PyTree) -> None:
        """Check that no length exceeds the sequence."""
        if isinstance(x, Sequences) and x.lengths is not None:
            check_lengths(self, x.lengths, *x.x.shape[:2])

    def init(self, key: PRNGKeyArray, x: PyTree) -> Any:
        """Draw the weights for inputs (B, T, I), in the dtype of ``x``; biases start at 0."""
        x = x.x if isinstance(x, Sequences) else x
        check_floating(self, "x", x)
        check_shape(self, "x", x, ("B", "T", "I"))
        key_x, *keys_h = jax.random.split(key, 1 + self.gates)
        wx = initialize(self.w_init, key_x, (x.shape[-1], self.gates * self.features), x.dtype)
        square = (self.features, self.features)
        wh = jnp.concatenate([initialize(self.wh_init, k, square, x.dtype) for k in keys_h], axis=1)
        return self._params(wx, wh)

    def forward(
        self, params: Params, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Any, Any]:
        """Walk through time.

        Args:
            params: the weights.
            x: inputs (B, T, I), or :class:`Sequences` with lengths or an initial state.
            key: not used.

        Returns:
            The outputs (B, T, H) or the last one (B, H), with ``return_state`` a pair of that and
            the final state; and the cache.
        """
        sequences = x if isinstance(x, Sequences) else Sequences(x)
        self._check(params, sequences)
        start = self._zero_state(sequences.x) if sequences.state is None else sequences.state
        mask = _step_mask(sequences)
        zx = _time_first(
            sequences.x @ params.wx + jnp.expand_dims(params.b, (0, 1))
        )  # for all times at once

        def step(state: Any, inputs: tuple[Array, Array | None]) -> tuple[Any, Any]:
            after, gates = self._step(params, state, inputs[0])
            after = _where(inputs[1], after, state)
            return after, (after, gates)

        final, (states, gates) = lax.scan(step, start, (zx, mask), reverse=self.reverse)
        y = _h(final)
        if self.output == "sequence":
            h = _h(states)
            y = _time_first(h if mask is None else jnp.where(mask, h, 0))
        form = Static(_Form(isinstance(x, Sequences), sequences.state is not None))
        cache = RecurrentCache(sequences.x, start, states, gates, mask, form)
        return (y, final) if self.return_state else y, cache

    def backward(self, params: Params, cache: RecurrentCache, dy: Any) -> tuple[Any, Any]:
        """Walk back through time, then give the weights their derivatives, a product each."""
        x, start, states, gates, mask, form = cache
        dy, dfinal = dy if self.return_state else (dy, jax.tree.map(jnp.zeros_like, start))
        batch, time, _ = x.shape
        check_shape(
            self,
            "dy",
            dy,
            (batch, self.features) if self.output == "last" else (batch, time, self.features),
        )
        before = jax.tree.map(self._shifted, start, states)
        if self.output == "last":
            dfinal, dy_by_time = _add_h(dfinal, dy), None
        else:
            dy_by_time = _time_first(dy) if mask is None else jnp.where(mask, _time_first(dy), 0)

        def step(dafter: PyTree, at: Any) -> tuple[Any, Array]:
            before, after, gates, mask, dy = at
            dafter = dafter if dy is None else _add_h(dafter, dy)
            dz, dbefore = self._step_backward(params, before, after, gates, dafter)
            if mask is not None:  # a step that did not count let the state pass
                dz, dbefore = jnp.where(mask, dz, 0), _where(mask, dbefore, dafter)
            return dbefore, dz

        steps = (before, states, gates, mask, dy_by_time)
        dstart, dz = lax.scan(step, dfinal, steps, reverse=not self.reverse)
        dzx = _time_first(dz)
        dx = dzx @ params.wx.T
        dparams = self._weights_backward(x, _h(before), gates, dzx, dz)
        if not form.value.sequences:
            return dparams, dx
        return dparams, Sequences(dx, None, dstart if form.value.state else None)

    def _shifted(self, start: Array, states: Array) -> Array:
        """Return the state before each step, in the order of time of the layer's direction."""
        start = jnp.expand_dims(start, 0)
        return jnp.concatenate([states[1:], start] if self.reverse else [start, states[:-1]])

    def _check(self, params: Params, sequences: Sequences) -> None:
        x, lengths, state = sequences
        check_params(self, params, self.params_type)
        gates = self.gates * self.features
        check_shape(self, "wh", params.wh, (self.features, gates))
        check_shape(self, "b", params.b, (gates,))
        check_shape(self, "x", x, ("B", "T", params.wx.shape[0]))
        check_floating(self, "x", x, like=params.wx)
        if not x.shape[1]:
            raise InputError(
                f"{self}: expected sequences of at least one step, got shape {x.shape}."
            )
        if lengths is not None:
            check_lengths(self, lengths, *x.shape[:2])
        if state is not None:
            zeros = self._zero_state(x)
            if jax.tree.structure(state) != jax.tree.structure(zeros):  # type: ignore[operator]
                wanted = "LSTMState(h, c)" if isinstance(zeros, LSTMState) else "an array"
                raise InputError(
                    f"{self}: expected the initial state as {wanted}, got {kind_of(state)}."
                )
            for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(zeros), strict=True):
                check_shape(self, "the initial state", leaf, like.shape)
                check_floating(self, "the initial state", leaf, like=params.wx)

    def _params(self, wx: Array, wh: Array) -> Any:
        return RecurrentParams(wx, wh, jnp.zeros(wx.shape[1], wx.dtype))

    def _zero_state(self, x: Array) -> Any:
        return jnp.zeros((x.shape[0], self.features), x.dtype)

    def _step(self, params: Params, state: Any, zx: Array) -> tuple[Any, Any]:
        raise NotImplementedError

    def _step_backward(
        self, params: Params, before: Any, after: Any, gates: Any, dafter: PyTree
    ) -> tuple[Array, Any]:
        raise NotImplementedError

    def _weights_backward(
        self, x: Array, h_before: Array, gates: Any, dzx: Array, dz: Array
    ) -> Any:
        """Return dwx = xᵀ dz, dwh = h_previousᵀ dz and db = Σ dz, over batch and time."""
        return RecurrentParams(
            flatten_batch(x).T @ flatten_batch(dzx),
            flatten_batch(h_before).T @ flatten_batch(dz),
            flatten_batch(dz).sum(axis=0),
        )

    # ── Formulas: n sample, t time, i input, j and m units, k columns of all gates ──

    states: ClassVar[tuple[str, ...]] = ("h",)

    def formula_values(self, x: PyTree, cache: Cache) -> dict[str, Any]:
        """Return the way through time: the step from one time to the next, the first and last."""
        sequences = x if isinstance(x, Sequences) else Sequences(x)
        time = sequences.x.shape[1]
        step, first, last = (-1, time - 1, 0) if self.reverse else (1, 0, time - 1)
        values: dict[str, Any] = {"step": step, "first": first, "last": last, "H": self.features}
        mask = _step_mask(sequences)
        values["mask"] = None if mask is None else _time_first(mask[..., 0])
        start = ("state",) if len(self.states) == 1 else [f"state_{s}" for s in self.states]
        values |= {} if sequences.state is not None else dict.fromkeys(start)
        if self.return_state:
            return values | {"y": SameAs("y_0"), "dy": SameAs("dy_0")}
        final = ("dy_1",) if len(self.states) == 1 else [f"dy_1_{s}" for s in self.states]
        return values | dict.fromkeys(final)


# ── Small helpers ───────────────────────────────────────────────────────────────────────────────


def _time_first(x: Array) -> Array:  # and back
    return jnp.swapaxes(x, 0, 1)


def _step_mask(sequences: Sequences) -> Array | None:
    """Say for each time and sample whether the step counts, (T, B, 1), or None when all do."""
    if sequences.lengths is None:
        return None
    time = jnp.arange(sequences.x.shape[1])
    return jnp.expand_dims(jnp.expand_dims(time, 1) < jnp.expand_dims(sequences.lengths, 0), -1)


def _where(mask: Array | None, after: Any, before: Any) -> Any:
    """Return the state after a step where it counts, and the state before it elsewhere."""
    return (
        after if mask is None else jax.tree.map(lambda a, b: jnp.where(mask, a, b), after, before)
    )


def _h(state: Any) -> Array:
    return state.h if isinstance(state, LSTMState) else state


def _add_h(state: Any, dh: Array) -> Any:
    return state._replace(h=state.h + dh) if isinstance(state, LSTMState) else state + dh


# ── The layers: one step of each, forward and back ──────────────────────────────────────────────


@layer
class RNN(Recurrent):
    """The simple recurrent network: h = tanh(x wx + h_previous wh + b) (Elman, 1990).

    Args:
        features: H, the size of the state.
        output: "sequence" for the outputs of all times (B, T, H), "last" for the last one (B, H).
        reverse: whether to walk from the last step to the first.
        return_state: whether the output is a pair with the final state (B, H).
        w_init: how wx is drawn, by a name from ``jax.nn.initializers``.
        wh_init: how wh is drawn.
    """

    gates: ClassVar[int] = 1
    params_type: ClassVar[type] = RecurrentParams

    formulas = Formulas(
        """
        h[n, first - step, j] = state[n, j]
        for t in T[::step]:
            z[n, t, j] = (
                sum(x[n, t, i] * wx[i, j] for i in I)
                + sum(h[n, t - step, m] * wh[m, j] for m in M) + b[j]
            )
            h[n, t, j] = tanh(z[n, t, j]) if mask[n, t] else h[n, t - step, j]
        if output == "sequence":
            y[n, t, j] = h[n, t, j] if mask[n, t] else 0
        else:
            y[n, j] = h[n, last, j]
        if return_state:
            y_1[n, j] = h[n, last, j]
        """,
        """
        for t in T[::-step]:
            dh[n, t, j] = (
                ((dy[n, t, j] if mask[n, t] else 0) if output == "sequence"
                 else dy[n, j] if t == last else 0)
                + (dy_1[n, j] if t == last else 0)
                + (sum(dz[n, t + step, k] * wh[j, k] for k in K)
                   if mask[n, t + step] else dh[n, t + step, j])
            )
            dz[n, t, j] = (1 - h[n, t, j]**2) * dh[n, t, j] if mask[n, t] else 0
        dwx[i, k] = sum(x[n, t, i] * dz[n, t, k] for n in B for t in T)
        dwh[j, k] = sum(h[n, t - step, j] * dz[n, t, k] for n in B for t in T)
        db[k] = sum(dz[n, t, k] for n in B for t in T)
        dx[n, t, i] = sum(dz[n, t, k] * wx[i, k] for k in K)
        dstate[n, j] = (
            sum(dz[n, first, k] * wh[j, k] for k in K) if mask[n, first] else dh[n, first, j]
        )
        """,
    )

    def _step(self, params: RecurrentParams, state: Array, zx: Array) -> tuple[Array, None]:
        return jnp.tanh(zx + state @ params.wh), None

    def _step_backward(
        self, params: RecurrentParams, before: Array, after: Array, gates: None, dafter: Array
    ) -> tuple[Array, Array]:
        h, dh = after, dafter
        dz = (1 - h) * (1 + h) * dh
        return dz, dz @ params.wh.T


class LSTMGates(NamedTuple):
    """What one step of an LSTM keeps: the activations i, f, g, o, each (B, H)."""

    i: Array
    f: Array
    g: Array
    o: Array


@layer
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000).

    With z = x wx + h_previous wh + b parted into four::

        i, f, o = σ(z_i), σ(z_f), σ(z_o)     g = tanh(z_g)
        c = f c_previous + i g               h = o tanh(c)

    in the order i, f, g, o. The state is :class:`LSTMState` (h, c).

    Args:
        features: H, the size of the state.
        output: "sequence" for the outputs of all times (B, T, H), "last" for the last one (B, H).
        reverse: whether to walk from the last step to the first.
        return_state: whether the output is a pair with the final state.
        w_init: how wx is drawn, by a name from ``jax.nn.initializers``.
        wh_init: how each gate's block of wh is drawn.
        forget_bias: where the forget gate's bias starts; 1 lets gradients through early (Jozefowicz
            et al., 2015).
    """

    _: dataclasses.KW_ONLY
    forget_bias: float = 1.0
    gates: ClassVar[int] = 4
    params_type: ClassVar[type] = RecurrentParams
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    formula_notes: ClassVar[dict[str, str]] = {
        "z": "the pre-activation of the gates, a row for each step of time: the columns of i, then "
        "those of f, g and o",
        "c": "the cell's state, 0 before the first step unless another is given",
        "h": "the hidden state, 0 before the first step unless another is given",
    }
    formulas = Formulas(
        """
        h[n, first - step, j] = state_h[n, j]
        c[n, first - step, j] = state_c[n, j]
        for t in T[::step]:
            z[n, t, k] = (
                sum(x[n, t, i] * wx[i, k] for i in I)
                + sum(h[n, t - step, m] * wh[m, k] for m in M) + b[k]
            )
            i[n, t, j:H] = σ(z[n, t, j])
            f[n, t, j:H] = σ(z[n, t, H + j])
            g[n, t, j:H] = tanh(z[n, t, 2 * H + j])
            o[n, t, j:H] = σ(z[n, t, 3 * H + j])
            c[n, t, j] = (
                f[n, t, j] * c[n, t - step, j] + i[n, t, j] * g[n, t, j]
                if mask[n, t] else c[n, t - step, j]
            )
            h[n, t, j] = o[n, t, j] * tanh(c[n, t, j]) if mask[n, t] else h[n, t - step, j]
        if output == "sequence":
            y[n, t, j] = h[n, t, j] if mask[n, t] else 0
        else:
            y[n, j] = h[n, last, j]
        if return_state:
            y_1_h[n, j] = h[n, last, j]
            y_1_c[n, j] = c[n, last, j]
        """,
        """
        for t in T[::-step]:
            dh[n, t, j] = (
                ((dy[n, t, j] if mask[n, t] else 0) if output == "sequence"
                 else dy[n, j] if t == last else 0)
                + (dy_1_h[n, j] if t == last else 0)
                + (sum(dz[n, t + step, k] * wh[j, k] for k in K)
                   if mask[n, t + step] else dh[n, t + step, j])
            )
            dc[n, t, j] = (
                (dh[n, t, j] * o[n, t, j] * (1 - tanh(c[n, t, j])**2) if mask[n, t] else 0)
                + (dy_1_c[n, j] if t == last else 0)
                + (dc[n, t + step, j] * f[n, t + step, j]
                   if mask[n, t + step] else dc[n, t + step, j])
            )
            di[n, t, j] = dc[n, t, j] * g[n, t, j]
            df[n, t, j] = dc[n, t, j] * c[n, t - step, j]
            dg[n, t, j] = dc[n, t, j] * i[n, t, j]
            do[n, t, j] = dh[n, t, j] * tanh(c[n, t, j])
            dz[n, t, j:H] = di[n, t, j] * i[n, t, j] * (1 - i[n, t, j]) if mask[n, t] else 0
            dz[n, t, H + j] = df[n, t, j] * f[n, t, j] * (1 - f[n, t, j]) if mask[n, t] else 0
            dz[n, t, 2 * H + j] = dg[n, t, j] * (1 - g[n, t, j]**2) if mask[n, t] else 0
            dz[n, t, 3 * H + j] = do[n, t, j] * o[n, t, j] * (1 - o[n, t, j]) if mask[n, t] else 0
        dwx[i, k] = sum(x[n, t, i] * dz[n, t, k] for n in B for t in T)
        dwh[j, k] = sum(h[n, t - step, j] * dz[n, t, k] for n in B for t in T)
        db[k] = sum(dz[n, t, k] for n in B for t in T)
        dx[n, t, i] = sum(dz[n, t, k] * wx[i, k] for k in K)
        dstate_h[n, j] = (
            sum(dz[n, first, k] * wh[j, k] for k in K) if mask[n, first] else dh[n, first, j]
        )
        dstate_c[n, j] = (
            dc[n, first, j] * f[n, first, j] if mask[n, first] else dc[n, first, j]
        )
        """,
    )

    def _params(self, wx: Array, wh: Array) -> RecurrentParams:
        b = (
            jnp.zeros(wx.shape[1], wx.dtype)
            .at[self.features : 2 * self.features]
            .set(self.forget_bias)
        )
        return RecurrentParams(wx, wh, b)

    def _zero_state(self, x: Array) -> LSTMState:
        zeros = jnp.zeros((x.shape[0], self.features), x.dtype)
        return LSTMState(zeros, zeros)

    def _step(
        self, params: RecurrentParams, state: LSTMState, zx: Array
    ) -> tuple[LSTMState, LSTMGates]:
        i, f, g, o = jnp.split(zx + state.h @ params.wh, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * state.c + i * g
        return LSTMState(o * jnp.tanh(c), c), LSTMGates(i, f, g, o)

    def _step_backward(
        self,
        params: RecurrentParams,
        before: LSTMState,
        after: LSTMState,
        gates: LSTMGates,
        dafter: LSTMState,
    ) -> tuple[Array, LSTMState]:
        i, f, g, o = gates
        t = jnp.tanh(after.c)
        dc = dafter.c + dafter.h * o * (1 - t) * (1 + t)  # c is used by h, and by the next step
        do = dafter.h * t
        di, df, dg = dc * g, dc * before.c, dc * i  # c = f c_previous + i g
        dz = jnp.concatenate(
            [di * i * (1 - i), df * f * (1 - f), dg * (1 - g) * (1 + g), do * o * (1 - o)], axis=-1
        )
        return dz, LSTMState(dz @ params.wh.T, dc * f)


class GRUGates(NamedTuple):
    """What one step of a GRU keeps, each (B, H).

    Attributes:
        r: the reset gate.
        u: the update gate.
        n: the candidate.
        m: what the reset gate multiplies inside the candidate, zh_n + bh.
    """

    r: Array
    u: Array
    n: Array
    m: Array


@layer
class GRU(Recurrent):
    """The gated recurrent unit (Cho et al., 2014), with the reset after the product, as in PyTorch.

    With zx = x wx + b and zh = h_previous wh, each parted into three::

        r, u = σ(zx_r + zh_r), σ(zx_u + zh_u)     n = tanh(zx_n + r (zh_n + bh))
        h = (1 - u) n + u h_previous

    in the order r (reset), u (update), n (candidate).

    Args:
        features: H, the size of the state.
        output: "sequence" for the outputs of all times (B, T, H), "last" for the last one (B, H).
        reverse: whether to walk from the last step to the first.
        return_state: whether the output is a pair with the final state (B, H).
        w_init: how wx is drawn, by a name from ``jax.nn.initializers``.
        wh_init: how each gate's block of wh is drawn.
    """

    gates: ClassVar[int] = 3
    params_type: ClassVar[type] = GRUParams

    formula_notes: ClassVar[dict[str, str]] = {
        "z": "the input's part of the pre-activations, side by side: the columns of r, then those "
        "of u and g",
        "zh": "the state's part of the pre-activations, in the same order",
        "h": "the hidden state, 0 before the first step unless another is given",
    }
    formulas = Formulas(
        """
        h[n, first - step, j] = state[n, j]
        for t in T[::step]:
            z[n, t, k] = sum(x[n, t, i] * wx[i, k] for i in I) + b[k]
            zh[n, t, k] = sum(h[n, t - step, m] * wh[m, k] for m in M)
            r[n, t, j:H] = σ(z[n, t, j] + zh[n, t, j])
            u[n, t, j:H] = σ(z[n, t, H + j] + zh[n, t, H + j])
            c[n, t, j:H] = zh[n, t, 2 * H + j] + bh[j]
            g[n, t, j:H] = tanh(z[n, t, 2 * H + j] + r[n, t, j] * c[n, t, j])
            h[n, t, j] = (
                (1 - u[n, t, j]) * g[n, t, j] + u[n, t, j] * h[n, t - step, j]
                if mask[n, t] else h[n, t - step, j]
            )
        if output == "sequence":
            y[n, t, j] = h[n, t, j] if mask[n, t] else 0
        else:
            y[n, j] = h[n, last, j]
        if return_state:
            y_1[n, j] = h[n, last, j]
        """,
        """
        for t in T[::-step]:
            dh[n, t, j] = (
                ((dy[n, t, j] if mask[n, t] else 0) if output == "sequence"
                 else dy[n, j] if t == last else 0)
                + (dy_1[n, j] if t == last else 0)
                + (sum(dzh[n, t + step, k] * wh[j, k] for k in K)
                   + dh[n, t + step, j] * u[n, t + step, j]
                   if mask[n, t + step] else dh[n, t + step, j])
            )
            dg[n, t, j] = dh[n, t, j] * (1 - u[n, t, j]) * (1 - g[n, t, j]**2)
            du[n, t, j] = dh[n, t, j] * (h[n, t - step, j] - g[n, t, j])
            dr[n, t, j] = dg[n, t, j] * c[n, t, j]
            dz[n, t, j:H] = dr[n, t, j] * r[n, t, j] * (1 - r[n, t, j]) if mask[n, t] else 0
            dz[n, t, H + j] = du[n, t, j] * u[n, t, j] * (1 - u[n, t, j]) if mask[n, t] else 0
            dz[n, t, 2 * H + j] = dg[n, t, j] if mask[n, t] else 0
            dzh[n, t, j:2 * H] = dz[n, t, j]
            dzh[n, t, 2 * H + j] = dz[n, t, 2 * H + j] * r[n, t, j]
        dwx[i, k] = sum(x[n, t, i] * dz[n, t, k] for n in B for t in T)
        dwh[j, k] = sum(h[n, t - step, j] * dzh[n, t, k] for n in B for t in T)
        db[k] = sum(dz[n, t, k] for n in B for t in T)
        dx[n, t, i] = sum(dz[n, t, k] * wx[i, k] for k in K)
        dbh[j] = sum(dzh[n, t, 2 * H + j] for n in B for t in T)
        dstate[n, j] = (
            sum(dzh[n, first, k] * wh[j, k] for k in K) + dh[n, first, j] * u[n, first, j]
            if mask[n, first] else dh[n, first, j]
        )
        """,
    )

    def _check(self, params: Params, sequences: Sequences) -> None:
        super()._check(params, sequences)
        check_shape(self, "bh", params.bh, (self.features,))

    def _params(self, wx: Array, wh: Array) -> GRUParams:
        return GRUParams(
            wx, wh, jnp.zeros(wx.shape[1], wx.dtype), jnp.zeros(self.features, wx.dtype)
        )

    def _step(self, params: GRUParams, state: Array, zx: Array) -> tuple[Array, GRUGates]:
        xr, xu, xn = jnp.split(zx, 3, axis=-1)
        hr, hu, hn = jnp.split(state @ params.wh, 3, axis=-1)
        r, u = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xu + hu)
        m = hn + jnp.expand_dims(params.bh, 0)
        n = jnp.tanh(xn + r * m)
        return (1 - u) * n + u * state, GRUGates(r, u, n, m)

    def _step_backward(
        self, params: GRUParams, before: Array, after: Array, gates: GRUGates, dafter: Array
    ) -> tuple[Array, Array]:
        r, u, n, m = gates
        dh = dafter
        dn = dh * (1 - u)
        du = dh * (before - n)  # h = (1 - u) n + u h_previous
        dzn = dn * (1 - n) * (1 + n)
        dr = dzn * m  # n = tanh(zx_n + r m)
        dz = jnp.concatenate([dr * r * (1 - r), du * u * (1 - u), dzn], axis=-1)
        return dz, dh * u + self._state_share(dz, r) @ params.wh.T

    def _state_share(self, dz: Array, r: Array) -> Array:
        """Return dzh of dzx: the candidate's part passes through the reset gate."""
        return dz.at[..., 2 * self.features :].multiply(r)

    def _weights_backward(
        self, x: Array, h_before: Array, gates: GRUGates, dzx: Array, dz: Array
    ) -> GRUParams:
        dzh = self._state_share(dz, gates.r)
        dwx, dwh = (
            flatten_batch(x).T @ flatten_batch(dzx),
            flatten_batch(h_before).T @ flatten_batch(dzh),
        )
        return GRUParams(
            dwx,
            dwh,
            flatten_batch(dz).sum(axis=0),
            flatten_batch(dzh)[:, 2 * self.features :].sum(axis=0),
        )
