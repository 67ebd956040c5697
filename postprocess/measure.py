"""Measure the cells of any label image: of this project, of Cellpose, StarDist or TrackMate, drawn by hand.

    python -m postprocess.measure cells_cp_masks.tif --out cells.csv
    python -m postprocess.measure masks/ --image frames/ --pixel-size 0.65 --track --out cells.parquet

LABELS holds 0 as background and a whole number per cell, as

    a TIFF, one frame or a movie (ImageJ, OME: axis T; of ImageJ also Z or C alone), or a PNG of 8 or 16 bit
    a NumPy file .npy, (Y, X) or (T, Y, X), no pickle
    an OME-Zarr label image
    a folder of TIFF, PNG and .npy files in natural order (t2 before t10); of files called masks or labels only these

A cell may lie in several pieces. The table has one row per frame and cell: frame (from 0), label, image (name of the
file), with --track the track, time_s where the files state their frame interval, then the measures of
`postprocess.morphology.measure`. Micrometres are added with --pixel-size, or where all files state one size of their
pixels. One frame is in memory at a time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io.calibration import is_possible
from data_io.command_line import Parser
from data_io.errors import DONE, BadInput, entry_point, printable
from data_io.job_folder import refuse_lost
from data_io.progress import show
from postprocess.label_files import checked, image_sources, label_sources, stated
from postprocess.tables import appending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from postprocess.label_files import Source


@dataclass(frozen=True)
class Summary:
    """What was measured."""

    frames: int
    cells: int
    empty: int
    """Frames without a cell."""
    shapeless: int
    """Cells too small for a contour."""
    pixel_size_um: float | None
    notes: tuple[str, ...]
    """What the user should know."""


def measure(
    labels: Path,
    out: Path,
    image: Path | None = None,
    pixel_size_um: float | None = None,
    *,
    track: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Measure the cells of every frame and write the table whole or not at all.

    Parameters
    ----------
    labels
        A file or folder of label images; see the top of this file.
    out
        The table, .csv or .parquet; an older one is replaced.
    image
        The grey values, in as many frames of the same sizes.
    pixel_size_um
        Side of a pixel in micrometres; None: as the files of labels, or else of images, agree.
    track
        Link the cells of consecutive frames by overlap and add the column ``track``.
    progress
        Called with (frames done, frames to do).

    Raises
    ------
    BadInput
        No label images, an image that does not fit, an output that cannot be written, a pixel size that is none.
    """
    if pixel_size_um is not None and not is_possible(pixel_size_um):
        raise BadInput(f"--pixel-size {pixel_size_um:g}: no length; give micrometres per pixel, such as 0.65")
    sources, notes = label_sources(labels)
    greys = image_sources(image, labels, sources) if image is not None else []
    pixel = pixel_size_um or stated("pixel_size_um", sources) or stated("pixel_size_um", greys)
    total = sum(source.frames for source in sources)
    cells = empty = shapeless = 0
    binary = True
    with appending(out) as add:
        for done, table in enumerate(tables(sources, greys, pixel, track=track), start=1):
            add(table)
            cells, empty = cells + len(table), empty + table.empty
            shapeless += int((table["reason"] != "").sum())
            binary &= table.empty or (len(table) == 1 and bool(table["n_pieces"].item() > 1))
            if progress is not None:
                progress(done, total)
    if cells and binary:
        notes.append("every frame is one cell in several pieces; if this is a binary mask, label its pieces first")
    return Summary(total, cells, empty, shapeless, pixel, tuple(notes))


def tables(
    sources: Sequence[Source], greys: Sequence[Source], pixel_size_um: float | None, *, track: bool = False
) -> Iterator[pd.DataFrame]:
    """Yield the table of each frame; a frame without cells gives one without rows.

    Raises
    ------
    BadInput
        A frame that cannot be read, is no label image or is the same as its image.
    """
    from postprocess.morphology import measure as measure_frame
    from postprocess.track import Linker

    grey = (frame for source in greys for frame in source.read())
    interval = stated("frame_interval_s", sources) or stated("frame_interval_s", greys)
    linker = Linker()
    for number, (path, labels) in enumerate((one.path, frame) for one in sources for frame in one.read()):
        cells = checked(path, labels)
        image = next(grey) if greys else None
        if image is not None and cells.any() and np.array_equal(cells, image[0]):
            raise BadInput(f"{path}: --image holds the same pixels; give the image that was segmented")
        table = measure_frame(cells, image, pixel_size_um)
        front: dict[str, Any] = {"frame": number, "label": table["label"], "image": path.name}
        if interval:
            front["time_s"] = number * interval
        if track:
            tracks = linker.step(number, cells)
            front["track"] = np.array([tracks[label] for label in table["label"]], np.int64)
        table = table.assign(**front).astype({"frame": "int64", "image": "string", "reason": "string"})
        yield table[[*front, *(name for name in table.columns if name not in front)]]


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = Parser(
        prog="python -m postprocess.measure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("labels", type=Path, metavar="LABELS", help="label image, movie or folder")
    add("--image", type=Path, metavar="I", help="the image that was segmented: intensities and focus are added")
    add("--pixel-size", metavar="UM", help="micrometres per pixel (default: as the files say)")
    add("--track", action="store_true", help="link cells of consecutive frames by overlap")
    add("--out", type=Path, required=True, metavar="FILE", help="the table: .csv or .parquet")
    given = parser.parse_args(argv)
    refuse_lost(given.out, "--out")
    done = measure(
        given.labels,
        given.out,
        given.image,
        _length(given.pixel_size),
        track=given.track,
        progress=lambda at, total: show("measuring", at, total, "frames"),
    )
    for note in done.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    scale = f"{done.pixel_size_um:g} um per px" if done.pixel_size_um else "pixel size unknown, all in px"
    counted = f"{done.cells} cells in {done.frames} frames, {done.empty} of them empty"
    print(f"{counted}; {done.shapeless} cells too small for a contour; {scale}: {printable(str(given.out))}")
    return DONE


def _length(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as fault:
        raise BadInput(f"--pixel-size {text}: no number; give micrometres per pixel, such as 0.65") from fault


if __name__ == "__main__":
    entry_point(main)
