"""Outlines of cells along the edges of pixels: filled, they give back the cell to the pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy import ndimage as ndi

from postprocess.morphology import compact
from postprocess.polygon import signed_area

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

STEP_X, STEP_Y = (1, 0, -1, 0), (0, 1, 0, -1)
"""The four ways along pixel edges: right, down, left, up; the next one is a turn to the right."""


def cells(labels: NDArray[np.integer]) -> Iterator[tuple[int, list[list[NDArray[np.int64]]]]]:
    """Yield every label of a ``(Y, X)`` image with its pieces, each a list of rings: the outer one, then holes.

    A piece is 4-connected. A ring is ``(N, 2)`` int64 corners (x, y), where pixel (0, 0) is the square from (0, 0) to
    (1, 1); the first corner is not repeated.
    """
    ids, dense = compact(labels)
    for place, box in enumerate(ndi.find_objects(dense) if len(ids) else []):
        pieces, n = ndi.label(dense[box] == place + 1)
        origin = np.array([box[1].start, box[0].start])
        yield int(ids[place]), [[ring + origin for ring in rings(pieces == k + 1)] for k in range(n)]


def rings(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the rings of a 4-connected ``(y, x)`` mask: its outer one first, then those of its holes.

    The inside lies on the right of the way, so the outer ring has a positive area and a hole a negative one. No ring
    meets itself, not even in a corner, as GIS formats ask: holes touch each other and the outer ring in corners only.
    """
    corners, ends = _walk(np.pad(mask, 1))
    return np.split(corners, ends[:-1])


def area(ring: NDArray[np.int64]) -> float:
    """Return the signed area of a ring in pixels."""
    return float(signed_area(ring.astype(np.float64)))


@njit(cache=True, nogil=True)
def _walk(framed: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the corners (x, y) of all rings, one after the other, and where each ring ends.

    Where four edges meet the walk turns left, over to the other pixel: as both belong to one piece, the background on
    the two sides of them is parted, and the two passages belong to two rings.

    Parameters
    ----------
    framed
        ``(y + 2, x + 2)`` bool, the mask with a pixel of background around it.
    """
    height, width = framed.shape[0] - 1, framed.shape[1] - 1
    leaves = np.zeros((height, width, 4), np.bool_)  # whether an edge leaves a corner in each of the four ways
    n_edges = 0
    for y in range(height):
        for x in range(width):
            corner, above, left, here = framed[y, x], framed[y, x + 1], framed[y + 1, x], framed[y + 1, x + 1]
            leaves[y, x, 0] = here and not above
            leaves[y, x, 1] = left and not here
            leaves[y, x, 2] = corner and not left
            leaves[y, x, 3] = above and not corner
            n_edges += leaves[y, x].sum()
    corners, ends = np.empty((n_edges, 2), np.int64), np.empty(n_edges // 4, np.int64)
    walked = np.zeros_like(leaves)
    size = n_rings = 0
    for start_y in range(height):
        for start_x in range(width):
            for start_way in range(4):
                if not leaves[start_y, start_x, start_way] or walked[start_y, start_x, start_way]:
                    continue
                y, x, way = start_y, start_x, start_way
                while not walked[y, x, way]:
                    walked[y, x, way] = True
                    y, x = y + STEP_Y[way], x + STEP_X[way]
                    onward = (way + 3) % 4
                    while not leaves[y, x, onward]:
                        onward = (onward + 1) % 4
                    if onward != way:
                        corners[size, 0], corners[size, 1] = x, y
                        size += 1
                    way = onward
                ends[n_rings] = size
                n_rings += 1
    return corners[:size], ends[:n_rings]
