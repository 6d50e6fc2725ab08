"""A loop of one's own that saves after every step, to be killed: FOLDER STEPS."""

import hashlib
import sys

import numpy as np

from jaxnn.training.checkpoint import Checkpoints
from jaxnn.training.interrupts import noting_signals


def main(folder, steps):
    checkpoints = Checkpoints(folder, keep=3)
    state = {"w": np.linspace(0, 1, 2000), "step": np.zeros((), int)}
    try:
        with noting_signals():
            found = checkpoints.load()
            if found is not None:
                state = {name: np.array(array) for name, array in found.group("state").items()}
                assert int(state["step"]) == found.step
            print("ready", flush=True)
            for step in range(int(state["step"]) + 1, steps + 1):
                state = {"w": np.sin(3 * state["w"] + step), "step": np.array(step)}
                checkpoints.save(
                    step, {"state": state}, {"of": "the loop"}, score=float(state["w"][0])
                )
    finally:
        checkpoints.wait()
    print(hashlib.sha256(state["w"].tobytes()).hexdigest())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
