"""How all suites measure: contestants in turn within one run, the median quoted with its spread."""

import statistics
import time


def in_turn(contestants, rounds):
    """Run each contestant once a round, another one first each time; give each one's seconds, a list a name."""
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
    """Give each contestant's median."""
    return {name: statistics.median(values) / per for name, values in seconds.items()}


def against(seconds, ours="ours"):
    """Give how many times longer each of the others takes: the median of the ratios within a round.

    Within one, because a machine that others use too may slow down from one round to the next.
    """
    return {
        f"ratio_to_{name}": statistics.median(
            a / b for a, b in zip(values, seconds[ours], strict=True)
        )
        for name, values in seconds.items()
        if name != ours
    }
