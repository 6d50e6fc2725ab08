# %% [markdown]
# # 4. The chain rule
#
# **The idea.** Imagine three gear wheels in a row. If the first turns the second twice as fast, and
# the second turns the third three times as fast, then the third turns six times as fast as the
# first. Speeds along a chain are multiplied. A derivative is such a speed: it says how fast an
# output changes when an input does.
#
# ```text
#   forward:    x ────── g ──────► u ────── f ──────► y
#   local:             du/dx             dy/du
#   backward: dy/dx ◄─ · du/dx ─ dy/du ◄─ · dy/du ─── 1
# ```
#
# As a formula: if $y = f(u)$ and $u = g(x)$, then $\frac{dy}{dx} = \frac{dy}{du} \cdot
# \frac{du}{dx}$.
#
# **Question.** If the input of a long chain of functions changes, how fast does its output change?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import practice

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** The network below has one neuron in each of its three layers, so that it applies
# six functions of one number in a row: $z^{(1)} = x W^{(1)} + b^{(1)}$, $a^{(1)} = \tanh(z^{(1)})$,
# and so on. The last activation is the softplus $\log(1 + e^z)$, a smooth ReLU, whose slope is
# σ(z). J is the squared error $(a^{(3)} - t)^2$, where t = 1 is the wanted answer. A **trace**
# keeps every number, and `nn.explain` writes down how each was computed. Read the table from its
# first line, at the loss, to the last one: each line adds one local derivative.

# %%
net = nn.chain(nn.Dense(1), nn.Tanh(), nn.Dense(1), nn.Sigmoid(), nn.Dense(1), nn.Softplus())
weights = [(1.5, -0.2), (-2.0, 0.3), (3.0, -0.5)]
dense = iter([nn.DenseParams(jnp.array([[w]]), jnp.array([b])) for w, b in weights])
params = tuple(next(dense) if isinstance(layer, nn.Dense) else () for layer in net.layers)
trace = nn.trace(net, nn.MeanSquaredError(), params, np.array([[0.4]]), np.array([[1.0]]))

print(nn.explain(trace, of="[0].x[0, 0]"))

# %% [markdown]
# The last line is the product of the others. We can check it without any theory: move x by one
# millionth to either side, and see how much J moves.

# %%
moved = [np.array([[0.4 + h]]) for h in (1e-6, -1e-6)]
J = [nn.trace(net, trace.loss, params, x, trace.target).value for x in moved]
print("by the chain rule:", trace.stages[0].dx[0, 0], " by moving x:", (J[0] - J[1]) / 2e-6)

# %%
local = [float(stage.dx[0, 0] / stage.dy[0, 0]) for stage in trace.stages]
names = ["$W^{(1)}$", "tanh", "$W^{(2)}$", "σ", "$W^{(3)}$", "softplus"]
reached = [float(stage.dx[0, 0]) for stage in trace.stages]
figure, axes = plt.subplots(2, 1, figsize=(7, 4.4), sharex=True, layout="constrained")
for ax, values, color in zip(axes, (local, reached), ("#2f6fb7", "#c8202f"), strict=True):
    ax.bar(range(len(values)), values, 0.6, color=color)
    ax.axhline(0, color="0.4", lw=0.8)
    ax.margins(y=0.25)
    for place, value in enumerate(values):
        above = "bottom" if value >= 0 else "top"
        ax.text(place, value, f"{value:.3g}", ha="center", va=above, fontsize=9)
axes[0].set_title("local derivative of each function")
axes[1].set_title("∂J/∂(its input) = the bar to the right × the local derivative above")
axes[1].set_xticks(range(len(names)), names)
figure.savefig("lesson-04.png", dpi=80)

# %% [markdown]
# The rightmost red bar starts the chain: it is $\partial J / \partial a^{(3)} = 0.155$ times the
# local derivative of the softplus. Notice what the sigmoid does: its local derivative is at most
# 1/4, and every number to its left is smaller for it. Lesson 7 comes back to this.
#
# **In code.** Each layer of the library is a function with a derivative that was worked out by
# hand, and it has the same three methods everywhere:
#
# * `init(key, x)` draws the parameters;
# * `forward(params, x)` returns the output y, and a **cache**: the numbers that will be needed for
#   the derivative;
# * `backward(params, cache, dy)` receives `dy`, which is ∂J/∂y, from the layer behind it. It
#   returns the derivatives by its parameters, and `dx`, which is ∂J/∂x, for the layer before it.
#
# This is a layer without parameters, y = 2 x. Its local derivative is 2, whatever x is, so that it
# keeps nothing.


# %%
@nn.layer
class Double:
    """y = 2 x."""

    def init(self, key, x):
        return ()  # no parameters

    def forward(self, params, x, key=None):
        return 2 * x, ()  # the output, and an empty cache

    def backward(self, params, cache, dy):
        return (), 2 * dy  # no derivatives of parameters; dx = local derivative × dy


# %% [markdown]
# ## Exercises
#
# **4.1, a number.** Let u = 2 x and y = tanh(u). What is dy/dx at x = 0.5? The slope of tanh is
# $1 - \tanh^2(u)$, and tanh(1) = 0.7616.

# %%
dy_dx = None  # your turn: 4.1
practice.check("4.1", dy_dx, jax.grad(lambda x: jnp.tanh(2 * x))(0.5))

# %% [markdown]
# **4.2, a formula.** Write dy/dx for the same chain, for any x, in terms of y.


# %%
def derivative(y):
    raise NotImplementedError  # your turn: 4.2


points = jnp.linspace(-1, 1, 5)
slopes = jax.vmap(jax.grad(lambda x: jnp.tanh(2 * x)))(points)
practice.check("4.2", derivative, lambda y: slopes, jnp.tanh(2 * points))

# %% [markdown]
# **4.3, code.** Write `backward` for the chain of `Double` and `Tanh`. The cache is a tuple with
# one entry for each layer: `Double` kept nothing, and `Tanh` kept y. Return `((), ())`, since
# neither has parameters, and dx. `nn.diagnose` grades a backward pass; if yours is wrong, it tries
# to find out why.


# %%
def backward(params, cache, dy):
    _, y = cache
    raise NotImplementedError  # your turn: 4.3


x = np.random.default_rng(0).standard_normal((4, 3))
print(nn.diagnose(nn.chain(Double(), nn.Tanh()), backward=backward, x=x))
