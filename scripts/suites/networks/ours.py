"""The networks here: what a user writes."""

import functools

import jax
import jax.numpy as jnp
import optax

import jaxnn as nn
from suites.networks.cases import (
    BATCH_SIZE,
    DEPTH,
    EMBEDDED,
    FEATURES,
    HEADS,
    HIDDEN,
    RATE,
    VOCABULARY,
)


def unet():
    """Halve the image twice and double it twice, adding what was before to what comes back."""
    inner = nn.chain(
        nn.MaxPool(2), nn.Conv2D(64, 3), nn.ReLU(), nn.ConvTranspose2D(32, 2, stride=2)
    )
    outer = nn.chain(
        nn.MaxPool(2), nn.Conv2D(32, 3), nn.ReLU(), nn.Residual(inner), nn.ReLU(),
        nn.Conv2D(32, 3), nn.ReLU(),
        nn.ConvTranspose2D(16, 2, stride=2),
    )  # fmt: skip
    return nn.chain(
        nn.Conv2D(16, 3),
        nn.ReLU(),
        nn.Residual(outer),
        nn.ReLU(),
        nn.Conv2D(16, 3),
        nn.ReLU(),
        nn.Conv2D(1, 1),
    )


NETWORKS = {
    "lenet": nn.lenet(10),
    "resnet": nn.resnet(10),
    "gru": nn.chain(nn.Embedding(VOCABULARY, EMBEDDED), nn.GRU(HIDDEN), nn.Dense(VOCABULARY)),
    "decoder": nn.transformer_decoder(VOCABULARY, features=FEATURES, heads=HEADS, layers=DEPTH),
    "unet": unet(),
}


def contestant(name, x, y, method="hand"):
    """One call of ``fit``."""
    loss = nn.MeanSquaredError() if name == "unet" else nn.SoftmaxCrossEntropy()
    fit = functools.partial(
        nn.fit, NETWORKS[name], loss, optax.adam(RATE), (jnp.asarray(x), jnp.asarray(y))
    )
    settings = {
        "batch_size": BATCH_SIZE[name],
        "key": jax.random.key(0),
        "method": method,
        "progress": False,
    }
    return lambda steps: fit(steps=steps, **settings)
