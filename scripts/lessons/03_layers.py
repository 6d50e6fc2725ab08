# %% [markdown]
# # 3. Layers and networks
#
# **Question.** Which functions can two layers represent that a single neuron cannot?

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxnn as nn
from jaxnn import plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# A layer consists of parallel neurons: $f(x) = \sigma(W^\top x)$, where column k of W contains the
# weights of neuron k. A network is a sequence of layers. `print(nn.summary(net, x))` counts its
# parameters and operations.

# %%
x = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
target = np.array([[0], [1], [1], [0]])  # exclusive or: no straight line separates the classes
net = nn.chain(nn.Dense(4), nn.Tanh(), nn.Dense(1))
print(nn.summary(net, x))

# %%
fit = nn.fit(
    net,
    nn.SigmoidBinaryCrossEntropy(),
    optax.adam(0.05),
    (x, target),
    steps=400,
    key=jax.random.key(0),
    batch_size=4,
)
print("logits:", np.round(fit.predict(x)[:, 0], 1), "for the labels", target[:, 0])

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
plots.NetworkDisplay.from_network(net, inputs=2, ax=axes[0])
plots.BoundaryDisplay.from_function(
    lambda points: jax.nn.sigmoid(fit.predict(points)[:, 0]), x, ax=axes[1]
)
plots.ScatterDisplay.from_data(x, target[:, 0], ax=axes[1])
axes[1].set_title("two layers part what one line cannot")
figure.savefig("lesson-03.png", dpi=80)

# %% [markdown]
# **Exercise.** `Dense` computes $y = x W + b$ and keeps x. Return `nn.DenseParams(dw, db)`, summed
# over the batch, and dx.


# %%
def backward(params, cache, dy):
    x, (w, b) = cache, params
    raise NotImplementedError  # your turn


x = np.random.default_rng(0).standard_normal((5, 4))
print(nn.diagnose(nn.Dense(3), backward=backward, x=x))
