"""Label images of any program as frames that belong together: files, stacks, folders of them, folders of fields.

The pages of a stack that a run of this project wrote are the fields and frames that `frames.csv` beside it tells; a
folder of single images is one field whose frames are its files in natural order; a folder of stacks, or of folders,
holds a field per stack or folder. Frames of two sources are paired by the names of their files without the words that
say mask (`t1_cp_masks.png` and `t1.tif`), else by the number the names end in (`man_seg003.tif`, `mask003.tif`), else
by their order where there are equally many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from data_io import masks
from data_io.errors import BadInput
from data_io.images import TIFF
from data_io.paged import opened
from data_io.readers.folder import bare, natural
from data_io.readers.ome_zarr import is_ome_zarr
from postprocess.label_files import KINDS, checked, label_sources

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from analysis.matching import Labels

    Key = tuple[str, int]

FIELD = "1"
"""Name of the field where nothing names it."""
_MASKS = ("masks", "labels", "annotations", "gt", "SEG")


@dataclass(frozen=True)
class LabelImages:
    """Label images of one source.

    Attributes
    ----------
    path
        Where they came from.
    frames
        (field, frame) to `(Y, X)` integers, 0 background, each positive value a cell.
    names
        (field, frame) to the name of its file without the words that say mask; empty for the pages of a stack.
    notes
        What the user should know.
    """

    path: Path
    frames: dict[Key, Labels]
    names: dict[Key, str]
    notes: tuple[str, ...] = ()

    @property
    def fields(self) -> list[str]:
        """Fields in order."""
        return list(dict.fromkeys(name for name, _ in self.frames))

    def in_field(self, name: str) -> LabelImages:
        """Return them with their field called `name`."""
        frames = {(name, number): labels for (_, number), labels in self.frames.items()}
        return replace(self, frames=frames, names={(name, number): told for (_, number), told in self.names.items()})


def read_labels(path: Path) -> LabelImages:
    """Read all label images of a path.

    Raises
    ------
    BadInput
        Nothing there, or something that cannot be labels.
    """
    frames: dict[Key, Labels] = {}
    names: dict[Key, str] = {}
    notes: list[str] = []
    for field, place in _fields(path):
        files, told = _pages(place)
        notes += told
        called = _called([file for file, _ in files])
        for name, number, file, page in _numbered(field, files):
            frames[name, number] = page
            names[name, number] = called[file] if place.is_dir() and len(files) > 1 else ""
    frames, names = _as_told(path, frames, names)
    frames, binary = _components(frames)
    if binary:
        notes.append(f"{path}: binary masks; their separate pieces were taken for cells")
    return LabelImages(path, frames, names, tuple(notes))


def paired(reference: LabelImages, other: LabelImages) -> LabelImages:
    """Return `other` with the keys of `reference`; frames that only one of them has keep a note or stay missing.

    Raises
    ------
    BadInput
        When nothing says which frames belong together, or sizes differ.
    """
    keys: dict[Key, Key] = {}
    if _is_one_stack(reference, other):
        keys = dict(zip(other.frames, reference.frames, strict=True))
    else:
        for ours, theirs in _paired_fields(reference, other).items():
            keys |= _paired_frames(reference, other, ours, theirs)
    frames = {to: other.frames[key] for key, to in keys.items()}
    for key, frame in frames.items():
        if frame.shape != reference.frames[key].shape:
            raise BadInput(
                f"{other.path}: {_size(other)}, but {reference.path} has {_size(reference)}; "
                "give label images of the same frames"
            )
    extra = len(other.frames) - len(frames)
    notes = list(other.notes)
    if extra:
        notes.append(f"{other.path}: {extra} of {len(other.frames)} frames are not in {reference.path}; left out")
    if any(_are_strangers(other.names[key], reference.names[to]) for key, to in keys.items()):
        notes.append(f"{other.path}: its file names are not those of {reference.path}; frames were paired by order")
    return replace(other, frames=frames, names={to: other.names[key] for key, to in keys.items()}, notes=tuple(notes))


def _are_strangers(one: str, two: str) -> bool:
    """Tell whether two files were paired though neither their names nor their numbers agree."""
    return bool(one and two and one != two and (_number(one) != _number(two) or not _number(one)))


def _is_one_stack(one: LabelImages, two: LabelImages) -> bool:
    """Tell whether one names the fields of its pages and the other holds as many pages without a name."""
    unnamed = any(images.fields == [FIELD] and not any(images.names.values()) for images in (one, two))
    return unnamed and len(one.fields) != len(two.fields) and len(one.frames) == len(two.frames)


def _paired_fields(reference: LabelImages, other: LabelImages) -> dict[str, str]:
    ours, theirs = reference.fields, other.fields
    if len(ours) == len(theirs) == 1:
        return {ours[0]: theirs[0]}
    shared = [name for name in ours if name in theirs]
    if shared:
        return {name: name for name in shared}
    raise BadInput(
        f"{other.path}: fields {_few(theirs)}, but {reference.path} has {_few(ours)}; name the files or folders of "
        "one field alike"
    )


def _paired_frames(reference: LabelImages, other: LabelImages, ours: str, theirs: str) -> dict[Key, Key]:
    """Map keys of `other` to those of `reference` within one field."""
    one = {key: reference.names[key] for key in reference.frames if key[0] == ours}
    two = {key: other.names[key] for key in other.frames if key[0] == theirs}
    for named in (str, _number):
        a, b = ({named(name): key for key, name in names.items() if named(name)} for names in (one, two))
        if len(a) == len(one) and len(b) == len(two) and a.keys() & b.keys():
            return {b[name]: a[name] for name in a if name in b}
    if len(one) != len(two):
        raise BadInput(
            f"{other.path}: {_size(other)}, but {reference.path} has {_size(reference)}; "
            "give label images of the same frames"
        )
    return dict(zip(two, one, strict=True))


def _number(name: str) -> str:
    """Return the number a name ends in, without leading zeros; empty without one."""
    found = re.search(r"(\d+)$", name)
    return str(int(found[1])) if found else ""


def _fields(path: Path) -> Iterator[tuple[str, Path]]:
    """Fields of a path and where their label images lie."""
    if not path.is_dir() or is_ome_zarr(path) or any(p.suffix.lower() in KINDS for p in path.iterdir()):
        yield FIELD, path
        return
    inside = sorted((p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)
    own = [p for p in inside if p.name in _MASKS]
    found = [(FIELD, own[0])] if own else [(p.name, _masks_of(p)) for p in inside]
    held = [(name, place) for name, place in found if any(p.suffix.lower() in KINDS for p in place.iterdir())]
    if not held:
        raise BadInput(f"{path}: no label images (TIFF, PNG, .npy); give a stack, a folder of them or a cells table")
    yield from held


def _as_told(path: Path, frames: dict[Key, Labels], names: dict[Key, str]) -> tuple[dict[Key, Labels], dict[Key, str]]:
    """Give the pages of a run's stack the keys and the size that its frames.csv tells, where there is one."""
    table = path.parent / "frames.csv"
    if not path.is_file() or not table.is_file():
        return frames, names
    try:
        told = pd.read_csv(table)
    except (OSError, ValueError) as fault:
        said = str(fault).splitlines()[0]
        raise BadInput(f"{table}: cannot be read as a table ({said}); restore it or move it away") from fault
    if len(told) != len(frames) or not {"page", "field", "frame", "height_px", "width_px"} <= set(told.columns):
        return frames, names
    pages = list(frames.values())
    if not _fits(told, pages):
        raise BadInput(f"{table}: does not tell the pages of {path.name}; restore it or move it away")
    found = {
        (str(row["field"]), int(row["frame"])): pages[int(row["page"])][: int(row["height_px"]), : int(row["width_px"])]
        for row in told.to_dict("records")
    }
    return found, dict.fromkeys(found, "")


def _fits(told: pd.DataFrame, pages: Sequence[Labels]) -> bool:
    """Tell whether a table has a row for each page of a stack, and frames that lie within their page."""
    numbers = told[["page", "frame", "height_px", "width_px"]].apply(pd.to_numeric, errors="coerce")
    if not ((numbers >= 0) & (numbers % 1 == 0)).to_numpy().all() or sorted(numbers["page"]) != list(range(len(pages))):
        return False
    if told.duplicated(["field", "frame"]).any():
        return False
    sizes = np.array([pages[int(page)].shape for page in numbers["page"]])
    held = numbers[["height_px", "width_px"]].to_numpy()
    return bool(((held > 0) & (held <= sizes)).all())


def _called(files: Sequence[Path]) -> dict[Path, str]:
    """Names without the words that say mask, or whole where these words are all that tells them apart."""
    short = [bare(file) for file in files]
    return dict(zip(files, short if len(set(short)) == len(short) else [file.stem for file in files], strict=True))


def _numbered(field: str, files: list[tuple[Path, list[Labels]]]) -> Iterator[tuple[str, int, Path, Labels]]:
    """Field, frame, file and labels of each page: stacks side by side are fields, single images frames of one."""
    if len(files) > 1 and any(len(pages) > 1 for _, pages in files):
        prefix = "" if field == FIELD else f"{field}/"
        for file, pages in files:
            yield from ((f"{prefix}{bare(file)}", number, file, page) for number, page in enumerate(pages))
    else:
        every = [(file, page) for file, pages in files for page in pages]
        yield from ((field, number, file, page) for number, (file, page) in enumerate(every))


def _masks_of(folder: Path) -> Path:
    return next((folder / name for name in _MASKS if (folder / name).is_dir()), folder)


def _pages(place: Path) -> tuple[list[tuple[Path, list[Labels]]], list[str]]:
    """Read the label images of one field, file by file."""
    if place.is_file() and _is_float(place):
        return [(place, [_small(frame) for frame in masks.read(place)])], []
    if place.is_dir() and not is_ome_zarr(place):
        files = sorted((p for p in place.iterdir() if p.suffix.lower() in TIFF), key=natural)
        if files and _is_float(files[0]):
            return [(file, [_small(frame) for frame in masks.read(file)]) for file in files], []
    sources, notes = label_sources(place)
    return [(s.path, [_small(checked(s.path, frame)) for frame in s.read()]) for s in sources], notes


def _is_float(path: Path) -> bool:
    """Say whether a TIFF holds floating-point numbers, as label images of some plug-ins of Fiji do."""
    if path.suffix.lower() not in TIFF:
        return False
    with opened(path) as paged:
        return paged.dtype.kind == "f"


def _small(labels: NDArray[Any]) -> Labels:
    """Hold labels in 16 bits where they fit, so that a long movie takes half the memory."""
    return labels.astype(np.uint16) if labels.size and 0 <= int(labels.max()) < 2**16 else labels


def _components(frames: dict[Key, Labels]) -> tuple[dict[Key, Labels], bool]:
    """Split binary masks into their pieces; label images, and frames of one cell at most, stay as they are."""
    values: set[int] = set()
    for frame in frames.values():
        values |= masks.values(frame.astype(np.int32, copy=False))
        if len(values) > 1:
            return frames, False
    if not masks.is_binary(values):
        return frames, False
    split = {key: masks.components(frame.astype(np.int32, copy=False)) for key, frame in frames.items()}
    if all(int(frame.max(initial=0)) < 2 for frame in split.values()):
        return frames, False
    return {key: _small(frame) for key, frame in split.items()}, True


def _size(images: LabelImages) -> str:
    first = next(iter(images.frames.values()), None)
    n = len(images.frames)
    told = "1 frame" if n == 1 else f"{n} frames"
    return f"{told} of {' x '.join(map(str, first.shape))} px" if first is not None else told


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
