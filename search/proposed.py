"""Between ledger and Optuna: what happened is told, and in Optuna mode the next trials are asked for.

A trial with several seeds is several trials to Optuna: it sees the spread between them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from search.proposals import Proposer, Told
from search.space import Plan, TrialConfig

if TYPE_CHECKING:
    from pathlib import Path

    from search.config import Config
    from search.ledger import Ledger
    from search.metrics import Row
    from search.space import Cell, Setting


def with_proposed(plan: Plan, ledger: Ledger) -> Plan:
    """Return the plan with the trials that the ledger says were proposed."""
    known = {trial.id for trial in plan.trials}
    configs = [event["config"] for event in ledger.events if event["event"] == "propose"]
    came = tuple(trial for trial in map(TrialConfig.model_validate, configs) if trial.id not in known)
    return replace(plan, trials=(*plan.trials, *came))


class Proposed:
    """A watcher that tells Optuna of every trial, and where the `search.queue.Queue` gets what Optuna proposes.

    Parameters
    ----------
    config, plan, ledger
        The search; `plan` with the trials proposed so far.
    storage
        Optuna's SQLite file, None for memory only.
    """

    def __init__(self, config: Config, plan: Plan, ledger: Ledger, storage: Path | None) -> None:
        self.plan = plan
        self.ledger = ledger
        self.space = config.space
        self.left = proposals_left(config, plan, ledger)
        trials = {trial.id: trial for trial in plan.trials}
        begun = [event["trial"] for event in ledger.events if event["event"] in {"propose", "start"}]
        states = ledger.trials()
        before = {}
        for name in dict.fromkeys(begun):
            if name in trials:
                values = {
                    e: r["rung_metric"] for e, r in states[name].rows.items() if isinstance(r["rung_metric"], float)
                }
                status = states[name].status
                before[name] = Told(*place_of(trials[name]), values, None if status == "budget" else status)
        cells = [place_of(trial)[0] for trial in plan.trials]
        self.proposer = Proposer(config, plan.rows, before, storage, cells)

    def next(self) -> list[TrialConfig]:
        """Return the next configuration with every seed; none when Optuna has no more."""
        if self.left <= 0 or self.plan.make is None or (place := self.proposer.ask()) is None:
            return []
        self.left -= 1
        trials = [self.plan.make(*place, seed) for seed in self.space.seeds]
        for trial in trials:
            first = trial is trials[0]
            self.ledger.append("propose", trial.id, first=first, config=trial.model_dump(mode="json"))
            self.proposer.begin(trial.id, *place)
        return trials

    def started(self, trial: TrialConfig) -> None:
        """See `search.scheduler.Watcher`."""
        if trial.target in self.proposer.studies:
            self.proposer.begin(trial.id, *place_of(trial))

    def epoch(self, trial: TrialConfig, row: Row) -> None:
        """See `search.scheduler.Watcher`."""
        if trial.id in self.proposer.told:
            self.proposer.tell_epoch(trial.id, row["epoch"], row["rung_metric"])

    def ended(self, trial: TrialConfig, status: str, reason: str) -> None:
        """See `search.scheduler.Watcher`."""
        if trial.id in self.proposer.told:
            self.proposer.tell_end(trial.id, status)


def place_of(trial: TrialConfig) -> tuple[Cell, Setting]:
    """Return where a trial lies in the search space."""
    cell = (trial.target, trial.architecture, trial.encoder, trial.loss)
    return cell, (trial.learning_rate, trial.weight_decay, trial.augmentation)


def proposals_left(config: Config, plan: Plan, ledger: Ledger) -> int:
    """Return how many configurations Optuna may still propose."""
    space = config.space
    if not plan.rows or space.trials is None:
        return 0
    most = space.trials if space.continuous else min(space.trials, len(plan.rows))
    return most - sum(bool(event["event"] == "propose" and event["first"]) for event in ledger.events)
