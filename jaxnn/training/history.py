"""The history of a training run: the loss of every step, and records at regular intervals."""

from typing import Any

import numpy as np

Record = dict[str, Any]  # "step", "loss", and the scores of the validation


class History:
    """The losses and the records so far. For M networks at once, each loss is an array (M,).

    Args:
        first: the step at which the run starts.

    Attributes:
        step: the step that the run has reached.
        records: the records so far, in order.
    """

    def __init__(self, first: int) -> None:
        self.step = first
        self.records: list[Record] = []
        self._losses: list[np.ndarray] = []  # of all steps, in pieces
        self._waiting = np.zeros(0), np.zeros(0, int)  # losses and rows since the last record

    @classmethod
    def restored(
        cls, step: int, columns: dict[str, np.ndarray], waiting_rows: np.ndarray
    ) -> "History":
        """Restore a history at ``step`` from its :meth:`arrays` and its :attr:`waiting_rows`."""
        history, columns = cls(step), dict(columns)
        losses = columns.pop("step_loss")
        history._losses = [losses]
        history._waiting = losses[len(losses) - len(waiting_rows) :], waiting_rows
        names, values = list(columns), [list(column) for column in columns.values()]
        history.records = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
        return history

    @property
    def waiting_rows(self) -> np.ndarray:
        """The number of rows in the batch of each step since the last record."""
        return self._waiting[1]

    def add(self, losses: np.ndarray, rows: np.ndarray) -> None:
        """Add the losses of the next steps, and the number of rows in the batch of each step."""
        self.step += len(losses)
        self._losses.append(losses)
        if len(self._waiting[0]):
            losses, rows = (
                np.concatenate(pair) for pair in zip(self._waiting, (losses, rows), strict=True)
            )
        self._waiting = losses, rows

    @property
    def recorded(self) -> int:
        """The step of the last record, or the first step if there is no record yet."""
        return self.step - len(self._waiting[0])

    def due(self, every: int) -> range:
        """Return the multiples of ``every`` since the last record, up to the present step."""
        return range((self.recorded // every + 1) * every, self.step + 1, every)

    def record(self, step: int) -> Record:
        """Make the record of a step, with the mean loss over all rows since the previous record."""
        losses, rows = self._waiting
        count = step - self.recorded
        loss = np.average(losses[:count].astype(np.float64), axis=0, weights=rows[:count])
        self._waiting = losses[count:], rows[count:]
        self.records.append({"step": step, "loss": loss})
        return self.records[-1]

    def forget(self) -> None:
        """Discard the losses after the last record, which have all come with the last addition."""
        extra = len(self._waiting[0])
        self.step -= extra
        self._losses[-1] = self._losses[-1][: len(self._losses[-1]) - extra]
        self._waiting = np.zeros(0), np.zeros(0, int)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return arrays by name, with one entry per record; "step_loss" has one entry per step."""
        names = self.records[0] if self.records else ()
        columns = {name: np.array([record[name] for record in self.records]) for name in names}
        step_loss = np.concatenate(self._losses) if self._losses else np.zeros(0)
        return columns | {"step_loss": step_loss}
