"""What Ray trains next: the planned trials in their order, those put back after a lack of memory, Optuna's proposals.

Ray asks for one trial at a time and is told when there are none left. A trial that is put back comes next, with the
resources it was put back with.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ray.tune.search import Searcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from search.metrics import Row
    from search.space import TrialConfig


class Source(Protocol):
    """Makes trials as the search goes on."""

    def next(self) -> list[TrialConfig]:
        """Return the trials that come next; none when no more are to be had."""


class Queue(Searcher):
    """The trials of a search in the order in which Ray gets them.

    Parameters
    ----------
    waiting
        Planned trials that are not settled.
    may_start
        Whether the budget lets a trial begin.
    place
        Gives a trial its share of the machine.
    source
        Where further trials come from once `waiting` is empty, None for nowhere.
    at_once
        Most trials that Ray gets before one of them has ended; None for as many as it asks for.
    at_last
        Trials that come again when all others have ended.
    """

    def __init__(
        self,
        waiting: Iterable[TrialConfig],
        may_start: Callable[[TrialConfig], bool],
        place: Callable[[TrialConfig], TrialConfig],
        source: Source | None = None,
        at_once: int | None = None,
        at_last: Callable[[], list[TrialConfig]] = list,
    ) -> None:
        super().__init__()
        self.waiting = deque(waiting)
        self.may_start = may_start
        self.place = place
        self.source = source
        self.at_once = at_once
        self.at_last = at_last
        self.under_way: set[str] = set()
        self.given: dict[str, TrialConfig] = {}
        self.refused = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next trial's configuration, None while a running one may still come back, else the end."""
        if self.at_once is not None and len(self.under_way) >= self.at_once:
            return None
        trial = self._next()
        if trial is None:
            return None if self.under_way else Searcher.FINISHED
        self.under_way.add(trial.id)
        self.given[trial.id] = trial
        return {"trial": self.place(trial).model_dump(mode="json")}

    def put_back(self, trial: TrialConfig) -> None:
        """Let a trial come again, before all others."""
        self.under_way.discard(trial.id)
        self.waiting.appendleft(trial)

    def started(self, trial: TrialConfig) -> None:
        """See `search.scheduler.Watcher`."""

    def epoch(self, trial: TrialConfig, row: Row) -> None:
        """See `search.scheduler.Watcher`."""

    def ended(self, trial: TrialConfig, status: str, reason: str) -> None:
        """See `search.scheduler.Watcher`."""
        self.under_way.discard(trial.id)

    def _next(self) -> TrialConfig | None:
        while True:
            if not self.waiting and self.source is not None and not self.refused:
                self.waiting.extend(self.source.next())
            if not self.waiting and not self.under_way:
                self.waiting.extend(self.at_last())
            if not self.waiting:
                return None
            trial = self.waiting.popleft()
            if self.may_start(trial):
                return trial
            self.refused = True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler tells what happened, in the words of the ledger."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: Ray's state is never read back."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: the ledger is the record."""

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray pickles the searcher, but what it saves is never read back."""
        return {}
