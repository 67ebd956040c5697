"""Cell Tracking Challenge sequences: `01/t000.tif` with truth in `01_GT/SEG`, `01_ST/SEG` and tracks in `01_GT/TRA`.

Gold truth (`_GT/SEG/man_seg000.tif`) is drawn by people for some frames; silver truth (`_ST/SEG`) is computed for all.
Cells keep the identity that the tracking truth (`_GT/TRA/man_track000.tif` and `man_track.txt`) gives them. A frame in
which fewer than `COMPLETE` of the tracked cells are drawn counts as not annotated: what is not drawn is no background.

Stacks in depth are projected or chosen with --z, masks and markers like their images. Truth drawn on one slice
(`man_seg_000_002.tif`: frame 0, slice 2) is that of the slice chosen.
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

    from data_io.images import Plane
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
_SLICE = re.compile(r"^man_seg_?(\d{3,4})_(\d{3,4})$")


def is_ctc(source: Path) -> bool:
    """Say whether a folder is a data set or a sequence of the Cell Tracking Challenge, or holds such data sets."""
    return source.is_dir() and bool(_sequences(source))


def read(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read every sequence of a data set, each a field.

    Raises
    ------
    BadInput
        The truth asked for is not there, a frame is there twice, or a stack in depth is not projected.
    """
    if options.truth not in ("auto", *TRUTHS):
        raise BadInput(f"--truth {options.truth}: unknown; choose from auto, {', '.join(TRUTHS)}")
    sequences = _sequences(source)
    drawn = {truth: [_truth(sequence, truth, options.z) for sequence in sequences] for truth in TRUTHS}
    counts = {truth: sum(map(len, found)) for truth, found in drawn.items()}
    truth = options.truth
    if truth == "auto":
        truth = "gold" if counts["gold"] >= ENOUGH or not counts["silver"] else "silver"
        if counts["silver"] and counts["gold"]:
            frames = ", ".join(f"{name} {count} frames" for name, count in counts.items())
            warnings.append(f"{truth} truth taken ({frames}); --truth takes the other")
    if not counts[truth]:
        _refuse_slices(sequences, truth)
        if options.truth != "auto":
            raise BadInput(f"{source}: no {truth} truth ({TRUTHS[truth]}/SEG) in it; choose the other with --truth")
    for sequence, found in zip(sequences, drawn[truth], strict=True):
        if lost := [path for path in _slices(sequence, truth).values() if path not in found.values()]:
            warnings.append(f"{lost[0]}: not drawn on the plane that is read ({len(lost)} such masks); left out")
    _name_others(source, sequences, warnings)
    return [
        _sequence(f"{sequence.absolute().parent.name}_{sequence.name}", sequence, found, truth, options, warnings)
        for sequence, found in zip(sequences, drawn[truth], strict=True)
    ]


def _sequences(source: Path) -> list[Path]:
    """Return the folders `01`, `02`, ... that hold `t000.tif`, `t001.tif`, ...; the source may be one of them.

    Where it holds none, those of its sub-folders that have truth or, as archives are unpacked, the source's own name.
    """
    if _SEQUENCE.match(source.name):
        return [source] if _is_sequence(source) else []
    if here := _inside(source):
        return here
    folders = [path for path in sorted(source.iterdir()) if path.is_dir() and path.name[0] != "."]
    return [one for folder in folders for one in _inside(folder) if folder.name == source.name or _has_truth(one)]


def _inside(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if _SEQUENCE.match(path.name) and _is_sequence(path)]


def _is_sequence(path: Path) -> bool:
    return path.is_dir() and any(map(_time, _tiffs(path)))


def _has_truth(sequence: Path) -> bool:
    return any(sequence.with_name(sequence.name + end).is_dir() for end in TRUTHS.values())


def _name_others(source: Path, sequences: list[Path], warnings: list[str]) -> None:
    """Name the folders with images beside the sequences or the data sets, which are not read."""
    if source in sequences:
        return
    read = {sequence.relative_to(source).parts[0][: 2 if sequence.parent == source else None] for sequence in sequences}
    for path in sorted(source.iterdir()):
        ours = path.name in read or (path.name[:2] in read and path.name[2:3] == "_")
        if path.is_dir() and not ours and any(p.suffix.lower() in images.TIFF for p in path.rglob("*")):
            warnings.append(f"{path}: no sequence of the Cell Tracking Challenge, as its neighbours are; left out")


def _tiffs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in images.TIFF and p.name[0] != ".")


def _time(path: Path) -> str | None:
    """Return the digits of `t000.tif`."""
    told = _FRAME.match(path.stem)
    return told[1] if told else None


def _truth(sequence: Path, truth: str, z: str | None) -> dict[int, Path]:
    """Return the mask of each frame that has one, by frame number: a whole one, or that of the slice asked for."""
    slices = {time: path for (time, plane), path in _slices(sequence, truth).items() if str(plane) == _number(z)}
    return slices | _numbered(_seg(sequence, truth), "man_seg")


def _seg(sequence: Path, truth: str) -> Path:
    return sequence.with_name(sequence.name + TRUTHS[truth]) / "SEG"


def _number(z: str | None) -> str:
    return str(int(z)) if z is not None and z.isdecimal() else ""


def _slices(sequence: Path, truth: str) -> dict[tuple[int, int], Path]:
    """Return the masks of single slices, by frame and slice."""
    folder = _seg(sequence, truth)
    paths = _tiffs(folder) if folder.is_dir() else []
    return {(int(told[1]), int(told[2])): path for path in paths if (told := _SLICE.match(path.stem))}


def _refuse_slices(sequences: list[Path], truth: str) -> None:
    for sequence in sequences:
        for (_, plane), path in sorted(_slices(sequence, truth).items())[:1]:
            raise BadInput(f"{path}: truth of single slices; say --z N, the number of the slice, as --z {plane}")


def _numbered(folder: Path, stem: str) -> dict[int, Path]:
    """Return the files `stem000.tif`, `stem001.tif`, ... by their number.

    Raises
    ------
    BadInput
        Two files have one number.
    """
    found: dict[int, Path] = {}
    for path in _tiffs(folder) if folder.is_dir() else []:
        told = re.match(rf"^{stem}_?(\d{{3,4}})$", path.stem)
        if told and found.setdefault(int(told[1]), path) != path:
            raise BadInput(f"{path}: the same frame number as {found[int(told[1])].name}; keep one of them")
    return found


def _sequence(
    name: str, sequence: Path, drawn: dict[int, Path], truth: str, options: Options, warnings: list[str]
) -> RawField:
    """Return a sequence as a field whose cells bear the numbers of their tracks."""
    frames = _numbered(sequence, "t")
    if orphans := sorted(drawn.keys() - frames.keys()):
        warnings.append(f"{drawn[orphans[0]]}: no image of that number ({len(orphans)} such masks); left out")
    tracking = sequence.with_name(sequence.name + "_GT") / "TRA"
    markers = _numbered(tracking, "man_track")
    files = []
    for number, path in sorted(frames.items()):
        file = raw_file(path, None, options)
        if file.plane.frames > 1:
            raise BadInput(
                f"{path}: {file.plane.frames} planes in depth; say --z max or --z N, the number of the plane"
            )
        if mask := drawn.get(number):
            spare = UNTRACKED + number * (SPARE // (max(frames) + 1))
            drawing = partial(_tracked, mask, markers.get(number), file.plane, options.z, spare)
            file = replace(file, drawing=Drawing(mask, drawing, f"labels ({truth} truth)"))
        files.append(file)
    lineage = _lineage(tracking / "man_track.txt")
    return RawField(name, tuple(files), {"sequence": sequence.name}, tracked=bool(markers), lineage=lineage)


def _flat(path: Path, plane: Plane, z: str | None) -> NDArray[np.int32]:
    """Return a mask `(Y, X)` int32, projected or chosen from its planes as its image was.

    Raises
    ------
    BadInput
        Not of its image's size, or planes in depth that --z does not turn into one of labels.
    """
    stack = masks.read(path)
    if stack.shape[1:] != plane.shape:
        sizes = f"{stack.shape[1]} x {stack.shape[2]} px, its image {plane.shape[0]} x {plane.shape[1]}"
        raise BadInput(f"{path}: {sizes}; copy the data set again")
    if len(stack) == 1:
        return np.asarray(stack[0], np.int32)
    if len(stack) != plane.depth:
        raise BadInput(f"{path}: {len(stack)} planes, its image {plane.depth}; copy the data set again")
    if z == "max":
        return np.asarray(stack.max(axis=0), np.int32)
    if not _number(z):
        raise BadInput(f"{path}: labels have no {z} over depth; say --z max or --z N, the number of the plane")
    return np.asarray(stack[int(_number(z))], np.int32)


def _tracked(mask: Path, marker: Path | None, plane: Plane, z: str | None, spare: int) -> tuple[Drawn, tuple[str, ...]]:
    """Read a mask and give its cells the numbers of the tracks whose markers lie in them."""
    labels = _flat(mask, plane, z)
    if marker is None:
        return [labels], ()
    renamed, met, all_tracks = name_tracks(labels, _flat(marker, plane, z), spare)
    if all_tracks and met < COMPLETE * all_tracks:
        return [None], (f"{mask}: {met} of {all_tracks} tracked cells are drawn; the frame counts as not annotated",)
    return [renamed], ()


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
    present, which = np.unique(labels, return_inverse=True)
    cells = [cell for cell in present.tolist() if cell]
    for extra, cell in enumerate([cell for cell in cells if cell not in name]):
        name[cell] = spare + extra
    name[0] = 0
    renamed = np.array([name[cell] for cell in present.tolist()], np.int32)
    return renamed[which.reshape(labels.shape)], len(used), len(np.unique(tracks[tracks > 0]))


def _lineage(path: Path) -> tuple[tuple[int, int, int, int], ...]:
    """Return the rows of `man_track.txt`: track, first and last frame, parent (0 for none)."""
    if not path.is_file():
        return ()
    try:
        rows = [tuple(map(int, line.split())) for line in path.read_text().splitlines() if line.strip()]
        return tuple((track, first, last, parent) for track, first, last, parent in rows)
    except ValueError as fault:
        raise BadInput(f"{path}: not rows of four whole numbers ({fault}); copy the data set again") from fault
