"""One-to-one matching of two label images by intersection over union (IoU).

>>> truth = np.zeros((20, 20), np.int32)
>>> truth[2:8, 2:8], truth[10:16, 10:16] = 1, 2
>>> pred = np.zeros((20, 20), np.int32)
>>> pred[2:8, 2:7], pred[10:16, 12:18], pred[0:2, 15:18] = 1, 2, 3
>>> found = match(truth, pred)
>>> found.tp, found.fp, found.fn, found.iou.round(3).tolist()
(2, 1, 0, [0.833, 0.5])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_io.errors import BadInput

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Overlap:
    """Every pair of a truth cell and a predicted cell that share at least one pixel.

    Attributes
    ----------
    truth_ids, pred_ids
        `(N,)`, `(M,)` int64: the label values present, ascending, without 0.
    truth_area, pred_area
        `(N,)`, `(M,)` int64, pixels.
    rows, cols, shared
        `(K,)` int64: index into `truth_ids`, index into `pred_ids`, shared pixels.
    """

    truth_ids: NDArray[np.int64]
    pred_ids: NDArray[np.int64]
    truth_area: NDArray[np.int64]
    pred_area: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of each overlapping pair, `(K,)` float64 in (0, 1]."""
        union = self.truth_area[self.rows] + self.pred_area[self.cols] - self.shared
        return np.asarray(self.shared / union, dtype=np.float64)


@dataclass(frozen=True)
class Match:
    """Matched pairs of one frame, and how many cells stayed alone.

    `truth`, `pred` are `(tp,)` label values, ascending in `truth`; `iou` is theirs, float64.
    """

    truth: NDArray[np.int64]
    pred: NDArray[np.int64]
    iou: NDArray[np.float64]
    n_truth: int
    n_pred: int

    @property
    def tp(self) -> int:
        """Cells found."""
        return len(self.truth)

    @property
    def fp(self) -> int:
        """Predicted cells without a true one."""
        return self.n_pred - self.tp

    @property
    def fn(self) -> int:
        """True cells without a predicted one."""
        return self.n_truth - self.tp


def overlap(truth: Labels, pred: Labels) -> Overlap:
    """Count the shared pixels of every pair of cells in one pass.

    Parameters
    ----------
    truth, pred
        `(Y, X)` (any equal shape) integers, 0 background, each positive value a cell; gaps in the numbering are fine.

    Raises
    ------
    BadInput
        When the shapes differ, or a label image is not of non-negative integers.
    """
    _check(truth, pred)
    truth_ids, rows = _compact(truth)
    pred_ids, cols = _compact(pred)
    n, m = len(truth_ids), len(pred_ids)
    key = rows * (m + 1) + cols
    if (n + 1) * (m + 1) <= 4 * key.size + 1024:
        table = np.bincount(key, minlength=(n + 1) * (m + 1))
        at = np.flatnonzero(table)
        shared = table[at]
    else:
        at, shared = np.unique(key, return_counts=True)
    row, col = np.divmod(at, m + 1)
    cells = (row > 0) & (col > 0)
    return Overlap(
        truth_ids,
        pred_ids,
        np.bincount(row, weights=shared, minlength=n + 1)[1:].astype(np.int64),
        np.bincount(col, weights=shared, minlength=m + 1)[1:].astype(np.int64),
        (row[cells] - 1).astype(np.int64),
        (col[cells] - 1).astype(np.int64),
        shared[cells].astype(np.int64),
    )


def match(truth: Labels, pred: Labels, threshold: float = 0.5, strict: bool = False) -> Match:
    """Match cells one-to-one: first as many pairs as possible, then the largest summed IoU.

    Parameters
    ----------
    truth, pred
        `(Y, X)` integers, 0 background.
    threshold
        A pair counts when IoU >= threshold (StarDist's rule), or IoU > threshold when `strict` (Kirillov et al. 2019).
    """
    return match_overlap(overlap(truth, pred), threshold, strict)


def match_overlap(found: Overlap, threshold: float = 0.5, strict: bool = False) -> Match:
    """Match cells as `match` does, from an overlap already counted."""
    iou = found.iou
    good = iou > threshold if strict else iou >= threshold
    rows, cols, iou = found.rows[good], found.cols[good], iou[good]
    chosen = np.arange(len(rows)) if _already_one_to_one(rows, cols) else _assign(rows, cols, iou)
    return Match(
        found.truth_ids[rows[chosen]],
        found.pred_ids[cols[chosen]],
        iou[chosen],
        len(found.truth_ids),
        len(found.pred_ids),
    )


def _check(truth: Labels, pred: Labels) -> None:
    if truth.shape != pred.shape:
        raise BadInput(f"label images: shapes {truth.shape} and {pred.shape} differ; compare frames of the same image")
    for name, image in (("truth", truth), ("prediction", pred)):
        if image.dtype.kind not in "iu":
            raise BadInput(f"{name} labels: type {image.dtype} is not an integer type; save labels as integers")
        if image.size and image.dtype.kind == "i" and int(image.min()) < 0:
            raise BadInput(f"{name} labels: value {int(image.min())} is negative; background is 0, cells are positive")


def _compact(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Label values present without 0, and the flat image renumbered 0..N in their order."""
    flat = np.ravel(labels)
    top = int(flat.max()) if flat.size else 0
    if top > 4 * flat.size + 1024:
        ids, inverse = np.unique(flat, return_inverse=True)
        if len(ids) and ids[0] == 0:
            return ids[1:].astype(np.int64), inverse.astype(np.int64)
        return ids.astype(np.int64), inverse.astype(np.int64) + 1
    flat = flat.astype(np.int64, copy=False)
    present = np.bincount(flat, minlength=1) > 0
    present[0] = False
    renumber = np.cumsum(present)
    renumber[0] = 0
    return np.flatnonzero(present).astype(np.int64), renumber[flat].astype(np.int64, copy=False)


def _already_one_to_one(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> bool:
    """Tell whether no cell stands in two candidate pairs (always so above IoU 0.5)."""
    return len(np.unique(rows)) == len(rows) and len(np.unique(cols)) == len(cols)


def _assign(rows: NDArray[np.int64], cols: NDArray[np.int64], iou: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the candidate pairs kept, solved exactly within each cluster of competing cells."""
    n, m = int(rows.max()) + 1, int(cols.max()) + 1
    graph = coo_array((np.ones(len(rows)), (rows, n + cols)), shape=(n + m, n + m))
    cluster = connected_components(graph, directed=False)[1][rows]
    kept = []
    for members in np.split(np.argsort(cluster, kind="stable"), np.flatnonzero(np.diff(np.sort(cluster))) + 1):
        r_ids, r = np.unique(rows[members], return_inverse=True)
        c_ids, c = np.unique(cols[members], return_inverse=True)
        gain = np.zeros((len(r_ids), len(c_ids)))
        gain[r, c] = 1 + iou[members] / (2 * min(gain.shape))
        pair_at = np.full(gain.shape, -1, dtype=np.int64)
        pair_at[r, c] = members
        picked = pair_at[linear_sum_assignment(gain, maximize=True)]
        kept.append(picked[picked >= 0])
    return np.sort(np.concatenate(kept))
