"""Outlines to instance labels, by the rule of ImageJ: a pixel belongs to an outline if its centre lies inside.

Pixel (0, 0) reaches from corner (0, 0) to corner (1, 1), as in ImageJ and QuPath, so an outline traced along pixel
borders gives back exactly the pixels it was traced around.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Ring = NDArray[np.float64]
    """`(N, 2)` corners x, y in px; the last is joined to the first."""

MAX_CROSSINGS = 2**26
"""An outline that crosses more pixel rows is no cell: it would fill the memory."""
_RIGHTWARD = 1e-8
"""px: a centre exactly on a left border is outside, on a right border inside, as in ImageJ's PolygonFiller."""


@dataclass(frozen=True)
class Drawn:
    """What outlines say of the frames of one image."""

    labels: NDArray[np.int32]
    """`(T, Y, X)`, 0 background, each positive value a cell."""
    annotated: tuple[bool, ...]
    """Which frames someone annotated: those with at least one outline, and all where there is none anywhere."""
    notes: tuple[str, ...] = ()
    """What was left out or decided, for the warnings of the data set."""


@dataclass(frozen=True)
class Patch:
    """The pixels of one outline in one frame: `inside` is `(h, w)` bool with its corner at `top`, `left`."""

    frame: int
    top: int
    left: int
    inside: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Pixels within the frame."""
        return int(np.count_nonzero(self.inside))


def fill(frame: int, rings: Sequence[Ring], shape: tuple[int, int]) -> Patch:
    """Return the pixels inside an odd number of rings, within a frame of `shape` (Y, X): a ring in a ring is a hole.

    Raises
    ------
    ValueError
        The rings cross more than 2**26 pixel rows.
    """
    start = np.concatenate([np.zeros((0, 2)), *rings])
    end = np.concatenate([np.zeros((0, 2)), *(np.roll(ring, -1, axis=0) for ring in rings)])
    down = (start[:, 1] <= end[:, 1])[:, None]
    upper, lower = np.where(down, start, end), np.where(down, end, start)
    first, last = (np.clip(np.ceil(p[:, 1] - 0.5), 0, shape[0]).astype(np.int64) for p in (upper, lower))
    rows = last - first
    if rows.sum() > MAX_CROSSINGS:
        raise ValueError("an outline too tangled to be a cell")
    edge = np.repeat(np.arange(len(rows)), rows)
    if not len(edge):
        return Patch(frame, 0, 0, np.zeros((0, 0), np.bool_))
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows)
    slope = (lower - upper)[edge]
    x = upper[edge, 0] + (row + 0.5 - upper[edge, 1]) * slope[:, 0] / slope[:, 1]
    column = np.clip(np.floor(x + 0.5 + _RIGHTWARD), 0, shape[1]).astype(np.int64)
    top, left = int(row.min()), int(column.min())
    size = int(row.max()) - top + 1, int(column.max()) - left + 1
    crossings = np.bincount((row - top) * size[1] + column - left, minlength=size[0] * size[1]).reshape(size)
    return Patch(frame, top, left, np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1)


def unite(patches: Sequence[Patch], frame: int) -> Patch:
    """Return the pixels of any of the patches as one."""
    patches = [patch for patch in patches if patch.inside.size]
    if len(patches) == 1:
        return patches[0]
    if not patches:
        return Patch(frame, 0, 0, np.zeros((0, 0), np.bool_))
    top, left = min(p.top for p in patches), min(p.left for p in patches)
    bottom = max(p.top + p.inside.shape[0] for p in patches)
    right = max(p.left + p.inside.shape[1] for p in patches)
    inside = np.zeros((bottom - top, right - left), np.bool_)
    for p in patches:
        y, x = p.top - top, p.left - left
        inside[y : y + p.inside.shape[0], x : x + p.inside.shape[1]] |= p.inside
    return Patch(frame, top, left, inside)


def ellipse(frame: int, box: tuple[float, float, float, float], shape: tuple[int, int]) -> Patch:
    """Return the pixels whose centre lies in the ellipse that fills a box (left, top, right, bottom) in px."""
    left, top, right, bottom = box
    y = _pixels(top, bottom, shape[0])
    x = _pixels(left, right, shape[1])
    down = ((y + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 1e-9)) ** 2
    across = ((x + 0.5 - (left + right) / 2) / max((right - left) / 2, 1e-9)) ** 2
    inside = down[:, None] + across[None, :] <= 1.0
    return Patch(frame, int(y[0]) if len(y) else 0, int(x[0]) if len(x) else 0, inside)


def label(path: Path, patches: Iterable[Patch], frames: int, shape: tuple[int, int]) -> Drawn:
    """Return the labels of outlines: in each frame 1, 2, ... in the order given.

    Where outlines overlap the smaller one keeps the pixels, and of two equal ones the first: no cell disappears below
    a larger one. Outlines without a pixel in the frame leave a gap in the numbers.
    """
    labels = np.zeros((frames, *shape), np.int32)
    by_frame: list[list[Patch]] = [[] for _ in range(frames)]
    for patch in patches:
        by_frame[patch.frame].append(patch)
    twice = gone = outside = 0
    for one, drawn in zip(labels, by_frame, strict=True):
        areas = [patch.area for patch in drawn]
        for at in sorted(range(len(drawn)), key=lambda at: (-areas[at], -at)):
            p = drawn[at]
            one[p.top : p.top + p.inside.shape[0], p.left : p.left + p.inside.shape[1]][p.inside] = at + 1
        left = np.unique(one[one > 0]).size
        outside += areas.count(0)
        gone += len(areas) - areas.count(0) - left
        twice += sum(areas) - int(np.count_nonzero(one))
    said = (
        (outside, "{} outlines cover no pixel of their frame; left out"),
        (gone, "{} outlines lie wholly under others (drawn twice?); left out"),
        (twice, "{} px lie in more than one outline; the smaller cell keeps them"),
    )
    notes = tuple(f"{path}: {text.format(count)}" for count, text in said if count)
    annotated = tuple(map(bool, by_frame))
    return Drawn(labels, annotated if any(annotated) else (True,) * frames, notes)


def _pixels(low: float, high: float, limit: int) -> NDArray[np.int64]:
    """Return the pixels that an interval touches within 0 .. limit."""
    first, last = np.clip([np.floor(low), np.ceil(high)], 0, limit)
    return np.arange(int(first), int(last))
