"""Any angle and elastic bending of crops: images linear, labels of the nearest pixel, mirrored beyond the edges."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPACING = 32
"""Px between the knots of an elastic displacement."""
FOLD = 0.2
"""Knots move by at most this part of their spacing: neighbouring pixels then never change places."""


def positions(size: int, angle: float, knots: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """Return `(2, S, S)` float32: the row and column each pixel of a warped crop is taken from.

    Parameters
    ----------
    size
        S, px.
    angle
        Rotation about the middle of the crop, radians.
    knots
        `(2, K, K)` displacements in px at `SPACING` px, K = `n_knots(size)`; a cubic B-spline lies between them.
    """
    along = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    rows, columns = along[:, None], along[None]
    taken = np.stack([cos * rows - sin * columns, sin * rows + cos * columns]) + np.float32((size - 1) / 2)
    if knots is not None:
        spline = _spline(size)
        taken += (spline @ knots @ spline.T).astype(np.float32)
    return taken


def n_knots(size: int) -> int:
    """Return how many knots an elastic displacement has along each side of a crop of `size` px."""
    return -(-size // SPACING) + 3


def warp(
    image: NDArray[np.float32], labels: NDArray[np.int32], taken: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return `(C, S, S)` and `(S, S)`, each pixel taken from its place in `taken` `(2, S, S)`.

    Every piece of the result is a cell: of a cell that is cut or mirrored the largest piece keeps the name.
    """
    warped, drawn = np.empty_like(image), np.empty_like(labels)
    _sample(image, labels, taken, warped, drawn)
    return warped, one_piece_each(drawn)


def one_piece_each(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return `(Y, X)` labels with new names for all 8-connected pieces of a cell but the largest."""
    from skimage.measure import label

    pieces = label(labels, background=0, connectivity=2)
    names = np.zeros(pieces.max() + 1, np.int32)
    names[pieces.ravel()] = labels.ravel()
    area = np.bincount(pieces.ravel())
    largest_first = np.lexsort([-area, names])
    again = largest_first[1:][np.diff(names[largest_first]) == 0]
    names[again] = names.max() + np.arange(1, 1 + len(again))
    own: NDArray[np.int32] = names[pieces]
    return own


@lru_cache(maxsize=4)
def _spline(size: int) -> NDArray[np.float64]:
    """Return `(S, K)`: the weight of each knot at each pixel; every row sums to 1."""
    at, n = np.arange(size) / SPACING, n_knots(size)
    away = np.abs(at[:, None] - (np.arange(n) - 1))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.maximum(2 - away, 0) ** 3 / 6
    return np.where(away < 1, near, far)


@njit(cache=True)
def _mirror(i: int, n: int) -> int:
    """Return the index within 0 ... n - 1 after mirroring at both edges, their pixels included."""
    if 0 <= i < n:  # nearly always, and a division takes long
        return i
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i


@njit(cache=True)
def _sample(
    image: NDArray[np.float32],
    labels: NDArray[np.int32],
    taken: NDArray[np.float32],
    warped: NDArray[np.float32],
    drawn: NDArray[np.int32],
) -> None:
    """Fill `warped` by linear interpolation and `drawn` with the nearest label."""
    height, width = labels.shape
    for i in range(height):
        for j in range(width):
            y, x = taken[0, i, j], taken[1, i, j]
            row, column = int(np.floor(y)), int(np.floor(x))
            down, right = y - np.float32(row), x - np.float32(column)
            near_row, near_column = row + (down >= np.float32(0.5)), column + (right >= np.float32(0.5))
            top, bottom = _mirror(row, height), _mirror(row + 1, height)
            left, beside = _mirror(column, width), _mirror(column + 1, width)
            drawn[i, j] = labels[_mirror(near_row, height), _mirror(near_column, width)]
            for c in range(len(image)):
                above = image[c, top, left] + right * (image[c, top, beside] - image[c, top, left])
                below = image[c, bottom, left] + right * (image[c, bottom, beside] - image[c, bottom, left])
                warped[c, i, j] = above + down * (below - above)
