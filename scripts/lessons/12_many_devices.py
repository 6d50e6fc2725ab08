# %% [markdown]
# # 12. The same code on many devices
#
# **The idea.** Four teachers mark a pile of 128 exams, 32 each. The mean mark of all exams is found
# from what each teacher adds up alone: only the four sums are exchanged, and no exam has to change
# hands. A batch is such a pile, a device is a teacher, and the gradient is a sum over the batch.
#
# ```text
#   rows   1 …  32 ──► device 0 ──► its sum of gradients ─╮
#   rows  33 …  64 ──► device 1 ──► its sum of gradients ─┼─ all-reduce: everyone gets the total
#   rows  65 …  96 ──► device 2 ──► its sum of gradients ─┤
#   rows  97 … 128 ──► device 3 ──► its sum of gradients ─╯
# ```
#
# **Question.** What changes in the result if a batch is distributed over several devices?

# %%
import jax

# this has to precede the start of JAX; a CPU then counts as four devices
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import practice  # noqa: E402

import jaxnn as nn  # noqa: E402
from jaxnn import data  # noqa: E402

# %% [markdown]
# **In numbers.** The gradient of $z = x W$ by W is $x^\top \delta$, a sum over the rows of the
# batch. Four quarters give the same sum:

# %%
random = np.random.default_rng(0)
x, delta = random.integers(-3, 4, (8, 2)), random.integers(-3, 4, (8, 1))
quarters = [x[rows].T @ delta[rows] for rows in np.split(np.arange(8), 4)]
print("of all rows:", (x.T @ delta).ravel(), " of the quarters:", sum(quarters).ravel())

# %% [markdown]
# **In code.** A **mesh** arranges the devices along a named axis. The rows of each batch are
# divided along the axis "data", and the parameters are copied to every device. If this
# computer has fewer than four devices, its processor plays their parts.

# %%
mesh = jax.make_mesh((4,), ("data",))
digits = data.digits()
x, target = digits.x[:1024].astype(float), digits.y[:1024]
net, loss, optimizer = nn.mlp(32, 10), nn.SoftmaxCrossEntropy(), optax.adam(3e-3)


def train(**on):
    key = jax.random.key(0)
    return nn.fit(net, loss, optimizer, (x, target), epochs=8, batch_size=128, key=key, **on)


# %% [markdown]
# The same call trains on one device and on four. The compiler inserts the exchange by itself. The
# plan of a step shows it as an *all-reduce*, in which the gradients of all parameters, and the
# loss, are summed over the devices at once. `P()` means that a parameter is copied to every device.

# %%
alone, together = train(), train(mesh=mesh)
differences = jax.tree.map(lambda a, b: abs(a - b).max(), alone.params, together.params)
apart = float(max(jax.tree.leaves(differences)))
print(nn.sharding_plan(net, loss, optimizer, (x[:128], target[:128]), mesh=mesh))
print(f"after {len(alone.history['step_loss'])} steps the parameters differ by at most {apart:.1e}")
assert apart < 1e-10

# %% [markdown]
# The difference is nothing but rounding: the four sums are added in another order. This answers the
# question: nothing changes.
#
# A large network does not fit on one device. Its parameters, and the numbers that the optimizer
# keeps for each, can be divided as well; below, `P('data', None)` means that each device holds a
# quarter of the rows of a matrix. Before a layer computes, the devices fetch the missing quarters
# from one another (*all-gather*): they exchange more, and each of them holds a quarter.

# %%
rules = nn.FULLY_SHARDED
print(nn.sharding_plan(net, loss, optimizer, (x[:128], target[:128]), mesh=mesh, rules=rules))
differences = jax.tree.map(
    lambda a, b: abs(a - b).max(), alone.params, train(mesh=mesh, rules=rules).params
)
assert max(jax.tree.leaves(differences)) < 1e-10

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
for device in range(4):  # 128 rows in a batch, 32 on each
    axes[0].barh(device, 32, left=32 * device, color="#2f6fb7", edgecolor="white")
axes[0].set(
    xlabel="row of the batch",
    ylabel="device",
    yticks=range(4),
    title="each device has 32 of 128 rows",
)
axes[1].plot(alone.history["step_loss"], color="#2f6fb7", lw=4, alpha=0.4, label="one device")
axes[1].plot(together.history["step_loss"], color="#c8202f", lw=1.2, label="four devices")
axes[1].set(xlabel="step", ylabel="J", title="the loss: both curves coincide")
axes[1].legend(frameon=False)
figure.savefig("lesson-12.png", dpi=80)

# %% [markdown]
# ## Exercises
#
# **12.1, a number.** Four devices hold 32 rows each. Their own mean losses are 1, 2, 3 and 6. What
# is the mean loss of the batch?

# %%
mean = None  # your turn: 12.1
practice.check("12.1", mean, np.repeat([1.0, 2, 3, 6], 32).mean())

# %% [markdown]
# **12.2, a formula.** The last batch of an epoch is smaller, and device d has only $n_d$ rows, with
# the mean loss $J_d$. What is the mean loss of the batch? Both arguments are arrays.


# %%
def mean_loss(n, J):
    raise NotImplementedError  # your turn: 12.2


practice.check(
    "12.2",
    mean_loss,
    lambda n, J: np.repeat(J, n).mean(),
    np.array([32, 32, 20, 4]),
    np.arange(4.0),
)

# %% [markdown]
# **12.3, code.** This is why in this library a layer only *sums* over the batch, and the factor 1/n
# belongs to the loss, where n counts the entries of the *whole* batch. `MeanSquaredError` is the
# mean of $(y - t)^2$ over all n entries. Its cache is (y, t, share), where share is 1/n. Return
# dJ/dy.


# %%
def backward(cache):
    y, t, share = cache
    raise NotImplementedError  # your turn: 12.3


points, target = random.standard_normal((6, 2)), random.standard_normal((6, 2))
print(nn.diagnose(nn.MeanSquaredError(), backward=backward, x=points, target=target))
