# %% [markdown]
# # 2. Activation functions, and saturation
#
# **The idea.** A neuron learns by small changes: move a weight a little, and look whether the
# output moves in the wanted direction. The derivative of the activation says how much the output
# moves when z does. If the curve is flat there, the derivative is 0, nothing moves, and the neuron
# cannot learn. The picture shows five activations, and their derivatives as dashed curves.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import practice

import jaxnn as nn
from jaxnn import plots

jax.config.update("jax_enable_x64", True)

activations = [nn.Heaviside(), nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.GELU()]
figure, axes = plt.subplots(1, 5, figsize=(15, 2.9), layout="constrained")
for activation, ax in zip(activations, axes, strict=True):
    plots.ActivationDisplay.from_layer(activation, ax=ax)
for ax in axes[1:]:
    ax.get_legend().remove()  # one legend is enough
figure.savefig("lesson-02.png", dpi=80)

# %% [markdown]
# **Question.** Why did the field move from the step (Heaviside) to the sigmoid, and from the
# sigmoid to ReLU?
#
# **In numbers.** A derivative is the slope of a curve: the change of a, divided by the change of z.
# We measure it with a change of z by one millionth.


# %%
def slope(activation, z, h=1e-6):
    before, after = (nn.apply(activation, (), jnp.array([z + d])) for d in (-h / 2, h / 2))
    return float((after - before)[0]) / h


print("slope at         ", *(f"z = {z:>4}" for z in (0.1, 2.0, 5.0, 10.0)))
for activation in activations:
    print(f"{activation!r:<16}", *(f"{slope(activation, z):8.5f}" for z in (0.1, 2.0, 5.0, 10.0)))

# %% [markdown]
# * The step is flat everywhere. It can decide, but it cannot learn by small changes.
# * The sigmoid has a slope everywhere, but it is at most 1/4, and almost 0 at z = 10, where the
#   neuron is quite sure. A neuron in the flat part of its curve is called **saturated**. If it is
#   sure and wrong, it needs very many steps to change its mind.
# * Tanh is a sigmoid that is stretched to the range from -1 to 1: $\tanh(z) = 2 \sigma(2 z) - 1$.
#   Its slope is up to 1, but it saturates even earlier.
# * ReLU, $\max(0, z)$, has the slope 1 for every positive z, however large. Its price is the slope
#   0 for all negative z: a neuron whose z is negative for every sample has stopped learning.
# * GELU is a smooth variant of ReLU. The table shows what is odd about it: around z = 2 its slope
#   is larger than 1, and below z = -0.75 its slope is negative.
#
# **In code.** Each activation of the library computes its derivative from what the forward pass has
# kept. For the sigmoid that is its output a, because $\sigma'(z) = a (1 - a)$. This saves the
# second exponential:

# %%
z = np.array([0.1, 2.0, 5.0, 10.0])
a = 1 / (1 + np.exp(-z))
print("a (1 - a) =", np.round(a * (1 - a), 5))

# %% [markdown]
# ## Exercises
#
# **2.1, a number.** What is the largest slope of the sigmoid? It is at z = 0.

# %%
largest = None  # your turn: 2.1
practice.check("2.1", largest, slope(nn.Sigmoid(), 0.0))

# %% [markdown]
# **2.2, a formula.** Express the slope of tanh by its output $a = \tanh(z)$.


# %%
def slope_of_tanh(a):
    raise NotImplementedError  # your turn: 2.2


points = np.linspace(-3, 3, 7)
practice.check("2.2", slope_of_tanh, lambda a: 1 / np.cosh(points) ** 2, np.tanh(points))

# %% [markdown]
# **2.3, code.** A leaky ReLU is z where z > 0, and 0.1 z elsewhere, so that no neuron stops
# learning. Return its output and its slope for an array z. At z = 0 the slope is that of the
# negative side.


# %%
def leaky(z):
    raise NotImplementedError  # your turn: 2.3


def leaky_by_measurement(z):
    return nn.apply(nn.LeakyReLU(0.1), (), z), [slope(nn.LeakyReLU(0.1), one) for one in z]


practice.check("2.3", leaky, leaky_by_measurement, jnp.array([-2.0, -0.3, 0.3, 2.0]))
