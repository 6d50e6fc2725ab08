"""Do all that can go wrong, many times, and print what held."""

import argparse
import signal
import sys
import time

import experiments as do


def main():
    """Run all experiments in full; the exit status is 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=18, metavar="N", help="of each of six kinds (default 18)"
    )
    parser.add_argument(
        "--networks", type=int, default=300, metavar="N", help="that are drawn (default 300)"
    )
    kills, networks = vars(parser.parse_args()).values()
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    plans = [
        (do.networks, networks),
        *((do.damage, way, 25) for way in do.WAYS),
        (do.full_disk,),
        (do.no_inodes,),
        (do.short_files,),
        (do.read_only,),
        (do.renamed,),
        (do.foreign,),
        (do.shared, 3),
        (do.readers, 3),
        *(
            (do.kills, kills, (number,), target)
            for target in (do.LOOP, do.TRAIN)
            for number in signals
        ),
    ]
    print(f"{'what was done':<42}{'times':>6}  {'held':<5}{'s':>5}  what must hold", flush=True)
    broken = []
    for experiment, *arguments in plans:
        began = time.perf_counter()
        row = experiment(*arguments)
        seconds = time.perf_counter() - began
        held = "NO" if row.broken else "yes" if row.times else "-"
        print(f"{row.done:<42}{row.times:>6}  {held:<5}{seconds:>5.0f}  {row.must}", flush=True)
        for what in row.broken:
            print(f"    {what}", flush=True)
        broken += row.broken
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
