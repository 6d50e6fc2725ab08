"""Backward passes as students write them, each with one mistake: an LSTM's and attention's.

They are written without a look at the stated formulas, in NumPy, with the forward pass made again.
"""

import jax
import numpy as np

LSTM = {  # the mistake, and the verdict on it
    "": "right",
    "no derivative through h": "term",
    "no derivative through c": "term",
    "no forget gate between the cells": "factor",
    "the input gate between the cells": "other array",
    "no slope of tanh(c)": "factor",
    "the slope of tanh taken at c": "function",
    "the output gate by c": "function",
    "the input gate by itself": "other array",
    "the forget gate by the new cell": "time",
    "no slope of the input gate": "slope",
    "the slopes at the gates' values": "slope",
    "the slope of the sigmoid for g": "slope",
    "the gates in another order": "exchanged",
    "the first step only for wx": "sum",
    "the new state for wh": "time",
    "the first step only for b": "sum",
    "a mean over time": "mean",
    "dy of the last step only": "time",
}
ATTENTION = {
    "": "right",
    "no scale": "factor",
    "divided by D": "power",
    "only the diagonal of the softmax": "sum",
    "no δ": "term",
    "δ over the wrong axis": "axis",
    "δ without p": "factor",
    "no softmax": "other array",
    "dv without a transpose": "transposed",
    "dk without a transpose": "transposed",
    "dq by q": "other array",
    "dk by k": "other array",
    "wo without a transpose": "transposed",
    "dwo transposed": "transposed",
    "dwq and dwk exchanged": "exchanged",
    "dwo by v": "other array",
    "dx without the values": "term",
    "dx by the queries only": "term",
    "wq for wk": "other array",
    "a mean for the biases": "mean",
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(mistake):
    """Return the backward of an LSTM, as of (params, cache, dy)."""

    def backward(params, cache, dy):
        x, dy, (wx, wh, b) = np.asarray(cache.x), np.asarray(dy), map(np.asarray, params)
        (batch, steps, _), size = x.shape, wh.shape[0]
        h, c, gates = np.zeros((steps + 1, batch, size)), np.zeros((steps + 1, batch, size)), []
        for t in range(steps):
            i, f, g, o = np.split(x[:, t] @ wx + h[t] @ wh + b, 4, axis=1)
            i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
            c[t + 1] = f * c[t] + i * g
            h[t + 1] = o * np.tanh(c[t + 1])
            gates.append((i, f, g, o))

        def slope(gate):
            gate = sigmoid(gate) if mistake == "the slopes at the gates' values" else gate
            return gate * (1 - gate)

        dwx, dwh, db, dx = (np.zeros_like(each) for each in (wx, wh, b, x))
        dh, dc = np.zeros((batch, size)), np.zeros((batch, size))
        for t in reversed(range(steps)):
            i, f, g, o = gates[t]
            tanh_c = np.tanh(c[t + 1])
            if mistake != "dy of the last step only" or t == steps - 1:
                dh = dh + dy[:, t]
            slope_c = {
                "no slope of tanh(c)": 1,
                "the slope of tanh taken at c": 1 - c[t + 1] ** 2,
            }.get(mistake, 1 - tanh_c**2)
            dc = dc + dh * o * slope_c
            do = dh * (c[t + 1] if mistake == "the output gate by c" else tanh_c)
            di = dc * (i if mistake == "the input gate by itself" else g)
            df = dc * c[t + (mistake == "the forget gate by the new cell")]
            dz = [
                di * (1 if mistake == "no slope of the input gate" else slope(i)),
                df * slope(f),
                dc * i * (slope(g) if mistake == "the slope of the sigmoid for g" else 1 - g**2),
                do * slope(o),
            ]
            if mistake == "the gates in another order":
                dz = [dz[0], dz[2], dz[1], dz[3]]
            dz = np.concatenate(dz, axis=1)
            dwx = x[:, t].T @ dz + (0 if mistake == "the first step only for wx" else dwx)
            dwh += h[t + (mistake == "the new state for wh")].T @ dz
            db = dz.sum(axis=0) + (0 if mistake == "the first step only for b" else db)
            dx[:, t] = dz @ wx.T
            dh = 0 * dh if mistake == "no derivative through h" else dz @ wh.T
            through = {
                "no derivative through c": 0,
                "no forget gate between the cells": 1,
                "the input gate between the cells": i,
            }
            dc = dc * through.get(mistake, f)
        if mistake == "a mean over time":
            dwx, dwh, db = dwx / steps, dwh / steps, db / steps
        return type(params)(dwx, dwh, db), dx

    return backward


def attention(mistake, heads=2):
    """Return the backward of causal attention, as of (params, cache, dy)."""

    def backward(params, cache, dy):
        x, dy, params = np.asarray(cache.x), np.asarray(dy), jax.tree.map(np.asarray, params)
        batch, steps, channels = x.shape
        size = channels // heads
        split = lambda a: a.reshape(batch, steps, heads, size).swapaxes(1, 2)
        merge = lambda a: a.swapaxes(1, 2).reshape(batch, steps, channels)
        flat = lambda a: a.reshape(-1, channels)
        q, k, v = (
            split(x @ w + b)
            for w, b in ((params.wq, params.bq), (params.wk, params.bk), (params.wv, params.bv))
        )
        allowed = np.tril(np.ones((steps, steps), bool))
        e = np.exp(np.where(allowed, q @ k.swapaxes(-1, -2) / np.sqrt(size), -np.inf))
        p = e / e.sum(axis=-1, keepdims=True)
        o = p @ v
        do = split(dy @ (params.wo if mistake == "wo without a transpose" else params.wo.T))
        dv = (p if mistake == "dv without a transpose" else p.swapaxes(-1, -2)) @ do
        dp = do @ v.swapaxes(-1, -2)
        delta = {
            "only the diagonal of the softmax": p * dp,
            "no δ": 0,
            "δ over the wrong axis": (p * dp).sum(axis=-2, keepdims=True),
            "δ without p": dp.sum(axis=-1, keepdims=True),
        }.get(mistake, (p * dp).sum(axis=-1, keepdims=True))
        ds = dp if mistake == "no softmax" else p * (dp - delta)
        ds = ds / {"no scale": 1, "divided by D": size}.get(mistake, np.sqrt(size))
        dq = merge(ds @ (q if mistake == "dq by q" else k))
        ds = ds if mistake == "dk without a transpose" else ds.swapaxes(-1, -2)
        dk, dv = merge(ds @ (k if mistake == "dk by k" else q)), merge(dv)
        dwq, dwk, dwv = (flat(x).T @ flat(d) for d in (dq, dk, dv))
        if mistake == "dwq and dwk exchanged":
            dwq, dwk = dwk, dwq
        dwo = flat(merge(v if mistake == "dwo by v" else o)).T @ flat(dy)
        dx = dq @ params.wq.T
        if mistake != "dx by the queries only":
            dx = dx + dk @ (params.wq if mistake == "wq for wk" else params.wk).T
            dx = dx + (0 if mistake == "dx without the values" else dv @ params.wv.T)
        mean = mistake == "a mean for the biases"
        biases = [flat(d).sum(axis=0) / (batch * steps if mean else 1) for d in (dq, dk, dv, dy)]
        weights = dwq, dwk, dwv, dwo.T if mistake == "dwo transposed" else dwo
        return type(params)(*weights, *biases), dx

    return backward
