"""The start of a job of several processes, which wait for each other."""

from functools import partial
from typing import Any

import jax
from jaxlib import _jax

from jaxnn.checks import check_positive_int

REPLY = 30  # seconds in which the answer of the first process reaches the others


def join_processes(*, timeout: int = 300, **settings: Any) -> None:
    """Join the processes of one job, before anything else is asked of JAX.

    It is ``jax.distributed.initialize``, but for one thing: if not all processes have come when the
    time is over, each of those that have come ends with a message that gives the numbers of the
    others. JAX by itself says only that a deadline was exceeded.

    Args:
        timeout: the seconds that processes wait for each other.
        **settings: arguments of ``jax.distributed.initialize``, such as ``coordinator_address``,
            ``num_processes`` and ``process_id``. SLURM, Kubernetes, Open MPI and TPUs give these by
            themselves.

    Raises:
        InputError: for a timeout that is not a whole number from 1 on.
        ValueError: if JAX does not find the settings of the job.
    """
    check_positive_int("join_processes", "timeout", timeout)
    # The first process keeps the list of those that have come. It gives it to all of them when its
    # own time is over, an hour by default, which JAX does not let one set.
    start_list = _jax.get_distributed_runtime_service
    _jax.get_distributed_runtime_service = partial(start_list, cluster_register_timeout=timeout)
    try:
        jax.distributed.initialize(initialization_timeout=timeout + REPLY, **settings)
    finally:
        _jax.get_distributed_runtime_service = start_list
