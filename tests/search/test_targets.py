"""Targets in batches, predictions from scores, the overlap early stopping is driven by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from postprocess import methods
from search import targets


def two_cells() -> np.ndarray:
    """Two touching discs of radius 5 in the first image, nothing in the second."""
    rows, columns = np.mgrid[:32, :32]
    labels = np.zeros((2, 32, 32), np.int32)
    for cell, middle in enumerate((9, 20), start=1):
        labels[0][(rows - 12) ** 2 + (columns - middle) ** 2 <= 5.5**2] = cell
    return labels


def perfect_scores(target: str, labels: np.ndarray) -> torch.Tensor:
    """Scores of a network without error: large logits, true rays."""
    encoded = torch.from_numpy(targets.encode(target, labels))
    if target == "two_class":
        return (encoded.float()[:, None] * 2 - 1) * 20
    if target == "three_class":
        return (torch.nn.functional.one_hot(encoded.long(), 3).movedim(-1, 1).float() * 2 - 1) * 20
    scores = encoded.clone()
    scores[:, 0] = torch.logit(encoded[:, 0].clamp(1e-6, 1 - 1e-6))
    return scores


@pytest.mark.parametrize(
    ("target", "shape", "dtype"),
    [
        ("two_class", (2, 32, 32), np.uint8),
        ("three_class", (2, 32, 32), np.uint8),
        ("star", (2, 33, 16, 16), np.float32),
    ],
)
def test_shapes_of_encoded_batches(target: str, shape: tuple[int, ...], dtype: type) -> None:
    encoded = targets.encode(target, two_cells())
    assert encoded.shape == shape
    assert encoded.dtype == dtype


@pytest.mark.parametrize("target", methods.TARGETS)
def test_perfect_scores_give_both_cells_back(target: str) -> None:
    labels = two_cells()
    predictions = targets.to_predictions(target, perfect_scores(target, labels), (32, 32))
    module = methods.target_named(target)
    cells = [module.decode(p, module.Params()) for p in predictions]
    assert [len(np.unique(c)) - 1 for c in cells] == [2, 0]


@pytest.mark.parametrize("target", methods.TARGETS)
def test_perfect_scores_have_a_rung_metric_near_one(target: str) -> None:
    labels, overlap = two_cells(), targets.Overlap()
    targets.count(target, perfect_scores(target, labels), labels, overlap)
    assert targets.rung_metric(target, overlap) > 0.9


def test_empty_images_count_one_when_left_empty_and_zero_otherwise() -> None:
    overlap = targets.Overlap()
    nothing, something = np.zeros((4, 4), bool), np.eye(4, dtype=bool)
    overlap.add(nothing, nothing)
    assert (overlap.dataset_iou, overlap.per_image_iou) == (1.0, 1.0)
    overlap.add(nothing, something)
    assert (overlap.dataset_iou, overlap.per_image_iou) == (0.0, 0.5)


def test_rays_are_not_stored_where_decoding_never_looks() -> None:
    scores = torch.zeros(1, 33, 4, 4)
    scores[:, 0] = -20.0
    scores[:, 0, 1, 1] = 20.0
    scores[:, 1:] = 5.0
    prediction = targets.to_predictions("star", scores, (8, 8))[0]
    assert prediction.distance is not None
    assert (prediction.distance[:, 1, 1] == 5).all()
    assert np.count_nonzero(prediction.distance) == 32


def test_scores_are_cropped_to_the_frame() -> None:
    prediction = targets.to_predictions("three_class", torch.zeros(1, 3, 64, 64), (50, 61))[0]
    assert prediction.probability.shape == (3, 50, 61)
    assert targets.to_predictions("star", torch.zeros(1, 33, 32, 32), (49, 61))[0].probability.shape == (1, 25, 31)
