# %% [markdown]
# # 11. A thousand networks at once
#
# **Question.** How much of a result is luck? We train a thousand networks to find out.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn
from jaxnn import data

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# Parameters are a pytree and a network is a pure function, so that `jax.vmap` turns a function of
# one network into a function of a thousand networks. The library needs no code for it.

# %%
train, test = data.split(data.moons())
x, target = train.x[:60], train.y[:60, None]
net, loss = nn.chain(nn.Dense(6), nn.Tanh(), nn.Dense(1)), nn.SigmoidBinaryCrossEntropy()
value_and_grad = nn.value_and_grad(net, loss)


def trained(key, steps=300, rate=0.7):
    def step(params, _):
        value, gradient = value_and_grad(params, x, target)
        return jax.tree.map(lambda p, d: p - rate * d, params, gradient), value

    params, values = jax.lax.scan(step, net.init(key, x), length=steps)
    right = (nn.apply(net, params, test.x)[:, 0] > 0) == test.y
    return values, right.mean()


values, accuracy = jax.jit(jax.vmap(trained))(jax.random.split(jax.random.key(0), 1000))
low, median, high = accuracy.min(), np.median(accuracy), accuracy.max()
print(f"accuracy of {len(accuracy)} networks: {low:.3f} to {high:.3f}, median {median:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
axes[0].plot(np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0).T, color="#2f6fb7", lw=1)
axes[0].set(
    xlabel="step", ylabel="J", yscale="log", title="the loss: 5, 25, 50, 75, 95 % of the networks"
)
axes[1].hist(accuracy, bins=30, color="#3d9a6d")
axes[1].set(xlabel="accuracy on held-out points", title="one recipe, a thousand seeds")
figure.savefig("lesson-11.png", dpi=80)

# %% [markdown]
# `nn.fit_population` does this for minibatches, any optimizer and any hyperparameters.
#
# **Exercise.** All networks minimise the same loss of their logits z: $J$ is the mean of $\log(1 +
# e^z) - t z$. The cache is (z, t, 1/n). Return dJ/dz; the answer is short.


# %%
def backward(cache):
    z, t, share = cache
    raise NotImplementedError  # your turn


z = np.random.default_rng(0).standard_normal((6, 2))
print(nn.diagnose(loss, backward=backward, x=z, target=(z > 0.3).astype(int)))
