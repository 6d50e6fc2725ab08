"""A step of five networks in each library: same network, data, batch size and optimizer."""

import functools
import importlib
import importlib.util
import math
import multiprocessing
import pathlib
import re
import time

from suites.measure import against, in_turn, medians, table
from suites.networks import cases

CONTESTANTS = {  # the module of the networks, what else it is told, and the library that it needs
    "ours": ("ours", {}, "jaxnn"),
    "ours_auto": ("ours", {"method": "auto"}, "jaxnn"),
    "raw_jax": ("raw_jax", {}, "jax"),
    "torch": ("torch", {}, "torch"),
    "torch_compile": ("torch", {"compiled": True}, "torch"),
    "equinox": ("equinox", {}, "equinox"),
    "nnx": ("nnx", {}, "flax"),
}
SECONDS, ROUNDS = 1.0, 7  # about so long a run, so often


def prepare(name, contestant):
    """Build one contestant's network and make its first step, which compiles."""
    module, settings, _ = CONTESTANTS[contestant]
    train = importlib.import_module(f"suites.networks.{module}").contestant(
        name, *cases.data(name), **settings
    )
    train(8)
    return train


def prepare_all(name):
    """Prepare all that are installed; return them, and the seconds of the first steps."""
    prepared, first = {}, {}
    for contestant, (_, _, library) in CONTESTANTS.items():
        if not importlib.util.find_spec(library):
            print(f"{contestant} is left out: {library} is not installed")
            continue
        began = time.perf_counter()
        try:
            prepared[contestant] = prepare(name, contestant)
        except Exception as error:  # a peer's compiler may fail in any way
            print(f"{contestant} is left out: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        first[contestant] = time.perf_counter() - began
    return prepared, first


def peak_memory(name, contestant):
    """Return the largest memory of a process that does nothing else, in MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_train_alone, (name, contestant))


def _train_alone(name, contestant):
    """Return the kernel's own peak; ``getrusage`` would count that of the process that forked."""
    prepare(name, contestant)
    status = pathlib.Path("/proc/self/status")
    if not status.exists():  # not Linux
        return math.nan
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1024


def steps_for(train):
    """Return how many steps fill a run."""
    began = time.perf_counter()
    train(8)
    return max(8, int(8 * SECONDS / (time.perf_counter() - began)))


def run(only=""):
    """Take all contestants in turn, for each network."""
    figures = {}
    for name, batch_size in cases.BATCH_SIZE.items():
        if only not in name:
            continue
        print(f"{name}, batch {batch_size}; a step:")
        prepared, first = prepare_all(name)
        steps = {contestant: steps_for(train) for contestant, train in prepared.items()}
        runs = {
            contestant: functools.partial(train, steps[contestant])
            for contestant, train in prepared.items()
        }
        for train in runs.values():
            train()
        seconds = in_turn(runs, ROUNDS)
        each = {c: [value * 1e3 / steps[c] for value in values] for c, values in seconds.items()}
        table(each, unit="ms")
        ratios = against(each)
        memory = {contestant: peak_memory(name, contestant) for contestant in prepared}
        print(
            "  ".join(
                f"{peer.removeprefix('ratio_to_')} {ratio:.2f}" for peer, ratio in ratios.items()
            )
        )
        print("peak memory, MiB: ", "  ".join(f"{c} {value:.0f}" for c, value in memory.items()))
        print(
            "first steps, s: ",
            "  ".join(f"{c} {value:.1f}" for c, value in first.items()),
            "\n",
            flush=True,
        )
        figures[name] = (
            medians(each) | ratios | {"peak_memory_mib": memory, "first_steps_seconds": first}
        )
    return figures
