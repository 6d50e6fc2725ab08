# %% [markdown]
# # 10. Attention
#
# **The idea.** In a library you have a question. Every book has a title, and a content. You compare
# your question with all titles, and then read mostly the books whose titles fit. Attention does the
# same with vectors. Each position of a sequence has
#
# * a **query** q: what it is looking for (your question);
# * a **key** k: what it offers to be found by (the title);
# * a **value** v: what it hands over when it is found (the content).
#
# All three are computed from the same inputs x, by three matrices that are learned:
# $q = x W_q + b_q$, $k = x W_k + b_k$ and $v = x W_v + b_v$. Three are needed, because what one
# looks for, what one offers and what one says are three different things.
#
# ```text
#   query q ──┬── compare with each key k₁ … k_T ──► scores s = q·k / √D
#             │                                          │ softmax
#             │                                      weights p, which add up to 1
#             ╰── output o = p₁v₁ + … + p_T v_T  ◄───────╯
# ```
#
# **Question.** How does a network choose the inputs that it uses, and how does it learn to choose?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import practice

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** The query (1, 0) meets three keys. The scores are inner products, which are large
# where two vectors point in the same direction. The **softmax** $p_i = e^{s_i} / \sum_j e^{s_j}$
# turns scores into weights that are positive and add up to 1. The output is the weighted mean of
# the values. The scores are divided by √D, where D is the number of entries of a query. Otherwise
# they would grow with D, the softmax would saturate, and its derivatives would be almost 0.

# %%
q, k = np.array([1.0, 0]), np.array([[3.0, 0], [0, 3.0], [-3.0, 0]])
v = np.array([10.0, 20.0, 30.0])
s = k @ q / np.sqrt(2)
p = np.exp(s) / np.exp(s).sum()
print("scores ", np.round(s, 3))
print("weights", np.round(p, 3), " output", np.round(p @ v, 3))

# %% [markdown]
# **In code.** Here is a task that needs attention. In a row of eight numbers exactly one is marked,
# and the answer is the marked number. Each position has four inputs: the number, 1 if it is marked,
# 1 if it is not, and always 1. The network has to *find* the mark, wherever it is, and hand over
# the number.

# %%
random = np.random.default_rng(0)
rows, time = 512, 8
numbers, marked = random.standard_normal((rows, time)), random.integers(0, time, rows)
marks = np.eye(time)[marked]
x = np.stack([numbers, marks, 1 - marks, np.ones((rows, time))], axis=-1)
target = numbers[np.arange(rows), marked][:, None]

net = nn.chain(nn.MultiHeadAttention(1), nn.GlobalAveragePool(), nn.Dense(1))
key = jax.random.key(0)
fit = nn.fit(
    net, nn.MeanSquaredError(), optax.adam(0.02), (x, target), epochs=30, batch_size=64, key=key
)
error, error_of_0 = fit.evaluate((x, target))["loss"], np.mean(target**2)
print(f"mean squared error {error:.4f}; that of always answering 0: {error_of_0:.2f}")


# %% [markdown]
# We look at the weights p, before and after training, for a row whose mark is in the middle.


# %%
def weights_of(params, x):
    """Return p, with a row for each query and a column for each key."""
    q, k = x @ params.wq + params.bq, x @ params.wk + params.bk
    return jax.nn.softmax(q @ k.T / np.sqrt(params.wq.shape[1]), axis=-1)


row = int(np.flatnonzero(marked == 3)[0])
places = [f"{number:.1f}" + (" ★" if mark else "") for number, mark in x[row, :, :2]]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
for ax, title, params in zip(
    axes, ("before training", "after: every query finds the mark ★"),
    (net.init(key, x), fit.params), strict=True,
):  # fmt: skip
    shown = ax.imshow(weights_of(params[0], x[row]), cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(time), places, rotation=60, fontsize=8)
    ax.set_yticks(range(time), range(1, time + 1), fontsize=8)
    ax.set(title=title, xlabel="key (the number at its position)", ylabel="position of the query")
figure.colorbar(shown, ax=axes, label="weight p")
figure.savefig("lesson-10.png", dpi=80)

# %% [markdown]
# Before training, each query looks nearly everywhere. After training, all weight is on the marked
# position, though nobody told the network what a mark is. The gradient could teach it, because the
# softmax is smooth: if a little more weight on one value makes the answer better, the scores change
# in that direction. All eight queries ask the same here, as the answer is the same for all of them;
# in a text, each word asks for something else.
#
# ## Exercises
#
# **10.1, a number.** The scores are 0 and ln 3. What is the second weight of the softmax?

# %%
second = None  # your turn: 10.1
practice.check("10.1", second, jax.nn.softmax(jnp.log(jnp.array([1.0, 3.0])))[1])

# %% [markdown]
# **10.2, a formula.** Write attention for all queries at once: q, k and v are (T, D), a row for
# each position. `jax.nn.softmax(s, axis=-1)` is the softmax along the keys.


# %%
def attend(q, k, v):
    raise NotImplementedError  # your turn: 10.2


def by_jax(q, k, v):
    return jax.nn.dot_product_attention(*(one[:, None] for one in (q, k, v)))[:, 0]  # one head


practice.check("10.2", attend, by_jax, *jnp.asarray(random.standard_normal((3, 5, 4))))

# %% [markdown]
# **10.3, code.** Write the backward pass of the softmax $y_i = e^{x_i} / \sum_j e^{x_j}$. Every
# output depends on every input: $\partial y_i / \partial x_j = y_i (1 - y_j)$ for i = j, and
# $-y_i y_j$ otherwise. So $dx_j = \sum_i dy_i\, \partial y_i / \partial x_j$. The cache is (e,
# total), with y = e / total, and the sum runs along the last axis. Return `()` and dx.


# %%
def backward(params, cache, dy):
    e, total = cache
    y = e / total
    raise NotImplementedError  # your turn: 10.3


print(nn.diagnose(nn.Softmax(), backward=backward, x=random.standard_normal((4, 5))))
