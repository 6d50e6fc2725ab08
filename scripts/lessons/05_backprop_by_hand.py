# %% [markdown]
# # 5. Backpropagation by hand, and checked
#
# **Question.** Can you follow every number of backpropagation through a network of two layers?

# %%
import jax
import numpy as np

import jaxnn as nn
from jaxnn import plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# This is the example of the lecture: $h = \sigma(W^\top x)$, $y = \sigma(V^\top h)$, for one sample
# with the label 1.

# %%
net = nn.chain(nn.Dense(3, bias=False), nn.Sigmoid(), nn.Dense(1, bias=False), nn.Sigmoid())
W, V = np.array([[1.0, -1, 3], [2, 2, -1]]), np.array([[0.1], [0.5], [-0.1]])
params = (nn.DenseParams(W, None), (), nn.DenseParams(V, None), ())
trace = nn.trace(net, nn.BinaryCrossEntropy(), params, np.array([[5.0, 3.0]]), np.array([[1]]))
print(nn.explain(trace))

# %% [markdown]
# The derivative by a single weight, factor by factor from the loss:

# %%
print(nn.explain(trace, of="[0].w[0, 1]"))

# %%
figure = plots.BackpropDisplay.from_trace(trace).figure_
figure.savefig("lesson-05.png", dpi=80)

# %% [markdown]
# Are the derivatives right? We compare them with `jax.grad` and with finite differences.

# %%
print(nn.certify(net, np.random.default_rng(0).standard_normal((4, 2))))

# %% [markdown]
# `nn.explain(trace, "html")` is a page that shows one step at a time; `nn.explain(trace, "latex",
# blanks=True, seed=7)` is a worksheet with other numbers.
#
# **Exercise.** Write the backward pass through all four layers. The cache contains that of each
# layer: `Dense` kept its input, `Sigmoid` its output. Return a tuple with one entry for each layer,
# and dJ/dx.


# %%
def backward(params, cache, dy):
    (w, _), (v, _) = params[0], params[2]
    x, h, _, y = cache
    raise NotImplementedError  # your turn


print(nn.diagnose(net, backward=backward, x=np.random.default_rng(0).standard_normal((5, 2))))
