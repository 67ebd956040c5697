"""Optuna's proposals: within the space, none twice, the same after the same history, not misled by stopped trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.trial import TrialState

from search.config import Config, load
from search.feasibility import Feasibility
from search.ledger import Ledger
from search.proposals import Proposer
from search.proposed import Proposed, place_of, proposals_left, with_proposed
from search.space import Plan, plan

if TYPE_CHECKING:
    from pathlib import Path

    from search.space import Cell, Setting

SETTINGS = [
    "train.crop=128",
    "space.mode=optuna",
    "space.trials=30",
    "space.targets=[two_class]",
    "space.losses={two_class: [dice, bce_dice]}",
    "space.architectures=[unet, fpn]",
    "space.encoders=[resnet18, resnet34]",
    "space.learning_rate=[0.0005, 0.003, 0.02]",
    "space.stardist_unet=false",
    "schedule.references=[]",
]
CONFIG: Config = load("demo", None, SETTINGS)


def planned(config: Config = CONFIG) -> Plan:
    def examine(cells: list[tuple[str, str]]) -> dict[tuple[str, str], Feasibility]:
        return {cell: Feasibility(cell != ("fpn", "resnet34"), 128) for cell in cells}

    return plan(config, examine=examine)


def quality(cell: Cell, setting: Setting) -> float:
    return 0.5 + 0.2 * (cell[1] == "fpn") + 0.1 * (setting[0] == 0.003) + 0.05 * (cell[3] == "dice")


def run(proposer: Proposer, count: int) -> list[tuple[Cell, Setting]]:
    made = []
    for _ in range(count):
        place = proposer.ask()
        if place is None:
            break
        key = f"trial {len(proposer.told)}"
        proposer.begin(key, *place)
        proposer.tell_epoch(key, 1, quality(*place))
        proposer.tell_end(key, "completed")
        made.append(place)
    return made


def test_every_feasible_combination_is_proposed_once_and_no_other() -> None:
    rows = planned().rows
    assert sorted(run(Proposer(CONFIG, rows), 100)) == sorted(rows)
    assert len(rows) == 3 * 2 * 3


def test_the_good_part_of_the_space_comes_early() -> None:
    config = load("demo", None, [*SETTINGS, "space.encoders=[resnet18]", "space.weight_decay=[0, 0.0001, 0.001, 0.01]"])
    rows = planned(config).rows
    made = run(Proposer(config, rows), 24)
    good = [place[0][1] == "fpn" for place in made]
    assert len(rows) == 48
    assert sum(good[12:]) >= 9 > sum(not value for value in good[12:])


def test_the_next_proposal_is_the_same_after_the_same_history_told_live_or_read_back() -> None:
    rows = planned().rows
    live = Proposer(CONFIG, rows)
    run(live, 14)
    again = Proposer(CONFIG, rows, live.told)
    assert live.ask() == again.ask()


def test_a_stopped_trial_is_pruned_with_its_values_and_a_failed_one_no_result(tmp_path: Path) -> None:
    storage = tmp_path / "optuna.db"
    proposer = Proposer(CONFIG, planned().rows, None, storage)
    for key, status in (("a", "completed"), ("b", "stopped"), ("c", "diverged"), ("d", "running")):
        place = proposer.ask()
        assert place is not None
        proposer.begin(key, *place)
        proposer.tell_epoch(key, 1, 0.5)
        proposer.tell_epoch(key, 2, float("nan"))
        if status != "running":
            proposer.tell_end(key, status)
    trials = optuna.load_study(study_name="two_class", storage=f"sqlite:///{storage}").trials
    assert [trial.user_attrs["trial"] for trial in trials] == ["a", "b", "c", "d"]
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in trials] == states
    assert trials[1].intermediate_values == {1: 0.5}


def test_a_trial_that_goes_on_after_its_end_is_told_as_it_ended_first() -> None:
    proposer = Proposer(CONFIG, planned().rows)
    place = proposer.ask()
    assert place is not None
    proposer.begin("a", *place)
    proposer.tell_epoch("a", 1, 0.5)
    proposer.tell_end("a", "stopped")
    proposer.begin("a", *place)
    proposer.tell_epoch("a", 2, 0.9)
    proposer.tell_end("a", "completed")
    [trial] = proposer.studies["two_class"].trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 0.5})


def test_a_file_that_cannot_be_written_is_said_once_and_hurts_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    proposer = Proposer(CONFIG, planned().rows, None, tmp_path / "missing" / "optuna.db", say=said.append)
    assert len(run(proposer, 3)) == 3
    assert len(said) == 1
    assert "the search goes on without it" in said[0]


def test_continuous_proposals_lie_between_those_listed() -> None:
    config = load("demo", None, [*SETTINGS, "space.continuous=true"])
    made = run(Proposer(config, planned(config).rows), 20)
    rates = [setting[0] for _, setting in made]
    assert len(made) == 20
    assert all(0.0005 <= rate <= 0.02 for rate in rates)
    assert len(set(rates)) > 10


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_search_that_goes_on_proposes_what_an_undisturbed_one_would(seeds: int, tmp_path: Path) -> None:
    config = load("demo", None, [*SETTINGS, f"space.seeds={list(range(seeds))}"])
    ids: list[list[str]] = []
    for name, interrupted in (("whole", False), ("cut", True)):
        ledger = Ledger(tmp_path / f"{name}.jsonl")
        source = Proposed(config, planned(config), ledger, None)
        for number in range(14):
            if interrupted and number == 12:
                ledger.close()
                ledger = Ledger(tmp_path / f"{name}.jsonl")
                source = Proposed(config, with_proposed(planned(config), ledger), ledger, None)
            for trial in source.next():
                row = {"epoch": 1, "rung_metric": quality(*place_of(trial))}
                ledger.append("start", trial.id)
                source.started(trial)
                ledger.epoch(trial.id, row)
                source.epoch(trial, row)
                ledger.append("complete", trial.id, reason="")
                source.ended(trial, "completed", "")
        ids.append([trial.id for trial in with_proposed(planned(config), ledger).trials])
        assert proposals_left(config, planned(config), ledger) == 18 - 14
    assert ids[0] == ids[1]
    assert len(ids[0]) == 14 * seeds
