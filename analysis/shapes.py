"""What the report reads of a run's summary.json and trials.parquet: a file of another shape is refused in one line.

Both are made by a search and can be made anew by it; what stands in them beyond this is nobody's concern here.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pydantic import BaseModel, ConfigDict, ValidationError

from data_io.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

Number = float | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Data(_Part):
    name: str = ""
    synthetic: bool = False
    fields: Number = None
    frames: Number = None
    train: Number = None
    val: Number = None
    test: Number = None
    split_unit: str = ""
    warnings: list[str] = []


class _Fit(_Part):
    score: str = ""
    value: Number = None
    curve: list[dict[str, bool | Number]] = []


class _Scores(_Part):
    dataset_iou: Number = None
    per_image_iou: Number = None
    f1_50: Number = None
    pq_50: Number = None


class _Target(_Part):
    trial: str = ""
    configuration: dict[str, Any] = {}
    parameters: Number = None
    decode: dict[str, Any] = {}
    decode_fit: _Fit | None = None
    validation: _Scores | None = None
    test: _Scores | None = None
    ceiling: _Scores | None = None


class _Baseline(_Part):
    validation: _Scores | None = None
    test: _Scores | None = None


class _Selection(_Part):
    objective: str = ""
    clusters: Number = None
    chosen: str = ""
    candidates: list[dict[str, Any]] = []
    sentence: str = ""


class _Winner(_Part):
    target: str = ""
    objective: str = ""
    value: Number = None
    ties: list[str] = []


class _Stop(_Part):
    trial: str = ""
    epoch: int = 0
    rung: int | None = None
    value: Number = None
    cutoff: Number = None


class _Search(_Part):
    objective: str = ""
    seconds: Number = None
    rungs: list[int] = []
    reduction_factor: Number = None
    encoder_weights: list[str] = []
    stops: list[_Stop] = []


class _Provenance(_Part):
    libraries: dict[str, str] = {}


class _Summary(_Part):
    dataset: _Data = _Data()
    targets: dict[str, _Target] = {}
    baseline: dict[str, _Baseline] = {}
    selection: dict[str, _Selection] = {}
    confirm: dict[str, str] = {}
    winner: _Winner = _Winner()
    search: _Search = _Search()
    warnings: list[str] = []
    provenance: _Provenance = _Provenance()


TEXTS = ("trial", "target", "architecture", "encoder", "loss", "status")
"""Columns of trials.parquet that every search writes; the others may lack, those of numbers hold nothing else."""
NUMBERS = (
    "learning_rate", "weight_decay", "augmentation", "seed", "crop", "epochs", "max_epochs", "val_dataset_iou",
    "val_loss", "train_loss", "seconds", "gpus", "gpu_hours", "peak_memory_mb", "megapixels_per_second", "parameters",
    "validation", "validation_mean", "validation_sd", "validation_low", "validation_high", "test_dataset_iou",
    "test_dataset_iou_low", "test_dataset_iou_high", "test_pq",
)  # fmt: skip
WHOLE = ("crop", "epochs", "max_epochs")
FLAGS = ("reference", "top_set")


def check_summary(summary: dict[str, Any], file: Path) -> None:
    """Raise BadInput where something in summary.json is of another kind than the report takes it for."""
    try:
        _Summary.model_validate(summary)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        told = fault["msg"].removeprefix("Input ")
        raise BadInput(f"{file}: {place} {told}; {_remedy(file)}") from error
    if "target" in summary.get("winner", {}) and summary["winner"]["target"] not in summary.get("targets", {}):
        raise BadInput(f"{file}: its winner is none of its targets; {_remedy(file)}")


def check_trials(trials: pd.DataFrame, file: Path) -> None:
    """Raise BadInput where trials.parquet lacks a column that names the trials, or a column holds other things."""
    for column in (*TEXTS, "val_dataset_iou"):
        if column not in trials:
            raise BadInput(f"{file}: no column {column}; {_remedy(file)}")
    for column in TEXTS:
        texts = trials[column].dropna() if column == "encoder" else trials[column]  # a network may have its own
        if not texts.map(lambda value: isinstance(value, str)).all():
            raise BadInput(f"{file}: column {column} holds something else than text; {_remedy(file)}")
    if strange := [name for name in trials["trial"] if isinstance(name, str) and PurePath(name).name != name]:
        raise BadInput(f"{file}: a trial called {strange[0]!r}, which is no name of a folder; {_remedy(file)}")
    for columns, fits, what in ((NUMBERS, is_numeric_dtype, "numbers"), (FLAGS, is_bool_dtype, "true and false")):
        for column in columns:
            if column in trials and not fits(trials[column]) and trials[column].notna().any():
                raise BadInput(f"{file}: column {column} holds something else than {what}; {_remedy(file)}")
    for column in WHOLE:
        if column in trials and not np.isfinite(trials[column].to_numpy(float)).all():
            raise BadInput(f"{file}: column {column} holds something else than whole numbers; {_remedy(file)}")


def _remedy(file: Path) -> str:
    return f"`python -m search.run --resume {file.parent}` writes it anew"
