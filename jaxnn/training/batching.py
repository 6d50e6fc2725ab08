"""Batches of training data, from arrays in memory or from a stream.   n rows, B rows per batch.

Arrays in memory are shuffled anew for each epoch. x and target may be any pytree of arrays whose
first axis is that of the rows.
"""

import contextlib
import itertools
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from jaxnn.checks import InputError, check_finite, check_not_empty
from jaxnn.conversion import as_arrays
from jaxnn.training.placement import with_automatic_axes

# the most that one compiled call works through of a stream
STACKED_BYTES = 32 * 2**20
STACKED_BATCHES = 64
END: Any = object()  # follows the last batch
LEAVE = 0.5  # seconds to wait for the thread of a stream that is no longer needed


class Batch(NamedTuple):
    """Inputs, targets, and the weights of the samples, which are None if all count equally."""

    x: PyTree
    target: PyTree
    weights: PyTree = None


def is_stream(data: Any) -> bool:
    """Return whether data are an iterable of batches, and not arrays in a tuple or a dict."""
    return not (isinstance(data, tuple | dict) or hasattr(data, "shape"))


def check_stream(who: str, data: Any) -> None:
    """Check that data can be iterated over."""
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise InputError(
            f"{who}: expected data (x, target) or an iterable of such batches, got {_kind(data)}."
        )
    if isinstance(data, list) and len(data) in (2, 3) and all(map(_is_rows, data)):
        raise InputError(
            f"{who}: expected data as a tuple (x, target), got a list of arrays: write "
            f"({', '.join(Batch._fields[: len(data)])})."
        )


def as_batch(who: str, data: Any) -> Batch:
    """Read ``(x, target)``, ``(x, target, weights)`` or a dict with these names; check their rows.

    Raises:
        InputError: for anything else, for arrays of different lengths, for arrays without rows, and
            for numbers that are not finite.
    """
    if isinstance(data, dict):
        if not {"x", "target"} <= set(data) <= {"x", "target", "weights"}:
            raise InputError(
                f"{who}: expected a dict of x, target and perhaps weights, got {sorted(data)}."
            )
        data = tuple(data[name] for name in Batch._fields if name in data)
    if hasattr(data, "_fields") and {"x", "y"} <= set(data._fields):
        raise InputError(
            f"{who}: expected data (x, target), got a data set; write (dataset.x, dataset.y)."
        )
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        got = f"{len(data)} entries" if isinstance(data, tuple) else _kind(data)
        raise InputError(f"{who}: expected data (x, target) or (x, target, weights), got {got}.")
    x, target, *weights = data
    batch = Batch(
        as_arrays(who, "x", x),
        as_arrays(who, "target", target),
        as_arrays(who, "weights", weights[0]) if weights and weights[0] is not None else None,
    )
    rows = None
    for field, tree in zip(Batch._fields, batch, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = field + jax.tree_util.keystr(path)
            if not hasattr(leaf, "shape") or not leaf.shape:
                raise InputError(
                    f"{who}: expected {name} to be arrays with a first axis of rows, "
                    f"got {_kind(leaf)}."
                )
            check_not_empty(who, name, leaf)
            rows = rows or len(leaf)
            if len(leaf) != rows:
                raise InputError(
                    f"{who}: expected {name} with as many rows as x ({rows}), got {len(leaf)}."
                )
        check_finite(who, field, tree)
    if not jax.tree.leaves(batch.x) or not jax.tree.leaves(batch.target):
        raise InputError(f"{who}: expected x and target with at least one array each, got none.")
    return batch


def _kind(value: Any) -> str:
    return f"an array of shape {value.shape}" if hasattr(value, "shape") else type(value).__name__


def _is_rows(value: Any) -> bool:
    return hasattr(value, "shape") or hasattr(value, "to_numpy")


def rows_of(batch: Batch) -> int:
    """Return n, the number of samples."""
    return len(jax.tree.leaves(batch.x)[0])


def padded_size(n: int, least: int = 1) -> int:
    """Return the next of a few sizes: one that has three binary digits of its own at most."""
    n = max(n, least)
    step = 2 ** max(0, n.bit_length() - 3)
    return -(-n // step) * step


def padded(batch: Batch) -> Batch:
    """Fill rows up with at least one row of weight 0, so that they have one of a few sizes."""
    n = rows_of(batch)
    size = padded_size(n + 1)
    weights = np.ones(n, np.float32) if batch.weights is None else np.asarray(batch.weights)

    def fill(leaf: Any) -> np.ndarray:
        leaf = np.asarray(leaf)
        return np.concatenate([leaf, np.repeat(leaf[:1], size - n, axis=0)])

    x, target = jax.tree.map(fill, (batch.x, batch.target))
    return Batch(x, target, np.concatenate([weights, np.zeros(size - n, weights.dtype)]))


def on_device(batch: Batch) -> Batch:
    """Put a batch on the device that will compute with it, in JAX's own dtypes."""
    return with_automatic_axes(jax.tree.map(jnp.asarray, batch))


# ── Arrays: the order of the rows in each epoch ─────────────────────────────────────────────────


def shuffle_seeds(keys: PRNGKeyArray) -> list[list[int]]:
    """Return the seeds of the shuffles, derived from the keys of one or more training runs.

    Each seed is a list of words, and there is one such list per run.
    """
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    words = np.asarray(jax.random.key_data(keys) if typed else keys)
    return words.reshape(-1, words.shape[-1]).tolist()


def epoch_order(seed: list[int], epoch: int, n: int) -> np.ndarray:
    """Return the order of the n rows in one epoch.

    It is a permutation that depends on the seed and the epoch alone. NumPy draws it on the host
    while the device trains, because drawing random numbers and sorting them on the device would
    take longer than an epoch of a small network.
    """
    return np.random.default_rng([*seed, epoch]).permutation(n).astype(np.int32)


# ── Streams: batches stacked on the host, ahead of the device ───────────────────────────────────


class Stack(NamedTuple):
    """Consecutive batches of one shape, stacked so that one compiled call works through many.

    Attributes:
        batches: the batches along a new first axis, of which the first ``filled`` entries count.
        filled: the number of batches.
        ends_pass: whether the stream ended after these batches.
    """

    batches: Batch
    filled: int
    ends_pass: bool


def stacks(
    who: str,
    stream: Iterable[Any],
    *,
    passes: int | None,
    steps: int | None,
    every: int | None,
    skip: int,
    check: Any,
) -> Iterator[Stack]:
    """Stack the batches of a stream.

    No stack extends beyond the end of a pass through the stream, or beyond a multiple of ``every``.

    Args:
        who: the function that the user called, for errors.
        stream: an iterable of batches, each (x, target) or (x, target, weights).
        passes: the number of passes through the stream, or None to continue until ``steps``.
        steps: the number of batches in all, or None for all of ``passes``.
        every: the number of steps at whose multiples a stack must end, or None.
        skip: the number of batches to skip at the beginning.
        check: a function that is called with each batch.

    Yields:
        The stacks, in order.

    Raises:
        InputError: if the stream ends too early, or if one of its items is not a batch.
    """
    step = 0
    for number in itertools.count():
        if number == passes or step == steps:
            return
        before = step
        held: list[Batch] = []
        source = iter(stream)
        following = next(source, END)
        while following is not END and step != steps:
            batch = following
            step += 1
            following = next(source, END) if step != steps else END  # which nobody would want
            if step <= skip:
                continue
            batch = jax.tree.map(np.asarray, as_batch(who, batch))
            check(batch)
            if held and _shapes(batch) != _shapes(held[0]):
                yield _stack(held, ends_pass=False)
                held = []
            held.append(batch)
            if len(held) == _capacity(batch) or (every and step % every == 0):
                yield _stack(held, ends_pass=following is END)
                held = []
        if held:
            yield _stack(held, ends_pass=following is END)
        if step == before:
            wanted = f"{steps} steps" if steps else f"{passes} epochs"
            raise InputError(
                f"{who}: expected batches for {wanted}, "
                f"got an iterator that was exhausted after {step}."
            )


def _shapes(batch: Batch) -> Any:
    return jax.tree.structure(batch), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(batch)]


def _capacity(batch: Batch) -> int:
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(batch))
    return max(1, min(STACKED_BATCHES, STACKED_BYTES // size))


def _stack(held: list[Batch], ends_pass: bool) -> Stack:
    """Stack batches, always up to full capacity, so that one compiled program serves any count."""
    fill = held[:1] * (_capacity(held[0]) - len(held))
    return Stack(
        on_device(jax.tree.map(lambda *leaves: np.stack(leaves), *held, *fill)),
        len(held),
        ends_pass,
    )


def ahead(items: Iterator[Any], count: int = 2) -> Generator[Any]:
    """Run an iterator in a thread of its own, at most ``count`` items ahead of the consumer.

    Closing it waits a moment for the thread, and no longer: an iterator that waits itself, on a
    queue or a network, can't be stopped from outside. The thread then ends after the next item, or
    with the process.
    """
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(count)
    stop, end = threading.Event(), object()

    def put(item: Any, error: BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, error), timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
            put(end, None)
        except BaseException as error:  # raised again in the thread of the consumer
            put(end, error)

    worker = threading.Thread(target=work, daemon=True, name="jaxnn data")
    worker.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        worker.join(LEAVE)
