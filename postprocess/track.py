"""One id per cell over time: linear assignment on overlap between frames, across a gap of one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

LEAST_OVERLAP = 0.1
"""Two cells of less intersection over union are never linked."""
GAP = 1
"""A cell may be missing in this many frames in a row."""


def link(frames: Iterable[tuple[int, NDArray[np.integer]]]) -> dict[int, dict[int, int]]:
    """Return frame -> label -> track (1, 2, ...) of ``(frame number, (Y, X) labels)`` in order of time.

    A dividing cell goes on as the daughter that overlaps it most; the other starts a track.
    """
    linker = Linker()
    return {frame: linker.step(frame, labels) for frame, labels in frames}


@dataclass
class Linker:
    """Links frame by frame and remembers only the frames a gap can reach."""

    tracks: int = 0
    recent: list[tuple[int, NDArray[np.integer], dict[int, int]]] = field(default_factory=list)
    """Frame, labels and the label -> track of the cells not yet continued, latest frame last."""

    def step(self, frame: int, labels: NDArray[np.integer]) -> dict[int, int]:
        """Return label -> track of the next frame."""
        self.recent = [entry for entry in self.recent if frame - entry[0] <= GAP + 1]
        waiting = {int(label) for label in np.unique(labels)} - {0}
        found: dict[int, int] = {}
        for _, earlier, unfinished in reversed(self.recent):
            for before, after in pair(earlier, labels, set(unfinished), waiting):
                found[after] = unfinished.pop(before)
                waiting.discard(after)
        for label in sorted(waiting):
            self.tracks += 1
            found[label] = self.tracks
        self.recent.append((frame, labels, dict(found)))
        return dict(sorted(found.items()))


def pair(
    before: NDArray[np.integer], after: NDArray[np.integer], old: set[int], new: set[int]
) -> list[tuple[int, int]]:
    """Return the pairs (old label, new label) of largest total intersection over union, among the labels given."""
    from scipy.optimize import linear_sum_assignment

    if not old or not new or before.shape != after.shape:
        return []
    rows, columns = np.array(sorted(old)), np.array(sorted(new))
    overlap = _overlap(before, after, rows, columns)
    union = _areas(before, rows)[:, None] + _areas(after, columns)[None] - overlap
    iou = overlap / union
    chosen = zip(*linear_sum_assignment(iou, maximize=True), strict=True)
    return [(int(rows[i]), int(columns[j])) for i, j in chosen if iou[i, j] >= LEAST_OVERLAP]


def _overlap(
    before: NDArray[np.integer], after: NDArray[np.integer], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the pixels each old and new label share, ``(len(rows), len(columns))``."""
    both = (before > 0) & (after > 0)
    i, j = np.searchsorted(rows, before[both]), np.searchsorted(columns, after[both])
    known = (i < len(rows)) & (j < len(columns))
    i, j, a, b = i[known], j[known], before[both][known], after[both][known]
    known = (rows[i] == a) & (columns[j] == b)
    counts = np.bincount(i[known] * len(columns) + j[known], minlength=len(rows) * len(columns))
    return counts.reshape(len(rows), len(columns))


def _areas(labels: NDArray[np.integer], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    present, area = np.unique(labels, return_counts=True)
    return np.asarray(area[np.searchsorted(present, ids)])
