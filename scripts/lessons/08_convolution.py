# %% [markdown]
# # 8. Convolution as a layer
#
# **The idea.** To find an edge in a photograph, you do not need to see all of it. You look at a
# small window, ask the same question there, and move the window on. A convolution does this: its
# **kernel** is a small table of weights, and it is moved over the image. At each place it is an
# ordinary neuron, whose inputs are the pixels in the window. All places share the same weights.
#
# ```text
#   image            kernel        response
#   . . . . . .                    . . . .
#   . ┌─────┐ .      w w w         . ● . .     ● = sum of (pixel × weight)
#   . │ 3×3 │ .      w w w         . . . .         over the 3 × 3 window
#   . └─────┘ .      w w w         . . . .
#   . . . . . .
# ```
#
# The window is also called the **receptive field**: the pixels that an output can see. It grows
# with depth. A second layer of 3 × 3 kernels sees 3 × 3 outputs of the first, and thus 5 × 5
# pixels.
#
# **Question.** How can nine weights process a whole image?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import practice

import jaxnn as nn
from jaxnn import data

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers**, along one axis: the kernel (-1, 1) subtracts each number from the next one. It
# answers 0 where nothing changes, and shows both edges of the step.

# %%
line = np.array([0.0, 0, 1, 1, 1, 0])
print("the line     ", line)
print("its response ", np.array([-1 * line[t] + 1 * line[t + 1] for t in range(5)]))

# %% [markdown]
# **In code.** In two dimensions, $z_{r,s} = \sum_{k,l} x_{r+k-1,\,s+l-1}\, W_{k,l}$, where rows and
# columns count from 1. At the border of the image, pixels that do not exist count as 0. The three
# kernels below were chosen by hand; a network learns its own.

# %%
image = data.digits().x[0].reshape(1, 8, 8, 1).astype(float)
kernels = {
    "mean of the window": np.ones((3, 3)) / 9,
    "right minus left": np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
    "bottom minus top": np.array([[-1.0, -2, -1], [0, 0, 0], [1, 2, 1]]) / 4,
}
conv = nn.Conv2D(1, 3, bias=False)


def outline(ax, row, column, size):
    """Draw a square around some pixels."""
    corner = (column - 0.5, row - 0.5)
    ax.add_patch(plt.Rectangle(corner, size, size, fill=False, color="#f2b705", lw=2.5))


figure, axes = plt.subplots(2, 4, figsize=(10.5, 4.4), height_ratios=(1, 2.2), layout="constrained")
axes[1, 0].imshow(image[0, ..., 0], cmap="gray_r")
axes[1, 0].set_title("image: ink is 1, paper 0")
outline(axes[1, 0], 2, 1, 3)
for column, (name, kernel) in enumerate(kernels.items(), start=1):
    z = nn.apply(conv, nn.ConvParams(kernel.reshape(3, 3, 1, 1), None), image)
    top, bottom = axes[:, column]
    top.imshow(kernel, cmap="RdBu", vmin=-1, vmax=1)
    top.set_title(name)
    for (row, place), weight in np.ndenumerate(kernel):
        top.text(place, row, f"{weight:.2g}", ha="center", va="center", fontsize=8)
    shown = bottom.imshow(z[0, ..., 0], cmap="RdBu", vmin=-1, vmax=1)
    outline(bottom, 3, 2, 1)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
axes[0, 0].axis("off")
figure.colorbar(shown, ax=axes[1, :], shrink=0.9, label="response")
figure.savefig("lesson-08.png", dpi=80)
print("each kernel has", kernel.size, "weights; a Dense layer would have", image.size**2)

# %% [markdown]
# Upper row: the nine weights. Lower row: the image and the three responses. The yellow square in
# the image is the receptive field of the yellow pixel in the responses. "Right minus left" is blue
# where ink begins, red where it ends, and white where nothing changes from left to right. The
# border has strong responses, too: there the window reaches over the edge of the image, into the
# zeros.
#
# A learned kernel needs its derivatives. A weight is used at every place, and so its derivative is
# a sum over all places:
# $\partial J / \partial W_{k,l} = \sum_{r,s} x_{r+k-1,\,s+l-1}\, \delta_{r,s}$. A pixel is used in
# every window that contains it, and so its derivative is a sum over these windows. This is the
# pixel in row 2 and column 2 of a 4 × 4 image, with a 2 × 2 kernel. Four windows contain it, once
# in each of their corners:

# %%
net = nn.chain(nn.Conv2D(1, 2, padding="VALID"), nn.Flatten(), nn.Dense(1))
small = np.arange(16.0).reshape(1, 4, 4, 1) / 8 - 1
params = net.init(jax.random.key(0), small)
trace = nn.trace(net, nn.MeanSquaredError(), params, small, np.array([[1.0]]))
lines = nn.explain(trace, digits=3).splitlines()
formula = next(line.strip() for line in lines if "∂J/∂x[2, 2, 1] =" in line)
print(formula.replace(" = ", "\n    = "))

# %% [markdown]
# ## Exercises
#
# **8.1, a number.** The line (1, 3, 2) meets the kernel (2, -1), without padding. What is the
# second of the two outputs?

# %%
second = None  # your turn: 8.1
by_two = nn.Conv1D(1, 2, padding="VALID", bias=False)
two = nn.ConvParams(jnp.array([2.0, -1]).reshape(2, 1, 1), None)
practice.check(
    "8.1", second, nn.apply(by_two, two, jnp.array([1.0, 3, 2]).reshape(1, 3, 1))[0, 1, 0]
)

# %% [markdown]
# **8.2, a formula.** How many pixels wide is the receptive field after L layers of kernels that are
# 3 wide?


# %%
def receptive_field(layers):
    raise NotImplementedError  # your turn: 8.2


def measured(layers):
    """Count the inputs on which the output in the middle depends."""
    deep = nn.chain(*[nn.Conv1D(1, 3, bias=False, w_init=("normal", 1.0))] * layers)
    x = np.zeros((1, 41, 1))
    middle = lambda x: nn.apply(deep, deep.init(jax.random.key(0), x), x)[0, 20, 0]  # noqa: E731
    return np.count_nonzero(jax.grad(middle)(x))


practice.check("8.2", receptive_field, measured, 4)

# %% [markdown]
# **8.3, code.** Consider a convolution along one axis with two weights and no padding:
# $z_t = x_t w_1 + x_{t+1} w_2$. In the code, the kernel w has shape (2, 1, 1), the forward pass
# kept x (B, T, 1), and dz has shape (B, T - 1, 1). Return `nn.ConvParams(dw, None)` and dx.


# %%
def backward(params, cache, dz):
    x, w = cache, params.w
    raise NotImplementedError  # your turn: 8.3


x = np.random.default_rng(0).standard_normal((3, 6, 1))
print(nn.diagnose(by_two, backward=backward, x=x))
