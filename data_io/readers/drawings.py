"""Annotation files of every kind as drawn frames: label images, binary masks, ImageJ ROI sets, QuPath GeoJSON."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from data_io import geojson, masks, rois
from data_io.errors import BadInput
from data_io.readers.raw import DRAWN, Drawing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from data_io.images import Plane
    from data_io.readers.raw import Drawn, RawFile

OUTLINES = {
    ".zip": (rois.read, "ImageJ ROIs"),
    ".roi": (rois.read, "ImageJ ROIs"),
    ".geojson": (geojson.read, "GeoJSON outlines"),
    ".json": (geojson.read, "GeoJSON outlines"),
}
"""Files of outlines by suffix: how they are read and what they are called."""


def drawing(path: Path, plane: Plane, image: str) -> Drawing:
    """Return the annotation of an image whose header is `plane`, not decoded yet."""
    if path.suffix.lower() in OUTLINES:
        _, kind = OUTLINES[path.suffix.lower()]
        return Drawing(path, partial(_outlined, path, plane.frames, plane.shape), kind)
    return Drawing(path, partial(_masked, path, plane.frames, plane.shape, image), DRAWN)


def share(path: Path, files: list[RawFile]) -> list[RawFile]:
    """Return single-frame files with each its part of the one file that holds the outlines of all of them.

    Raises
    ------
    BadInput
        The files are movies, or of different sizes: outlines cannot be told apart then.
    """
    shapes = {file.plane.shape for file in files}
    if len(shapes) > 1 or any(file.plane.frames > 1 for file in files):
        raise BadInput(f"{path}: one set of outlines for images of several sizes; save one set for each image")
    shape, (_, kind) = shapes.pop(), OUTLINES[path.suffix.lower()]
    whole = lru_cache(maxsize=1)(partial(_outlined, path, len(files), shape))
    parts = [Drawing(path, partial(_part, whole, at), kind) for at in range(len(files))]
    return [replace(file, drawing=part) for file, part in zip(files, parts, strict=True)]


def _part(whole: Callable[[], tuple[Drawn, tuple[str, ...]]], at: int) -> tuple[Drawn, tuple[str, ...]]:
    drawn, notes = whole()
    return [drawn[at]], notes if at == 0 else ()


def _outlined(path: Path, frames: int, shape: tuple[int, int]) -> tuple[Drawn, tuple[str, ...]]:
    read, _ = OUTLINES[path.suffix.lower()]
    found = read(path, frames, shape)
    return [one if known else None for one, known in zip(found.labels, found.annotated, strict=True)], found.notes


def _masked(path: Path, frames: int, shape: tuple[int, int], image: str) -> tuple[Drawn, tuple[str, ...]]:
    mask = masks.read(path)
    if mask.shape[1:] != shape:
        sizes = f"{mask.shape[1]} x {mask.shape[2]} px, its image {image} {shape[0]} x {shape[1]}"
        raise BadInput(f"{path}: {sizes}; export both at the same size")
    if len(mask) != frames:
        counts = f"{len(mask)} frames, its image {image} {frames}"
        raise BadInput(f"{path}: {counts}; export as many mask pages as image pages")
    return list(mask), ()
