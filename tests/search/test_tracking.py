"""The tracker against W&B's own files, read with W&B's own reader; no network."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import search.run
from data_io import errors
from data_io.secrecy import is_secret, without_secrets
from search import tracking
from search.config import TrackingConfig, load
from search.signals import Ended, Signals
from search.tracking import ProcessTracker, make_tracker

ROOT = Path(__file__).resolve().parents[2]
OFFLINE = TrackingConfig(wandb="offline")


def records(run_dir: Path, trial: str) -> list[dict[str, Any]]:
    found = []
    for file in sorted(run_dir.glob(f"wandb/offline-run-*/run-{trial}-*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found.extend(json.loads(line) for line in result.stdout.splitlines())
    return found


def rows(run_dir: Path, trial: str) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in records(run_dir, trial) if record["type"] == "history"]


def process(tracker: tracking.Tracker) -> subprocess.Popen[bytes]:
    assert isinstance(tracker, tracking.Trackers)
    tracker = tracker.trackers[-1]
    assert isinstance(tracker, ProcessTracker)
    assert tracker._process is not None
    return tracker._process


def wait_until(question: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == tracking.__name__]


def test_every_epoch_is_exactly_one_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = make_tracker(OFFLINE, tmp_path, "experiment")
    config = {"lr": 1e-4, "api_token": "hunter2", "deep": [{"password": "hunter2", "size": 3}]}
    tracker.start_trial("a", config)
    tracker.start_trial("b", {"lr": 1e-3})
    for epoch in range(1, 6):
        tracker.epoch("a", {"epoch": epoch, "val_loss": np.float32(1 / epoch), "extra": None})
        tracker.epoch("a", {"epoch": epoch, "val_loss": 99.0})
        tracker.epoch("b", {"epoch": epoch, "val_loss": float("nan")})
    tracker.finish_trial("a", {"best": 0.2})  # b, stopped early, is finished by close
    tracker.close()
    tracker.close()

    for trial in ("a", "b"):
        assert [(row["epoch"], row["_step"]) for row in rows(tmp_path, trial)] == [(e, e) for e in range(1, 6)]
    assert rows(tmp_path, "a")[1]["val_loss"] == 0.5
    run = next(record["run"] for record in records(tmp_path, "a") if record["type"] == "run")
    assert (run["display_name"], run["run_group"], run["project"]) == ("a", "experiment", "cellsearch")
    assert run["config"]["update"]["deep"] == [{"size": 3}]
    assert {"best": 0.2} in [r["summary"]["update"] for r in records(tmp_path, "a") if r["type"] == "summary"]
    assert not any(b"hunter2" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert not messages(caplog)


def test_a_killed_driver_loses_no_row_and_a_resumed_one_repeats_none(tmp_path: Path) -> None:
    driver = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from search.config import TrackingConfig
        from search.tracking import make_tracker
        tracker = make_tracker(TrackingConfig(), Path(sys.argv[1]), "experiment").trackers[-1]
        tracker.start_trial("a", {})
        for epoch in range(1, 5):
            tracker.epoch("a", {"epoch": epoch})
        tracker._lines.put(None)
        tracker._threads[0].join()
        while not list(Path(sys.argv[1]).glob("wandb/offline-run-*")):
            time.sleep(0.05)
        os.kill(os.getpid(), 9)
        """
    )
    result = subprocess.run([sys.executable, "-c", driver, str(tmp_path)], cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL

    tracker = make_tracker(OFFLINE, tmp_path, "experiment")  # waits for the writer of the killed driver
    tracker.start_trial("a", {})
    for epoch in range(2, 8):
        tracker.epoch("a", {"epoch": epoch})
    tracker.close()
    assert [row["epoch"] for row in rows(tmp_path, "a")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_dead_service_gives_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = make_tracker(OFFLINE, tmp_path, "experiment")
    tracker.start_trial("a", {})
    tracker.epoch("a", {"epoch": 1})
    wait_until(lambda: list(tmp_path.glob("wandb/offline-run-*/run-a-*.wandb")))
    for service in tracking._children(process(tracker).pid):
        os.kill(service, signal.SIGKILL)
    for epoch in range(2, 50):
        tracker.epoch("a", {"epoch": epoch})
    start = time.monotonic()
    tracker.close()
    assert time.monotonic() - start < 20
    assert len(messages(caplog)) == 1
    assert "the search goes on" in messages(caplog)[0]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="only Linux lists a process's children")
def test_a_hanging_service_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 2.0)
    tracker = make_tracker(OFFLINE, tmp_path, "experiment")
    tracker.start_trial("a", {})
    wait_until(lambda: list(tmp_path.glob("wandb/offline-run-*/run-a-*.wandb")))
    writer = process(tracker).pid
    services = tracking._children(writer)
    assert services
    for pid in (*services, writer):
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    for epoch in range(5000):
        tracker.epoch("a", {"epoch": epoch, "text": "x" * 100})
    assert time.monotonic() - start < 2
    tracker.close()
    assert time.monotonic() - start < 10
    assert messages(caplog) == [
        "W&B: it did not finish within 2 s and was ended; the search goes on, its own records are complete; "
        f"send what is missing later: python -m search.wandb_sync {tmp_path}"
    ]
    wait_until(lambda: not any(_runs(pid) for pid in (*services, writer)))


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_online_without_an_account_goes_on_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker = make_tracker(TrackingConfig(wandb="online"), tmp_path / "run", "experiment")
    tracker.start_trial("a", {})
    tracker.epoch("a", {"epoch": 1})
    tracker.close()
    assert [row["epoch"] for row in rows(tmp_path / "run", "a")] == [1]
    assert len(messages(caplog)) == 1
    assert "written offline from here on" in messages(caplog)[0]
    assert f"send what is missing later: python -m search.wandb_sync {tmp_path / 'run'}" in messages(caplog)[0]


def test_a_process_that_cannot_start_gives_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "wandb").write_text("a file where the folder should be")
    tracker = make_tracker(OFFLINE, tmp_path, "experiment")
    tracker.start_trial("a", {})
    tracker.epoch("a", {"epoch": 1})
    tracker.close()
    assert len(messages(caplog)) == 1


def test_disabled_writes_nothing_for_wandb(tmp_path: Path) -> None:
    tracker = make_tracker(TrackingConfig(wandb="disabled"), tmp_path, "experiment")
    tracker.start_trial("a", {})
    tracker.epoch("a", {"epoch": 1})
    tracker.finish_trial("a", {})
    tracker.close()
    assert [path.name for path in tmp_path.iterdir()] == ["tensorboard"]


def test_offline_the_process_knows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert "WANDB_API_KEY" not in tracking._environment("offline")
    assert "WANDB_API_KEY" in tracking._environment("online")


def test_names_that_look_like_secrets() -> None:
    secret = ["token", "api_key", "API-KEY", "apiKey", "db.password", "WANDB_API_KEY", "clientSecret", "auth"]
    plain = ["epoch", "monkey", "tokenizer_size", "author", "keyboard", "learning_rate"]
    assert [name for name in secret if not is_secret(name)] == []
    assert [name for name in plain if is_secret(name)] == []
    assert without_secrets({"url": "s3://me:pw@host/x", "t": ({"token": 1, "n": 2},)}) == {
        "url": "s3://(hidden)@host/x",
        "t": [{"n": 2}],
    }


@pytest.mark.parametrize("ended", [False, True])
def test_a_search_has_one_tracker_from_its_first_trial_to_its_report_and_closes_it_once(
    ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    signals = Signals()

    class Heard(tracking.Trackers):
        def report(self, report: tracking.Report) -> None:
            assert report.file.read_text() == "<html></html>"
            told.append("report")

        def close(self, *, hurry: bool = False) -> None:
            told.append(f"close, hurry: {hurry}")

    def make(*given: Any) -> tracking.Tracker:
        told.append(f"made for {given[2]}, {given[3]['method']}")
        return Heard([])

    def train(config: Any, plan: Any, *others: Any) -> Any:
        assert isinstance(others[-1], Heard)
        told.append("trained")
        if ended:
            signals.received = signal.SIGTERM
            raise Ended(signal.SIGTERM)
        return plan

    def report(run_dir: Path) -> Path:
        (run_dir / "report.html").write_text("<html></html>")
        return run_dir / "report.html"

    monkeypatch.setattr(tracking, "make_tracker", make)
    monkeypatch.setattr(search.run, "train", train)
    monkeypatch.setattr(search.run, "hand_on", lambda *others: ({"some": "facts"}, False))
    monkeypatch.setattr(search.run, "compare", report)
    monkeypatch.setattr(search.run.console, "closing", lambda *others: None)
    small = ["data.synthetic={fields: 3, frames: 1, height: 96, width: 96}", "train.crop=64"]
    with pytest.raises(Ended) if ended else contextlib.nullcontext():
        assert search.run.run(load("demo", None, small), tmp_path / "run", signals) == errors.DONE
    end = ["close, hurry: True"] if ended else ["report", "close, hurry: False"]
    assert told == ["made for run, custom", "trained", *end]
