"""Early stopping: the rule, and the hook that applies it."""

import dataclasses
import math
import numbers
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
    """The rule to stop when an entry of the history has not improved for some time.

    Args:
        patience: the number of records to wait for an improvement.
        monitor: the entry, such as "loss", "validation_loss" or "validation_accuracy".
        mode: "min" if lower is better, "max" if higher is better; None for losses and named
            metrics, of which this is known.
        min_delta: the amount that an improvement has to exceed, at least 0.
        restore_best: whether the result has the parameters of the best record instead of the last.

    Raises:
        InputError: for settings outside their range, or for a metric that is a function, without a
            mode.
    """

    patience: int = 5
    monitor: str = "validation_loss"
    mode: str | None = None
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        check_positive_int("EarlyStopping", "patience", self.patience)
        if not isinstance(self.monitor, str):
            raise InputError(
                f"EarlyStopping: expected monitor to be the name of an entry, got {self.monitor!r}."
            )
        check_bool("EarlyStopping", "restore_best", self.restore_best)
        if self.mode is not None:
            check_choice("EarlyStopping", "mode", self.mode, ("min", "max"))
        is_number = isinstance(self.min_delta, numbers.Real) and self.min_delta is not True
        if not is_number or not 0 <= self.min_delta < math.inf:
            raise InputError(
                f"EarlyStopping: expected min_delta of at least 0, got {self.min_delta!r}."
            )


class Patience:
    """The memory of one run that an :class:`EarlyStopping` needs.

    Args:
        rule: the rule.
    """

    def __init__(self, rule: EarlyStopping) -> None:
        self._rule = rule
        self._sign = 1 if better("EarlyStopping", rule.monitor, rule.mode) == "min" else -1
        self._seen, self._best, self._lowest = 0, 1, math.inf  # counted from 1

    def take(self, value: float) -> None:
        """Take the next value of the entry into account."""
        self._seen += 1
        if self._sign * value < self._lowest - self._rule.min_delta:
            self._best, self._lowest = self._seen, self._sign * value

    @property
    def improved(self) -> bool:
        """Whether the last value is the best so far."""
        return self._best == self._seen

    @property
    def exhausted(self) -> bool:
        """Whether it is time to stop."""
        return self._seen - self._best >= self._rule.patience


class StopEarly(Hook):
    """The hook that applies the rule of an :class:`EarlyStopping` to each record.

    Args:
        rule: the rule.
        run: the run, of which the records so far are taken into account.
        names: the names of the entries in its records.
    """

    def __init__(self, rule: EarlyStopping, run: Run, names: Sequence[str]) -> None:
        if rule.monitor.startswith(wanted := "validation_") and not any(
            name.startswith(wanted) for name in names
        ):
            raise InputError(
                f"EarlyStopping: expected validation= in the call, for {rule.monitor!r}, got none."
            )
        check_choice("EarlyStopping", "monitor", rule.monitor, tuple(names))
        self._rule, self._patience = rule, Patience(rule)
        self.needs_state = rule.restore_best
        for record in run.history.records:
            self._patience.take(record[rule.monitor])
        self._check(run)

    def after_record(self, run: Run, record: Record) -> None:
        """Keep the parameters of the best record so far; stop when the patience is exhausted."""
        self._patience.take(record[self._rule.monitor])
        if self._rule.restore_best and self._patience.improved:
            run.best = jax.tree.map(jnp.copy, run.state.params)
        self._check(run)

    def _check(self, run: Run) -> None:
        if self._patience.exhausted:
            run.stop("early stopping")
