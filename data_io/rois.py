"""ImageJ ROI sets (`RoiSet.zip` of the ROI Manager, AnnotatorJ, Labkit) and single `.roi` files to instance labels.

Polygons, freehand and traced outlines, rectangles, ovals, ellipses and composites with holes are cells, filled as
ImageJ fills them. Lines, points, angles and texts are left out and counted. A spline-fitted outline is filled through
its points, a rounded rectangle with its corners.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from data_io.damage import one_line
from data_io.errors import BadInput
from data_io.polygons import Drawn, Patch, ellipse, fill, label

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import roifile
    from numpy.typing import NDArray

    from data_io.polygons import Ring

MAX_ROIS = 2**18
MAX_BYTES = 2**28
"""More ROIs, or more bytes once unpacked, are taken for a decompression bomb."""
_AGAIN = "save the ROI set again (ROI Manager: More > Save)"
_STACK_NAME = re.compile(r"(\d{4,})-\d{4,}-\d{4,}(?:-\d+)?")
_CURVE = np.linspace(0, 1, 17)[1:, None]
_AREAS = ("POLYGON", "FREEHAND", "TRACED", "RECT", "OVAL")


def read(path: Path, frames: int, shape: tuple[int, int]) -> Drawn:
    """Return the labels of a ROI file for an image of `frames` frames of `shape` (Y, X).

    A ROI belongs to the frame of its time position, else of its stack position, its slice, or the slice in its name
    (`0003-0120-0088`); in an image of one frame to that frame. Labels count from 1 in each frame, in file order: equal
    numbers in two frames do not mean one cell.

    Raises
    ------
    BadInput
        Not a ROI file, damaged, no area in it, ROIs without a frame in a movie, or on frames that the image lacks.
    """
    found = list(_members(path))
    areas = [(name, roi) for name, roi in found if _is_area(roi)]
    if not areas:
        raise BadInput(f"{path}: holds no area, only {_kinds(found)}; outline the cells, then {_AGAIN}")
    places = _frames(path, areas, frames)
    drawn = label(path, _patches(path, areas, places, shape), frames, shape)
    if not drawn.labels.any():
        raise BadInput(f"{path}: all {len(areas)} ROIs lie outside the image; save the ROIs that belong to it")
    skipped = len(found) - len(areas)
    left_out = f"{path}: {skipped} ROIs that are no area ({_kinds(found)}); left out"
    return Drawn(drawn.labels, drawn.annotated, (*drawn.notes, *([left_out] if skipped else [])))


def _members(path: Path) -> Iterator[tuple[str, roifile.ImagejRoi]]:
    """Yield the name and content of each ROI of a file; members of a zip are read, never extracted."""
    try:
        yield from _zipped(path) if path.suffix.lower() == ".zip" else [_decoded(path.stem, _bytes(path))]
    except BadInput:
        raise
    except Exception as fault:  # zipfile, zlib and roifile raise anything from struct.error to RuntimeError
        raise BadInput(f"{path}: unreadable ROI file ({one_line(fault)}); {_AGAIN}") from fault


def _zipped(path: Path) -> Iterator[tuple[str, roifile.ImagejRoi]]:
    if not path.stat().st_size:
        raise BadInput(f"{path}: empty file (0 bytes); {_AGAIN}")
    with zipfile.ZipFile(path) as file:
        members = [m for m in file.infolist() if m.filename.lower().endswith(".roi") and not _is_of_macos(m.filename)]
        if not members:
            raise BadInput(f"{path}: a zip without .roi files; {_AGAIN}")
        if len(members) > MAX_ROIS or sum(m.file_size for m in members) > MAX_BYTES:
            size = sum(m.file_size for m in members) / 2**20
            raise BadInput(f"{path}: {len(members)} ROIs of {size:.0f} MiB unpacked; save one ROI set per movie")
        if any(member.flag_bits & 1 for member in members):
            raise BadInput(f"{path}: protected by a password; {_AGAIN} without one")
        for member in members:
            yield _decoded(member.filename.rsplit("/", 1)[-1][:-4], file.read(member))


def _is_of_macos(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith("._")


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise BadInput(f"{path}: more than {MAX_BYTES} bytes; {_AGAIN}")
    return path.read_bytes()


def _decoded(name: str, data: bytes) -> tuple[str, roifile.ImagejRoi]:
    from roifile import ImagejRoi

    logging.getLogger("roifile").disabled = True  # what it cannot read is refused or counted here
    roi = ImagejRoi.frombytes(data)
    return roi.name or name, roi


def _is_area(roi: roifile.ImagejRoi) -> bool:
    return roi.roitype.name in _AREAS and roi.subtype.name not in ("TEXT", "ARROW", "IMAGE")


def _kinds(found: list[tuple[str, roifile.ImagejRoi]]) -> str:
    kinds = Counter("text" if roi.subtype.name == "TEXT" else roi.roitype.name for _, roi in found if not _is_area(roi))
    return ", ".join(f"{n} {kind.lower()}" for kind, n in kinds.items())


def _frames(path: Path, areas: list[tuple[str, roifile.ImagejRoi]], frames: int) -> list[int]:
    """Return the 0-based frame of each ROI; an ImageJ stack whose frames are slices has them in `z_position`."""
    slices = all(roi.t_position <= 1 for _, roi in areas) and any(roi.z_position > 1 for _, roi in areas)
    places = [_place(name, roi, slices) for name, roi in areas]
    if frames == 1 and len(set(places)) == 1:
        return [0] * len(places)
    if frames > 1 and 0 in places:
        name = areas[places.index(0)][0]
        raise BadInput(
            f"{path}: {places.count(0)} ROIs, such as {name!r}, have no slice in an image of {frames} frames; "
            "associate ROIs with slices in the ROI Manager, or save one ROI set per frame"
        )
    if max(places) > frames:
        name = areas[places.index(max(places))][0]
        raise BadInput(
            f"{path}: ROI {name!r} is on slice {max(places)}, the image has {frames}; "
            "save the ROIs that belong to this image, with its frames as slices"
        )
    return [max(place, 1) - 1 for place in places]


def _place(name: str, roi: roifile.ImagejRoi, slices: bool) -> int:
    """Return the 1-based frame that a ROI says, 0 if it says none."""
    told = (roi.z_position, roi.position) if slices else (roi.t_position, roi.position, roi.z_position)
    for place in told:
        if place > 0:
            return place
    named = _STACK_NAME.fullmatch(name)
    return int(named[1]) if named else 0


def _patches(
    path: Path, areas: list[tuple[str, roifile.ImagejRoi]], places: list[int], shape: tuple[int, int]
) -> Iterator[Patch]:
    for (name, roi), frame in zip(areas, places, strict=True):
        try:
            yield _patch(roi, frame, shape)
        except Exception as fault:
            raise BadInput(f"{path}: ROI {name[:60]!r} cannot be filled ({one_line(fault)}); {_AGAIN}") from fault


def _patch(roi: roifile.ImagejRoi, frame: int, shape: tuple[int, int]) -> Patch:
    """Return the pixels of one area."""
    if roi.multi_coordinates is not None:
        return fill(frame, [_finite(ring) for ring in _rings(roi.multi_coordinates)], shape)
    kind = roi.roitype.name
    if kind in ("RECT", "OVAL"):
        box = (float(roi.left), float(roi.top), float(roi.right), float(roi.bottom))
        if roi.subpixelrect and roi.widthd > 0 and roi.heightd > 0:
            box = (roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd)
        left, top, right, bottom = _finite(np.array(box)).tolist()
        if kind == "OVAL":
            return ellipse(frame, (left, top, right, bottom), shape)
        return fill(frame, [np.array([[left, top], [right, top], [right, bottom], [left, bottom]])], shape)
    return fill(frame, [_finite(np.asarray(roi.coordinates(), np.float64).reshape(-1, 2))], shape)


def _rings(path: NDArray[np.float32]) -> list[Ring]:
    """Return the rings of a composite, stored as java.awt.geom segments: 0 move, 1 line, 2 and 3 curves, 4 close."""
    numbers = path.astype(np.float64)
    takes = {0: 2, 1: 2, 2: 4, 3: 6, 4: 0}
    rings: list[list[NDArray[np.float64]]] = []
    at = 0
    while at < len(numbers):
        segment = int(numbers[at])
        if segment not in takes or at + takes[segment] >= len(numbers) + (segment == 4):
            raise ValueError(f"segment {segment} of a composite")
        points = numbers[at + 1 : at + 1 + takes[segment]].reshape(-1, 2)
        at += 1 + takes[segment]
        if segment == 0:
            rings.append([points])
        elif segment in (1, 2, 3):
            rings[-1].append(points if segment == 1 else _curve(np.concatenate([rings[-1][-1][-1:], points])))
    return [np.concatenate(ring) for ring in rings]


def _curve(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 16 points on a Bezier curve after its first control point (de Casteljau)."""
    layer = [np.broadcast_to(point, (len(_CURVE), 2)) for point in points]
    while len(layer) > 1:
        layer = [a + (b - a) * _CURVE for a, b in pairwise(layer)]
    return layer[0]


def _finite(points: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(points).all():
        raise ValueError("NaN or infinite coordinates")
    return points
