"""One search with one slot that is stopped in every way there is, and ends like an undisturbed one."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from data_io import errors
from tests.faults import toy
from tests.faults.disturbed import (
    Search,
    assert_exact,
    corrupt,
    here,
    replayed,
    stopped,
    temporary_files,
    undisturbed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Story:
    """What happened to the search, sitting by sitting."""

    search: Search
    codes: dict[str, int]
    said: dict[str, str]
    seconds: dict[str, float]
    facts: dict[str, Any]

    def sitting(self, name: str, code: int) -> None:
        """Keep how a sitting ended."""
        self.codes[name], self.said[name] = code, self.search.said


@pytest.fixture(scope="module")
def story(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    search = Search(tmp_path_factory.mktemp("killed") / "run", small_data, trials=11, references=1, slots=1)
    told = Story(search, {}, {}, {}, {})
    try:
        _happen(search, told)
        yield told
    finally:
        search.end()


def _happen(search: Search, told: Story) -> None:
    full = {"what": "full", "epoch": 4, "times": 1}
    slow_write = {"what": "slow write", "epoch": 5, "times": 1, "write_seconds": 600.0}
    search.behave(reference_0=full)
    told.sitting("disk full", search.run())

    search.behave(every={"limit": 12})
    search.begin()
    search.wait_for_epochs(12)
    told.facts["holder"] = here(search.process.pid if search.process else 0)
    second = Search(search.folder, search.data, trials=11, references=1, slots=1, sittings=100)
    told.codes["second driver"], told.said["second driver"] = second.run(), second.said
    told.sitting("SIGKILL", search.kill())
    told.facts["orphans after SIGKILL"] = search.no_orphans()

    corrupt(search.folder / "optuna.db", "cut")
    search.begin("--resume", "tracking.wandb=offline")
    search.wait_for(search.workers)
    time.sleep(2)  # in the middle of an epoch that does not end
    began = time.monotonic()
    told.sitting("SIGTERM", search.kill(signal.SIGTERM))
    told.seconds["SIGTERM"] = time.monotonic() - began

    search.behave(every={"seconds": 0.1, "limit": 40})
    search.begin("--resume", "tracking.wandb=disabled")
    search.wait_for_epochs(20)
    assert search.process is not None
    began = time.monotonic()
    os.killpg(search.process.pid, signal.SIGINT)
    told.sitting("SIGINT", search.finish(60))
    told.seconds["SIGINT"] = time.monotonic() - began

    search.begin("--resume")
    search.wait_for_epochs(40)
    [raylet] = search.named("raylet")
    raylet.kill()
    told.sitting("Ray dies", search.finish(90))
    told.facts["orphans after Ray's death"] = search.no_orphans()

    search.behave(toy_010=slow_write)
    search.begin("--resume")
    half = search.folder / "trials" / "toy-010" / "checkpoints"
    search.wait_for(lambda: any(file.read_bytes() == b"half" for file in half.glob("*/state.ckpt")))
    told.facts["workers"] = [process.pid for process in search.workers()]
    for process in search.workers():
        process.kill()
    told.sitting("worker killed", search.finish())
    told.facts["outcome"] = search.outcome()
    told.facts["orphans"] = search.no_orphans()

    before = (search.folder / "ledger.jsonl").read_bytes()
    told.sitting("again", search.run("--resume"))
    told.facts["same ledger"] = (search.folder / "ledger.jsonl").read_bytes() == before
    search.code = "2"
    told.sitting("changed code", search.run("--resume"))


def test_f01_a_killed_driver_goes_on_with_the_same_trials_and_says_so(story: Story) -> None:
    assert story.codes["SIGKILL"] == -signal.SIGKILL
    assert "resumed " in story.said["SIGTERM"]
    assert "note: the lock of" in story.said["SIGTERM"]
    assert_exact(story.search, story.facts["outcome"])
    assert all(found["status"] in {"completed", "stopped"} for found in story.facts["outcome"].values())


def test_f01_no_process_survives_its_driver(story: Story) -> None:
    assert story.facts["orphans after SIGKILL"] == []
    assert story.facts["orphans"] == []
    assert temporary_files(story.search.folder) == []


def test_f02_epochs_and_stop_decisions_are_those_of_an_undisturbed_search(story: Story) -> None:
    order = [(event["trial"], event["epoch"]) for event in story.search.events("epoch")]
    assert order == undisturbed(story.search)
    assert stopped(story.search) == replayed(story.search)
    assert stopped(story.search), "nothing was stopped, so this test shows nothing"


def test_f05_a_full_disk_is_told_with_its_bytes_and_the_search_goes_on_afterwards(story: Story) -> None:
    assert story.codes["disk full"] == errors.PREEMPTED
    [line] = [line for line in story.said["disk full"].splitlines() if line.startswith("error: ")]
    assert "checkpoints: the disk is full (" in line
    assert "bytes free, 123456 needed" in line
    assert f"--resume {story.search.folder}" in line
    assert story.facts["outcome"]["reference-0"] == {
        "status": "completed",
        "epochs": 9,
        "best": toy.value("reference-0", 9),
    }


def test_f06_f07_a_worker_killed_in_the_writing_of_a_checkpoint_goes_on_from_the_one_before(story: Story) -> None:
    assert len(story.facts["workers"]) == 1
    [retry] = [event for event in story.search.events("retry") if event["trial"] == "toy-010"]
    assert retry["cause"] == "death"
    assert "toy-010: its process died" in story.said["worker killed"]


def test_f09_sigterm_saves_within_ten_seconds_and_tells_how_to_go_on(story: Story) -> None:
    assert story.codes["SIGTERM"] == errors.PREEMPTED
    assert story.seconds["SIGTERM"] < 10
    assert f"SIGTERM: stopped; go on with: python -m search.run --resume {story.search.folder}" in story.said["SIGTERM"]


def test_f10_ctrl_c_in_a_terminal_does_the_same(story: Story) -> None:
    assert story.codes["SIGINT"] == errors.INTERRUPTED
    assert story.seconds["SIGINT"] < 10
    assert f"SIGINT: stopped; go on with: python -m search.run --resume {story.search.folder}" in story.said["SIGINT"]
    assert "Traceback" not in story.said["SIGINT"]


def test_f11_a_second_driver_is_refused_and_told_who_holds_the_run(story: Story) -> None:
    assert story.codes["second driver"] == errors.REFUSED
    assert f"locked by {story.facts['holder']} since 20" in story.said["second driver"]


def test_the_death_of_this_machines_ray_ends_the_search_at_once(story: Story) -> None:
    assert story.codes["Ray dies"] == errors.PREEMPTED
    assert "error: Ray on this machine has died (raylet, process " in story.said["Ray dies"]
    assert story.facts["orphans after Ray's death"] == []


def test_f32_changed_code_is_refused_with_the_difference(story: Story) -> None:
    assert story.codes["changed code"] == errors.REFUSED
    assert "toy.py: '1' -> '2'" in story.said["changed code"]
    assert "--accept-change" in story.said["changed code"]


def test_f33_a_finished_search_trains_nothing_and_ends_the_same(story: Story) -> None:
    assert story.codes["worker killed"] == story.codes["again"] == errors.DONE
    assert "nothing to train" in story.said["again"]
    assert story.facts["same ledger"]
    assert f"outcome: {_json(story.facts['outcome'])}" in story.said["again"]


def test_f37_a_cut_optuna_file_is_made_anew_from_the_ledger(story: Story) -> None:
    import optuna

    studies = optuna.get_all_study_names(f"sqlite:///{story.search.folder / 'optuna.db'}")
    assert sorted(studies) == ["three_class", "two_class"]


def _json(value: Any) -> str:
    import json

    return json.dumps(value)
