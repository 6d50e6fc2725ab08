"""The whole backward pass of a small network by hand, from the loss back to the embedding.

    python scripts/exercises.py ninja [--answers FILE.py] [--hint NAME] [--solution NAME]

The network predicts the next letter of a word from the three letters before it. Its forward pass is
broken into steps that are so small that each has one simple derivative. Your task is to write the
24 gradients below in turn. Each is checked by itself: if one is wrong, the next ones can still be
right. They are compared with those of ``jax.grad``, and the grader says whether yours are exactly
equal or equal up to rounding, since a different order of additions rounds differently.

B = 7 words, T = 3 letters of each, V = 6 letters in the alphabet, D = 4 numbers for each letter,
H = 5 hidden neurons.
"""

import inspect
import re
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn as nn

B, T, V, D, H = 7, 3, 6, 4, 5
EPSILON = 1e-5


def ninja(f, d):
    """Write every gradient of J into d, in this order, and replace each None by a formula.

    ``f.exps`` is an array of the forward pass (see ``network`` below), and ``d.exps`` is ∂J/∂exps,
    with the same shape. Once you have written a gradient, you can read it: ``d.p`` is then the
    right value, even if yours was wrong. NumPy and jax.numpy both work.
    """
    d.logp = None  # (B, V)
    d.p = None  # (B, V)
    d.inverse_total = None  # (B,)
    d.total = None  # (B,)
    d.exps = None  # (B, V), which is used twice in the forward pass
    d.logits = None  # (B, V)
    d.w2 = None  # (H, V)
    d.b2 = None  # (V,)
    d.h = None  # (B, H)
    d.gamma = None  # (H,)
    d.beta = None  # (H,)
    d.normed = None  # (B, H)
    d.inverse = None  # (H,)
    d.variance = None  # (H,)
    d.squares = None  # (B, H)
    d.centred = None  # (B, H), which is used twice
    d.mu = None  # (H,)
    d.a = None  # (B, H), which is used twice
    d.z = None  # (B, H)
    d.w1 = None  # (T · D, H)
    d.b1 = None  # (H,)
    d.joined = None  # (B, T · D)
    d.e = None  # (B, T, D)
    d.table = None  # (V, D)


def network(v, tokens, labels):
    """Compute J from the parameters in the dict v, and keep each array by its name.

    An array that is in v under its name with a plus before it, as "+z", is added to that array. Its
    gradient is then that of the array, which is how the right answers are found.
    """
    f = dict(v)

    def keep(name, value):
        f[name] = value + v.get(f"+{name}", 0.0)
        return f[name]

    # the embedding: each letter is a row of the table, and three rows are joined to one
    e = keep("e", v["table"][tokens])
    joined = keep("joined", e.reshape(len(tokens), -1))
    # a layer of neurons
    z = keep("z", joined @ v["w1"] + v["b1"])
    a = keep("a", jnp.tanh(z))
    # batch normalisation: each neuron gets mean 0 and variance 1 over the batch
    mu = keep("mu", a.mean(axis=0))
    centred = keep("centred", a - mu)
    squares = keep("squares", centred**2)
    variance = keep("variance", squares.mean(axis=0))
    inverse = keep("inverse", (variance + EPSILON) ** -0.5)
    normed = keep("normed", centred * inverse)
    h = keep("h", v["gamma"] * normed + v["beta"])
    # the scores of the next letter, and the cross-entropy of their softmax
    logits = keep("logits", h @ v["w2"] + v["b2"])
    exps = keep("exps", jnp.exp(logits))
    total = keep("total", exps.sum(axis=1))
    inverse_total = keep("inverse_total", 1 / total)
    p = keep("p", exps * inverse_total[:, None])
    logp = keep("logp", jnp.log(p))
    f["J"] = -logp[jnp.arange(len(labels)), labels].mean()
    return f["J"], f


# ── How each array is used in the forward pass, and the gradient that follows ───────────────────


class Link(NamedTuple):
    """One array and what is computed from it.

    Attributes:
        outputs: the names of the arrays that are computed from it.
        used: a function of the array and of all others, which returns these arrays.
        forward: the same as formulas, in the notation of jaxnn.formulas.
        backward: the formula of its gradient.
    """

    outputs: tuple
    used: object
    forward: str
    backward: str


NORMED = "normed[n, j] = centred[n, j] * inverse[j]"
AFFINE = "h[n, j] = gamma[j] * normed[n, j] + beta[j]"
SCORES = "logits[n, k] = sum(h[n, j] * w2[j, k] for j in H) + b2[k]"
HIDDEN = "z[n, j] = sum(joined[n, i] * w1[i, j] for i in I) + b1[j]"
CENTRED = "centred[n, j] = a[n, j] - mu[j]"
P = "p[n, k] = exps[n, k] * inverse_total[n]"

LINKS = {
    "logp": Link(
        ("J",),
        lambda v, f: (-v[jnp.arange(B), f.labels].mean(),),
        "J = -mean(logp[n, labels[n]] for n in B)",
        "dlogp[n, k] = -(1 if labels[n] == k else 0) / B * dJ",
    ),
    "p": Link(
        ("logp",),
        lambda v, f: (jnp.log(v),),
        "logp[n, k] = log(p[n, k])",
        "dp[n, k] = dlogp[n, k] / p[n, k]",
    ),
    "inverse_total": Link(
        ("p",),
        lambda v, f: (f.exps * v[:, None],),
        P,
        "dinverse_total[n] = sum(dp[n, k] * exps[n, k] for k in K)",
    ),
    "total": Link(
        ("inverse_total",),
        lambda v, f: (1 / v,),
        "inverse_total[n] = 1 / total[n]",
        "dtotal[n] = -dinverse_total[n] / total[n]**2",
    ),
    "exps": Link(
        ("p", "total"),
        lambda v, f: (v * f.inverse_total[:, None], v.sum(axis=1)),
        f"{P}\ntotal[n] = sum(exps[n, k] for k in K)",
        "dexps[n, k] = dp[n, k] * inverse_total[n] + dtotal[n]",
    ),
    "logits": Link(
        ("exps",),
        lambda v, f: (jnp.exp(v),),
        "exps[n, k] = exp(logits[n, k])",
        "dlogits[n, k] = dexps[n, k] * exps[n, k]",
    ),
    "w2": Link(
        ("logits",),
        lambda v, f: (f.h @ v + f.b2,),
        SCORES,
        "dw2[j, k] = sum(h[n, j] * dlogits[n, k] for n in B)",
    ),
    "b2": Link(
        ("logits",),
        lambda v, f: (f.h @ f.w2 + v,),
        SCORES,
        "db2[k] = sum(dlogits[n, k] for n in B)",
    ),
    "h": Link(
        ("logits",),
        lambda v, f: (v @ f.w2 + f.b2,),
        SCORES,
        "dh[n, j] = sum(dlogits[n, k] * w2[j, k] for k in K)",
    ),
    "gamma": Link(
        ("h",),
        lambda v, f: (v * f.normed + f.beta,),
        AFFINE,
        "dgamma[j] = sum(dh[n, j] * normed[n, j] for n in B)",
    ),
    "beta": Link(
        ("h",),
        lambda v, f: (f.gamma * f.normed + v,),
        AFFINE,
        "dbeta[j] = sum(dh[n, j] for n in B)",
    ),
    "normed": Link(
        ("h",), lambda v, f: (f.gamma * v + f.beta,), AFFINE, "dnormed[n, j] = dh[n, j] * gamma[j]"
    ),
    "inverse": Link(
        ("normed",),
        lambda v, f: (f.centred * v,),
        NORMED,
        "dinverse[j] = sum(dnormed[n, j] * centred[n, j] for n in B)",
    ),
    "variance": Link(
        ("inverse",),
        lambda v, f: ((v + EPSILON) ** -0.5,),
        "inverse[j] = 1 / sqrt(variance[j] + epsilon)",
        "dvariance[j] = -dinverse[j] * inverse[j]**3 / 2",
    ),
    "squares": Link(
        ("variance",),
        lambda v, f: (v.mean(axis=0),),
        "variance[j] = mean(squares[n, j] for n in B)",
        "dsquares[n, j] = dvariance[j] / B",
    ),
    "centred": Link(
        ("squares", "normed"),
        lambda v, f: (v**2, v * f.inverse),
        f"squares[n, j] = centred[n, j]**2\n{NORMED}",
        "dcentred[n, j] = 2 * centred[n, j] * dsquares[n, j] + dnormed[n, j] * inverse[j]",
    ),
    "mu": Link(
        ("centred",), lambda v, f: (f.a - v,), CENTRED, "dmu[j] = -sum(dcentred[n, j] for n in B)"
    ),
    "a": Link(
        ("centred", "mu"),
        lambda v, f: (v - f.mu, v.mean(axis=0)),
        f"{CENTRED}\nmu[j] = mean(a[n, j] for n in B)",
        "da[n, j] = dcentred[n, j] + dmu[j] / B",
    ),
    "z": Link(
        ("a",),
        lambda v, f: (jnp.tanh(v),),
        "a[n, j] = tanh(z[n, j])",
        "dz[n, j] = (1 - a[n, j]**2) * da[n, j]",
    ),
    "w1": Link(
        ("z",),
        lambda v, f: (f.joined @ v + f.b1,),
        HIDDEN,
        "dw1[i, j] = sum(joined[n, i] * dz[n, j] for n in B)",
    ),
    "b1": Link(
        ("z",), lambda v, f: (f.joined @ f.w1 + v,), HIDDEN, "db1[j] = sum(dz[n, j] for n in B)"
    ),
    "joined": Link(
        ("z",),
        lambda v, f: (v @ f.w1 + f.b1,),
        HIDDEN,
        "djoined[n, i] = sum(dz[n, j] * w1[i, j] for j in H)",
    ),
    "e": Link(
        ("joined",),
        lambda v, f: (v.reshape(B, -1),),
        "joined.flat[m] = e.flat[m]",
        "de.flat[m] = djoined.flat[m]",
    ),
    "table": Link(
        ("e",),
        lambda v, f: (v[f.tokens],),
        "e[n, t, c] = table[tokens[n, t], c]",
        "dtable[v, c] = sum(de[n, t, c] for n in B for t in T if tokens[n, t] == v)",
    ),
}


def example():
    """Return the arrays of the forward pass, and the right gradient of each, both by name."""
    random = np.random.default_rng(0)
    sizes = {"table": (V, D), "w1": (T * D, H), "b1": (H,), "gamma": (H,), "beta": (H,)}
    sizes |= {"w2": (H, V), "b2": (V,)}
    params = {name: 0.5 * random.standard_normal(shape) for name, shape in sizes.items()}
    params["gamma"] += 1
    tokens, labels = random.integers(0, V, (B, T)), random.integers(0, V, B)
    with jax.enable_x64(True):
        _, arrays = network(params, tokens, labels)
        moves = {f"+{name}": np.zeros(np.shape(arrays[name])) for name in LINKS.keys() - sizes}
        slopes, _ = jax.grad(network, has_aux=True)(params | moves, tokens, labels)
    right = {name.removeprefix("+"): np.asarray(slope) for name, slope in slopes.items()}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    return arrays | {"tokens": tokens, "labels": labels}, right | {"J": np.ones(())}


# ── The grader ──────────────────────────────────────────────────────────────────────────────────


class Gradients:
    """What an answer writes its gradients into. Whoever reads one gets the right value."""

    def __init__(self, right):
        vars(self).update(_right=right, _given={})

    def __setattr__(self, name, value):
        if name not in LINKS:
            raise AttributeError(f"there is no gradient d.{name}; there are {', '.join(LINKS)}")
        if value is not None:
            self._given[name] = value

    def __getattr__(self, name):
        if name != "J" and name not in self._given:
            raise AttributeError(f"d.{name} is read before it is written")
        return self._right[name]


def run(answer, arrays, right):
    """Run an answer; return the gradients that it wrote, and the error that ended it, or None."""
    d = Gradients(right)
    try:
        answer(SimpleNamespace(**arrays), d)
    except Exception as error:
        return d._given, error
    return d._given, None


@nn.layer
class OneLink:
    """The step from one array to what is computed from it, as a layer that can be graded.

    A layer calls its input x and its output y, or y_0 and y_1 if there are two.
    """

    name: str

    @property
    def outputs(self):
        """The names of what is computed from the array."""
        return LINKS[self.name].outputs

    @property
    def own_names(self):
        """The names that a layer has for this array, for what is computed from it, and so on."""
        y = ["y"] if len(self.outputs) == 1 else [f"y_{i}" for i in range(len(self.outputs))]
        names = {self.name: "x"} | dict(zip(self.outputs, y, strict=True))
        return names | {f"d{name}": f"d{own}" for name, own in names.items()}

    @property
    def formulas(self):
        """The formulas of both passes."""
        link = LINKS[self.name]
        return nn.Formulas(*(renamed(t, self.own_names) for t in (link.forward, link.backward)))

    def formula_values(self, x, cache):
        """Return the other arrays that the formulas mention. Here, they are constants."""
        mentioned = set(re.findall(r"\w+", str(self.formulas)))
        return {"epsilon": EPSILON} | {name: ARRAYS[name] for name in mentioned & ARRAYS.keys()}

    def init(self, key, x):
        """Return no parameters: the array itself is the input."""
        return ()

    def forward(self, params, x, key=None):
        """Return what is computed from the array, and keep the array."""
        y = LINKS[self.name].used(x, SimpleNamespace(**ARRAYS))
        return (y if len(y) > 1 else y[0]), x

    def backward(self, params, cache, dy):
        """Return the gradient by the worked solution."""
        return self.graded(solution)(params, cache, dy)

    def graded(self, answer):
        """Return the backward pass that an answer makes of this step."""

        def backward(params, cache, dy):
            y = LINKS[self.name].used(cache, SimpleNamespace(**ARRAYS))
            arrays = ARRAYS | {self.name: cache} | dict(zip(self.outputs, y, strict=True))
            dys = dict(zip(self.outputs, dy if len(y) > 1 else (dy,), strict=True))
            scale = dys.pop("J", 1.0)  # an answer takes dJ for 1
            given, error = run(answer, arrays, RIGHT | dys)
            if self.name not in given:
                raise error or NotImplementedError
            return (), scale * given[self.name]

        return backward


def renamed(text, names):
    """Replace whole words."""
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), text)


ARRAYS, RIGHT = example()


def judged(answer, name, given):
    """Say whether a gradient is right, and if not, why."""
    try:
        got, true = np.asarray(given, float), RIGHT[name]
    except (TypeError, ValueError) as error:
        return False, f"✗ It is not an array: {error}."
    if got.shape == true.shape and np.array_equal(got, true):
        return True, "✓ It is exactly equal."
    if got.shape == true.shape and np.allclose(got, true, rtol=1e-9, atol=1e-12):
        return (
            True,
            f"✓ It is equal up to rounding; the largest difference is {abs(got - true).max():.0e}.",
        )
    op = OneLink(name)
    found = nn.diagnose(op, backward=op.graded(answer), x=ARRAYS[name]).findings[0]
    about = found.message.removeprefix("The gradient of x ").replace("x[", f"{name}[")
    about = renamed(about, {own: name for name, own in op.own_names.items()})
    return False, f"✗ It {about}"


def grade(answer):
    """Print a line for each gradient, and return how many are right."""
    with jax.enable_x64(True):
        given, error = run(answer, ARRAYS, RIGHT)
        right = 0
        for name in LINKS:
            if name not in given:
                reason = f"{type(error).__name__}: {error}." if error else "It is still None."
                print(f"d.{name}: … {reason} Its formula: exercises.py ninja --hint {name}")
                break
            is_right, text = judged(answer, name, given[name])
            right += is_right
            print(f"d.{name}: {text}")
    print(f"{right} of {len(LINKS)} right.")
    return right


def hint(name):
    """Print how an array is used in the forward pass, and the formula of its gradient."""
    link = LINKS[_known(name)]
    print("forward: ", link.forward.replace("\n", "\n          "))
    print("backward:", link.backward)


def show_solution(name):
    """Print the line of the worked solution for one gradient."""
    line = rf"^    (d\.{_known(name)} = .*)$"
    print(re.search(line, inspect.getsource(solution), re.MULTILINE)[1])


def _known(name):
    if name not in LINKS:
        raise ValueError(f"There is no array {name}; there are {', '.join(LINKS)}.")
    return name


# ── The worked solution, best read last ─────────────────────────────────────────────────────────


def solution(f, d):
    """Write every gradient."""
    d.logp = -jax.nn.one_hot(f.labels, V) / B
    d.p = d.logp / f.p
    d.inverse_total = (d.p * f.exps).sum(axis=1)
    d.total = -d.inverse_total / f.total**2
    d.exps = d.p * f.inverse_total[:, None] + d.total[:, None]
    d.logits = d.exps * f.exps
    d.w2 = f.h.T @ d.logits
    d.b2 = d.logits.sum(axis=0)
    d.h = d.logits @ f.w2.T
    d.gamma = (d.h * f.normed).sum(axis=0)
    d.beta = d.h.sum(axis=0)
    d.normed = d.h * f.gamma
    d.inverse = (d.normed * f.centred).sum(axis=0)
    d.variance = -d.inverse * f.inverse**3 / 2
    d.squares = jnp.ones((B, 1)) * d.variance / B
    d.centred = 2 * f.centred * d.squares + d.normed * f.inverse
    d.mu = -d.centred.sum(axis=0)
    d.a = d.centred + d.mu / B
    d.z = (1 - f.a**2) * d.a
    d.w1 = f.joined.T @ d.z
    d.b1 = d.z.sum(axis=0)
    d.joined = d.z @ f.w1.T
    d.e = d.joined.reshape(B, T, D)
    d.table = jnp.zeros((V, D)).at[f.tokens].add(d.e)


if __name__ == "__main__":
    print("The task is part of the exercises: python scripts/exercises.py ninja")
