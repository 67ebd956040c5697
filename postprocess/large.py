"""A frame too large to be treated whole: decoded in blocks into a file, measured tile by tile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage as ndi

from postprocess.components import Box, tiles_of
from postprocess.morphology import compact, measure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

PIXELS = 1 << 24
"""Frames of more pixels are treated in blocks."""
TILE = 2048
"""Side of the part of a frame whose cells are measured together, pixels."""


@contextmanager
def on_disk(path: Path, shape: tuple[int, int]) -> Iterator[NDArray[np.int32]]:
    """Give zeros ``(Y, X)`` int32 that lie in a file, which is removed afterwards."""
    try:
        yield np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=shape)
    finally:
        path.unlink(missing_ok=True)


def measure_tiles(
    labels: NDArray[np.integer], image: NDArray[Any] | None, pixel_size_um: float | None, tile: int = TILE
) -> pd.DataFrame:
    """Return what `morphology.measure` returns, a tile at a time; each cell is measured whole, once.

    Parameters are those of `morphology.measure`; ``labels`` may be a memory map.
    """
    import pandas as pd

    shape = (labels.shape[0], labels.shape[1])
    tiles = tiles_of(shape, tile)
    ids, boxes = _boxes(labels, tiles)
    columns = -(-shape[1] // tile)
    owner = boxes[:, 0] // tile * columns + boxes[:, 1] // tile
    tables = [measure(np.zeros((1, 1), np.int32), None if image is None else image[:, :1, :1], pixel_size_um)]
    for place in np.unique(owner):
        own = owner == place
        around = Box(*boxes[own, :2].min(axis=0).tolist(), *boxes[own, 2:].max(axis=0).tolist())
        window = around.grown(1, shape)
        seen = None if image is None else image[:, *window.at]
        table = measure(np.asarray(labels[window.at]), seen, pixel_size_um, (window.y0, window.x0))
        table = table[table["label"].isin(ids[own])]
        tables.append(_moved(table, window, shape))
    return pd.concat(tables, ignore_index=True).sort_values("label", ignore_index=True)


def _boxes(labels: NDArray[np.integer], tiles: list[Box]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids present, ascending, and their half-open bounding boxes ``(n, 4)``."""
    seen, corners = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.int64)]
    for tile in tiles:
        own, cells = compact(np.asarray(labels[tile.at]))
        found = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in ndi.find_objects(cells)]
        seen.append(own)
        corners.append(np.array(found, np.int64).reshape(-1, 4) + np.array([*tile[:2], *tile[:2]]))
    ids, place = np.unique(np.concatenate(seen), return_inverse=True)
    parts, boxes = np.concatenate(corners), np.zeros((len(ids), 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    np.minimum.at(boxes[:, :2], place, parts[:, :2])
    np.maximum.at(boxes[:, 2:], place, parts[:, 2:])
    return ids, boxes


def _moved(table: pd.DataFrame, window: Box, shape: tuple[int, int]) -> pd.DataFrame:
    """Return the measures of a window as of the frame it lies in."""
    down = {"centroid_y_px": window.y0, "bbox_y0": window.y0, "bbox_y1": window.y0}
    right = {"centroid_x_px": window.x0, "bbox_x0": window.x0, "bbox_x1": window.x0}
    table = table.assign(**{name: table[name] + by for name, by in (down | right).items()})
    at_edge = (table["bbox_y0"] == 0) | (table["bbox_x0"] == 0)
    return table.assign(border=at_edge | (table["bbox_y1"] == shape[0]) | (table["bbox_x1"] == shape[1]))
