"""Training on four devices: each test of ``on_four_devices.py`` in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "on_four_devices.py"
TESTS = (
    "rows_given", "parameters_given", "members_given", "modes", "sequences", "members", "resumed",
    "programs", "refused",
)  # fmt: skip


@pytest.mark.parametrize("name", TESTS)
def test_the_same_numbers_on_four_devices(name):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_ENABLE_X64": "1",
        # the plan of a program is read from it as it is compiled for users
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0" if name == "programs" else "1",
    }
    done = subprocess.run(
        [sys.executable, SCRIPT, name], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
