# %% [markdown]
# # 2. Activation functions, and saturation
#
# **Question.** Why did the field move from the step to the sigmoid, and from the sigmoid to ReLU?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn
from jaxnn import plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# A layer learns only if the derivative of its activation is not 0. The dashed curves are
# derivatives, computed by the layers' own backward passes.

# %%
activations = [nn.Heaviside(), nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.GELU()]
figure, axes = plt.subplots(1, 5, figsize=(15, 2.9), layout="constrained")
for activation, ax in zip(activations, axes, strict=True):
    plots.ActivationDisplay.from_layer(activation, ax=ax)
figure.savefig("lesson-02.png", dpi=80)


# %% [markdown]
# The derivative of the step is 0 everywhere. That of the sigmoid is at most a quarter, and almost 0
# at an input of 10: the sigmoid **saturates**.


# %%
def slope(activation, z):
    y, cache = activation.forward((), jnp.array([z]))
    return float(activation.backward((), cache, jnp.ones_like(y))[1][0])


print("derivative at    ", *(f"z = {z:>4}" for z in (0.1, 2.0, 5.0, 10.0)))
for activation in activations:
    print(f"{activation!r:<16}", *(f"{slope(activation, z):8.5f}" for z in (0.1, 2.0, 5.0, 10.0)))

# %% [markdown]
# **Exercise.** The forward pass of `Tanh` kept y = tanh(x). Return `()`, as there are no
# parameters, and dJ/dx.


# %%
def backward(params, cache, dy):
    y = cache
    raise NotImplementedError  # your turn


print(nn.diagnose(nn.Tanh(), backward=backward, x=np.random.default_rng(0).standard_normal((5, 3))))
