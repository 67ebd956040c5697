"""One mask file to instance labels; a mask that cannot mean cells is refused in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.errors import BadInput
from data_io.images import Raw, as_stack, decode

if TYPE_CHECKING:
    from collections.abc import Set
    from pathlib import Path

    from numpy.typing import NDArray

MAX_LABEL = 2**31 - 1
LABELS = "labels"
COMPONENTS = "binary: connected components"
_AS_LABELS = "save it as a single-channel label image (0 background, 1, 2, ... cells) in TIFF or PNG"


def read(path: Path) -> NDArray[np.int32]:
    """Return a mask file as `(T, Y, X)` int32 exactly as drawn: labels, or 0 and one value.

    Raises
    ------
    BadInput
        Unreadable; colours; JPEG; fractions, NaN, negative or >= 2**31 values.
    """
    raw = decode(path, indexed=True)
    if raw.lossy:
        raise BadInput(f"{path}: a JPEG-compressed mask has changed labels; export it without loss as TIFF or PNG")
    if "S" in raw.axes and raw.pixels.shape[raw.axes.index("S")] > 1:
        raise BadInput(f"{path}: a colour mask; {_AS_LABELS}")
    stack = as_stack(path, Raw(raw.pixels, raw.axes))
    return _checked(path, stack.reshape(-1, *stack.shape[2:])).astype(np.int32)


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


def _checked(path: Path, mask: NDArray[Any]) -> NDArray[Any]:
    if mask.dtype.kind == "f" and not (np.isfinite(mask).all() and (mask == np.rint(mask)).all()):
        raise BadInput(f"{path}: a mask with fractions or NaN (type {mask.dtype}); {_AS_LABELS}")
    if mask.min() < 0:
        raise BadInput(f"{path}: a mask with negative values (down to {mask.min():g}); {_AS_LABELS}")
    if mask.max() > MAX_LABEL:
        raise BadInput(f"{path}: label {mask.max():g} is 2**31 or more; renumber the labels, then save them again")
    return mask
