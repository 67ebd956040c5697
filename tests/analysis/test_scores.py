"""Scores equal stardist.matching and the published vectors; the empty rule holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis.scores import KEYS, THRESHOLDS, clusters_of, frame_counts, iou_score, pq_score, score

VECTORS = json.loads((Path(__file__).parents[1] / "reference" / "metric_vectors.json").read_text())
LABELS = hnp.arrays(np.int32, (8, 8), elements=st.integers(0, 4))


def _draw(shape: tuple[int, int], boxes: dict[str, str]) -> np.ndarray:
    image = np.zeros(shape, np.int32)
    for label, box in boxes.items():
        rows, cols = (tuple(map(int, part.split(":"))) for part in box.strip("[]").split(","))
        image[slice(*rows), slice(*cols)] = int(label)
    return image


def test_instance_vector() -> None:
    vector = VECTORS["instance_20x20"]
    truth, pred = _draw((20, 20), vector["gt"]), _draw((20, 20), vector["pred"])
    got, expected = score([frame_counts(truth, pred)]), vector["thr0.5_stardist"]
    assert got["f1_50"] == pytest.approx(expected["f1"])
    assert got["pq_50"] == pytest.approx(expected["pq"])
    assert got["sq_50"] == pytest.approx(expected["sq"])
    assert got["rq_50"] == pytest.approx(expected["rq"])
    assert got["ap"] == pytest.approx(vector["mean_AP_0.5_0.95"])
    assert (got["n_truth"], got["n_pred"]) == (2, 3)
    strict = score([frame_counts(truth, pred, strict=True)])
    assert strict["pq_50"] == pytest.approx(vector["thr0.5_strict_kirillov"]["pq"])


@pytest.mark.parametrize("third", ["c_pred_empty", "c_pred_one_pixel"])
def test_empty_rule_vector(third: str) -> None:
    truths = [_draw((10, 10), box) for box in ({"1": "[0:5,0:10]"}, {"1": "[0:2,0:5]"}, {})]
    preds = [_draw((10, 10), box) for box in ({"1": "[0:4,0:10]"}, {"1": "[0:2,0:10]"}, {})]
    expected = VECTORS["smp_iou"][third]
    if third == "c_pred_one_pixel":
        preds[2][0, 0] = 1
    got = score([frame_counts(t, p) for t, p in zip(truths, preds, strict=True)])
    assert got["dataset_iou"] == pytest.approx(expected["dataset_iou_micro"])
    assert got["per_image_iou"] == pytest.approx(expected.get("per_image_zero_div_1", expected.get("per_image")))
    if "dice_micro" in expected:
        assert got["dice"] == pytest.approx(expected["dice_micro"])


@settings(max_examples=60, deadline=None)
@given(LABELS, LABELS)
def test_one_frame_equals_stardist(truth: np.ndarray, pred: np.ndarray) -> None:
    matching = pytest.importorskip("stardist.matching").matching
    if not truth.any() or not pred.any():
        return
    got, levels = score([frame_counts(truth, pred)]), matching(truth, pred, thresh=THRESHOLDS)
    assert got["f1_50"] == pytest.approx(levels[0].f1, abs=1e-6)
    assert got["pq_50"] == pytest.approx(levels[0].panoptic_quality, abs=1e-6)
    assert got["sq_50"] == pytest.approx(levels[0].mean_matched_score, abs=1e-6)
    assert got["ap"] == pytest.approx(np.mean([level.accuracy for level in levels]), abs=1e-6)
    assert pq_score([truth], [pred]) == pytest.approx(got["pq_50"])
    assert iou_score([truth], [pred]) == pytest.approx(got["dataset_iou"])


def test_frames_pool_like_stardist(rng: np.random.Generator) -> None:
    matching = pytest.importorskip("stardist.matching")
    truths = [np.kron(rng.integers(0, 6, (5, 5)), np.ones((6, 6), int)) for _ in range(6)]
    preds = [np.where(rng.random(t.shape) < 0.1, 0, t) for t in truths]
    got = score([frame_counts(t, p) for t, p in zip(truths, preds, strict=True)])
    expected = matching.matching_dataset(truths, preds, show_progress=False)
    assert got["pq_50"] == pytest.approx(expected.panoptic_quality, abs=1e-6)
    assert all(got[f"{key}_ci"][0] <= got[key] <= got[f"{key}_ci"][1] for key in ("dataset_iou", "pq_50", "dice"))


def test_few_frames_carry_no_interval_but_a_reason() -> None:
    truth = _draw((20, 20), {"1": "[2:8,2:8]"})
    got = score([frame_counts(truth, truth)] * 2)
    assert got["pq_50_ci"] is None
    json.dumps(got, allow_nan=False)
    assert "descriptive only" in got["pq_50_ci_reason"]


def test_frames_of_one_field_are_one_cluster(rng: np.random.Generator) -> None:
    truths = [(rng.random((20, 20)) < 0.5).astype(int) for _ in range(12)]
    counts = [frame_counts(t, np.where(rng.random(t.shape) < 0.2, 0, t)) for t in truths]
    assert score(counts, ["a", "b", "c"] * 4)["n_clusters"] == 3
    frames = [(name, frame) for frame in range(4) for name in "abc"]
    few = score(counts, clusters_of(frames))
    assert (few["n_clusters"], few["pq_50_ci"]) == (3, None)
    assert score(counts, clusters_of([("a", frame) for frame in range(12)]))["n_clusters"] == 12
    assert clusters_of([]) == []


def test_nothing_at_all() -> None:
    empty = np.zeros((5, 5), int)
    both_empty = score([frame_counts(empty, empty)])
    assert all(both_empty[key] == 1 for key in KEYS if key != "count_error")
    assert both_empty["count_error"] == 0
    false_alarm = score([frame_counts(empty, _draw((5, 5), {"1": "[0:1,0:1]"}))])
    assert false_alarm["dataset_iou"] == false_alarm["per_image_iou"] == false_alarm["pq_50"] == 0
    assert score([])["pq_50"] is None
