"""Ties between candidates: paired, clustered intervals decide, and too few clusters are said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from analysis.scores import Counts, frame_counts
from search.top_set import standing

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

CLUSTERS: list[Hashable] = [f"field {i}" for i in range(8)]


def counts(*overlaps: float) -> list[Counts]:
    """Frames of 100 cell pixels in a row of 200, of which the prediction covers these shares."""
    made = []
    for share in overlaps:
        truth, found = np.zeros((1, 200), np.int32), np.zeros((1, 200), np.int32)
        truth[0, :100] = 1
        found[0, : round(100 * share)] = 1
        made.append(frame_counts(truth, found))
    return made


def stand(clusters: list[Hashable] = CLUSTERS, objective: str = "iou", **candidates: Any) -> dict[str, Any]:
    values = {name: float(np.mean([c.shared / c.union for c in frames])) for name, frames in candidates.items()}
    best = max(values, key=lambda name: values[name])
    return standing(objective, values, candidates, clusters, best)


NOISE = np.array([0.03, -0.02, 0.01, -0.03, 0.02, -0.01, 0.04, -0.04])


def test_a_small_lead_that_changes_sign_from_field_to_field_is_a_tie() -> None:
    found = stand(a=counts(*(0.89 + NOISE)), b=counts(*(0.889 - NOISE)), c=counts(*(0.6 + NOISE)))
    assert [row["trial"] for row in found["candidates"]] == ["a", "b", "c"]
    assert [row["trial"] for row in found["top"]] == ["a", "b"]
    assert found["ranked"]
    assert found["sentence"].startswith("Top set of 2")
    assert not found["candidates"][2]["tie"]  # the same lead in every field leaves no scatter to test against
    assert found["candidates"][0]["low"] < 0.89 < found["candidates"][0]["high"]


def test_a_small_lead_in_every_field_is_no_tie_because_fields_are_compared_with_themselves() -> None:
    found = stand(a=counts(*(0.87 + NOISE)), b=counts(*(0.85 + 0.8 * NOISE)))
    a, b = found["candidates"]
    assert a["low"] < b["value"]  # the intervals of the values overlap
    assert [row["trial"] for row in found["top"]] == ["a"]
    assert "excludes 0" in found["sentence"]


def test_below_five_clusters_nothing_is_ranked_and_the_choice_says_so() -> None:
    found = stand([f"field {i % 4}" for i in range(8)], a=counts(*[0.9] * 8), b=counts(*[0.2] * 8))
    assert not found["ranked"]
    assert found["top"] == []
    assert found["sentence"].startswith("Cannot rank: 4 validation clusters")
    assert "point estimate" in found["sentence"]
    assert found["candidates"][0]["low"] is None


def test_frames_of_one_field_count_as_one_cluster() -> None:
    assert stand(["one"] * 8, a=counts(*[0.9] * 8), b=counts(*[0.2] * 8))["clusters"] == 1


def by_trait(clusters: list[Hashable], **errors: list[float]) -> dict[str, Any]:
    """Stand of candidates whose trait fidelity error is the mean of these errors of the frames."""

    def estimate(values: list[float]) -> Callable[[Sequence[int]], float]:
        return lambda frames: -float(np.mean([values[i] for i in frames]))

    estimates = {name: estimate(values) for name, values in errors.items()}
    values = {name: found(range(len(clusters))) for name, found in estimates.items()}
    best = max(values, key=lambda name: values[name])
    return standing("trait:area", values, {name: [] for name in errors}, clusters, best, estimates)


def test_candidates_tie_by_a_traits_error_as_the_paired_t_test_says() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(0.5, 0.2, 8)
    near, far = base + rng.normal(0.01, 0.05, 8), base + rng.normal(0.1, 0.05, 8)
    found = by_trait(CLUSTERS, a=list(base), near=list(near), far=list(far))
    rows = {row["trial"]: row for row in found["candidates"]}
    from scipy.stats import ttest_1samp

    for name, values in (("near", near), ("far", far)):
        lead = ttest_1samp(values - base, 0).confidence_interval(0.95).low
        assert rows[name]["tie"] == (lead <= 0)
    assert not rows["far"]["tie"]
    interval = ttest_1samp(-base, 0).confidence_interval(0.95)
    assert (rows["a"]["low"], rows["a"]["high"]) == pytest.approx(tuple(interval), rel=1e-9)


def test_below_five_clusters_a_trait_ranks_nothing() -> None:
    found = by_trait([f"field {i % 4}" for i in range(8)], a=[0.1] * 8, b=[0.9] * 8)
    assert not found["ranked"]
    assert found["sentence"].startswith("Cannot rank: 4")
