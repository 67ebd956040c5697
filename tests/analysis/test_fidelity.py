"""Trait fidelity: planted errors come out as they were planted, and IoU does not see them."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.fidelity import fidelity, natural_spread, pareto_front


def test_planted_bias_and_detection_errors_add_up(rng: np.random.Generator) -> None:
    true = rng.normal(0.9, 0.05, 400)
    sigma = natural_spread("circularity", true)
    got = fidelity("circularity", true + 0.5 * sigma, true, np.arange(400) % 20, missed=60, invented=40, sigma=sigma)
    assert got.bias.mean == pytest.approx(0.5)
    assert got.matched == pytest.approx(np.sqrt(400 * 0.25 / 500))
    assert got.detection == pytest.approx(np.sqrt(100 / 500))
    assert got.tfe == pytest.approx(np.hypot(got.matched, got.detection))
    assert got.match_rate == pytest.approx(400 / 460)


def test_guessing_the_mean_costs_one(rng: np.random.Generator) -> None:
    true = rng.normal(0.8, 0.05, 20_000)
    got = fidelity("solidity", np.full_like(true, 0.8), true, missed=0, invented=0, sigma=true.std())
    assert got.tfe == pytest.approx(1, abs=0.02)


def test_sizes_are_compared_as_ratios() -> None:
    true = np.geomspace(100, 800, 50)
    sigma = natural_spread("area", true)
    got = fidelity("area", 0.9 * true, true, missed=0, invented=0, sigma=sigma)
    assert got.tfe == pytest.approx(-np.log(0.9) / sigma)


def test_one_wild_cell_counts_no_more_than_three() -> None:
    true = np.array([1.0, 2, 3, 4])
    assert fidelity("circularity", [1, 2, 3, 400], true, missed=0, invented=0, sigma=1).tfe == pytest.approx(1.5)


def test_undefined_traits_are_dropped_and_counted() -> None:
    got = fidelity("circularity", [0.9, np.nan], [0.8, 0.9], missed=0, invented=0, sigma=0.1)
    assert (got.dropped, got.n_matched) == (1, 1)


@pytest.mark.parametrize(("sigma", "reason"), [(0.0, "does not vary"), (float("nan"), "does not vary")])
def test_no_spread_no_number(sigma: float, reason: str) -> None:
    got = fidelity("area", [1.0], [1.0], missed=0, invented=0, sigma=sigma)
    assert reason in got.reason
    assert np.isnan(got.tfe)


def test_front_keeps_what_nothing_beats() -> None:
    assert pareto_front([0.9, 0.8, 0.7, np.nan], [0.3, 0.2, 0.4, 0.1]).tolist() == [True, True, False, False]
