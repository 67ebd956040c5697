"""Cells from one foreground class: smoothed distance map, its peaks, watershed (science.md section 2).

A long cell has many peaks along its ridge but no neck between them, so pieces are joined where the neck is shallow
relative to the thinner piece: a criterion that knows no pixels. Two peaks of heights a <= b with saddle s between them
belong to one cell where 1 - s / a <= ``neck``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage as ndi

from postprocess.prediction import FULL, Prediction
from postprocess.sizes import areas_to_try, drop_small
from postprocess.star_kernel import squared_distances

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

CHANNELS = ("foreground",)
RAYS = 0
STRIDE = 1


@dataclass(frozen=True)
class Params:
    """How a foreground probability becomes cells."""

    threshold: float = 0.5
    """Foreground is probability > threshold."""
    min_distance: int = 5
    """Two cell centres are more than this many pixels apart (Chebyshev distance)."""
    smoothing: float = 1.0
    """Gaussian sigma of the distance map, pixels."""
    neck: float = 0.0
    """Pieces stay apart where the neck between them is narrower than the thinner piece by more than this part of it;
    0 joins nothing."""
    min_area: int = 0
    """Cells of fewer pixels are dropped."""
    paper_gap: bool = False
    """Leave a one-pixel gap between touching cells, as the study did."""


def encode(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the foreground, ``(Y, X)`` uint8 0 or 1, of ``(Y, X)`` instance labels."""
    return (labels > 0).astype(np.uint8)


def perfect(labels: NDArray[np.integer]) -> Prediction:
    """Return the prediction of a network without error for `(Y, X)` labels, for ceilings."""
    return Prediction(encode(labels)[None] * np.uint8(FULL), None, STRIDE, (labels.shape[0], labels.shape[1]))


def decode(prediction: Prediction, params: Params) -> NDArray[np.int32]:
    """Return ``(Y, X)`` int32 cells, 0 background."""
    mask = foreground(prediction, params.threshold)
    height = smoothed_distance(mask, params.smoothing)
    cells = split(mask, height, params.min_distance, params.neck, gap=params.paper_gap)
    return drop_small(cells, params.min_area) if params.min_area > 1 else cells


def grid(diameter: float) -> dict[str, tuple[Any, ...]]:
    """Return the values to try on validation frames with cells of a median diameter in pixels, the usual ones first."""
    return {
        "threshold": (0.5, 0.4, 0.6, 0.3, 0.7),
        "min_distance": tuple(dict.fromkeys((5, 2, 3, max(round(diameter / 3), 1)))),
        "neck": (0.0, 0.02, 0.1, 0.2, 0.3),
        "min_area": areas_to_try(diameter),
    }


def sweep(prediction: Prediction, values: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[Params, NDArray[np.int32]]]:
    """Yield every combination of values with its cells, small ones included; each watershed is computed once."""
    for threshold in values["threshold"]:
        mask = foreground(prediction, threshold)
        height = smoothed_distance(mask, Params.smoothing)
        for min_distance in values["min_distance"]:
            pieces = split(mask, height, min_distance)
            contacts = necks(pieces, height)
            for neck in values["neck"]:
                yield Params(threshold, min_distance, neck=neck), joined(contacts, neck)[pieces]


def foreground(prediction: Prediction, threshold: float) -> NDArray[np.bool_]:
    """Return where the stored probability exceeds the threshold, ``(Y, X)`` bool."""
    return np.asarray(prediction.probability[0] > threshold * FULL)


def smoothed_distance(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Return, `(Y, X)`, the distance to the background in px, smoothed by a Gaussian of `sigma` px; 0 outside it."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    distance = np.sqrt(squared_distances(mask.view(np.int8)), dtype=np.float32)
    if mask.all():  # without any background the frame's edge has to serve
        distance = ndi.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    smooth: NDArray[np.float32] = ndi.gaussian_filter(distance.astype(np.float32, copy=False), sigma)
    smooth[~mask] = 0
    return smooth


def split(
    mask: NDArray[np.bool_], height: NDArray[np.float32], min_distance: int, neck: float = 0.0, *, gap: bool = False
) -> NDArray[np.int32]:
    """Flood the mask from the peaks of ``height``; a component that lost its peak to a higher neighbour stays one cell.

    Parameters
    ----------
    mask
        ``(Y, X)`` bool foreground.
    height
        ``(Y, X)`` float32, largest at cell centres, 0 outside the mask.
    min_distance
        Peaks are more than this many pixels apart.
    neck
        Pieces with a shallower neck between them are joined; see `Params`.
    gap
        Draw a one-pixel background line between cells; the pieces are then 4-connected components.

    Returns
    -------
    ``(Y, X)`` int32 cells, 0 background.
    """
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    pieces, n_pieces = ndi.label(mask)
    peaks = peak_local_max(height, min_distance=min_distance, threshold_abs=0, exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    per_piece = np.bincount(pieces[tuple(peaks.T)], minlength=n_pieces + 1)
    number = np.zeros(n_pieces + 1, np.int32)  # of a component with one cell, whose number is that of its only peak
    number[pieces[tuple(peaks.T)]] = np.arange(1, len(peaks) + 1)
    lost = per_piece == 0
    lost[0] = False
    number[lost] = len(peaks) + np.arange(1, np.count_nonzero(lost) + 1)
    shared = np.flatnonzero(per_piece > 1)
    number[shared] = 0
    cells: NDArray[np.int32] = number[pieces]
    boxes = ndi.find_objects(pieces) if shared.size else []
    for piece in shared:
        box = boxes[piece - 1]
        inside = pieces[box] == piece
        flooded = watershed(-height[box], np.where(inside, markers[box], 0), mask=inside)
        np.copyto(cells[box], flooded, where=inside)
    if neck <= 0 and not gap:
        return cells
    names = joined(necks(cells, height), neck)
    if gap:
        np.copyto(markers, number[pieces], where=lost[pieces])
        parted = watershed(-height, names[markers], mask=mask, watershed_line=True)
        lined: NDArray[np.int32] = ndi.label(parted > 0)[0].astype(np.int32)
        return lined
    named: NDArray[np.int32] = names[cells]
    return named


@dataclass(frozen=True)
class Necks:
    """Where pieces touch: ids ``(N, 2)``, saddle ``(N,)``, highest first; peak of every id ``(n + 1,)``, 0 for 0."""

    pairs: NDArray[np.int32]
    saddle: NDArray[np.float32]
    peak: NDArray[np.float32]


def necks(cells: NDArray[np.int32], height: NDArray[np.float32]) -> Necks:
    """Return the contacts of ``(Y, X)`` pieces along pixel edges and the greatest ``height`` on each."""
    n = int(cells.max(initial=0)) + 1
    codes, saddles = [], []
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = cells[one], cells[other]
        touch = (a != b) & (a > 0) & (b > 0)
        a, b = a[touch].astype(np.int64), b[touch].astype(np.int64)
        codes.append(np.minimum(a, b) * n + np.maximum(a, b))
        saddles.append(np.minimum(height[one][touch], height[other][touch]))
    pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
    saddle, peak = np.zeros(len(pairs), np.float32), np.zeros(n, np.float32)
    np.maximum.at(saddle, place, np.concatenate(saddles))
    np.maximum.at(peak, cells.ravel(), height.ravel())
    order = np.argsort(-saddle, kind="stable")
    return Necks(np.stack(np.divmod(pairs[order], n), axis=1).astype(np.int32), saddle[order], peak)


def joined(contacts: Necks, neck: float) -> NDArray[np.int32]:
    """Return the new id of every piece, ``(n + 1,)`` int32 without holes, after joining across shallow necks.

    The highest saddle comes first and a joined piece is as high as its highest part, so the order of ids is irrelevant.
    """
    owner = list(range(len(contacts.peak)))
    if neck > 0:
        peak = contacts.peak.tolist()
        for (one, other), saddle in zip(contacts.pairs.tolist(), contacts.saddle.tolist(), strict=True):
            low, high = sorted((_root(owner, one), _root(owner, other)), key=lambda piece: (peak[piece], -piece))
            if low != high and saddle >= (1 - neck) * peak[low]:
                owner[low] = high
    roots = [_root(owner, piece) for piece in range(len(owner))]
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


def _root(owner: list[int], piece: int) -> int:
    while owner[piece] != piece:
        owner[piece] = piece = owner[owner[piece]]
    return piece
