"""One trial without Ray, and the replay of a recorded one: the same numbers, and a changed one is seen."""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from data_io import errors, stream, synthetic
from data_io.convert import convert
from data_io.errors import BadInput
from search import single, tracking
from search.config import load
from search.lock import only_driver
from search.metrics import COLUMNS, read_metrics, write_metrics
from search.prepare import settled_config
from search.run import main
from search.signals import Ended
from search.single import first_difference, replay
from search.single_settings import overrides

if TYPE_CHECKING:
    from pathlib import Path

TRIAL = "two_class-unet-resnet18-dice"
SMALL = [
    "train.max_epochs=2",
    "train.crops_per_epoch=8",
    "train.validation_crops=4",
    "train.crop=96",
    "data.synthetic={fields: 3, frames: 2, height: 192, width: 192}",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a trial trained from the command line."""
    run = tmp_path_factory.mktemp("single") / "run"
    cell = ["target=two_class", "architecture=unet", "encoder=resnet18", "loss=dice", "seed=5"]
    assert main(["--one-trial", "--out", str(run), *cell, *SMALL]) == errors.DONE
    return run / "trials" / TRIAL


def test_one_trial_leaves_what_a_trial_of_a_search_leaves(trained: Path) -> None:
    assert [row["epoch"] for row in read_metrics(trained / "metrics.csv")] == [1, 2]
    assert list((trained / "checkpoints").glob("epoch_*/manifest.json"))
    assert (trained / "examples.npz").is_file()


def test_a_replay_gives_every_metric_bit_by_bit(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(trained) == errors.DONE
    assert "2 epochs, every metric equal" in capsys.readouterr().out


def test_a_replay_streams_its_frames_as_the_trial_did_whatever_memory_is_free_now(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int | None] = []
    opened = stream.open_frames

    def watched(datasets: Any, refs: Any, folder: Any, budget: int | None = None) -> Any:
        given.append(budget)
        return opened(datasets, refs, folder, budget)

    monkeypatch.setattr(stream, "open_frames", watched)
    monkeypatch.setattr(stream, "free_bytes", lambda: 0)
    assert replay(trained) == errors.DONE
    assert given == [json.loads((trained.parent.parent / "memory.json").read_text())["bytes_for_decoded_frames"]]
    assert given[0] > 0


def test_a_replay_names_the_first_value_that_differs(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_metrics(trained / "metrics.csv")
    forged = [rows[0], {**rows[1], "val_loss": rows[1]["val_loss"] + 1e-12}]
    try:
        write_metrics(trained / "metrics.csv", forged)
        assert main(["--replay", str(trained)]) == errors.PARTIAL
    finally:
        write_metrics(trained / "metrics.csv", rows)
    assert f"differs: epoch 2: val_loss {forged[1]['val_loss']!r}" in capsys.readouterr().out


def test_a_trial_of_one_run_goes_on_with_resume(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained.parent.parent
    before = read_metrics(trained / "metrics.csv")
    assert main(["--one-trial", "--resume", str(run)]) == errors.DONE
    assert read_metrics(trained / "metrics.csv") == before


def test_a_folder_is_for_one_trial_at_a_time(trained: Path) -> None:
    run = trained.parent.parent
    with only_driver(run), pytest.raises(BadInput, match=r"locked by .*; wait for it or end it"):
        main(["--one-trial", "--resume", str(run)])
    with pytest.raises(BadInput, match="seed"):  # nor for two, one after the other
        main(["--one-trial", "--resume", str(run), "seed=6"])


def test_a_trial_that_is_asked_to_end_waits_for_nobody(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[dict[str, bool]] = []

    def asked(*others: Any, **more: Any) -> None:
        raise Ended(signal.SIGTERM)

    monkeypatch.setattr(single, "_train", asked)
    monkeypatch.setattr(tracking.Trackers, "close", lambda self, **how: closed.append(how))
    command = ["--one-trial", "--resume", str(trained.parent.parent), "--wandb", "disabled"]
    assert main(command) == errors.PREEMPTED
    assert closed == [{"hurry": True}]


def test_a_trial_trained_by_several_processes_or_with_a_fold_that_is_gone_is_not_replayed(
    trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.parent.parent, run)
    file = run / "trials" / TRIAL / "config.yaml"
    text = file.read_text()
    file.write_text(text.replace("processes: 1", "processes: 2"))
    with pytest.raises(BadInput, match="2 processes"):
        replay(file.parent)
    file.write_text(text.replace("fold: null", "fold: 1"))
    with pytest.raises(BadInput, match="no folds"):
        replay(file.parent)


def test_a_trial_whose_loss_is_no_number_is_told_and_ends_with_its_own_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = ["target=two_class", "architecture=unet", "encoder=resnet18", "loss=dice", "learning_rate=1e30"]
    loose = ["train.gradient_clip=null"]
    assert main(["--one-trial", "--out", str(tmp_path / "run"), *cell, *loose, *SMALL]) == errors.NO_TRIAL
    assert "DIVERGED two_class-unet-resnet18-dice" in capsys.readouterr().out


def test_determinism_by_switch_trains_and_repeats(tmp_path: Path) -> None:
    run = tmp_path / "run"
    cell = ["target=three_class", "architecture=fpn", "encoder=resnet18", "loss=boundary_ce_dice"]
    try:
        assert main(["--one-trial", "--out", str(run), *cell, *SMALL, "train.deterministic=true"]) == errors.DONE
        assert torch.are_deterministic_algorithms_enabled()
        assert replay(run / "trials" / "three_class-fpn-resnet18-boundary_ce_dice") == errors.DONE
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_a_refused_trial_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="trials; name one"):
        main(["--one-trial", "--out", str(tmp_path / "run"), *SMALL])
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="cannot be made a folder"):
        main(["--out", str(tmp_path / "file"), *SMALL])


def test_what_a_kill_left_half_written_is_in_nobodys_way(tmp_path: Path) -> None:
    config = load("demo", None, [])
    (tmp_path / ".dataset.zarr.host.1.partial").mkdir()
    (tmp_path / ".config.yaml.1.tmp").touch()
    assert settled_config(config, tmp_path) == config
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(BadInput, match="no run"):
        settled_config(config, tmp_path)


def test_folds_a_finished_data_set_lacks_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "raw", fields=3, frames=2, size=(96, 96), preset="easy", seed=1)
    store = convert(tmp_path / "raw", tmp_path / "dataset.zarr").path
    with pytest.raises(BadInput, match="holds no folds, but 3 are asked for"):
        main(["--data", str(store), "--folds", "3", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_times_and_memory_are_no_difference() -> None:
    row = dict.fromkeys(COLUMNS, 0.5) | {"epoch": 1}
    assert first_difference([{**row, "seconds": 1.0}], [{**row, "seconds": 9.0, "memory_mb": 7.0}]) is None
    assert first_difference([row], [{**row, "val_loss": 0.6}]) == "epoch 1: val_loss 0.5, now 0.6"


def test_a_folder_that_is_no_trial_cannot_be_replayed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no trained trial"):
        replay(tmp_path)


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\x00", b"epoch,train_loss\n1,0.5\n2", b"train_loss\n0.5\n", b"epoch\n1,2\n"]
)
def test_a_damaged_table_of_metrics_is_one_line(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(damage)
    (tmp_path / "config.yaml").write_text("id: a\n")
    with pytest.raises(BadInput, match=r"metrics\.csv: damaged \([^\n]+\); restore it"):
        replay(tmp_path)


def test_a_configuration_that_is_no_text_is_one_line(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / TRIAL)
    (folder / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"config\.yaml: not UTF-8 text; restore"):
        replay(folder)


def test_short_names_make_a_search_of_one_trial() -> None:
    given = ["architecture=fpn", "encoder=resnet18", "target=star", "loss=stardist", "learning_rate=0.01", "seed=3"]
    space = load(None, None, overrides(given)).space
    assert (space.architectures, space.encoders, space.targets) == (("fpn",), ("resnet18",), ("star",))
    assert (space.losses["star"], space.learning_rate, space.seeds) == (("stardist",), (0.01,), (3,))


def test_stardists_own_network_is_named_like_an_architecture() -> None:
    space = load(None, None, overrides(["architecture=stardist_unet", "target=star", "loss=stardist"])).space
    assert space.stardist_unet
    assert space.architectures == ()


def test_a_loss_needs_its_target() -> None:
    with pytest.raises(BadInput, match="add target="):
        overrides(["loss=dice"])
