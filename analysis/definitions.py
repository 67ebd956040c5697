"""What every number of the report means, and what made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis import scores
from analysis.report import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.results import Results


def definition_chapter() -> Section:
    """State every rule the numbers rest on."""
    paragraphs = (
        f"Empty frames: {scores.EMPTY_RULE}",
        "Dataset IoU is the sum of shared foreground pixels over the sum of pixels in either, over all frames; "
        "per-image IoU is the mean over frames. An image is a full frame here; in trials.parquet and metrics.csv, and "
        "so wherever trials are compared, validation scores are taken over validation crops and an image is a crop.",
        "A cell counts as found when its IoU with a true cell is at least 0.5 (>=, as StarDist counts; Kirillov's PQ "
        "asks > 0.5), one-to-one. F1 = 2 TP / (2 TP + FP + FN); PQ = sum of matched IoU / (TP + FP/2 + FN/2); AP is "
        "the mean over IoU .50, .55, ... .95 of TP / (TP + FP + FN). All are pooled over frames.",
        "Intervals are 95 %, t with (clusters - 1) degrees of freedom on cluster-robust standard errors: by field for "
        "scores, by frame where there is only one field; by track x frame, two-way, for traits, df from the smaller "
        "number. Below 5 clusters none is given.",
        "TFE: matched cells away from the frame border; error = difference (circularity, solidity) or log ratio (area, "
        "perimeter, radius, shape index) over the SD of the truth, cut at 3; a missed or invented cell counts 1; root "
        "mean square. Neither errors nor SD count true cells that the frame border cuts.",
        "Area is the pixel count, perimeter Crofton's with 4 directions, radius follows from area; circularity, "
        "solidity and shape index come from one smoothed contour, so circularity never exceeds 1. TrackMate's numbers "
        "are separate columns of the cells table.",
    )
    return Section("definitions", "Definitions", paragraphs, part="Fine print")


MADE = (
    "version", "commit", "python", "platform", "libraries", "time", "seed", "config_hash", "data_hash",
)  # fmt: skip
DATA = ("path", "name", "synthetic", "fields", "frames", "split_unit", "train", "val", "test", "hash")
"""What is shown of a provenance and of a data set; anything else in these files stays there."""


def provenance(results: Results, made: Mapping[str, Any]) -> dict[str, str]:
    """Flatten what made the data, the models and this page; only `MADE` and `DATA`."""
    sources = (
        ("report", made, MADE),
        ("search", results.summary.get("provenance", {}), MADE),
        ("data", results.summary.get("dataset", {}), DATA),
    )
    return {
        f"{what}: {name.replace('_', ' ')}": _shown(source[name])
        for what, source, names in sources
        for name in names
        if source.get(name) not in (None, "", [], {})
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
