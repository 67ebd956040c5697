"""The choice between quality, trait fidelity and size, on points made so that the answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from analysis.fidelity import pareto_front
from search import pareto
from search.config import load
from search.pareto import Point
from search.results import winner_of

GOOD = Point("good", 0.90, 0.30, 0.01, 0.02, 20_000_000)


def point(trial: str, pq: float, tfe: float, size: float = 20, se: float = 0.01) -> Point:
    return Point(trial, pq, tfe, se, se, round(size * 1e6))


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=12)
    error = pareto.jackknife(lambda frames: float(values[list(frames)].mean()), range(12), 5)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(12), rel=1e-12)


def test_frames_of_one_field_are_one_cluster_and_four_clusters_give_no_error() -> None:
    values = np.repeat([1.0, 2.0, 4.0, 8.0, 16.0], 3)

    def mean(frames: Any) -> float:
        return float(values[list(frames)].mean())

    fields = [f"field {i // 3}" for i in range(15)]
    assert pareto.jackknife(mean, fields, 5) == pytest.approx(np.std(values[::3], ddof=1) / np.sqrt(5), rel=1e-12)
    assert math.isnan(pareto.jackknife(mean, fields[:12] + fields[:3], 5))


def test_the_front_has_exactly_what_nothing_beats_in_all_three() -> None:
    rng = np.random.default_rng(1)
    points = [Point(f"t{i}", *rng.integers(0, 6, 2) / 10, 0.0, 0.0, int(rng.integers(1, 5))) for i in range(80)]

    def beaten(p: Point) -> bool:
        def gains(q: Point) -> tuple[float, float, int]:
            return q.pq - p.pq, p.tfe - q.tfe, p.parameters - q.parameters

        return any(min(gains(q)) >= 0 and max(gains(q)) > 0 for q in points)

    assert {p.trial for p in pareto.front(points)} == {p.trial for p in points if not beaten(p)}
    same_size = [Point(p.trial, p.pq, p.tfe, 0.0, 0.0, 1) for p in points]
    flat = pareto_front([p.pq for p in points], [p.tfe for p in points])
    assert {p.trial for p in pareto.front(same_size)} == {p.trial for p, on in zip(points, flat, strict=True) if on}


def test_the_smallest_network_within_one_standard_error_of_both_is_chosen() -> None:
    small, blurred, poor = point("small", 0.893, 0.31, 3), point("blurred", 0.895, 0.40, 2), point("poor", 0.5, 0.3, 1)
    assert pareto.best_of([GOOD, small, blurred, poor]) is GOOD
    assert pareto.choose([GOOD, small, blurred, poor]) is small
    found = pareto.standing("pareto:circularity", [GOOD, small, blurred, poor], 6, 5)
    assert (found["chosen"], found["candidates"][0]["trial"]) == ("small", "small")
    assert {row["trial"] for row in found["top"]} == {"good", "small"}
    assert set(found["front"]) == {"good", "small", "blurred", "poor"}
    assert "smallest network (3.00 M parameters) within one standard error of good" in found["sentence"]


def test_without_standard_errors_nothing_is_ranked_and_the_nearest_to_both_bests_is_chosen() -> None:
    points = [point("pq", 0.95, 0.60, se=math.nan), point("both", 0.94, 0.35, se=math.nan)]
    points.append(point("tfe", 0.60, 0.30, 1, se=math.nan))
    found = pareto.standing("pareto:area", points, 3, 5)
    assert (found["chosen"], found["ranked"], found["top"]) == ("both", False, [])
    assert found["sentence"].startswith("Cannot rank: 3 validation clusters")


@pytest.mark.parametrize("tfe", [math.nan, math.inf])
def test_a_trait_that_could_not_be_measured_is_never_the_choice(tfe: float) -> None:
    found = pareto.standing("pareto:area", [point("blind", 0.9, tfe, 1), point("seen", 0.8, 0.4)], 6, 5)
    assert found["chosen"] == "seen"
    alone = pareto.standing("pareto:area", [point("blind", 0.9, tfe, 1)], 6, 5)
    assert "unknown" in alone["sentence"]


def test_equal_candidates_are_settled_by_name() -> None:
    points = [point("b", 0.9, 0.3), point("a", 0.9, 0.3)]
    assert pareto.choose(points).trial == pareto.choose(points[::-1]).trial == "a"


def test_across_targets_the_balance_decides_not_pq_alone() -> None:
    rows = {"star": (0.95, 0.9), "three_class": (0.94, 0.2), "two_class": (0.3, 0.19)}
    standings = {t: {"candidates": [{"pq": q, "tfe": e, "parameters": 1}]} for t, (q, e) in rows.items()}
    configuration = {"architecture": "unet", "encoder": "resnet18"}
    targets = {t: {"objective": q, "configuration": configuration} for t, (q, _) in rows.items()}
    found = winner_of(targets, "pareto:circularity", 6, standings)
    assert found["target"] == "three_class"
    assert "best balance of PQ and trait fidelity of circularity" in found["sentence"]


def test_the_objective_is_known_for_every_trait() -> None:
    assert load("demo", None, ["objective=pareto:solidity"]).objective == "pareto:solidity"
