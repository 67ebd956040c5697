"""Segmentation scores: count each frame first, score all frames after.

The empty rule, in one place (`_ratio`): an empty truth met by an empty prediction scores 1; an empty truth with
any false positive scores 0. Libraries disagree here (smp NaN or 1, torchmetrics 0, stardist 0).
A cell counts as found when IoU >= threshold, as in `stardist.matching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.matching import Labels, match_overlap, overlap
from analysis.statistics import Estimate, clustered_mean

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from numpy.typing import NDArray

THRESHOLDS = tuple(k / 20 for k in range(10, 20))
"""IoU thresholds of AP: .50, .55, ... .95; F1 and PQ use the first."""

EMPTY_RULE = "Empty truth and empty prediction count 1; empty truth with any false-positive pixel counts 0."

KEYS = ("dataset_iou", "per_image_iou", "dice", "f1_50", "pq_50", "sq_50", "rq_50", "ap", "count_error")
"""The scores of `score` that carry an interval `<key>_ci`; all lie in 0..1 but the signed `count_error`."""


@dataclass(frozen=True)
class Counts:
    """What one frame contributes to every score.

    Attributes
    ----------
    shared, union, truth_px, pred_px
        Foreground pixels in both, in either, in the truth, in the prediction.
    n_truth, n_pred
        Cells.
    tp
        Matched cells at each of `THRESHOLDS`.
    iou_sum
        Summed IoU of the cells matched at 0.5.
    """

    shared: int
    union: int
    truth_px: int
    pred_px: int
    n_truth: int
    n_pred: int
    tp: tuple[int, ...]
    iou_sum: float


def frame_counts(truth: Labels, pred: Labels, strict: bool = False) -> Counts:
    """Count one frame.

    Parameters
    ----------
    truth, pred
        `(Y, X)` integers, 0 background, each positive value a cell.
    strict
        Count IoU > threshold (Kirillov et al. 2019) in place of IoU >= threshold.

    Raises
    ------
    BadInput
        When the shapes differ, or a label image is not of non-negative integers.
    """
    found = overlap(truth, pred)
    at_half = match_overlap(found, THRESHOLDS[0], strict)
    rivals = at_half.iou
    above = [int(np.sum(rivals > t if strict else rivals >= t)) for t in THRESHOLDS[1:]]
    shared, truth_px, pred_px = int(found.shared.sum()), int(found.truth_area.sum()), int(found.pred_area.sum())
    return Counts(
        shared=shared,
        union=truth_px + pred_px - shared,
        truth_px=truth_px,
        pred_px=pred_px,
        n_truth=at_half.n_truth,
        n_pred=at_half.n_pred,
        tp=(at_half.tp, *above),
        iou_sum=float(rivals.sum()),
    )


def score(counts: Sequence[Counts], clusters: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """Pool frames into scores with confidence intervals.

    Parameters
    ----------
    counts
        One entry per frame.
    clusters
        What each frame belongs to, as `clusters_of` tells; by default every frame is its own cluster.

    Returns
    -------
    dict
        `KEYS`, each with `<key>_ci` = [low, high] (95 %, cluster-robust t with G - 1 df, linearised ratio), and
        `n_truth`, `n_pred`, `n_frames`, `n_clusters`; ready for JSON. Where no interval can be given it is None and
        `<key>_ci_reason` says why. `count_error` is signed and relative: (predicted - true) / true cells. A score
        that does not exist (no frames; a count error without true cells) is None.
    """
    if not counts:
        nothing: dict[str, Any] = dict.fromkeys(KEYS) | {f"{key}_ci": None for key in KEYS}
        nothing |= {f"{key}_ci_reason": "no frames" for key in KEYS}
        return nothing | {"n_truth": 0, "n_pred": 0, "n_frames": 0, "n_clusters": 0}
    groups = _groups(counts, clusters)
    result: dict[str, Any] = {}
    for key, influence in influences(counts).items():
        result |= _with_interval(key, influence, groups)
    result |= {"n_truth": sum(c.n_truth for c in counts), "n_pred": sum(c.n_pred for c in counts)}
    return result | {"n_frames": len(counts), "n_clusters": len(set(groups))}


def clusters_of(frames: Sequence[tuple[str, int]]) -> list[Hashable]:
    """Return what each (field, frame) is a repeat of: its field where there are two or more, else the frame itself.

    Cells stay in a field from frame to frame, so frames of one field are no independent samples. With a single field
    the frames are all there is: intervals then describe these cells only and are too narrow for others.

    >>> clusters_of([("a", 0), ("a", 1), ("b", 0)])
    ['a', 'a', 'b']
    >>> clusters_of([("a", 0), ("a", 1)])
    [('a', 0), ('a', 1)]
    """
    several = len({field for field, _ in frames}) > 1
    return [field if several else (field, frame) for field, frame in frames]


def difference(
    first: Sequence[Counts], second: Sequence[Counts], key: str, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Difference of one score between two methods on the same frames, paired by frame and clustered as in `score`.

    Parameters
    ----------
    first, second
        Counts of the same frames in the same order.
    key
        One of `KEYS`.
    """
    gap = influences(first)[key] - influences(second)[key]
    return clustered_mean(gap, _groups(first, clusters))


def influences(counts: Sequence[Counts]) -> dict[str, NDArray[np.float64]]:
    """Per-frame influence of each score, `(frames,)` float64: its mean is the score, its scatter the uncertainty.

    A ratio of sums R = sum(a) / sum(b) has the influence R + (a - R b) / mean(b) (linearisation).
    """
    column = {name: np.array([getattr(c, name) for c in counts], dtype=float) for name in _COLUMNS}
    tp = np.array([c.tp for c in counts], dtype=float)
    cells, found = column["n_truth"] + column["n_pred"], tp[:, 0]
    levels = [_pooled(tp[:, k], cells - tp[:, k]) for k in range(len(THRESHOLDS))]
    f1 = _pooled(2 * found, cells)
    return {
        "dataset_iou": _pooled(column["shared"], column["union"]),
        "per_image_iou": np.array([_ratio(c.shared, c.union) for c in counts]),
        "dice": _pooled(2 * column["shared"], column["truth_px"] + column["pred_px"]),
        "f1_50": f1,
        "pq_50": _pooled(2 * column["iou_sum"], cells),
        "sq_50": np.zeros(len(counts)) if cells.any() and not found.any() else _pooled(column["iou_sum"], found),
        "rq_50": f1,
        "ap": np.asarray(np.mean(levels, axis=0)),
        "count_error": _count_error(column["n_truth"], column["n_pred"]),
    }


def pq_score(truths: Iterable[Labels], preds: Iterable[Labels]) -> float:
    """Pooled panoptic quality at IoU >= 0.5 over frames: what decode parameters are fitted to by default."""
    counts = [frame_counts(truth, pred) for truth, pred in zip(truths, preds, strict=True)]
    return _ratio(2 * sum(c.iou_sum for c in counts), sum(c.n_truth + c.n_pred for c in counts))


def iou_score(truths: Iterable[Labels], preds: Iterable[Labels]) -> float:
    """Dataset IoU of the foreground over frames (the study's choice)."""
    shared = union = 0
    for truth, pred in zip(truths, preds, strict=True):
        foreground, guess = np.asarray(truth) > 0, np.asarray(pred) > 0
        shared += int(np.count_nonzero(foreground & guess))
        union += int(np.count_nonzero(foreground | guess))
    return _ratio(shared, union)


_COLUMNS = ("shared", "union", "truth_px", "pred_px", "n_truth", "n_pred", "iou_sum")


def _ratio(top: float, bottom: float) -> float:
    """Divide by the empty rule: nothing expected and nothing predicted is 1."""
    return float(top) / float(bottom) if bottom else 1.0


def _pooled(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    value = _ratio(top.sum(), bottom.sum())
    if not bottom.any():
        return np.full(len(top), value)
    return np.asarray(value + (top - value * bottom) / bottom.mean())


def _count_error(true: NDArray[np.float64], predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    if not true.any():
        return np.full(len(true), np.nan if predicted.any() else 0.0)
    return _pooled(predicted - true, true)


def _groups(counts: Sequence[Counts], clusters: Sequence[Hashable] | None) -> list[Hashable]:
    return list(range(len(counts))) if clusters is None else list(clusters)


def _with_interval(key: str, influence: NDArray[np.float64], groups: list[Hashable]) -> dict[str, Any]:
    value = float(influence.mean()) if np.isfinite(influence).all() else None
    estimate = clustered_mean(influence, groups)
    if value is None or estimate.reason:
        return {key: value, f"{key}_ci": None, f"{key}_ci_reason": estimate.reason}
    low, high = estimate.ci
    return {key: value, f"{key}_ci": [low, high] if key == "count_error" else [max(low, 0.0), min(high, 1.0)]}
