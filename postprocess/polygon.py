"""Area, perimeter, convex hull and Feret diameters of polygons, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

TINY = 1e-9
"""Lengths closer than this are taken as equal, pixels."""


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
def hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of the convex hull of ``(N, 2)`` points in order, ``(M, 2)`` (Andrew's monotone chain).

    No three of them lie on a line; of points that all do there are two.
    """
    n = len(points)
    order = np.argsort(points[:, 0])
    for i in range(1, n):  # equal x: by y, so that the chain is one
        j = i
        while j > 0 and (
            points[order[j - 1], 0] == points[order[j], 0] and points[order[j - 1], 1] > points[order[j], 1]
        ):
            order[j - 1], order[j] = order[j], order[j - 1]
            j -= 1
    corners = np.empty((2 * n + 2, 2))
    size = 0
    for sweep in range(2):
        floor = size + 1
        for k in range(n):
            x, y = points[order[k] if sweep == 0 else order[n - 1 - k]]
            while size > floor and _turn(corners[size - 2], corners[size - 1], x, y) <= 0:
                size -= 1
            corners[size, 0], corners[size, 1] = x, y
            size += 1
        size -= 1  # the last point of one chain starts the other
    return corners[:size]


@njit(cache=True, nogil=True)
def hull_area(points: NDArray[np.float64]) -> float:
    """Return the area of the convex hull of ``(N, 2)`` points."""
    corners = hull(points)
    return abs(signed_area(corners)) if len(corners) > 2 else 0.0


@njit(cache=True, nogil=True)
def feret(corners: NDArray[np.float64]) -> tuple[float, float]:
    """Return the largest and the smallest distance of two parallel lines that hold a convex polygon between them.

    Rotating calipers (Shamos 1978): the smallest is reached with a line along an edge, the largest between two corners
    that lie opposite each other.

    Parameters
    ----------
    corners
        ``(M, 2)`` with M >= 3, turning left as those of `hull` do.
    """
    n = len(corners)
    largest, smallest, far = 0.0, np.inf, 1
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        dy, dx = corners[j, 0] - corners[i, 0], corners[j, 1] - corners[i, 1]
        length = np.sqrt(dy * dy + dx * dx)
        if length < TINY:
            continue  # too short to have a direction
        widest, k = -1.0, far  # the width times the length
        for _ in range(n):
            y, x = corners[k, 0] - corners[i, 0], corners[k, 1] - corners[i, 1]
            wider = dy * x - dx * y
            if widest >= 0 and wider < widest - TINY * length:
                break
            far, widest = k, max(widest, wider)
            largest = max(largest, y * y + x * x, (y - dy) ** 2 + (x - dx) ** 2)
            k = k + 1 if k + 1 < n else 0
        smallest = min(smallest, widest / length)
    return np.sqrt(largest), smallest
