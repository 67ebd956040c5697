"""Cell Tracking Challenge sequences: `01/t000.tif` with truth in `01_GT/SEG`, `01_ST/SEG` and tracks in `01_GT/TRA`.

Gold truth (`_GT/SEG/man_seg000.tif`) is drawn by people for some frames; silver truth (`_ST/SEG`) is computed for all.
Cells keep the identity that the tracking truth (`_GT/TRA/man_track000.tif` and `man_track.txt`) gives them. A frame in
which fewer than `COMPLETE` of the tracked cells are drawn counts as not annotated: what is not drawn is no background.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data_io import images, masks
from data_io.errors import BadInput
from data_io.readers.files import raw_file
from data_io.readers.raw import Drawing, RawField

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from data_io.readers.raw import Drawn, Options

COMPLETE = 0.9
"""Smallest share of tracked cells that must be drawn in a frame."""
TRUTHS = {"gold": "_GT", "silver": "_ST"}
ENOUGH = 3
"""Frames of gold truth from which on it is taken rather than silver."""
UNTRACKED = 100_000
"""Numbers from here on are given to drawn cells that no track covers, others in every frame."""
SPARE = 900_000
"""So many of them are shared out among the frames of a sequence."""
_SEQUENCE = re.compile(r"^\d{2}$")
_FRAME = re.compile(r"^t(\d{3,4})$")


def is_ctc(source: Path) -> bool:
    """Say whether a folder is a data set or a sequence of the Cell Tracking Challenge."""
    return source.is_dir() and bool(_sequences(source))


def read(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read every sequence of a data set, each a field.

    Raises
    ------
    BadInput
        The truth asked for is not there, or a stack in depth is not projected.
    """
    if options.truth not in ("auto", *TRUTHS):
        raise BadInput(f"--truth {options.truth}: unknown; choose from auto, {', '.join(TRUTHS)}")
    sequences = _sequences(source)
    drawn = {truth: [_truth(sequence, truth) for sequence in sequences] for truth in TRUTHS}
    counts = {truth: sum(map(len, found)) for truth, found in drawn.items()}
    truth = options.truth
    if truth == "auto":
        truth = "gold" if counts["gold"] >= ENOUGH or not counts["silver"] else "silver"
        if counts["silver"] and counts["gold"]:
            frames = ", ".join(f"{name} {count} frames" for name, count in counts.items())
            warnings.append(f"{truth} truth taken ({frames}); --truth takes the other")
    elif not counts[truth]:
        raise BadInput(f"{source}: no {truth} truth ({TRUTHS[truth]}/SEG) in it; choose the other with --truth")
    name = source.name if not _SEQUENCE.match(source.name) else source.parent.name
    return [
        _sequence(f"{name}_{sequence.name}", sequence, found, truth, options, warnings)
        for sequence, found in zip(sequences, drawn[truth], strict=True)
    ]


def _sequences(source: Path) -> list[Path]:
    """Return the folders `01`, `02`, ... that hold `t000.tif`, `t001.tif`, ...; the source may be one of them."""
    candidates = [source] if _SEQUENCE.match(source.name) else sorted(source.iterdir())
    return [
        path for path in candidates if path.is_dir() and _SEQUENCE.match(path.name) and any(map(_time, _tiffs(path)))
    ]


def _tiffs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in images.TIFF and p.name[0] != ".")


def _time(path: Path) -> str | None:
    """Return the digits of `t000.tif`."""
    told = _FRAME.match(path.stem)
    return told[1] if told else None


def _truth(sequence: Path, truth: str) -> dict[int, Path]:
    """Return the mask of each frame that has one, by frame number."""
    return _numbered(sequence.with_name(sequence.name + TRUTHS[truth]) / "SEG", "man_seg")


def _numbered(folder: Path, stem: str) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    pattern = re.compile(rf"^{stem}_?(\d{{3,4}})$")
    return {int(told[1]): path for path in _tiffs(folder) if (told := pattern.match(path.stem))}


def _sequence(
    name: str, sequence: Path, drawn: dict[int, Path], truth: str, options: Options, warnings: list[str]
) -> RawField:
    """Return a sequence as a field whose cells bear the numbers of their tracks."""
    frames = {int(time): path for path in _tiffs(sequence) if (time := _time(path))}
    if orphans := sorted(drawn.keys() - frames.keys()):
        warnings.append(f"{drawn[orphans[0]]}: no image of that number ({len(orphans)} such masks); left out")
    tracking = sequence.with_name(sequence.name + "_GT") / "TRA"
    markers = _numbered(tracking, "man_track")
    files = []
    for number, path in sorted(frames.items()):
        file = raw_file(path, drawn.get(number), options)
        if file.drawing is not None:
            kind = f"labels ({truth} truth)"
            read = partial(
                _tracked,
                file.drawing,
                markers.get(number),
                file.plane.shape,
                UNTRACKED + number * (SPARE // (max(frames) + 1)),
            )
            file = replace(file, drawing=Drawing(file.drawing.path, read, kind))
        files.append(file)
    lineage = _lineage(tracking / "man_track.txt")
    return RawField(name, tuple(files), {"sequence": sequence.name}, tracked=bool(markers), lineage=lineage)


def _tracked(
    drawing: Drawing, marker: Path | None, shape: tuple[int, int], spare: int
) -> tuple[Drawn, tuple[str, ...]]:
    """Read a mask and give its cells the numbers of the tracks whose markers lie in them."""
    (labels, *more), notes = drawing.read()
    if marker is None or labels is None or more:
        return [labels, *more], notes
    (tracks, *_) = masks.read(marker)
    if tracks.shape != shape:
        raise BadInput(f"{marker}: not of the size of its image; copy the data set again")
    renamed, met, all_tracks = name_tracks(labels, tracks, spare)
    if all_tracks and met < COMPLETE * all_tracks:
        note = f"{drawing.path}: {met} of {all_tracks} tracked cells are drawn; the frame counts as not annotated"
        return [None], (*notes, note)
    return [renamed], notes


def name_tracks(
    labels: NDArray[np.int32], tracks: NDArray[np.int32], spare: int = 100_000
) -> tuple[NDArray[np.int32], int, int]:
    """Return the labels renumbered by track, how many tracks have a cell, and how many tracks there are.

    Parameters
    ----------
    labels
        `(Y, X)` int32 cells.
    tracks
        `(Y, X)` int32 markers, one value per track; a marker need not cover its cell.
    spare
        The first number for cells without a track.

    A cell takes the track that covers most of its pixels; of several cells over one track the one that it covers most
    takes its number, and any other a spare one.
    """
    both = (labels > 0) & (tracks > 0)
    pairs, counts = np.unique(np.stack([labels[both], tracks[both]]), axis=1, return_counts=True)
    name: dict[int, int] = {}
    used: set[int] = set()
    for at in np.argsort(-counts, kind="stable"):
        cell, track = int(pairs[0, at]), int(pairs[1, at])
        if cell not in name and track not in used:
            name[cell] = track
            used.add(track)
    present = np.unique(labels[labels > 0]).tolist()
    table = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    for extra, cell in enumerate([cell for cell in present if cell not in name]):
        name[cell] = spare + extra
    for cell in present:
        table[cell] = name[cell]
    return table[labels], len(used), len(np.unique(tracks[tracks > 0]))


def _lineage(path: Path) -> tuple[tuple[int, int, int, int], ...]:
    """Return the rows of `man_track.txt`: track, first and last frame, parent (0 for none)."""
    if not path.is_file():
        return ()
    try:
        rows = [tuple(map(int, line.split())) for line in path.read_text().splitlines() if line.strip()]
        return tuple((track, first, last, parent) for track, first, last, parent in rows)
    except ValueError as fault:
        raise BadInput(f"{path}: not rows of four whole numbers ({fault}); copy the data set again") from fault
