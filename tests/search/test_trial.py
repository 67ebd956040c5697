"""One trial on real crops: it learns, it leaves the files promised, and interrupted it gives the same numbers."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from data_io import synthetic
from data_io.convert import convert
from data_io.crops import FrameBank
from data_io.stream import FrameStream, frame_bytes, reopen
from search import checkpoints
from search.batches import CropBatches, loader
from search.config import load
from search.frames import Banks
from search.metrics import Row, read_metrics
from search.recorder import Diverged
from search.single import NOT_REPRODUCED
from search.trial import load_best, run_trial
from tests.search.trials import a_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data_io.store import Dataset
    from search.space import TrialConfig

SETTINGS = [
    "train.crop=64",
    "train.crops_per_epoch=8",
    "train.validation_crops=4",
    "train.precision=fp32",
    "train.encoder_depth=3",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("movie")
    synthetic.write(folder / "raw", fields=3, frames=2, size=(128, 128), preset="easy", seed=1)
    return convert(folder / "raw", folder / "dataset.zarr")


@pytest.fixture(scope="module")
def banks(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Banks:
    folder = tmp_path_factory.mktemp("banks")
    FrameBank.build(dataset, dataset.frames("train"), folder / "train")
    FrameBank.build(dataset, dataset.frames("val"), folder / "val")
    return Banks(folder / "train", folder / "val")


class Killed(RuntimeError):
    """Stands for the end of the process."""


def trial_of(target: str = "three_class", epochs: int = 4, **changes: Any) -> TrialConfig:
    losses = {"two_class": "bce_dice", "three_class": "ce_dice", "star": "stardist"}
    facts = {"target": target, "loss": losses[target], "epochs": epochs, "train": load("demo", None, SETTINGS).train}
    return a_trial(**(facts | changes))


def until(epoch: int) -> Callable[[Row], None]:
    """A report that ends the trial after `epoch`, as a kill would."""

    def report(row: Row) -> None:
        if row["epoch"] == epoch:
            raise Killed

    return report


def numbers(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in NOT_REPRODUCED} for row in read_metrics(folder / "metrics.csv")]


@pytest.mark.parametrize("target", ["two_class", "three_class", "star"])
def test_a_trial_reports_every_epoch_and_leaves_its_files(target: str, banks: Banks, tmp_path: Path) -> None:
    rows: list[Row] = []
    run_trial(trial_of(target, epochs=2), banks, tmp_path, rows.append)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["train_loss"]) for row in rows)
    files = {"augmentation.json", "config.yaml", "metrics.csv", "examples.npz", "checkpoints"}
    assert {p.name for p in tmp_path.iterdir()} == files
    with np.load(tmp_path / "examples.npz") as examples:
        assert examples["image"].shape == examples["truth"].shape == examples["foreground"].shape
        assert 0 <= examples["foreground"].min() <= examples["foreground"].max() <= 1
    assert numbers(tmp_path) == [{k: v for k, v in row.items() if k not in NOT_REPRODUCED} for row in rows]


def test_the_training_loss_falls(banks: Banks, tmp_path: Path) -> None:
    rows: list[Row] = []
    run_trial(trial_of("two_class", epochs=8), banks, tmp_path, rows.append)
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_trial_ends_with_the_numbers_and_weights_of_an_undisturbed_one(
    banks: Banks, tmp_path: Path, stop: int
) -> None:
    trial = trial_of()
    run_trial(trial, banks, tmp_path / "whole", lambda row: None)
    with pytest.raises(Killed):
        run_trial(trial, banks, tmp_path / "cut", until(stop))
    run_trial(trial, banks, tmp_path / "cut", lambda row: None)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    whole, cut = load_best(trial, tmp_path / "whole", 1), load_best(trial, tmp_path / "cut", 1)
    assert whole[1] == cut[1]
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, cut[0].state_dict()[name]), name


def test_a_damaged_checkpoint_is_not_used(banks: Banks, tmp_path: Path) -> None:
    trial = trial_of(epochs=3)
    with pytest.raises(Killed):
        run_trial(trial, banks, tmp_path, until(2))
    newest = checkpoints.newest(tmp_path / "checkpoints")
    assert newest is not None
    state = newest / checkpoints.STATE
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(bytes(data))
    assert checkpoints.newest(tmp_path / "checkpoints") != newest
    run_trial(trial, banks, tmp_path, lambda row: None)
    run_trial(trial, banks, tmp_path / "whole", lambda row: None)
    assert numbers(tmp_path) == numbers(tmp_path / "whole")


def test_a_finished_trial_is_not_trained_again(banks: Banks, tmp_path: Path) -> None:
    trial = trial_of(epochs=1)
    best = run_trial(trial, banks, tmp_path, lambda row: None)

    told: list[Row] = []
    again = run_trial(trial, banks, tmp_path, told.append)
    assert told == [again]
    assert numbers(tmp_path) == [{k: v for k, v in best.items() if k not in NOT_REPRODUCED}]


def test_an_epoch_killed_between_its_checkpoint_and_its_report_is_reported_on_resuming(
    banks: Banks, tmp_path: Path
) -> None:
    told: list[int] = []

    def report(row: Row) -> None:
        if row["epoch"] == 2 and 2 not in told:
            told.append(-2)
            if told.count(-2) == 1:
                raise Killed
        told.append(row["epoch"])

    changed = trial_of().train.model_copy(update={"checkpoint_every": 1})
    with pytest.raises(Killed):
        run_trial(trial_of(epochs=3, train=changed), banks, tmp_path, report)
    run_trial(trial_of(epochs=3, train=changed), banks, tmp_path, report)
    assert [epoch for epoch in told if epoch > 0] == [1, 2, 3]


def test_at_most_three_checkpoints_stay_on_disk(banks: Banks, tmp_path: Path) -> None:
    most = 0

    def watch(row: Row) -> None:
        nonlocal most
        most = max(most, len(list((tmp_path / "checkpoints").glob("epoch_*"))))

    changed = trial_of(epochs=6).train.model_copy(update={"checkpoint_every": 1})
    run_trial(trial_of(epochs=6, train=changed), banks, tmp_path, watch)
    assert most <= 3


def test_a_loss_that_is_no_number_ends_the_trial(banks: Banks, tmp_path: Path) -> None:
    rows: list[Row] = []
    with pytest.raises(Diverged, match="training loss is nan"):
        run_trial(
            trial_of(learning_rate=1e30, train=trial_of().train.model_copy(update={"gradient_clip": None})),
            banks,
            tmp_path,
            rows.append,
        )
    assert not np.isfinite(rows[-1]["train_loss"])


class Server(IterableDataset[Any]):
    """Whether the process that a loading worker was forked from has PyTorch's libraries in its memory."""

    def __iter__(self) -> Iterator[bool]:
        yield "libtorch" in Path(f"/proc/{os.getppid()}/maps").read_text()


def test_loading_workers_are_forked_from_a_process_that_has_imported_torch() -> None:
    assert list(loader(Server(), 1)) == [True]


def test_crops_come_in_the_same_order_from_memory_and_streams_for_any_number_of_loading_workers(
    dataset: Dataset, banks: Banks, tmp_path: Path
) -> None:
    refs = dataset.frames()
    FrameStream.build([dataset], [refs], tmp_path / "stream", 4 * frame_bytes(dataset, refs[0]))
    trial = trial_of()
    for folder in (banks.train, tmp_path / "stream"):
        orders = []
        for workers in (0, 1, 2):
            batches = loader(CropBatches(reopen(folder), trial, epoch=1), workers)
            orders.append([hashlib.sha256(images.numpy().tobytes()).hexdigest() for images, _, _ in batches])
        assert orders[0] == orders[1] == orders[2]
        assert len(set(orders[0])) == len(orders[0])


def test_a_streamed_trial_trains_and_records_its_augmentation(dataset: Dataset, banks: Banks, tmp_path: Path) -> None:
    refs = dataset.frames()
    FrameStream.build([dataset], [refs], tmp_path / "stream", 4 * frame_bytes(dataset, refs[0]))
    rows: list[Row] = []
    run_trial(trial_of(), Banks(tmp_path / "stream", banks.val), tmp_path / "t", rows.append)
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    recorded = json.loads((tmp_path / "t/augmentation.json").read_text())
    assert recorded["transformations"]["turn"] == {"orientations": 8}
