# %% [markdown]
# # 3. Layers and networks
#
# **The idea.** One neuron draws one straight line. Several neurons side by side draw several lines,
# and a further neuron can combine their answers. Neurons side by side form a **layer**; layers one
# after the other form a **network**.
#
# ```text
#            layer 1                 layer 2
#         ╭─ a₁ = tanh(z₁) ─╮
#   x₁ ───┼─ a₂ = tanh(z₂) ─┼── z, the answer: class 1 if z > 0
#   x₂ ───┼─ a₃ = tanh(z₃) ─┤
#         ╰─ a₄ = tanh(z₄) ─╯
# ```
#
# **Question.** What can two layers represent that a single neuron cannot?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import practice

import jaxnn as nn
from jaxnn import plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** The smallest task that no straight line solves is the exclusive or: the answer is
# 1 if exactly one of two inputs is 1. The points of class 1 lie at two opposite corners of a
# square. Two neurons with the step function as activation are enough to prepare the answer: the
# first fires if *at least one* input is 1, and the second fires if *both* are. Class 1 is "the
# first, but not the second".

# %%
x = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
target = np.array([[0], [1], [1], [0]])
at_least_one = (x[:, 0] + x[:, 1] - 0.5 > 0).astype(int)
both = (x[:, 0] + x[:, 1] - 1.5 > 0).astype(int)
answer = (at_least_one - both - 0.5 > 0).astype(int)
for row in zip(x.astype(int), at_least_one, both, answer, strict=True):
    print("x = {}: at least one {}, both {}, answer {}".format(*row))

# %% [markdown]
# **In code.** The weights of a layer form a matrix: column j of W holds the weights of neuron j.
# The layer computes $z^{(l)} = a^{(l-1)} W^{(l)} + b^{(l)}$ and $a^{(l)} = \sigma(z^{(l)})$ for l =
# 1, …, L, where $a^{(0)} = x$. In the library the first half is `Dense`, and the activation stands
# behind it. Formulas count layers from 1; code counts places from 0, so that W⁽¹⁾ is `params[0].w`.

# %%
net = nn.chain(nn.Dense(4), nn.Tanh(), nn.Dense(1))
print(nn.summary(net, x))

# %% [markdown]
# The network learns the exclusive or from its four examples, by a method that lesson 6 explains.
# Its answer z is called a **logit**: $\sigma(z)$ is the probability of class 1, and the border lies
# at z = 0.

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
print("logits:", np.round(fit.predict(x)[:, 0], 1), "for the classes", target[:, 0])

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
plots.NetworkDisplay.from_network(net, inputs=2, ax=axes[0])
plots.BoundaryDisplay.from_function(
    lambda points: jax.nn.sigmoid(fit.predict(points)[:, 0]), x, ax=axes[1]
)
plots.ScatterDisplay.from_data(x, target[:, 0], ax=axes[1])
axes[1].set_title("two layers separate what one straight line cannot")
figure.savefig("lesson-03.png", dpi=80)

# %% [markdown]
# The border is curved, because tanh is a smooth step. It differs from our solution by hand, which
# has two parallel lines: many networks solve the same task, and training finds one of them.
#
# Without an activation the second layer would gain nothing: $(x W^{(1)}) W^{(2)} = x (W^{(1)}
# W^{(2)})$ is again one layer, and again a straight line.
#
# ## Exercises
#
# **3.1, a number.** A network has 3 inputs, a layer of 5 neurons, and a layer of 2 neurons, all
# with biases. How many parameters does it have?

# %%
count = None  # your turn: 3.1
sizes = nn.chain(nn.Dense(5), nn.Tanh(), nn.Dense(2)).init(jax.random.key(0), np.ones((1, 3)))
practice.check("3.1", count, sum(leaf.size for leaf in jax.tree.leaves(sizes)))

# %% [markdown]
# **3.2, a formula.** How many parameters does a layer of O neurons with biases have, if it receives
# I inputs?


# %%
def parameters(inputs, outputs):
    raise NotImplementedError  # your turn: 3.2


def counted(inputs, outputs):
    params = nn.Dense(outputs).init(jax.random.key(0), np.ones((1, inputs)))
    return params.w.size + params.b.size


practice.check("3.2", parameters, counted, 7, 4)

# %% [markdown]
# **3.3, code.** Write the whole network of two layers for a batch x (B, 2), with tanh between the
# layers. Return the logits (B, 1).


# %%
def forward(x, w1, b1, w2, b2):
    raise NotImplementedError  # your turn: 3.3


(w1, b1), _, (w2, b2) = fit.params
practice.check("3.3", forward, lambda *_: fit.predict(x), jnp.asarray(x), w1, b1, w2, b2)
