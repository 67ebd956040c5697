"""Trials that ran to their end and whose best checkpoint was lost since: they are trained again from the one before.

Training is reproducible, so that they end with the same numbers and the same checkpoint. The ledger, which has all
their epochs, is told that they have not ended; it knows every epoch that comes again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from search import checkpoints
from search.ledger import FINAL
from search.metrics import best_row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from search.ledger import Ledger
    from search.space import TrialConfig

AGAIN = "again"
"""Key of the event that opens a trial anew: the best epoch, whose checkpoint was lost."""


def without_best(trials: Sequence[TrialConfig], ledger: Ledger, run_dir: Path) -> dict[str, int]:
    """Return the completed trials that have no whole checkpoint of their best epoch, each with that epoch."""
    states, lost = ledger.trials(), {}
    for trial in trials:
        if trial.id not in states or states[trial.id].status != "completed":
            continue
        rows = [row for row in states[trial.id].rows.values() if isinstance(row["rung_metric"], float)]
        finite = [row for row in rows if math.isfinite(row["rung_metric"])]
        root = run_dir / "trials" / trial.id / "checkpoints"
        if finite and checkpoints.manifest(checkpoints.folder_of(root, best := best_row(finite)["epoch"])) is None:
            lost[trial.id] = best
    return lost


def reopen(lost: dict[str, int], ledger: Ledger, run_dir: Path) -> None:
    """Have the trials of `without_best` trained again from their last checkpoint before the one that was lost."""
    for trial, best in lost.items():
        checkpoints.drop_from(run_dir / "trials" / trial / "checkpoints", best)
        ledger.append("start", trial, **{AGAIN: best})


def reopened(ledger: Ledger) -> set[str]:
    """Trials that were opened anew and have not ended since."""
    found = set()
    for event in ledger.events:
        if event["event"] == "start" and AGAIN in event:
            found.add(event["trial"])
        elif event["event"] in FINAL:
            found.discard(event["trial"])
    return found
