"""One image file, with its annotation, as frames; and a mosaic as the tiles it is made of."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from data_io import images
from data_io.errors import BadInput
from data_io.paged import PNG
from data_io.readers import drawings
from data_io.readers.raw import Drawing, RawFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data_io.readers.raw import Drawn, Options, Picture

IMAGES = images.TIFF + PNG


def raw_file(path: Path, drawn: Path | None, options: Options) -> RawFile:
    """Return the frames of one image file and of its annotation, neither of them decoded yet."""
    plane = images.header(path, _planes(options))
    drawing = None if drawn is None else drawings.drawing(drawn, plane, path.name)
    return RawFile(path.name, plane, (path,), partial(_pictures, path, options), drawing)


def tiled(file: RawFile, options: Options) -> list[RawFile]:
    """Return the tiles of a mosaic, row by row.

    Raises
    ------
    BadInput
        The image cannot be divided so, or its annotation is of another size.
    """
    rows, columns = options.tiles or (1, 1)
    height, width = file.plane.shape
    if height % rows or width % columns:
        raise BadInput(f"{file.image}: {height} x {width} px is not {rows} x {columns} equal tiles; give other --tiles")
    size = (height // rows, width // columns)
    cut = []
    for row in range(rows):
        for column in range(columns):
            window = (slice(row * size[0], (row + 1) * size[0]), slice(column * size[1], (column + 1) * size[1]))
            drawing = file.drawing
            if drawing is not None:
                drawing = replace(drawing, read=partial(_drawn_tile, drawing, window, file))
            name = f"{file.image.stem}_r{row + 1}c{column + 1}"
            tile = replace(file, name=name, plane=replace(file.plane, shape=size), drawing=drawing)
            cut.append(replace(tile, read=partial(_picture_tile, file, window)))
    return cut


def _planes(options: Options) -> images.Options:
    return images.Options(z=options.z, channels=options.channels)


def _pictures(path: Path, options: Options) -> Iterator[Picture]:
    yield from images.frames(path, _planes(options))


def _picture_tile(file: RawFile, window: tuple[slice, slice]) -> Iterator[Picture]:
    for image, note in file.read():
        yield image[(slice(None), *window)], note


def _drawn_tile(drawing: Drawing, window: tuple[slice, slice], file: RawFile) -> tuple[Drawn, tuple[str, ...]]:
    drawn, notes = drawing.read()
    if any(one is not None and one.shape != file.plane.shape for one in drawn):
        raise BadInput(f"{drawing.path}: not of the size of its image {file.name}; export both at the same size")
    return [None if one is None else one[window] for one in drawn], notes
