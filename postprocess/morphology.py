"""Shape of cells without the bias of pixels: the columns of science.md section 3.

Area is the pixel count and the perimeter Crofton's formula in four directions. Circularity, solidity and shape index
come from one smooth outline, the 0.5 level of the cell's mask blurred with sigma 1: on discs of radius 8-15 px its
perimeter is off by +0.05 % and its circularity by -1.1 % and never above 1. The Feret diameters are those of its convex
hull. ``*_trackmate`` is what TrackMate prints.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from data_io.errors import BadInput
from postprocess import trackmate
from postprocess.polygon import feret, hull, perimeter, signed_area

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

NO_CONTOUR = "too small for a contour"
MAX_ID = 2**63 - 1
LEVEL = 0.5
REACH = 4
KERNEL = np.exp(-0.5 * np.arange(-REACH, REACH + 1) ** 2) / np.exp(-0.5 * np.arange(-REACH, REACH + 1) ** 2).sum()
"""Gaussian of sigma 1 px, cut at 4 px."""
SUMS = np.concatenate((np.zeros(1), np.cumsum(KERNEL)))

AXIS, DIAGONAL = math.pi / 4, math.pi / (4 * math.sqrt(2))
CROFTON = np.array(
    # the pixel itself counts 1, the one above 2, left 4, above left 8
    (0, AXIS + DIAGONAL, DIAGONAL, 2 * DIAGONAL, 0, AXIS + DIAGONAL, 0, DIAGONAL)  # noqa: RUF005 - two rows of eight
    + (AXIS, 2 * AXIS, DIAGONAL, DIAGONAL, AXIS, 2 * AXIS, 0, 0)
)
"""Contribution of each 2 x 2 neighbourhood to the perimeter, as in skimage.measure.perimeter_crofton."""


def measure(
    labels: NDArray[np.integer],
    image: NDArray[Any] | None = None,
    pixel_size_um: float | None = None,
    origin: tuple[int, int] = (0, 0),
) -> pd.DataFrame:
    """Measure every cell of one frame.

    Parameters
    ----------
    labels
        ``(Y, X)`` integers, 0 background, each positive value a cell, also if it lies in several pieces.
    image
        ``(C, Y, X)`` grey values, integers or floats, for intensities and focus of each channel, or None.
    pixel_size_um
        Side of a pixel in micrometres; adds the ``_um`` columns.
    origin
        Row and column of the labels' corner in the frame they were cut from; TrackMate's measures depend on it a little
        (`trackmate.largest`). Positions are those in ``labels``.

    Returns
    -------
    One row per cell in order of label; column names carry the unit. ``bbox_*`` is half-open, ``orientation_rad`` runs
    from the row axis to the long axis counter-clockwise, ``contact_px`` counts pixel edges shared with other cells,
    ``feret_max_px`` and ``feret_min_px`` are the largest and smallest width. ``focus_c*`` is the mean squared gradient
    (Sobel, grey values per px) in the cell over its squared mean grey value, in 1/px2: blur lowers it and brightness
    cancels out (Tenengrad, Krotkov 1988, Int J Comput Vis 1:223); NaN unless the mean is positive. Traits of a cell
    without a contour are NaN and ``reason`` says so.

    Raises
    ------
    BadInput
        Labels that are not a two-dimensional image of non-negative integers, an image of another size.
    """
    import pandas as pd

    _check(labels, image)
    ids, cells = compact(labels)
    sums, boxes, pairs = _accumulate(cells, len(ids))
    outlines = _outlines(cells, boxes)
    area = sums[:, 0]
    table: dict[str, Any] = {
        "label": ids,
        "area_px2": area.astype(np.int64),
        "perimeter_px": sums[:, 6],
        "circularity": 4 * math.pi * outlines[:, 0] / outlines[:, 1] ** 2,
        "solidity": outlines[:, 0] / outlines[:, 2],
        "radius_px": np.sqrt(area / math.pi),
        "shape_index": outlines[:, 1] / np.sqrt(outlines[:, 0]),
        "contour_area_px2": outlines[:, 0],
        "contour_perimeter_px": outlines[:, 1],
        "feret_max_px": outlines[:, 3],
        "feret_min_px": outlines[:, 4],
    }
    if pixel_size_um is not None:
        for name in ("perimeter", "radius", "contour_perimeter", "feret_max", "feret_min"):
            table[f"{name}_um"] = table[f"{name}_px"] * float(pixel_size_um)
        for name in ("area", "contour_area"):
            table[f"{name}_um2"] = table[f"{name}_px2"] * float(pixel_size_um) ** 2
    table |= _position(sums, boxes, cells.shape)
    table |= _contacts(pairs, len(ids))
    table["holes_px"] = (outlines[:, 5] - area).astype(np.int64)
    traits, table["n_pieces"] = trackmate.largest(cells, len(ids), origin)
    table |= {f"{name}_trackmate": traits[:, k] for k, name in enumerate(trackmate.TRAITS)}
    if image is not None:
        table |= _intensities(cells, image, area)
    table["reason"] = np.where(np.isnan(outlines[:, 0]), NO_CONTOUR, "")
    return pd.DataFrame(table)


def compact(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the ids present, ascending, and the labels renumbered 1, 2, ... in that order, ``(Y, X)`` int32."""
    if labels.dtype.itemsize == 8:
        labels = labels.astype(np.int64, copy=False)  # NumPy cannot count uint64
    highest = int(labels.max(initial=0))
    if labels.dtype == np.int32 and 0 < highest <= labels.size and _is_dense(labels.view(np.int32), highest):
        return np.arange(1, highest + 1, dtype=np.int64), labels.view(np.int32)
    if highest <= 4 * labels.size:
        present = np.bincount(labels.ravel(), minlength=1) > 0
        present[0] = False
        return np.flatnonzero(present), np.cumsum(present, dtype=np.int32)[labels]
    ids, cells = np.unique(labels, return_inverse=True)
    background = int(ids[0] == 0)
    return ids[background:].astype(np.int64), (cells.reshape(labels.shape) + 1 - background).astype(np.int32)


@njit(cache=True, nogil=True)
def _is_dense(labels: NDArray[np.int32], highest: int) -> bool:
    """Return whether every number from 1 to the highest occurs."""
    seen = np.zeros(highest + 1, np.bool_)
    for row in labels:
        last = np.int32(0)
        for label in row:
            if label != last:
                seen[label] = True
                last = label
    return bool(seen[1:].all())


def contours(labels: NDArray[np.integer]) -> dict[int, NDArray[np.float64]]:
    """Return the smooth outline of every cell that has one: label -> ``(N, 2)`` (y, x) in pixels."""
    _check(labels, None)
    ids, cells = compact(labels)
    _, boxes, _ = _accumulate(cells, len(ids))
    found = {int(label): _contour(cells, k + 1, boxes[k]) for k, label in enumerate(ids)}
    return {label: points for label, points in found.items() if len(points)}


def _check(labels: NDArray[np.integer], image: NDArray[Any] | None) -> None:
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise BadInput(f"labels: {labels.dtype} of shape {labels.shape}; give one (Y, X) image of whole numbers")
    if labels.size and labels.min() < 0:
        raise BadInput(f"labels: negative value {labels.min()}; 0 is background and cells are positive")
    if labels.size and labels.max() > MAX_ID:
        raise BadInput(f"labels: id {labels.max()} is 2**63 or more; renumber the cells")
    if image is not None and (image.ndim != 3 or image.shape[1:] != labels.shape):
        raise BadInput(f"image: shape {image.shape}; labels {labels.shape} need an image (C, {labels.shape[0]}, ...)")


def _position(sums: NDArray[np.float64], boxes: NDArray[np.int64], shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
    """Return centroid, bounding box, border flag and the axes of the ellipse of equal moments."""
    area = sums[:, 0]
    y, x = sums[:, 1] / area, sums[:, 2] / area
    yy, xx, xy = sums[:, 3] / area - y * y, sums[:, 4] / area - x * x, sums[:, 5] / area - x * y
    root = np.sqrt((yy - xx) ** 2 / 4 + xy**2)
    large, small = (yy + xx) / 2 + root, np.maximum((yy + xx) / 2 - root, 0)
    origin = boxes[:, [0, 1]]
    at_border = (origin == 0).any(axis=1) | (boxes[:, [2, 3]] == np.array(shape)).any(axis=1)
    with np.errstate(invalid="ignore"):
        eccentricity = np.where(large > 0, np.sqrt(1 - small / large), 0.0)
    return {
        "centroid_y_px": y + origin[:, 0],
        "centroid_x_px": x + origin[:, 1],
        "bbox_y0": boxes[:, 0],
        "bbox_x0": boxes[:, 1],
        "bbox_y1": boxes[:, 2],
        "bbox_x1": boxes[:, 3],
        "border": at_border,
        "eccentricity": eccentricity,
        "orientation_rad": 0.5 * np.arctan2(2 * xy, yy - xx),
    }


def _contacts(pairs: NDArray[np.int64], n_cells: int) -> dict[str, NDArray[np.int64]]:
    """Return neighbours per cell and shared pixel edges, from one (smaller, larger) row per shared edge."""
    neighbours = np.unique(pairs, axis=0).ravel()
    return {
        "n_neighbours": np.bincount(neighbours, minlength=n_cells),
        "contact_px": np.bincount(pairs.ravel(), minlength=n_cells),
    }


def _intensities(
    cells: NDArray[np.int32], image: NDArray[Any], area: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return mean, standard deviation (population) and focus of the grey values of each channel in each cell."""
    table = {}
    for channel, plane in enumerate(image):
        exact = np.ascontiguousarray(plane, np.result_type(plane.dtype, np.float32))
        mean, variance, gradient = (_greys(cells, exact, area) / area[:, None]).T
        table[f"intensity_mean_c{channel}"], table[f"intensity_sd_c{channel}"] = mean, np.sqrt(variance)
        table[f"focus_c{channel}"] = np.divide(gradient, mean**2, out=np.full(len(mean), np.nan), where=mean > 0)
    return table


@njit(cache=True, nogil=True)
def _greys(cells: NDArray[np.int32], plane: NDArray[np.floating], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return per cell the sums of grey values, squared deviations from their mean and squared gradients, ``(N, 3)``.

    At the edge of the frame its last grey value goes on.
    """
    height, width = cells.shape
    sums = np.zeros((len(area), 3))
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            cell = cells[y, x] - 1
            if cell < 0:
                continue
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            falling = np.float64(plane[down, right]) - np.float64(plane[up, left])
            rising = np.float64(plane[up, right]) - np.float64(plane[down, left])
            across = falling + rising + 2 * (np.float64(plane[y, right]) - np.float64(plane[y, left]))
            along = falling - rising + 2 * (np.float64(plane[down, x]) - np.float64(plane[up, x]))
            sums[cell, 0] += plane[y, x]
            sums[cell, 2] += (across * across + along * along) / 64
    for y in range(height):
        for x in range(width):
            cell = cells[y, x] - 1
            if cell >= 0:
                sums[cell, 1] += (plane[y, x] - sums[cell, 0] / area[cell]) ** 2
    return sums


@njit(cache=True, nogil=True)
def _accumulate(
    cells: NDArray[np.int32], n_cells: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return, in one pass, sums, half-open boxes (y0, x0, y1, x1) and the pairs of cells sharing a pixel edge.

    The sums are area, y, x, yy, xx, xy (relative to the corner of the box) and Crofton perimeter.
    """
    height, width = cells.shape
    sums = np.zeros((n_cells, 7))
    boxes = np.empty((n_cells, 4), np.int64)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = height, width, 0, 0
    first = np.full(n_cells, -1, np.int64)  # column of the first pixel; moments are about it until the end
    pairs = np.empty((2 * width, 2), np.int64)
    n_pairs = 0
    rows = np.zeros((2, width + 2), np.int32)  # two rows at a time, framed by background
    for y in range(height + 1):
        before, row = rows[y % 2], rows[1 - y % 2]
        if y < height:
            row[1:-1] = cells[y]
        else:
            row[:] = 0
        if n_pairs + 2 * width > len(pairs):  # not within the loop below, which would be slower by a third
            pairs = np.concatenate((pairs, np.empty_like(pairs)))
        for x in range(width + 1):
            here, above, left, corner = row[x + 1], before[x + 1], row[x], before[x]
            if here > 0:
                at = here - 1
                if first[at] < 0:
                    first[at] = x
                    boxes[at, 0] = y
                boxes[at, 1], boxes[at, 2], boxes[at, 3] = min(boxes[at, 1], x), y + 1, max(boxes[at, 3], x + 1)
                dy, dx = float(y - boxes[at, 0]), float(x - first[at])
                sums[at, 0] += 1
                sums[at, 1] += dy
                sums[at, 2] += dx
                sums[at, 3] += dy * dy
                sums[at, 4] += dx * dx
                sums[at, 5] += dy * dx
            if here == above and here == left and here == corner:
                continue
            for k, cell in enumerate((here, above, left, corner)):
                if cell == 0 or (k > 0 and cell == here) or (k > 1 and cell == above) or (k > 2 and cell == left):
                    continue
                code = (here == cell) + 2 * (above == cell) + 4 * (left == cell) + 8 * (corner == cell)
                sums[cell - 1, 6] += CROFTON[code]
            for other in (above, left):
                if here > 0 and other > 0 and here != other:
                    pairs[n_pairs, 0], pairs[n_pairs, 1] = min(here, other) - 1, max(here, other) - 1
                    n_pairs += 1
    for at in range(n_cells):
        shift = float(first[at] - boxes[at, 1])
        sums[at, 5] += shift * sums[at, 1]
        sums[at, 4] += shift * (2 * sums[at, 2] + shift * sums[at, 0])
        sums[at, 2] += shift * sums[at, 0]
    return sums, boxes, pairs[:n_pairs]


@njit(cache=True, nogil=True)
def _outlines(cells: NDArray[np.int32], boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return area, perimeter, hull area, largest and smallest width of each outline, ``(N, 6)``; NaN without one.

    The last column is the area in pixels with holes filled, which every cell has.
    """
    table = np.full((len(boxes), 6), np.nan)
    for k in range(len(boxes)):
        filled = _filled(cells, k + 1, boxes[k])
        table[k, 5] = filled.sum()
        points = _traced(filled, boxes[k])
        if len(points):
            corners = hull(points)
            table[k, 0], table[k, 1] = abs(signed_area(points)), perimeter(points)
            table[k, 2] = abs(signed_area(corners))
            table[k, 3], table[k, 4] = feret(corners)
    return table


@njit(cache=True, nogil=True)
def _contour(cells: NDArray[np.int32], cell: int, box: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the largest 0.5-level outline of the filled, blurred mask, ``(N, 2)`` (y, x); empty if there is none."""
    return _traced(_filled(cells, cell, box), box)


@njit(cache=True, nogil=True)
def _traced(filled: NDArray[np.float64], box: NDArray[np.int64]) -> NDArray[np.float64]:
    points = _largest_level_set(_blur(filled))
    points[:, 0] += box[0] - 1
    points[:, 1] += box[1] - 1
    return points


@njit(cache=True, nogil=True)
def _filled(cells: NDArray[np.int32], cell: int, box: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mask of a cell within its box and one pixel of background, holes filled, as 0.0 or 1.0."""
    height, width = box[2] - box[0] + 2, box[3] - box[1] + 2
    mask = np.ones((height, width))
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if cells[box[0] + y - 1, box[1] + x - 1] != cell:
                mask[y, x] = -1.0  # background, perhaps a hole
    mask[0, :], mask[-1, :], mask[:, 0], mask[:, -1] = -1.0, -1.0, -1.0, -1.0
    stack = np.empty((height * width, 2), np.int64)
    stack[0, 0], stack[0, 1], size = 0, 0, 1
    mask[0, 0] = 0.0
    while size:
        size -= 1
        y, x = stack[size, 0], stack[size, 1]
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width and mask[v, u] < 0:
                mask[v, u] = 0.0
                stack[size, 0], stack[size, 1] = v, u
                size += 1
    for y in range(height):
        for x in range(width):
            mask[y, x] = abs(mask[y, x])
    return mask


@njit(cache=True, nogil=True)
def _blur(mask: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mask blurred by ``KERNEL``, background beyond its edges; at the edges it stays below 0.31."""
    height, width = mask.shape
    rows = np.zeros((height, width))
    for y in range(height):
        end = 0
        while end < width:
            start = end
            while start < width and mask[y, start] == 0:
                start += 1
            end = start
            while end < width and mask[y, end] > 0:
                end += 1
            if start < end:  # a run of ones blurred is a difference of the kernel's sums
                for x in range(max(0, start - REACH), min(width, end + REACH)):
                    low, high = max(x - end + 1, -REACH), min(x - start, REACH)
                    rows[y, x] += SUMS[high + REACH + 1] - SUMS[low + REACH]
    blurred = np.zeros((height, width))
    for y in range(height):
        for k in range(max(-REACH, -y), min(REACH, height - 1 - y) + 1):
            weight = KERNEL[k + REACH]
            for x in range(width):
                blurred[y, x] += weight * rows[y + k, x]
    return blurred


@njit(cache=True, nogil=True)
def _largest_level_set(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the closed marching-squares contour of largest area, high values 4-connected, as in find_contours."""
    height, width = values.shape
    seen = np.zeros((height, width), np.bool_)
    trail = np.empty((4 * height * width, 2))
    best_y, best_x, best_area = 0, 0, 0.0
    for y in range(height):
        for x in range(1, width):
            if values[y, x] > LEVEL and values[y, x - 1] <= LEVEL and not seen[y, x]:
                area = abs(signed_area(trail[: _follow(values, y, x, seen, trail)]))
                if area > best_area:
                    best_y, best_x, best_area = y, x, area
    # walked again rather than kept: an array assigned within the loops would make them four times as slow
    return trail[: _follow(values, best_y, best_x, seen, trail)].copy() if best_area > 0 else np.empty((0, 2))


@njit(cache=True, nogil=True)
def _follow(values: NDArray[np.float64], y: int, x: int, seen: NDArray[np.bool_], trail: NDArray[np.float64]) -> int:
    """Walk once around the high side from (y, x) with low to its left; fill ``trail`` and return its length.

    The state is a high pixel and the direction of its low neighbour; the outline cuts the line between them.
    """
    start_y, start_x, dy, dx, size = y, x, 0, -1, 0
    while True:
        high, low = values[y, x], values[y + dy, x + dx]
        cut = (high - LEVEL) / (high - low)
        trail[size, 0], trail[size, 1] = y + cut * dy, x + cut * dx
        size += 1
        if dx == -1:
            seen[y, x] = True
        side_y, side_x = -dx, dy  # a quarter turn
        if values[y + side_y, x + side_x] <= LEVEL:
            dy, dx = side_y, side_x
        elif values[y + side_y + dy, x + side_x + dx] <= LEVEL:
            y, x = y + side_y, x + side_x
        else:
            y, x = y + side_y + dy, x + side_x + dx
            dy, dx = -side_y, -side_x
        if y == start_y and x == start_x and dy == 0 and dx == -1:
            return size
