"""What early stopping did, on planted curves: the slow starter is named, an ordinary search names nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from analysis.early_stopping import brackets, early_stopping_chapter, survivors
from analysis.record import Record
from analysis.report import Table

if TYPE_CHECKING:
    from pathlib import Path

EPOCHS = 27
EPOCH = np.arange(1, EPOCHS + 1)


def rise(top: float, pace: float) -> np.ndarray:
    """Metric by epoch that nears `top` with the time constant `pace`, epochs."""
    return np.asarray(top * (1 - np.exp(-EPOCH / pace)))


ORDINARY = {f"t{i}": rise(0.9 - 0.03 * i, 4.0) for i in range(8)}
"""Eight trials that differ in where they end and learn at the same pace."""
SLOW = 1 / (1 + np.exp(-(EPOCH - 9) / 1.5))
"""Below all of them up to epoch 9, where it rises fastest; above all of them at the end."""


def recorded(
    folder: Path, curves: dict[str, np.ndarray], stops: dict[str, int], references: tuple[str, ...] = (), **search: Any
) -> Record:
    """Return a run with these curves, cut where a trial was stopped."""
    rows, told = [], []
    for trial, curve in curves.items():
        epochs = stops.get(trial, EPOCHS)
        (folder / "trials" / trial).mkdir(parents=True)
        table = pd.DataFrame({"epoch": EPOCH, "rung_metric": curve, "val_dataset_iou": 0.5})[:epochs]
        table.to_csv(folder / "trials" / trial / "metrics.csv", index=False)
        status = "stopped" if trial in stops else "completed"
        rows.append(
            {"trial": trial, "target": "two_class", "architecture": trial, "encoder": "e", "loss": "dice",
             "reference": trial in references, "status": status, "epochs": epochs, "max_epochs": EPOCHS}
        )  # fmt: skip
        if trial in stops:
            told.append({"trial": trial, "epoch": epochs, "rung": epochs, "value": curve[epochs - 1], "cutoff": 0.45})
    searched = {"stops": told, "rungs": [3, 9], "reduction_factor": 3.0} | search
    return Record(folder, {}, {"search": searched}, pd.DataFrame(rows))


def told(record: Record) -> str:
    """Return all the text of the chapter."""
    section = early_stopping_chapter(record)
    assert section is not None
    tables = [block for block in section.blocks if isinstance(block, Table)]
    cells = [str(getattr(c, "text", c)) for table in tables for row in table.rows for c in row]
    return "\n".join([*section.paragraphs, *cells])


def test_a_reference_that_starts_slowly_and_ends_first_is_named(tmp_path: Path) -> None:
    stops = {"t4": 3, "t5": 3, "t6": 3, "t7": 9}
    record = recorded(tmp_path, ORDINARY | {"slow": SLOW}, stops, references=("slow",))
    text = told(record)
    assert (
        "slow / e / dice (two_class, slow) would have been stopped at epoch 3, ended 1st of 5 complete curves" in text
    )
    assert "No slow starter" not in text
    found = brackets(record)[0]
    assert found.regret == pytest.approx(SLOW[-1] - ORDINARY["t0"][-1])


def test_a_stopped_trial_that_still_rose_fast_is_named(tmp_path: Path) -> None:
    stops = {"t5": 3, "t6": 3, "slow": 9}
    record = recorded(tmp_path, ORDINARY | {"slow": SLOW}, stops)
    assert "Possible slow starter: slow / e / dice (two_class, slow) was stopped at epoch 9" in told(record)
    found = brackets(record)[0]
    assert [trial for trial in found.stopped if found.may_overtake(trial)] == ["slow"]


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_an_ordinary_search_names_no_slow_starter(tmp_path: Path, noise: float) -> None:
    rng = np.random.default_rng(1)
    curves = {trial: curve + rng.normal(0, noise, EPOCHS) for trial, curve in ORDINARY.items()}
    text = told(recorded(tmp_path, curves, {"t4": 3, "t5": 3, "t6": 3, "t7": 9}, references=("t1",)))
    assert "No slow starter was found: 4 complete curves and the slopes of 1 stopped trials could be judged." in text
    assert "may be a slow starter" not in text
    assert "It stopped 4 of 7 trials and saved 90 epochs." in text


def test_rank_correlation_of_a_rung_with_the_end_by_hand(tmp_path: Path) -> None:
    # values at epoch 3 rank 1 2 3 4 5, the ends 2 1 3 5 4: rho = 1 - 6 * 4 / (5 * 24), tau = (8 - 2) / 10
    curves = {}
    for trial, (early, late) in enumerate(zip((0.1, 0.2, 0.3, 0.4, 0.5), (0.7, 0.6, 0.8, 0.95, 0.9), strict=True)):
        curves[f"t{trial}"] = np.where(EPOCH <= 3, early, late)
    rung = brackets(recorded(tmp_path, curves, {}))[0].foretold(3)
    assert (rung.n, rung.spearman, rung.kendall) == (5, pytest.approx(0.8), pytest.approx(0.6))


def test_below_five_complete_curves_the_correlation_is_not_judged(tmp_path: Path) -> None:
    curves = {trial: ORDINARY[trial] for trial in ("t0", "t1", "t2", "t3", "t4")}
    record = recorded(tmp_path, curves, {"t4": 3})
    assert np.isnan(brackets(record)[0].foretold(3).spearman)
    text = told(record)
    assert "cannot be judged: too few curves" in text
    assert "Below 5 complete curves this cannot be judged; only described." in text


def test_the_table_gives_rung_value_and_cutoff_of_every_stop(tmp_path: Path) -> None:
    record = recorded(tmp_path, ORDINARY, {"t6": 3, "t7": 9})
    section = early_stopping_chapter(record)
    assert section is not None
    rows = [row[:6] for row in section.blocks[-1].rows]  # type: ignore[union-attr]
    value = {trial: f"{ORDINARY[trial][epoch - 1]:.3f}" for trial, epoch in (("t6", 3), ("t7", 9))}
    assert rows == [
        ["two_class", "t6 / e / dice", "t6", "3", value["t6"], "0.450"],
        ["two_class", "t7 / e / dice", "t7", "9", value["t7"], "0.450"],
    ]


def test_values_that_are_no_numbers_enter_no_rung(tmp_path: Path) -> None:
    curves = dict(ORDINARY)
    curves["t0"] = np.where(EPOCH == 3, np.nan, curves["t0"])
    found = brackets(recorded(tmp_path, curves, {}))[0]
    assert found.foretold(3).n == len(curves) - 1
    assert found.cutoff("t7", 3) == pytest.approx(np.percentile([ORDINARY[f"t{i}"][2] for i in range(1, 7)], 200 / 3))


def test_a_record_without_rungs_has_no_such_chapter(tmp_path: Path) -> None:
    assert early_stopping_chapter(recorded(tmp_path, ORDINARY, {}, rungs=[])) is None


def test_rungs_of_an_older_record_are_those_where_trials_were_stopped(tmp_path: Path) -> None:
    found = brackets(recorded(tmp_path, ORDINARY, {"t6": 3, "t7": 9}, rungs=None))
    assert found[0].rungs == (3, 9)


def test_survivors_are_the_trials_still_trained_in_each_epoch(tmp_path: Path) -> None:
    stops = {"t4": 3, "t5": 3, "t6": 3, "t7": 9}
    record = recorded(tmp_path, ORDINARY | {"slow": SLOW}, stops, references=("slow",))
    table = survivors(brackets(record)[0]).set_index("epoch")["trials"]
    assert len(table) == EPOCHS
    assert [int(table[epoch]) for epoch in (1, 3, 4, 9, 10, EPOCHS)] == [8, 8, 5, 5, 4, 4], "the reference is left out"
    saved = int((table.iloc[0] - table).sum())
    assert f"saved {saved} epochs" in told(record)
