"""One search in which every trial ends in another way: what diverges, fails, hangs or dies leaves the others alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from data_io import errors
from tests.faults import toy
from tests.faults.disturbed import Search, assert_exact, replayed, stopped, temporary_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIVERGED = {
    "toy-000": {"what": "report", "epoch": 3, "value": "nan"},
    "toy-001": {"what": "report", "epoch": 1, "value": "inf"},
    "toy-002": {"what": "report", "epoch": 2, "value": None},
    "toy-003": {"what": "report", "epoch": 2, "value": "a good one"},
    "toy-004": {"what": "missing", "epoch": 1},
    "toy-005": {"what": "lossless", "epoch": 2},
}
OTHERS = {
    "toy-006": {"what": "raise", "epoch": 2},
    "toy-007": {"what": "raise", "epoch": 4, "times": 1},
    "toy-008": {"what": "exit", "epoch": 4, "times": 1},
    "toy-009": {"what": "hang", "epoch": 3, "times": 1},
    "toy-010": {"what": "hang", "epoch": 2},
    "toy-011": {"what": "out of memory", "epoch": 3, "times": 1},
    "toy-012": {"what": "exit", "epoch": 1},
}
HANG_MINUTES = 0.1
LENIENT = "schedule.asha=false"


@pytest.fixture(scope="module")
def search(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    """Return a search of which every trial but two misbehaves; early stopping is off so that each gets to do so."""
    folder = tmp_path_factory.mktemp("endings") / "run"
    settings = (LENIENT, f"resources.hang_minutes={HANG_MINUTES}")
    search = Search(folder, small_data, trials=15, references=1, settings=settings)
    search.behave(**{name.replace("-", "_"): what for name, what in (DIVERGED | OTHERS).items()})
    try:
        assert search.run() == errors.DONE, search.said
        yield search
    finally:
        search.end()


def state(search: Search, trial: str) -> dict[str, Any]:
    """Ending of a trial."""
    return [event for event in search.events() if event["trial"] == trial][-1]


@pytest.mark.parametrize("trial", DIVERGED)
def test_f12_f13_a_metric_that_is_no_number_diverges_in_that_epoch_and_is_never_best(
    search: Search, trial: str
) -> None:
    found = search.outcome()[trial]
    assert (found["status"], found["epochs"]) == ("diverged", DIVERGED[trial]["epoch"])
    assert f"epoch {DIVERGED[trial]['epoch']}: training loss" in state(search, trial)["reason"]
    best = toy.value(trial, found["epochs"] - 1) if found["epochs"] > 1 else None
    assert found["best"] == (toy.value(trial, 2) if trial == "toy-005" else best)
    assert f"diverged: {trial}" in search.said


def test_f12_f13_other_trials_are_unaffected(search: Search) -> None:
    outcome = {name: found for name, found in search.outcome().items() if name not in DIVERGED}
    search.trials -= len(DIVERGED)
    try:
        assert_exact(search, outcome)
    finally:
        search.trials += len(DIVERGED)
    for name in ("reference-0", "toy-013", "toy-014", "toy-007", "toy-008", "toy-009", "toy-011"):
        assert outcome[name]["status"] == "completed", name


def test_f16_what_always_fails_is_tried_twice_and_leaves_its_traceback(search: Search) -> None:
    assert state(search, "toy-006")["event"] == "fail"
    assert state(search, "toy-006")["reason"] == "RuntimeError: no such layer"
    told = (search.folder / "trials" / "toy-006" / "error.txt").read_text()
    assert told.startswith("failed: RuntimeError: no such layer")
    assert 'toy.py", line' in told
    assert causes(search, "toy-006") == ["error"]


def test_f16_what_fails_once_goes_on(search: Search) -> None:
    assert causes(search, "toy-007") == ["error"]
    assert not (search.folder / "trials" / "toy-007" / "error.txt").exists()


def test_f17_out_of_memory_comes_back_once_with_smaller_parts_of_the_same_batch(search: Search) -> None:
    [lack] = [event for event in search.events("oom") if event["trial"] == "toy-011"]
    assert (lack["micro"], lack["next_micro"]) == (None, 2)


def test_f06_a_process_that_dies_is_started_again_and_given_up_when_it_gets_nowhere(search: Search) -> None:
    assert causes(search, "toy-008") == ["death"]
    assert causes(search, "toy-012") == ["death"] * 3
    assert state(search, "toy-012")["cause"] == "death"
    assert "its process died" in state(search, "toy-012")["reason"]


def test_f20_a_trial_that_hangs_is_started_again_once_and_then_hung(search: Search) -> None:
    assert causes(search, "toy-009") == ["hang"]
    assert causes(search, "toy-010") == ["hang"]
    assert state(search, "toy-010")["reason"].startswith("HUNG: no epoch within resources.hang_minutes")
    assert "in misbehave" in (search.folder / "trials" / "toy-010" / "hung.txt").read_text()


def test_f19_causes_are_counted_apart(search: Search) -> None:
    [line] = [line for line in search.said.splitlines() if line.startswith("trials that came again: ")]
    assert "4 whose process died; 2 after an error; 2 that hung; 1 that found too little memory" in line


def test_no_temporary_file_is_left(search: Search) -> None:
    kept = str(search.folder / "trials" / "toy-010" / "hung.txt")
    assert [path for path in temporary_files(search.folder) if path != kept] == []
    assert replayed(search, grace=9) == stopped(search) == {}


def causes(search: Search, trial: str) -> list[str]:
    """What ended the processes of a trial that came again."""
    return [event["cause"] for event in search.events("retry") if event["trial"] == trial]


@pytest.mark.parametrize("trials", [1, 2])
def test_f14_all_trials_diverge(small_data: Path, tmp_path: Path, trials: int) -> None:
    search = Search(tmp_path / "run", small_data, trials=trials, references=0)
    search.behave(every={"what": "report", "epoch": 2, "value": "nan"})
    try:
        assert search.run() == errors.NO_TRIAL
        assert "no usable trial:" in search.said
        for trial in range(trials):
            assert f"toy-{trial:03d}: diverged epoch 2: training loss 0.5, rung metric nan" in search.said
    finally:
        search.end()
