# %% [markdown]
# # 13. Your own layer
#
# **Question.** What is needed to add a new layer?

# %%
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxnn as nn
from jaxnn import data

jax.config.update("jax_enable_x64", True)


# %% [markdown]
# A layer is a class with three functions, decorated with `@nn.layer`. This one is a sigmoid linear
# unit whose sharpness β is learned, one for each feature: $y = x\, \sigma(\beta x)$. With $s =
# \sigma(\beta x)$, and $\sigma' = s (1 - s)$, the product rule yields $dx = (s + \beta x\, s (1 -
# s))\, dy$, and $d\beta = \sum x^2 s (1 - s)\, dy$ over the batch.


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
# Is it right? The certificate compares it with `jax.vjp` and with finite differences.

# %%
print(nn.certify(Sharp(), np.random.default_rng(0).standard_normal((5, 3))))

# %% [markdown]
# It can be trained like any other layer, and `nn.explain` explains it by its formulas.

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
print("\n".join(line for line in nn.explain(one, digits=3).splitlines() if "dbeta[0]" in line))

z = np.linspace(-4, 4, 200)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
for beta in np.sort(fit.params[1].beta):
    axes[0].plot(z, z * jax.nn.sigmoid(beta * z), color="#2f6fb7", lw=0.8, alpha=0.7)
axes[0].set(title="what sixteen units learned: x σ(β x)", xlabel="x")
axes[1].plot(fit.history["loss"], color="#c8202f")
axes[1].set(title="training with it", xlabel="epoch", ylabel="J", yscale="log")
figure.savefig("lesson-13.png", dpi=80)

# %% [markdown]
# **Exercise.** PReLU (He et al., 2015) is a leaky ReLU whose slope a is learned: y = x where x > 0,
# and a x elsewhere, with one a for all features. The forward pass is written; it keeps x. Write the
# backward pass, and return `SlopeParams(da)` and dx.


# %%
class SlopeParams(NamedTuple):
    a: jax.Array


def backward(params, cache, dy):
    x, (a,) = cache, params
    raise NotImplementedError  # your turn


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
