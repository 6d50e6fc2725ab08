# %% [markdown]
# # 4. The chain rule
#
# **Question.** If the input of a long chain of functions changes, how fast does its output change?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# If $y = f(u)$ and $u = g(x)$ then $\frac{dy}{dx} = \frac{dy}{du} \frac{du}{dx}$: local derivatives
# are multiplied. The network below applies six functions of one number in a row; the trace keeps
# the result of each.

# %%
net = nn.chain(nn.Dense(1), nn.Tanh(), nn.Dense(1), nn.Sigmoid(), nn.Dense(1), nn.Softplus())
weights = [(1.5, -0.2), (-2.0, 0.3), (3.0, -0.5)]
dense = iter([nn.DenseParams(jnp.array([[w]]), jnp.array([b])) for w, b in weights])
params = tuple(next(dense) if isinstance(layer, nn.Dense) else () for layer in net.layers)
trace = nn.trace(net, nn.MeanSquaredError(), params, np.array([[0.4]]), np.array([[1.0]]))

print(nn.explain(trace, of="[0].x[0, 0]"))

# %% [markdown]
# The last line is the product of the others. A small change of x confirms it:

# %%
moved = [np.array([[0.4 + h]]) for h in (1e-6, -1e-6)]
J = [nn.trace(net, trace.loss, params, x, trace.target).value for x in moved]
print("by the chain rule:", trace.stages[0].dx[0, 0], " by moving x:", (J[0] - J[1]) / 2e-6)

local = [float(stage.dx[0, 0] / stage.dy[0, 0]) for stage in trace.stages]
names = [repr(stage.layer).split("(")[0] for stage in trace.stages]
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
places = np.arange(len(local))
ax.bar(places - 0.2, local, 0.4, label="local derivative", color="#2f6fb7")
slopes = [stage.dx[0, 0] for stage in trace.stages]
ax.bar(places + 0.2, slopes, 0.4, label="∂J/∂(input of the layer)", color="#c8202f")
ax.axhline(0, color="0.4", lw=0.8)
ax.set_xticks(places, names)
ax.set_title("backwards, each derivative is the one to its right times the local one")
ax.legend(frameon=False)
figure.savefig("lesson-04.png", dpi=80)


# %% [markdown]
# **Exercise.** The chain of $u = 2 x$ and $y = \tanh(u)$ has two layers; the first keeps nothing,
# the second y. Return `((), ())`, as neither has parameters, and dJ/dx.


# %%
@nn.layer
class Double:
    """y = 2 x."""

    def init(self, key, x):
        return ()

    def forward(self, params, x, key=None):
        return 2 * x, ()

    def backward(self, params, cache, dy):
        return (), 2 * dy


def backward(params, cache, dy):
    _, y = cache
    raise NotImplementedError  # your turn


x = np.random.default_rng(0).standard_normal((4, 3))
print(nn.diagnose(nn.chain(Double(), nn.Tanh()), backward=backward, x=x))
