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
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import jaxnn as nn  # noqa: E402
from jaxnn import data  # noqa: E402

# %% [markdown]
# A mesh arranges the devices along a named axis. The batch is distributed along this axis, and the
# parameters are copied to every device.

# %%
mesh = Mesh(np.array(jax.devices()), ("batch",))
rows, everywhere = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
digits = data.digits()
x, target = digits.x[:1024].astype(float), digits.y[:1024]
net, loss = nn.mlp(32, 10), nn.SoftmaxCrossEntropy()
start = net.init(jax.random.key(0), x)
value_and_grad = nn.value_and_grad(net, loss)


@jax.jit
def descend(params, x, target):
    def step(params, _):
        value, gradient = value_and_grad(params, x, target)
        return jax.tree.map(lambda p, d: p - 0.5 * d, params, gradient), value

    return jax.lax.scan(step, params, length=60)


# %% [markdown]
# The function is compiled for the devices on which its arguments are. The sum over the batch in
# `x.T @ dy` then becomes a sum over devices too, which XLA inserts by itself.

# %%
alone, curve = descend(start, x, target)
spread = (jax.device_put(start, everywhere), jax.device_put(x, rows), jax.device_put(target, rows))
together, same_curve = descend(*spread)
differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), alone, together)
apart = max(jax.tree.leaves(differences))
each = spread[1].addressable_shards[0].data.shape[0]
print(f"{len(jax.devices())} devices: {x.shape[0]} rows, {each} on each")
print(f"after 60 steps the parameters differ by at most {apart:.1e}")
assert apart < 1e-10

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
for shard in spread[1].addressable_shards:
    first, last = shard.index[0].start or 0, shard.index[0].stop or len(x)
    axes[0].barh(shard.device.id, last - first, left=first, color="#2f6fb7", edgecolor="white")
axes[0].set(
    xlabel="row of the batch",
    ylabel="device",
    yticks=range(len(jax.devices())),
    title="who has which rows",
)
axes[1].plot(curve, color="#2f6fb7", lw=4, alpha=0.4, label="one device")
axes[1].plot(same_curve, color="#c8202f", lw=1.2, label=f"{len(jax.devices())} devices")
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
