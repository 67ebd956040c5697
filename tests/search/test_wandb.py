"""What goes to W&B over the wire, against a server of our own that speaks its protocol: sweep, runs, report, agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import wandb
from skimage.io import imread

from data_io.errors import BadInput
from search import examples, tracking, wandb_sync, wandb_writer
from search.config import TrackingConfig, load
from search.metrics import COLUMNS, write_metrics
from search.space import plan
from search.sweep import COMMAND, VARIED, SearchOnWandb, description
from search.tracking import Report, make_tracker, send_report
from tests.faults import planted
from tests.search.wandb_stub import WandbStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
ONLINE = TrackingConfig(wandb="online")
SWEEP = {"method": "custom", "name": "experiment", "parameters": {"loss": {"values": ["dice", "bce"]}}}
SMALL = [
    "train.max_epochs=2",
    "train.crops_per_epoch=8",
    "train.validation_crops=4",
    "train.crop=96",
    "data.synthetic={fields: 3, frames: 2, height: 192, width: 192}",
]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbStub]:
    with WandbStub() as server:
        use(server, tmp_path, monkeypatch)
        yield server


def use(server: WandbStub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))


def track(run_dir: Path, trials: str = "ab", epochs: int = 3, mode: TrackingConfig = ONLINE) -> None:
    tracker = make_tracker(mode, run_dir, "experiment", SWEEP)
    for trial in trials:
        tracker.start_trial(trial, {"loss": "dice", "token": "hunter2"})
        for epoch in range(1, epochs + 1):
            tracker.epoch(trial, {"epoch": epoch, "val_dataset_iou": epoch / 10, "memory_mb": 5.0})
        tracker.finish_trial(trial, {"status": "completed"})
    tracker.close()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == tracking.__name__]


def by_name(server: WandbStub) -> dict[str, dict[str, Any]]:
    return {facts["displayName"]: facts for facts in server.runs().values()}


def epochs(server: WandbStub, name: str) -> list[int]:
    return [row["epoch"] for row in server.rows(by_name(server)[name]["name"])]


def test_a_search_is_one_sweep_and_every_epoch_one_row(
    stub: WandbStub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, secret in planted.ENVIRONMENT.items():
        monkeypatch.setenv(name, secret)
    track(tmp_path / "run")
    assert len(stub.sweeps) == 1
    assert "method: custom" in stub.sweeps[0]["config"]
    runs = by_name(stub)
    assert set(runs) == {"a", "b"}
    assert {(run["sweep"], run["groupName"], run["jobType"]) for run in runs.values()} == {
        ("sweep1", "experiment", "trial")
    }
    for trial in "ab":
        assert epochs(stub, trial) == [1, 2, 3]
        assert stub.config(runs[trial]["name"]) == {"loss": "dice"}
    kinds = {file for bodies in stub.streams.values() for body in bodies for file in body.get("files", {})}
    assert "wandb-events.jsonl" in kinds  # the figures of the machine
    assert not messages(caplog)
    assert planted.found_in(tmp_path) == []  # the key served to log in and is nowhere
    sent = repr((stub.runs(), stub.sweeps, stub.streams))
    assert not [name for name, secret in planted.SECRETS.items() if secret in sent]


def test_a_resumed_search_stays_in_its_sweep_and_repeats_no_row(stub: WandbStub, tmp_path: Path) -> None:
    track(tmp_path / "run", trials="a", epochs=3)
    track(tmp_path / "run", trials="ac", epochs=5)
    assert len(stub.sweeps) == 1
    assert {run["sweep"] for run in stub.runs().values()} == {"sweep1"}
    assert epochs(stub, "a") == epochs(stub, "c") == [1, 2, 3, 4, 5]


def test_two_searches_in_one_project_share_no_run(stub: WandbStub, tmp_path: Path) -> None:
    track(tmp_path / "one" / "run", trials="a")
    track(tmp_path / "two" / "run", trials="a")
    assert len(stub.runs()) == 2
    assert len(stub.sweeps) == 2


def test_without_sweeps_the_runs_are_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with WandbStub(refuses=("UpsertSweep",)) as server:
        use(server, tmp_path, monkeypatch)
        track(tmp_path / "run", trials="a")
        run = by_name(server)["a"]
        assert (run.get("sweep"), run["groupName"]) == (None, "experiment")
        assert epochs(server, "a") == [1, 2, 3]
    assert len(messages(caplog)) == 1
    assert "no sweep" in messages(caplog)[0]


def test_a_sweep_that_the_server_forgot_leaves_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run" / "wandb"
    folder.mkdir(parents=True)
    SearchOnWandb(folder, "cellsearch", "experiment", sweep="deleted").save()
    with WandbStub(knows_sweeps=True) as server:
        use(server, tmp_path, monkeypatch)
        track(tmp_path / "run", trials="a")
        assert by_name(server)["a"].get("sweep") is None
        assert epochs(server, "a") == [1, 2, 3]
    assert len(messages(caplog)) == 1
    assert "sweep deleted is refused" in messages(caplog)[0]


def test_an_offline_search_is_sent_as_a_sweep_afterwards(stub: WandbStub, tmp_path: Path) -> None:
    run = tmp_path / "run"
    track(run, mode=TrackingConfig(wandb="offline"))
    assert not stub.operations  # offline nothing is asked or said
    assert "2 run files sent, 0 had been sent before" in sync(run)
    assert epochs(stub, "a") == epochs(stub, "b") == [1, 2, 3]
    assert len(stub.sweeps) == 1
    joined = json.loads(stub.sweeps[0]["priorRunsFilters"])["$or"]
    assert {entry["name"] for entry in joined} == set(stub.runs())

    assert "0 run files sent, 2 had been sent before" in sync(run)
    assert len(stub.sweeps) == 1


IMPATIENT = """
import sys
from search import wandb_writer
wandb_writer.SEND_SECONDS = wandb_writer.LAST_SECONDS = 2.0
wandb_writer.main(sys.argv[1:])
"""


def sync(run: Path) -> str:
    command = [sys.executable, "-m", "search.wandb_sync", str(run)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def table(run: Path, trial: str, epochs: int) -> None:
    (run / "trials" / trial).mkdir(parents=True)
    rows = [dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch} for epoch in range(1, epochs + 1)]
    write_metrics(run / "trials" / trial / "metrics.csv", rows)


def wait_until(question: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_server_that_falls_silent_delays_the_end_by_little_and_gets_all_of_it_later(
    stub: WandbStub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "WRITER", ("-c", IMPATIENT))
    run = tmp_path / "run"
    tracker = make_tracker(ONLINE, run, "experiment", SWEEP)
    pd.DataFrame({"trial": ["a"]}).to_parquet(run / "trials.parquet")
    (run / "report.html").write_text("<html>verdict</html>")
    tracker.start_trial("a", {"loss": "dice"})
    tracker.epoch("a", {"epoch": 1})
    wait_until(lambda: "a" in by_name(stub))
    stub.silent = True
    for epoch in (2, 3):
        tracker.epoch("a", {"epoch": epoch})
    tracker.finish_trial("a", {})
    tracker.start_trial("b", {"loss": "bce"})
    tracker.epoch("b", {"epoch": 1})
    tracker.report(Report(run / "report.html", run / "trials.parquet"))
    began = time.monotonic()
    tracker.close()
    assert time.monotonic() - began < tracking.CLOSE_SECONDS
    assert len(messages(caplog)) == 1
    assert "written offline from here on" in messages(caplog)[0]
    assert f"python -m search.wandb_sync {run}" in messages(caplog)[0]

    stub.silent = False
    table(run, "a", 3)
    assert "a: 3 epochs were taken from" in (told := sync(run))  # the server may have some of them
    assert "3 run files sent" in told
    assert set(epochs(stub, "a")) == {1, 2, 3}
    assert epochs(stub, "b") == [1]
    assert stub.uploads["artifact/report.html"] == b"<html>verdict</html>"


def test_what_a_killed_service_lost_is_taken_from_the_trials_own_table(stub: WandbStub, tmp_path: Path) -> None:
    run, mode = tmp_path / "run", TrackingConfig(wandb="offline")
    tracker = make_tracker(mode, run, "experiment", SWEEP)
    assert isinstance(tracker, tracking.Trackers)
    writer = tracker.trackers[-1]
    assert isinstance(writer, tracking.ProcessTracker)
    assert writer._process is not None
    tracker.start_trial("a", {"loss": "dice"})
    tracker.epoch("a", {"epoch": 1})
    wait_until(lambda: list(run.glob("wandb/offline-run-*/run-a-*.wandb")))
    for pid in (*tracking._children(writer._process.pid), writer._process.pid):
        os.kill(pid, signal.SIGKILL)
    tracker.close()
    table(run, "a", 4)
    (run / "trials" / "a" / "config.yaml").write_text("loss: dice\ntoken: hunter2\n")
    assert "4 epochs were taken from" in sync(run)
    assert epochs(stub, "a") == [1, 2, 3, 4]
    assert stub.config(by_name(stub)["a"]["name"]) == {"loss": "dice"}
    assert "taken from" not in sync(run)


def test_a_server_out_of_reach_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_sync, "_cut_short", lambda folders: [])
    (tmp_path / "wandb" / "offline-run-1-a").mkdir(parents=True)
    SearchOnWandb(tmp_path / "wandb", "cellsearch", "experiment").save()
    try:
        assert wandb_sync.main([str(tmp_path)]) == wandb_sync.UNREACHABLE
    finally:
        wandb.teardown()  # it would keep the address for the tests that follow
    assert "error: the W&B server http://127.0.0.1:9 does not answer (" in capsys.readouterr().err


def test_a_search_that_is_being_written_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_sync, "WAIT_SECONDS", 0.0)
    folder = tmp_path / "wandb"
    folder.mkdir()
    SearchOnWandb(folder, "cellsearch", "experiment").save()
    with wandb_writer.held(folder), pytest.raises(BadInput, match="a search still writes to it; wait"):
        wandb_sync.main([str(tmp_path)])


def test_a_line_that_a_kill_cut_short_loses_no_row(tmp_path: Path) -> None:
    told = [{"do": "epoch", "trial": "a", "step": n, "values": {"epoch": n}} for n in (1, 2)]
    lines = "".join(json.dumps(line) + "\n" for line in told) + '{"do": "epoch", "tri'
    (tmp_path / "wandb").mkdir()
    command = [sys.executable, "-m", "search.wandb_writer", "offline", "cellsearch", "experiment"]
    subprocess.run([*command, str(tmp_path / "wandb")], cwd=ROOT, input=lines, text=True, check=True)
    search = SearchOnWandb.of(tmp_path / "wandb", "cellsearch", "experiment")
    assert search.finished == {"a": 2}
    assert wandb_writer.logged_epochs(search.folder, search.run_id("a")) == {1, 2}


@pytest.mark.parametrize("what", ["nothing", "file"])
def test_what_is_no_search_cannot_be_sent(tmp_path: Path, what: str) -> None:
    (tmp_path / "wandb").mkdir()
    if what == "file":
        (tmp_path / "wandb" / "run.txt").write_text("")
    result = subprocess.run(
        [sys.executable, "-m", "search.wandb_sync", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "no W&B runs" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_report_is_an_artifact_and_is_sent_once(stub: WandbStub, tmp_path: Path) -> None:
    pd.DataFrame({"trial": ["a"], "test_pq": [0.5]}).to_parquet(tmp_path / "trials.parquet")
    (tmp_path / "report.html").write_text("<html>verdict</html>")
    from matplotlib.image import imsave

    imsave(tmp_path / "star.png", np.zeros((8, 8, 3), np.uint8))
    for _ in range(2):
        tracker = make_tracker(ONLINE, tmp_path / "run", "experiment")
        pictures = [("star: orange annotated", tmp_path / "star.png")]
        tracker.report(Report(tmp_path / "report.html", tmp_path / "trials.parquet", pictures))
        tracker.close()
    assert [artifact["artifactTypeName"] for artifact in stub.artifacts].count("report") == 1
    assert stub.uploads["artifact/report.html"] == b"<html>verdict</html>"
    shown = [row for rows in map(stub.rows, stub.runs()) for row in rows]
    assert [row["examples"]["captions"] for row in shown] == [["star: orange annotated"]]
    assert shown[0]["trials"]["_type"] == "table-file"
    assert any(name.startswith("media/images/examples") for name in stub.uploads)


class _NoData:
    def frames(self, _: str) -> list[Any]:
        return []


def sent_report(mode: TrackingConfig, run: Path, report: Path) -> None:
    tracker = make_tracker(mode, run, "experiment")
    send_report(tracker, mode, run, _NoData(), report)  # type: ignore[arg-type]
    tracker.close()


def test_pictures_of_the_data_stay_here_unless_allowed(stub: WandbStub, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "best" / "star").mkdir(parents=True)
    pd.DataFrame({"trial": ["a"]}).to_parquet(run / "trials.parquet")
    report = run / "report.html"
    report.write_text(
        '<img src="data:image/png;base64,UEFUSUVOVA==" alt="cells"><img src="data:image/svg+xml;base64,QQ==">'
    )
    sent_report(ONLINE, run, report)
    sent = stub.uploads["artifact/report.html"].decode()
    assert "UEFUSUVOVA" not in sent
    assert 'alt="cells"' in sent
    assert "data:image/svg+xml;base64,QQ==" in sent
    assert not any(b"UEFUSUVOVA" in body for body in stub.uploads.values())
    assert not any(name.startswith("media/images") for name in stub.uploads)

    sent_report(TrackingConfig(wandb="online", images=True), run, report)
    assert "UEFUSUVOVA" in stub.uploads["artifact/report.html"].decode()


def test_a_picture_shows_both_outlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    ref = namedtuple("Ref", "field frame")("A1", 0)
    truth, found = np.zeros((64, 64), np.int32), np.zeros((64, 64), np.int32)
    truth[10:30, 10:30], found[12:40, 12:40] = 1, 1

    class Data(_NoData):
        def frames(self, _: str) -> list[Any]:
            return [ref]

        def labels(self, _: Any) -> Any:
            return truth

        def image(self, _: Any) -> Any:
            return np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)

    monkeypatch.setattr(examples, "read_labels", lambda *_: found)
    ((caption, file),) = examples.draw(tmp_path, Data(), ["star"], tmp_path / "shown")  # type: ignore[arg-type]
    colours = {tuple(pixel) for pixel in imread(file)[..., :3].reshape(-1, 3)}
    assert (0xE6, 0x9F, 0x00) in colours
    assert (0x00, 0x72, 0xB2) in colours
    assert caption == "star: field A1, frame 0; orange annotated, blue predicted"
    assert examples.draw(tmp_path, _NoData(), ["star"], tmp_path / "none") == []  # type: ignore[arg-type]


def test_the_sweep_has_an_axis_for_everything_that_varies() -> None:
    config = load("demo", None, ["space.learning_rate=[0.001, 0.0001]", "train.crop=128", "train.batch_size=4"])
    said = description("mine", plan(config).trials)
    assert list(said["parameters"]) == list(VARIED)
    assert said["parameters"]["learning_rate"] == {"values": [0.0001, 0.001]}
    assert set(said["parameters"]["target"]["values"]) == {"two_class", "three_class", "star"}
    ranged = description("mine", plan(config).trials, continuous=True)
    assert ranged["parameters"]["learning_rate"] == {"min": 0.0001, "max": 0.001}


def test_an_agent_runs_a_trial_as_its_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"target": "two_class", "architecture": "unet", "encoder": "resnet18", "loss": "dice"}
    told = {"type": "run", "program": "search.run", "run_id": "agents1"}
    told["args"] = {name: {"value": value} for name, value in arguments.items()}  # type: ignore[assignment]
    command = [sys.executable if part == "python" else part for part in COMMAND]
    command[-1:-1] = ["--out", str(tmp_path / "run"), *SMALL]
    with WandbStub(commands=[[told]], command=command) as server:
        use(server, tmp_path, monkeypatch)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        agent = [sys.executable, "-m", "wandb", "agent", "--count", "1", "lab/cellsearch/sweep1"]
        result = subprocess.run(agent, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, result.stderr[-2000:]
        assert [row["epoch"] for row in server.rows("agents1")] == [1, 2]
        run = server.runs()["agents1"]
        assert run["sweep"] == "sweep1"
        config = server.config("agents1")
        assert arguments.items() <= config.items()
    assert not server.sweeps  # the agent's sweep is the only one
