# %% [markdown]
# # 6. Gradient descent, momentum, Adam
#
# **The idea.** You stand on a hillside in fog and want to reach the valley. You cannot see it, but
# you feel the slope under your feet. So you take a step downhill, feel again, and so on. The
# hillside is the loss J over the weights, and the slope is the gradient, which backpropagation
# computes.
#
# * **Gradient descent** takes a step against the slope: $w \leftarrow w - \alpha\, g$, where g is
#   the gradient and α the learning rate.
# * **Momentum** is a ball that rolls: it adds up past slopes, $v \leftarrow \mu v + g$ and $w
#   \leftarrow w - \alpha v$. It gains speed where the slope keeps its direction.
# * **Adam** divides by the usual size of the slope, for each weight separately. Its steps are then
#   about as long as α, whether the hill is steep or flat.
#
# ```text
#     ╲           ╱      a long, narrow valley: its walls are steep, its floor is almost level
#      ╲         ╱       gradient descent: down the wall at once, then slowly along the floor
#       ╲       ╱        momentum: up and down the opposite wall, and fast along the floor
#        ╲_____╱         Adam: the same pace everywhere
# ```
#
# **Question.** All three methods use the same gradient. Why do they take different paths?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import practice

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** For $J(w) = w^2$ the gradient is 2 w. With α = 0.1, each step multiplies w by 0.8;
# with α = 1.1 it multiplies w by -1.2, and the walk climbs out of the valley.

# %%
for rate in (0.1, 1.1):
    w = [1.0]
    for _ in range(5):
        w.append(w[-1] - rate * 2 * w[-1])
    print(f"α = {rate}:", *(f"{one:7.3f}" for one in w))

# %% [markdown]
# **In code.** A line that is fitted to points has two parameters, w and b, so that its loss can be
# drawn as a map. The inputs lie far from 0, which makes the map a narrow valley: if w grows, b has
# to fall.

# %%
random = np.random.default_rng(0)
x = random.uniform(0.5, 2.5, (40, 1))
target = 1.5 * x - 1 + 0.2 * random.standard_normal(x.shape)
net, loss = nn.Dense(1), nn.MeanSquaredError()
value_and_grad = nn.value_and_grad(net, loss)
start = nn.DenseParams(jnp.array([[-1.0]]), jnp.array([1.5]))


def walk(optimizer, unit, steps=60):
    """Walk down the loss, measured in some unit, and return w, b and J at each step."""

    def step(carry, _):
        params, state = carry
        value, gradient = value_and_grad(params, x, target)
        gradient = jax.tree.map(lambda g: unit * g, gradient)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), (params.w[0, 0], params.b[0], value)

    return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[1]


methods = {
    "gradient descent": optax.sgd(0.12),
    "momentum 0.9": optax.sgd(0.03, momentum=0.9),
    "Adam": optax.adam(0.15),
}
units = jnp.array([1.0, 0.01])
walks = {name: jax.vmap(lambda u, o=o: walk(o, u))(units) for name, o in methods.items()}
best = float(np.linalg.lstsq(np.hstack([x, np.ones_like(x)]), target)[1][0]) / len(x)
print(f"the best line has J = {best:.4f}; after 60 steps,")
for name, (_, _, values) in walks.items():
    usual, small = values[:, -1]
    print(f"{name:<17} J = {usual:.4f}, and {small:.4f} if its unit is 100 times larger")

# %%
w, b = np.meshgrid(np.linspace(-1.5, 3, 60), np.linspace(-2.5, 2.8, 60))


def surface(w, b):
    return loss.forward(x * w + b, target)[0]


J = jax.vmap(jax.vmap(surface))(w, b)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
axes[0].contour(w, b, np.log(J), levels=18, cmap="Greys", linewidths=0.8)
colors = ("#2f6fb7", "#e07b39", "#3d9a6d")
for (name, (ws, bs, values)), color in zip(walks.items(), colors, strict=True):
    axes[0].plot(ws[0], bs[0], ".-", color=color, ms=4, lw=1, label=name)
    axes[1].plot(values[0], color=color, label=name)
axes[0].set(xlabel="w", ylabel="b", title="three ways down the same valley")
axes[1].axhline(best, color="0.5", lw=0.8, ls=":", label="the best line")
axes[1].set(xlabel="step", ylabel="J", yscale="log", title="the loss on the way")
axes[1].legend(frameon=False)
figure.savefig("lesson-06.png", dpi=80)

# %% [markdown]
# * Gradient descent is down the wall in two steps, and then slow on the floor of the valley, where
#   the slope is small. A larger α does not help: already α = 0.3 would throw it out at the steep
#   walls.
# * Momentum swings from wall to wall, because it arrives with speed, and J rises and falls. But it
#   gains speed along the floor, and after 60 steps it is nearly there.
# * Adam looks worst here, although it is the default of the field. In a valley with only two
#   weights there is nothing to gain: its first steps are as long for the gentle slopes as for the
#   steep ones, so that it overshoots, and its steps never grow. Its strength is in the last column
#   of the table. In a unit that is a hundred times larger, all losses and slopes are a hundred
#   times smaller. The two other methods then hardly move, until α is tuned again; Adam takes
#   exactly the same path. In a large network, whose layers have slopes of very different size, one
#   α serves all.
#
# ## Exercises
#
# **6.1, a number.** $J(w) = w^2$, w = 2 and α = 0.1. What is w after one step of gradient descent?

# %%
w_new = None  # your turn: 6.1
updates, _ = optax.sgd(0.1).update(jnp.array(2 * 2.0), optax.sgd(0.1).init(0.0))
practice.check("6.1", w_new, 2.0 + updates)

# %% [markdown]
# **6.2, a formula.** If the slope g is the same in every step, the speed v of momentum approaches a
# limit, at which $v = \mu v + g$. What is it? With μ = 0.9, it says how many times longer the steps
# of momentum become.


# %%
def final_speed(mu, g):
    raise NotImplementedError  # your turn: 6.2


def after_many_steps(mu, g):
    v = 0.0
    for _ in range(1000):
        v = mu * v + g
    return v


practice.check("6.2", final_speed, after_many_steps, 0.9, 0.5)

# %% [markdown]
# **6.3, code.** Write Adam (Kingma and Ba, 2015). It keeps two running means for each weight, one
# of the slopes and one of their squares, which begin at 0:
#
# $m \leftarrow 0.9\, m + 0.1\, g$ and $s \leftarrow 0.999\, s + 0.001\, g^2$.
#
# In step t = 1, 2, … they are still too small, since they began at 0. Divide m by $1 - 0.9^t$ and s
# by $1 - 0.999^t$. Then $w \leftarrow w - \alpha\, m / (\sqrt s + 10^{-8})$. Return w after one
# step for each slope in the list.


# %%
def adam(w, slopes, rate):
    m, s = 0.0, 0.0
    raise NotImplementedError  # your turn: 6.3


def by_optax(w, slopes, rate):
    state = optax.adam(rate).init(w)
    for g in slopes:
        updates, state = optax.adam(rate).update(jnp.asarray(g), state)
        w += updates
    return w


practice.check("6.3", adam, by_optax, jnp.asarray(1.0), [0.5, -0.2, 0.3], 0.1)
