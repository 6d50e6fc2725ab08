# %% [markdown]
# # 7. Initialisation, and vanishing gradients
#
# **The idea.** Think of a rumour that is passed on by twenty people. If each of them tells only
# half of it, nothing is left at the end; if each of them doubles it, it ends in wild exaggeration.
# A deep network does this twice: numbers go forward through twenty layers, and gradients come back
# through twenty layers. Both survive only if each layer neither shrinks nor enlarges them, and that
# depends on how large the weights are at the start.
#
# ```text
#   each layer × 0.5:   1 → 0.5 → 0.25 → … → 0.000001     vanishes
#   each layer × 1:     1 → 1   → 1    → … → 1            arrives
#   each layer × 2:     1 → 2   → 4    → … → 1000000      explodes
# ```
#
# **Question.** In a network of twenty layers, is the gradient of the first one still large enough?

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import practice

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** A neuron with I inputs computes $z = \sum_i x_i w_i$. If the inputs and the
# weights are independent with mean 0, the variances of the products add up: the variance of z is I
# times that of x times that of w. With 64 inputs of variance 1, weights of standard deviation 0.03
# shrink it to 64 · 0.0009 = 0.06, weights of 0.5 enlarge it to 16, and those of
# $1 / \sqrt{64} = 0.125$ keep it.

# %%
random = np.random.default_rng(0)
x = random.standard_normal((1000, 64))
for size in (0.03, 0.125, 0.5):
    z = x @ (size * random.standard_normal((64, 64)))
    print(f"weights of size {size}: the variance of z is {z.var():.3f}")

# %% [markdown]
# The rule of **Glorot** sets the standard deviation of the weights to $\sqrt{2 / (I + O)}$, a
# compromise between I inputs in the forward pass and O outputs in the backward pass. The rule of
# **He** sets it to $\sqrt{2 / I}$, for ReLU: as ReLU sets half of the numbers to 0, the weights
# need twice the variance.
#
# **In code.** `Repeat` makes twenty layers of one, each with its own weights. A trace keeps the
# output y of each layer, and ∂J/∂y. We compare their sizes for several initialisations.


# %%
def deep(activation, w_init="glorot_uniform", layers=20, width=64):
    return nn.chain(
        nn.Repeat(nn.chain(nn.Dense(width, w_init=w_init), activation), layers), nn.Dense(1)
    )


starts = {
    "sigmoid, Glorot": (nn.Sigmoid(), "glorot_uniform"),
    "tanh, normal(0.03)": (nn.Tanh(), ("normal", 0.03)),
    "tanh, Glorot": (nn.Tanh(), "glorot_uniform"),
    "tanh, normal(0.5)": (nn.Tanh(), ("normal", 0.5)),
    "ReLU, He": (nn.ReLU(), "he_normal"),
}
x = np.random.default_rng(0).standard_normal((16, 64))
target = np.ones((16, 1))

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True, layout="constrained")
for name, (activation, w_init) in starts.items():
    params = deep(activation, w_init).init(jax.random.key(1), x)
    # once the weights are drawn, the networks differ in their activations only
    trace = nn.trace(deep(activation), nn.MeanSquaredError(), params, x, target)
    blocks = trace.stages[0].inner  # the twenty layers of the Repeat
    axes[0].semilogy(range(1, 21), [np.std(stage.y) for stage in blocks], label=name)
    slopes = [np.linalg.norm(stage.dy) for stage in blocks]
    axes[1].semilogy(range(1, 21), slopes, label=name)
    print(f"{name:<19} size of ∂J/∂a: layer 20 {slopes[-1]:.1e}, layer 1 {slopes[0]:.1e}")
axes[0].set(xlabel="layer", title="forward: standard deviation of a", xticks=(1, 5, 10, 15, 20))
axes[1].set(xlabel="layer", title="backward: size of ∂J/∂a, from layer 20 to layer 1")
axes[1].legend(frameon=False, fontsize=8)
figure.savefig("lesson-07.png", dpi=80)

# %% [markdown]
# * Weights that are too small (orange) let both vanish. The first layers learn nothing.
# * Weights that are too large (red) look harmless in the left panel, where tanh keeps every number
#   below 1. But the gradient explodes, by a factor of 2000 over twenty layers.
# * The sigmoid (blue) is the odd one. Its outputs keep their size, and yet its gradient vanishes.
#   The reason is not the initialisation but its slope, which is at most 1/4 (lesson 2): twenty such
#   factors are at most $4^{-20} \approx 10^{-12}$. This is why deep networks do not use it.
# * Tanh with Glorot and ReLU with He (green, violet) keep the gradient within a factor of 3.
#
# ## Exercises
#
# **7.1, a number.** A gradient passes twenty sigmoids, each with the slope 1/4, and nothing else.
# By which factor does it shrink?

# %%
factor = None  # your turn: 7.1
practice.check("7.1", factor, np.prod(np.full(20, 0.25)))

# %% [markdown]
# **7.2, a formula.** Which standard deviation must the weights of a neuron with I inputs have, so
# that z has the same variance as the inputs?


# %%
def size_of_weights(inputs):
    raise NotImplementedError  # your turn: 7.2


practice.check("7.2", size_of_weights, lambda inputs: np.sqrt(1 / inputs), 64)

# %% [markdown]
# **7.3, code.** `LeakyReLU(slope=0.1)` never has the slope 0, so that no gradient is lost entirely:
# y is x where x > 0, and 0.1 x elsewhere. The forward pass keeps x. Return `()` and dx.


# %%
def backward(params, cache, dy):
    x = cache
    raise NotImplementedError  # your turn: 7.3


x = np.random.default_rng(0).standard_normal((5, 3))
print(nn.diagnose(nn.LeakyReLU(slope=0.1), backward=backward, x=x))
