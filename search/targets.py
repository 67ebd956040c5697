"""From crops of instance labels to what each network learns, and from its scores to a foreground."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from postprocess import star, three_class, two_class
from postprocess.prediction import Prediction, quantise

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

EARLY_STAR = star.Params(probability=0.3)
"""How validation crops are decoded while a star network learns: probabilities rise late, at .5 it is empty."""


def encode(target: str, labels: NDArray[np.int32], *, gap: bool = False) -> NDArray[np.generic]:
    """Training target of ``(N, Y, X)`` instance labels; `gap` parts touching cells of three_class by one pixel first.

    Returns ``(N, Y, X)`` uint8 classes for two_class and three_class, ``(N, 1 + R, Y / 2, X / 2)`` float32 for star.
    """
    if target == "two_class":
        return two_class.encode(labels)
    if target == "three_class":
        return np.stack([three_class.encode(crop, paper_gap=gap) for crop in labels])
    return star.encode_batch(labels)


def to_predictions(target: str, scores: torch.Tensor, shape: tuple[int, int]) -> list[Prediction]:
    """Quantised predictions of raw scores ``(N, K, Y', X')``, cropped to ``shape`` pixels; one Prediction per image.

    Ray lengths are 0 where the object probability is at or below the lowest one that decoding ever tries.
    """
    scores = scores.detach().float().cpu()
    grid = star.STRIDE if target == "star" else 1
    rows, columns = -(-shape[0] // grid), -(-shape[1] // grid)
    scores = scores[..., :rows, :columns]
    if target == "three_class":
        return [Prediction(quantise(p), None, 1, shape) for p in scores.softmax(dim=1).numpy()]
    if target == "two_class":
        return [Prediction(quantise(p), None, 1, shape) for p in scores.sigmoid().numpy()]
    predictions = []
    for image in scores.numpy():
        probability = quantise(1 / (1 + np.exp(-image[:1].clip(-30, 30))))
        distance = np.where(probability > star.LOWEST_PROBABILITY * 255, image[1:].clip(0, 60000), 0).astype(np.float16)
        predictions.append(Prediction(probability, distance, grid, shape))
    return predictions


@dataclass
class Overlap:
    """Intersections and unions summed over crops: count first, score after."""

    intersection: int = 0
    union: int = 0
    per_image: list[float] | None = None
    core_intersection: int = 0
    core_union: int = 0

    def add(self, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> None:
        """Count one image, ``(Y, X)`` masks; an empty image without prediction scores 1, with one 0."""
        both, either = int((truth & predicted).sum()), int((truth | predicted).sum())
        self.intersection += both
        self.union += either
        self.per_image = [*(self.per_image or []), both / either if either else 1.0]

    def add_core(self, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> None:
        """Count the cell cores of one image."""
        self.core_intersection += int((truth & predicted).sum())
        self.core_union += int((truth | predicted).sum())

    @property
    def dataset_iou(self) -> float:
        """Foreground IoU over all images; 1 where nothing is there and nothing is predicted."""
        return self.intersection / self.union if self.union else 1.0

    @property
    def per_image_iou(self) -> float:
        """Mean foreground IoU of the images."""
        return float(np.mean(self.per_image)) if self.per_image else float("nan")

    @property
    def core_iou(self) -> float:
        """Core IoU over all images (three_class)."""
        return self.core_intersection / self.core_union if self.core_union else 1.0


def count(target: str, scores: torch.Tensor, labels: NDArray[np.int32], overlap: Overlap, *, gap: bool = False) -> None:
    """Add the foreground overlap of ``(N, K, Y', X')`` scores with ``(N, Y, X)`` labels to `overlap`.

    The foreground of star is the union of its decoded polygons; with `gap` the cores are those of the parted cells.
    """
    shape = (labels.shape[1], labels.shape[2])
    if target == "two_class":
        for mask, truth in zip((scores[:, 0] > 0).cpu().numpy(), labels > 0, strict=True):
            overlap.add(truth, mask)
    elif target == "three_class":
        for classes, crop in zip(scores.argmax(dim=1).cpu().numpy(), labels, strict=True):
            overlap.add(crop > 0, classes > 0)
            overlap.add_core(three_class.encode(crop, paper_gap=gap) == 1, classes == 1)
    else:
        for prediction, crop in zip(to_predictions(target, scores, shape), labels, strict=True):
            overlap.add(crop > 0, star.decode(prediction, EARLY_STAR) > 0)


def rung_metric(target: str, overlap: Overlap) -> float:
    """Return what early stopping compares within one target: foreground IoU, three_class: mean with core IoU."""
    if target == "three_class":
        return (overlap.dataset_iou + overlap.core_iou) / 2
    return overlap.dataset_iou
