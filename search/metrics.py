"""The rows of a trial's ``metrics.csv``, one per completed epoch: columns, the best one, reading and writing."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from data_io import files
from data_io.errors import BadInput
from search import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]

COLUMNS = (
    "epoch",
    "train_loss",
    "val_loss",
    "val_dataset_iou",
    "val_per_image_iou",
    "rung_metric",
    "learning_rate",
    "seconds",
    "memory_mb",
)


def best_row(rows: list[Row]) -> Row:
    """Row with the highest finite rung metric, the earliest of equals."""
    return max(rows, key=lambda r: (r["rung_metric"] if math.isfinite(r["rung_metric"]) else -math.inf, -r["epoch"]))


def read_metrics(path: Path) -> list[Row]:
    """Rows of a metrics.csv, none where it is missing; BadInput where it is damaged."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            read = [_numbers(row) for row in csv.DictReader(file)]
    except (ValueError, TypeError, KeyError, csv.Error) as fault:
        raise BadInput(f"{path}: damaged ({fault}); restore it from a copy") from fault
    return [dict.fromkeys(COLUMNS, math.nan) | row for row in read]  # what older runs did not record is NaN


def _numbers(row: dict[str, str]) -> Row:
    epoch = int(row.pop("epoch"))
    return {"epoch": epoch} | {name: float(value) for name, value in row.items()}


def rows_until(epoch: int, checkpoint: Path, folder: Path) -> list[Row]:
    """Rows up to the epoch of a checkpoint: its own, or of an older run those of the trial's metrics.csv."""
    own = checkpoint / checkpoints.METRICS
    return [row for row in read_metrics(own if own.exists() else folder / "metrics.csv") if row["epoch"] <= epoch]


def write_metrics(path: Path, rows: list[Row]) -> None:
    """Write metrics.csv whole and atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())
