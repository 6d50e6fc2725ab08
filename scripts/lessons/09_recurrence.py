# %% [markdown]
# # 9. Recurrence, and backpropagation through time
#
# **The idea.** When you read a sentence, you do not start anew at each word: you keep in mind what
# came before. A recurrent network has such a memory, the **state** h. At each time it combines the
# new input with the old state into a new state, always with the same weights.
#
# ```text
#            x₁           x₂           x₃
#            │W_x         │W_x         │W_x
#   h₀ ─W_h─ h₁ ───W_h─── h₂ ───W_h─── h₃ ── J       hₜ = tanh(xₜ W_x + hₜ₋₁ W_h + b)
#      ◄──────── the gradient goes back through every state ────────
# ```
#
# Unrolled in time, this is a deep network whose layers share their weights. Backpropagation needs
# no new rule: the derivatives of a shared weight are summed over time.
#
# **Question.** How far back in time do inputs influence a recurrent network?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import practice

import jaxnn as nn

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# **In numbers.** A network of two state neurons reads three inputs. These are the derivatives by
# its states: first at time 3, next to the loss, then at time 2, then at time 1. A weight of $W_h$
# collects a term from each step between two states.

# %%
net = nn.chain(nn.RNN(2, output="last"), nn.Dense(1))
x = np.array([[[1.0], [-0.5], [0.25]]])
trace = nn.trace(net, nn.MeanSquaredError(), net.init(jax.random.key(0), x), x, np.array([[1.0]]))
wanted = ("∂J/∂h⁽¹⁾[3, 1] =", "∂J/∂h⁽¹⁾[2, 1] =", "∂J/∂h⁽¹⁾[1, 1] =", "∂J/∂W_h⁽¹⁾[1, 1] =")
for line in nn.explain(trace, digits=4).splitlines():
    if line.strip().startswith(wanted):
        print("\n    = ".join(part.strip() for part in line.split(" = ")))

# %% [markdown]
# On its way back from one time to the time before it, the gradient is multiplied by the slope of
# tanh and by $W_h$. As in lesson 7, many factors below 1 let it vanish, and many above 1 let it
# explode.
#
# **Gates** help. An **LSTM** has a second memory, the cell c, which is changed with care. Three
# gates, which are sigmoids of $x_t$ and $h_{t-1}$, decide between 0 (closed) and 1 (open):
#
# * the **forget gate** f: how much of the old cell is kept;
# * the **input gate** i: how much of the new content g is written;
# * the **output gate** o: how much of the cell is shown.
#
# $c_t = f_t\, c_{t-1} + i_t\, g_t$ and $h_t = o_t \tanh(c_t)$. From $c_t$ back to $c_{t-1}$, the
# gradient is multiplied by $f_t$ alone: no weight matrix, and no slope of tanh. While the forget
# gate stays open, the gradient survives.
#
# **In code.** There are forty time steps, and the loss depends only on the last output. How large
# is the gradient at each input? `forget_bias` is where the bias of the forget gate starts.

# %%
long = np.random.default_rng(0).standard_normal((32, 40, 4))
figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
rnn, lstm = nn.RNN(32, output="last"), nn.LSTM(32, output="last")
starts = {
    "RNN": (rnn, rnn),
    "LSTM, forget_bias=0": (lstm, nn.LSTM(32, output="last", forget_bias=0.0)),
    "LSTM, forget_bias=3": (lstm, nn.LSTM(32, output="last", forget_bias=3.0)),
}
for label, (layer, start) in starts.items():  # once the weights are drawn, both LSTMs are alike
    params = nn.chain(start, nn.Dense(1)).init(jax.random.key(1), long)
    net = nn.chain(layer, nn.Dense(1))
    trace = nn.trace(net, nn.MeanSquaredError(), params, long, np.ones((32, 1)))
    reach = np.linalg.norm(trace.stages[0].dx, axis=(0, 2))
    ax.semilogy(range(1, 41), reach / reach[-1], label=label)
    print(f"{label:<19}: gradient at the first input / at the last = {reach[0] / reach[-1]:.1e}")
ax.set(xlabel="time t", title="size of ∂J/∂(input at time t), relative to the last input")
ax.legend(frameon=False, fontsize=8)
figure.savefig("lesson-09.png", dpi=80)

# %% [markdown]
# This is odd at first sight: the LSTM was invented against vanishing gradients, and with a forget
# bias of 0 it is *worse* than the plain network. But σ(0) = 1/2, so that its forget gate keeps half
# of the cell at each step, and after forty steps $2^{-40} \approx 10^{-12}$ would be left on this
# path. (More is left, since there are other paths, through h.) With a forget bias of 3 the gate
# starts at σ(3) = 0.95, and $0.95^{40} = 0.14$. The gradient even grows towards the past, as the
# paths through h add to it. So an LSTM has a long memory only if its forget gate starts open. This
# is why the library lets the bias start at 1, unless it is told otherwise.
#
# ## Exercises
#
# **9.1, a number.** A memory keeps half of its content at each step: $h_t = 0.5\, h_{t-1} + x_t$.
# How much does $h_4$ change, if $x_1$ grows by 1?

# %%
change = None  # your turn: 9.1


def remember(x, a):
    """Return all states of the memory, for x of shape (B, T, C)."""
    states = [x[:, 0]]
    for t in range(1, x.shape[1]):
        states.append(a * states[-1] + x[:, t])
    return jnp.stack(states, axis=1)


step_up = jnp.zeros((1, 4, 1)).at[0, 0, 0].set(1.0)
practice.check("9.1", change, remember(step_up, 0.5)[0, -1, 0])

# %% [markdown]
# **9.2, a formula.** What is $\partial h_T / \partial x_t$, if the memory keeps the share a?


# %%
def influence(a, t, T):
    raise NotImplementedError  # your turn: 9.2


def by_autodiff(a, t, T):
    return jax.grad(lambda x: remember(x, a)[0, -1, 0])(jnp.zeros((1, T, 1)))[0, t - 1, 0]


practice.check("9.2", influence, by_autodiff, 0.9, 3, 7)

# %% [markdown]
# **9.3, code.** Go backward through time for this memory. Its outputs y (B, T, C) are the states
# $h_1$ … $h_T$. A state influences J in two ways, through its output $y_t$ and through the next
# state $h_{t+1}$, and the two derivatives are added. The cache is empty. Return `()` and dx (B, T,
# C).


# %%
@nn.layer
class Memory:
    """h[t] = a h[t-1] + x[t]."""

    a: float

    def init(self, key, x):
        return ()

    def forward(self, params, x, key=None):
        return remember(x, self.a), ()

    def backward(self, params, cache, dy):
        return backward(params, cache, dy)


def backward(params, cache, dy, a=0.5):
    dx = [None] * dy.shape[1]
    raise NotImplementedError  # your turn: 9.3


x = np.random.default_rng(0).standard_normal((3, 5, 2))
print(nn.diagnose(Memory(0.5), backward=backward, x=x))
