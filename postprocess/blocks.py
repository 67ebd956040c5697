"""Frames of any size decoded in overlapping blocks; no cell is cut at a seam.

three_class gives exactly what decoding the whole frame gives, numbers included. two_class decodes every component of
the foreground that fits a block in one piece, so its cells are those of the whole frame; larger components, and star,
go by who owns the middle of a cell, with a halo that depends on the largest cell. That the same cells come out there is
tested, not proven.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage as ndi

from postprocess import star, three_class, two_class
from postprocess.components import Box, Components, components, tiles_of
from postprocess.prediction import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from postprocess.prediction import Prediction

    Read = Callable[[Box], Prediction]
    Cells = NDArray[np.int32]
    Decoder = Callable[[Read, tuple[int, int], Any, Cells, list[Box], int], "Done"]

BLOCK = 2048
"""Side of a block, pixels."""
HALO = 64
"""Least margin of a block where cells are owned by their middle, pixels."""
RADII = 4
"""Such a margin has at least so many times the largest radius."""
ALIGNED = star.STRIDE * star.UNLEARNED_SQUARE
"""Blocks start at multiples of so many pixels, so that star's squares of samples lie in one block."""


@dataclass(frozen=True)
class Done:
    """What decoding in blocks did: number of cells, and pixels of large components that two blocks saw differently."""

    cells: int
    disputed_px: int = 0


def decode(
    target: str, read: Read, shape: tuple[int, int], params: Any, out: NDArray[np.int32], block: int = BLOCK
) -> Done:
    """Decode a frame block by block into ``out``.

    Parameters
    ----------
    target
        A name of `postprocess.methods.TARGETS`.
    read
        Returns the stored prediction of a box of the frame, whose corner is at a multiple of the grid.
    shape
        ``(Y, X)`` of the frame.
    params
        The target's ``Params``.
    out
        ``(Y, X)`` int32, such as a memory map; overwritten with the cells, 0 background.
    block
        Side of a block in pixels.
    """
    block = max(block // ALIGNED, 1) * ALIGNED
    decoders: dict[str, Decoder] = {"three_class": _three_class, "two_class": _two_class, "star": _star}
    return decoders[target](read, shape, params, out, tiles_of(shape, block), block)


# three_class ---------------------------------------------------------------------------------------------------------


def _three_class(
    read: Read, shape: tuple[int, int], params: three_class.Params, out: Cells, tiles: list[Box], block: int
) -> Done:
    def classes(box: Box) -> NDArray[np.uint8]:
        return three_class.argmax(read(box), params.core_bias)

    cells = components(lambda box: classes(box) != three_class.BACKGROUND, tiles, shape)
    if params.paper_gap:
        kept = _numbers(cells.size >= max(params.min_area, 1))
        for place, tile in enumerate(tiles):
            out[tile.at] = kept[cells.label(place, classes(tile) != three_class.BACKGROUND)]
        return Done(int(kept.max(initial=0)))
    cores = components(lambda box: classes(box) == three_class.CORE, tiles, shape)
    core_id, has_core = _numbers(cores.size >= max(params.min_core, 1)), np.zeros(len(cells.size), bool)
    for place, tile in enumerate(tiles):
        seen = classes(tile)
        core = core_id[cores.label(place, seen == three_class.CORE)]
        has_core[np.unique(cells.label(place, seen != three_class.BACKGROUND)[core > 0])] = True
        out[tile.at] = -core  # negative as long as a neighbour may have to know what is a core
    blobs = _numbers(~has_core & (cells.size >= max(params.min_blob, 1)))
    blob_id = np.where(blobs > 0, blobs + core_id.max(initial=0), 0)
    for place, tile in enumerate(tiles):
        whole = cells.label(place, classes(tile) != three_class.BACKGROUND)
        grown = _grown(classes, out, tile, shape, has_core[whole])
        out[tile.at] = np.where(out[tile.at] < 0, out[tile.at], np.where(has_core[whole], grown, blob_id[whole]))
    return Done(_close_up(out, tiles, params.min_area))


def _grown(
    classes: Callable[[Box], NDArray[np.uint8]],
    out: Cells,
    tile: Box,
    shape: tuple[int, int],
    to_reach: NDArray[np.bool_],
) -> Cells:
    """Return the cores of a tile grown as in the whole frame.

    A level of growth looks one pixel far, so what was reached in no more levels than it is pixels away from the edge of
    the window is as in the whole frame; the window widens until that holds for all there is to reach.
    """
    halo = HALO // 4
    while True:
        window = tile.grown(halo, shape)
        cores = np.maximum(-out[window.at], 0)
        level = np.zeros(cores.shape, np.int32)
        free = (classes(window) != three_class.BACKGROUND) & (cores == 0)
        grown = three_class.grow(cores, free, level)
        inner = tile.within(window)
        sure = (grown[inner] > 0) & (level[inner] <= _away(window, shape)[inner])
        if bool(np.all(sure[to_reach])) or (window == Box(0, 0, *shape)):
            return grown[inner]
        halo *= 2


def _away(window: Box, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Return how many pixels each pixel of a window is away from where the frame goes on beyond it."""
    far = np.int32(np.iinfo(np.int32).max)
    sides = []
    for low, high, end in ((window.y0, window.y1, shape[0]), (window.x0, window.x1, shape[1])):
        place = np.arange(high - low, dtype=np.int32)
        before = place if low > 0 else np.full_like(place, far)
        after = place[::-1] if high < end else np.full_like(place, far)
        sides.append(np.minimum(before, after))
    return np.minimum(sides[0][:, None], sides[1][None, :])


# two_class -----------------------------------------------------------------------------------------------------------


def _two_class(
    read: Read, shape: tuple[int, int], params: two_class.Params, out: Cells, tiles: list[Box], block: int
) -> Done:
    def mask(box: Box) -> NDArray[np.bool_]:
        return two_class.foreground(read(box), params.threshold)

    found = components(mask, tiles, shape)
    sides = found.box[:, 2:] - found.box[:, :2]
    fits: NDArray[np.bool_] = np.all(sides <= block, axis=1)
    fits[0] = False
    every_size = replace(params, min_area=0)
    owner = found.box[:, 0] // block * -(-shape[1] // block) + found.box[:, 1] // block
    last = 0
    for tile in tiles:
        out[tile.at] = 0
    for place in range(len(tiles)):
        own = np.flatnonzero(fits & (owner == place))
        if not own.size:
            continue
        window = Box(*found.box[own, :2].min(axis=0).tolist(), *found.box[own, 2:].max(axis=0).tolist())
        window = window.grown(HALO, shape)
        decoded = two_class.decode(read(window), every_size)
        chosen = _these(mask(window), found, own, window, shape[1])
        last = _put(out, window, np.where(chosen, decoded, 0), last)
    disputed = 0
    if not fits[1:].all():
        large = ~fits
        large[0] = False
        last, disputed = _by_middle(read, mask, shape, every_size, out, tiles, found, large, last)
    return Done(_close_up(out, tiles, params.min_area), disputed)


def _these(
    mask: NDArray[np.bool_], found: Components, own: NDArray[np.intp], window: Box, width: int
) -> NDArray[np.bool_]:
    """Return the pixels of some components that lie whole in a window."""
    labels, n = ndi.label(mask)
    y, x = np.divmod(found.first[own], width)
    chosen = np.zeros(n + 1, bool)
    chosen[labels[y - window.y0, x - window.x0]] = True
    chosen[0] = False
    inside: NDArray[np.bool_] = chosen[labels]
    return inside


def _by_middle(
    read: Read,
    mask: Callable[[Box], NDArray[np.bool_]],
    shape: tuple[int, int],
    params: two_class.Params,
    out: Cells,
    tiles: list[Box],
    found: Components,
    large: NDArray[np.bool_],
    last: int,
) -> tuple[int, int]:
    """Decode components larger than a block: a block keeps the cells whose middle lies in it.

    Where two blocks see a cell differently, both may keep it, or neither: a cell that is there for the most part is not
    put again, one that is missing for the most part is put after all, and what is still free joins the cells around.
    Returns the last number given and how many pixels a block kept that another one had.
    """
    disputed = 0
    for again in (False, True):
        for place, tile in enumerate(tiles):
            ours = large[found.label(place, mask(tile))]
            if not (ours & (out[tile.at] == 0)).any():
                continue
            window = _window_of_cells(mask, tile, shape, params.smoothing)
            inside = _of_large(mask, found, large, window, tiles)
            decoded = np.where(inside, two_class.decode(read(window), params), 0)
            kept = np.ones(int(decoded.max(initial=0)) + 1, bool) if again else _in_the_middle(decoded, window, tile)
            there = out[window.at] > 0
            taken = np.bincount(decoded[there], minlength=len(kept)) * 2 > np.bincount(decoded.ravel())
            kept &= ~taken
            claimed = np.where(kept[decoded], decoded, 0)
            disputed += int(np.count_nonzero((claimed > 0) & there))
            last = _put(out, window, np.where(there, 0, claimed), last)
    for tile in tiles if not params.paper_gap else []:
        window = tile.grown(HALO, shape)
        free = _of_large(mask, found, large, window, tiles) & (out[window.at] == 0)
        if free.any():
            out[window.at] = three_class.grow(np.asarray(out[window.at]), free)
    return last, disputed


def _window_of_cells(
    mask: Callable[[Box], NDArray[np.bool_]], tile: Box, shape: tuple[int, int], smoothing: float
) -> Box:
    """Return the tile with a margin of several radii of its largest cell."""
    near = mask(tile.grown(HALO, shape))
    radius = two_class.smoothed_distance(near, smoothing).max(initial=0)
    return tile.grown(max(HALO, int(np.ceil(RADII * radius))), shape)


def _in_the_middle(decoded: Cells, window: Box, tile: Box) -> NDArray[np.bool_]:
    """Return of which cells of a window the middle lies in the tile, ``(n + 1,)`` bool."""
    rows, columns = np.nonzero(decoded)
    ids = decoded[rows, columns]
    size = np.maximum(np.bincount(ids, minlength=1), 1)
    y = np.bincount(ids, rows, minlength=1) / size + window.y0
    x = np.bincount(ids, columns, minlength=1) / size + window.x0
    inside: NDArray[np.bool_] = (y >= tile.y0) & (y < tile.y1) & (x >= tile.x0) & (x < tile.x1)
    return inside


def _of_large(
    mask: Callable[[Box], NDArray[np.bool_]], found: Components, large: NDArray[np.bool_], window: Box, tiles: list[Box]
) -> NDArray[np.bool_]:
    """Return which pixels of a window belong to large components."""
    inside = np.zeros((window.y1 - window.y0, window.x1 - window.x0), bool)
    for place, tile in enumerate(tiles):
        both = Box(max(tile.y0, window.y0), max(tile.x0, window.x0), min(tile.y1, window.y1), min(tile.x1, window.x1))
        if both.y0 < both.y1 and both.x0 < both.x1:
            inside[both.within(window)] = large[found.label(place, mask(tile))][both.within(tile)]
    return inside


# star ----------------------------------------------------------------------------------------------------------------


def _star(read: Read, shape: tuple[int, int], params: star.Params, out: Cells, tiles: list[Box], block: int) -> Done:
    levels = np.zeros(FULL + 1, np.int64)
    for tile in tiles:
        levels += np.bincount(read(tile).probability[0].ravel(), minlength=FULL + 1)
    side = star.square_of(levels)
    found, halo = [], HALO
    for tile in tiles:
        window = _aligned(tile.grown(halo, shape))
        polygons = star.candidates(read(window), params.probability, side, max(shape))
        reach = min(int(np.ceil(2 * polygons.distance.max(initial=0))), block)
        if reach > halo:
            window = _aligned(tile.grown(reach, shape))
            polygons = star.candidates(read(window), params.probability, side, max(shape))
        polygons = star.suppress(polygons, params.nms)
        y, x = polygons.points[:, 0] + window.y0, polygons.points[:, 1] + window.x0
        inside = (y >= tile.y0) & (y < tile.y1) & (x >= tile.x0) & (x < tile.x1)
        moved = np.stack([y, x], axis=1).astype(np.int32)
        found.append(star.Polygons(moved, polygons.probability, polygons.distance)[inside])
    survivors = star.together(found)
    reach = survivors.distance.max(axis=1, initial=0)
    numbers = np.arange(1, len(survivors.points) + 1, dtype=np.int32)
    for tile in tiles:
        y, x = survivors.points.T
        near = (y + reach >= tile.y0) & (y - reach < tile.y1) & (x + reach >= tile.x0) & (x - reach < tile.x1)
        chosen = survivors[near]
        out[tile.at] = star.paint(chosen, numbers[near], tile)
    return Done(_close_up(out, tiles, 0))


# common --------------------------------------------------------------------------------------------------------------


def _numbers(kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return 1, 2, ... for what is kept, 0 for the rest and for place 0."""
    kept = kept.copy()
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)


def _put(out: Cells, window: Box, cells: NDArray[Any], last: int) -> int:
    """Write the cells of a window with new numbers; return the last number given."""
    ids, place = np.unique(cells, return_inverse=True)
    number = np.where(ids > 0, np.cumsum(ids > 0) + last, 0).astype(np.int32)
    there = cells > 0
    region = out[window.at]
    region[there] = number[place.reshape(cells.shape)][there]
    out[window.at] = region
    return int(number.max(initial=last))


def _close_up(out: Cells, tiles: Sequence[Box], min_area: int) -> int:
    """Drop cells of fewer pixels, close up the numbers in their order; return how many cells there are."""
    highest = max((int(np.abs(out[tile.at]).max(initial=0)) for tile in tiles), default=0)
    area = np.zeros(highest + 1, np.int64)
    for tile in tiles:
        area += np.bincount(np.abs(out[tile.at]).ravel(), minlength=highest + 1)
    number = _numbers(area >= max(min_area, 1))
    for tile in tiles:
        out[tile.at] = number[np.abs(out[tile.at])]
    return int(number.max(initial=0))


def _aligned(window: Box) -> Box:
    """Return the window with its corner moved up and left to where squares of samples begin."""
    return Box(window.y0 // ALIGNED * ALIGNED, window.x0 // ALIGNED * ALIGNED, window.y1, window.x1)
