"""Bias where cells touch, rounding, conventions: planted errors are found again, and nothing where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.conventions import biases, conventions, on_discs, true_disc
from analysis.density import by_neighbours, slopes
from analysis.matched import matched, percent
from analysis.rounding import rounding
from analysis.samples import TRAITS, TRUTH, Study, tidy
from analysis.slope import clustered_slope

FRAMES, CELLS = 8, 60


def planted(rng: np.random.Generator, **methods: dict[str, float]) -> Study:
    """Return `CELLS` true cells in each of `FRAMES` frames and methods with known errors.

    Of a method `area` is the error in % without neighbours, `per_neighbour` what each adds, `keeps` the share of the
    differences in circularity it keeps, `noise` the SD of the error in area, %.
    """
    n = FRAMES * CELLS
    cell = np.arange(n) % CELLS
    truth = pd.DataFrame(
        {
            "field": "a",
            "frame": np.arange(n) // CELLS,
            "label": cell + 1,
            "track": cell + 1,
            "centroid_y_px": 100.0 * (cell // 10),
            "centroid_x_px": 100.0 * (cell % 10),
            "radius_px": 12.0,
            "area_px2": rng.lognormal(6, 0.2, CELLS)[cell],
            "perimeter_px": 75.0,
            "circularity": rng.uniform(0.6, 1.0, CELLS)[cell],
            "solidity": 0.95,
            "shape_index": 3.6,
            "border": cell == 0,
            "n_neighbours": rng.integers(0, 4, CELLS)[cell],
            "method": TRUTH,
        }
    )
    truth["circularity_trackmate"] = 0.94 * truth["circularity"]
    tables = [truth]
    for name, wrong in methods.items():
        error = wrong.get("area", 0) + wrong.get("per_neighbour", 0) * truth["n_neighbours"]
        error = error + rng.normal(0, wrong.get("noise", 1.0), n)
        middle = truth["circularity"].mean()
        kept = middle + wrong.get("keeps", 1.0) * (truth["circularity"] - middle) + rng.normal(0, 0.01, n)
        own = truth.assign(method=name, area_px2=truth["area_px2"] * (1 + error / 100), circularity=kept)
        tables.append(own.assign(circularity_trackmate=0.9 * kept, n_neighbours=9))
    keys = tuple(("a", frame) for frame in range(FRAMES))
    return Study(tidy(pd.concat(tables)), tuple(methods), has_truth=True, frames=keys)


def test_matched_cells_carry_both_sides_and_leave_out_the_border(rng: np.random.Generator) -> None:
    study = planted(rng, m={"area": 10, "noise": 0})
    cells = matched(study, "m")
    assert len(cells) == FRAMES * (CELLS - 1)
    np.testing.assert_allclose(percent(cells, "area"), 10)
    assert percent(cells.assign(area_px2_true=0.0), "area").size == len(cells)
    assert np.isnan(percent(cells.assign(area_px2_true=0.0), "area")).all()


def test_the_slope_and_its_error_are_those_of_the_sandwich(rng: np.random.Generator) -> None:
    cluster = np.repeat(np.arange(12), 9)
    x = rng.normal(size=108)
    y = 0.7 * x + rng.normal(size=12)[cluster] + rng.normal(size=108)
    found = clustered_slope(x, y, cluster)
    design = np.column_stack([np.ones(108), x])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ y
    scores = design * (y - design @ coefficients)[:, None]
    sums = np.array([scores[cluster == k].sum(axis=0) for k in range(12)])
    variance = inverse @ (sums.T @ sums) @ inverse * 12 / 11
    assert found.mean == pytest.approx(coefficients[1])
    assert found.se == pytest.approx(np.sqrt(variance[1, 1]))
    assert found.df == 11


@pytest.mark.parametrize(
    ("x", "reason"), [([1.0, 1.0, 1.0], "same value"), ([1.0, np.nan, 2.0], "fewer than three"), ([], "fewer")]
)
def test_a_slope_that_does_not_exist_says_why(x: list[float], reason: str) -> None:
    found = clustered_slope(x, np.ones(len(x)))
    assert np.isnan(found.mean)
    assert reason in found.reason


def test_clusters_that_all_say_the_same_have_no_interval_and_do_not_fail() -> None:
    found = clustered_slope([0, 1, 2] * 6, [0, 1, 0] * 6, np.repeat(np.arange(6), 3))
    assert found.mean == pytest.approx(0)
    assert np.isnan(found.low)
    assert found.reason == "all clusters have the same mean"


def test_a_bias_of_touching_cells_is_found_and_named(rng: np.random.Generator) -> None:
    study = planted(rng, level={"area": 3}, clumped={"area": 0, "per_neighbour": 4})
    table = slopes(study, ["level", "clumped"], ["area"]).set_index("method")
    assert table.loc["clumped", "slope"] == pytest.approx(4, abs=0.3)
    assert table.loc["clumped", "low"] < 4 < table.loc["clumped", "high"]
    assert table.loc["clumped", "verdict"] == "area is measured larger, the more neighbours touch"
    assert table.loc["level", "verdict"] == "no change with neighbours shown"
    assert (table["clustered_by"] == "track x frame").all()
    assert (table["p_holm"] >= table["p"]).all()
    touching = study.of(TRUTH).query("not border")["n_neighbours"] > 0
    assert table.loc["level", "touching"] == pytest.approx(touching.mean())
    groups = by_neighbours(study, "clumped", "area")
    np.testing.assert_allclose(groups["error"], [0, 4, 8, 12], atol=0.5)
    assert groups["n_cells"].sum() == FRAMES * (CELLS - 1)
    assert (groups["low"] < groups["error"]).all()


def test_neighbours_are_those_of_the_truth_and_few_clusters_have_no_interval(rng: np.random.Generator) -> None:
    study = planted(rng, m={"per_neighbour": 4})
    few = study.cells[study.cells["frame"] < 4]
    keys = tuple(("a", frame) for frame in range(4))
    table = slopes(Study(few, ("m",), has_truth=True, frames=keys), ["m"], ["area"]).iloc[0]
    assert table["slope"] == pytest.approx(4, abs=0.4)
    assert np.isnan(table["low"])
    assert np.isnan(table["p_holm"])
    assert table["verdict"].startswith("descriptive only: 4 clusters")


def test_levelling_of_shapes_is_found_and_named(rng: np.random.Generator) -> None:
    study = planted(rng, true={"keeps": 1.0}, round={"keeps": 0.2}, jagged={"keeps": 1.5})
    table = rounding(study, ["true", "round", "jagged"]).set_index("method")
    assert table.loc["round", "slope"] == pytest.approx(-0.8, abs=0.02)
    assert table.loc["round", "kept"] == pytest.approx(0.2, abs=0.03)
    assert table.loc["round", "verdict"].startswith("levels shapes")
    assert table.loc["true", "slope"] == pytest.approx(0, abs=0.02)
    assert table.loc["true", "verdict"] == "no levelling of shapes shown"
    assert table.loc["jagged", "verdict"].startswith("exaggerates shapes")


def test_a_mean_bias_of_circularity_is_no_levelling(rng: np.random.Generator) -> None:
    study = planted(rng, m={"keeps": 1.0})
    shifted = study.cells.assign(circularity=study.cells["circularity"] - 0.1 * (study.cells["method"] == "m"))
    table = rounding(Study(shifted, ("m",), has_truth=True, frames=study.frames), ["m"]).iloc[0]
    assert table["slope"] == pytest.approx(0, abs=0.02)
    assert table["verdict"] == "no levelling of shapes shown"


def test_both_conventions_of_the_same_cells(rng: np.random.Generator) -> None:
    study = planted(rng, m={"keeps": 1.0})
    row = conventions(study, TRUTH).set_index("trait").loc["circularity"]
    assert row["n_cells"] == FRAMES * CELLS
    assert row["percent"] == pytest.approx(-6)
    bias = biases(study, ["m"]).set_index("trait").loc["circularity"]
    assert bias["ours"] == pytest.approx(0, abs=0.3)
    assert bias["trackmate"] == pytest.approx(100 * (0.9 / 0.94 - 1), abs=0.3)


def test_discs_show_the_bias_of_each_convention() -> None:
    """Digitised discs, r = 8-15 px: TrackMate's perimeter +2.9 %, circularity -6.0 %; ours 0.0 and -1.1 %."""
    found = on_discs(11.5).set_index("trait")
    assert set(found.index) == set(TRAITS)
    assert found.loc["perimeter", "trackmate"] == pytest.approx(2.9, abs=0.7)
    assert found.loc["circularity", "trackmate"] == pytest.approx(-6.0, abs=1.3)
    assert found.loc["perimeter", "ours"] == pytest.approx(0.0, abs=0.3)
    assert found.loc["circularity", "ours"] == pytest.approx(-1.1, abs=0.3)
    assert abs(found["ours"]).max() < 1.5


def test_the_disc_of_geometry() -> None:
    assert true_disc("area", 2) == pytest.approx(4 * np.pi)
    assert true_disc("shape_index", 3) == pytest.approx(true_disc("perimeter", 3) / np.sqrt(true_disc("area", 3)))
