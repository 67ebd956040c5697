"""What a search left behind in its run folder: summary, trials, learning curves and example crops."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.figures import Curve
from analysis.samples import read_json
from analysis.shapes import check_summary, check_trials
from data_io import sealed
from data_io.errors import BadInput
from postprocess.tables import read_parquet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Record:
    """One run: `summary` as in summary.json, `trials` one row per trial (empty where there are none)."""

    folder: Path
    facts: dict[str, Any]
    summary: dict[str, Any]
    trials: pd.DataFrame

    @property
    def synthetic(self) -> bool:
        """Tell whether the images were made by a computer."""
        return bool(self.facts.get("synthetic") or self.summary.get("dataset", {}).get("synthetic"))

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        """What was found per target, best validation score of the objective first."""
        found: dict[str, dict[str, Any]] = self.summary.get("targets", {})
        winner = self.summary.get("winner", {}).get("target")
        return dict(sorted(found.items(), key=lambda item: item[0] != winner))


def read_record(run: Path) -> Record:
    """Read a run folder; summary.json and trials.parquet may be missing (a run that only predicts).

    Raises
    ------
    BadInput
        When there is no run.json, or a file is damaged or holds other things than a search writes.
    """
    facts = read_json(run / "run.json")
    told = run / "summary.json"
    summary = read_json(told) if told.exists() else {}
    remedy = f"`python -m search.run --resume {run}` writes it anew"
    if not sealed.is_intact(summary):
        raise BadInput(f"{told}: changed since it was written; {remedy}")
    check_summary(summary, told)
    table = run / "trials.parquet"
    trials = read_parquet(table, remedy) if table.exists() else pd.DataFrame()
    if table.exists():
        check_trials(trials, table)
    return Record(run, facts, summary, trials)


SETTINGS = {"learning_rate": "rate", "weight_decay": "decay", "augmentation": "augmentation", "seed": "seed"}
"""Settings of a trial, and how its name calls them where they vary."""


def trial_name(row: dict[str, Any], varied: Sequence[str] = ()) -> str:
    """Name a trial by what it is: "unet / resnet18 / dice", and by the settings that the search `varied`.

    >>> row = {"architecture": "unet", "encoder": "resnet18", "loss": "dice", "learning_rate": 0.001, "seed": 3}
    >>> trial_name(row, ("learning_rate", "seed"))
    'unet / resnet18 / dice / rate 0.001 / seed 3'
    """
    parts = [str(row[key]) for key in ("architecture", "encoder", "loss") if row.get(key) not in (None, "")]
    return " / ".join([*parts, *(f"{SETTINGS[key]} {row[key]:g}" for key in varied)])


def varied(trials: pd.DataFrame) -> list[str]:
    """Return the settings of which the trials have several values."""
    return [key for key in SETTINGS if key in trials and trials[key].nunique() > 1]


CURVE = {"epoch", "val_dataset_iou"}
"""Columns that every learning curve has."""


def curves(record: Record) -> list[Curve]:
    """Read the learning curves of all trials that have one; a file of anything but numbers is left out."""
    chosen = {str(found.get("trial")) for found in record.targets.values()}
    settings, found = varied(record.trials), []
    for row in record.trials.to_dict("records"):
        path = record.folder / "trials" / str(row["trial"]) / "metrics.csv"
        if not path.is_file():
            continue
        try:
            table = pd.read_csv(path)
        except ValueError:
            continue
        if len(table) and {*table} >= CURVE and table.dtypes.map(is_numeric_dtype).all():
            found.append(
                Curve(
                    str(row["trial"]),
                    trial_name(row, settings),
                    str(row["target"]),
                    table,
                    best=str(row["trial"]) in chosen,
                    reference=bool(row.get("reference")),
                    stopped=row.get("status") == "stopped",
                )
            )
    return found


MAX_EXAMPLE_BYTES = 2**28
"""Four crops of the largest size that a configuration allows, unpacked."""


def _arrays(path: Path) -> list[NDArray[Any]]:
    with zipfile.ZipFile(path) as packed:
        if sum(member.file_size for member in packed.infolist()) > MAX_EXAMPLE_BYTES:
            raise ValueError("a decompression bomb")
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[name] for name in ("image", "truth", "foreground")]


@dataclass(frozen=True)
class Example:
    """One crop as a network saw it: `(Y, X)` image, truth labels, foreground probability."""

    row: dict[str, Any]
    image: NDArray[np.float32]
    truth: NDArray[np.int32]
    foreground: NDArray[np.float32]


def examples(record: Record, most: int) -> list[Example]:
    """Read the example crop that shows most cells, of the trials best in validation IoU; arrays only, never a pickle.

    A file that holds anything else, or unpacks to more than any trial writes, is left out: it is only a picture.
    """
    found, trials = list[Example](), record.trials
    if "val_dataset_iou" in trials:
        trials = trials.sort_values("val_dataset_iou", ascending=False, na_position="last", kind="stable")
    for row in trials.to_dict("records"):
        if len(found) == most:
            break
        path = record.folder / "trials" / str(row["trial"]) / "examples.npz"
        if not path.is_file():
            continue
        try:
            image, truth, foreground = _arrays(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            continue
        if not len(image):
            continue
        at = int(np.argmax([len(np.unique(crop)) for crop in truth]))
        found.append(Example(row, np.squeeze(image[at]), np.squeeze(truth[at]), np.squeeze(foreground[at])))
    return found
