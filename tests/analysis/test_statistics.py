"""Statistics reproduce published numbers and hold their level where pooling does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import statistics as s

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "reference" / "stat_vectors.json").read_text())


def test_placenta() -> None:
    v = VECTORS["hollander_wolfe_placenta"]
    two, one = s.mann_whitney(v["x"], v["y"]), s.mann_whitney(v["x"], v["y"], "greater")
    assert (two.statistic, two.a12, two.delta) == pytest.approx((v["U"], v["A12"], v["cliffs_delta"]))
    assert (one.p, two.p) == pytest.approx((v["p_exact_greater"], v["p_exact_two_sided"]))
    assert s.hodges_lehmann_shift(v["x"], v["y"]) == pytest.approx(v["hodges_lehmann_shift"])


def test_depression() -> None:
    v = VECTORS["hollander_wolfe_depression"]
    d = np.subtract(v["x"], v["y"])
    assert s.signed_rank(d, "greater").p == pytest.approx(v["p_exact_greater"])
    assert s.signed_rank(d).p == pytest.approx(v["p_exact_two_sided"])
    assert s.signed_rank(d).v_plus == v["V_plus"]
    assert s.signed_rank(d).rank_biserial == pytest.approx(v["matched_pairs_rank_biserial"])
    assert s.pseudomedian(d) == pytest.approx(v["pseudomedian"])


def test_brunner_munzel() -> None:
    v = VECTORS["brunner_munzel_pain"]
    got = s.brunner_munzel(v["x"], v["y"])
    assert (got.statistic, got.df, got.p) == pytest.approx((v["statistic"], v["df"], v["p_two_sided"]))
    assert (got.estimate, got.low, got.high) == pytest.approx((v["estimate_P_x_lt_y_plus_half_ties"], *v["ci95"]))
    assert s.mann_whitney(v["x"], v["y"]).p == pytest.approx(v["mwu_asymptotic_cc_p"])


def test_ties() -> None:
    v = VECTORS["cliffs_delta_ties"]
    got = s.mann_whitney(v["y"], v["x"])
    assert (got.statistic, got.delta, got.a12) == pytest.approx((v["U_y"], v["delta_y_minus_x"], v["A12"]))


def test_shrout_fleiss() -> None:
    v = VECTORS["shrout_fleiss_1979"]
    got = s.icc(v["targets_by_raters"])
    expected = [v[k] for k in ("ICC1", "ICC2_A1", "ICC3_C1", "ICC1k", "ICC2k", "ICC3k")]
    assert [got.icc1, got.a1, got.c1, got.icc1k, got.icc2k, got.icc3k] == pytest.approx(expected, abs=1e-6)


def test_bland_altman() -> None:
    v = VECTORS["bland_altman_1986_pefr"]
    got = s.bland_altman(v["wright"], v["mini"])
    assert (got.bias.mean, got.sd) == pytest.approx((v["mean_diff"], v["sd_diff"]))
    assert (got.lower.mean, got.upper.mean) == pytest.approx(tuple(v["loa_1_96"]))
    assert got.bias.ci == pytest.approx(tuple(v["ci95_mean_diff"]))
    assert got.lower.se == pytest.approx(v["se_loa_approx_sqrt3"], rel=0.25)
    assert s.ccc(v["wright"], v["mini"]).mean == pytest.approx(v["lin_ccc_1_over_n"])
    equal = s.tost(np.subtract(v["wright"], v["mini"]), 30)
    expected = v["tost_margin_30"]
    assert (equal.p, equal.t_low, equal.t_high) == pytest.approx((expected["p"], expected["t_low"], expected["t_high"]))
    assert equal.df == expected["df"]


def test_many_tests() -> None:
    v = VECTORS["benjamini_hochberg_1995"]
    holm, bh = s.holm(v["p"]), s.benjamini_hochberg(v["p"])
    assert holm[:4] == pytest.approx(v["holm_adj_first4"])
    assert bh[:4] == pytest.approx(v["bh_adj_first4"])
    assert ((holm < 0.05).sum(), (bh < 0.05).sum()) == (v["rejected_holm"], v["rejected_bh"])


def test_untested_stay_out_of_a_correction() -> None:
    assert s.holm([0.01, np.nan, 0.04])[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(s.benjamini_hochberg([np.nan, 0.5])[0])


def test_sleep() -> None:
    v = VECTORS["student_sleep_paired_t"]
    d = np.subtract(v["g1"], v["g2"])
    got = s.clustered_mean(d)
    assert (got.statistic, got.df, got.p) == pytest.approx((v["t"], v["df"], v["p"]))
    assert s.signed_rank(d).p == pytest.approx(v["wilcoxon_wilcox_zero_approx_cc_p"])
    pratt = s.signed_rank(d, zero_method="pratt", correction=False)
    assert pratt.p == pytest.approx(v["wilcoxon_pratt_approx_p"])


def test_dyestuff() -> None:
    v = VECTORS["dyestuff_lmm_reml"]
    y, batch = np.ravel(v["y_by_batch"]), np.repeat(np.arange(6), 5)
    assert s.cluster_icc(y, batch) == pytest.approx(v["icc1"], abs=1e-6)
    got = s.clustered_mean(y, batch)
    assert (got.mean, got.se) == pytest.approx((v["mean"], v["se"]), abs=1e-3)
    assert s.effective_n(y, batch) == pytest.approx(30 / (1 + 4 * v["icc1"]))


def test_two_way_clusters() -> None:
    v = VECTORS["two_way_cluster_robust"]
    d = np.array(v["d_cells_by_frames"])
    cell, frame = np.indices(d.shape)
    got = s.clustered_mean(d, cell.ravel(), frame.ravel())
    assert (got.mean, got.se) == pytest.approx((v["mean"], v["se_cgm_statsmodels_corrected"]))
    assert got.df == 4
    assert s.clustered_mean(d, cell.ravel()).se == pytest.approx(v["se_oneway_cell_corrected"])


def test_clusters_may_have_any_names() -> None:
    d = np.arange(12.0)
    numbers = s.clustered_mean(d, np.arange(12) // 2)
    assert s.clustered_mean(d, [f"cell {i // 2}" for i in range(12)]) == numbers
    tuples = [("field", i // 2) for i in range(12)]
    assert s.clustered_mean(d, tuples) == numbers
    assert s.clustered_mean(d, [*tuples[:10], "f", "f"]) == numbers
    assert s.effective_n(d, tuples) == s.effective_n(d, np.arange(12) // 2)


def test_concordance_stays_below_one(rng: np.random.Generator) -> None:
    x = rng.normal(0, 1, 8)
    y = x + np.array([0, 0, 0, 0, 0, 0, 0, 0.9])
    near = s.ccc(x, y)
    assert near.mean + 2.4 * near.se > 1
    assert -1 < near.low < near.mean < near.high < 1
    x = rng.normal(0, 1, 20_000)
    many = s.ccc(x, x + rng.normal(0, 1, len(x)))
    assert many.ci == pytest.approx((many.mean - 1.96 * many.se, many.mean + 1.96 * many.se), abs=1e-3)
    assert s.ccc(x, x).mean == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "no values"),
        ([np.nan, np.nan], "no values"),
        ([1.0], "one value"),
        ([1.0, 2.0], "2 clusters; below 5"),
        ([3.0] * 9, "all values are equal"),
    ],
)
def test_not_tested_with_a_reason(values: list[float], reason: str) -> None:
    got = s.clustered_mean(values)
    assert reason in got.reason
    assert np.isnan([got.p, got.low, got.high]).all()


def test_dropped_values_are_counted() -> None:
    assert s.clustered_mean([1, 2, np.nan, 3, 4, 5, np.inf]).dropped == 2


def test_one_name_per_value() -> None:
    with pytest.raises(ValueError, match="one name per value"):
        s.clustered_mean([1, 2, 3], [1, 2])


def test_large_samples_bisect_to_the_same_median(rng: np.random.Generator) -> None:
    x, y = rng.normal(1, 1, 2100), rng.normal(0, 2, 2100)
    exact = np.median(x[:, None] - y[None, :])
    assert s.hodges_lehmann_shift(x, y) == pytest.approx(exact, abs=1e-5)
    rows, cols = np.triu_indices(len(x))
    assert s.pseudomedian(x) == pytest.approx(np.median((x[rows] + x[cols]) / 2), abs=1e-5)


def test_replicates_not_cells() -> None:
    smallest = [s.independent(np.arange(g) + 10.0, np.arange(g) * 1.1).p_permutation for g in (3, 4, 5)]
    assert smallest == pytest.approx([0.10, 2 / 70, 2 / 252])
    assert "replicates" in s.independent([1.0], [2.0, 3.0]).reason
    assert s.independent([1.0, 1.0], [1.0, 1.0]).reason


def test_two_way_test_holds_its_level_where_pooling_does_not(rng: np.random.Generator) -> None:
    """Science.md's false-positive table in small: persistent per-cell and per-frame errors, no true difference."""
    cells, frames, runs = 30, 20, 120
    cell, frame = (index.ravel() for index in np.indices((cells, frames)))
    rejected = np.zeros(2)
    for _ in range(runs):
        per_cell, per_frame = rng.normal(0, 1, cells)[cell], rng.normal(0, 0.4, frames)[frame]
        d = per_cell + per_frame + rng.normal(0, 0.5, cell.size)
        rejected += [s.clustered_mean(d, cell, frame).p < 0.05, s.signed_rank(d).p < 0.05]
    assert rejected[0] / runs <= 0.11
    assert rejected[1] / runs >= 0.4
