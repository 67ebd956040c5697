"""Leaderboard, Table 1 with its heat map, and what is said about pretraining, from tables made by hand."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.compare import analyse
from analysis.early_stopping import early_stopping_chapter
from analysis.figures import heat_map
from analysis.record import Record, read_record
from analysis.report import Cell, Gallery, Page, Section, Table, render
from analysis.samples import from_run
from analysis.search_chapters import (
    ONE_VALIDATION_FIELD,
    SCORED_ONCE,
    completed_cells,
    duration,
    history_chapter,
    leaderboard_chapter,
    table_1_chapter,
)
from analysis.verdict import warnings


def trial(name: str, architecture: str, encoder: str | None, **facts: Any) -> dict[str, Any]:
    """Return a row of trials.parquet."""
    usual = {
        "target": "two_class", "loss": "dice", "reference": False, "status": "completed", "epochs": 10,
        "val_dataset_iou": 0.8, "train_loss": 0.0421, "val_loss": 0.1, "seconds": 125.0, "gpus": 0.25,
        "gpu_hours": 125 * 0.25 / 3600, "peak_memory_mb": 3120.0, "megapixels_per_second": 41.5,
        "parameters": 14_320_000, "crop": 224, "validation": 0.7, "validation_low": 0.66, "validation_high": 0.74,
        "top_set": False, "test_dataset_iou": 0.85, "test_pq": 0.7, "reason": "",
    }  # fmt: skip
    return {"trial": name, "architecture": architecture, "encoder": encoder} | usual | facts


TRIALS = pd.DataFrame(
    [
        trial("a", "unet", "resnet18", validation=0.71, top_set=True, test_dataset_iou=0.861),
        trial("a2", "unet", "resnet18", loss="tversky", validation=0.70, test_dataset_iou=0.899),
        trial("b", "pan", "resnet18", validation=0.72, top_set=True, crop=256, test_dataset_iou=0.872, gpus=1.0),
        trial("c", "unet", "vgg19", validation=0.60, test_dataset_iou=0.811, seconds=3725.0),
        trial("d", "pan", "vgg19", status="stopped", validation=np.nan, test_dataset_iou=np.nan),
        trial("s", "config2d", None, target="star", validation=0.5, test_dataset_iou=0.77, gpus=0.0),
    ]
)
SELECTION = {"two_class": {"objective": "pq", "chosen": "b", "sentence": "b and a cannot be told apart."}}


def record(trials: pd.DataFrame = TRIALS) -> Record:
    """Return a run with these trials and no curves."""
    return Record(Path("nowhere"), {}, {"selection": SELECTION, "search": {"objective": "pq"}}, trials)


def texts(table: Table | Gallery) -> list[list[str]]:
    """Return the rows of a table as text."""
    assert isinstance(table, Table)
    return [[cell.text if isinstance(cell, Cell) else cell for cell in row] for row in table.rows]


def chapter(section: Section | None) -> Section:
    """Return a section that must be there."""
    assert section is not None
    return section


def table_1(section: Section | None) -> list[list[str]]:
    """Return the rows of Table 1."""
    return next(texts(block) for block in chapter(section).blocks if isinstance(block, Table))


def test_table_1_shows_the_trial_that_was_best_on_validation_not_the_best_on_test() -> None:
    cells = completed_cells(TRIALS).set_index(["target", "architecture", "encoder"])["trial"]
    assert cells["two_class", "unet", "resnet18"] == "a"
    heat = chapter(table_1_chapter(record())).blocks[0]
    assert isinstance(heat, Gallery)
    assert len(heat.pictures) == 1, "a heat map of a single cell says nothing"
    assert heat.pictures[0].data.splitlines() == [
        "row,column,test dataset IoU",
        "unet,resnet18,0.861",
        "unet,vgg19,0.811",
        "pan,resnet18,0.872",
        "pan,vgg19,",
    ]


def test_table_1_gives_parameters_loss_and_training_time_with_the_gpu_share() -> None:
    rows = table_1(table_1_chapter(record()))
    assert rows[0] == [
        "two_class", "unet / resnet18 / dice", "14.3", "0.861", "0.700", "0.0421", "10", "2:05", "0.25", "0.009",
    ]  # fmt: skip
    assert rows[1][1] == "pan / resnet18 / dice (256 px)"
    assert rows[2][7] == "1:02:05"
    assert rows[3][-2] == "CPU"


def test_table_1_and_its_heat_map_give_the_interval_where_there_is_one() -> None:
    known = TRIALS.assign(test_dataset_iou_low=0.8, test_dataset_iou_high=[0.9, 0.9, np.nan, 0.9, 0.9, 0.9])
    heat, table = chapter(table_1_chapter(record(known))).blocks
    assert isinstance(heat, Gallery)
    assert isinstance(table, Table)
    assert "95 % interval" in heat.caption
    drawn = base64.b64decode(heat.pictures[0].src.partition("base64,")[2]).decode()
    assert drawn.count(">0.800 to 0.900</text>") == 2, "not for the cell whose upper end is missing"
    assert [row[3].below for row in table.rows if isinstance(row[3], Cell)] == [
        "0.800 to 0.900",
        "",
        *["0.800 to 0.900"] * 2,
    ]


def test_every_test_table_says_that_nothing_was_chosen_from_it() -> None:
    section = chapter(table_1_chapter(record()))
    assert SCORED_ONCE in section.paragraphs[0]
    assert all(SCORED_ONCE in block.caption for block in section.blocks)


def test_the_heat_map_writes_every_value_and_leaves_missing_cells_blank() -> None:
    picture = heat_map(np.array([[0.861, 0.811], [0.872, np.nan]]), ["unet", "pan"], ["r", "v"], "two_class", "IoU")
    assert picture.alt.endswith("from 0.811 to 0.872; highest pan with r.")
    drawn = base64.b64decode(picture.src.partition("base64,")[2]).decode()
    assert all(f">{value}</text>" in drawn for value in ("0.861", "0.811", "0.872"))
    assert "nan" not in drawn


def test_the_leaderboard_marks_choice_and_ties_and_names_what_a_model_costs() -> None:
    section = chapter(leaderboard_chapter(record()))
    rows = texts(section.blocks[0])
    assert [row[1:3] for row in rows[:3]] == [["0.720", "chosen"], ["0.710", "tie"], ["0.700", ""]]
    assert rows[0][3:] == ["14.3", "2:05", "1.00", "0.009", "3,120", "41.5"]
    name, value = section.blocks[0].rows[0][:2]  # type: ignore[union-attr]
    assert isinstance(name, Cell)
    assert isinstance(value, Cell)
    assert (name.below, value.below) == ("b", "0.660 to 0.740")
    assert section.paragraphs[1:] == ("two_class: b and a cannot be told apart.",)


@pytest.mark.parametrize(("fields", "clusters", "said"), [(3, 8, True), (8, 8, False), (None, 8, False)])
def test_intervals_from_one_validation_field_are_cautioned(fields: int | None, clusters: int, said: bool) -> None:
    summary = {"selection": {"two_class": {"clusters": clusters}}, "dataset": {"fields": fields}}
    section = chapter(leaderboard_chapter(replace(record(), summary=summary)))
    assert (ONE_VALIDATION_FIELD in section.paragraphs) == said


def test_an_older_table_without_the_new_columns_is_shown_as_far_as_it_goes() -> None:
    new = ["gpus", "gpu_hours", "peak_memory_mb", "megapixels_per_second", "crop", "test_pq"]
    old = TRIALS.drop(columns=[*new, "validation", "validation_low", "validation_high", "top_set"])
    assert leaderboard_chapter(record(old)) is None
    assert table_1(table_1_chapter(record(old)))[0][1] == "unet / resnet18 / dice"
    assert texts(chapter(leaderboard_chapter(record(TRIALS.drop(columns=new)))).blocks[0])[0][4] == "2:05"
    assert table_1_chapter(record(TRIALS.drop(columns="test_dataset_iou"))) is None
    assert table_1_chapter(record(pd.DataFrame())) is None


@pytest.mark.parametrize(("seconds", "told"), [(59.6, "1:00"), (3600, "1:00:00"), (float("nan"), "\N{EN DASH}")])
def test_a_training_time_is_written_as_in_the_study(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_the_chapters_make_one_escaped_page(tmp_path: Path) -> None:
    odd = replace(record(), folder=tmp_path, trials=TRIALS.replace({"tversky": "<script>"}))
    found = [f(odd) for f in (leaderboard_chapter, table_1_chapter, early_stopping_chapter, history_chapter)]
    page = render(Page("t", "s", (), (), tuple(section for section in found if section)))
    assert page.count("<script") == 1  # our own
    assert "&lt;script&gt;" in page


def test_the_reader_is_told_which_weights_each_encoder_started_from(run_folder: Path) -> None:
    found = read_record(run_folder)
    trials = found.trials.assign(encoder=["resnet18", "vgg19"] * 3, encoder_weights=["imagenet", "none"] * 3)
    told = warnings(analyse(from_run(run_folder), replace(found, trials=trials)))
    line = next(line for line in told if "confounded" in line)
    assert "weights: resnet18 imagenet, vgg19 none" in line
