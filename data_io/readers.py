"""What a folder holds: fields of frames, and the mask of each frame where there is one.

Layouts read today, also inside sub-folders (each sub-folder a field):

- `frames/` beside `masks/` (or images, raw ... beside labels, annotations, gt ...), with or without sub-folders,
- images and `<name>_mask`, `_masks`, `_cp_masks`, `_labels`, `_seg` ... side by side,
- a multi-page TIFF movie, alone or in a folder, with a multi-page mask.

Masks belong to images by name (`a.tif`, `a_mask.tif`) or by number (`im000_channel1.tif`, `im000_mask1.tif`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from data_io import images
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SUFFIXES = images.TIFF + images.PNG
IMAGE_FOLDERS = ("frames", "images", "image", "imgs", "img", "raw", "raw_images")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth", "segmentation")
MARKER = "synthetic.json"
_MASK_WORD = re.compile(
    r"(?:^|[_\-. ])(?:cp[_-])?(?:masks?|labels?|annotations?|seg|segmentation|gt)\d*(?=$|[_\-. ])", re.IGNORECASE
)
_HOW = "put images in frames/ and label images in masks/, with the same names"


@dataclass(frozen=True)
class RawFile:
    """An image file, its mask if there is one, and what its header says."""

    image: Path
    mask: Path | None
    plane: images.Plane


@dataclass(frozen=True)
class RawField:
    """One field as found: its files in time order, all of one size."""

    name: str
    files: tuple[RawFile, ...]
    groups: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """All that a source holds; `facts` comes from the marker of a synthetic set."""

    reader: str
    fields: tuple[RawField, ...]
    facts: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def paths(self) -> list[Path]:
        """Return every file read, images and masks, in order."""
        return [path for one in self.fields for f in one.files for path in (f.image, f.mask) if path is not None]


def find(source: Path) -> Found:
    """Return what a file or folder holds, by the first reader that knows it.

    Raises
    ------
    BadInput
        No such source, nothing a reader knows, or names that leave a doubt about which mask belongs to which image.
    """
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give a folder of TIFF or PNG images")
    for name, (knows, read) in READERS.items():
        if knows(source):
            warnings: list[str] = []
            fields = read(source, warnings)
            return Found(name, tuple(fields), _marker(source), tuple(warnings))
    raise BadInput(f"{source}: not a folder, TIFF or PNG; {_HOW}")


def movie(source: Path, warnings: list[str]) -> list[RawField]:
    """Read one file as a field; its mask is the file beside it that carries its name and a mask suffix."""
    beside = [path for path in _files(source.parent) if is_mask(path) and bare(path) == source.stem]
    return _fields(source.stem, [source], beside, warnings)


def folder(source: Path, warnings: list[str]) -> list[RawField]:
    """Read a folder of frames and masks, or a folder of such folders."""
    fields = list(_walk(source, source.name or "field", warnings, depth=3))
    if not fields:
        raise BadInput(f"{source}: {_why_nothing(source)}; {_HOW}")
    names = [one.name for one in fields]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{source}: two fields are called {name!r}; rename one of their folders")
    return fields


READERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path, list[str]], list[RawField]]]] = {
    "movie": (lambda source: source.is_file(), movie),
    "folder": (lambda source: source.is_dir(), folder),
}


def is_mask(path: Path) -> bool:
    """Say whether the name is that of a mask."""
    return _MASK_WORD.search(path.stem) is not None


def bare(path: Path) -> str:
    """Return the name without suffix and without the words that say mask."""
    return _MASK_WORD.sub("", path.stem)


def _walk(source: Path, name: str, warnings: list[str], depth: int) -> Iterable[RawField]:
    """Yield the fields of a folder: its own images, or those of its image folder, or those of its sub-folders."""
    folders = {path.name.lower(): path for path in _folders(source)}
    image_folder = next((folders[n] for n in IMAGE_FOLDERS if n in folders), None)
    mask_folder = next((folders[n] for n in MASK_FOLDERS if n in folders), None)
    here = _files(source)
    if image_folder is not None and not here:
        yield from _beside(image_folder, mask_folder, name, warnings)
    elif here:
        inside = _files(mask_folder) if mask_folder else []
        frames = here if inside else [path for path in here if not is_mask(path)]
        yield from _fields(name, frames, inside or [path for path in here if is_mask(path)], warnings)
    elif depth:
        for path in _folders(source):
            yield from _walk(path, path.name, warnings, depth - 1)


def _beside(image_folder: Path, mask_folder: Path | None, name: str, warnings: list[str]) -> Iterable[RawField]:
    """Yield the fields of an image folder and a mask folder, which may both hold one sub-folder per field."""
    frames = _files(image_folder)
    if frames:
        masks = _files(mask_folder) if mask_folder else [path for path in frames if is_mask(path)]
        yield from _fields(name, [path for path in frames if mask_folder or path not in masks], masks, warnings)
    for path in _folders(image_folder):
        twin = mask_folder / path.name if mask_folder else None
        yield from _fields(path.name, _files(path), _files(twin) if twin and twin.is_dir() else [], warnings)


def _fields(name: str, frames: list[Path], masks: list[Path], warnings: list[str]) -> list[RawField]:
    """Return one field, or one per file where sizes differ (no movie changes its size) or each file is a movie."""
    _no_doubles(frames)
    _no_doubles(masks)
    pairs = pair(frames, masks, warnings)
    files = [RawFile(path, pairs.get(path), images.header(path)) for path in frames]
    same = len({(file.plane.shape, file.plane.channels) for file in files}) <= 1
    if same and (len(files) == 1 or all(file.plane.frames == 1 for file in files)):
        return [RawField(name, tuple(files))] if files else []
    if not same:
        warnings.append(f"{name}: frames of different sizes; each is a field of its own")
    return [RawField(f"{name}_{file.image.stem}", (file,)) for file in files]


def pair(frames: list[Path], masks: list[Path], warnings: list[str]) -> dict[Path, Path]:
    """Return the mask of each frame that has one: by name, else by the numbers in the names.

    Raises
    ------
    BadInput
        There are masks, and none belongs to an image.
    """
    if not masks or not frames:
        return {}
    if len(frames) == len(masks) == 1:
        return {frames[0]: masks[0]}
    by_name = {path.stem: path for path in masks} | {bare(path): path for path in masks}
    pairs = {path: by_name[path.stem] for path in frames if path.stem in by_name}
    pairs = pairs or _by_number(frames, masks)
    if not pairs:
        raise BadInput(
            f"{masks[0].parent}: masks do not belong to the images by name or number ({masks[0].name}, "
            f"{frames[0].name}); name each mask like its image"
        )
    if orphans := sorted(set(masks) - set(pairs.values())):
        warnings.append(f"{orphans[0]}: no image of that name ({len(orphans)} such masks); left out")
    return pairs


def _by_number(frames: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """Pair by the numbers that vary between images, found in the masks at whatever place makes them fit."""
    of_frame, of_mask = _numbers(frames), _numbers(masks)
    if not of_frame or not of_mask:
        return {}
    vary = [at for at in range(len(of_frame[0])) if len({numbers[at] for numbers in of_frame}) > 1]
    image = {tuple(numbers[at] for at in vary): path for numbers, path in zip(of_frame, frames, strict=True)}
    readings = {}
    for places in combinations(range(len(of_mask[0])), len(vary)):
        keys = [tuple(numbers[at] for at in places) for numbers in of_mask]
        if len(image) == len(frames) and len(set(keys)) == len(keys) and image.keys() >= set(keys):
            readings[tuple(keys)] = {image[key]: mask for key, mask in zip(keys, masks, strict=True)}
    if len(readings) > 1:
        raise BadInput(
            f"{masks[0].parent}: the numbers in {masks[0].name} fit more than one image; name each mask like its image"
        )
    return next(iter(readings.values()), {})


def _numbers(paths: list[Path]) -> list[list[int]]:
    """Return the numbers in each name, or nothing if their count differs between names."""
    numbers = [[int(digits) for digits in re.findall(r"\d+", path.stem)] for path in paths]
    return numbers if len({len(one) for one in numbers}) == 1 and numbers[0] else []


def _no_doubles(paths: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem.lower(), path)
        if other is not path:
            raise BadInput(f"{path}: same name as {other.name}; keep one of them or rename it")


def _files(path: Path) -> list[Path]:
    """Return the images of a folder in natural order (t2 before t10)."""
    found = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and not p.is_dir()]
    return sorted(found, key=lambda p: [(int(t), "") if t.isdigit() else (0, t) for t in re.split(r"(\d+)", p.name)])


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".") and p.suffix != ".zarr")


def _why_nothing(source: Path) -> str:
    present = sorted({p.suffix.lower() for p in source.rglob("*") if p.is_file() and p.suffix})
    return f"no TIFF or PNG images in it, only {', '.join(present[:5])}" if present else "empty folder"


def _marker(source: Path) -> dict[str, Any]:
    if not source.is_dir() or not (source / MARKER).is_file():
        return {}
    try:
        facts = json.loads((source / MARKER).read_text())
    except ValueError as fault:
        raise BadInput(f"{source / MARKER}: not JSON ({fault}); make the synthetic movies again") from fault
    if not isinstance(facts, dict):
        raise BadInput(f"{source / MARKER}: holds no facts; make the synthetic movies again")
    return facts
