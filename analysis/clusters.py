"""What measurements of cells repeat within: patients, wells, fields, or tracks and frames of one field.

Errors repeat: a cell measured too large in one frame is so in the next, and a frame out of focus is so for all its
cells. Patients hold wells, wells hold fields, fields hold frames and tracks. The highest of them with at least
`FEWEST_CLUSTERS` members is what errors are clustered by, since it covers all below it. Where there are fewer fields,
tracks and frames are, two-way, and results describe these fields only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.statistics import FEWEST_CLUSTERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = ("patient", "well", "field")
"""Replicate levels, the highest first."""
NO_TRACKS = "tracks are unknown: a cell seen in several frames counts as several, so intervals may be too narrow"


@dataclass(frozen=True)
class Clusters:
    """How errors are clustered, in words; the name of each cell's cluster, one or two arrays; what limits it."""

    name: str
    codes: list[NDArray[Any]]
    caution: str = ""


def clusters(cells: pd.DataFrame, suffix: str = "") -> Clusters:
    """Choose what errors are clustered by.

    Parameters
    ----------
    cells
        Columns field, frame_id, track_id (-1 where unknown), patient and well where known, each with `suffix`.
    """
    frame = cells[f"frame_id{suffix}"].to_numpy()
    known = [level for level in LEVELS if is_known(cells, f"{level}{suffix}")]
    for level in known:
        column = cells[f"{level}{suffix}"]
        if column.nunique() >= FEWEST_CLUSTERS:
            above = next((other for other in known[: known.index(level)]), None)
            few = cells[f"{above}{suffix}"].nunique() if above else 0
            return Clusters(level, [pd.factorize(column)[0]], _only(few, above) if above else "")
    caution = ""
    if known and len(cells):
        top = known[0]
        caution = _only(cells[f"{top}{suffix}"].nunique(), top)
    track = cells[f"track_id{suffix}"].to_numpy()
    if not len(cells) or (track < 0).all():
        several = cells.groupby(f"field{suffix}")[f"frame_id{suffix}"].nunique().max() if len(cells) else 0
        return Clusters("frame", [frame], "; ".join(filter(None, (caution, NO_TRACKS if several > 1 else ""))))
    single = track < 0
    track = np.where(single, track.max(initial=0) + 1 + np.arange(len(track)), track)  # a cell alone is its own track
    return Clusters("track x frame", [track, frame], caution)


def is_known(cells: pd.DataFrame, column: str) -> bool:
    """Tell whether a column is there and has a value for every cell."""
    return column in cells and bool(cells[column].notna().all())


def _only(n: int, level: str) -> str:
    return f"one {level}: describes this {level} only" if n == 1 else f"{n} {level}s: describes these {level}s only"
