# %% [markdown]
# # 1. An artificial neuron
#
# **Question.** A neuron multiplies its inputs by weights, adds the products, and fires if the sum
# is large. Which classes can a single neuron distinguish?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn
from jaxnn import data, plots

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# A neuron is $f(x) = \sigma(\theta^\top x)$. A bias is the weight of an input that is always 1.

# %%
neuron, params = nn.Neuron(), nn.NeuronParams(jnp.array([1.0, -1.0, 0.5]))
x = jnp.array([[2.0, 1.0, 1.0], [0.0, 3.0, 1.0]])
print("it fires with", np.round(nn.apply(neuron, params, x), 4))

# %% [markdown]
# The data are two measurements of 150 irises. A neuron learns by gradient descent which are
# *setosa*.

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
# **Exercise.** Write the derivatives of the neuron. The forward pass kept the inputs x (B, I) and
# the outputs y (B,); dy (B,) is dJ/dy. Return dJ/dθ in a `NeuronParams`, and dJ/dx.


# %%
def backward(params, cache, dy):
    x, y = cache
    raise NotImplementedError  # your turn


print(nn.diagnose(neuron, backward=backward, x=np.random.default_rng(0).standard_normal((5, 3))))
