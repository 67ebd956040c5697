"""TensorBoard's event files: every epoch once, also after a kill; a fault costs the events only."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from tensorboardX.proto import event_pb2

from search.metrics import COLUMNS, write_metrics
from search.tensorboard import FOLDER, TensorBoard
from search.tracking import make_tracker

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

from search.config import TrackingConfig


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Read (name, step, value) from the event files as TensorFlow's record format lays them out."""
    found = []
    for file in sorted(folder.glob("events*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value if v.HasField("simple_value")]
            at += 16 + length
    return found


def row(epoch: int, value: float) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch, "rung_metric": value}


def steps(folder: Path) -> list[int]:
    return [step for name, step, _ in scalars(folder) if name == "rung_metric"]


def test_every_epoch_stands_once_also_after_a_kill_that_lost_one(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path)
    first.start_trial("t", {"target": "star", "learning_rate": 0.01})
    first.epoch("t", row(1, 0.25))
    first.close()
    (tmp_path / "trials" / "t").mkdir(parents=True)
    write_metrics(tmp_path / "trials" / "t" / "metrics.csv", [row(1, 0.25), row(2, 0.5)])  # killed before epoch 2 came
    again = TensorBoard(tmp_path)
    again.start_trial("t", {"target": "star", "learning_rate": 0.01})
    again.epoch("t", row(2, 0.5))
    again.epoch("t", row(3, float("nan")))
    again.finish_trial("t", {"status": "diverged"})
    again.close()
    assert steps(tmp_path / FOLDER / "t") == [1, 2]
    assert ("best", 0.5) in [(name, value) for name, _, value in scalars(tmp_path / FOLDER / "t")]


def test_a_folder_that_cannot_be_written_is_said_once_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).write_text("a file in the way")
    board = TensorBoard(tmp_path)
    for number in range(3):
        board.start_trial(f"t{number}", {})
        board.epoch(f"t{number}", row(1, 0.5))
    board.close()
    assert len(caplog.records) == 1
    assert "the search goes on" in caplog.text


def test_a_search_without_wandb_still_leaves_its_events(tmp_path: Path) -> None:
    tracker = make_tracker(TrackingConfig(wandb="disabled"), tmp_path, "experiment")
    tracker.start_trial("t", {})
    tracker.epoch("t", row(1, 0.5))
    tracker.close()
    assert steps(tmp_path / FOLDER / "t") == [1]
