"""True cells beside the cells a method found for them, with every column of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
