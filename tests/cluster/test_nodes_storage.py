"""A whole run on s3://: its driver is killed, another machine goes on, and the end is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from search.storage import Storage
from tests.s3_stand_in import S3

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.synthetic={frames: 2, height: 128, width: 128, preset: easy}",
    "space.targets=[two_class]",
    "space.architectures=[unet, linknet]",
    "space.encoders=[tu-regnety_002]",
    "schedule.references=[]",
    "schedule.grace_epochs=1",
    "train.max_epochs=4",
    "train.checkpoint_every=1",
    "train.crops_per_epoch=8",
    "train.crop=64",
    "train.validation_crops=4",
    "train.encoder_depth=3",
    "train.precision=fp32",
    "train.channels_last=false",
    "resources.cpus_per_trial=2",
    "tracking.wandb=disabled",
]
TIMED = {"time", "seconds", "memory_mb", "check", "host", "pid", "gpus"}
"""What differs between two runs that are equal."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    pytest.importorskip("moto.server")
    server = S3()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.make_bucket("runs")
    yield server
    server.unplug()


def start(machine: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a search on a machine: a folder for its caches and its home."""
    machine.mkdir(exist_ok=True)
    own = {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(machine / "cache"),
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="r"),
    }
    with (machine / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "search.run", *arguments],
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=machine,
            env=os.environ | own,
        )


def ended(process: subprocess.Popen[str], machine: Path, code: int = 0) -> str:
    assert process.wait(timeout=500) == code, (machine / "said.txt").read_text()[-3000:]
    return (machine / "said.txt").read_text()


def epochs_of(lines: bytes) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in lines.splitlines()]
    rows = [event for event in events if event["event"] in {"epoch", "stop", "complete"}]
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


def stored_ledger(store: Storage) -> bytes:
    head = json.loads(store.read("head.json") or b'{"ledger": "none"}')
    return b"".join(store.read(name) or b"" for name in store.objects(head["ledger"]))


@pytest.mark.slow
def test_a_killed_run_goes_on_from_s3_on_another_machine_and_equals_an_undisturbed_one(s3: S3, tmp_path: Path) -> None:
    local, first, second = (tmp_path / name for name in ("local", "first", "second"))
    ended(start(local, "--out", str(local / "run"), *SMALL), local)
    place = "s3://runs/one"
    store = Storage.at(place, 30)
    driver = start(first, "--out", place, *SMALL)
    end = time.monotonic() + 300
    while stored_ledger(store).count(b'"epoch"') < 6:  # each epoch's line has the word twice
        assert driver.poll() is None, (first / "said.txt").read_text()[-3000:]
        assert time.monotonic() < end, "no epoch came"
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    said = ended(start(second, "--resume", place), second)
    assert f"held {place} and has ended; taken over" in said
    [run] = (second / "cache" / "cellsearch" / "runs").iterdir()
    assert epochs_of((run / "ledger.jsonl").read_bytes()) == epochs_of((local / "run" / "ledger.jsonl").read_bytes())
    cells = [pd.read_csv(folder / "cells.csv") for folder in (local / "run", run)]
    pd.testing.assert_frame_equal(*cells)
    stored = store.objects()
    assert {"report.html", "summary.json", "cells.csv", "ledger.jsonl", "dataset.zarr/manifest.json"} <= stored.keys()
    for trial in {name.split("/")[1] for name in stored if name.startswith("trials/")}:
        kept = {name.split("/")[3] for name in stored if name.startswith(f"trials/{trial}/checkpoints/")}
        there = {path.name for path in (local / "run" / "trials" / trial / "checkpoints").iterdir()}
        assert kept == there, "the store keeps what a folder keeps"
    assert json.loads(store.read("head.json") or b"")["holder"] is None
    assert not [name for name in stored if "cache" in name.split("/") or name.endswith((".tmp", ".partial"))]
    said = ended(start(second, "--resume", place), second)
    assert "finished before, nothing to train" in said


@pytest.mark.slow
def test_a_run_that_was_only_begun_goes_on_elsewhere_and_refuses_other_settings(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_io.errors import BadInput
    from search import run
    from search.signals import Ended

    seen: list[tuple[Path, str, int]] = []

    def ended_by_a_signal(*given: Any) -> None:
        _, _, dataset, run_dir, ledger, *_ = given
        ledger.append("sitting", "")
        seen.append((run_dir, dataset.content_hash, len([e for e in ledger.events if e["event"] == "sitting"])))
        raise Ended(signal.SIGTERM)

    monkeypatch.setattr(run, "train", ended_by_a_signal)
    for machine, arguments in (("a", ["--out", "s3://runs/begun", *SMALL]), ("b", ["--resume", "s3://runs/begun"])):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        assert run.main(arguments) == 75
    (here, data, first), (there, same_data, second) = seen
    assert tmp_path / "a" in here.parents
    assert tmp_path / "b" in there.parents
    assert data == same_data
    assert (first, second) == (1, 2)
    with pytest.raises(BadInput, match=r"train\.max_epochs: 4 -> 5"):
        run.main(["--out", "s3://runs/begun", *SMALL, "train.max_epochs=5"])
    assert json.loads(Storage.at("s3://runs/begun").read("head.json") or b"")["holder"] is None


@pytest.mark.slow
def test_faults_of_a_place_are_one_line_before_anything_is_trained(s3: S3, tmp_path: Path) -> None:
    said = ended(start(tmp_path / "a", "--out", "s3://nobucket/run", *SMALL), tmp_path / "a", 2)
    assert said.splitlines() == [
        "error: s3://nobucket/run: no such bucket or object (Not Found); check the name and AWS_ENDPOINT_URL"
    ]
    said = ended(start(tmp_path / "b", "--resume", "s3://runs/none"), tmp_path / "b", 2)
    assert said.startswith("error: s3://runs/none: no run to resume")
    assert len(said.splitlines()) == 1
