# %% [markdown]
# # 11. A thousand networks at once
#
# **The idea.** If someone throws a six, you do not conclude that the die is loaded. You ask for
# a thousand throws. A network starts with random weights, and its result is such a throw. To
# judge a recipe, one needs many networks, which differ in nothing but their seed.
#
# ```text
#   seed 1    ──► weights ──► training ──► accuracy ─╮
#   seed 2    ──► weights ──► training ──► accuracy ─┼──► a distribution, not a number
#     ⋮                                              │
#   seed 1000 ──► weights ──► training ──► accuracy ─╯
# ```
#
# **Question.** How much of a result is luck?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import practice

import jaxnn as nn
from jaxnn import data

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** Even before training, two seeds give two networks with different answers:

# %%
train, test = data.split(data.moons())
x, target = train.x[:60], train.y[:60, None]
net, loss = nn.chain(nn.Dense(6), nn.Tanh(), nn.Dense(1)), nn.SigmoidBinaryCrossEntropy()
for seed in (0, 1):
    z = nn.apply(net, net.init(jax.random.key(seed), x), x[:3])
    print(f"seed {seed}: the first three logits are", *(f"{one:.2f}" for one in z[:, 0]))

# %% [markdown]
# **In code.** The parameters are arrays, and `trained` is a function of nothing but the random key.
# `jax.vmap` turns this function of one network into a function of a thousand networks, which are
# trained at the same time. The library needs no code for it.

# %%
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
stuck = accuracy < 0.9
print(f"{stuck.mean():.0%} of them stay below 0.9; their median loss is", end=" ")
print(f"{np.median(values[stuck, -1]):.2f}, that of the others {np.median(values[~stuck, -1]):.2f}")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
shares = (0.95, 0.75, 0.5, 0.25, 0.05)
for share, curve in zip(shares, np.quantile(values, shares, axis=0), strict=True):
    axes[0].plot(curve, color="#2f6fb7", lw=2.2 if share == 0.5 else 1)
    axes[0].text(304, curve[-1], f"{share:.0%}", va="center", fontsize=8)
axes[0].set(xlabel="step", ylabel="J", yscale="log", xlim=(0, 335))
axes[0].set_title("the loss below which a share of the networks lies")
axes[1].hist(accuracy, bins=30, color="#3d9a6d")
axes[1].set(xlabel="accuracy on held-out points", ylabel="networks")
axes[1].set_title("one recipe, a thousand seeds")
figure.savefig("lesson-11.png", dpi=80)

# %% [markdown]
# The histogram has two hills, and this is the surprise. Most networks reach about 0.96. One in six
# stays below 0.9. Their loss rests on a plateau near 0.27 (the uppermost curve on the left), and
# this is what a single straight line reaches on these two moons: they have not yet found out that
# the border can be bent. If you train one network by each of two recipes, you may only compare two
# seeds.
#
# `nn.fit_population` does this for minibatches, any optimizer and any hyperparameters.
#
# ## Exercises
#
# All networks minimise the same loss of their logits z, the cross-entropy of σ(z). For the label t,
# it is $\log(1 + e^z) - t z$ per sample.
#
# **11.1, a number.** What is the derivative of the loss of one sample by z, for z = 0 and t = 1?

# %%
dz = None  # your turn: 11.1
practice.check("11.1", dz, jax.grad(lambda z: jnp.log1p(jnp.exp(z)) - 1 * z)(0.0))

# %% [markdown]
# **11.2, a formula.** Write this derivative for any z and t. You have seen it before, in lesson 5.


# %%
def slope(z, t):
    raise NotImplementedError  # your turn: 11.2


z, t = jnp.array([-1.0, 0.0, 2.0]), jnp.array([0.0, 1.0, 1.0])
by_jax = jax.vmap(jax.grad(lambda z, t: jnp.log1p(jnp.exp(z)) - t * z))
practice.check("11.2", slope, by_jax, z, t)

# %% [markdown]
# **11.3, code.** J is the mean over all n entries of the batch. A loss has a `backward(cache)`,
# which returns dJ/d(prediction); its cache here is (z, t, share), where share is 1/n.


# %%
def backward(cache):
    z, t, share = cache
    raise NotImplementedError  # your turn: 11.3


z = np.random.default_rng(0).standard_normal((6, 2))
print(nn.diagnose(loss, backward=backward, x=z, target=(z > 0.3).astype(int)))
