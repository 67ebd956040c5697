"""Ray's view of early stopping: every result goes to the ledger first, then `search.asha` judges it.

Trials are compared within one target only. References are never stopped and enter no rung. A result that is no finite
number ends its trial and enters no rung. Where every trial of a target failed or was stopped, the best of those stopped
goes on, compared no more: every target finishes a trial if one of its trials can. A trial that ran out of memory comes
back once, with more of it; one that failed, hung or lost its process comes back as often as `TRIES` says. The brackets
are rebuilt from the ledger, never from Ray's own state.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ray.tune.schedulers import FIFOScheduler

from data_io import files
from data_io.errors import disk_full, is_disk_full
from data_io.secrecy import veiled
from search.asha import CONTINUE, Bracket, Decision, has_diverged
from search.ledger import Ledger, TrialState
from search.metrics import COLUMNS, Row
from search.resources import after_out_of_memory
from search.space import TrialConfig
from search.watchdog import has_hung
from search.worker import DISK_FULL, ERROR, OUT_OF_MEMORY, UNREACHED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from search.config import ScheduleConfig


TRIES = {"error": 1, "hang": 1, "memory": 3, "death": 3, "node": 1000}
"""How often a trial comes again, by what ended it, before it has completed another epoch."""
WORDS = {
    "error": "failed",
    "hang": "HUNG: no epoch within resources.hang_minutes",
    "memory": "the memory of the node ran out and Ray ended its process",
    "death": "its process died",
    "node": "its node was lost",
}
NO_MEMORY = ("NODE_OUT_OF_MEMORY", "running low on memory", "memory pressure")
"""What Ray says of a process that its memory monitor ended."""
NO_NODE = ("its node has died", "node it was running on", "node was terminated", "was preempted")
"""What Ray says of a process whose node is gone."""
NO_CODE = "failed to import on the worker"
"""What Ray says of a process on a node that lacks our code, or a library of it."""
UNSURE = "unavailable"
"""What Ray says of a process that does not answer while it does not know yet whether its node is gone."""
TRACEBACK = "error.txt"
"""In the folder of a trial that failed: the traceback, or what Ray knows of the death of its process."""


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
        self.spared: set[str] = set()
        """Trials that go on after they were stopped."""

    def judge(self, trial: TrialConfig, row: Row) -> Decision:
        """Decision on one epoch of `trial`; records it in its target's rungs."""
        if trial.reference or trial.id in self.spared or not self.schedule.asha or row["epoch"] >= trial.epochs:
            return CONTINUE
        bracket = self.brackets.setdefault(
            trial.target, Bracket(self.schedule.grace_epochs, trial.epochs, self.schedule.reduction_factor)
        )
        return bracket.judge(trial.id, row["epoch"], row["rung_metric"])

    def replay(self, ledger: Ledger) -> dict[str, Decision]:
        """Rebuild the brackets from the ledger; return the decision that stopped each stopped trial."""
        decided, ended = dict[str, Decision](), set[str]()
        for event in ledger.events:
            trial = event["trial"]
            if event["event"] == "stop":
                ended.add(trial)
            elif event["event"] == "start" and trial in ended:
                self.spared.add(trial)
                decided.pop(trial, None)
            elif event["event"] == "epoch" and trial in self.trials and not is_diverged(event):
                decision = self.judge(self.trials[trial], event)
                if decision.stop:
                    decided[trial] = decision
        return decided


def second_chances(trials: Iterable[TrialConfig], states: Mapping[str, TrialState]) -> list[TrialConfig]:
    """Return, of each target of which every trial that began failed or was stopped, the stopped one that came furthest.

    The first trial to reach a rung goes on there; this is for the case that it failed, or diverged, after that.
    """
    chosen: dict[str, TrialConfig] = {}
    by_target: dict[str, list[TrialConfig]] = {}
    for trial in trials:
        if trial.id in states:
            by_target.setdefault(trial.target, []).append(trial)
    for target, own in by_target.items():
        stopped = [trial for trial in own if states[trial.id].status == "stopped"]
        if stopped and {states[trial.id].status for trial in own} <= {"stopped", "failed", "diverged"}:
            chosen[target] = max(stopped, key=lambda trial: _came_to(states[trial.id]))
    return list(chosen.values())


def _came_to(state: TrialState) -> tuple[int, float]:
    """Epoch at which a trial was stopped, and its value there."""
    last = max(state.rows)
    return last, float(state.rows[last]["rung_metric"])


def has_come_back(ledger: Ledger, trial: str) -> bool:
    """Whether a trial ran out of memory before and was given more."""
    return any(event["event"] == "oom" and event["trial"] == trial for event in ledger.events)


def may_come_again(ledger: Ledger, trial: str, cause: str) -> bool:
    """Whether a trial gets another try, by how often `cause` ended it since its last completed epoch."""
    used = 0
    for event in reversed(ledger.events):  # of millions
        if event["trial"] == trial:
            if event["event"] == "epoch":
                break
            used += event["event"] == "retry" and event["cause"] == cause
    return used < TRIES[cause]


def cause_of_death(told: str, folder: Path) -> str:
    """Return what ended the process of a trial, by what Ray told of it and what the process left: a key of `TRIES`."""
    if has_hung(folder):
        return "hang"
    if any(words in told for words in NO_MEMORY):
        return "memory"
    return "node" if any(words in told for words in NO_NODE) else "death"


def node_without_code(told: str) -> str:
    """Return what Ray told of a node that cannot import what a trial needs, in a sentence."""
    where = re.search(r"^\s*ip: (\S+)", told, re.MULTILINE)
    faults = re.findall(r"^(?:\w+\.)*\w*Error: .+", told.partition(NO_CODE)[2], re.MULTILINE)
    return (
        f"the node {where[1] if where else 'of a trial'} cannot run our code ({faults[0] if faults else NO_CODE}); "
        "install there what the other nodes have"
    )


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
    note
        Where it is said that a trial comes again.
    node_was_lost
        Says whether a node was lost a short while ago.

    Attributes
    ----------
    halted
        Why the search cannot go on here (a full disk, a storage out of reach), None while it can.
    """

    def __init__(
        self,
        ledger: Ledger,
        judge: Judge,
        watchers: list[Watcher],
        out_of_budget: Callable[[], str | None],
        put_back: Callable[[TrialConfig], None],
        note: Callable[[str], None] = lambda text: None,
        node_was_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.note = note
        self.node_was_lost = node_was_lost
        self.halted: str | None = None
        self.given_up: set[str] = set()
        self.living: list[Trial] = []
        """Trials that Ray was given and that have not ended, in its order; Ray itself looks through all there were."""
        self.put_back = put_back
        self.ledger = ledger
        self.judge = judge
        self.watchers = watchers
        self.out_of_budget = out_of_budget

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray pickles the scheduler, but what it saves is never read back."""
        return {}

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Record that the trial is in the search (again); end one that Ray would try once more than it may."""
        config = self._config(trial)
        self.living = [*(other for other in self.living if other is not trial), trial]
        if config.id in self.given_up:
            tune_controller.stop_trial(trial)
            return
        if self.ledger.trials().get(config.id, TrialState()).status == "stopped":
            self.judge.spared.add(config.id)
        self.ledger.append("start", config.id)
        for watcher in self.watchers:
            watcher.started(config)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Record an epoch, then decide; a full disk ends the search, not the trial."""
        config = self._config(trial)
        try:
            if why := result.get(DISK_FULL) or result.get(UNREACHED):
                self.halted = str(why)
                return str(self.STOP)
            if OUT_OF_MEMORY in result:
                return self._once_more(config, str(result[OUT_OF_MEMORY]))
            if ERROR in result:
                return self._failed(config, str(result[ERROR]))
            return self._epoch(config, {column: result.get(column) for column in COLUMNS})
        except OSError as fault:
            if not is_disk_full(fault):
                raise
            self.halted = str(disk_full(fault))
            return str(self.STOP)

    def _epoch(self, config: TrialConfig, row: Row) -> str:
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
        self.living = [trial for trial in self.living if trial.status not in {"TERMINATED", "ERROR"}]
        pending = next((trial for trial in self.living if trial.status == "PENDING"), None)
        return None if pending is None or self.out_of_budget() else pending

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Record that a trial's process died; Ray starts it again, unless that happens too often."""
        config = self._config(trial)
        file = Path(trial.error_file) if trial.error_file else None
        told = file.read_text().rpartition("Failure # ")[2] if file and file.exists() else "its process died"
        told = veiled(told)
        if NO_CODE in told:
            self.halted = node_without_code(told)
            return
        cause = cause_of_death(told, self._folder(config))
        if cause == "death" and UNSURE in told and self.node_was_lost():
            cause = "node"
        if not self._may_come_again(config, cause, _first_sentence(told)):
            self.given_up.add(config.id)
            self._fail(config, cause, _first_sentence(told), told)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Record a trial that returned without being told to; one that is put back or halted has not ended."""
        if self.halted or {OUT_OF_MEMORY, ERROR, DISK_FULL, UNREACHED} & result.keys():
            return
        config = self._config(trial)
        state = self.ledger.trials().get(config.id, TrialState())
        if state.status is None:
            done = max(state.rows, default=0)
            self._fail(config, "error", f"it ended after {done} of {config.epochs} epochs", "")

    def _failed(self, config: TrialConfig, trace: str) -> str:
        """Put a trial back that raised an error, or end it."""
        reason = trace.strip().splitlines()[-1]
        if self._may_come_again(config, "error", reason):
            self.put_back(config)
            return str(self.STOP)
        return self._fail(config, "error", reason, trace)

    def _may_come_again(self, config: TrialConfig, cause: str, reason: str) -> bool:
        if not may_come_again(self.ledger, config.id, cause):
            return False
        self.ledger.append("retry", config.id, cause=cause, reason=reason[:500])
        self.note(f"note: {config.id}: {WORDS[cause]} ({reason[:200]}); it goes on from its last checkpoint")
        return True

    def _fail(self, config: TrialConfig, cause: str, reason: str, trace: str) -> str:
        """End a trial that failed once too often; the traceback becomes a file of its folder."""
        folder = self._folder(config)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / TRACEBACK, f"{WORDS[cause]}: {reason}\n\n{trace}\n")
        told = reason if cause == "error" else f"{WORDS[cause]} ({reason})"
        return self._end(config, "fail", "failed", told[:500], cause=cause, traceback=trace[-20_000:])

    def _folder(self, config: TrialConfig) -> Path:
        return self.ledger.path.parent / "trials" / config.id

    def _once_more(self, config: TrialConfig, error: str) -> str:
        """Put a trial back that ran out of memory, with a larger share of the GPU or fewer crops at once."""
        again = after_out_of_memory(config.gpus, config.micro, config.train.batch // config.processes)
        if again is None or has_come_back(self.ledger, config.id):
            return self._fail(config, "error", f"out of memory: {error}", error)
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


def _first_sentence(told: str) -> str:
    """Return the line of Ray's account that says what happened; the one before it is a heading."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return next((line for line in lines[1:] if not line.endswith(":")), "its process died")
