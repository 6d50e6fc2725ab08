"""Train a network on one of eight tasks, and show the results.

    python scripts/train.py TASK [--seed S] [--epochs N] [--batch-size B] [--lr R]
                                 [--method hand|auto] [--checkpoint DIR]
                                 [--mesh AXIS=N,…] [--rules RULES]
                                 [--export FILE.safetensors] [--json FILE] [--out DIR]

Runs with the same seed end with the same parameters, bit for bit. If a run with --checkpoint is
killed, the same command continues it from its last checkpoint, and it too ends with the same
parameters.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

import jaxnn as nn
from jaxnn import data

# ── The tasks: data, network, loss, and the settings that were found to work ────────────────────


@dataclasses.dataclass(frozen=True)
class Task:
    """A network, its loss and its data; x and y have the form that the network expects."""

    net: nn.Layer
    loss: nn.Loss
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    metrics: tuple[str, ...]
    names: tuple[str, ...] = ()  # of the classes, or the characters of a text


@dataclasses.dataclass(frozen=True)
class Setting:
    """The default settings of a task."""

    build: Callable[[argparse.Namespace], Task]
    about: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.01


def iris(_):
    """Classify three species by four sizes."""
    train, test = data.split(data.iris(), test=0.3)
    mean, scale = train.x.mean(axis=0), train.x.std(axis=0)
    return classification(
        nn.mlp(16, 3, activation=nn.Tanh()), train, test, lambda x: (x - mean) / scale
    )


def moons(_):
    """Classify points in the plane into two classes."""
    train, test = data.split(data.moons(), test=0.3)
    return Task(
        nn.mlp(32, 32, 1),
        nn.SigmoidBinaryCrossEntropy(),
        (train.x, train.y[:, None]),
        (test.x, test.y[:, None]),
        ("accuracy", "roc_auc"),
        train.class_names,
    )


def digits_mlp(_):
    """Classify ten digits by dense layers with dropout."""
    hidden = [
        (nn.Dense(width, w_init="he_normal"), nn.ReLU(), nn.Dropout(0.3)) for width in (256, 128)
    ]
    return classification(
        nn.chain(*hidden[0], *hidden[1], nn.Dense(10)), *data.split(data.digits())
    )


def digits_cnn(_):
    """Classify ten digits by convolutions with batch normalisation."""
    conv = functools.partial(nn.Conv2D, kernel_size=3, bias=False, w_init="he_normal")
    net = nn.chain(
        *(conv(16), nn.BatchNorm(), nn.ReLU()),
        *(conv(32), nn.BatchNorm(), nn.ReLU(), nn.MaxPool(2)),
        *(conv(64), nn.BatchNorm(), nn.ReLU(), nn.GlobalAveragePool()),
        *(nn.Dropout(0.3), nn.Dense(10)),
    )
    return classification(net, *data.split(data.digits()), lambda x: x.reshape(-1, 8, 8, 1))


def diabetes(_):
    """Predict one number from ten others; all are standardised by the training data."""
    train, test = data.split(data.diabetes(), test=0.3)
    scaled = lambda values, of: ((values - of.mean(axis=0)) / of.std(axis=0)).astype(np.float32)  # noqa: E731
    parts = [(scaled(part.x, train.x), scaled(part.y, train.y)[:, None]) for part in (train, test)]
    return Task(nn.mlp(16, 1, activation=nn.Tanh()), nn.MeanSquaredError(), *parts, ("r2",))


def mnist(arguments):
    """Classify handwritten digits of 28 x 28 pixels."""
    return classification(nn.mlp(512, 512, 10), *data.mnist(arguments.data))


def text_gru(_):
    """Predict the next character by a recurrent layer."""
    return language(
        lambda size: nn.chain(nn.Embedding(size, 64), nn.GRU(256), nn.Dense(size)), length=64
    )


def text_transformer(_):
    """Predict the next character by attention."""
    return language(lambda size: nn.transformer_decoder(size, features=128, layers=3), length=128)


def classification(net, train, test, prepare=lambda x: x):
    """Create a task from the two parts of a data set, with prepared inputs."""
    parts = [(prepare(part.x), part.y) for part in (train, test)]
    return Task(net, nn.SoftmaxCrossEntropy(), *parts, ("accuracy", "f1"), train.class_names)


def language(build, length):
    """Create a task from Python's help topics: train on nine tenths, and test on the last tenth."""
    text = data.python_topics()
    vocabulary = "".join(sorted(set(text)))
    cut = int(0.9 * len(text))
    train, test = (data.characters(part, length, vocabulary) for part in (text[:cut], text[cut:]))
    net = build(len(vocabulary))
    return Task(
        net,
        nn.SoftmaxCrossEntropy(),
        (train.x, train.y),
        (test.x, test.y),
        ("accuracy",),
        tuple(vocabulary),
    )


SETTINGS = {
    "iris": Setting(iris, "150 flowers, 3 species", epochs=100, batch_size=16, lr=1e-2),
    "moons": Setting(
        moons, "1000 points of the plane, 2 classes", epochs=100, batch_size=32, lr=5e-3
    ),
    "digits-mlp": Setting(
        digits_mlp, "1797 digits of 8 x 8 pixels, dense", 60, 32, 2e-3, weight_decay=0.3
    ),
    "digits-cnn": Setting(
        digits_cnn, "1797 digits of 8 x 8 pixels, convolutional", epochs=25, batch_size=32, lr=2e-3
    ),
    "diabetes": Setting(diabetes, "442 patients, regression", 60, 32, 3e-3, weight_decay=3.0),
    "text-gru": Setting(
        text_gru, "Python's help topics, a character at a time", epochs=6, batch_size=32, lr=4e-3
    ),
    "text-transformer": Setting(
        text_transformer, "the same by attention", epochs=6, batch_size=16, lr=3e-3
    ),
    "mnist": Setting(
        mnist, "70000 digits of 28 x 28 pixels (--data FILE.npz, or from OpenML)", 10, 128, 1e-3
    ),
}


RULES = {
    "repeated": (),
    "fully-sharded": nn.FULLY_SHARDED,
    "tensor-parallel": nn.TENSOR_PARALLEL,
    "both": nn.TENSOR_PARALLEL + nn.FULLY_SHARDED,
}


def as_mesh(text):
    """Read a mesh such as data=4,model=2."""
    try:
        axes = {name: int(size) for name, size in (part.split("=") for part in text.split(","))}
        return jax.make_mesh(tuple(axes.values()), tuple(axes))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected AXIS=N,… with as many devices as there are ({jax.device_count()}), "
            f"got {text!r}: {error}"
        ) from error


# ── One run ─────────────────────────────────────────────────────────────────────────────────────


def train(task, arguments):
    """Fit the network of a task; after a short rise, the learning rate decays to 0 as a cosine."""
    steps = arguments.epochs * -(-len(task.train[0]) // arguments.batch_size)
    schedule = optax.warmup_cosine_decay_schedule(0.0, arguments.lr, min(100, steps // 10), steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=arguments.weight_decay)
    )
    return nn.fit(
        task.net,
        task.loss,
        optimizer,
        task.train,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        key=jax.random.key(arguments.seed),
        validation=task.test,
        metrics=task.metrics,
        checkpoint=arguments.checkpoint
        and nn.Checkpoints(arguments.checkpoint, every=arguments.checkpoint_every),
        mesh=arguments.mesh,
        rules=RULES[arguments.rules],
        method=arguments.method,
        precision=arguments.precision,
    )


def sha256(params):
    """Return the hash of the bytes of all parameters, in tree order."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def sample(net, params, vocabulary, key, prompt="The ", count=240, temperature=0.7):
    """Continue a text, with each character drawn from the probabilities of the network."""
    known = {character: i for i, character in enumerate(vocabulary)}
    window = 64
    ids = jnp.zeros(window + count, jnp.int32)
    ids = ids.at[: len(prompt)].set(jnp.array([known[c] for c in prompt]))

    @jax.jit
    def run(params, ids, key):
        def write(i, ids):
            start = jnp.maximum(i - window, 0)
            seen = jax.lax.dynamic_slice_in_dim(ids, start, window)
            logits, _ = net.forward(params, seen[None])
            scores = logits[0, i - start - 1] / temperature
            return ids.at[i].set(jax.random.categorical(jax.random.fold_in(key, i), scores))

        return jax.lax.fori_loop(len(prompt), len(prompt) + count, write, ids)

    return "".join(vocabulary[i] for i in np.asarray(run(params, ids, key))[: len(prompt) + count])


# ── Reports and figures ─────────────────────────────────────────────────────────────────────────


def report(name, task, fit, seconds):
    """Print the results, with a table of the mistakes of a classifier or a sample of a text."""
    scores = {
        key: values[-1] for key, values in fit.history.items() if key.startswith("validation_")
    }
    print(f"\n{name}: {int(fit.state.step)} steps in {seconds:.1f} s\n")
    print(f"{'held-out data':<14}  {'':>8}")
    for key, value in scores.items():
        print(f"{key.removeprefix('validation_').replace('_', ' '):<14}  {value:8.4f}")
    if name.startswith("text"):
        print(f"{'bits/character':<14}  {bits(fit):8.4f}\n")
        print(sample(task.net, fit.params, task.names, jax.random.key(0)))
    elif task.names:
        print("\n" + confusion_table(confusion(task, fit), task.names))


def bits(fit):
    """Return the cross-entropy on the held-out text, in bits a character."""
    return float(fit.history["validation_loss"][-1] / np.log(2))


def confusion(task, fit):
    """Count the held-out rows by their class and their predicted class."""
    from sklearn.metrics import confusion_matrix

    outputs = np.asarray(fit.predict(task.test[0]))
    predicted = outputs.argmax(axis=-1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).astype(int)
    return confusion_matrix(task.test[1].ravel(), predicted)


def confusion_table(matrix, names):
    """Write the counts, with a row for each class and a column for each prediction."""
    width = max(5, *map(len, names)) + 1
    head = f"{'is, predicted':>{width + 4}}" + "".join(f"{name:>{width}}" for name in names)
    rows = [
        f"{name:>{width + 4}}" + "".join(f"{count or '.':>{width}}" for count in counts)
        for name, counts in zip(names, matrix, strict=True)
    ]
    return "\n".join([head, *rows])


def draw(name, task, fit, out):
    """Draw the history and, for a classifier, its predictions into one figure."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    from jaxnn import plots

    counted = bool(task.names) and not name.startswith("text")
    figure, axes = plt.subplots(
        1, 3 if counted else 2, figsize=(14 if counted else 9, 4), layout="constrained"
    )
    plots.history(fit, axes=axes[:2])
    if name == "moons":
        x, y = task.test

        def probability(points):
            return jax.nn.sigmoid(fit.predict(np.asarray(points, np.float32)))[:, 0]

        plots.BoundaryDisplay.from_function(probability, x, ax=axes[2])
        plots.ScatterDisplay.from_data(x, y[:, 0], class_names=task.names, ax=axes[2])
    elif counted:
        from sklearn.metrics import ConfusionMatrixDisplay

        shown = ConfusionMatrixDisplay(confusion(task, fit), display_labels=task.names)
        shown.plot(ax=axes[2], cmap="Blues", colorbar=False)
    figure.suptitle(f"{name}: held-out data")
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{name}.png", dpi=110)
    print(f"\nfigure: {out / f'{name}.png'}")


def parse():
    """Read the command line; options that are not given have the defaults of the task."""
    lines = [f"  {name:<18}{setting.about}" for name, setting in SETTINGS.items()]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="tasks:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=SETTINGS, metavar="TASK", help="one of the tasks below")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the seed of parameters, shuffles and dropout (default 0)",
    )
    parser.add_argument("--epochs", type=int, help="the number of passes over the data")
    parser.add_argument("--batch-size", type=int, metavar="B", help="rows in a step")
    parser.add_argument("--lr", type=float, help="the highest learning rate")
    parser.add_argument("--weight-decay", type=float, metavar="W", help="the weight decay of AdamW")
    parser.add_argument(
        "--method", choices=("hand", "auto"), default="hand", help="how to compute the gradient"
    )
    parser.add_argument(
        "--precision", choices=("bfloat16",), help="the precision of both passes (default: full)"
    )
    parser.add_argument(
        "--mesh", type=as_mesh, metavar="AXIS=N,…", help="devices, such as data=4 or data=2,model=2"
    )
    parser.add_argument(
        "--rules", choices=RULES, default="repeated", help="how parameters lie on the devices"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="mnist: an .npz file with x_train, y_train, ..."
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="save here, and resume from here"
    )
    parser.add_argument(
        "--checkpoint-every",
        type=int,
        default=1,
        metavar="N",
        help="epochs between two checkpoints (default 1)",
    )
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="write the model to a .safetensors file"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write metrics and history to a file"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("train-output"),
        metavar="DIR",
        help="folder for the figures",
    )
    arguments = parser.parse_args()
    for name in ("epochs", "batch_size", "lr", "weight_decay"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(SETTINGS[arguments.task], name))
    return arguments


def main():
    """Train, report, draw, and write the requested files."""
    arguments = parse()
    task = SETTINGS[arguments.task].build(arguments)
    print(nn.summary(task.net, task.train[0][: arguments.batch_size]))
    began = time.perf_counter()
    try:
        fit = train(task, arguments)
    except (nn.TrainingError, nn.TrainingInterrupted) as stopped:
        if arguments.export:
            nn.save_model(arguments.export, task.net, stopped.result.params, x=task.train[0][:1])
            print(f"model, as far as it was trained: {arguments.export}")
        sys.exit(f"error: {stopped}")
    seconds = time.perf_counter() - began
    if jax.process_count() > 1:  # the first process reports, without the devices of the others
        own = multihost_utils.process_allgather(fit.params, tiled=True)
        fit = dataclasses.replace(fit, params=own)
        if jax.process_index():
            return
    report(arguments.task, task, fit, seconds)
    draw(arguments.task, task, fit, arguments.out)
    if arguments.export:
        nn.save_model(arguments.export, task.net, fit.params, x=task.train[0][:1])
        print(f"model: {arguments.export}")
    if arguments.json:
        scores = nn.evaluate(task.net, task.loss, fit.params, task.test, metrics=task.metrics)
        if arguments.task.startswith("text"):
            scores["bits_per_character"] = bits(fit)
        results = {
            "task": arguments.task,
            "metrics": scores,
            "seconds": seconds,
            "params_sha256": sha256(fit.params),
            "history": {name: values.tolist() for name, values in fit.history.items()},
        }
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
        print(f"results: {arguments.json}")


if __name__ == "__main__":
    try:
        main()
    except nn.InputError as error:
        sys.exit(f"error: {error}")
