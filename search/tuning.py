"""The search on Ray Tune: hand the trials that are not finished to Ray, in order, and let the ledger remember."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.tune import PlacementGroupFactory

from data_io.errors import BadInput
from data_io.secrecy import is_secret
from search import checkpoints, nodes
from search.changes import MADE_WITH
from search.metrics import COLUMNS, rows_until
from search.proposed import proposals_left, with_proposed
from search.queue import Queue
from search.reopened import reopened
from search.scheduler import Judge, LedgerScheduler, Watcher, second_chances
from search.signals import Halted
from search.watchdog import remove_empty_notes
from search.worker import Train, train_network, work

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.config import Config
    from search.frames import Banks
    from search.ledger import Ledger
    from search.proposed import Proposed
    from search.shares import Shares
    from search.space import Plan, TrialConfig
    from search.storage import Storage

SITTING = "sitting"
"""The event with which a driver begins; the time between sittings is no search."""
PENDING = 16
"""Trials that Ray holds ready; of proposals only one, so that each knows as much as possible."""
SETTLED = {"completed", "stopped", "failed", "diverged"}
"""States of a trial that a resumed search leaves alone."""


def needs_training(config: Config, plan: Plan, ledger: Ledger) -> bool:
    """Whether a trial is left to train, or to be proposed, under this budget."""
    left = _waiting(plan, ledger) or proposals_left(config, plan, ledger) or _at_last(plan, ledger)
    return bool(left) and not has_ended(ledger, config)


def search(
    config: Config,
    plan: Plan,
    banks: Banks,
    run_dir: Path,
    ledger: Ledger,
    watchers: list[Watcher],
    shares: Shares,
    source: Proposed | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    *,
    train: Train = train_network,
    say: Callable[[str], None] = print,
    store: Storage | None = None,
    grows: bool = False,
) -> None:
    """Train every trial of the plan that the ledger does not know to be settled, and those that `source` proposes.

    Ray must have been started. Returns when all trials have ended, the budget is spent or `interrupted` says so; what
    happened stands in `ledger`. `train` is what each trial does in its Ray actor; `say` gets notes for the user; trials
    are kept in `store`, without one in `run_dir`, which then all nodes share. Where the cluster `grows`, trials wait
    for nodes that may come.

    Raises
    ------
    Halted
        When the search cannot go on here: a disk is full, a node reaches neither `run_dir` nor `store`.
    """
    if taken := take_over(ledger, _waiting(plan, ledger), run_dir):
        say(f"note: {taken} epochs that the ledger lacked were read from the trials' own records")
    judge = Judge(plan.trials, config.schedule)
    decided = judge.replay(ledger)
    _settle_interrupted(ledger, plan, decided)
    budget = Budget(config, ledger)
    proposes = source if config.space.mode == "optuna" else None
    waiting = _waiting(plan, ledger)
    if store is not None:
        refuse_apart([shares.place(trial) for trial in waiting])
    alone = not grows and one_at_a_time([shares.place(trial) for trial in waiting], ray.cluster_resources())
    at_last = partial(_at_last, plan, ledger)
    queue = Queue(waiting, budget.may_start, shares.place, proposes, 1 if alone else None, at_last)
    ledger.append(SITTING, "", host=socket.gethostname(), pid=os.getpid())
    told, lost = [*watchers, queue], nodes.Losses()
    scheduler = LedgerScheduler(ledger, judge, told, budget.spent, queue.put_back, say, lost.lately)
    minutes = config.resources.hang_minutes
    hang_seconds = None if minutes is None else 60 * minutes
    home = nodes.Home(run_dir, nodes.mark(run_dir), nodes.name_of(run_dir), store, nodes.packages())
    trainable = partial(work, train=train, banks=banks, home=home, hang_seconds=hang_seconds)

    def leave() -> bool:
        return bool(interrupted() or scheduler.halted)

    _tune(trainable, queue, run_dir, scheduler, leave, lambda: budget.spent() is not None)
    remove_empty_notes(run_dir / "trials")
    if scheduler.halted:
        raise Halted(scheduler.halted)
    if interrupted():
        return
    if reason := budget.spent():
        end_by_budget(ledger, list(queue.given.values()), reason, watchers)
    if reason or queue.refused:
        ledger.append("end", "", budget=config.budget.model_dump(), elapsed=budget.elapsed())


def one_at_a_time(trials: list[TrialConfig], machine: dict[str, float]) -> bool:
    """Whether no two of the trials, as they are placed, fit the machine together.

    Ray then gets one after the other, so that they keep their order even where one comes again.
    """
    cpus = min((trial.cpus * trial.processes for trial in trials), default=0.0)
    gpus = min((trial.gpus * trial.processes for trial in trials), default=0.0)
    return 2 * cpus > machine.get("CPU", 0.0) or 2 * gpus > machine.get("GPU", 0.0)


def take_over(ledger: Ledger, trials: list[TrialConfig], run_dir: Path) -> int:
    """Write the epochs into the ledger that it lacks, up to each trial's newest checkpoint; return how many.

    After a kill that is at most the last epoch of a trial; after the loss of a part of the ledger it may be more.
    """
    taken = 0
    for trial in trials:
        folder = run_dir / "trials" / trial.id
        newest = checkpoints.newest(folder / "checkpoints")
        if newest is not None:
            rows = rows_until(checkpoints.epoch_of(newest), newest, folder)
            taken += sum(ledger.epoch(trial.id, {column: row[column] for column in COLUMNS}) for row in rows)
    return taken


def _waiting(plan: Plan, ledger: Ledger) -> list[TrialConfig]:
    states = ledger.trials()
    return [t for t in plan.trials if t.id not in states or states[t.id].status not in SETTLED]


def _at_last(plan: Plan, ledger: Ledger) -> list[TrialConfig]:
    return second_chances(with_proposed(plan, ledger).trials, ledger.trials())


def _settle_interrupted(ledger: Ledger, plan: Plan, decided: dict[str, Any]) -> None:
    """Write the endings that a kill between an epoch's line and its decision left out."""
    states, again = ledger.trials(), reopened(ledger)
    for trial in plan.trials:
        state = states.get(trial.id)
        if state is None or state.status in SETTLED or trial.id in again:
            continue
        if trial.id in decided:
            d = decided[trial.id]
            facts = {"epoch": d.rung, "rung": d.rung, "value": state.rows[d.rung]["rung_metric"], "cutoff": d.cutoff}
            ledger.append("stop", trial.id, reason="decided by replay after an interruption", **facts)
        elif trial.epochs in state.rows:
            ledger.append("complete", trial.id, reason="")


def end_by_budget(ledger: Ledger, trials: list[TrialConfig], reason: str, watchers: list[Watcher]) -> None:
    """Write the ending of trials that were in the middle of an epoch when the budget was spent."""
    states = ledger.trials()
    for trial in trials:
        state = states.get(trial.id)
        if state is not None and state.rows and state.status is None:
            ledger.append("budget", trial.id, reason=reason)
            for watcher in watchers:
                watcher.ended(trial, "budget", reason)


def has_ended(ledger: Ledger, config: Config) -> bool:
    """Whether the search already ended under this very budget."""
    endings = [event for event in ledger.events if event["event"] == "end"]
    return bool(endings) and endings[-1]["budget"] == config.budget.model_dump()


class Budget:
    """Wall clock, epochs, trials and GPU hours of the whole search, earlier sittings included."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self.limits = config.budget
        self.ledger = ledger
        self.before = elapsed_before(ledger)
        self.began = time.monotonic()
        self.begun = {name for name, state in ledger.trials().items() if state.rows}
        self._read = 0
        self._gpu_seconds = 0.0
        """Of the epochs among the first `_read` events."""

    def may_start(self, trial: TrialConfig) -> bool:
        """Whether the budget of trials lets a trial begin, or go on; one that may counts as begun."""
        if self.limits.trials is not None and trial.id not in self.begun and len(self.begun) >= self.limits.trials:
            return False
        self.begun.add(trial.id)
        return True

    def gpu_hours(self) -> float:
        """GPU hours of all completed epochs, each counted by the share of the GPU its trial held."""
        for event in self.ledger.events[self._read :]:
            if event["event"] == "epoch":
                self._gpu_seconds += event.get("gpus", 0.0) * event["seconds"]
        self._read = len(self.ledger.events)
        return self._gpu_seconds / 3600

    def elapsed(self) -> float:
        """Seconds of search so far."""
        return self.before + time.monotonic() - self.began

    def spent(self) -> str | None:
        """Return which limit is reached, None while the search may go on."""
        if self.limits.minutes is not None and self.elapsed() >= 60 * self.limits.minutes:
            return f"budget of {self.limits.minutes:g} minutes spent"
        if self.limits.epochs is not None and self.ledger.epochs >= self.limits.epochs:
            return f"budget of {self.limits.epochs} epochs spent"
        if self.limits.gpu_hours is not None and self.gpu_hours() >= self.limits.gpu_hours:
            return f"budget of {self.limits.gpu_hours:g} GPU hours spent"
        return None


def elapsed_before(ledger: Ledger) -> float:
    """Wall clock of earlier sittings in seconds: from each start of a search to its last event."""
    total, first, last = 0.0, 0.0, 0.0
    for event in ledger.events:
        if event["event"] == MADE_WITH:  # before a sitting
            continue
        if event["event"] == SITTING:
            total, first = total + (last - first), event["time"]
        last = event["time"]
    return total + (last - first) if first else 0.0


class _Left(BaseException):
    """Ends Tune's loop at once, between two events."""


def _tune(
    trainable: Callable[..., None],
    queue: Queue,
    run_dir: Path,
    scheduler: LedgerScheduler,
    leave: Callable[[], bool],
    over: Callable[[], bool],
) -> None:
    """Run Tune until all trials have ended, or it is `over`, or until `leave`, which does not wait for epochs.

    After the last, trials go on until the session is left; nothing that they report is lost, it is only done again.
    """
    from ray import tune

    scratch = run_dir / "cache" / "ray"
    shutil.rmtree(scratch, ignore_errors=True)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
    hand_on_no_keys()
    # the scheduler notes that a process died, and why, in a line; Tune would add its traceback
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(PENDING if queue.source is None else 1)
    tuner = tune.Tuner(
        tune.with_resources(trainable, _resources),
        tune_config=tune.TuneConfig(
            search_alg=queue,
            num_samples=-1,
            scheduler=scheduler,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_folder,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(scratch.resolve()),
            failure_config=tune.FailureConfig(max_failures=-1),  # the scheduler counts
            stop=_stopper(leave, over),
            verbose=0,
        ),
    )
    with suppress(_Left):
        tuner.fit()
    shutil.rmtree(scratch, ignore_errors=True)


def hand_on_no_keys() -> None:
    """Have Tune not copy the keys of object stores from this process into the runtime environment of its actors.

    Ray writes that environment to a log that every user can read and shows it to whoever asks the dashboard. Workers
    of this machine inherit the variables; on other nodes they are set where those nodes are started.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not is_secret(name)}


def _stopper(leave: Callable[[], bool], over: Callable[[], bool]) -> Any:
    from ray.tune import Stopper

    class Over(Stopper):
        """Ends the experiment."""

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            if leave():
                raise _Left
            return over()

    return Over()


def _name(trial: Any) -> str:
    return str(trial.config["trial"]["id"])


def _folder(trial: Any) -> str:
    return str(trial.trial_id)


def _resources(config: dict[str, Any]) -> PlacementGroupFactory:
    """Return what Ray sets aside for a trial: a bundle for each of its processes, on one node if any has that much."""
    trial, processes = config["trial"], config["trial"]["processes"]
    bundle = {"CPU": trial["cpus"], "GPU": trial["gpus"]}
    together = "STRICT_PACK" if fits_a_node(bundle, processes) else "PACK"
    return PlacementGroupFactory([bundle] * processes, strategy=together)


def refuse_apart(trials: list[TrialConfig]) -> None:
    """Raise BadInput where processes that train a trial together would be on several nodes and share no folder."""
    for trial in trials:
        if trial.processes > 1 and not fits_a_node({"CPU": trial.cpus, "GPU": trial.gpus}, trial.processes):
            raise BadInput(
                f"resources.reference_processes={trial.processes}: no node has room for all of them, and in a run "
                "that an object store keeps they must be on one; lower it, or give a folder that all share with --out"
            )


def fits_a_node(bundle: dict[str, float], count: int) -> bool:
    """Whether a node of the cluster has room, when it is empty, for so many bundles."""
    living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(all(node.get(name, 0.0) >= count * amount for name, amount in bundle.items()) for node in living)
