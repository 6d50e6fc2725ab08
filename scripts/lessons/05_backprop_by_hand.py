# %% [markdown]
# # 5. Backpropagation by hand, and checked
#
# **The idea.** Who is to blame for a wrong answer? The last neuron knows its error. It passes the
# blame on to the neurons before it, to each in proportion to the weight that connects them, and
# they pass it on in turn. The blame that reaches a neuron is $\delta = \partial J / \partial z$.
# Once it is known, the derivative by a weight is simply the number that went into the weight, times
# the δ that came out of it. One pass back through the network yields the derivatives by all
# weights.
#
# ```text
#   forward:   x ──W⁽¹⁾──► z⁽¹⁾ ──σ──► a⁽¹⁾ ──W⁽²⁾──► z⁽²⁾ ──σ──► a⁽²⁾ ──► J
#   backward:  ∂J/∂W⁽¹⁾ ◄─ δ⁽¹⁾ ◄── ∂J/∂a⁽¹⁾ ◄─W⁽²⁾── δ⁽²⁾ ◄── ∂J/∂a⁽²⁾ ◄── 1
#                                   ∂J/∂W⁽²⁾ ◄───────╯
# ```
#
# **Question.** Can you follow every number of backpropagation through a network of two layers?

# %%
import jax
import numpy as np
import practice

import jaxnn as nn
from jaxnn import plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** One sample x = (5, 3) has the label t = 1. The network is $z^{(1)} = x W^{(1)}$,
# $a^{(1)} = \sigma(z^{(1)})$, $z^{(2)} = a^{(1)} W^{(2)}$, $a^{(2)} = \sigma(z^{(2)})$, without
# biases. The output $a^{(2)}$ is the probability of class 1. The loss is $J = -\log a^{(2)}$, the
# **cross-entropy** for the label 1: it is 0 if the network is sure and right, and grows without
# bound as the probability of the right class goes to 0. In the picture the hidden activations
# $a^{(1)}$ are called h, the output is y, and the matrices are W and V.

# %%
net = nn.chain(nn.Dense(3, bias=False), nn.Sigmoid(), nn.Dense(1, bias=False), nn.Sigmoid())
W1, W2 = np.array([[1.0, -1, 3], [2, 2, -1]]), np.array([[0.1], [0.5], [-0.1]])
params = (nn.DenseParams(W1, None), (), nn.DenseParams(W2, None), ())
trace = nn.trace(net, nn.BinaryCrossEntropy(), params, np.array([[5.0, 3.0]]), np.array([[1]]))

figure = plots.BackpropDisplay.from_trace(trace).figure_
figure.savefig("lesson-05.png", dpi=80)

# %% [markdown]
# These are all the numbers, in the order in which they are computed.

# %%
print(nn.explain(trace))

# %% [markdown]
# The same for a single weight, factor by factor from the loss:

# %%
print(nn.explain(trace, of="[0].w[0, 1]"))

# %% [markdown]
# Two things stand out. The derivatives by the weights that lead into the first and third hidden
# neuron are about a hundred thousand times smaller than those of the second. Their z is 11 and 12,
# so that they are saturated (lesson 2), and they hardly learn from this sample. And the two factors
# $\partial J / \partial a^{(2)} = -1 / a$ and $a (1 - a)$ multiply to $a - 1$, which is exercise
# 5.2: the loss removes the saturation of the last sigmoid. This is why sigmoid and cross-entropy
# belong together.
#
# Are the derivatives right? A certificate compares them with those that JAX computes by itself, and
# with finite differences, as in lesson 4.

# %%
print(nn.certify(net, np.random.default_rng(0).standard_normal((4, 2))))

# %% [markdown]
# `nn.explain(trace, "html")` is a page that shows one step at a time; `nn.explain(trace, "latex",
# blanks=True, seed=7)` is a worksheet with other numbers.
#
# **In code.** For a batch, $z = x W + b$ is one matrix product, with a row for each sample. Every
# sample uses the same weights, and so the derivative by a weight is the *sum* of what the samples
# contribute: $\partial J / \partial W_{io} = \sum_n x_{ni}\, \delta_{no}$. As matrices, this is
# $x^\top \delta$. Likewise $\partial J / \partial b$ is the sum of the rows of δ, and $\partial J /
# \partial x = \delta\, W^\top$. If you forget which side is transposed, write down the shapes: x is
# (B, I), δ is (B, O), and only one product has the shape (I, O) of W.
#
# ## Exercises
#
# **5.1, a number.** Let the label be 0 instead of 1. Then $J = -\log(1 - a^{(2)})$, and
# $\partial J / \partial a^{(2)} = 1 / (1 - a^{(2)})$. What is $\delta^{(2)}$? The forward pass does
# not change: $a^{(2)} = 0.590378$.

# %%
delta2 = None  # your turn: 5.1
other = nn.trace(net, nn.BinaryCrossEntropy(), params, np.array([[5.0, 3.0]]), np.array([[0]]))
practice.check("5.1", delta2, other.stages[2].dy[0, 0])

# %% [markdown]
# **5.2, a formula.** Write $\delta^{(2)}$ for any output a and any label t, 0 or 1. Simplify it
# until no fraction is left.


# %%
def delta(a, t):
    raise NotImplementedError  # your turn: 5.2


a, t = np.array([0.1, 0.590378, 0.9]), np.array([1, 0, 1])
practice.check("5.2", delta, lambda a, t: a * (1 - a) * np.where(t, -1 / a, 1 / (1 - a)), a, t)

# %% [markdown]
# **5.3, code.** Write the backward pass of one layer `Dense`, $z = x W + b$. The cache is x (B, I),
# and dz (B, O) is δ. Return `nn.DenseParams(dw, db)`, summed over the batch, and dx.


# %%
def dense_backward(params, cache, dz):
    x, (w, b) = cache, params
    raise NotImplementedError  # your turn: 5.3


x = np.random.default_rng(0).standard_normal((5, 4))
print(nn.diagnose(nn.Dense(3), backward=dense_backward, x=x))

# %% [markdown]
# **5.4, code.** Write the backward pass through all four layers of the network above. The cache
# contains that of each layer: `Dense` kept its input, `Sigmoid` its output. Return a tuple with one
# entry for each layer, where that of `Dense` is `nn.DenseParams(dw, None)` and that of `Sigmoid` is
# `()`, and then dx.


# %%
def backward(params, cache, dy):
    (w1, _), (w2, _) = params[0], params[2]
    x, a1, _, a2 = cache
    raise NotImplementedError  # your turn: 5.4


print(nn.diagnose(net, backward=backward, x=np.random.default_rng(0).standard_normal((5, 2))))
