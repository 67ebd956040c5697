"""References of the winner: known when its target is over, the same after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.config import load
from search.feasibility import Feasibility
from search.ledger import Ledger
from search.space import Plan, plan
from search.winner import with_runs_of_winner

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = load(
    "demo",
    None,
    [
        "train.crop=128",
        "space.targets=[two_class]",
        "space.architectures=[unet, fpn]",
        "schedule.references=[{architecture: winner, target: three_class, loss: dice, gap: true}]",
    ],
)


def made() -> Plan:
    return plan(CONFIG, examine=lambda cells: {cell: Feasibility(ok=True, crop=128) for cell in cells})


def finish(ledger: Ledger, trial: str, value: float, event: str = "complete") -> None:
    ledger.epoch(trial, {"epoch": 1, "rung_metric": value, "train_loss": 0.1})
    ledger.append(event, trial, reason="")


def test_the_winner_is_not_known_while_a_trial_of_its_target_is_left(tmp_path: Path) -> None:
    ledger, planned = Ledger(tmp_path / "ledger.jsonl"), made()
    for trial in planned.trials[:-1]:
        finish(ledger, trial.id, 0.5)
    assert with_runs_of_winner(CONFIG, planned, ledger) == planned


def test_the_best_completed_trial_is_trained_for_the_other_target(tmp_path: Path) -> None:
    ledger, planned = Ledger(tmp_path / "ledger.jsonl"), made()
    values = dict(zip((trial.id for trial in planned.trials), (0.5, 0.8, 0.95, 0.7), strict=True))
    for trial, value in values.items():
        finish(ledger, trial, value, "stop" if value == 0.95 else "complete")
    extended = with_runs_of_winner(CONFIG, planned, ledger)
    (run,) = extended.trials[len(planned.trials) :]
    best = planned.trials[1]
    assert (run.architecture, run.encoder, run.target) == (best.architecture, best.encoder, "three_class")
    assert run.gap
    assert run.reference
    assert with_runs_of_winner(CONFIG, made(), Ledger(tmp_path / "ledger.jsonl")) == extended


def test_without_a_completed_trial_there_is_no_winner(tmp_path: Path) -> None:
    ledger, planned = Ledger(tmp_path / "ledger.jsonl"), made()
    for trial in planned.trials:
        finish(ledger, trial.id, 0.5, "fail")
    assert with_runs_of_winner(CONFIG, planned, ledger) == planned
