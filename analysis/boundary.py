"""How well outlines lie on each other: boundary F1 and boundary IoU of the foreground, HD95 of matched cells.

The outline of a mask is its pixels with a background pixel, or the frame's edge, above, below, left or right of them.
The band of boundary IoU is what `DEPTH` erosions with a 3 x 3 square take off, as in the original. Distances are
Euclidean, between pixel centres, in px.

>>> a, b = np.zeros((2, 40, 40), bool)
>>> a[10:30, 10:30], b[10:30, 12:32] = True, True
>>> [agreement(a, b).f1(at) for at in range(2)], round(agreement(a, b).iou, 4)
([0.5263157894736842, 1.0], 0.3333)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analysis.matching import Labels, Match

    Mask = NDArray[np.bool_]

TOLERANCES = (1, 2)
"""Distance in px up to which an outline pixel counts as met."""
DEPTH = 2
"""Depth in px of the band along the outline that boundary IoU compares."""


@dataclass(frozen=True)
class BoundaryCounts:
    """Outline pixels of one frame.

    Attributes
    ----------
    truth, pred
        Outline pixels of the true and of the predicted foreground.
    truth_met, pred_met
        Those that have an outline pixel of the other within each of `TOLERANCES`.
    band_shared, band_union
        Pixels of the bands along the outlines, in both and in either.
    """

    truth: int
    pred: int
    truth_met: tuple[int, ...]
    pred_met: tuple[int, ...]
    band_shared: int
    band_union: int

    def f1(self, at: int) -> float:
        """Boundary F1 at `TOLERANCES[at]`: the harmonic mean of the shares of outline met (Csurka et al. 2013)."""
        if not self.truth or not self.pred:
            return float(self.truth == self.pred)
        precision, recall = self.pred_met[at] / self.pred, self.truth_met[at] / self.truth
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    @property
    def iou(self) -> float:
        """Boundary IoU (Cheng et al. 2021) with bands of `DEPTH` px."""
        return self.band_shared / self.band_union if self.band_union else 1.0


def agreement(truth: Mask, pred: Mask) -> BoundaryCounts:
    """Count the outline pixels of two masks `(Y, X)` bool of one frame."""
    outline, guess = _outline(truth), _outline(pred)
    reach = [(_within(outline, r), _within(guess, r)) for r in TOLERANCES]
    band, other = truth & ~_core(truth, DEPTH), pred & ~_core(pred, DEPTH)
    return BoundaryCounts(
        truth=int(np.count_nonzero(outline)),
        pred=int(np.count_nonzero(guess)),
        truth_met=tuple(int(np.count_nonzero(outline & near)) for _, near in reach),
        pred_met=tuple(int(np.count_nonzero(guess & near)) for near, _ in reach),
        band_shared=int(np.count_nonzero(band & other)),
        band_union=int(np.count_nonzero(band | other)),
    )


def hd95(truth: Labels, pred: Labels, found: Match) -> NDArray[np.float64]:
    """95th percentile Hausdorff distance of each matched pair, `(tp,)` px.

    Each outline pixel has a distance to the other cell's outline; the larger of the two directed 95th percentiles
    counts, as in MONAI and Metrics Reloaded (Maier-Hein et al. 2024).

    Parameters
    ----------
    truth, pred
        `(Y, X)` label images of one frame.
    found
        Their matched cells.
    """
    if not found.tp:
        return np.zeros(0)
    ours, theirs = _outlines(truth, found.truth), _outlines(pred, found.pred)
    return np.maximum(_directed(ours, theirs, found.tp), _directed(theirs, ours, found.tp))


def _directed(source: NDArray[np.float64], target: NDArray[np.float64], pairs: int) -> NDArray[np.float64]:
    """95th percentile, per pair, of the distance from source points to the target's; one tree for all pairs."""
    from scipy.spatial import KDTree

    distance = KDTree(target).query(source)[0]
    of_pair = np.rint(source[:, 0] / _apart(source)).astype(np.int64)
    order = np.lexsort((distance, of_pair))
    size = np.bincount(of_pair, minlength=pairs)
    place = np.cumsum(size) - size + 0.95 * (size - 1)
    below, ordered = np.floor(place).astype(np.int64), distance[order]
    above = np.minimum(below + 1, len(ordered) - 1)
    return np.asarray(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def _apart(points: NDArray[np.float64]) -> float:
    """Distance between the layers that pairs lie in: more than any two pixels of matched cells are apart."""
    return float(points[0, 3])


def _outlines(labels: Labels, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Outline pixels of the given cells, `(N, 4)`: layer of the pair, y, x and the layers' distance."""
    edge = np.zeros(labels.shape, bool)
    for here, there in _NEIGHBOURS:
        differ = labels[here] != labels[there]
        edge[here] |= differ
        edge[there] |= differ
    edge[[0, -1]] = edge[:, [0, -1]] = True
    y, x = np.nonzero(edge & (labels > 0))
    order = np.argsort(ids)
    value = labels[y, x].astype(np.int64)
    place = np.minimum(np.searchsorted(ids[order], value), len(ids) - 1)
    ours = ids[order][place] == value
    far = 2.0 * (labels.shape[0] + labels.shape[1])
    pair = order[place[ours]]
    return np.column_stack([pair * far, y[ours], x[ours], np.full(len(pair), far)])


_NEIGHBOURS: tuple[tuple[Any, Any], ...] = (
    (np.s_[1:, :], np.s_[:-1, :]),
    (np.s_[:, 1:], np.s_[:, :-1]),
)


def _outline(mask: Mask) -> Mask:
    inside = mask.copy()
    inside[[0, -1]] = inside[:, [0, -1]] = False
    for here, there in _NEIGHBOURS:
        inside[here] &= mask[there]
        inside[there] &= mask[here]
    return np.asarray(mask & ~inside)


def _core(mask: Mask, depth: int) -> Mask:
    """Pixels whose square of 2 depth + 1 px lies in the mask; outside the frame is background."""
    return ~_or_near(np.pad(~mask, depth, constant_values=True), depth)[depth:-depth, depth:-depth]


def _or_near(mask: Mask, reach: int) -> Mask:
    """Pixels with one of the mask in their square of 2 reach + 1 px, rows first, then columns."""
    for axis in (0, 1):
        near = np.swapaxes(mask, 0, axis).copy()
        source = np.swapaxes(mask, 0, axis)
        for by in range(1, reach + 1):
            near[by:] |= source[:-by]
            near[:-by] |= source[by:]
        mask = np.swapaxes(near, 0, axis)
    return mask


def _within(mask: Mask, radius: int) -> Mask:
    """Pixels at most `radius` px from a pixel of the mask."""
    height, width = mask.shape
    near = np.zeros((height + 2 * radius, width + 2 * radius), bool)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx <= radius * radius:
                near[radius + dy : radius + dy + height, radius + dx : radius + dx + width] |= mask
    return near[radius:-radius, radius:-radius]
