"""Write a page with every number of a small transformer that reads a word of yours.

    python scripts/character_page.py [--text hello] [--out characters.html] [--steps 40] [...]

A transformer of one block learns to predict the next character of the text: embedding, positions,
causal attention, and two layers of neurons, with normalisations and residuals, then softmax cross
entropy. After some steps of training the page shows both passes at these weights: each query, key
and value, the matrix of attention, and the derivative of each. It opens in any browser, without a
server or a network, and every weight can be changed there.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import optax

import jaxnn as nn


def parse():
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default="hello", help="5 to 9 characters")
    parser.add_argument("--out", type=Path, default=Path("characters.html"), help="the page")
    parser.add_argument("--steps", type=int, default=40, help="steps of training before")
    parser.add_argument("--features", type=int, default=4, help="channels of each character")
    parser.add_argument("--hidden", type=int, default=6, help="neurons of the block")
    parser.add_argument("--seed", type=int, default=0, help="of the weights before training")
    options = parser.parse_args()
    if not 5 <= len(options.text) <= 9 or len(set(options.text)) < 2:
        parser.error(f"expected 5 to 9 characters, not all the same, got {options.text!r}.")
    if min(options.features, options.hidden, options.steps) < 1:
        parser.error("expected --features, --hidden and --steps to be at least 1.")
    return options


def transformer(vocabulary, features, hidden):
    """Return a transformer of one block, from characters to logits of the next one."""
    attention = nn.chain(nn.LayerNorm(), nn.MultiHeadAttention(1, causal=True, bias=False))
    neurons = nn.chain(nn.LayerNorm(), nn.Dense(hidden), nn.GELU(), nn.Dense(features))
    return nn.chain(
        nn.Embedding(vocabulary, features), nn.SinusoidalPositions(),
        nn.Residual(attention), nn.Residual(neurons), nn.LayerNorm(), nn.Dense(vocabulary),
    )  # fmt: skip


def main():
    """Train the network, write the page, and say where it is."""
    options = parse()
    jax.config.update("jax_enable_x64", True)  # the page computes in float64, too
    vocabulary = sorted(set(options.text))
    numbers = np.array([[vocabulary.index(character) for character in options.text]])
    x, target = numbers[:, :-1], numbers[:, 1:]
    net, loss = (
        transformer(len(vocabulary), options.features, options.hidden),
        nn.SoftmaxCrossEntropy(),
    )
    key = jax.random.key(options.seed)
    fit = nn.fit(
        net, loss, optax.adam(0.02), (x, target), epochs=options.steps, batch_size=1, key=key
    )
    trace = nn.trace(net, loss, fit.params, x, target)
    page = nn.explain(trace, "html", tokens=options.text[:-1], vocabulary=vocabulary)
    options.out.write_text(page, encoding="utf-8")
    print(f"After {options.steps} steps, J = {float(trace.value):.3f}.")
    print(f"The page is in {options.out}. Open it in a browser.")


if __name__ == "__main__":
    main()
