# %% [markdown]
# # 12. The same code on many devices
#
# **Question.** What changes in a network if its batch is distributed over several devices?
# (Nothing.)

# %%
import jax

# this has to precede the start of JAX; a CPU then counts as four devices
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import jaxnn as nn  # noqa: E402
from jaxnn import data  # noqa: E402

# %% [markdown]
# A mesh arranges the devices along a named axis. The rows of each batch are divided along the axis
# "data", and the parameters are copied to every device.

# %%
mesh = jax.make_mesh((4,), ("data",))
digits = data.digits()
x, target = digits.x[:1024].astype(float), digits.y[:1024]
net, loss, optimizer = nn.mlp(32, 10), nn.SoftmaxCrossEntropy(), optax.adam(3e-3)


def train(**on):
    key = jax.random.key(0)
    return nn.fit(net, loss, optimizer, (x, target), epochs=8, batch_size=128, key=key, **on)


# %% [markdown]
# The same call trains on one device and on four. The sum over the batch in `x.T @ dy` then becomes
# a sum over devices too, which the compiler inserts by itself. The plan of a step shows it: the
# gradients of all parameters, and the loss, are summed in one exchange.

# %%
alone, together = train(), train(mesh=mesh)
differences = jax.tree.map(lambda a, b: abs(a - b).max(), alone.params, together.params)
apart = float(max(jax.tree.leaves(differences)))
print(nn.sharding_plan(net, loss, optimizer, (x[:128], target[:128]), mesh=mesh))
print(f"after {len(alone.history['step_loss'])} steps the parameters differ by at most {apart:.1e}")
assert apart < 1e-10

# %% [markdown]
# Where parameters and the optimizer's numbers are too large for one device, they are divided, too.
# A device then holds a quarter of them.

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
    title="who has which rows",
)
axes[1].plot(alone.history["step_loss"], color="#2f6fb7", lw=4, alpha=0.4, label="one device")
axes[1].plot(together.history["step_loss"], color="#c8202f", lw=1.2, label="four devices")
axes[1].set(xlabel="step", ylabel="J", title="the same numbers")
axes[1].legend(frameon=False)
figure.savefig("lesson-12.png", dpi=80)

# %% [markdown]
# **Exercise.** A layer sums over the batch, and the factor 1/n belongs to the loss, where n counts
# the entries of the *whole* batch. This is why its distribution changes nothing. `MeanSquaredError`
# keeps (prediction, target, 1/n). Return dJ/d(prediction).


# %%
def backward(cache):
    prediction, target, share = cache
    raise NotImplementedError  # your turn


random = np.random.default_rng(0)
points, target = random.standard_normal((6, 2)), random.standard_normal((6, 2))
print(nn.diagnose(nn.MeanSquaredError(), backward=backward, x=points, target=target))
