"""Ray's view of early stopping: every result goes to the ledger first, then `search.asha` judges it.

Trials are compared within one target only. References are never stopped and enter no rung. A result that is no finite
number ends its trial and enters no rung. A trial that ran out of memory comes back once, with more of it. The brackets
are rebuilt from the ledger, never from Ray's own state.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ray.tune.schedulers import FIFOScheduler

from search.asha import CONTINUE, Bracket, Decision, has_diverged
from search.ledger import Ledger, TrialState
from search.recorder import COLUMNS, Row
from search.resources import after_out_of_memory
from search.space import TrialConfig
from search.worker import OUT_OF_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from search.config import ScheduleConfig


class Watcher(Protocol):
    """Whoever wants to know how the search goes: the display, W&B."""

    def started(self, trial: TrialConfig) -> None:
        """Take note that a trial was handed to Ray."""

    def epoch(self, trial: TrialConfig, row: Row) -> None:
        """Take note of a new epoch in the ledger."""

    def ended(self, trial: TrialConfig, status: str, reason: str) -> None:
        """Take note that a trial has ended for good."""


class Judge:
    """The search's decisions, free of Ray: brackets by target, fed by the ledger's epochs in their order."""

    def __init__(self, trials: tuple[TrialConfig, ...], schedule: ScheduleConfig) -> None:
        self.trials = {trial.id: trial for trial in trials}
        self.schedule = schedule
        self.brackets: dict[str, Bracket] = {}

    def judge(self, trial: TrialConfig, row: Row) -> Decision:
        """Decision on one epoch of `trial`; records it in its target's rungs."""
        if trial.reference or not self.schedule.asha or row["epoch"] >= trial.epochs:
            return CONTINUE
        bracket = self.brackets.setdefault(
            trial.target, Bracket(self.schedule.grace_epochs, trial.epochs, self.schedule.reduction_factor)
        )
        return bracket.judge(trial.id, row["epoch"], row["rung_metric"])

    def replay(self, ledger: Ledger) -> dict[str, Decision]:
        """Rebuild the brackets from the ledger; return the decision that stopped each stopped trial."""
        stopped = {}
        for event in ledger.events:
            if event["event"] != "epoch" or event["trial"] not in self.trials or is_diverged(event):
                continue
            decision = self.judge(self.trials[event["trial"]], event)
            if decision.stop:
                stopped[event["trial"]] = decision
        return stopped


def has_come_back(ledger: Ledger, trial: str) -> bool:
    """Whether a trial ran out of memory before and was given more."""
    return any(event["event"] == "oom" and event["trial"] == trial for event in ledger.events)


def is_diverged(row: Row) -> bool:
    """Whether the rung metric or the training loss of a row is no finite number."""
    return has_diverged(row.get("rung_metric")) or has_diverged(row.get("train_loss"))


class LedgerScheduler(FIFOScheduler):
    """Writes the ledger and asks the `Judge`; first come, first served otherwise.

    Parameters
    ----------
    ledger, judge
        The record and the decisions.
    watchers
        Told of every new epoch and every ending.
    out_of_budget
        Says why the search must end now (wall clock, epochs), None while it may go on.
    put_back
        Lets a trial come again.
    """

    def __init__(
        self,
        ledger: Ledger,
        judge: Judge,
        watchers: list[Watcher],
        out_of_budget: Callable[[], str | None],
        put_back: Callable[[TrialConfig], None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.put_back = put_back
        self.ledger = ledger
        self.judge = judge
        self.watchers = watchers
        self.out_of_budget = out_of_budget
        self.started = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray pickles the scheduler, but what it saves is never read back."""
        return {}

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Record that the trial is in the search (again)."""
        config = self._config(trial)
        self.ledger.append("start", config.id)
        for watcher in self.watchers:
            watcher.started(config)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Record an epoch, then decide."""
        config = self._config(trial)
        if OUT_OF_MEMORY in result:
            return self._once_more(config, str(result[OUT_OF_MEMORY]))
        row: Row = {column: result.get(column) for column in COLUMNS}
        if self.ledger.epoch(config.id, row | {"gpus": config.gpus * config.processes}):
            for watcher in self.watchers:
                watcher.epoch(config, row)
        if is_diverged(row):
            reason = f"epoch {row['epoch']}: training loss {row['train_loss']}, rung metric {row['rung_metric']}"
            return self._end(config, "diverge", "diverged", reason)
        decision = self.judge.judge(config, row)
        if decision.stop:
            reason = f"{row['rung_metric']:.4f} below the cutoff {decision.cutoff:.4f} at epoch {decision.rung}"
            facts = {
                "epoch": row["epoch"],
                "rung": decision.rung,
                "value": row["rung_metric"],
                "cutoff": decision.cutoff,
            }
            return self._end(config, "stop", "stopped", reason, **facts)
        if row["epoch"] >= config.epochs:
            return self._end(config, "complete", "completed", "")
        if reason := self.out_of_budget() or "":
            return self._end(config, "budget", "budget", reason)
        return str(self.CONTINUE)

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Next trial in order, none once the budget is spent."""
        trial: Trial | None = super().choose_trial_to_run(tune_controller)
        if trial is not None and trial.status == "PENDING" and self.out_of_budget():
            return None
        return trial

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Record a trial that failed for good; Ray calls this for one it will try again as well."""
        if trial.should_recover():
            return
        error = Path(trial.error_file) if trial.error_file else None
        lines = error.read_text().strip().splitlines() if error and error.exists() else ["its process died"]
        self._end(self._config(trial), "fail", "failed", lines[-1][:500], traceback="\n".join(lines)[-20_000:])

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Record a trial that had nothing left to do (its last epoch was reported before an interruption)."""
        config = self._config(trial)
        if self.ledger.trials().get(config.id, TrialState()).status is None:
            self._end(config, "complete", "completed", "")

    def _once_more(self, config: TrialConfig, error: str) -> str:
        """Put a trial back that ran out of memory, with a larger share of the GPU or fewer crops at once."""
        again = after_out_of_memory(config.gpus, config.micro, config.train.batch // config.processes)
        if again is None or has_come_back(self.ledger, config.id):
            return self._end(config, "fail", "failed", f"out of memory: {error}"[:500])
        share, micro = again
        self.ledger.append("oom", config.id, share=config.gpus, micro=config.micro, next_share=share, next_micro=micro)
        self.put_back(config.model_copy(update={"gpus": share, "micro": micro}))
        return str(self.STOP)

    def _end(self, config: TrialConfig, event: str, status: str, reason: str, **facts: Any) -> str:
        self.ledger.append(event, config.id, reason=reason, **facts)
        for watcher in self.watchers:
            watcher.ended(config, status, reason)
        return str(self.STOP)

    @staticmethod
    def _config(trial: Trial) -> TrialConfig:
        return TrialConfig.model_validate(trial.config["trial"])
