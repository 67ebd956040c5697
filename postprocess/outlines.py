"""Outlines of cells along the edges of pixels: filled, they give back the cell to the pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage as ndi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def cells(labels: NDArray[np.integer]) -> Iterator[tuple[int, list[list[NDArray[np.int64]]]]]:
    """Yield every label of a ``(Y, X)`` image with its pieces, each a list of rings: the outer one, then holes.

    A piece is 4-connected. A ring is ``(N, 2)`` int64 corners (x, y), where pixel (0, 0) is the square from (0, 0) to
    (1, 1); the first corner is not repeated.
    """
    values, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(labels.shape) + int(values[0] != 0)
    values = values[values != 0]
    for place, box in enumerate(ndi.find_objects(compact)):
        pieces, n = ndi.label(compact[box] == place + 1)
        origin = np.array([box[1].start, box[0].start])
        yield int(values[place]), [[ring + origin for ring in rings(pieces == k + 1)] for k in range(n)]


def rings(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the rings of a 4-connected ``(y, x)`` mask: its outer one first, then those of its holes.

    Each edge between inside and outside is walked with the inside on the right; where four edges meet the walk turns
    right, so that corners that only touch stay apart.
    """
    framed = np.pad(mask, 1)
    here, above, left = framed[1:, 1:], framed[:-1, 1:], framed[1:, :-1]
    step: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for found, start, way in (
        (here & ~above, (0, 0), (1, 0)),  # along the top of a pixel, to the right
        (above & ~here, (1, 0), (-1, 0)),  # along its bottom, to the left
        (here & ~left, (0, 1), (0, -1)),  # along its left side, up
        (left & ~here, (0, 0), (0, 1)),  # along its right side, down
    ):
        for y, x in zip(*np.nonzero(found), strict=True):
            step.setdefault((int(x) + start[0], int(y) + start[1]), []).append(way)
    found_rings = []
    while step:
        at = first = next(iter(step))
        way = step[at][0]
        corners: list[tuple[int, int]] = []
        while True:
            ways = step[at]
            turned = (-way[1], way[0])  # to the right, with y pointing down
            taken = turned if turned in ways else way if way in ways else ways[0]
            ways.remove(taken)
            if not ways:
                del step[at]
            if taken != way or not corners:
                corners.append(at)
            way, at = taken, (at[0] + taken[0], at[1] + taken[1])
            if at == first and way not in [(w[1], -w[0]) for w in step.get(at, [])]:
                break
        if len(corners) > 1 and _straight(corners[-1], corners[0], corners[1]):
            corners = corners[1:]
        found_rings.append(np.array(corners, np.int64))
    return sorted(found_rings, key=lambda ring: -abs(area(ring)))


def area(ring: NDArray[np.int64]) -> float:
    """Return the signed area of a ring in pixels."""
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _straight(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    return a[0] == b[0] == c[0] or a[1] == b[1] == c[1]
