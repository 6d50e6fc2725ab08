"""Training on four devices: each test of ``on_four_devices.py`` in a process of its own."""

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jaxnn as nn

SCRIPT = Path(__file__).parent / "on_four_devices.py"
TESTS = (
    "rows_given", "parameters_given", "members_given", "modes", "sequences", "members", "resumed",
    "programs", "lowered", "refused",
)  # fmt: skip
QUICK = {"resumed", "programs", "refused"}


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TESTS],
)
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


JOB = Path(__file__).parent / "on_processes.py"
LAUNCH = Path(__file__).parent.parent / "scripts" / "launch.py"


def environment():
    return os.environ | {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run_job(processes, mode, folder):
    """Run a job of several processes; return what it wrote, its exit status and its errors."""
    done = subprocess.run(
        [sys.executable, LAUNCH, str(processes), JOB, mode, folder],
        env=environment(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    path = folder / "result.npz"
    return (dict(np.load(path)) if path.exists() else None), done.returncode, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run_job(1, "alone", tmp_path_factory.mktemp("alone"))[0]


def check_close(result, alone):
    assert result.keys() == alone.keys()
    for name in alone:
        np.testing.assert_allclose(result[name], alone[name], rtol=1e-10, atol=1e-13)


PROCESSES = [(2, "repeated"), (2, "sharded"), (4, "sharded"), (2, "own rows"), (4, "own rows")]


@pytest.mark.slow  # each is a job of its own
@pytest.mark.parametrize(("processes", "mode"), PROCESSES)
def test_the_same_numbers_in_several_processes(processes, mode, alone, tmp_path):
    result, status, errors = run_job(processes, mode, tmp_path)
    assert status == 0, errors
    check_close(result, alone)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_each_process_reads_its_rows_of_a_stream(processes, tmp_path):
    in_order = run_job(1, "in order", tmp_path)[0]
    result, status, errors = run_job(processes, "a stream", tmp_path)
    assert status == 0, errors
    check_close(result, in_order)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["another stream", "a shorter stream"])
def test_processes_with_different_streams_are_told(mode, tmp_path):
    result, status, errors = run_job(2, mode, tmp_path)
    assert (result, status) == (None, 1)
    assert "expected the same batches of a stream (numbers, shapes) in each of the 2" in errors


def check_each_shard_is_written_once(folder):
    """Each of two processes writes its half of the parameters and of the optimizer's means."""
    arrays = json.loads((folder / "entry.json").read_text())["document"]["arrays"]
    divided = 0
    for each in arrays.values():
        sizes = {block["file"]: math.prod(block["shape"]) for block in each["blocks"]}
        assert sum(sizes.values()) == math.prod(each["shape"])
        divided += len(sizes) == 2 and len(set(sizes.values())) == 1
    assert divided == 12  # two matrices and two biases, and the two means of each


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fail", "fail with own rows"])
def test_a_process_that_fails_ends_the_job_which_resumes_in_fewer_processes(mode, alone, tmp_path):
    result, status, errors = run_job(2, mode, tmp_path)
    assert (result, status) == (None, 9)
    assert "launch.py: process 1 ended with status 9" in errors
    check_each_shard_is_written_once(tmp_path / "checkpoints" / "4")
    result, status, errors = run_job(1, "resume", tmp_path)
    assert status == 0, errors
    check_close(result, alone)


JOIN = """
import sys
import jaxnn as nn
address, count, number, timeout = sys.argv[1], *map(int, sys.argv[2:])
nn.join_processes(
    timeout=timeout, coordinator_address=address, num_processes=count, process_id=number
)
import jax
print(jax.process_count())
"""


def join(count, numbers, timeout):
    """Start some processes of a job; return the status and output of each."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, address, str(count), str(number), str(timeout)],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in numbers
    ]  # fmt: skip
    said = [job.communicate(timeout=120)[0] for job in jobs]
    return [(job.returncode, text) for job, text in zip(jobs, said, strict=True)]


def test_join_processes_expects_whole_seconds():
    with pytest.raises(nn.InputError, match="join_processes: expected timeout to be an integer"):
        nn.join_processes(timeout=0.5)


@pytest.mark.slow
def test_processes_name_those_that_do_not_come():
    for status, said in join(4, [0, 1], timeout=5):
        assert status != 0
        assert "# of tasks that reached the barrier: 2/4." in said
        assert set(re.search(r"timed out task names:\n([\d, \n]+)\n", said)[1].split()) >= {
            "2",
            "3",
        }
    for status, said in join(2, [0, 1], timeout=60):
        assert (status, said.split()[-1]) == (0, "2")


@pytest.mark.slow
@pytest.mark.parametrize("step", [8, 16])  # in the middle, and after the last step
def test_a_signal_to_one_process_saves_and_ends_all(step, alone, tmp_path):
    result, status, errors = run_job(2, f"terminate at {step}", tmp_path)
    assert (result, status) == (None, 0), errors
    result, status, errors = run_job(2, "resume", tmp_path)
    assert status == 0, errors
    check_close(result, alone)


@pytest.mark.slow
def test_a_signal_to_the_launcher_reaches_all(alone, tmp_path):
    command = [sys.executable, LAUNCH, "2", JOB, "terminate from outside", tmp_path]
    with subprocess.Popen(command, env=environment()) as job:
        while job.poll() is None and not (tmp_path / "checkpoints" / "4").exists():
            time.sleep(0.1)
        job.terminate()
        assert job.wait(60) == 0
    assert not (tmp_path / "result.npz").exists()
    check_close(run_job(2, "resume", tmp_path)[0], alone)


@pytest.mark.slow
@pytest.mark.parametrize("thing", ["data", "schedule"])
def test_processes_that_differ_are_told_before_they_wait_for_one_another(thing, tmp_path):
    result, status, errors = run_job(2, f"other {thing}", tmp_path)
    assert (result, status) == (None, 1)
    assert f"expected the same {thing} in each of the 2 processes, got another" in errors


@pytest.mark.slow
def test_processes_with_different_numbers_of_rows_are_told(tmp_path):
    result, status, errors = run_job(2, "other lengths", tmp_path)
    assert (result, status) == (None, 1)
    assert "own_rows: expected the same rows (numbers, types) in each of the 2 processes" in errors
