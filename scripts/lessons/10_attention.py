# %% [markdown]
# # 10. Attention
#
# **Question.** How does a network choose the inputs that it uses, and how does it learn to choose?

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# Each query is compared with all keys; the softmax of the scores is the weight of each value: $p =
# \mathrm{softmax}(q k^\top / \sqrt D)$, $o = p\, v$. The following task needs attention: in a row
# of numbers exactly one is marked, and the answer is the marked number.

# %%
random = np.random.default_rng(0)
rows, time = 512, 8
values, marked = random.standard_normal((rows, time)), random.integers(0, time, rows)
marks = np.eye(time)[marked]
x = np.stack([values, marks, 1 - marks, np.ones((rows, time))], axis=-1)
target = values[np.arange(rows), marked][:, None]

net = nn.chain(nn.MultiHeadAttention(1), nn.GlobalAveragePool(), nn.Dense(1))
key = jax.random.key(0)
fit = nn.fit(
    net, nn.MeanSquaredError(), optax.adam(0.02), (x, target), epochs=30, batch_size=64, key=key
)
error, error_of_0 = fit.evaluate((x, target))["loss"], np.mean(target**2)
print(f"mean squared error {error:.4f}; that of always answering 0: {error_of_0:.2f}")


# %% [markdown]
# We compute p, the weights of attention, by the formulas that `nn.explain` prints for this layer,
# before and after training.


# %%
def looks(params):
    """Return the weights of all keys for all queries of one row."""
    wq, wk, bq, bk = params.wq, params.wk, params.bq, params.bk
    q, k = x[:1] @ wq + bq, x[:1] @ wk + bk
    return jax.nn.softmax(q @ k.swapaxes(1, 2) / np.sqrt(wq.shape[1]), axis=-1)[0]


figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for ax, title, params in zip(
    axes, ("before training", "after"), (net.init(key, x), fit.params), strict=True
):
    ax.imshow(looks(params[0]), cmap="Blues", vmin=0, vmax=1)
    ax.set(title=title, xlabel=f"key (number {marked[0]} is marked)", ylabel="query")
figure.savefig("lesson-10.png", dpi=80)

# %% [markdown]
# **Exercise.** The main part of attention is the softmax, $y_i = e^{x_i} / \sum_j e^{x_j}$. Every
# output depends on every input: $\partial y_i / \partial x_j = y_i (\delta_{ij} - y_j)$. The cache
# is (e, total), with y = e / total. Return `()` and dx.


# %%
def backward(params, cache, dy):
    e, total = cache
    y = e / total
    raise NotImplementedError  # your turn


print(nn.diagnose(nn.Softmax(), backward=backward, x=random.standard_normal((4, 5))))
