"""What becomes of every cell: found, split, merged, missed or made up; with SEG and AJI.

Who holds whom
    A cell lies *in* another when more than half of its pixels do and they make up at least `SHARE` of the other.
Split
    A true cell with two or more predicted cells in it.
Merge
    A predicted cell with two or more true cells in it.
Missed
    A true cell that is not matched and takes part in no split or merge.
Spurious
    A predicted cell that is not matched and takes part in no split or merge.

So every true cell is matched, split, merged or missed, and a split or merge is one error of its own kind and not a
miss and several inventions. A false negative, in contrast, is any unmatched true cell (`fn`), a false positive any
unmatched predicted one (`fp`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analysis.matching import Match, Overlap

SHARE = 0.1
"""Smallest part of a cell that a piece must make up to count: less is debris, not half a cell."""


@dataclass(frozen=True)
class Events:
    """Numbers of cells in one frame; see the top of this file."""

    splits: int
    merges: int
    missed: int
    spurious: int


@dataclass(frozen=True)
class Which:
    """The cells behind `Events`: positions in `Overlap.truth_ids` (split, missed) or `pred_ids` (merged, spurious)."""

    split: NDArray[np.intp]
    merged: NDArray[np.intp]
    missed: NDArray[np.intp]
    spurious: NDArray[np.intp]


def events(found: Overlap, matched: Match) -> Events:
    """Count splits, merges, missed and spurious cells of one frame, as `which` finds them."""
    cells = which(found, matched)
    return Events(*map(len, (cells.split, cells.merged, cells.missed, cells.spurious)))


def which(found: Overlap, matched: Match) -> Which:
    """Find the split, merged, missed and spurious cells of one frame.

    Parameters
    ----------
    found, matched
        Overlaps of truth and prediction, and the pairs matched from them.
    """
    truth, pred = found.truth_area[found.rows], found.pred_area[found.cols]
    large = found.shared >= SHARE * np.maximum(truth, pred)
    pred_in_truth = large & (2 * found.shared > pred)
    truth_in_pred = large & (2 * found.shared > truth)
    split = np.bincount(found.rows[pred_in_truth], minlength=len(found.truth_ids)) > 1
    merged = np.bincount(found.cols[truth_in_pred], minlength=len(found.pred_ids)) > 1
    in_split, in_merge = pred_in_truth & split[found.rows], truth_in_pred & merged[found.cols]
    lost = ~(np.isin(found.truth_ids, matched.truth) | split)
    lost[found.rows[in_merge]] = False
    made_up = ~(np.isin(found.pred_ids, matched.pred) | merged)
    made_up[found.cols[in_split]] = False
    return Which(*map(np.flatnonzero, (split, merged, lost, made_up)))


def seg_sum(found: Overlap) -> float:
    """Sum over true cells of the IoU with the prediction that covers more than half of them, else 0.

    Divided by the number of true cells this is SEG of the Cell Tracking Challenge (Maska et al. 2014).
    """
    covered = 2 * found.shared > found.truth_area[found.rows]
    return float(found.iou[covered].sum())


def aji_parts(found: Overlap) -> tuple[int, int]:
    """Numerator and denominator of the aggregated Jaccard index (Kumar et al. 2017), in px.

    Each true cell takes the prediction of largest IoU, which several may take; predictions nobody takes and true cells
    without any overlap add their area below the line.
    """
    shared, union, taken = 0, 0, np.zeros(len(found.pred_ids), bool)
    best = _best_of_each(found.rows, found.iou)
    shared = int(found.shared[best].sum())
    union = int((found.truth_area[found.rows[best]] + found.pred_area[found.cols[best]]).sum()) - shared
    taken[found.cols[best]] = True
    alone = np.ones(len(found.truth_ids), bool)
    alone[found.rows[best]] = False
    return shared, union + int(found.pred_area[~taken].sum()) + int(found.truth_area[alone].sum())


def _best_of_each(rows: NDArray[np.int64], iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the pair of largest IoU in every row; the first of equals."""
    order = np.lexsort((np.arange(len(rows)), -iou, rows))
    first = np.ones(len(order), bool)
    first[1:] = np.diff(rows[order]) > 0
    return np.asarray(order[first], np.int64)
