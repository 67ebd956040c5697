"""More published numbers, statsmodels as the reference of clustered errors, intervals that hold planted truths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import statistics as s
from analysis.agreement import _distribution_distance
from analysis.fidelity import costs, difference, fidelity, interval
from data_io.errors import BadInput

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "reference" / "stat_vectors.json").read_text())
MAY = [41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37]
AUGUST = [39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85]


def test_ozone_of_r() -> None:
    """R's ?wilcox.test: W = 127.5, p-value = 0.0001208."""
    found = s.mann_whitney(MAY, AUGUST)
    assert found.statistic == 127.5
    assert found.p == pytest.approx(0.0001208, abs=5e-8)


def test_sleep_unpaired_of_r() -> None:
    """R's ?t.test: t = -1.8608, df = 17.776, p-value = 0.07939, interval -3.3654832 to 0.2054832."""
    v = VECTORS["student_sleep_paired_t"]
    got = s.independent(v["g1"], v["g2"])
    assert (got.statistic, got.df, got.p) == pytest.approx((-1.8608, 17.776, 0.07939), abs=5e-4)
    assert (got.low, got.high) == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert got.difference == pytest.approx(-1.58)


def test_cliffs_delta_of_effsize() -> None:
    """R's effsize::cliff.delta prints -0.25 for its example."""
    treatment, control = [10, 10, 20, 20, 20, 30, 30, 30, 40, 50], [10, 20, 30, 40, 40, 50]
    assert s.mann_whitney(treatment, control).delta == pytest.approx(-0.25)


def test_concordance_with_both_moments() -> None:
    v = VECTORS["bland_altman_1986_pefr"]
    got = s.ccc(v["wright"], v["mini"])
    x, y = np.array(v["wright"]), np.array(v["mini"])
    assert got.mean == pytest.approx(v["lin_ccc_1_over_n"])
    unbiased = 2 * np.cov(x, y)[0, 1] / (x.var(ddof=1) + y.var(ddof=1) + (x.mean() - y.mean()) ** 2)
    assert unbiased == pytest.approx(v["lin_ccc_1_over_n_minus_1"])
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(v["pearson_r"])


def test_distances_of_distributions() -> None:
    import pandas as pd
    from scipy.stats import ks_2samp

    v = VECTORS["wasserstein_scipy_doc"]
    assert _distribution_distance(pd.Series(v["a"]), pd.Series(v["b"])) == pytest.approx((v["w1"], 1.0))
    x, y = np.array(MAY, float), np.array(AUGUST, float)
    assert _distribution_distance(pd.Series(x), pd.Series(y))[1] == pytest.approx(ks_2samp(x, y).statistic)


def test_variance_components_of_dyestuff() -> None:
    v = VECTORS["dyestuff_lmm_reml"]
    y = np.array(v["y_by_batch"], float)
    within = np.mean(y.var(axis=1, ddof=1))
    between = y.mean(axis=1).var(ddof=1) - within / y.shape[1]
    assert (between, within) == pytest.approx((v["var_batch"], v["var_resid"]), rel=1e-4)
    assert s.cluster_icc(y.ravel(), np.repeat(np.arange(6), 5)) == pytest.approx(between / (between + within))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(5, 12), st.integers(5, 9))
def test_clustered_errors_are_those_of_statsmodels(seed: int, cells: int, frames: int) -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(seed)
    cell, frame = (index.ravel() for index in np.indices((cells, frames)))
    kept = rng.random(cell.size) < 0.8
    cell, frame = cell[kept], frame[kept]
    d = rng.normal(0, 1, cells)[cell] + rng.normal(0, 0.7, frames)[frame] + rng.normal(0, 0.5, len(cell)) + 0.3
    model = sm.OLS(d, np.ones(len(d)))
    one = model.fit(cov_type="cluster", cov_kwds={"groups": cell}, use_t=True)
    ours = s.clustered_mean(d, cell)
    assert (ours.mean, ours.se, ours.p) == pytest.approx((one.params[0], one.bse[0], one.pvalues[0]))
    assert ours.ci == pytest.approx(tuple(one.conf_int()[0]))
    two = model.fit(cov_type="cluster", cov_kwds={"groups": np.column_stack([cell, frame])})
    assert s.clustered_mean(d, cell, frame).se == pytest.approx(two.bse[0])


def test_a_difference_of_means_in_shared_clusters_is_that_of_statsmodels(rng: np.random.Generator) -> None:
    sm = pytest.importorskip("statsmodels.api")
    group = [np.repeat(np.arange(8), 12), np.repeat(np.arange(8), 7)]
    x, y = (rng.normal(0, 1, 8)[g] + rng.normal(at, 1, len(g)) for at, g in enumerate(group))
    design = np.column_stack([np.ones(96 + 56), np.repeat([1, 0], [96, 56])])
    groups = np.concatenate(group)
    fit = sm.OLS(np.concatenate([x, y]), design).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    got = s.clustered_difference(x, y, [group[0]], [group[1]])
    n = len(groups)
    correction = np.sqrt((n - 2) / (n - 1))  # statsmodels counts two parameters
    assert (got.mean, got.se) == pytest.approx((fit.params[1], fit.bse[1] * correction))


def test_a_mixed_model_agrees_on_balanced_clusters() -> None:
    sm = pytest.importorskip("statsmodels.api")
    v = VECTORS["dyestuff_lmm_reml"]
    y, batch = np.ravel(v["y_by_batch"]).astype(float), np.repeat(np.arange(6), 5)
    fit = sm.MixedLM(y, np.ones(30), groups=batch).fit(reml=True)
    assert s.clustered_mean(y, batch).se == pytest.approx(fit.bse_fe[0], rel=1e-3)


def test_pairs_of_other_lengths_are_refused() -> None:
    for function in (s.bland_altman, s.ccc):
        with pytest.raises(BadInput, match="3 and 4 values; a pair is the same cell measured twice"):
            function([1, 2, 3], [1, 2, 3, 4])


def test_sign_flips_are_exact_for_few_pairs() -> None:
    assert s.sign_flips([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 32)
    assert np.isnan(s.sign_flips([0.0, 0.0]))


def test_limits_of_agreement_hold_95_percent_of_cells(rng: np.random.Generator) -> None:
    d = rng.normal(2, 3, 5000)
    found = s.bland_altman(d, np.zeros(5000))
    assert np.mean((d > found.lower.mean) & (d < found.upper.mean)) == pytest.approx(0.95, abs=0.01)


def test_intervals_of_limits_and_fidelity_hold_planted_truths(rng: np.random.Generator) -> None:
    """Twelve frames of 30 cells, errors shared within frames; 94 to 96 % expected, 89 % allowed in 300 runs."""
    runs, frames, cells = 300, 12, 30
    frame = np.repeat(np.arange(frames), cells)
    sd, bias = np.sqrt(0.3**2 + 0.5**2), 0.2
    exact = np.sqrt(bias**2 + sd**2)
    held = np.zeros(3)
    for _ in range(runs):
        true = rng.normal(0, 1, frame.size)
        e = bias + rng.normal(0, 0.3, frames)[frame] + rng.normal(0, 0.5, frame.size)
        limits = s.bland_altman(true + e, true, frame)
        whole = interval(costs("circularity", true + e, true, 0, 1.0), frame)
        held += [
            limits.bias.low <= bias <= limits.bias.high,
            limits.upper.low <= bias + 1.96 * sd <= limits.upper.high,
            whole.low <= exact <= whole.high,
        ]
    assert (held / runs >= 0.89).all(), held / runs


def test_interval_of_fidelity_is_about_its_value(rng: np.random.Generator) -> None:
    true, frame = rng.normal(0.8, 0.05, 200), np.arange(200) % 10
    predicted = true + rng.normal(0.01, 0.02, 200)
    whole = fidelity("solidity", predicted, true, frame, missed=6, invented=4, sigma=0.05)
    cost = costs("solidity", predicted, true, 10, 0.05)
    found = interval(cost, np.concatenate([frame, np.arange(10)]))
    assert found.mean == pytest.approx(whole.tfe)
    assert 0 < found.low < whole.tfe < found.high
    assert interval([0.0] * 9).reason == "all values are equal"
    assert np.isnan(costs("area", [1.0], [1.0], 1, 0.0)).all()


def test_two_methods_of_equal_fidelity_are_told_apart_in_one_of_twenty_only(rng: np.random.Generator) -> None:
    runs, frames, cells = 300, 10, 25
    frame, rejected = np.repeat(np.arange(frames), cells), 0
    for _ in range(runs):
        shared = rng.normal(0, 0.3, frames)[frame]
        one, two = (costs("circularity", shared + rng.normal(0, 0.5, frame.size), 0 * shared, 5, 1.0) for _ in range(2))
        codes = [np.concatenate([frame, rng.integers(0, frames, 5)])]
        rejected += difference(one, two, codes, codes).p < 0.05
    assert 3 <= rejected <= 28
