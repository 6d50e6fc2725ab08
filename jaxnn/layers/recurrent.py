"""Recurrent layers: one step of each, forward and back. The walk through time is in ``recurrence``.

B batch, T time, I input features, H hidden features (``features``).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxnn.layers.recurrence import GRUParams, LSTMState, Recurrent, RecurrentParams
from jaxnn.numerics import rows
from jaxnn.types import layer


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

    def _step(self, params: RecurrentParams, state: Array, zx: Array) -> tuple[Array, None]:
        return jnp.tanh(zx + state @ params.wh), None

    def _step_backward(
        self, params: RecurrentParams, before: Array, after: Array, kept: None, dafter: Array
    ) -> tuple[Array, Array]:
        h, dh = after, dafter
        dz = (1 - h) * (1 + h) * dh
        return dz, dz @ params.wh.T

    def _forward_formulas(self, t: int, before: dict[str, str], masked: bool) -> list[str]:
        z = f"sum(x[n, {t}, i] * wx[i, j] for i in I) + sum({before['h']}[n, m] * wh[m, j] for m in H) + b[j]"
        return [f"z{t}[n, j] = {z}", self._keep(f"h{t}", f"tanh(z{t}[n, j])", before["h"], t, masked)]

    def _step_back_formulas(self, t: int, before: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        lines = [f"dz{t}[n, j] = (1 - h{t}[n, j]**2) * dh{t}[n, j]"]
        return lines, {"h": f"sum(dz{t}[n, k] * wh[j, k] for k in K)"}


@layer
class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), with the forget gate of Gers et al. (2000).

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
        forget_bias: where the forget gate's bias starts; 1 lets gradients through early (Jozefowicz et al., 2015).
    """

    forget_bias: float = 1.0
    gates: ClassVar[int] = 4
    params_type: ClassVar[type] = RecurrentParams
    states: ClassVar[tuple[str, ...]] = ("h", "c")

    def _params(self, wx: Array, wh: Array) -> RecurrentParams:
        b = jnp.zeros(wx.shape[1], wx.dtype).at[self.features : 2 * self.features].set(self.forget_bias)
        return RecurrentParams(wx, wh, b)

    def _zero_state(self, x: Array) -> LSTMState:
        zeros = jnp.zeros((x.shape[0], self.features), x.dtype)
        return LSTMState(zeros, zeros)

    def _step(self, params: RecurrentParams, state: LSTMState, zx: Array) -> tuple[LSTMState, Any]:
        i, f, g, o = jnp.split(zx + state.h @ params.wh, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        c = f * state.c + i * g
        return LSTMState(o * jnp.tanh(c), c), (i, f, g, o)

    def _step_backward(
        self, params: RecurrentParams, before: LSTMState, after: LSTMState, kept: Any, dafter: LSTMState
    ) -> tuple[Array, LSTMState]:
        i, f, g, o = kept
        t = jnp.tanh(after.c)
        dc = dafter.c + dafter.h * o * (1 - t) * (1 + t)  # c is used by h, and by the next step
        do = dafter.h * t
        di, df, dg = dc * g, dc * before.c, dc * i  # c = f c_previous + i g
        dz = jnp.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g) * (1 + g), do * o * (1 - o)], axis=-1)
        return dz, LSTMState(dz @ params.wh.T, dc * f)

    def _forward_formulas(self, t: int, before: dict[str, str], masked: bool) -> list[str]:
        size = self.features
        z = f"sum(x[n, {t}, i] * wx[i, k] for i in I) + sum({before['h']}[n, m] * wh[m, k] for m in H) + b[k]"
        c = f"f{t}[n, j] * {before['c']}[n, j] + i{t}[n, j] * g{t}[n, j]"
        return [
            f"z{t}[n, k] = {z}",
            f"i{t}[n, j:{size}] = σ(z{t}[n, j])",
            f"f{t}[n, j:{size}] = σ(z{t}[n, {size} + j])",
            f"g{t}[n, j:{size}] = tanh(z{t}[n, {2 * size} + j])",
            f"o{t}[n, j:{size}] = σ(z{t}[n, {3 * size} + j])",
            self._keep(f"c{t}", c, before["c"], t, masked),
            self._keep(f"h{t}", f"o{t}[n, j] * tanh(c{t}[n, j])", before["h"], t, masked),
        ]

    def _step_back_formulas(self, t: int, before: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        size, h, c = self.features, f"dh{t}[n, j]", f"dcell{t}[n, j]"
        slopes = {"i": "@ * (1 - @)", "f": "@ * (1 - @)", "g": "(1 - @**2)", "o": "@ * (1 - @)"}
        gates = [
            f"d{gate}{t}[n, k - {i * size}] * {slope}".replace("@", f"{gate}{t}[n, k - {i * size}]")
            for i, (gate, slope) in enumerate(slopes.items())
        ]
        by_gate = " else ".join([*(f"{gate} if k < {(i + 1) * size}" for i, gate in enumerate(gates[:3])), gates[3]])
        lines = [
            f"dcell{t}[n, j:{size}] = dc{t}[n, j] + {h} * o{t}[n, j] * (1 - tanh(c{t}[n, j])**2)",
            f"di{t}[n, j:{size}] = {c} * g{t}[n, j]",
            f"df{t}[n, j:{size}] = {c} * {before['c']}[n, j]",
            f"dg{t}[n, j:{size}] = {c} * i{t}[n, j]",
            f"do{t}[n, j:{size}] = {h} * tanh(c{t}[n, j])",
            f"dz{t}[n, k:{4 * size}] = ({by_gate})",
        ]
        return lines, {"h": f"sum(dz{t}[n, k] * wh[j, k] for k in K)", "c": f"{c} * f{t}[n, j]"}


@layer
class GRU(Recurrent):
    """The gated recurrent unit (Cho et al., 2014), in the form of cuDNN and PyTorch, the reset after the product.

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

    def _params(self, wx: Array, wh: Array) -> GRUParams:
        return GRUParams(wx, wh, jnp.zeros(wx.shape[1], wx.dtype), jnp.zeros(self.features, wx.dtype))

    def _step(self, params: GRUParams, state: Array, zx: Array) -> tuple[Array, Any]:
        xr, xu, xn = jnp.split(zx, 3, axis=-1)
        hr, hu, hn = jnp.split(state @ params.wh, 3, axis=-1)
        r, u = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xu + hu)
        m = hn + jnp.expand_dims(params.bh, 0)
        n = jnp.tanh(xn + r * m)
        return (1 - u) * n + u * state, (r, u, n, m)

    def _step_backward(
        self, params: GRUParams, before: Array, after: Array, kept: Any, dafter: Array
    ) -> tuple[Array, Array]:
        r, u, n, m = kept
        dh = dafter
        dn = dh * (1 - u)
        du = dh * (before - n)  # h = (1 - u) n + u h_previous
        dzn = dn * (1 - n) * (1 + n)
        dr = dzn * m  # n = tanh(zx_n + r m)
        dz = jnp.concatenate([dr * r * (1 - r), du * u * (1 - u), dzn], axis=-1)
        return dz, dh * u + self._state_share(dz, r) @ params.wh.T

    def _state_share(self, dz: Array, r: Array) -> Array:
        """Take the derivative at zx to that at zh: the candidate's passes through the reset gate."""
        return dz.at[..., 2 * self.features :].multiply(r)

    def _weights_backward(self, x: Array, h_before: Array, kept: Any, dzx: Array, dz: Array) -> GRUParams:
        dzh = self._state_share(dz, kept[0])
        dwx, dwh = rows(x).T @ rows(dzx), rows(h_before).T @ rows(dzh)
        return GRUParams(dwx, dwh, rows(dz).sum(axis=0), rows(dzh)[:, 2 * self.features :].sum(axis=0))

    _state_dz: ClassVar[str] = "dzh"

    def _forward_formulas(self, t: int, before: dict[str, str], masked: bool) -> list[str]:
        size, x, h = self.features, f"zx{t}", f"zh{t}"
        mix = f"(1 - u{t}[n, j]) * g{t}[n, j] + u{t}[n, j] * {before['h']}[n, j]"
        return [
            f"{x}[n, k] = sum(x[n, {t}, i] * wx[i, k] for i in I) + b[k]",
            f"{h}[n, k] = sum({before['h']}[n, m] * wh[m, k] for m in H)",
            f"r{t}[n, j:{size}] = σ({x}[n, j] + {h}[n, j])",
            f"u{t}[n, j:{size}] = σ({x}[n, {size} + j] + {h}[n, {size} + j])",
            f"m{t}[n, j:{size}] = {h}[n, {2 * size} + j] + bh[j]",
            f"g{t}[n, j:{size}] = tanh({x}[n, {2 * size} + j] + r{t}[n, j] * m{t}[n, j])",
            self._keep(f"h{t}", mix, before["h"], t, masked),
        ]

    def _step_back_formulas(self, t: int, before: dict[str, str]) -> tuple[list[str], dict[str, str]]:
        size, h = self.features, f"dh{t}[n, j]"
        r, u = f"r{t}[n, k]", f"u{t}[n, k - {size}]"
        by_gate = f"dr{t}[n, k] * {r} * (1 - {r}) if k < {size} else du{t}[n, k - {size}] * {u} * (1 - {u})"
        lines = [
            f"dg{t}[n, j:{size}] = {h} * (1 - u{t}[n, j]) * (1 - g{t}[n, j]**2)",
            f"du{t}[n, j:{size}] = {h} * ({before['h']}[n, j] - g{t}[n, j])",
            f"dr{t}[n, j:{size}] = dg{t}[n, j] * m{t}[n, j]",
            f"dz{t}[n, k:{3 * size}] = ({by_gate} if k < {2 * size} else dg{t}[n, k - {2 * size}])",
            f"dzh{t}[n, k:{3 * size}] = dz{t}[n, k] if k < {2 * size} else dz{t}[n, k] * r{t}[n, k - {2 * size}]",
        ]
        return lines, {"h": f"{h} * u{t}[n, j] + sum(dzh{t}[n, k] * wh[j, k] for k in K)"}

    def _weight_formulas(self, walk: Any) -> list[str]:
        candidate = " + ".join(f"sum(dzh{t}[n, {2 * self.features} + j] for n in B)" for t, *_ in walk)
        return [*super()._weight_formulas(walk), f"dbh[j] = {candidate}"]
