# %% [markdown]
# # 13. Your own layer
#
# **The idea.** A layer is a brick with two studs: it takes x and hands on y, and it takes dy and
# hands back dx. Whatever happens inside, a brick with these studs fits into every network.
#
# ```text
#            x ──►╭─────────╮──► y
#                 │  layer  │──► cache, for the way back
#   dx, dparams ◄─╰─────────╯◄── dy
# ```
#
# **Question.** What is needed to add a new layer?

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import practice

import jaxnn as nn
from jaxnn import data

jax.config.update("jax_enable_x64", True)


# %% [markdown]
# **In numbers.** Our layer is $y = x\, \sigma(\beta x)$, an activation whose sharpness β is
# learned, one for each feature. For β = 0 it is the straight line x / 2, and for a large β it is
# almost ReLU:

# %%
for beta in (0.0, 1.0, 10.0):
    y = [x / (1 + np.exp(-beta * x)) for x in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    print(f"β = {beta:>4}:", *(f"{one:7.3f}" for one in y), "  at x = -2, -1, 0, 1, 2")

# %% [markdown]
# Its derivatives follow by the product rule. With $s = \sigma(\beta x)$, whose own slope is
# $s (1 - s)$, they are $\partial y / \partial x = s + \beta x\, s (1 - s)$ and
# $\partial y / \partial \beta = x^2 s (1 - s)$. All samples share β, so that its derivative is a
# sum over the batch.
#
# **In code.** A layer is a class with the three methods of lesson 4, decorated with `@nn.layer`.
# The attribute `formulas` is optional: `nn.explain` and `nn.diagnose` read it.


# %%
class SharpParams(NamedTuple):
    beta: jax.Array


@nn.layer
class Sharp:
    """x σ(β x), with one β for each feature."""

    formulas = nn.Formulas(
        "y[n, i] = x[n, i] * σ(beta[i] * x[n, i])",
        "s[n, i] = σ(beta[i] * x[n, i])\n"
        "dbeta[i] = sum(x[n, i]**2 * s[n, i] * (1 - s[n, i]) * dy[n, i] for n in B)\n"
        "dx[n, i] = (s[n, i] + beta[i] * x[n, i] * s[n, i] * (1 - s[n, i])) * dy[n, i]",
    )

    def init(self, key, x):
        return SharpParams(jnp.ones(x.shape[-1:], x.dtype))

    def forward(self, params, x, key=None):
        y = x * jax.nn.sigmoid(params.beta * x)
        return y, x  # s is not kept: to compute it again is cheaper

    def backward(self, params, cache, dy):
        x, (beta,) = cache, params
        s = jax.nn.sigmoid(beta * x)
        dbeta = (x * x * s * (1 - s) * dy).sum(axis=0)
        return SharpParams(dbeta), (s + beta * x * s * (1 - s)) * dy


# %% [markdown]
# Is it right? The certificate compares it with the derivatives that JAX computes by itself, and
# with finite differences.

# %%
print(nn.certify(Sharp(), np.random.default_rng(0).standard_normal((5, 3))))

# %% [markdown]
# It can be trained like any other layer, and `nn.explain` explains it by its formulas. The printed
# line is the derivative by the first β, for one point.

# %%
train, test = data.split(data.moons())
net = nn.chain(nn.Dense(16), Sharp(), nn.Dense(1))
fit = nn.fit(
    net, nn.SigmoidBinaryCrossEntropy(), optax.adam(0.02), (train.x, train.y[:, None]),
    epochs=40, batch_size=32, key=jax.random.key(0),
)  # fmt: skip
right = np.mean((fit.predict(test.x)[:, 0] > 0) == test.y)
print(f"accuracy on held-out points: {right:.3f}")

one = nn.trace(net, nn.SigmoidBinaryCrossEntropy(), fit.params, test.x[:1], test.y[:1, None])
lines = nn.explain(one, digits=3).splitlines()
print(next(line.strip() for line in lines if "∂J/∂beta⁽²⁾[1]" in line))

z = np.linspace(-4, 4, 200)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
for beta in np.sort(fit.params[1].beta):
    axes[0].plot(z, z * jax.nn.sigmoid(beta * z), color="#2f6fb7", lw=0.8, alpha=0.7)
axes[0].set(title="the sixteen activations x σ(β x) after training", xlabel="x")
axes[1].plot(fit.history["loss"], color="#c8202f")
axes[1].set(title="the loss falls in two steps", xlabel="epoch", ylabel="J", yscale="log")
figure.savefig("lesson-13.png", dpi=80)

# %% [markdown]
# The sixteen units began with β = 1, all alike, and have become different: some are nearly ReLU,
# and some nearly straight. The loss first rests on a plateau, the same as in lesson 11, until the
# border between the moons begins to bend.
#
# ## Exercises
#
# PReLU (He et al., 2015) is a leaky ReLU whose slope a is learned: y = x where x > 0, and a x
# elsewhere. There is one a for all features.
#
# **13.1, a number.** Let a = 0.25, x = -2 and dy = 3. What is dx?

# %%
dx = None  # your turn: 13.1
practice.check("13.1", dx, 3 * jax.grad(lambda x: jnp.where(x > 0, x, 0.25 * x))(-2.0))

# %% [markdown]
# **13.2, a formula.** What is ∂y/∂a, for any x? It should work for an array.


# %%
def slope(x):
    raise NotImplementedError  # your turn: 13.2


x = jnp.array([-2.0, -0.5, 1.0])
by_a = jax.jacfwd(lambda a: jnp.where(x > 0, x, a * x))(0.25)
practice.check("13.2", slope, lambda x: by_a, x)

# %% [markdown]
# **13.3, code.** The forward pass is written, and keeps x. Write the backward pass: return
# `SlopeParams(da)` and dx.


# %%
class SlopeParams(NamedTuple):
    a: jax.Array


def backward(params, cache, dy):
    x, (a,) = cache, params
    raise NotImplementedError  # your turn: 13.3


@nn.layer
class PReLU:
    """x where it is positive, a x elsewhere."""

    def init(self, key, x):
        return SlopeParams(jnp.full((), 0.25, x.dtype))

    def forward(self, params, x, key=None):
        return jnp.where(x > 0, x, params.a * x), x

    def backward(self, params, cache, dy):
        return backward(params, cache, dy)


print(nn.diagnose(PReLU(), backward=backward, x=np.random.default_rng(0).standard_normal((5, 3))))
