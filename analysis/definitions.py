"""What every number of the report means, and what made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis import scores
from analysis.report import Points, Section
from analysis.statistics import FEWEST_CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.results import Results


def definition_chapter() -> Section:
    """State every rule the numbers rest on."""
    points = (
        ("Empty frames.", scores.EMPTY_RULE),
        (
            "IoU.",
            "Dataset IoU is the sum of shared foreground pixels over the sum of pixels in either, over all frames; "
            "per-image IoU is the mean over frames. An image is a full frame here; in trials.parquet and metrics.csv, "
            "and so wherever trials are compared, validation scores are taken over validation crops and an image is a "
            "crop.",
        ),
        (
            "Found.",
            "A cell counts as found when its IoU with a true cell is at least 0.5 (>=, as StarDist counts; Kirillov's "
            "PQ asks > 0.5), one-to-one. F1 = 2 TP / (2 TP + FP + FN); PQ = sum of matched IoU / (TP + FP/2 + FN/2); "
            "AP is the mean over IoU .50, .55, ... .95 of TP / (TP + FP + FN). All are pooled over frames.",
        ),
        (
            "Outlines.",
            "Boundary F1 is the share of the foreground's outline that the other meets within 1 or 2 px; boundary IoU "
            "that of the bands 2 px along the outlines; HD95 the 95th percentile of the distance between the outlines "
            "of matched cells, mean over cells.",
        ),
        (
            "Mistakes.",
            "A cell lies in another when more than half of it does and it makes up a tenth of the other. Split: a true "
            "cell with two or more predicted ones in it; merge: the other way round; missed and invented: neither "
            "matched nor part of a split or merge.",
        ),
        (
            "Intervals.",
            "95 %, t with (clusters - 1) degrees of freedom on cluster-robust standard errors. Scores are clustered by "
            "field, by frame where there is one field. Traits are clustered by the highest of patient, well and field "
            f"with at least {FEWEST_CLUSTERS} members, else by track x frame, two-way, df from the smaller number. "
            f"Below {FEWEST_CLUSTERS} clusters none is given.",
        ),
        (
            "TFE, trait fidelity error.",
            "Matched cells away from the frame border; error = difference (circularity, solidity) or log ratio (area, "
            "perimeter, radius, shape index) over the SD of the truth, cut at 3; a missed or invented cell counts 1; "
            "root mean square. Neither errors nor SD count true cells that the frame border cuts.",
        ),
        (
            "Traits.",
            "As measured here, area is the pixel count, perimeter Crofton's with 4 directions, radius follows from "
            "area; circularity, solidity and shape index come from one smoothed contour, so circularity never exceeds "
            "1. TrackMate's numbers are separate columns of the cells table.",
        ),
        (
            "Touching.",
            "Neighbours of a cell are the annotated cells that share a pixel edge with it. The change per neighbour "
            "and the circularity slope are least-squares slopes with cluster-robust standard errors.",
        ),
    )
    return Section("definitions", "Definitions", (), (Points(points),), "Fine print")


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
