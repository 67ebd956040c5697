"""Exactly what TrackMate 7.0-8.1 measures: its contour of a label, step by step (science.md section 3), compiled.

Written from the described behaviour and checked against numbers of the original; no code of TrackMate is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from postprocess.polygon import hull_area, perimeter, signed_area

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

SPACING = 2.0
"""Distance between resampled points, pixels."""
EPSILON = 0.5
"""Douglas-Peucker tolerance, pixels."""
TRAITS = ("area", "perimeter", "circularity", "solidity", "shape_index", "radius")


@dataclass(frozen=True)
class Contour:
    """The outline of one piece of a label: ``(N, 2)`` float64 vertices (x, y) in pixels, pixel centres at integers."""

    label: int
    piece: int
    n_px: int
    points: NDArray[np.float64]


def contours(labels: NDArray[np.integer], *, simplify: bool = True) -> list[Contour]:
    """Return the polygons of every label, by label, then piece in the order of their last pixel.

    Pieces that touch at a corner are one; holes are filled; what has no area after simplification (1 or 2 pixels) has
    no contour.

    Parameters
    ----------
    labels
        ``(Y, X)`` integer, 0 background.
    simplify
        TrackMate's default "simplify contours"; else the staircase of pixel edges.
    """
    pieces, owner, last, n_px = _pieces(labels)
    found, next_piece = [], dict[int, int]()
    for k in np.lexsort((last, owner)):
        points = _contour(pieces, k + 1, last[k] // pieces.shape[1], last[k] % pieces.shape[1], simplify, 0, 0)
        if len(points):
            label = int(owner[k])
            piece = next_piece[label] = next_piece.get(label, -1) + 1
            found.append(Contour(label, piece, int(n_px[k]), points))
    return found


def measure(labels: NDArray[np.integer], *, simplify: bool = True) -> pd.DataFrame:
    """Return the traits of every contour of ``(Y, X)`` labels.

    Columns label, piece, quality (pixels of the piece), n_points, area, perimeter, circularity (unclipped), solidity,
    shape_index, radius; pixels throughout.
    """
    import pandas as pd

    found = contours(labels, simplify=simplify)
    rows = [(c.label, c.piece, c.n_px, len(c.points), *_traits(c.points)) for c in found]
    return pd.DataFrame(rows, columns=["label", "piece", "quality", "n_points", *TRAITS])


def largest(
    cells: NDArray[np.int32], n_cells: int, origin: tuple[int, int] = (0, 0)
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the traits of the largest piece of cells 1..n, ``(n, 6)`` float64, NaN without a contour, and its pieces.

    Parameters
    ----------
    cells
        ``(Y, X)`` int32 in which every number from 1 to ``n_cells`` occurs.
    n_cells
        Number of cells.
    origin
        Row and column of the image's corner in the frame it was cut from: vertices are rounded to float32 there.
    """
    pieces, owner, last, n_px = _pieces(cells)
    by_size = np.lexsort((n_px, owner))
    final = by_size[np.searchsorted(owner[by_size], np.arange(1, n_cells + 1), side="right") - 1]
    return _table(pieces, final + 1, last[final], True, *origin), np.bincount(owner, minlength=n_cells + 1)[1:]


def _pieces(labels: NDArray[np.integer]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the 8-connected pieces, padded by one pixel, and of each its label, last pixel (flat) and size."""
    padded = np.pad(labels, 1).astype(np.int64, copy=False)
    pieces, n = _connected(padded)
    last, n_px = _ends(pieces, n)
    return pieces, padded.ravel()[last], last, n_px


@njit(cache=True, nogil=True)
def _connected(labels: NDArray[np.int64]) -> tuple[NDArray[np.int32], int]:
    """Return the 8-connected pieces of equal labels, numbered from 1 in scan order, of an image framed by zeros."""
    height, width = labels.shape
    pieces = np.zeros((height, width), np.int32)
    parent = np.zeros(1024, np.int32)
    count = 0
    for y in range(1, height):
        for x in range(1, width - 1):
            label = labels[y, x]
            if label == 0:
                continue
            found = np.int32(0)
            for v, u in ((y, x - 1), (y - 1, x - 1), (y - 1, x), (y - 1, x + 1)):
                if labels[v, u] != label:
                    continue
                other = pieces[v, u]
                while parent[other] != other:
                    parent[other] = parent[parent[other]]
                    other = parent[other]
                if found == 0 or other == found:
                    found = other
                else:  # the older name stays
                    low, high = min(found, other), max(found, other)
                    parent[high] = low
                    found = low
            if found == 0:
                count += 1
                if count == len(parent):
                    parent = np.concatenate((parent, np.zeros_like(parent)))
                parent[count] = count
                found = np.int32(count)
            pieces[y, x] = found
    number = np.zeros(count + 1, np.int32)
    n = 0
    for name in range(1, count + 1):
        root = name
        while parent[root] != root:
            root = parent[root]
        if root == name:
            n += 1
            number[name] = n
        else:
            number[name] = number[root]
    for y in range(height):
        for x in range(width):
            if pieces[y, x]:
                pieces[y, x] = number[pieces[y, x]]
    return pieces, n


@njit(cache=True, nogil=True)
def _ends(pieces: NDArray[np.int32], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the last pixel (flat) of each piece and its number of pixels."""
    last, n_px = np.zeros(n, np.int64), np.zeros(n, np.int64)
    flat = pieces.ravel()
    for at in range(len(flat)):
        if flat[at]:
            last[flat[at] - 1] = at
            n_px[flat[at] - 1] += 1
    return last, n_px


@njit(cache=True, nogil=True)
def _table(
    pieces: NDArray[np.int32], ids: NDArray[np.int64], last: NDArray[np.int64], simplify: bool, top: int, left: int
) -> NDArray[np.float64]:
    """Return the traits of the pieces named, ``(N, 6)``."""
    table = np.full((len(ids), 6), np.nan)
    for k in range(len(ids)):
        points = _contour(pieces, ids[k], last[k] // pieces.shape[1], last[k] % pieces.shape[1], simplify, top, left)
        if len(points):
            table[k] = _traits(points)
    return table


@njit(cache=True, nogil=True)
def _traits(points: NDArray[np.float64]) -> tuple[float, float, float, float, float, float]:
    area, length, hull = abs(signed_area(points)), perimeter(points), hull_area(points)
    if area <= 0 or length <= 0:
        return area, length, math.nan, math.nan, math.nan, 0.0
    circularity = 4 * math.pi * area / length**2
    return area, length, circularity, area / hull, length / math.sqrt(area), math.sqrt(area / math.pi)


@njit(cache=True, nogil=True)
def _contour(
    pieces: NDArray[np.int32], piece: int, y: int, x: int, simplify: bool, top: int, left: int
) -> NDArray[np.float64]:
    """Return the vertices of a piece whose last pixel in scan order is (y, x) of the padded image; none if dropped."""
    points = _outline(pieces, piece, y, x)
    points[:, 0] += left
    points[:, 1] += top
    if simplify:
        points = _douglas_peucker(_resample(points))
        if len(points) < 3 or signed_area(points) == 0:
            return np.empty((0, 2))
        points = _round(points)
    return points - 0.5  # the pixel-centre convention


@njit(cache=True, nogil=True)
def _outline(pieces: NDArray[np.int32], piece: int, y: int, x: int) -> NDArray[np.float64]:
    """Return the corners of the outer boundary along pixel edges, up the right side of pixel (y, x) first."""
    step_x, step_y = (0, -1, 0, 1), (-1, 0, 1, 0)  # up, left, down, right; the piece lies on the left hand
    ahead_x, ahead_y = (0, -1, -1, 0), (-1, -1, 0, 0)  # from a vertex to the pixel ahead on the right
    capacity = 64
    corners = np.empty((capacity, 2))
    direction, vx, vy = 0, x + 1, y + 1
    corners[0, 0], corners[0, 1] = vx - 1, vy - 1  # of the image without its padding
    size = 1
    while True:
        vx += step_x[direction]
        vy += step_y[direction]
        if vx == x + 1 and vy == y + 1:
            return corners[:size]
        right = pieces[vy + ahead_y[direction], vx + ahead_x[direction]] == piece
        onward = (direction + 1) % 4
        left = pieces[vy + ahead_y[onward], vx + ahead_x[onward]] == piece
        if not right and left:
            continue
        direction = (direction + 3) % 4 if right else onward
        if size == capacity:
            capacity *= 2
            larger = np.empty((capacity, 2))
            larger[:size] = corners
            corners = larger
        corners[size, 0], corners[size, 1] = vx - 1, vy - 1
        size += 1


@njit(cache=True, nogil=True)
def _resample(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float32 points along the closed outline, each where a circle of 2 px about the last one cuts it next."""
    n = len(corners)
    found = np.empty((int(10 + perimeter(corners) * 1.5 / SPACING), 2))
    cx, cy = corners[0]
    ax, ay = cx, cy
    found[0, 0], found[0, 1] = cx, cy
    size, edge = 1, 0
    while edge < n:
        bx, by = corners[(edge + 1) % n]
        along = math.atan2(by - ay, bx - ax)
        to_centre = math.hypot(cx - ax, cy - ay)
        turn = along - math.atan2(cy - ay, cx - ax)
        foot, off = to_centre * math.cos(turn), to_centre * math.sin(turn)
        cut = -1.0
        if abs(off) <= SPACING:
            half = math.sqrt(SPACING * SPACING - off * off)
            length = math.hypot(bx - ax, by - ay)
            if 0 <= foot - half <= length:
                cut = foot - half
            elif 0 <= foot + half <= length:
                cut = foot + half
        if cut >= 0:
            ax, ay = ax + math.cos(along) * cut, ay + math.sin(along) * cut
            cx, cy = ax, ay
            found[size, 0], found[size, 1] = ax, ay
            size += 1
        else:
            edge += 1
            ax, ay = corners[edge % n]
    return found[:size].astype(np.float32).astype(np.float64)


@njit(cache=True, nogil=True)
def _douglas_peucker(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points kept of an open list; a split at i goes on with points[s:i] and points[i:e]."""
    kept = np.zeros(len(points), np.bool_)
    stack = [(0, len(points))]
    while stack:
        start, end = stack.pop()
        farthest, worst = start, 0.0
        for i in range(start + 1, end - 1):
            distance = _distance(points[i], points[start], points[end - 1])
            if distance > worst:
                farthest, worst = i, distance
        if worst > EPSILON:
            stack.append((start, farthest))
            stack.append((farthest, end))
        else:
            kept[start] = True
            kept[end - 1] = True
    return points[kept]


@njit(cache=True, nogil=True)
def _distance(p: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the distance of a point to the segment from a to b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    squared = dx * dx + dy * dy
    t = 0.0 if squared == 0 else ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / squared
    t = min(max(t, 0.0), 1.0)
    return math.hypot(p[0] - (a[0] + t * dx), p[1] - (a[1] + t * dy))


@njit(cache=True, nogil=True)
def _round(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vertices rounded to integers relative to their bounding box, in float32."""
    rounded = np.empty_like(points)
    for axis in range(2):
        low = np.float32(points[:, axis].min())
        for i in range(len(points)):
            rounded[i, axis] = math.floor(np.float32(points[i, axis]) - low + np.float32(0.5)) + math.floor(low)
    return rounded
