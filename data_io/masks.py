"""One mask file to instance labels; a mask that cannot mean cells is refused in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import images
from data_io.errors import BadInput
from data_io.paged import opened

if TYPE_CHECKING:
    from collections.abc import Set
    from pathlib import Path

    from numpy.typing import NDArray

MAX_LABEL = 2**31 - 1
LABELS = "labels"
COMPONENTS = "binary: connected components"
WATERSHED = "binary: watershed"
WHOLE = 0.6
"""Smallest part of a label that one piece of it holds."""
FULL = frozenset({255, 65535})
"""Values that programs draw foreground with."""
LOSSY = (".jpg", ".jpeg", ".jp2", ".webp")
"""Suffixes of pictures whose values change when they are saved."""
_AS_LABELS = "save it as a single-channel label image (0 background, 1, 2, ... cells) in TIFF or PNG"
_WITHOUT_LOSS = "export it without loss as TIFF or PNG"


def read(path: Path) -> NDArray[np.int32]:
    """Return a mask file as `(T, Y, X)` int32 exactly as drawn: labels, or 0 and one value.

    Raises
    ------
    BadInput
        Unreadable; colours; JPEG; a pickle; depth; fractions, NaN, negative or >= 2**31 values; more than 255 labels
        squeezed into 8 bits.
    """
    refuse_suffix(path)
    with opened(path) as file:
        if file.lossy:
            raise BadInput(f"{path}: a JPEG-compressed mask has changed labels; {_WITHOUT_LOSS}")
    return np.concatenate([_frame(path, pixels) for pixels in images.raw(path)])


def refuse_suffix(path: Path) -> None:
    """Refuse a file that cannot be a mask by its name: Cellpose's `_seg.npy`, and pictures stored with loss.

    Raises
    ------
    BadInput
        It is one of them.
    """
    if path.suffix.lower() == ".npy":
        raise BadInput(f"{path}: a pickle, which may run code; save masks as PNG/TIFF in Cellpose (_cp_masks) instead")
    if path.suffix.lower() in LOSSY:
        raise BadInput(f"{path}: a mask stored with loss ({path.suffix}) has changed labels; {_WITHOUT_LOSS}")


def is_full(mask: NDArray[np.int32]) -> bool:
    """Say whether a mask `(Y, X)` leaves no background and is no tissue of many cells: it has at most two values.

    One value is a mask drawn inside out or not at all; two without 0 are classes counted from 1, as ilastik writes.
    """
    return bool(mask.all()) and len(values(mask)) <= 2


def values(mask: NDArray[np.int32]) -> frozenset[int]:
    """Return the positive values of a mask."""
    return frozenset(np.unique(mask[mask > 0]).tolist())


def is_binary(found: Set[int]) -> bool:
    """Say whether a field is drawn as foreground, not as labels: one positive value is all there is in its frames."""
    return len(found) == 1


def components(mask: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return `(Y, X)` int32 labels: the 4-connected pieces of a binary mask.

    Corner contact does not join: two cells drawn with a 1-px diagonal between them stay two.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask > 0, output=np.int32)
    return np.asarray(labels, np.int32)


def split_touching(mask: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return `(Y, X)` int32 labels of a binary mask whose touching cells are told apart at their necks.

    Watershed (Beucher & Lantuejoul 1979) from the maxima of the distance to the background, smoothed with a Gaussian
    of 1 px. Maxima closer than the typical inner radius are one, so at any magnification the same cells are told apart:
    it is the largest distance in the piece that a pixel of the mask lies in, as a median over those pixels. Every
    pixel of the mask keeps a label.
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    pieces_of = components(mask)
    count = int(pieces_of.max())
    if not count:
        return pieces_of
    numbers = np.arange(1, count + 1)
    distance = ndimage.distance_transform_edt(mask > 0)
    radius = np.asarray(ndimage.maximum(distance, pieces_of, numbers))
    apart = max(1, round(float(np.median(radius[pieces_of[pieces_of > 0] - 1]))))
    smooth = ndimage.gaussian_filter(distance, 1)
    peaks = peak_local_max(smooth * (mask > 0), min_distance=apart, exclude_border=False)
    without = np.setdiff1d(numbers, pieces_of[tuple(peaks.T)])
    own = ndimage.maximum_position(distance, pieces_of, without) if len(without) else []
    seeds = np.zeros(mask.shape, np.int32)
    for at, (y, x) in enumerate([*peaks, *own], start=1):
        seeds[int(y), int(x)] = at
    return np.asarray(watershed(-smooth, seeds, mask=mask > 0), np.int32)


def has_places(mask: NDArray[np.int32]) -> bool:
    """Say whether the foreground of a mask `(Y, X)` lies in several places, none of which is the main one.

    One cell with a stray piece has a main place.
    """
    sizes = _pieces(mask > 0).get(1, [1])
    return sizes[0] < WHOLE * sum(sizes)


def is_scattered(mask: NDArray[np.int32]) -> bool:
    """Say whether a mask `(Y, X)` of several values is no label image: most values have no place of their own.

    So it is with classes (1 core, 2 edge) and with a foreground whose edges are smoothed: the largest piece of a value
    is less than `WHOLE` of it. A cell with stray pieces keeps one that is.
    """
    sizes = list(_pieces(mask).values())
    scattered = sum(own[0] < WHOLE * sum(own) for own in sizes)
    return len(sizes) > 1 and scattered > 0.5 * len(sizes)


def _pieces(labels: NDArray[Any]) -> dict[int, list[int]]:
    """Return the areas of the separate pieces of each label in px, largest first."""
    from skimage.measure import label

    found = label(labels, background=0, connectivity=2).ravel()
    _, first, areas = np.unique(found, return_index=True, return_counts=True)
    sizes: dict[int, list[int]] = {}
    for value, area in sorted(zip(labels.ravel()[first].tolist(), areas.tolist(), strict=True), reverse=True):
        sizes.setdefault(value, []).append(area)
    sizes.pop(0, None)
    return sizes


def kept(before: NDArray[np.int32], after: NDArray[np.int32]) -> tuple[int, int]:
    """Return how many labels two neighbouring frames share, and how many of them moved less than their diameter."""
    old, old_at, old_area = _cells(before)
    new, new_at, new_area = _cells(after)
    _, i, j = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    moved = np.hypot(*(old_at[i] - new_at[j]).T)
    diameter = 2 * np.sqrt(np.minimum(old_area[i], new_area[j]) / np.pi)
    return len(i), int((moved < diameter).sum())


def follow_cells(shared: int, stayed: int) -> bool:
    """Say whether labels keep their cell over time: of the counts from `kept`, summed over a field, 95 % stay."""
    return shared > 1 and stayed >= 0.95 * shared


def _cells(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """Return the labels present, their centroids `(N, 2)` in px and their areas in px."""
    y, x = np.nonzero(labels)
    present, which, area = np.unique(labels[y, x], return_inverse=True, return_counts=True)
    at = np.stack([np.bincount(which, y, len(present)), np.bincount(which, x, len(present))], axis=1)
    return present, at / area[:, None], area


def lengths(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the longer side of each cell's bounding box in px."""
    from scipy import ndimage

    boxes = [box for box in ndimage.find_objects(labels) if box is not None]
    return np.array([max(side.stop - side.start for side in box) for box in boxes], np.int64)


def _frame(path: Path, pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Return one frame `(C, Z, Y, X, S)` of a file as `(C, Y, X)` labels."""
    if pixels.shape[-1] > 1:
        raise BadInput(f"{path}: a colour mask; {_AS_LABELS}")
    if pixels.shape[1] > 1:
        raise BadInput(f"{path}: a mask of {pixels.shape[1]} planes in depth; save the one drawn on the image's plane")
    mask = _checked(path, pixels[:, 0, :, :, 0])
    if mask.dtype == np.uint8 and any(_squeezed(plane) for plane in mask):
        raise BadInput(f"{path}: more than 255 cells in 8 bits share labels; save the label image as 16-bit")
    return mask.astype(np.int32)


def _squeezed(mask: NDArray[np.uint8]) -> bool:
    """Say whether more than 255 labels were saved as uint8, wrapped around or cut off at 255.

    Then nearly all of its values are in use, 255 among them, and some are in several pieces as large as a cell.
    """
    if mask.max() < 255 or len(np.unique(mask)) < 200:
        return False
    sizes = _pieces(mask)
    cell = float(np.median([largest for largest, *_ in sizes.values()]))
    return any(second >= cell / 4 for _, *rest in sizes.values() for second in rest[:1])


def _checked(path: Path, mask: NDArray[Any]) -> NDArray[Any]:
    if mask.dtype.kind == "f" and not (np.isfinite(mask).all() and (mask == np.rint(mask)).all()):
        raise BadInput(f"{path}: a mask with fractions or NaN (type {mask.dtype}); {_AS_LABELS}")
    if mask.min() < 0:
        raise BadInput(f"{path}: a mask with negative values (down to {mask.min():g}); {_AS_LABELS}")
    if mask.max() > MAX_LABEL:
        raise BadInput(f"{path}: label {int(mask.max())} is 2**31 or more; renumber the labels, then save them again")
    return mask
