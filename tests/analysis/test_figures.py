"""Figures are drawn from whatever a run holds, down to two cells."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.figures import looks, superplot


@pytest.mark.parametrize("areas", [[10.0, 20.0], [10.0, 10.0], [10.0, 20.0, 30.0]])
def test_a_superplot_of_very_few_cells(areas: list[float]) -> None:
    cells = pd.DataFrame({"field": "a", "frame": range(len(areas)), "area_px2": areas})
    picture = superplot({"star": cells}, "area", "area_px2", "px²", looks(["star"]))
    assert "area" in picture.alt
