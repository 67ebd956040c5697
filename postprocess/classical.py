"""The baseline no network is needed for: local contrast, Otsu, fill, erode, then the watershed of two_class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage as ndi

from postprocess import two_class
from postprocess.sizes import drop_small

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 3
"""The window of the local standard deviation is 2 * REACH + 1 pixels wide; it widens cells by about REACH."""
MIN_DISTANCE = 5
NECK = 0.1
"""Pieces with a neck shallower than this part of their half width are one cell, however long."""
MIN_AREA = 30
"""Pixels; the least any cell has."""
MIN_PART = 0.08
"""The least a cell has of the area of the typical one: half of the foreground lies in cells at least that large."""


def segment(image: NDArray[np.floating]) -> NDArray[np.int32]:
    """Return the cells of one frame without any learning, ``(Y, X)`` int32.

    Parameters
    ----------
    image
        ``(C, Y, X)`` grey values; the first channel counts. Scale and offset do not matter.
    """
    mask = foreground(image[0])
    height = two_class.smoothed_distance(mask, two_class.Params.smoothing)
    cells = two_class.split(mask, height, MIN_DISTANCE, NECK)
    area = np.bincount(cells[cells > 0])
    typical = float(np.median(np.repeat(area, area))) if area.size else 0.0
    return drop_small(cells, max(MIN_AREA, round(MIN_PART * typical)))


def foreground(plane: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return, `(Y, X)`, where the local standard deviation passes Otsu's threshold, holes filled, edges eroded."""
    from skimage.filters import threshold_otsu

    contrast = local_sd(plane)
    if contrast.max() <= contrast.min():
        return np.zeros(plane.shape, bool)
    filled = ndi.binary_fill_holes(contrast > threshold_otsu(contrast))
    return np.asarray(ndi.binary_erosion(filled, iterations=REACH, border_value=1))


def local_sd(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return `(Y, X)`: the standard deviation of the grey values in a square of 2 `REACH` + 1 px about each pixel."""
    values = plane.astype(np.float64) - float(plane.mean())
    size = 2 * REACH + 1
    mean = ndi.uniform_filter(values, size)
    return np.asarray(np.sqrt(np.maximum(ndi.uniform_filter(values**2, size) - mean**2, 0)))
