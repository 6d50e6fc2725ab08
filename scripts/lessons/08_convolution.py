# %% [markdown]
# # 8. Convolution as a layer
#
# **Question.** How can nine weights process a whole image?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn
from jaxnn import data

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# The same small kernel is moved over the image: $y_{r,s} = \sum_{k,l} x_{r+k,\,s+l}\, w_{k,l}$.
# Each output is a neuron whose inputs are a patch of the image, and all of them share their
# weights.

# %%
image = data.digits().x[0].reshape(1, 8, 8, 1).astype(float)
kernels = {
    "a mean": np.ones((3, 3)) / 9,
    "left to right": np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
    "top to bottom": np.array([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]) / 4,
}
conv = nn.Conv2D(1, 3, bias=False)

figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.9), layout="constrained")
axes[0].imshow(image[0, ..., 0], cmap="gray_r")
axes[0].set_title("the image")
for (name, kernel), ax in zip(kernels.items(), axes[1:], strict=True):
    y = nn.apply(conv, nn.ConvParams(kernel.reshape(3, 3, 1, 1), None), image)
    ax.imshow(y[0, ..., 0], cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_title(name)
for ax in axes:
    ax.axis("off")
figure.savefig("lesson-08.png", dpi=80)

# %% [markdown]
# The sums can be followed for a 4 × 4 image with a 2 × 2 kernel. In the backward pass, the
# derivative of a weight is a sum over all positions of the kernel, and that of a pixel is a sum
# over all windows that contain it.

# %%
net = nn.chain(nn.Conv2D(1, 2, padding="VALID"), nn.Flatten(), nn.Dense(1))
small = np.arange(16.0).reshape(1, 4, 4, 1) / 8 - 1
params = net.init(jax.random.key(0), small)
trace = nn.trace(net, nn.MeanSquaredError(), params, small, np.array([[1.0]]))
text = nn.explain(trace, digits=3)
wanted = ("    y[0, 0, 0] = x", "    dw[0, 0, 0, 0] =", "    dx[1, 1, 0] = dy[0, 0, 0]")
print("\n".join(line for line in text.splitlines() if line.startswith(wanted)))

# %% [markdown]
# **Exercise.** Consider a convolution along one axis with two weights and no padding: $y_t = x_t
# w_0 + x_{t+1} w_1$. The kernel has shape (2, 1, 1); the forward pass kept x (B, T, 1), and dy is
# (B, T - 1, 1). Return `nn.ConvParams(dw, None)` and dx.


# %%
def backward(params, cache, dy):
    x, w = cache, params.w
    raise NotImplementedError  # your turn


line = nn.Conv1D(1, 2, padding="VALID", bias=False)
print(nn.diagnose(line, backward=backward, x=np.random.default_rng(0).standard_normal((3, 6, 1))))
print("the kernel has", jnp.size(conv.init(jax.random.key(0), image).w), "weights")
