"""Connected components of a mask that is seen tile by tile, as if it had been seen whole.

Each tile is labelled alone; labels that meet at a seam are one component. What is kept is a few numbers per component,
never the image, so a mask of any size can be named in the memory of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage as ndi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


class Box(NamedTuple):
    """A half-open rectangle of pixels."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def at(self) -> tuple[slice, slice]:
        """Return the rectangle as an index."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grown(self, by: int, shape: tuple[int, int]) -> Box:
        """Return the rectangle with a margin, within a frame of ``shape`` (Y, X)."""
        return Box(max(self.y0 - by, 0), max(self.x0 - by, 0), min(self.y1 + by, shape[0]), min(self.x1 + by, shape[1]))

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Return the rectangle as an index into one that holds it."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)


def tiles_of(shape: tuple[int, int], side: int) -> list[Box]:
    """Return squares that cover a frame of ``shape`` (Y, X) without overlap, in rows from the top left."""
    return [
        Box(y, x, min(y + side, shape[0]), min(x + side, shape[1]))
        for y in range(0, shape[0], side)
        for x in range(0, shape[1], side)
    ]


@dataclass(frozen=True)
class Components:
    """The components of a mask, numbered 1, 2, ... by their first pixel in scan order, as `scipy.ndimage.label` does.

    Attributes
    ----------
    size
        ``(n + 1,)`` int64 pixels of each component, 0 for the background.
    first
        ``(n + 1,)`` int64 flat index of its first pixel in the frame.
    box
        ``(n + 1, 4)`` int64 half-open bounding box y0, x0, y1, x1.
    """

    size: NDArray[np.int64]
    first: NDArray[np.int64]
    box: NDArray[np.int64]
    _name: tuple[NDArray[np.int64], ...]

    def label(self, tile: int, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the numbers of the components in a tile, by its place, of the mask that was there; 0 elsewhere."""
        named: NDArray[np.int64] = self._name[tile][ndi.label(mask)[0]]
        return named


def components(mask_of: Callable[[Box], NDArray[np.bool_]], tiles: list[Box], shape: tuple[int, int]) -> Components:
    """Return the 4-connected components of a mask.

    Parameters
    ----------
    mask_of
        Returns the mask of a tile, ``(y, x)`` bool.
    tiles
        What `tiles_of` gives for the frame.
    shape
        ``(Y, X)`` of the frame.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    seen, total = [_Part(mask_of(tile), tile, shape[1]) for tile in tiles], 0
    for part in seen:
        part.offset, total = total, total + len(part.size)
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *_meetings(seen, tiles)])
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    n, root = connected_components(links, directed=False) if total else (0, np.zeros(0, np.int64))
    size, first = np.zeros(n, np.int64), np.full(n, np.iinfo(np.int64).max)
    low, high = np.full((n, 2), np.iinfo(np.int64).max), np.zeros((n, 2), np.int64)
    for part in seen:
        own = root[part.offset : part.offset + len(part.size)]
        np.add.at(size, own, part.size)
        np.minimum.at(first, own, part.first)
        np.minimum.at(low, own, part.box[:, :2])
        np.maximum.at(high, own, part.box[:, 2:])
    order = np.argsort(first)
    number = np.empty(n, np.int64)
    number[order] = np.arange(1, n + 1)
    names = []
    for part in seen:
        own = root[part.offset : part.offset + len(part.size)]
        names.append(np.concatenate([np.zeros(1, np.int64), number[own]]))
    nothing = np.zeros(1, np.int64)
    box = np.concatenate([np.zeros((1, 4), np.int64), np.concatenate([low, high], axis=1)[order]])
    return Components(
        np.concatenate([nothing, size[order]]), np.concatenate([nothing, first[order]]), box, tuple(names)
    )


class _Part:
    """What is kept of a tile: its components, and the labels along its edges."""

    def __init__(self, mask: NDArray[np.bool_], tile: Box, width: int) -> None:
        labels, n = ndi.label(mask)
        self.offset = 0
        self.top, self.bottom, self.left, self.right = (
            edge.astype(np.int64) for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1])
        )
        flat = labels.ravel()
        inside = np.flatnonzero(flat)[::-1]
        start = np.zeros(n + 1, np.int64)
        start[flat[inside]] = inside  # of repeated indices the last one stays: the first in scan order
        y, x = np.divmod(start[1:], labels.shape[1])
        self.first = (y + tile.y0) * width + x + tile.x0
        self.size = np.bincount(flat, minlength=n + 1)[1:]
        found = ndi.find_objects(labels)
        corners = [(r.start, c.start, r.stop, c.stop) for r, c in found]
        origin = np.array([tile.y0, tile.x0, tile.y0, tile.x0], np.int64)
        self.box = np.array(corners, np.int64).reshape(-1, 4) + origin


def _meetings(seen: list[_Part], tiles: list[Box]) -> Iterator[NDArray[np.int64]]:
    """Yield ``(N, 2)`` pairs of components, counted over all tiles from 0, that meet at a seam."""
    place = {(tile.y0, tile.x0): k for k, tile in enumerate(tiles)}
    for tile, part in zip(tiles, seen, strict=True):
        for corner, own, name in (((tile.y0, tile.x1), part.right, "left"), ((tile.y1, tile.x0), part.bottom, "top")):
            if corner in place:
                other = seen[place[corner]]
                theirs = getattr(other, name)
                both = (own > 0) & (theirs > 0)
                yield np.unique(
                    np.stack([own[both] - 1 + part.offset, theirs[both] - 1 + other.offset], axis=1), axis=0
                )
