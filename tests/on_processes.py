"""Training by several processes, which gives the numbers of one. Run by scripts/launch.py.

    python scripts/launch.py N tests/on_processes.py MODE FOLDER

It writes the losses and the parameters to FOLDER, once.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

import jaxnn as nn
from jaxnn.training.placement import whole

mode, folder = sys.argv[1], Path(sys.argv[2])
number, count = jax.process_index(), jax.device_count()
x = np.random.default_rng(0).normal(size=(64, 16))
y = np.arange(64) % 4
if mode == "other data" and number == 1:
    x[3, 2] += 1
rows = x, y
mesh = jax.make_mesh((count,), ("data",))
validation = x, y
if mode in ("own rows", "other lengths", "fail with own rows"):
    own = len(x) // jax.process_count()
    own = slice(number * own, (number + 1) * own - (mode == "other lengths" and number == 1))
    rows = nn.own_rows((x[own], y[own]), mesh)
    assert len(rows[0].addressable_shards) == jax.local_device_count()
    assert len(rows[0].addressable_shards[0].data) == len(x) // count
    validation = rows
is_stream = mode.endswith("stream")
if is_stream:  # each process reads its part of the rows of each batch of 16
    part = 16 // jax.process_count()
    starts = range(number * part, len(x) - (mode == "a shorter stream" and number == 1) * 16, 16)
    rows = [(x[i : i + part], y[i : i + part]) for i in starts]
    if mode == "another stream" and number == 1:
        rows[2] = (x[:3], y[:3])


def fail(event):
    if mode == "terminate from outside":
        time.sleep(1)
    if mode.startswith("terminate at") and number == 1 and event.step == int(mode.split()[-1]):
        signal.raise_signal(signal.SIGTERM)
    if mode.startswith("fail") and number == 1 and event.step >= 8:
        os._exit(9)


def train(*arguments, **how):
    try:
        return nn.fit(*arguments, **how)
    except nn.TrainingInterrupted as interrupt:
        completed = int(interrupt.result.state.step) == 16
        sys.exit("SIGTERM" not in str(interrupt) or completed != mode.endswith("16"))


fit = train(
    nn.mlp(32, 4),
    nn.SoftmaxCrossEntropy(),
    optax.adam(1e-2),
    rows,
    epochs=5 if mode == "other schedule" and number == 1 else 4,
    batch_size=None if is_stream else 16,
    shuffle=not mode.endswith(("in order", "stream")),
    key=jax.random.key(0),
    mesh=mesh,
    rules=nn.FULLY_SHARDED if mode != "repeated" else (),
    validation=validation,
    callbacks=[fail],
    checkpoint=folder / "checkpoints" if mode.startswith(("fail", "resume", "term")) else None,
)
params = whole(fit.params)
if number == 0:
    losses = {name: fit.history[name] for name in ("step_loss", "validation_loss")}
    leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
    np.savez(folder / "result.npz", **losses, **leaves)
