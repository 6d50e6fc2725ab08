"""256 small networks in one program, against single runs of ours and of scikit-learn."""

import functools

import jax
import optax

import jaxnn as nn
from jaxnn import data
from suites import peers
from suites.measure import against, in_turn, medians, table

MEMBERS, EPOCHS, SOLO = 256, 10, 4


def run(only=""):
    """Time the population, single runs of ours and of scikit-learn in turn.

    The results are seconds for one member and one epoch.
    """
    digits = data.digits()
    sizes, batch_size, optimizer = (64, 32, 10), 32, optax.adam(peers.RATE)
    net, loss, train = nn.mlp(32, 10), nn.SoftmaxCrossEntropy(), (digits.x, digits.y)
    keys = jax.random.split(jax.random.key(0), MEMBERS)
    options = {"epochs": EPOCHS, "batch_size": batch_size, "progress": False}
    groups = set()

    def population():
        found = nn.fit_population(net, loss, optimizer, train, keys=keys, **options)
        groups.add(found.group)

    def solo():
        for key in keys[:SOLO]:
            nn.fit(net, loss, optimizer, train, key=key, **options)

    contestants = {"ours": population, "solo": solo}
    members = {"ours": MEMBERS, "solo": SOLO, "sklearn": 1}
    sklearn = peers.sklearn(sizes, digits.x, digits.y, batch_size)
    contestants["sklearn"] = functools.partial(sklearn, EPOCHS)
    for contestant in contestants.values():
        contestant()
    seconds = in_turn(contestants, rounds=7)
    each = {
        name: [value / members[name] / EPOCHS for value in values]
        for name, values in seconds.items()
    }
    print(f"{MEMBERS} networks 64-32-10 on digits, {max(groups)} side by side; a member and epoch:")
    table(each, unit="ms", scale=1e3)
    ratios = against(each)
    print(
        "  ".join(f"{name.removeprefix('ratio_to_')} {ratio:.2f}" for name, ratio in ratios.items())
    )
    return {"members": MEMBERS, "group": max(groups)} | medians(each) | ratios
