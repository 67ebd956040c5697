"""Matching equals StarDist's, and counts exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis.matching import match, overlap
from data_io.errors import BadInput

LABELS = hnp.arrays(np.int32, (9, 9), elements=st.integers(0, 5))


@settings(max_examples=60, deadline=None)
@given(LABELS, LABELS)
def test_pairs_are_what_counting_one_by_one_gives(truth: np.ndarray, pred: np.ndarray) -> None:
    found = overlap(truth, pred)
    for row, col, shared in zip(found.rows, found.cols, found.shared, strict=True):
        assert shared == np.sum((truth == found.truth_ids[row]) & (pred == found.pred_ids[col]))
    assert found.truth_area.tolist() == [int(np.sum(truth == i)) for i in found.truth_ids]
    assert found.pred_area.sum() == np.count_nonzero(pred)


def test_a_competition_at_exactly_one_half_keeps_as_many_pairs_as_possible() -> None:
    truth, pred = np.zeros((2, 8), int), np.zeros((2, 8), int)
    truth[0, 0:4] = 1
    pred[0, 0:2], pred[0, 2:4] = 1, 2
    assert match(truth, pred).tp == 1
    assert match(truth, pred, strict=True).tp == 0


def test_huge_label_values_and_gaps_cost_nothing() -> None:
    truth = np.zeros((4, 4), np.int64)
    truth[:2], truth[2:] = 7, 2_000_000_000
    found = match(truth, truth)
    assert found.truth.tolist() == found.pred.tolist() == [7, 2_000_000_000]


def test_low_thresholds_are_assigned_exactly() -> None:
    truth, pred = np.zeros((1, 12), int), np.zeros((1, 12), int)
    truth[0, 0:6], truth[0, 6:12] = 1, 2
    pred[0, 0:4], pred[0, 4:12] = 1, 2
    found = match(truth, pred, threshold=0.1)
    assert list(zip(found.truth.tolist(), found.pred.tolist(), strict=True)) == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("pred", "words"),
    [
        (np.zeros((3, 3), int), "shapes"),
        (np.zeros((2, 2)), "not an integer type"),
        (np.full((2, 2), -1), "negative"),
    ],
)
def test_bad_labels_are_refused_in_one_line(pred: np.ndarray, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        match(np.zeros((2, 2), int), pred)
