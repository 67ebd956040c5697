"""Cells from background, core and boundary: cores first, then grown back level by level (science.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage as ndi

from postprocess.prediction import FULL, Prediction
from postprocess.sizes import areas_to_try, drop_small

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

CHANNELS = ("background", "core", "boundary")
RAYS = 0
STRIDE = 1
BACKGROUND, CORE, BOUNDARY = 0, 1, 2


@dataclass(frozen=True)
class Params:
    """How class probabilities become cells."""

    core_bias: float = 0.0
    """Added to the core probability before argmax: negative asks for wider boundaries and so separates more."""
    min_core: int = 1
    """Cores of fewer pixels count as boundary."""
    min_blob: int = 15
    """A boundary blob that touches no core becomes a cell from this many pixels on."""
    min_area: int = 0
    """Cells of fewer pixels are dropped."""
    paper_gap: bool = False
    """The study's variant: the gap is in the target and cores are not grown back."""


def encode(labels: NDArray[np.integer], *, paper_gap: bool = False) -> NDArray[np.uint8]:
    """Return ``(Y, X)`` uint8 classes of ``(Y, X)`` instance labels: 0 background, 1 core, 2 inner boundary.

    With ``paper_gap`` touching cells are first parted by one background pixel, then each is outlined.
    """
    from skimage.segmentation import find_boundaries

    cells = part(labels) if paper_gap else labels
    classes = (cells > 0).astype(np.uint8)
    classes[find_boundaries(cells, mode="inner", connectivity=1)] = BOUNDARY
    return classes


def part(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return `(Y, X)` labels with a one-pixel gap between touching cells, taken from the cell with the larger id."""
    padded = np.pad(labels, 1)
    centre = padded[1:-1, 1:-1]
    gap = np.zeros(labels.shape, bool)
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        gap |= (neighbour > 0) & (neighbour < centre)
    return np.where(gap, 0, labels)


def perfect(labels: NDArray[np.integer], *, paper_gap: bool = False) -> Prediction:
    """Return the prediction of a network without error for `(Y, X)` labels, for ceilings."""
    classes = encode(labels, paper_gap=paper_gap)
    one_hot = (classes[None] == np.arange(len(CHANNELS))[:, None, None]).astype(np.uint8) * np.uint8(FULL)
    return Prediction(one_hot, None, STRIDE, (labels.shape[0], labels.shape[1]))


def decode(prediction: Prediction, params: Params) -> NDArray[np.int32]:
    """Return ``(Y, X)`` int32 cells, 0 background."""
    classes = argmax(prediction, params.core_bias)
    if params.paper_gap:
        return drop_small(ndi.label(classes != BACKGROUND)[0].astype(np.int32), params.min_area)
    return drop_small(cells_of(classes, params.min_core, params.min_blob), params.min_area)


def grid(diameter: float) -> dict[str, tuple[Any, ...]]:
    """Return the values to try on validation frames with cells of a median diameter in pixels.

    The first of each is plain argmax with every core and cell kept.
    """
    area = np.pi / 4 * diameter**2
    cores = sorted({1, 5, *(max(round(part * area), 1) for part in (0.04, 0.08))})
    return {"core_bias": (0.0, -0.6, -0.4, -0.2, 0.2), "min_core": tuple(cores), "min_area": areas_to_try(diameter)}


def sweep(prediction: Prediction, values: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[Params, NDArray[np.int32]]]:
    """Yield every combination of values with its cells, small ones included."""
    for core_bias in values["core_bias"]:
        classes = argmax(prediction, core_bias)
        for min_core in values["min_core"]:
            yield Params(core_bias, min_core), cells_of(classes, min_core, Params.min_blob)


def argmax(prediction: Prediction, core_bias: float) -> NDArray[np.uint8]:
    """Return the likeliest class per pixel, ``(Y, X)`` uint8; ties go to the lower class.

    The bias moves pixels between core and boundary only: whether a pixel is background is decided without it.
    """
    background, core, boundary = prediction.probability.astype(np.int16)
    classes = np.where(core + round(core_bias * FULL) >= boundary, CORE, BOUNDARY).astype(np.uint8)
    classes[background >= np.maximum(core, boundary)] = BACKGROUND
    return classes


def cells_of(classes: NDArray[np.uint8], min_core: int, min_blob: int) -> NDArray[np.int32]:
    """Return the `(Y, X)` cells of a class image: cores, grown into the boundary, then boundary blobs without a core.

    Cores and blobs of fewer than `min_core` and `min_blob` px are dropped.
    """
    cores = drop_small(ndi.label(classes == CORE)[0].astype(np.int32), min_core)
    cells = grow(cores, (classes != BACKGROUND) & (cores == 0))
    blobs = drop_small(ndi.label((classes != BACKGROUND) & (cells == 0))[0].astype(np.int32), min_blob)
    return np.where(blobs > 0, blobs + cells.max(initial=0), cells).astype(np.int32)


def grow(
    cores: NDArray[np.int32], free: NDArray[np.bool_], levels: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Grow cores into the free pixels, one 4-connected level at a time; a tie goes to the larger core id.

    A level looks only one pixel far, so a block with a halo of as many pixels as levels gives the undivided result.

    Parameters
    ----------
    cores
        ``(Y, X)`` int32 labels, 0 elsewhere.
    free
        ``(Y, X)`` bool, the pixels that may be taken.
    levels
        ``(Y, X)`` int32 zeros, filled with the level (1, 2, ...) at which each pixel was reached.

    Returns
    -------
    ``(Y, X)`` int32, the cores and what they reached.
    """
    padded = np.pad(cores, 1)
    grown = padded.ravel()
    width = padded.shape[1]
    waiting = np.flatnonzero(np.pad(free, 1))
    level = 0
    while waiting.size:
        up_down = np.maximum(grown[waiting - width], grown[waiting + width])
        reached = np.maximum(up_down, np.maximum(grown[waiting - 1], grown[waiting + 1]))
        if not reached.any():
            break
        grown[waiting] = reached
        level += 1
        if levels is not None:
            y, x = np.divmod(waiting[reached > 0], width)
            levels[y - 1, x - 1] = level
        waiting = waiting[reached == 0]
    return padded[1:-1, 1:-1].copy()
