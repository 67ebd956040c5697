"""Sizes of cells and limits on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


SMALL_CELL = 22.0
"""Diameter in pixels that stands in where there is no cell to measure: that of a lymphocyte at 20x."""


def median_diameter(truth: Iterable[NDArray[np.integer]]) -> float:
    """Return the median diameter, in pixels, of discs as large as the cells of ``(Y, X)`` label images."""
    areas = [np.unique(labels[labels > 0], return_counts=True)[1] for labels in truth]
    everything = np.concatenate(areas) if areas else np.zeros(0)
    return float(np.sqrt(4 * np.median(everything) / np.pi)) if everything.size else SMALL_CELL


def areas_to_try(diameter: float) -> tuple[int, ...]:
    """Return limits of cell area in pixels, ascending from 0, that go with cells of a diameter in pixels."""
    area = np.pi / 4 * diameter**2
    return tuple(sorted({0, *(round(part * area) for part in (0.02, 0.05, 0.13))}))


def drop_small(labels: NDArray[np.int32], min_area: int) -> NDArray[np.int32]:
    """Return ``(Y, X)`` int32 labels without cells of fewer than ``min_area`` pixels, ids closed up in their order."""
    area = np.bincount(labels.ravel(), minlength=1)
    kept = area >= max(min_area, 1)
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]
