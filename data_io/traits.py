"""Exact traits of made-up cells, from the continuous outline and not from its pixels.

An outline is a polar radius rho(theta) with a known formula. Its area is the integral of rho^2 / 2, its perimeter that
of sqrt(rho^2 + rho'^2); on evenly spaced angles both sums, and the derivative by Fourier transform, are exact to
rounding for smooth outlines. Formulas of the traits: circularity 4 pi A / P^2, solidity A / A(convex hull), radius
sqrt(A / pi), shape index P / sqrt(A).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANGLES = np.linspace(-np.pi, np.pi, 513)
"""Closed: the last angle is the first again."""
COLUMNS = ("area_px2", "perimeter_px", "circularity", "solidity", "radius_px", "shape_index")


def traits(outlines: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return each of `COLUMNS` as `(N,)`.

    Parameters
    ----------
    outlines
        `(N, 513)` px from centre to outline at `ANGLES`.
    """
    rho = outlines[:, :-1]
    n = rho.shape[1]
    steep = np.fft.irfft(1j * np.arange(n // 2 + 1) * np.fft.rfft(rho), n)
    area = np.pi * np.mean(rho**2, axis=1)
    perimeter = 2 * np.pi * np.mean(np.hypot(rho, steep), axis=1)
    corners = 0.5 * np.sin(2 * np.pi / n) * np.sum(rho * np.roll(rho, 1, axis=1), axis=1)
    return {
        "area_px2": area,
        "perimeter_px": perimeter,
        "circularity": 4 * np.pi * area / perimeter**2,
        "solidity": corners / _hull_areas(rho),
        "radius_px": np.sqrt(area / np.pi),
        "shape_index": perimeter / np.sqrt(area),
    }


def isolated(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the labels of `(Y, X)` int32 that touch no other, not even at a corner, and no edge of the frame."""
    apart = np.bincount(labels.ravel()) > 0
    apart[0] = False
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        apart[edge] = False
    apart[in_contact(labels)] = False
    return np.flatnonzero(apart).astype(np.int32)


def in_contact(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the labels of `(Y, X)` int32 that touch another, at an edge or a corner of a pixel, ascending."""
    neighbours = (
        (labels[1:], labels[:-1]),
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:, 1:], labels[:-1, :-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    )
    touching = np.zeros(int(labels.max(initial=0)) + 1, bool)
    for one, other in neighbours:
        meet = (one != other) & (one > 0) & (other > 0)
        touching[one[meet]] = touching[other[meet]] = True
    return np.flatnonzero(touching).astype(np.int32)


@njit(cache=True, nogil=True)
def _hull_areas(rho: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area of each convex hull by Graham's scan, `(N,)`; the points are sorted by angle already."""
    cells, n = rho.shape
    areas = np.empty(cells)
    y, x = np.empty(n + 1), np.empty(n + 1)
    for i in range(cells):
        first, size = np.argmax(rho[i]), 0  # the farthest point lies on the hull
        for step in range(n + 1):
            at = (first + step) % n
            angle = 2 * np.pi * at / n
            y[size], x[size] = rho[i, at] * np.sin(angle), rho[i, at] * np.cos(angle)
            while size > 1 and (
                (x[size - 1] - x[size - 2]) * (y[size] - y[size - 2])
                <= (y[size - 1] - y[size - 2]) * (x[size] - x[size - 2])
            ):
                size -= 1
                y[size], x[size] = y[size + 1], x[size + 1]
            size += 1
        area = 0.0
        for k in range(size - 1):
            area += 0.5 * (x[k] * y[k + 1] - x[k + 1] * y[k])
        areas[i] = area
    return areas
