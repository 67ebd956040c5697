"""What becomes of cells at the frame's edge, of holes, stray pieces and sizes out of limits: counted always, changed
only where a policy says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage as ndi

from data_io.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Policy:
    """What is done to the cells that were found; as it stands nothing is.

    Attributes
    ----------
    border
        Cells that touch the frame's edge, which are cut by it: keep (they are marked in the table), or drop.
    holes
        Background within a cell: keep, or fill.
    pieces
        A cell in several pieces (8-connected): keep them all, or the largest only.
    min_area, max_area
        Smallest and largest cell in pixels; None is no limit. A target's own fitted ``min_area`` comes before.
    """

    border: Literal["keep", "drop"] = "keep"
    holes: Literal["keep", "fill"] = "keep"
    pieces: Literal["keep", "largest"] = "keep"
    min_area: int | None = None
    max_area: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no policy is."""
        known = {"border": ("keep", "drop"), "holes": ("keep", "fill"), "pieces": ("keep", "largest")}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise BadInput(f"policy {name}={getattr(self, name)!r}: unknown; choose {' or '.join(choices)}")
        low, high = self.min_area or 0, self.max_area
        if low < 0 or (high is not None and high < max(low, 1)):
            raise BadInput(f"policy: no cell has an area from {low} to {high} px; correct min_area and max_area")


AS_FOUND = Policy()
"""The policy that changes nothing."""
COUNTS = ("cells", "border", "with_holes", "in_pieces", "below_min_area", "above_max_area", "dropped", "changed")
"""Columns of the counts: cells found, of these at the edge, with holes, in pieces, out of limits; dropped, reshaped."""


def count(table: pd.DataFrame, policy: Policy) -> dict[str, int]:
    """Return `COUNTS` of a frame before anything is done; the last two are 0."""
    area = table["area_px2"]
    return {
        "cells": len(table),
        "border": int(table["border"].sum()),
        "with_holes": int((table["holes_px"] > 0).sum()),
        "in_pieces": int((table["n_pieces"] > 1).sum()),
        "below_min_area": int((area < (policy.min_area or 0)).sum()),
        "above_max_area": 0 if policy.max_area is None else int((area > policy.max_area).sum()),
        "dropped": 0,
        "changed": 0,
    }


def apply(cells: NDArray[np.int32], table: pd.DataFrame, policy: Policy) -> dict[str, int]:
    """Change the cells of a frame in place as the policy says and return its `COUNTS`.

    Pieces come first, then holes, then the limits of area, then the edge. A hole that another cell lies in is filled
    around it. What stays keeps its number.

    Parameters
    ----------
    cells
        ``(Y, X)`` int32, 0 background; may be a memory map.
    table
        What `morphology.measure` says of them.
    policy
        What to do.
    """
    told = count(table, policy)
    for row in table[_concerned(table, policy)].itertuples():
        box = np.s_[row.bbox_y0 : row.bbox_y1, row.bbox_x0 : row.bbox_x1]
        before = cells[box] == row.label
        shape = _reshaped(before, cells[box], policy)
        size = int(np.count_nonzero(shape))
        low, high = policy.min_area or 0, policy.max_area or cells.size
        if not low <= size <= high or (row.border and policy.border == "drop"):
            shape[:] = False
            told["dropped"] += 1
        elif not np.array_equal(shape, before):
            told["changed"] += 1
        region = cells[box]
        region[before] = 0
        region[shape] = row.label
        cells[box] = region
    return told


def _concerned(table: pd.DataFrame, policy: Policy) -> NDArray[np.bool_]:
    """Return the cells that a policy may change."""
    chosen = np.zeros(len(table), bool)
    if policy.border == "drop":
        chosen |= table["border"].to_numpy()
    if policy.holes == "fill":
        chosen |= table["holes_px"].to_numpy() > 0
    if policy.pieces == "largest":
        chosen |= table["n_pieces"].to_numpy() > 1
    area = table["area_px2"].to_numpy()
    if policy.min_area:
        chosen |= area < policy.min_area
    if policy.max_area is not None:
        chosen |= area > policy.max_area
    return chosen


def _reshaped(cell: NDArray[np.bool_], around: NDArray[np.int32], policy: Policy) -> NDArray[np.bool_]:
    """Return the mask of one cell after the policies on pieces and holes."""
    shape = cell.copy()
    if policy.pieces == "largest":
        pieces, n = ndi.label(shape, structure=EIGHT)
        if n > 1:
            shape = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    if policy.holes == "fill":
        shape |= ndi.binary_fill_holes(shape) & ((around == 0) | cell)
    return shape
