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
# The lecture's example: $h = \sigma(W^\top x)$, $y = \sigma(V^\top h)$, one sample, the label 1.

# %%
net = nn.chain(nn.Dense(3, bias=False), nn.Sigmoid(), nn.Dense(1, bias=False), nn.Sigmoid())
W, V = np.array([[1.0, -1, 3], [2, 2, -1]]), np.array([[0.1], [0.5], [-0.1]])
params = (nn.DenseParams(W, None), (), nn.DenseParams(V, None), ())
trace = nn.trace(net, nn.BinaryCrossEntropy(), params, np.array([[5.0, 3.0]]), np.array([[1]]))
print(nn.explain(trace))

# %% [markdown]
# One weight alone, factor by factor from the loss:

# %%
print(nn.explain(trace, of="[0].w[0, 1]"))

# %%
figure = plots.BackpropDisplay.from_trace(trace).figure_
figure.savefig("lesson-05.png", dpi=80)

# %% [markdown]
# And is it right? `jax.grad`, and finite differences, say so.

# %%
print(nn.certify(net, np.random.default_rng(0).standard_normal((4, 2))))

# %% [markdown]
# `nn.explain(trace, "html")` is a page that steps; `nn.explain(trace, "latex", blanks=True, seed=7)` a
# worksheet with other numbers.
#
# **Exercise.** Go back through all four layers. The cache is that of each layer: `Dense` kept its input,
# `Sigmoid` its output. Return a tuple with one entry a layer, and dJ/dx.


# %%
def backward(params, cache, dy):
    (w, _), (v, _) = params[0], params[2]
    x, h, _, y = cache
    raise NotImplementedError  # your turn


print(nn.diagnose(net, backward=backward, x=np.random.default_rng(0).standard_normal((5, 2))))
