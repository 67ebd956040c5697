"""True cells beside the cells a method found for them, and what their errors are clustered by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.samples import TRAITS, TRUTH, pair

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from analysis.samples import Study


def matched(study: Study, method: str) -> pd.DataFrame:
    """Cells of the truth away from the border that a method found: every column of both, ending `_true`, `_own`."""
    true = study.of(TRUTH).query("not border").add_suffix("_true")
    own = study.of(method).add_suffix("_own")
    both = pair(study, TRUTH, method)
    both = both.merge(true, left_on=["field", "frame", "label_a"], right_on=["field_true", "frame_true", "label_true"])
    return both.merge(own, left_on=["field", "frame", "label_b"], right_on=["field_own", "frame_own", "label_own"])


def values(cells: pd.DataFrame, trait: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a trait of matched cells: true, own, each `(N,)` float64."""
    column = TRAITS[trait]
    return cells[f"{column}_true"].to_numpy(float), cells[f"{column}_own"].to_numpy(float)


def percent(cells: pd.DataFrame, trait: str) -> NDArray[np.float64]:
    """Return the error of each matched cell in % of its true value, `(N,)` float64; NaN where that is not positive."""
    true, own = values(cells, trait)
    safe = np.where(true > 0, true, np.nan)
    return np.asarray(100 * (own / safe - 1), dtype=float)


def clusterings(cells: pd.DataFrame) -> tuple[str, list[NDArray[Any]]]:
    """Name and give the clusterings of matched cells: track x frame, or frame alone where a track is unknown."""
    frame, track = cells["frame_id_true"].to_numpy(), cells["track_id_true"].to_numpy()
    if not len(cells) or (track < 0).any():
        return "frame", [frame]
    return "track x frame", [track, frame]
