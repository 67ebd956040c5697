"""The scheduler between Ray and the ledger: record first, then judge; references spared; what diverges is out."""

from __future__ import annotations

import errno
import math
import os
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.config import load
from search.feasibility import Feasibility
from search.ledger import Ledger
from search.metrics import COLUMNS
from search.scheduler import Judge, LedgerScheduler, second_chances
from search.space import Plan, TrialConfig, plan
from search.tuning import SETTLED, Budget, end_by_budget, needs_training, one_at_a_time
from search.worker import DISK_FULL, ERROR

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = load("demo", None, ["train.crop=128", "train.max_epochs=9", "schedule.grace_epochs=1"])
PLAN: Plan = plan(CONFIG, examine=lambda cells: {cell: Feasibility(True, 128) for cell in cells})


class Watching:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def started(self, trial: TrialConfig) -> None:
        self.seen.append(("started", trial.id))

    def epoch(self, trial: TrialConfig, row: dict[str, Any]) -> None:
        self.seen.append((f"epoch {row['epoch']}", trial.id))

    def ended(self, trial: TrialConfig, status: str, reason: str) -> None:
        self.seen.append((status, trial.id))


def ray_trial(config: TrialConfig, **more: Any) -> Any:
    return SimpleNamespace(config={"trial": config.model_dump(mode="json")}, trial_id=config.id, **more)


def row(epoch: int, value: Any, loss: Any = 0.5) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, 0.1) | {"epoch": epoch, "rung_metric": value, "train_loss": loss}


def scheduler(tmp_path: Path, budget: Any = lambda: None) -> tuple[LedgerScheduler, Watching]:
    watching = Watching()
    return LedgerScheduler(
        Ledger(tmp_path / "ledger.jsonl"),
        Judge(PLAN.trials, CONFIG.schedule),
        [watching],
        budget,
        lambda trial: watching.seen.append(("back", trial.id)),
    ), watching


def of_target(target: str) -> list[TrialConfig]:
    return [t for t in PLAN.trials if t.target == target and not t.reference]


NO_CODE = """\
Failure # 1 (occurred at 2026-11-28_12-55-03)
The actor died unexpectedly before finishing this task.
\tclass_name: wrap_function.<locals>.ImplicitFunc
\tip: 10.0.0.7
The actor is dead because its worker process has died. Worker exits unexpectedly. Traceback (most recent call last):
    raise RuntimeError(
RuntimeError: The actor with name ImplicitFunc failed to import on the worker. This may be because needed libraries

Traceback (most recent call last):
    import torch
ModuleNotFoundError: No module named 'torch'
"""
"""What Ray 2.60 writes of a process on a node where our code cannot be imported."""


def test_a_node_that_lacks_our_code_ends_the_search_and_fails_no_trial(tmp_path: Path) -> None:
    judge, watching = scheduler(tmp_path)
    trial = of_target("star")[0]
    (error := tmp_path / "error.txt").write_text(NO_CODE)
    judge.on_trial_error(None, ray_trial(trial, error_file=str(error)))  # type: ignore[arg-type]
    assert judge.halted == (
        "the node 10.0.0.7 cannot run our code (ModuleNotFoundError: No module named 'torch'); "
        "install there what the other nodes have"
    )
    assert not judge.ledger.events
    assert not watching.seen


def test_a_weak_trial_stops_and_the_ledger_says_at_which_rung(tmp_path: Path) -> None:
    judge, watching = scheduler(tmp_path)
    strong, weak = of_target("star")[:2]
    assert judge.on_trial_result(None, ray_trial(strong), row(1, 0.8)) == TrialScheduler.CONTINUE  # type: ignore[arg-type]
    assert judge.on_trial_result(None, ray_trial(weak), row(1, 0.2)) == TrialScheduler.STOP  # type: ignore[arg-type]
    state = judge.ledger.trials()[weak.id]
    assert state.status == "stopped"
    assert (state.ending["rung"], state.ending["value"], state.ending["cutoff"]) == (1, 0.2, 0.8)
    assert watching.seen[-1] == ("stopped", weak.id)


def test_trials_of_different_targets_are_not_compared(tmp_path: Path) -> None:
    judge, _ = scheduler(tmp_path)
    assert judge.on_trial_result(None, ray_trial(of_target("star")[0]), row(1, 0.9)) == TrialScheduler.CONTINUE  # type: ignore[arg-type]
    weak = ray_trial(of_target("two_class")[0])
    assert judge.on_trial_result(None, weak, row(1, 0.1)) == TrialScheduler.CONTINUE  # type: ignore[arg-type]


def test_a_reference_is_never_stopped_and_enters_no_rung(tmp_path: Path) -> None:
    judge, _ = scheduler(tmp_path)
    reference = next(t for t in PLAN.trials if t.reference)
    judge.on_trial_result(None, ray_trial(of_target(reference.target)[0]), row(1, 0.9))  # type: ignore[arg-type]
    for epoch in range(1, reference.epochs):
        assert judge.on_trial_result(None, ray_trial(reference), row(epoch, 0.0)) == TrialScheduler.CONTINUE  # type: ignore[arg-type]
    assert judge.on_trial_result(None, ray_trial(reference), row(reference.epochs, 0.0)) == TrialScheduler.STOP  # type: ignore[arg-type]
    assert judge.ledger.trials()[reference.id].status == "completed"
    assert all(reference.id not in rung for b in judge.judge.brackets.values() for rung in b.recorded.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.9"])
def test_what_is_no_number_diverges_at_once_and_leaves_the_others_alone(tmp_path: Path, value: Any) -> None:
    judge, _ = scheduler(tmp_path)
    bad, good = of_target("star")[:2]
    assert judge.on_trial_result(None, ray_trial(bad), row(1, value)) == TrialScheduler.STOP  # type: ignore[arg-type]
    assert judge.ledger.trials()[bad.id].status == "diverged"
    assert judge.on_trial_result(None, ray_trial(good), row(1, 0.1)) == TrialScheduler.CONTINUE  # type: ignore[arg-type]
    again = Judge(PLAN.trials, CONFIG.schedule)
    again.replay(Ledger(tmp_path / "ledger.jsonl"))
    assert again.brackets["star"].recorded == {1: {good.id: 0.1}}


def test_the_rungs_rebuilt_from_the_ledger_are_those_that_decided(tmp_path: Path) -> None:
    judge, _ = scheduler(tmp_path)
    values = iter([0.5, 0.4, 0.6, 0.55, 0.1, 0.7, 0.65, 0.2, 0.3, 0.9, 0.8, 0.7])
    stopped = set()
    for epoch in (1, 3):
        for trial in of_target("two_class"):
            if trial.id in stopped:
                continue
            if judge.on_trial_result(None, ray_trial(trial), row(epoch, next(values))) == TrialScheduler.STOP:  # type: ignore[arg-type]
                stopped.add(trial.id)
    again = Judge(PLAN.trials, CONFIG.schedule)
    assert set(again.replay(Ledger(tmp_path / "ledger.jsonl"))) == stopped
    assert again.brackets["two_class"].recorded == judge.judge.brackets["two_class"].recorded


def test_where_all_trials_of_a_target_failed_or_were_stopped_the_best_of_them_goes_on_and_is_compared_no_more(
    tmp_path: Path,
) -> None:
    judge, _ = scheduler(tmp_path)
    first, *others = of_target("star")
    answers = [judge.on_trial_result(None, ray_trial(first), row(1, 0.9))]  # type: ignore[arg-type]
    for place, trial in enumerate(others):
        assert not second_chances(PLAN.trials, judge.ledger.trials())
        answers.append(judge.on_trial_result(None, ray_trial(trial), row(1, 0.8 - 0.1 * place)))  # type: ignore[arg-type]
    assert answers == [TrialScheduler.CONTINUE] + [TrialScheduler.STOP] * len(others)
    assert not second_chances(PLAN.trials, judge.ledger.trials())
    judge.on_trial_result(None, ray_trial(first), row(2, math.nan))  # type: ignore[arg-type]
    assert second_chances(PLAN.trials, judge.ledger.trials()) == [others[0]]
    judge.on_trial_add(None, ray_trial(others[0]))  # type: ignore[arg-type]
    for epoch in range(1, 9):
        assert judge.on_trial_result(None, ray_trial(others[0]), row(epoch, 0.0)) == TrialScheduler.CONTINUE  # type: ignore[arg-type]
    again = Judge(PLAN.trials, CONFIG.schedule)
    assert others[0].id not in again.replay(Ledger(tmp_path / "ledger.jsonl"))
    assert (again.spared, again.brackets) == (judge.judge.spared, judge.judge.brackets)
    judge.on_trial_result(None, ray_trial(others[0]), row(9, 0.0))  # type: ignore[arg-type]
    assert judge.ledger.trials()[others[0].id].status == "completed"
    assert not second_chances(PLAN.trials, judge.ledger.trials())


def test_a_trial_that_fails_comes_again_once_and_then_keeps_its_traceback(tmp_path: Path) -> None:
    judge, watching = scheduler(tmp_path)
    trial = of_target("star")[0]
    failed = {ERROR: "Traceback\n  somewhere\nRuntimeError: no such layer\n"}
    assert judge.on_trial_result(None, ray_trial(trial), failed) == TrialScheduler.STOP  # type: ignore[arg-type]
    judge.on_trial_complete(None, ray_trial(trial), failed)  # type: ignore[arg-type]
    assert judge.ledger.trials()[trial.id].status is None
    assert watching.seen == [("back", trial.id)]
    assert judge.on_trial_result(None, ray_trial(trial), failed) == TrialScheduler.STOP  # type: ignore[arg-type]
    state = judge.ledger.trials()[trial.id]
    assert (state.status, state.ending["reason"]) == ("failed", "RuntimeError: no such layer")
    assert "somewhere" in state.ending["traceback"]
    assert "somewhere" in (tmp_path / "trials" / trial.id / "error.txt").read_text()


def test_a_process_that_is_unavailable_is_put_down_to_its_node_where_one_is_lost(tmp_path: Path) -> None:
    judge, _ = scheduler(tmp_path)
    trial, error = of_target("star")[0], tmp_path / "error.txt"
    broken = "ray.exceptions.ActorUnavailableError: The actor 1f is unavailable: connection reset.\n"
    for told, lost in ((broken, True), (broken, False), ("The actor died unexpectedly.\n", True)):
        error.write_text(f"Failure # 1\n{told}")
        judge.node_was_lost = lambda lost=lost: lost  # type: ignore[misc]
        judge.on_trial_error(None, ray_trial(trial, error_file=str(error)))  # type: ignore[arg-type]
    assert [event["cause"] for event in judge.ledger.events] == ["node", "death", "death"]


@pytest.mark.parametrize(
    ("told", "hung", "cause", "tries", "words"),
    [
        ("Failure # 1 (occurred at x)\nThe actor died unexpectedly.\n", False, "death", 3, "its process died"),
        ("Failure # 1\nWorker exit type: NODE_OUT_OF_MEMORY\n", False, "memory", 3, "memory of the node ran out"),
        ("Failure # 1\nThe actor died unexpectedly.\n", True, "hang", 1, "HUNG"),
    ],
)
def test_a_trial_whose_process_dies_comes_again_until_it_gets_no_further(
    told: str, hung: bool, cause: str, tries: int, words: str, tmp_path: Path
) -> None:
    judge, watching = scheduler(tmp_path)
    trial = of_target("star")[0]
    error = tmp_path / "error.txt"
    error.write_text(told)
    if hung:
        (tmp_path / "trials" / trial.id).mkdir(parents=True)
        (tmp_path / "trials" / trial.id / "hung.txt").write_text("Timeout!")
    stopped = []
    controller: Any = SimpleNamespace(stop_trial=lambda stopping: stopped.append(stopping.trial_id))
    dead = ray_trial(trial, error_file=str(error))

    def die(times: int) -> None:
        for _ in range(times):
            judge.on_trial_error(controller, dead)
            judge.on_trial_add(controller, dead)

    die(tries)
    judge.ledger.epoch(trial.id, row(1, 0.5))
    die(tries)
    assert not stopped
    assert judge.ledger.trials()[trial.id].status is None
    die(1)
    assert stopped == [trial.id]
    state = judge.ledger.trials()[trial.id]
    assert (state.status, state.ending["cause"]) == ("failed", cause)
    assert words in state.ending["reason"]
    assert watching.seen[-1] == ("failed", trial.id)


def test_a_full_disk_ends_the_search_and_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, _ = scheduler(tmp_path)
    trial, other = of_target("star")[:2]
    full = {DISK_FULL: "/run: the disk is full (3 bytes free, 10 needed)"}
    assert judge.on_trial_result(None, ray_trial(trial), full) == TrialScheduler.STOP  # type: ignore[arg-type]
    judge.on_trial_complete(None, ray_trial(trial), full)  # type: ignore[arg-type]
    assert judge.halted == full[DISK_FULL]
    assert trial.id not in judge.ledger.trials()

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    judge.halted = None
    assert judge.on_trial_result(None, ray_trial(other), row(1, 0.5)) == TrialScheduler.STOP  # type: ignore[arg-type]
    assert re.fullmatch(r".*ledger\.jsonl: the disk is full \(\d+ bytes free, \d+ needed\)", str(judge.halted))
    monkeypatch.undo()
    assert other.id not in Ledger(tmp_path / "ledger.jsonl").trials(), "a line that found no room is taken back"


def test_a_spent_budget_ends_running_trials_and_starts_no_more(tmp_path: Path) -> None:
    judge, _ = scheduler(tmp_path, budget=lambda: "budget of 1 minutes spent")
    trial = of_target("star")[0]
    assert judge.on_trial_result(None, ray_trial(trial), row(1, 0.5)) == TrialScheduler.STOP  # type: ignore[arg-type]
    assert judge.ledger.trials()[trial.id].status == "budget"


def test_an_epoch_repeated_after_a_restart_is_not_judged_or_shown_twice(tmp_path: Path) -> None:
    judge, watching = scheduler(tmp_path)
    trial = ray_trial(of_target("star")[0])
    judge.on_trial_result(None, trial, row(1, 0.5))  # type: ignore[arg-type]
    judge.on_trial_result(None, trial, row(1, 0.5))  # type: ignore[arg-type]
    assert [what for what, _ in watching.seen] == ["epoch 1"]


def test_a_finished_search_needs_no_training_until_its_budget_changes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert needs_training(CONFIG, PLAN, ledger)
    ledger.append("budget", PLAN.trials[0].id, reason="minutes")
    ledger.append("end", "", budget=CONFIG.budget.model_dump(), elapsed=480)
    assert not needs_training(CONFIG, PLAN, ledger)
    longer = CONFIG.model_copy(update={"budget": CONFIG.budget.model_copy(update={"minutes": 60.0})})
    assert needs_training(longer, PLAN, ledger)


def test_the_epoch_budget_counts_all_trials(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"budget": CONFIG.budget.model_copy(update={"epochs": 2, "minutes": None})})
    ledger = Ledger(tmp_path / "ledger.jsonl")
    budget = Budget(config, ledger)
    ledger.epoch("a", row(1, 0.1))
    assert budget.spent() is None
    ledger.epoch("b", row(1, 0.1))
    assert budget.spent() == "budget of 2 epochs spent"


def test_the_budget_of_trials_starts_no_more_than_it_allows(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"budget": CONFIG.budget.model_copy(update={"trials": 3})})
    ledger = Ledger(tmp_path / "ledger.jsonl")
    begun = PLAN.trials[5]
    ledger.epoch(begun.id, row(1, 0.1))
    budget = Budget(config, ledger)
    assert [trial for trial in PLAN.trials if budget.may_start(trial)] == [*PLAN.trials[:2], begun]


def test_gpu_hours_count_the_share_each_trial_holds(tmp_path: Path) -> None:
    limits = CONFIG.budget.model_copy(update={"gpu_hours": 0.5, "minutes": None})
    ledger = Ledger(tmp_path / "ledger.jsonl")
    budget = Budget(CONFIG.model_copy(update={"budget": limits}), ledger)
    ledger.epoch("a", {**row(1, 0.1), "seconds": 3600.0, "gpus": 0.25})
    assert (budget.gpu_hours(), budget.spent()) == (0.25, None)
    ledger.epoch("b", {**row(1, 0.1), "seconds": 900.0, "gpus": 1.0})
    assert budget.spent() == "budget of 0.5 GPU hours spent"


def test_trials_cut_in_an_epoch_by_the_budget_get_their_ending(tmp_path: Path) -> None:
    ledger, watching = Ledger(tmp_path / "ledger.jsonl"), Watching()
    running, waiting = PLAN.trials[0], PLAN.trials[1]
    ledger.append("start", running.id)
    ledger.append("start", waiting.id)
    ledger.epoch(running.id, row(1, 0.5))
    end_by_budget(ledger, [running, waiting], "budget of 1 minutes spent", [watching])
    assert ledger.trials()[running.id].status == "budget"
    assert ledger.trials()[waiting.id].status is None
    assert watching.seen == [("budget", running.id)]


def test_settled_states_are_those_a_resumed_search_leaves_alone() -> None:
    assert {"completed", "stopped", "failed", "diverged"} == SETTLED


def test_the_gpus_of_all_processes_of_a_trial_are_counted(tmp_path: Path) -> None:
    judge, _ = scheduler(tmp_path)
    reference = next(t for t in PLAN.trials if t.reference).model_copy(update={"gpus": 1.0, "processes": 4})
    judge.on_trial_result(None, ray_trial(reference), row(1, 0.5))  # type: ignore[arg-type]
    assert judge.ledger.trials()[reference.id].rows[1]["gpus"] == 4.0


def test_trials_of_which_no_two_fit_the_machine_come_one_at_a_time() -> None:
    trial = PLAN.trials[0].model_copy(update={"cpus": 1.0, "gpus": 0.0})
    assert one_at_a_time([trial], {"CPU": 1.0})
    assert not one_at_a_time([trial, trial], {"CPU": 2.0})
    large = trial.model_copy(update={"gpus": 0.6})
    assert one_at_a_time([large], {"CPU": 8.0, "GPU": 1.0})
    assert not one_at_a_time([large, large.model_copy(update={"gpus": 0.3})], {"CPU": 8.0, "GPU": 1.0})


def test_the_next_trial_is_the_first_that_waits_and_those_that_ended_are_forgotten(tmp_path: Path) -> None:
    spent: list[str] = []
    judge, _ = scheduler(tmp_path, lambda: spent[0] if spent else None)
    first, second, third = (ray_trial(config, status="PENDING") for config in of_target("star")[:3])
    for trial in (first, second, third):
        judge.on_trial_add(None, trial)  # type: ignore[arg-type]
    assert judge.choose_trial_to_run(None) is first  # type: ignore[arg-type]
    first.status = "RUNNING"
    assert judge.choose_trial_to_run(None) is second  # type: ignore[arg-type]
    first.status, second.status = "PENDING", "TERMINATED"
    judge.on_trial_add(None, first)  # type: ignore[arg-type]
    assert judge.choose_trial_to_run(None) is third  # type: ignore[arg-type]
    third.status = "ERROR"
    assert judge.choose_trial_to_run(None) is first  # type: ignore[arg-type]
    assert judge.living == [first]
    spent.append("budget spent")
    assert judge.choose_trial_to_run(None) is None  # type: ignore[arg-type]
