"""One id per cell over time: linear assignment on overlap between frames, across a gap of one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from postprocess.morphology import compact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

LEAST_OVERLAP = 0.1
"""Two cells of less intersection over union are never linked."""
GAP = 1
"""A cell may be missing in this many frames in a row."""
STRIP = 1 << 22
"""Pixels of two frames compared at once."""


def link(frames: Iterable[tuple[int, NDArray[np.integer]]]) -> dict[int, dict[int, int]]:
    """Return frame -> label -> track (1, 2, ...) of ``(frame number, (Y, X) labels)`` in order of time.

    A dividing cell goes on as the daughter that overlaps it most; the other starts a track. A round cell that moves by
    more than 1.4 times its radius between two frames overlaps too little and is not followed.
    """
    linker = Linker()
    return {frame: linker.step(frame, labels) for frame, labels in frames}


@dataclass(frozen=True)
class Seen:
    """The cells of a frame, 1 to n in ``cells`` ``(Y, X)``; of each its pixels, its track and whether it goes on."""

    frame: int
    cells: NDArray[np.int32]
    area: NDArray[np.int64]
    track: NDArray[np.int64]
    continued: NDArray[np.bool_]


@dataclass
class Linker:
    """Links frame by frame and remembers only the frames a gap can reach."""

    tracks: int = 0
    recent: list[Seen] = field(default_factory=list)
    """Frames seen, the latest last."""

    def step(self, frame: int, labels: NDArray[np.integer]) -> dict[int, int]:
        """Return label -> track of the next frame."""
        self.recent = [seen for seen in self.recent if frame - seen.frame <= GAP + 1]
        ids, cells = compact(labels)
        area = np.bincount(cells.ravel(), minlength=len(ids) + 1)[1:]
        now = Seen(frame, cells, area, np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_))
        for earlier in reversed(self.recent):
            before, after = pair(earlier, now)
            now.track[after] = earlier.track[before]
            earlier.continued[before] = True
        fresh = now.track == 0
        now.track[fresh] = self.tracks + 1 + np.arange(np.count_nonzero(fresh))
        self.tracks += int(np.count_nonzero(fresh))
        self.recent.append(now)
        return dict(zip(ids.tolist(), now.track.tolist(), strict=True))


def pair(before: Seen, after: Seen) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of the pairs of largest total intersection over union, among cells not linked yet."""
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    old, new, shared = _shared(before.cells, after.cells)
    iou = shared / (before.area[old] + after.area[new] - shared)
    possible = (iou >= LEAST_OVERLAP) & ~before.continued[old] & (after.track[new] == 0)
    old, new, iou = old[possible], new[possible], iou[possible]
    n_old, n = len(before.area), len(before.area) + len(after.area)
    group = connected_components(coo_array((iou, (old, n_old + new)), shape=(n, n)), directed=False)[1][old]
    order = np.argsort(group, kind="stable")
    chosen = []  # cells that may be linked to each other, group by group: a table of all cells of a frame is too large
    for places in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(places) > 1:
            (rows, i), (columns, j) = (np.unique(cells[places], return_inverse=True) for cells in (old, new))
            table, place = np.zeros((len(rows), len(columns))), np.full((len(rows), len(columns)), -1)
            table[i, j], place[i, j] = iou[places], places
            found = place[linear_sum_assignment(table, maximize=True)]
            places = found[found >= 0]
        chosen.append(places)
    best = np.concatenate(chosen)
    return old[best], new[best]


def _shared(
    before: NDArray[np.int32], after: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of every old and new cell that share pixels, and how many; none in frames of other sizes."""
    codes, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    n = int(after.max(initial=0)) + 1
    rows = max(1, STRIP // max(before.shape[1], 1))
    for top in range(0, len(before) if before.shape == after.shape else 0, rows):
        a, b = before[top : top + rows], after[top : top + rows]
        both = (a > 0) & (b > 0)
        found, count = np.unique(a[both].astype(np.int64) * n + b[both], return_counts=True)
        codes.append(found)
        counts.append(count)
    pairs, place = np.unique(np.concatenate(codes), return_inverse=True)
    shared = np.zeros(len(pairs), np.int64)
    np.add.at(shared, place, np.concatenate(counts))
    old, new = np.divmod(pairs, n)
    return old - 1, new - 1, shared
