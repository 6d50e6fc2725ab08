# %% [markdown]
# # 1. An artificial neuron
#
# **The idea.** A nerve cell collects signals from other cells, and fires if they are strong enough
# together. An artificial neuron imitates this with a sum. It multiplies each input by a weight,
# adds the products and a bias, and turns the sum into a number between 0 and 1:
#
# ```text
#   x₁ ──·w₁──╮
#   x₂ ──·w₂──┼── z = x₁w₁ + x₂w₂ + b ── a = σ(z)
#    1 ──·b───╯                          between 0 (silent) and 1 (firing)
# ```
#
# Throughout these lessons z is the number before the activation σ, and a is the number after it. A
# large weight means that an input matters much, and a negative weight that it speaks against
# firing.
#
# **Question.** Which classes can a single neuron distinguish?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import practice

import jaxnn as nn
from jaxnn import data, plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** The activation is the sigmoid, $\sigma(z) = 1 / (1 + e^{-z})$: it is near 0 for
# very negative z, 1/2 for z = 0, and near 1 for large z. Below, the weights are 1 and -1 and the
# bias is 0.5. The first sample has $z = 2 \cdot 1 + 1 \cdot (-1) + 0.5 = 1.5$ and the second has $z
# = 0 \cdot 1 + 3 \cdot (-1) + 0.5 = -2.5$.

# %%
for z in (1.5, -2.5):
    print(f"z = {z:>4}: a = σ(z) = {1 / (1 + np.exp(-z)):.4f}")

# %% [markdown]
# **In code.** The bias is the weight of an input that is always 1, so that all weights fit into one
# vector θ. Each row of x is a sample, and its last entry is that 1.

# %%
neuron, params = nn.Neuron(), nn.NeuronParams(jnp.array([1.0, -1.0, 0.5]))
x = jnp.array([[2.0, 1.0, 1.0], [0.0, 3.0, 1.0]])
print("the library gives", np.round(nn.apply(neuron, params, x), 4))

# %% [markdown]
# Nobody has to choose the weights by hand. The data below are two measurements of 150 irises, and
# the neuron learns to tell *setosa* from the two other species. How it learns is the subject of
# lesson 6; here we only look at the result.

# %%
iris = data.iris_setosa()
run = nn.logistic_descent(data.with_ones(iris.x), iris.y, step_size=0.1, threshold=1e-3)
right = np.mean((nn.apply(neuron, run.params, data.with_ones(iris.x)) >= 0.5) == iris.y)
print(f"after {run.iterations} steps it is right about {right:.0%} of the flowers")


def probability(points):
    return nn.apply(neuron, run.params, data.with_ones(points))


figure, ax = plt.subplots(figsize=(5.4, 4), layout="constrained")
plots.BoundaryDisplay.from_function(probability, iris.x, ax=ax)
plots.ScatterDisplay.from_data(
    *iris[:2], feature_names=iris.feature_names, class_names=iris.class_names, ax=ax
)
ax.set_title("one neuron draws one straight line")
figure.savefig("lesson-01.png", dpi=80)

# %% [markdown]
# The neuron says "not setosa" where a ≥ 1/2, which is where z ≥ 0. The border is therefore the set
# of points with $x_1 w_1 + x_2 w_2 + b = 0$, a straight line. This answers the question: a neuron
# can distinguish two classes if a straight line separates them, or almost. Here it stopped early,
# with one flower on the wrong side; with more steps the line moves until all 150 are right.
#
# ## Exercises
#
# Write your answers in place of `None` and of `raise NotImplementedError`, and run the cell again.
# `practice.hint("1.1")` shows a hint, and `practice.solution("1.1")` a worked solution. In a
# terminal, write `python scripts/exercises.py --hint 1.1` or `--solution 1.1`.
#
# **1.1, a number.** The neuron above, with the weights 1 and -1 and the bias 0.5, receives $x_1 =
# 1$ and $x_2 = 2$. Compute z, and then a.

# %%
a = None  # your turn: 1.1
practice.check("1.1", a, nn.apply(neuron, params, jnp.array([[1.0, 2.0, 1.0]]))[0])

# %% [markdown]
# **1.2, a formula.** At which $x_2$ does the border lie for a given $x_1$?


# %%
def border(x1, w1, w2, b):
    raise NotImplementedError  # your turn: 1.2


def given_by_two_points(x1, w1, w2, b):
    """The line through the two points where it crosses the axes."""
    return np.interp(x1, [0, -b / w1], [-b / w2, 0])


practice.check("1.2", border, given_by_two_points, np.array([0.0, 1.5, 2.5]), 2.0, 4.0, -6.0)

# %% [markdown]
# **1.3, code.** Write the neuron for a batch. Each row of x (B, 3) is a sample, theta has 3
# entries, and the answer has one a for each of the B samples.


# %%
def my_neuron(theta, x):
    raise NotImplementedError  # your turn: 1.3


flowers = data.with_ones(iris.x)
practice.check("1.3", my_neuron, lambda theta, x: probability(x[:, :2]), run.params.theta, flowers)
