"""The measurements of all suites: contestants in turn in one run, medians with their spread."""

import statistics
import time


def in_turn(contestants, rounds):
    """Run each contestant once in each round, and return the seconds of each in a list.

    Each round starts with another contestant.
    """
    seconds = {name: [] for name in contestants}
    order = list(contestants)
    for _ in range(rounds):
        for name in order:
            start = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - start)
        order = order[1:] + order[:1]
    return seconds


def table(seconds, per=1, unit="s", scale=1.0):
    """Print the median and the spread of each contestant."""
    width = max(map(len, seconds))
    for name, values in seconds.items():
        low, mid, high = (f(values) * scale / per for f in (min, statistics.median, max))
        print(f"{name:<{width}}  {mid:10.4g} {unit}   ({low:.4g} to {high:.4g})", flush=True)


def medians(seconds, per=1):
    """Return the median of each contestant."""
    return {name: statistics.median(values) / per for name, values in seconds.items()}


def against(seconds, ours="ours"):
    """Return the ratio of the time of each other contestant to ours: the median over the rounds.

    Both times of a ratio are from the same round, because a shared machine may slow down between
    two rounds.
    """
    return {
        f"ratio_to_{name}": statistics.median(
            a / b for a, b in zip(values, seconds[ours], strict=True)
        )
        for name, values in seconds.items()
        if name != ours
    }
