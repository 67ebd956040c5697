"""What a search left behind, as the report reads it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.record import Record, examples

if TYPE_CHECKING:
    from pathlib import Path


def test_examples_are_read_of_the_best_trials_only(tmp_path: Path) -> None:
    crops = {"image": np.zeros((2, 8, 8), np.float32), "foreground": np.zeros((2, 8, 8), np.float32)}
    truth = np.zeros((2, 8, 8), np.int32)
    truth[1, 2:4, 2:4] = 1
    scores = {"weak": 0.5, "unknown": math.nan, "damaged": 0.9, "strong": 0.7}
    for name in scores:
        folder = tmp_path / "trials" / name
        folder.mkdir(parents=True)
        np.savez(folder / "examples.npz", truth=truth, **crops)
    (tmp_path / "trials" / "damaged" / "examples.npz").write_bytes(b"PK half of it")
    trials = pd.DataFrame({"trial": list(scores), "val_dataset_iou": list(scores.values())})
    record = Record(tmp_path, {}, {}, trials)
    assert [example.row["trial"] for example in examples(record, 2)] == ["strong", "weak"]
    assert [example.row["trial"] for example in examples(record, 9)] == ["strong", "weak", "unknown"]
    assert examples(record, 1)[0].truth.max() == 1  # the crop with a cell
