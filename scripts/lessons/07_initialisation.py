# %% [markdown]
# # 7. Initialisation, and vanishing gradients
#
# **Question.** In a network of twenty layers, is the gradient of the first one still large enough?

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# `Repeat` makes twenty layers of one, each with its own weights. A trace through them keeps dJ/dy
# of each. We look at its size for several initialisations.


# %%
def deep(activation, w_init, layers=20, width=64):
    return nn.chain(
        nn.Repeat(nn.chain(nn.Dense(width, w_init=w_init), activation), layers), nn.Dense(1)
    )


starts = {
    "sigmoid, Glorot": deep(nn.Sigmoid(), "glorot_uniform"),
    "tanh, normal(0.03)": deep(nn.Tanh(), ("normal", 0.03)),
    "tanh, Glorot": deep(nn.Tanh(), "glorot_uniform"),
    "tanh, normal(0.5)": deep(nn.Tanh(), ("normal", 0.5)),
    "ReLU, He": deep(nn.ReLU(), "he_normal"),
}
x = np.random.default_rng(0).standard_normal((16, 64))
target = np.ones((16, 1))

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True, layout="constrained")
for name, net in starts.items():
    trace = nn.trace(net, nn.MeanSquaredError(), net.init(jax.random.key(1), x), x, target)
    activations = trace.stages[0].inner  # the blocks of the Repeat
    axes[0].semilogy(range(1, 21), [np.std(stage.y) for stage in activations], label=name)
    slopes = [np.linalg.norm(stage.dy) for stage in activations]
    axes[1].semilogy(range(1, 21), slopes, label=name)
    print(f"{name:<19} ‖∂J/∂y‖: layer 20 {slopes[-1]:.1e}, layer 1 {slopes[0]:.1e}")
axes[0].set(xlabel="layer", title="standard deviation of the outputs", xticks=(1, 5, 10, 15, 20))
axes[1].set(xlabel="layer", title="size of ∂J/∂y")
axes[1].legend(frameon=False, fontsize=8)
figure.savefig("lesson-07.png", dpi=80)

# %% [markdown]
# With weights that are too small, outputs and gradients vanish; with weights that are too large,
# tanh saturates while the gradient explodes. The variances of Glorot and
# He keep both near 1.
#
# **Exercise.** The derivative of `LeakyReLU(slope=0.1)` is never 0: y is x where x > 0, and 0.1 x
# elsewhere. The forward pass keeps x. Return `()` and dJ/dx.


# %%
def backward(params, cache, dy):
    x = cache
    raise NotImplementedError  # your turn


x = np.random.default_rng(0).standard_normal((5, 3))
print(nn.diagnose(nn.LeakyReLU(slope=0.1), backward=backward, x=x))
