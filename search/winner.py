"""References that train the network of the best trial for another target, once that trial is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from search.metrics import best_row
from search.space import Plan, TrialConfig, of_winner

if TYPE_CHECKING:
    from search.config import Config
    from search.ledger import Ledger

ENDED = {"completed", "stopped", "failed", "diverged"}
"""States of a trial that is over for good."""


def with_runs_of_winner(config: Config, plan: Plan, ledger: Ledger) -> Plan:
    """Return the plan with the references of the winner as trials; unchanged while there are none, or no winner yet.

    The winner is the completed trial of the first target with the best validation score of an epoch, of equals the
    first planned; it is known when no trial of that target is left.
    """
    if not plan.of_winner or (best := winner(plan, ledger, config.space.targets[0])) is None:
        return plan
    runs = [of_winner(config, reference, best) for reference in plan.of_winner]
    known = {trial.id for trial in plan.trials}
    return replace(plan, trials=(*plan.trials, *(run for run in runs if run.id not in known)), of_winner=())


def winner(plan: Plan, ledger: Ledger, target: str) -> TrialConfig | None:
    """Return the best completed trial of a target, None while one of its trials is not over or none was completed."""
    states = ledger.trials()
    trials = [trial for trial in plan.trials if trial.target == target]
    if any(trial.id not in states or states[trial.id].status not in ENDED for trial in trials):
        return None
    completed = [trial for trial in trials if states[trial.id].status == "completed"]
    scores = {trial.id: best_row(list(states[trial.id].rows.values()))["rung_metric"] for trial in completed}
    return max(completed, key=lambda trial: scores[trial.id]) if completed else None
