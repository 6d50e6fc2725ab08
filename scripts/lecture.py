"""The whole lecture on neural networks: a neuron, its activations, layers, and backpropagation.

    python scripts/lecture.py [--out lecture-output]

The script runs every step of the lecture on real data, prints each number that the lecture
publishes beside the one computed here, and writes the figures and results.json into the output
folder.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnn as nn
from jaxnn import data, plots

jax.config.update("jax_enable_x64", True)  # the lecture computes in float64, as NumPy does

PUBLISHED = {
    "neuron": {
        "iterations": 234669,
        "theta": [11.65976942, -12.81530848, -23.12053766],
        "accuracy": 1.0,
        "loss": 0.009096098672834863,
    },
    "example": {
        "1": {
            "h": [0.9999833, 0.73105858, 0.99999386],
            "y": 0.59037800,
            "J": 0.52699227,
            "dJdy": -1.69383005,
            "dJdV": [-0.40961516, -0.29945768, -0.40961948],
            "dJdh": [-0.0409622, -0.204811, 0.0409622],
            "dJdW": [
                [-3.42057777e-06, -2.01341432e-01, 1.25838681e-06],
                [-2.05234666e-06, -1.20804859e-01, 7.55032084e-07],
            ],
        },
        "0": {"J": 0.8925205, "dJdy": 2.44127514, "dJdV": [0.59036814, 0.4316009, 0.59037437]},
    },
    "descent": {
        "1": {"loss": 0.034485062234793855, "score": 0.9661027709950637},
        "0": {"loss": 0.05138992176057968, "score": 0.05009179156951711},
    },
}


# ── Part 1: the artificial neuron ───────────────────────────────────────────────────────────────


def activation_functions(out):
    """Draw activations: that of the Perceptron is a step, the others are smoother.

    A neuron is a weighted sum of its inputs, followed by an activation.
    """
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), layout="constrained")
    for activation, ax in zip(
        [nn.Heaviside(), nn.Sigmoid(), nn.Tanh(), nn.ReLU()], axes, strict=True
    ):
        plots.ActivationDisplay.from_layer(activation, ax=ax)
    save(figure, out, "activations")


def neuron_on_iris(out):
    """Train a logistic neuron to distinguish Setosa from the other species, by gradient descent."""
    iris = data.iris_setosa()
    scatter = plots.ScatterDisplay.from_data(
        *iris[:2], feature_names=iris.feature_names, class_names=iris.class_names
    )
    save(scatter.figure_, out, "iris")

    x = data.with_ones(iris.x)  # the last weight is then the bias
    run = nn.logistic_descent(x, iris.y, step_size=0.1, threshold=5e-5, progress=True)
    probability = np.asarray(nn.apply(nn.Neuron(), run.params, x))
    loss, _ = nn.value_and_grad(nn.Neuron(), nn.BinaryCrossEntropy())(run.params, x, iris.y)

    # the derivative of the Perceptron's step is 0, so that it learns by its own rule
    rosenblatt = nn.perceptron_rule(x, iris.y)
    print(f"The Perceptron's rule separates the classes after {rosenblatt.mistakes} corrections.")
    return {
        "iterations": run.iterations,
        "theta": run.params.theta,
        "accuracy": np.mean((probability >= 0.5) == iris.y),
        "loss": loss,
    }


# ── Part 2: layers and networks ─────────────────────────────────────────────────────────────────


def linear_sigmoid(features):
    """Build the LinearSigmoidLayer of the lecture.

    It consists of parallel neurons without biases, with standard normal weights.
    """
    return nn.chain(nn.Dense(features, bias=False, w_init=("normal", 1.0)), nn.Sigmoid())


def two_layer_net(hidden):
    """Build the Net of the lecture: f(x) = σ(σ(x W) V)."""
    return nn.chain(*linear_sigmoid(hidden).layers, *linear_sigmoid(1).layers)


def layer_is_neurons_in_parallel():
    """Compare the output of a layer of 3 neurons with the outputs of the single neurons."""
    layer, x = linear_sigmoid(3), data.iris_setosa().x
    params = layer.init(jax.random.key(0), x)
    together = nn.apply(layer, params, x)
    one_by_one = [nn.apply(nn.Neuron(), nn.NeuronParams(w), x) for w in np.asarray(params[0].w).T]
    difference = np.abs(together - np.stack(one_by_one, axis=1)).max()
    print(f"A layer of 3 neurons against 3 neurons: they differ by at most {difference:.1e}.")


def net_on_iris(out, neuron_theta):
    """Train the two-layer net by backpropagation, from eight random starts at once."""
    iris = data.iris_setosa()
    x, target = data.with_ones(iris.x), iris.y[:, None]
    net, loss = two_layer_net(3), nn.BinaryCrossEntropy()

    def train(key):
        run = nn.gradient_descent(
            None, net.init(key, x), x, target,
            gradient=nn.grad(net, loss), step_size=0.5, threshold=1e-9, max_iterations=5000,
        )  # fmt: skip
        probability = nn.apply(net, run.params, x)
        return (
            run.params,
            loss.forward(probability, jnp.asarray(target))[0],
            jnp.mean((probability >= 0.5) == target),
        )

    keys = jax.random.split(jax.random.key(0), 8)
    params, losses, accuracy = jax.tree.map(np.asarray, jax.jit(jax.vmap(train))(keys))
    best = jax.tree.map(lambda leaf: leaf[losses.argmin()], params)
    print(f"The two-layer net, 8 seeds: accuracy {accuracy.min():.3f} to {accuracy.max():.3f}.")

    models = {
        "one neuron": (nn.Neuron(), nn.NeuronParams(neuron_theta)),
        "a net of 3 + 1 neurons": (net, best),
    }
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for (title, (model, params)), ax in zip(models.items(), axes, strict=True):

        def predict(points, model=model, params=params):
            return nn.apply(model, params, data.with_ones(points))

        plots.BoundaryDisplay.from_function(predict, iris.x, ax=ax)
        plots.ScatterDisplay.from_data(
            *iris[:2], feature_names=iris.feature_names, class_names=iris.class_names, ax=ax
        )
        ax.set_title(title)
    save(figure, out, "boundaries")
    return {"loss": losses, "accuracy": accuracy}


# ── Part 3: backpropagation by hand, and checked ────────────────────────────────────────────────

X = np.array([[5.0, 3.0]])
W = np.array([[1.0, -1.0, 3.0], [2.0, 2.0, -1.0]])
V = np.array([[0.1], [0.5], [-0.1]])
NET, LOSS = two_layer_net(3), nn.BinaryCrossEntropy()
PARAMS = (nn.DenseParams(W, None), (), nn.DenseParams(V, None), ())


def worked_example(out, label):
    """Run one sample forward and backward through the net, and keep every number."""
    trace = nn.trace(NET, LOSS, PARAMS, X, np.array([[label]]))
    _, hidden, output, last = trace.stages
    if label == 1:
        save(plots.NetworkDisplay.from_network(NET, inputs=2).figure_, out, "network")
    save(plots.BackpropDisplay.from_trace(trace).figure_, out, f"worked-example-label-{label}")
    return {
        "h": hidden.y[0],
        "y": last.y[0, 0],
        "J": trace.value,
        "dJdy": last.dy[0, 0],
        "dJdV": output.dparams.w[:, 0],
        "dJdh": hidden.dy[0],
        "dJdW": trace.stages[0].dparams.w,
    }


def single_sample_descent(label):
    """Make a hundred steps on one sample: the loss approaches 0, and the score the label."""
    target = np.array([[label]])
    value_and_grad = nn.value_and_grad(NET, LOSS)

    def step(params, _):
        score = nn.apply(NET, params, X)[0, 0]
        loss, gradient = value_and_grad(params, X, target)
        return jax.tree.map(lambda p, d: p - 0.1 * d, params, gradient), (loss, score)

    _, (losses, scores) = jax.lax.scan(step, PARAMS, length=100)
    return {"loss": losses, "score": scores}


def draw_descents(out, runs):
    """Draw the curves for both labels."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for (label, run), ax in zip(runs.items(), axes, strict=True):
        plots.CurvesDisplay.from_history(run, title=f"one sample, label {label}", ax=ax)
    save(figure, out, "descent")


def certificates():
    """Compare every gradient used above with jax.grad and with finite differences."""
    iris = data.iris_setosa()
    x, target = iris.x[:7], np.arange(7)[:, None] % 2
    ops = [nn.Heaviside(), nn.Sigmoid(), nn.Tanh(), nn.ReLU(), nn.Dense(3), nn.Neuron(), NET]
    proofs = [nn.certify(op, x) for op in ops]
    proofs += [
        nn.certify(op, x[:, :1] / 10, target) for op in (LOSS, nn.SigmoidBinaryCrossEntropy())
    ]
    print(proofs[-3])

    by_hand = nn.value_and_grad(NET, LOSS, method="hand")(PARAMS, X, np.array([[1]]))
    by_jax = nn.value_and_grad(NET, LOSS, method="auto")(PARAMS, X, np.array([[1]]))
    leaves = zip(
        *(map(np.asarray, jax.tree.leaves(tree[1])) for tree in (by_hand, by_jax)), strict=True
    )
    apart = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in leaves]
    return {"worst_relative_error": max(apart + [proof.worst_vs_autodiff for proof in proofs])}


# ── Putting it together ─────────────────────────────────────────────────────────────────────────


def main():
    """Run the three parts, write the results, and compare them with the published numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("lecture-output"),
        help="folder for figures and results.json",
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    activation_functions(out)
    neuron = neuron_on_iris(out)
    layer_is_neurons_in_parallel()
    network = net_on_iris(out, neuron["theta"])
    example = {label: worked_example(out, int(label)) for label in ("1", "0")}
    descent = {label: single_sample_descent(int(label)) for label in ("1", "0")}
    draw_descents(out, descent)
    results = plain({
        "neuron": neuron,
        "network": network,
        "example": example,
        "descent": descent,
        "certificate": certificates(),
    })  # fmt: skip
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")

    compare(results)
    print(f"Figures and results.json are in {out}/.")


def compare(results):
    """Print each published number beside the computed one."""
    last = {
        label: {name: values[-1] for name, values in run.items()}
        for label, run in results["descent"].items()
    }
    computed = results | {"descent": last}
    print(f"\n{'number':<20}  {'published':>22}  {'computed':>22}  {'difference':>10}")
    for name, published in flatten(PUBLISHED):
        value = dict(flatten(computed))[name]
        print(f"{name:<20}  {published:>22.16g}  {value:>22.16g}  {abs(value - published):>10.1e}")
    worst = results["certificate"]["worst_relative_error"]
    print(f"\nHand-derived against jax.grad, everywhere: a relative error of at most {worst:.1e}.")


def flatten(tree, path=""):
    """Flatten nested dictionaries and lists to (name, number) pairs."""
    if isinstance(tree, dict):
        return [
            pair
            for key, value in tree.items()
            for pair in flatten(value, f"{path}.{key}".lstrip("."))
        ]
    if isinstance(tree, list):
        return [pair for i, value in enumerate(tree) for pair in flatten(value, f"{path}[{i}]")]
    return [(path, tree)]


def plain(tree):
    """Convert arrays to lists and numbers, for JSON."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), tree)


def save(figure, out, name):
    """Write a figure to a file, and close it."""
    figure.savefig(out / f"{name}.png", dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
