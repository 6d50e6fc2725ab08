"""Run a script in several processes on this machine, as one job of JAX.

    python scripts/launch.py N SCRIPT [ARGUMENT ...]

Each process calls ``jax.distributed.initialize`` and then runs the script, in which
``jax.devices()`` lists the devices of all processes. A cluster starts the processes by itself;
there the script calls ``jaxnn.join_processes()``, which finds its settings. If a process
fails, the others are ended, and the job can continue from its last checkpoint.
"""

import argparse
import signal
import socket
import subprocess
import sys
import time

START = """
import runpy, sys
import jax
address, count, number, script, *arguments = sys.argv[1:]
jax.distributed.initialize(address, int(count), int(number), heartbeat_timeout_seconds=10)
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
"""
PATIENCE = 20  # seconds that the others may take to notice that one has failed


def main(argv=None):
    """Start the processes, wait for all of them, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("processes", type=int, help="the number of processes, at least 1")
    parser.add_argument("script", help="the script that each of them runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    given = parser.parse_args(argv)
    if given.processes < 1:
        parser.error(f"expected at least 1 process, got {given.processes}")
    address = f"127.0.0.1:{free_port()}"
    start = [sys.executable, "-c", START, address, str(given.processes)]
    return wait(
        [
            subprocess.Popen([*start, str(number), given.script, *given.arguments])
            for number in range(given.processes)
        ]
    )


def wait(running):
    """Wait until all have ended; after a failure, end those that do not end by themselves.

    SIGTERM is passed on. A terminal sends Ctrl-C to all of them itself. After either, they save
    what they have, and end.
    """
    signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in running])
    signal.signal(signal.SIGINT, lambda *_: None)
    deadline = first = None
    while any(process.poll() is None for process in running):
        failed = [number for number, process in enumerate(running) if process.poll()]
        if failed and first is None:
            first, deadline = failed[0], time.monotonic() + PATIENCE
            status = running[first].returncode
            print(f"launch.py: process {first} ended with status {status}", file=sys.stderr)
        if deadline is not None and time.monotonic() > deadline:
            for process in running:
                process.kill()
        time.sleep(0.1)
    failed = [process for process in running if process.returncode]
    return (running[first] if first is not None else failed[0]).returncode if failed else 0


def free_port():
    """Return a port of this machine that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
