"""Segmentation scores: count each frame first, score all frames after.

The empty rule, in one place (`_ratio`): an empty truth met by an empty prediction scores 1; an empty truth with
any false positive scores 0. Libraries disagree here (smp NaN or 1, torchmetrics 0, stardist 0).
A cell counts as found when IoU >= threshold, as in `stardist.matching`, or > threshold when `strict` (Kirillov et al.
2019). All scores but the per-image IoU are pooled: sums over all frames are divided, never means of frames averaged.

dataset_iou, dice     shared pixels of the foreground over those in either, and over the mean of both
per_image_iou         mean over frames of the same IoU
boundary_f1_1, _2     share of outline met within 1 or 2 px (`boundary`), of the foreground
boundary_iou_2        IoU of the bands 2 px along the outlines, of the foreground
hd95                  95th percentile Hausdorff distance in px, mean over cells matched at 0.5
f1_50, pq_50          F1 and panoptic quality at IoU 0.5; PQ = SQ x RQ, RQ is F1, SQ the mean IoU of matched cells
ap                    TP / (TP + FP + FN), mean over the IoU thresholds .50, .55, ... .95
seg, aji              of the Cell Tracking Challenge, and the aggregated Jaccard index (`instances`)
count_error           (predicted - true) / true cells, signed
splits, merges, missed, spurious    numbers of cells (`instances`); fn, fp: unmatched true and predicted cells
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import boundary, instances
from analysis.matching import Labels, match_overlap, overlap
from analysis.statistics import Estimate, clustered_mean

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from numpy.typing import NDArray

    from analysis.matching import Match, Overlap

THRESHOLDS = tuple(k / 20 for k in range(10, 20))
"""IoU thresholds of AP: .50, .55, ... .95; F1 and PQ use the first."""

EMPTY_RULE = "Empty truth and empty prediction count 1; empty truth with any false-positive pixel counts 0."

KEYS = ("dataset_iou", "per_image_iou", "dice", "f1_50", "pq_50", "sq_50", "rq_50", "ap", "count_error")
"""The scores of `frame_counts` that carry an interval `<key>_ci`; all lie in 0..1 but the signed `count_error`."""
DETAIL_KEYS = (
    "boundary_f1_1", "boundary_f1_2", "boundary_iou_2", "hd95", "seg", "aji",
    "splits", "merges", "missed", "spurious", "fn", "fp", "n_truth", "n_pred",
)  # fmt: skip
"""What `full_counts` adds."""
TOTALS = frozenset(DETAIL_KEYS[6:])
"""Numbers of cells; their interval is that of the total over as many frames."""


@dataclass(frozen=True)
class Details:
    """What one frame contributes to the scores that take longer: outlines, distances, kinds of errors.

    `hd95_sum` adds up the matched cells, in px; `seg` sums over true cells; `aji` is numerator and denominator in px.
    """

    outline: boundary.BoundaryCounts
    hd95_sum: float
    hd95_cells: int
    seg: float
    aji: tuple[int, int]
    events: instances.Events


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
    details
        What `full_counts` adds.
    """

    shared: int
    union: int
    truth_px: int
    pred_px: int
    n_truth: int
    n_pred: int
    tp: tuple[int, ...]
    iou_sum: float
    details: Details | None = None


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
    return _counts(overlap(truth, pred), strict)[0]


def full_counts(truth: Labels, pred: Labels, strict: bool = False) -> Counts:
    """Count one frame as `frame_counts` does, and what `DETAIL_KEYS` need, which takes several times as long.

    Parameters and errors as in `frame_counts`.
    """
    found = overlap(truth, pred)
    counts, matched = _counts(found, strict)
    distances = boundary.hd95(truth, pred, matched)
    return replace(
        counts,
        details=Details(
            outline=boundary.agreement(np.asarray(truth) > 0, np.asarray(pred) > 0),
            hd95_sum=float(distances.sum()),
            hd95_cells=len(distances),
            seg=instances.seg_sum(found),
            aji=instances.aji_parts(found),
            events=instances.events(found, matched),
        ),
    )


def _counts(found: Overlap, strict: bool) -> tuple[Counts, Match]:
    matched = match_overlap(found, THRESHOLDS[0], strict)
    rivals = matched.iou
    above = [int(np.sum(rivals > t if strict else rivals >= t)) for t in THRESHOLDS[1:]]
    shared, truth_px, pred_px = int(found.shared.sum()), int(found.truth_area.sum()), int(found.pred_area.sum())
    counts = Counts(
        shared=shared,
        union=truth_px + pred_px - shared,
        truth_px=truth_px,
        pred_px=pred_px,
        n_truth=matched.n_truth,
        n_pred=matched.n_pred,
        tp=(matched.tp, *above),
        iou_sum=float(rivals.sum()),
    )
    return counts, matched


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
        `KEYS`, and `DETAIL_KEYS` where all counts have details, each with `<key>_ci` = [low, high] (95 %,
        cluster-robust t with G - 1 df, linearised ratio), and `n_truth`, `n_pred`, `n_frames`, `n_clusters`; ready for
        JSON. Where no interval can be given it is None and `<key>_ci_reason` says why. A score that does not exist (no
        frames; a count error without true cells; hd95 without matched cells) is None.
    """
    if not counts:
        nothing: dict[str, Any] = dict.fromkeys(KEYS) | {f"{key}_ci": None for key in KEYS}
        nothing |= {f"{key}_ci_reason": "no frames" for key in KEYS}
        return nothing | {"n_truth": 0, "n_pred": 0, "n_frames": 0, "n_clusters": 0}
    groups = _groups(counts, clusters)
    result: dict[str, Any] = {"n_truth": sum(c.n_truth for c in counts), "n_pred": sum(c.n_pred for c in counts)}
    for key, influence in influences(counts).items():
        result |= _with_interval(key, influence, groups)
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
        One of `KEYS`, or of `DETAIL_KEYS` where all counts have details.
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
    found_of_all = {
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
    details = [c.details for c in counts if c.details is not None]
    return found_of_all | _detail_influences(counts, details) if len(details) == len(counts) else found_of_all


def _detail_influences(counts: Sequence[Counts], details: Sequence[Details]) -> dict[str, NDArray[np.float64]]:
    """Influence of `DETAIL_KEYS`; a total's is the frame's number times the number of frames."""

    def column(values: Iterable[float]) -> NDArray[np.float64]:
        return np.array(list(values), dtype=float)

    outlines = [d.outline for d in details]
    true, predicted = column(c.n_truth for c in counts), column(c.n_pred for c in counts)
    measured = column(d.hd95_cells for d in details)
    seg = column(d.seg for d in details)
    totals = {
        **{
            name: column(getattr(d.events, name) for d in details)
            for name in ("splits", "merges", "missed", "spurious")
        },
        "fn": true - column(c.tp[0] for c in counts),
        "fp": predicted - column(c.tp[0] for c in counts),
        "n_truth": true,
        "n_pred": predicted,
    }
    return {
        **{f"boundary_f1_{r}": _boundary_f1(outlines, at) for at, r in enumerate(boundary.TOLERANCES)},
        "boundary_iou_2": _pooled(column(o.band_shared for o in outlines), column(o.band_union for o in outlines)),
        "hd95": _pooled(column(d.hd95_sum for d in details), measured) if measured.any() else measured * np.nan,
        "seg": np.zeros(len(counts)) if predicted.any() and not true.any() else _pooled(seg, true),
        "aji": _pooled(column(d.aji[0] for d in details), column(d.aji[1] for d in details)),
        **{name: values * len(counts) for name, values in totals.items()},
    }


def _boundary_f1(outlines: Sequence[boundary.BoundaryCounts], at: int) -> NDArray[np.float64]:
    """Influence of the harmonic mean of precision and recall: d F = F^2 / 2 (dP / P^2 + dR / R^2)."""
    guess, met = (np.array([(o.pred, o.pred_met[at]) for o in outlines], dtype=float)).T
    true, reached = (np.array([(o.truth, o.truth_met[at]) for o in outlines], dtype=float)).T
    if not guess.any() or not true.any():
        return np.full(len(outlines), float(guess.any() == true.any()))
    precision, recall = _pooled(met, guess), _pooled(reached, true)
    p, r = precision.mean(), recall.mean()
    if min(p, r) <= 0:
        return np.zeros(len(outlines))
    f = 2 * p * r / (p + r)
    return np.asarray(f + f**2 / 2 * ((precision - p) / p**2 + (recall - r) / r**2))


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


_LEAST = {"count_error": -np.inf}
_MOST = dict.fromkeys(("count_error", "hd95", *TOTALS), np.inf)
_UNDEFINED = {"hd95": "no matched cells", "count_error": "no true cells"}
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
    value: float | int | None = float(influence.mean()) if np.isfinite(influence).all() else None
    if value is not None and key in TOTALS:
        value = round(value)
    estimate = clustered_mean(influence, groups)
    if value is None or estimate.reason:
        why = _UNDEFINED.get(key, "undefined") if value is None else estimate.reason
        return {key: value, f"{key}_ci": None, f"{key}_ci_reason": why}
    low, high = estimate.ci
    return {key: value, f"{key}_ci": [max(low, _LEAST.get(key, 0.0)), min(high, _MOST.get(key, 1.0))]}
