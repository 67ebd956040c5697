"""Area, perimeter and convex hull of polygons, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def signed_area(points: NDArray[np.float64]) -> float:
    """Return the shoelace area of ``(N, 2)`` vertices, negative for the other sense of rotation."""
    total = 0.0
    x0, y0 = points[0]
    for i in range(len(points)):
        j = i + 1 if i + 1 < len(points) else 0
        total += (points[i, 0] - x0) * (points[j, 1] - y0) - (points[j, 0] - x0) * (points[i, 1] - y0)
    return 0.5 * total


@njit(cache=True, nogil=True)
def perimeter(points: NDArray[np.float64]) -> float:
    """Return the length of the closed outline of ``(N, 2)`` vertices."""
    total = 0.0
    for i in range(len(points)):
        j = i + 1 if i + 1 < len(points) else 0
        total += np.sqrt((points[j, 0] - points[i, 0]) ** 2 + (points[j, 1] - points[i, 1]) ** 2)
    return total


@njit(cache=True, nogil=True)
def _turn(a: NDArray[np.float64], b: NDArray[np.float64], x: float, y: float) -> float:
    """Return a positive number where the way from a over b to (x, y) turns left, 0 where it is straight."""
    return float((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]))


@njit(cache=True, nogil=True)
def hull_area(points: NDArray[np.float64]) -> float:
    """Return the area of the convex hull of ``(N, 2)`` points (Andrew's monotone chain)."""
    n = len(points)
    order = np.argsort(points[:, 0])
    for i in range(1, n):  # equal x: by y, so that the chain is one
        j = i
        while j > 0 and (
            points[order[j - 1], 0] == points[order[j], 0] and points[order[j - 1], 1] > points[order[j], 1]
        ):
            order[j - 1], order[j] = order[j], order[j - 1]
            j -= 1
    hull = np.empty((2 * n + 2, 2))
    size = 0
    for sweep in range(2):
        floor = size + 1
        for k in range(n):
            x, y = points[order[k] if sweep == 0 else order[n - 1 - k]]
            while size > floor and _turn(hull[size - 2], hull[size - 1], x, y) <= 0:
                size -= 1
            hull[size, 0], hull[size, 1] = x, y
            size += 1
        size -= 1  # the last point of one chain starts the other
    return abs(signed_area(hull[:size])) if size > 2 else 0.0
