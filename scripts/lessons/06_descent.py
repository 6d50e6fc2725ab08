# %% [markdown]
# # 6. Gradient descent, momentum, Adam
#
# **Question.** All three methods use the same gradient. Why do they take different paths?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# A line that is fitted to points has two parameters, so that its loss can be drawn as a surface.
# The inputs lie far from 0, which makes the surface a narrow valley.

# %%
random = np.random.default_rng(0)
x = random.uniform(0.5, 2.5, (40, 1))
target = 1.5 * x - 1 + 0.2 * random.standard_normal(x.shape)
net, loss = nn.Dense(1), nn.Huber(delta=2.0)
value_and_grad = nn.value_and_grad(net, loss)
start = nn.DenseParams(jnp.array([[-1.0]]), jnp.array([1.5]))


def walk(optimizer, steps=60):
    def step(carry, _):
        params, state = carry
        value, gradient = value_and_grad(params, x, target)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), (params.w[0, 0], params.b[0], value)

    return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)[1]


walks = {
    "gradient descent": walk(optax.sgd(0.25)),
    "momentum 0.9": walk(optax.sgd(0.05, momentum=0.9)),
    "Adam": walk(optax.adam(0.15)),
}

# %%
w, b = np.meshgrid(np.linspace(-1.5, 3, 60), np.linspace(-2.5, 2.5, 60))


def surface(w, b):
    return loss.forward(x * w + b, target)[0]


J = jax.vmap(jax.vmap(surface))(w, b)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
axes[0].contour(w, b, np.log(J), levels=18, cmap="Greys", linewidths=0.8)
for (name, (ws, bs, values)), color in zip(
    walks.items(), ("#2f6fb7", "#e07b39", "#3d9a6d"), strict=True
):
    axes[0].plot(ws, bs, ".-", color=color, ms=4, lw=1, label=name)
    axes[1].plot(values, color=color, label=name)
    print(f"{name:<17} J after 60 steps: {values[-1]:.5f}")
axes[0].set(xlabel="w", ylabel="b", title="three ways down the same valley")
axes[1].set(xlabel="step", ylabel="J", yscale="log")
axes[1].legend(frameon=False)
figure.savefig("lesson-06.png", dpi=80)

# %% [markdown]
# Gradient descent is slow on the floor of the valley, where the slope is small. Momentum
# accelerates there, and overshoots. Adam divides by the size of recent slopes.
#
# **Exercise.** `Huber` is quadratic in the error e up to δ = 1, and linear beyond: $e^2/2$ or
# $\delta (|e| - \delta/2)$. J is its mean over all n entries. The cache is (prediction, target,
# 1/n). Return dJ/d(prediction).


# %%
def backward(cache):
    prediction, target, share = cache
    raise NotImplementedError  # your turn


points = 3 * random.standard_normal((6, 2))
print(nn.diagnose(nn.Huber(), backward=backward, x=points, target=np.zeros((6, 2))))
