"""The choice on validation frames: frozen before a test frame is read, made once, and no seed wins by luck."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from data_io import synthetic
from data_io.convert import convert
from data_io.crops import FrameBank
from data_io.store import Dataset
from search import handover, select
from search.candidates import Candidate, pooled
from search.config import Config, load
from search.frames import Banks
from search.results import winner_of
from search.trial import run_trial
from tests.search.trials import a_trial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.space import TrialConfig

CONFIG: Config = load(
    "demo",
    None,
    [
        "train.crop=64",
        "train.batch_size=4",
        "train.crops_per_epoch=16",
        "train.validation_crops=4",
        "train.precision=fp32",
        "train.channels_last=true",
        "train.encoder_depth=3",
    ],
)


def trial_of(name: str, target: str, seed: int, **changes: Any) -> TrialConfig:
    facts = {"id": name, "target": target, "seed": seed, "loss": "stardist" if target == "star" else "bce_dice"}
    return a_trial(CONFIG.train, **(facts | {"augmentation": 0.0} | changes))


TRIALS = [
    trial_of("star-0", "star", 0),
    trial_of("star-1", "star", 1),
    trial_of("foreground", "two_class", 0),
    trial_of("damaged", "two_class", 1, learning_rate=0.001),
]


CHOSEN = dict.fromkeys(TRIALS, 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A run with four trained trials, the checkpoint of one of them damaged, and its data set."""
    folder = tmp_path_factory.mktemp("run")
    synthetic.write(folder / "raw", fields=3, frames=2, size=(96, 128), preset="easy", seed=1)
    dataset = convert(folder / "raw", folder / "dataset.zarr")
    FrameBank.build(dataset, dataset.frames("train"), folder / "train")
    FrameBank.build(dataset, dataset.frames("val"), folder / "val")
    for trial in TRIALS:
        run_trial(trial, Banks(folder / "train", folder / "val"), folder / "trials" / trial.id, lambda row: None)
    for file in (folder / "trials" / "damaged" / "checkpoints").glob("epoch_*/*"):
        if file.name != "manifest.json":
            file.write_bytes(b"damaged")
    return folder, dataset


def test_the_choice_is_frozen_before_a_test_frame_is_read_and_made_once(
    run: tuple[Path, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, dataset = run
    read: list[tuple[Any, bool]] = []
    labels = Dataset.labels

    def watched(self: Dataset, ref: Any) -> Any:
        read.append((ref, (folder / "best" / "selection.json").is_file()))
        return labels(self, ref)

    monkeypatch.setattr(Dataset, "labels", watched)
    said: list[str] = []
    selection = select.choose(CONFIG, CHOSEN, dataset, folder, said.append)
    test = set(dataset.frames("test"))
    assert test
    assert {frozen for ref, frozen in read if ref in test} == {True}
    assert [frozen for ref, frozen in read if ref not in test].count(True) == 0
    assert set(selection.test) == {"star-0", "star-1", "foreground"}

    read.clear()
    assert select.choose(CONFIG, CHOSEN, dataset, folder, said.append) == selection
    assert not read

    assert set(selection.left_out) == {"damaged"}
    assert any("damaged: left out" in line for line in said)

    values = json.loads((folder / "best" / "star" / "model.json").read_text())["validation"]
    [row] = selection.standings["star"]["candidates"]
    assert set(row["seeds"]) == {"star-0", "star-1"} == set(values)
    assert row["value"] == pytest.approx(np.mean(list(values.values())))
    assert row["sd"] == pytest.approx(np.std(list(values.values()), ddof=1))
    assert row["trial"] == max(values, key=lambda name: values[name])
    assert "means over seeds" in selection.standings["star"]["sentence"]
    for name, value in values.items():
        assert selection.candidates[name]["value"] == value
        assert selection.candidates[name]["mean"] == row["value"]
        assert selection.candidates[name]["configuration"] == row["trial"]
    assert "mean" not in selection.candidates["foreground"]
    assert selection.across is not None
    assert {row["trial"] for row in selection.across["candidates"]} == {"star", "two_class"}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def change_a_digit(file: Path) -> None:
    file.write_text(file.read_text().replace("0.", "1.", 1))


def put_a_list(file: Path) -> None:
    file.write_text("[]")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("selection.json", change_a_digit),
        ("test_scores.json", put_a_list),
        ("two_class/model.json", change_a_digit),
        ("two_class/model.safetensors", cut),
    ],
)
def test_a_choice_that_was_damaged_is_made_again_and_is_the_same(
    name: str, damage: Callable[[Path], None], run: tuple[Path, Dataset]
) -> None:
    folder, dataset = run
    said: list[str] = []
    chosen = {trial: epochs for trial, epochs in CHOSEN.items() if trial.target == "two_class"}
    before = select.choose(CONFIG, chosen, dataset, folder, said.append)
    damage(folder / "best" / name)
    said.clear()
    after = select.choose(CONFIG, chosen, dataset, folder, said.append)
    assert name == "test_scores.json" or any(name in line and "is made again" in line for line in said)
    assert _without_speed(after) == _without_speed(before)
    handover.check(folder / "best" / "two_class")
    said.clear()
    assert select.choose(CONFIG, chosen, dataset, folder, said.append) == after
    assert not said


def _without_speed(selection: select.Selection) -> Any:
    facts = {
        target: {k: v for k, v in found.items() if k not in ("check", "provenance")}
        for target, found in selection.models.items()
    }
    candidates = {name: {**found, "speed": None} for name, found in selection.candidates.items()}
    return facts, candidates, selection.standings, selection.test, selection.left_out


def test_a_trial_that_was_trained_for_longer_is_another_question(run: tuple[Path, Dataset]) -> None:
    folder, dataset = run
    said: list[str] = []
    select.choose(CONFIG, CHOSEN, dataset, folder, said.append)
    assert select.made_before(CONFIG, CHOSEN, dataset, folder, said.append) is not None
    assert select.made_before(CONFIG, {**CHOSEN, TRIALS[0]: 3}, dataset, folder, said.append) is None


def test_a_steady_configuration_wins_over_one_with_a_lucky_seed() -> None:
    def candidate(name: str, seed: int, rate: float, value: float) -> Candidate:
        trial = trial_of(name, "star", seed, learning_rate=rate)
        return Candidate(trial, 1, 10, SimpleNamespace(params=None), value)  # type: ignore[arg-type]

    lucky = [candidate("a0", 0, 0.1, 0.9), candidate("a1", 1, 0.1, 0.3)]
    steady = [candidate("b0", 0, 0.2, 0.7), candidate("b1", 1, 0.2, 0.72)]
    merged = pooled([*lucky, *steady], [])
    assert [(one.trial.id, one.value) for one in merged] == [("a0", pytest.approx(0.6)), ("b1", pytest.approx(0.71))]


def test_those_the_budget_cut_short_may_win_and_those_stopped_may_not(tmp_path: Path) -> None:
    for trial in TRIALS:
        (tmp_path / trial.id / "checkpoints" / "epoch_0001").mkdir(parents=True)
        (tmp_path / trial.id / "checkpoints" / "epoch_0001" / "manifest.json").write_text("{}")
    status = {"star-0": "completed", "star-1": "budget", "foreground": "stopped", "damaged": "failed"}
    rows = {"star-0": {1: {}, 2: {}}, "star-1": {1: {}}}
    states: dict[str, Any] = {name: SimpleNamespace(status=s, rows=rows.get(name, {})) for name, s in status.items()}
    found = select.eligible(TRIALS, states, lambda name: tmp_path / name)
    assert {trial.id: epochs for trial, epochs in found.items()} == {"star-0": 2, "star-1": 1}


def test_a_completed_trial_that_lost_its_checkpoints_is_not_dropped_without_a_word(tmp_path: Path) -> None:
    states: dict[str, Any] = {name: SimpleNamespace(status="completed", rows={1: {}}) for name in ("star-0", "star-1")}
    states["star-1"].status = "budget"
    found = select.eligible(TRIALS, states, lambda name: tmp_path / name)
    assert [trial.id for trial in found] == ["star-0"]


def test_the_sentence_of_the_winner_says_whether_targets_tie() -> None:
    setting = {"configuration": {"architecture": "unet", "encoder": "resnet18"}}
    targets = {"star": {**setting, "objective": 0.8}, "two_class": {**setting, "objective": 0.7}}

    def across(*ties: str) -> dict[str, Any]:
        return {"top": [{"trial": name} for name in ties]}

    tie = winner_of(targets, "pq", 6, None, across("star", "two_class"))
    assert tie["target"] == "star"
    assert tie["ties"] == ["two_class"]
    assert "this is a tie" in tie["sentence"]
    clear = winner_of(targets, "pq", 6, None, across("star"))
    assert clear["ties"] == []
    assert "excludes 0" in clear["sentence"]
    assert "choice by point estimate" in winner_of(targets, "pq", 3, None, {"top": []})["sentence"]
