"""All results of one comparison in one place, and the names a report gives them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import scores
from analysis.choice import choose
from analysis.record import trial_name
from analysis.report import MISSING
from analysis.samples import CLASSICAL

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import pandas as pd

    from analysis.record import Record
    from analysis.samples import Study

LABEL = {
    "dataset_iou": "dataset IoU",
    "per_image_iou": "per-image IoU",
    "f1_50": "F1@0.5",
    "pq_50": "PQ",
    "sq_50": "SQ",
    "ap": "AP",
}
"""Scores shown first, and their names in print."""
FURTHER = {
    "dice": "Dice",
    "boundary_f1_1": "boundary F1, 1 px",
    "boundary_f1_2": "boundary F1, 2 px",
    "boundary_iou_2": "boundary IoU, 2 px",
    "hd95": "HD95, px",
    "seg": "SEG",
    "aji": "AJI",
    "splits": "splits",
    "merges": "merges",
    "missed": "missed",
    "spurious": "invented",
}
"""Further scores, where they were counted."""


@dataclass(frozen=True)
class Results:
    """Everything the chapters draw on; `record` is None when loose files were compared."""

    study: Study
    comparisons: pd.DataFrame
    agreement: pd.DataFrame
    counted: Mapping[str, list[scores.Counts]]
    """Per method the counts of each compared frame; empty without truth or label images."""
    record: Record | None = None

    @cached_property
    def scored(self) -> dict[str, dict[str, Any]]:
        """Scores of every counted method on the compared frames."""
        return {name: scores.score(found, self.clusters) for name, found in self.counted.items()}

    @cached_property
    def choices(self) -> pd.DataFrame:
        """Which method to use for which trait, see `choice.choose`."""
        return choose(self.study, self.agreement, self.counted, self.clusters)

    @property
    def clusters(self) -> list[Hashable]:
        """What each compared frame is a repeat of, see `scores.clusters_of`."""
        return scores.clusters_of(self.study.frames)

    @property
    def one_field(self) -> bool:
        """Tell whether all compared frames show the same place."""
        return len({name for name, _ in self.study.frames}) == 1

    @property
    def summary(self) -> dict[str, Any]:
        """The run's summary, empty without one."""
        return self.record.summary if self.record else {}

    @property
    def winner(self) -> str | None:
        """The method chosen on validation data, if any was."""
        name = self.summary.get("winner", {}).get("target")
        return str(name) if name else None


ONE_FIELD = (
    "All compared frames come from one field: the same cells are in every frame. Intervals and tests describe these "
    "cells only and are too narrow for new samples."
)
"""Said wherever a result of a single field could be taken for more."""


def cells_found(results: Results, method: str) -> int:
    """Count the cells of a method matched at IoU >= 0.5 over all compared frames."""
    return sum(c.tp[0] for c in results.counted[method])


def frames(n: int) -> str:
    """Write a number of frames in words."""
    return "1 frame" if n == 1 else f"{n} frames"


def objective_key(results: Results) -> str:
    """Name the score the run was chosen by."""
    objective = str(results.summary.get("winner", {}).get("objective", "pq"))
    return {"pq": "pq_50", "iou": "dataset_iou"}.get(objective, objective)


def ordered(results: Results) -> list[str]:
    """Order methods: the chosen one, then by PQ, the classical baseline last."""
    scored = results.scored

    def rank(method: str) -> tuple[bool, bool, float]:
        quality = scored.get(method, {}).get("pq_50")
        return method == CLASSICAL, method != results.winner, -(quality if quality is not None else -1.0)

    return sorted(results.study.methods, key=rank)


def model_name(results: Results, method: str) -> str:
    """Name the network behind a method, or what it is without one."""
    if method == CLASSICAL:
        return "no learning (local SD, Otsu)"
    return trial_name(results.summary.get("targets", {}).get(method, {}).get("configuration", {})) or MISSING


def unit(trait: str) -> str:
    """Name the unit of a trait; nothing for a ratio."""
    return {"area": "px\N{SUPERSCRIPT TWO}", "perimeter": "px", "radius": "px"}.get(trait, "")


def or_nan(value: object) -> float:
    """Turn anything that is not a number into NaN."""
    return float(value) if isinstance(value, (int, float, np.number)) else float("nan")
