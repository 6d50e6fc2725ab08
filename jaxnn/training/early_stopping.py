"""When training has gone on long enough: the rule, and the hook that follows it."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnn.checks import InputError, check_bool, check_choice, check_positive_int
from jaxnn.training.history import Record
from jaxnn.training.hooks import Hook
from jaxnn.training.loop import Run
from jaxnn.training.metrics import better


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop when an entry of the history has not become better for a while.

    Args:
        patience: how many records to wait for an improvement.
        monitor: the entry, such as "loss", "validation_loss" or "validation_accuracy".
        mode: "min" if lower is better, "max" if higher is; None where the entry says so itself, as losses
            and named metrics do.
        min_delta: what counts as an improvement, at least 0.
        restore_best: whether the result's parameters are those of the best record, and not the last.

    Raises:
        InputError: for settings out of their range, or for a function as a metric without a mode.
    """

    patience: int = 5
    monitor: str = "validation_loss"
    mode: str | None = None
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        check_positive_int("EarlyStopping", "patience", self.patience)
        check_bool("EarlyStopping", "restore_best", self.restore_best)
        if self.mode is not None:
            check_choice("EarlyStopping", "mode", self.mode, ("min", "max"))
        if not 0 <= self.min_delta < math.inf:
            raise InputError(
                f"EarlyStopping: expected min_delta of at least 0, got {self.min_delta!r}."
            )


class StopEarly(Hook):
    """Follows the rule of an :class:`EarlyStopping`, record by record.

    Args:
        rule: when to stop.
        run: the run, whose records so far count.
        names: the entries that its records have.
    """

    def __init__(self, rule: EarlyStopping, run: Run, names: Sequence[str]) -> None:
        check_choice("EarlyStopping", "monitor", rule.monitor, tuple(names))
        self._rule = rule
        self._sign = 1 if better("EarlyStopping", rule.monitor, rule.mode) == "min" else -1
        self._seen, self._best, self._lowest = 0, 1, math.inf  # counted from 1
        for record in run.history.records:
            self._take(record)
        self._check(run)

    def after_record(self, run: Run, record: Record) -> None:
        """Keep the parameters of a record that is the best so far; stop after a long enough wait."""
        self._take(record)
        if self._rule.restore_best and self._best == self._seen:
            run.best = jax.tree.map(jnp.copy, run.state.params)
        self._check(run)

    def _take(self, record: Record) -> None:
        self._seen += 1
        value = self._sign * record[self._rule.monitor]
        if value < self._lowest - self._rule.min_delta:
            self._best, self._lowest = self._seen, value

    def _check(self, run: Run) -> None:
        if self._seen - self._best >= self._rule.patience:
            run.stop("early stopping")
