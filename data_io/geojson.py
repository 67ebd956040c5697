"""QuPath GeoJSON to instance labels: coordinates in px from the top left corner of the image.

Reads a FeatureCollection, a list of Features or one Feature, of Polygons and MultiPolygons with holes. A cell counts
with its whole outline, not its nucleus. In a file with detections or cells, annotations are the regions they were
looked for in, not cells.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from data_io.damage import one_line
from data_io.errors import BadInput
from data_io.polygons import Drawn, Patch, fill, label, unite

if TYPE_CHECKING:
    from pathlib import Path

    from data_io.polygons import Ring

MAX_BYTES = 2**27
"""A larger file would take gigabytes of memory as JSON."""
_CELLS = ("detection", "cell")
_OBJECTS = {"pathannotationobject": "annotation", "pathdetectionobject": "detection", "pathcellobject": "cell"}
"""Object types as QuPath 0.2 wrote them, in `id`."""
_AGAIN = "export the objects again from QuPath (File > Export objects as GeoJSON)"


def read(path: Path, frames: int, shape: tuple[int, int]) -> Drawn:
    """Return the labels of a GeoJSON file for an image of `frames` frames of `shape` (Y, X).

    A feature belongs to the frame `t` of its plane (from 0), or `z` where all are at one `t`. Labels count from 1 in
    each frame, in file order. An empty collection is an image without cells.

    Raises
    ------
    BadInput
        Not GeoJSON, damaged, broken coordinates, features without a plane in a movie, or on frames that the image
        lacks.
    """
    features = _features(path, _json(path))
    cells, skipped = _cells(path, features)
    places = _frames(path, cells, frames)
    patches = [_patch(path, at, cell, frame, shape) for (at, cell), frame in zip(cells.items(), places, strict=True)]
    drawn = label(path, patches, frames, shape)
    if patches and not drawn.labels.any():
        raise BadInput(f"{path}: all {len(patches)} outlines lie outside the image; export them in pixels, full size")
    left_out = [f"{path}: {n} {what} left out" for what, n in skipped.items()]
    return Drawn(drawn.labels, drawn.annotated, (*drawn.notes, *left_out))


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadInput(f"{path}: more than {MAX_BYTES >> 20} MiB of JSON; export one file per image")
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise BadInput(f"{path}: empty file; {_AGAIN}")
        return json.loads(text, parse_constant=_no_number)
    except BadInput:
        raise
    except (OSError, ValueError, RecursionError) as fault:
        reason = "nested too deep" if isinstance(fault, RecursionError) else one_line(fault)
        raise BadInput(f"{path}: not readable as JSON ({reason}); {_AGAIN}") from fault


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _features(path: Path, found: Any) -> list[dict[str, Any]]:
    """Return the features of whatever QuPath wrote at the top of the file."""
    if isinstance(found, dict):
        found = found.get("features") if found.get("type") == "FeatureCollection" else [found]
    if not isinstance(found, list) or not all(isinstance(f, dict) and f.get("type") == "Feature" for f in found):
        raise BadInput(f"{path}: JSON, but not GeoJSON features; {_AGAIN}")
    return found


def _cells(path: Path, features: list[dict[str, Any]]) -> tuple[dict[int, dict[str, Any]], Counter[str]]:
    """Return the geometry of each cell by its place in the file, and what was left out, with counts."""
    skipped: Counter[str] = Counter()
    kinds = [_kind(feature) for feature in features]
    areas: dict[int, dict[str, Any]] = {}
    regions = any(kind in _CELLS for kind in kinds)
    for at, (feature, kind) in enumerate(zip(features, kinds, strict=True)):
        geometry = feature.get("geometry")
        shape = geometry.get("type") if isinstance(geometry, dict) else "no geometry"
        if kind not in (*_CELLS, "annotation"):
            skipped[f"objects of type {kind[:40]!r}"] += 1
        elif kind == "annotation" and regions:
            skipped["annotations, which are regions around the detections,"] += 1
        elif shape not in ("Polygon", "MultiPolygon") or not isinstance(geometry, dict):
            skipped[f"features that are no area ({str(shape)[:40]})"] += 1
        else:
            areas[at] = geometry
    if features and not areas:
        raise BadInput(f"{path}: none of its {len(features)} features is the outline of a cell; {_AGAIN}")
    return areas, skipped


def _kind(feature: dict[str, Any]) -> str:
    """Return the QuPath object type; what does not say it is an annotation."""
    properties = feature.get("properties")
    told = properties.get("objectType") if isinstance(properties, dict) else None
    old = str(feature.get("id", "")).lower()
    return str(told).lower() if told else _OBJECTS.get(old, "annotation")


def _frames(path: Path, cells: dict[int, dict[str, Any]], frames: int) -> list[int]:
    """Return the 0-based frame of each cell; QuPath leaves the plane out where it is the first."""
    planes = [_plane(path, at, cell) for at, cell in cells.items()]
    if frames == 1 and len(set(planes)) <= 1:
        return [0] * len(planes)
    if frames > 1 and cells and not any("plane" in cell for cell in cells.values()):
        raise BadInput(
            f"{path}: no outline says its frame, and the image has {frames}; export one file per frame, or from a "
            "movie opened with its time axis"
        )
    depth = len({t for t, _ in planes}) == 1 and len({z for _, z in planes}) > 1
    places = [z if depth else t for t, z in planes]
    if max(places, default=0) >= frames:
        raise BadInput(f"{path}: an outline on frame {max(places)} (from 0), the image has {frames}; {_AGAIN}")
    return places


def _plane(path: Path, at: int, cell: dict[str, Any]) -> tuple[int, int]:
    plane = cell.get("plane", {})
    t, z = (plane.get("t", 0), plane.get("z", 0)) if isinstance(plane, dict) else (None, None)
    if not (isinstance(t, int) and isinstance(z, int) and min(t, z) >= 0):
        raise BadInput(f"{path}: feature {at + 1} has the plane {str(plane)[:60]}; {_AGAIN}")
    return t, z


def _patch(path: Path, at: int, cell: dict[str, Any], frame: int, shape: tuple[int, int]) -> Patch:
    try:
        polygons = [cell["coordinates"]] if cell["type"] == "Polygon" else cell["coordinates"]
        return unite([fill(frame, [_ring(ring) for ring in rings], shape) for rings in polygons], frame)
    except (KeyError, TypeError, ValueError) as fault:
        raise BadInput(f"{path}: feature {at + 1} has broken coordinates ({one_line(fault)}); {_AGAIN}") from fault


def _ring(positions: Any) -> Ring:
    """Return the corners of a ring; one of fewer than three corners has no area and covers no pixel."""
    points = np.array(positions)
    if points.size and (points.ndim != 2 or points.shape[1] < 2 or points.dtype.kind not in "iuf"):
        raise ValueError("a ring is a list of [x, y]")
    corners = points.reshape(-1, points.shape[1] if points.size else 2)[:, :2].astype(np.float64)
    if not np.isfinite(corners).all():
        raise ValueError("NaN or infinite")
    return corners
