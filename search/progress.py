"""What the user sees while trials run: a live table on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from data_io.errors import printable
from data_io.secrecy import veiled
from search.asha import has_diverged

if TYPE_CHECKING:
    from types import TracebackType

    from search.metrics import Row
    from search.space import TrialConfig

LOG_EVERY = 15.0
"""Seconds between two plain lines about running trials."""
SHOW_EVERY = 0.5
"""Seconds between two pictures of the live table, while no trial ends: it looks through all of them."""


@dataclass
class _Seen:
    """One trial as the display knows it."""

    trial: TrialConfig
    row: Row | None = None
    best: float = float("-inf")
    status: str = "waiting"
    reason: str = ""
    changed: float = field(default_factory=time.monotonic)


class Display:
    """A watcher that shows the search; use it as a context manager.

    Parameters
    ----------
    trials
        All trials of the plan, settled ones included.
    settled
        Status of the trials that earlier sittings ended.
    minutes
        The wall-clock budget, None without one.
    stream
        Where to write; a live table only if it is a terminal.
    """

    def __init__(
        self,
        trials: tuple[TrialConfig, ...],
        settled: dict[str, str],
        minutes: float | None,
        stream: TextIO | None = None,
    ) -> None:
        self.console = Console(file=stream or sys.stdout, highlight=False, markup=False, emoji=False)
        self.seen = {trial.id: _Seen(trial, status=settled.get(trial.id, "waiting")) for trial in trials}
        self.minutes = minutes
        self.began = time.monotonic()
        self.spoken = self.shown = 0.0
        self.epochs = 0
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        """Show the empty table."""
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave one last line."""
        if self.live:
            self.live.stop()
        self.console.print(self._headline(), soft_wrap=True)

    def started(self, trial: TrialConfig) -> None:
        """See `search.scheduler.Watcher`."""
        self.seen.setdefault(trial.id, _Seen(trial)).status = "waiting"

    def epoch(self, trial: TrialConfig, row: Row) -> None:
        """See `search.scheduler.Watcher`."""
        seen = self.seen[trial.id]
        seen.row, seen.status, seen.changed = row, "running", time.monotonic()
        self.epochs += 1
        if not has_diverged(row["rung_metric"]):
            seen.best = max(seen.best, row["rung_metric"])
        if not self.live and time.monotonic() - self.spoken > LOG_EVERY:
            self.spoken = time.monotonic()
            self.console.print(f"{self._headline()} | {self._line(seen)}", soft_wrap=True)
        if time.monotonic() - self.shown > SHOW_EVERY:
            self._refresh()

    def ended(self, trial: TrialConfig, status: str, reason: str) -> None:
        """See `search.scheduler.Watcher`."""
        seen = self.seen[trial.id]
        seen.status, seen.reason = status, printable(veiled(reason))
        if not self.live:
            self.console.print(
                f"{self._clock()} {status}: {self._line(seen)}{f' ({seen.reason})' if reason else ''}", soft_wrap=True
            )
        self._refresh()

    def _refresh(self) -> None:
        if self.live:
            self.shown = time.monotonic()
            self.live.update(Group(Text(self._headline()), self._table()), refresh=True)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        return f"{minutes:2d}:{seconds:02d}"

    def _headline(self) -> str:
        counts = {
            status: sum(s.status == status for s in self.seen.values())
            for status in ("completed", "stopped", "running")
        }
        lost = sum(s.status in {"failed", "diverged"} for s in self.seen.values())
        waiting = sum(s.status == "waiting" for s in self.seen.values())
        limit = f" of {self.minutes:g} min" if self.minutes else ""
        left = self.seconds_left()
        ahead = "" if left is None else f", about {max(1, round(left / 60))} min left"
        leaders = self._leaders().values()
        best = "".join(f"; best {s.trial.target} {s.best:.4f}" for s in leaders if s.best > float("-inf"))
        return (
            f"{self._clock()}{limit}  {counts['completed']} completed, {counts['stopped']} stopped early, "
            f"{counts['running']} running, {waiting} waiting, {lost} failed of {len(self.seen)} trials{ahead}{best}"
        )

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end, by the pace so far; None before the first epoch and after the last one.

        A waiting trial is taken to run as long as those that have ended did, or in full while none has.
        """
        ended = [s for s in self.seen.values() if s.status not in {"waiting", "running"} and s.row is not None]
        mean = sum(s.row["epoch"] for s in ended if s.row) / len(ended) if ended else None
        ahead = 0.0
        for seen in self.seen.values():
            if seen.status == "running" and seen.row is not None:
                whole = seen.trial.epochs if mean is None or seen.trial.reference else mean
                ahead += max(0.0, whole - seen.row["epoch"])
            elif seen.status == "waiting":
                ahead += seen.trial.epochs if mean is None or seen.trial.reference else mean
        if not self.epochs or not ahead:
            return None
        gone = time.monotonic() - self.began
        by_pace = ahead * gone / self.epochs
        return min(by_pace, max(0.0, 60 * self.minutes - gone)) if self.minutes else by_pace

    def _leaders(self) -> dict[str, _Seen]:
        """Return the best trial of each target that has a value."""
        shown = [s for s in self.seen.values() if s.row is not None]
        return {s.trial.target: s for s in sorted(shown, key=lambda s: s.best)}

    def _line(self, seen: _Seen) -> str:
        if seen.row is None:
            return seen.trial.id
        return (
            f"{seen.trial.id} epoch {seen.row['epoch']}/{seen.trial.epochs} "
            f"loss {_number(seen.row['train_loss'], 3)} val IoU {_number(seen.row['val_dataset_iou'], 4)}"
        )

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("target", "trial", "epoch", "val IoU", "state"):
            table.add_column(name, justify="right" if name in {"epoch", "val IoU"} else "left")
        running = [s for s in self.seen.values() if s.status == "running"]
        leaders = self._leaders()
        for seen in [*leaders.values(), *(s for s in running if s not in leaders.values())][:20]:
            if seen.row is None:
                continue
            mark = "best so far, " if seen in leaders.values() else ""
            table.add_row(
                seen.trial.target,
                seen.trial.id,
                f"{seen.row['epoch']}/{seen.trial.epochs}",
                _number(seen.row["val_dataset_iou"], 4),
                f"{mark}{seen.status}",
            )
        return table


def _number(value: object, digits: int) -> str:
    """Return a value of a row; one that is no number, which ends its trial, as it is."""
    return f"{value:.{digits}f}" if isinstance(value, float | int) else str(value)
