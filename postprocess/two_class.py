"""Cells from one foreground class: smoothed distance map, its peaks, watershed (science.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage as ndi

from postprocess.prediction import FULL, Prediction
from postprocess.sizes import drop_small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHANNELS = ("foreground",)
RAYS = 0
STRIDE = 1

GRID: dict[str, tuple[Any, ...]] = {
    "threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
    "min_distance": (2, 3, 5, 7, 10, 14),
    "min_area": (0, 20, 50),
}
"""Values tried on validation frames."""


@dataclass(frozen=True)
class Params:
    """How a foreground probability becomes cells."""

    threshold: float = 0.5
    """Foreground is probability > threshold."""
    min_distance: int = 5
    """Two cell centres are more than this many pixels apart (Chebyshev distance)."""
    smoothing: float = 1.0
    """Gaussian sigma of the distance map, pixels."""
    min_area: int = 0
    """Cells of fewer pixels are dropped."""
    paper_gap: bool = False
    """Leave a one-pixel gap between touching cells, as the study did."""


def encode(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return the foreground, ``(Y, X)`` uint8 0 or 1, of ``(Y, X)`` instance labels."""
    return (labels > 0).astype(np.uint8)


def perfect(labels: NDArray[np.integer]) -> Prediction:
    """Return the prediction of a network without error, for ceilings."""
    return Prediction(encode(labels)[None] * np.uint8(FULL), None, STRIDE, (labels.shape[0], labels.shape[1]))


def decode(prediction: Prediction, params: Params) -> NDArray[np.int32]:
    """Return ``(Y, X)`` int32 cells, 0 background."""
    mask = foreground(prediction, params.threshold)
    height = smoothed_distance(mask, params.smoothing)
    return drop_small(split(mask, height, params.min_distance, gap=params.paper_gap), params.min_area)


def sweep(prediction: Prediction) -> Iterator[tuple[Params, NDArray[np.int32]]]:
    """Yield every point of ``GRID`` with its cells; each distance map and each watershed is computed once."""
    for threshold in GRID["threshold"]:
        mask = foreground(prediction, threshold)
        height = smoothed_distance(mask, Params.smoothing)
        for min_distance in GRID["min_distance"]:
            cells = split(mask, height, min_distance)
            for min_area in GRID["min_area"]:
                yield Params(threshold, min_distance, min_area=min_area), drop_small(cells, min_area)


def foreground(prediction: Prediction, threshold: float) -> NDArray[np.bool_]:
    """Return where the stored probability exceeds the threshold, ``(Y, X)`` bool."""
    return np.asarray(prediction.probability[0] > threshold * FULL)


def smoothed_distance(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Return the distance to the background in pixels, smoothed by a Gaussian, 0 outside the mask."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    framed = np.pad(mask, 1, constant_values=not mask.all())  # without any background the frame's edge has to serve
    distance = ndi.distance_transform_edt(framed)[1:-1, 1:-1]
    smooth: NDArray[np.float32] = ndi.gaussian_filter(distance.astype(np.float32), sigma)
    smooth[~mask] = 0
    return smooth


def split(
    mask: NDArray[np.bool_], height: NDArray[np.float32], min_distance: int, *, gap: bool = False
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
    orphan = np.ones(n_pieces + 1, bool)
    orphan[pieces[tuple(peaks.T)]] = False
    orphan[0] = False
    if orphan.any():
        rank = np.cumsum(orphan).astype(np.int32) + np.int32(len(peaks))
        np.copyto(markers, rank[pieces], where=orphan[pieces])
    cells: NDArray[np.int32] = watershed(-height, markers, mask=mask, watershed_line=gap).astype(np.int32)
    return ndi.label(cells > 0)[0].astype(np.int32) if gap else cells
