# %% [markdown]
# # 9. Recurrence, and backpropagation through time
#
# **Question.** How far back in time do inputs influence a recurrent network?

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# $h_t = \tanh(x_t W_x + h_{t-1} W_h + b)$ is one layer that is applied at each time step. Unrolled
# in time, it is a deep network whose layers share their weights, so that the derivatives of these
# weights are summed over time.

# %%
net = nn.chain(nn.RNN(2, output="last"), nn.Dense(1))
x = np.array([[[1.0], [-0.5], [0.25]]])
trace = nn.trace(net, nn.MeanSquaredError(), net.init(jax.random.key(0), x), x, np.array([[1.0]]))
lines = nn.explain(trace, digits=4).splitlines()
print("\n".join(line for line in lines if line.startswith("  dh") or "dwh[0, 0]" in line))

# %% [markdown]
# There are forty steps, and the loss depends only on the last output. How large is the gradient at
# each input?

# %%
long = np.random.default_rng(0).standard_normal((32, 40, 4))
figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
last = {"features": 32, "output": "last"}
for layer in (nn.RNN(**last), nn.LSTM(**last, forget_bias=0.0), nn.LSTM(**last, forget_bias=3.0)):
    net = nn.chain(layer, nn.Dense(1))
    params = net.init(jax.random.key(1), long)
    trace = nn.trace(net, nn.MeanSquaredError(), params, long, np.ones((32, 1)))
    reach = np.linalg.norm(trace.stages[0].dx, axis=(0, 2))
    label = repr(layer).replace("features=32, output='last'", "32")
    ax.semilogy(range(1, 41), reach / reach[-1], label=label)
    print(f"{layer!r}: the first input counts {reach[0] / reach[-1]:.1e} times as much as the last")
ax.set(xlabel="time", title="size of ∂J/∂(the input at each time), the last being 1")
ax.legend(frameon=False, fontsize=8)
figure.savefig("lesson-09.png", dpi=80)


# %% [markdown]
# **Exercise.** The simplest memory is $h_t = a\, h_{t-1} + x_t$ with $h_0 = 0$; its outputs y (B,
# T, C) are all $h_t$. Go backward through time: the derivative by $h_t$ is the sum of that by $y_t$
# and of what $h_{t+1}$ passes back. The cache is empty. Return `()` and dx.


# %%
@nn.layer
class Leaky:
    """A leaky memory."""

    a: float

    def init(self, key, x):
        return ()

    def forward(self, params, x, key=None):
        def walk(h, x):
            return (self.a * h + x,) * 2

        _, y = jax.lax.scan(walk, 0 * x[:, 0], x.swapaxes(0, 1))
        return y.swapaxes(0, 1), ()

    def backward(self, params, cache, dy):
        return backward(params, cache, dy)


def backward(params, cache, dy, a=0.5):
    dx = [None] * dy.shape[1]
    raise NotImplementedError  # your turn


x = np.random.default_rng(0).standard_normal((3, 5, 2))
print(nn.diagnose(Leaky(0.5), backward=backward, x=x))
