"""StarDist's targets as compiled loops: the distance to the outline of every cell at once, and the marching rays.

The values are those of `stardist.utils.edt_prob` and `stardist.geometry.star_dist`: a ray takes the same steps, rounded
in the same way, but where the steps lead and how long they are is tabulated, and those that cannot leave the cell are
skipped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAR = np.int32(46_340)
"""Further than any outline, and its square still an int32."""
SLACK = 0.71
"""The position of a ray is rounded to a pixel at most this far away."""
TIE = np.int32(2**30)
"""Offset of a step so close to the middle between two pixels that its rounding depends on where the ray began."""


class Steps(NamedTuple):
    """What n steps of each ray lead to, n from 0; the first two axes are ``(R, n)``."""

    way: NDArray[np.float32]
    """``(R, n, 2)`` rows and columns gone."""
    offset: NDArray[np.int32]
    """The same in elements of a frame with a border of 1 px."""
    length: NDArray[np.float32]
    """Length in pixels of a ray whose n-th step is the first outside the cell: it ends half a pixel before."""


@lru_cache(maxsize=8)
def steps(n_rays: int, shape: tuple[int, int]) -> Steps:
    """Return the steps of all rays within a frame of ``shape`` (Y, X)."""
    angle = (np.arange(n_rays, dtype=np.float32) * np.float32(2 * np.pi / n_rays)).astype(np.float64)
    step = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
    reach = int(np.hypot(*shape)) + 3
    way = np.zeros((n_rays, reach, 2), np.float32)
    way[:, 1:] = np.cumsum(np.repeat(step[:, None], reach - 1, axis=1), axis=1, dtype=np.float32)
    back = np.float32(1) - np.float32(0.5) / np.abs(step).max(axis=1)
    end = way - (back[:, None] * step)[:, None]
    length = np.sqrt((end * end).sum(axis=-1))
    rows, columns = np.moveaxis(np.rint(way).astype(np.int32), -1, 0)
    tie = (np.abs(np.abs(way - np.floor(way)) - 0.5) <= 2 * reach * np.finfo(np.float32).eps).any(axis=-1)
    return Steps(way, np.where(tie, TIE, rows * (shape[1] + 2) + columns).astype(np.int32), length)


@njit(cache=True, nogil=True)
def squared_distances(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return ``(Y, X)`` int32: the squared distance of each cell's pixels to the nearest pixel of anything else.

    The edge of the image is no outline. Up and down the columns first, then along the rows within each run of a label:
    the nearest other pixel lies in a column of the run, or is the pixel beside its end.
    """
    height, width = labels.shape
    column = np.full((height, width), FAR, np.int32)
    for y in range(1, height):
        for x in range(width):
            column[y, x] = min(column[y - 1, x] + 1, FAR) if labels[y, x] == labels[y - 1, x] else 1
    for y in range(height - 2, -1, -1):
        for x in range(width):
            below = column[y + 1, x] + 1 if labels[y, x] == labels[y + 1, x] else 1
            column[y, x] = min(column[y, x], below)
    squared = np.zeros((height, width), np.int32)
    for y in range(height):
        start = 0
        while start < width:
            end = start + 1
            while end < width and labels[y, end] == labels[y, start]:
                end += 1
            if labels[y, start] > 0:
                for x in range(start, end):
                    least = column[y, x] ** 2
                    if start > 0:
                        least = min(least, (x - start + 1) ** 2)
                    if end < width:
                        least = min(least, (end - x) ** 2)
                    away = 1
                    while away * away < least and (x - away >= start or x + away < end):
                        if x - away >= start:
                            least = min(least, away * away + column[y, x - away] ** 2)
                        if x + away < end:
                            least = min(least, away * away + column[y, x + away] ** 2)
                        away += 1
                    squared[y, x] = least
            start = end
    return squared


@njit(cache=True, nogil=True)
def fill(
    labels: NDArray[np.int32],
    squared: NDArray[np.int32],
    way: NDArray[np.float32],
    offset: NDArray[np.int32],
    length: NDArray[np.float32],
    stride: int,
    target: NDArray[np.float32],
) -> None:
    """Fill ``target`` ``(1 + R, Y', X')`` zeros with probability and ray lengths of every ``stride``-th pixel.

    ``squared`` is what `squared_distances` returns, ``way``, ``offset``, ``length`` are the `steps`.
    """
    height, width = labels.shape
    largest = np.zeros(labels.max() + 1, np.int32)
    for y in range(height):
        for x in range(width):
            if labels[y, x] > 0:
                largest[labels[y, x]] = max(largest[labels[y, x]], squared[y, x])
    wide = width + 2
    framed = np.full((height + 2, wide), -1, np.int32)
    framed[1:-1, 1:-1] = labels
    flat = framed.ravel()
    for i in range(target.shape[1]):
        for j in range(target.shape[2]):
            y, x = i * stride, j * stride
            cell = labels[y, x]
            if cell <= 0:
                continue
            outline = np.sqrt(np.float64(squared[y, x]))
            target[0, i, j] = outline / (np.sqrt(np.float64(largest[cell])) + 1e-10)
            start = (y + 1) * wide + x + 1
            first = max(1, int(min(outline, y + 1, x + 1, height - y, width - x) - SLACK) + 1)
            for k in range(len(offset)):
                n = first
                while True:
                    away = offset[k, n]
                    if away == TIE:
                        row = np.int32(np.rint(np.float32(y) + way[k, n, 0]))
                        away = (row - y) * wide + np.int32(np.rint(np.float32(x) + way[k, n, 1])) - x
                    if flat[np.uint32(start + away)] != cell:
                        break
                    n += 1
                target[1 + k, i, j] = length[k, n]
