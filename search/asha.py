"""ASHA's decisions as plain functions of what was reported before (Li et al. 2020, the stopping variant).

A bracket holds the trials of one target. At each rung (grace, grace x eta, grace x eta^2, ... epochs) a trial goes on
if its value is among the best 1 / eta of those that reached the rung before it; the first one always goes on, so that
every bracket finishes at least one trial. Nothing here knows Ray: replaying the ledger through `Bracket.judge` gives
the same decisions.

    >>> bracket = Bracket(grace=1, max_epochs=9, reduction=3)
    >>> bracket.judge("a", 1, 0.5).stop, bracket.judge("b", 1, 0.4).stop, bracket.judge("c", 1, 0.6).stop
    (False, True, False)
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Decision:
    """Whether a trial stops, at which rung (epochs), and the cutoff its value was held against (None: first there)."""

    stop: bool
    rung: int | None = None
    cutoff: float | None = None


CONTINUE = Decision(stop=False)


@dataclass
class Bracket:
    """Rungs of one target.

    Parameters
    ----------
    grace
        Epochs before the first rung.
    max_epochs
        Epochs of a full trial; a trial that reaches them is complete, not judged.
    reduction
        One trial in so many goes on.
    """

    grace: int
    max_epochs: int
    reduction: float
    recorded: dict[int, dict[str, float]] = field(default_factory=dict)
    _ascending: dict[int, list[float]] = field(default_factory=dict)
    """The values of each rung in order, so that a cutoff among thousands is read off, not sorted for."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are judged, ascending, all below `max_epochs`."""
        count = max(0, math.ceil(math.log(self.max_epochs / self.grace, self.reduction) - 1e-9))
        grown = dict.fromkeys(round(self.grace * self.reduction**k) for k in range(count))
        return tuple(rung for rung in grown if rung < self.max_epochs)

    def judge(self, trial: str, epoch: int, value: float) -> Decision:
        """Record `value` (higher is better, finite) where `epoch` is a rung and say whether `trial` stops there."""
        if epoch not in self.rungs or trial in self.recorded.get(epoch, {}):
            return CONTINUE
        self.recorded.setdefault(epoch, {})[trial] = value
        rivals = self._ascending.setdefault(epoch, [])
        cutoff = quantile(rivals, 1 - 1 / self.reduction) if rivals else None
        insort(rivals, value)
        return Decision(stop=cutoff is not None and value < cutoff, rung=epoch, cutoff=cutoff)


def quantile(ascending: list[float], share: float) -> float:
    """Value below which a share of the values lies, between two of them by a straight line, as `numpy.quantile`.

    >>> quantile([1.0, 2.0, 4.0], 0.75)
    3.0
    """
    place = share * (len(ascending) - 1)
    below = min(int(place), len(ascending) - 1)
    low, high, part = ascending[below], ascending[min(below + 1, len(ascending) - 1)], place - below
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part


def has_diverged(value: object) -> bool:
    """Whether a reported value is no finite number (NaN, infinite, missing, text); such a trial enters no rung."""
    return isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
