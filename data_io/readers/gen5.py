"""Gen5 exports of BioTek Cytation and Lionheart microscopes: one TIFF per well, field, channel and time point.

`B1_04_1_1_Bright Field_001.tif` is well B1, read 04, step 1, field 1, channel Bright Field, time point 1 (see
`gen5_names`). Each TIFF carries a `<BTIImageMetaData>` document in its ImageDescription: the pixel size is
ImageWidthMicrons / PixelWidth, the frame interval the median step between the times of acquisition.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from data_io import depth, images
from data_io.calibration import is_possible
from data_io.errors import BadInput
from data_io.readers import drawings
from data_io.readers.folder import IMAGE_FOLDERS, MASK_FOLDERS, _files, bare, group_of, is_mask, pair
from data_io.readers.gen5_names import Name, parse, sites, without_suffix
from data_io.readers.raw import RawField, RawFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data_io.readers.raw import Options, Picture

METADATA = "BTIImageMetaData"
DEPTH = 5
"""Folders below the source that are looked through: experiment, plate, date, images and one more."""
_DATE = re.compile(r"[\d\-_. ]+")


@dataclass(frozen=True)
class Plate:
    """One folder of images."""

    folder: Path
    parts: tuple[str, ...]
    """Folders between the source and it, without those that only say images."""

    @property
    def name(self) -> str:
        """The folders' names, empty at the source itself."""
        return "_".join(self.parts)

    @property
    def groups(self) -> dict[str, str]:
        """The plate, whose folders may be split by date, and whatever else the folders' names tell."""
        plate = "_".join(part for part in self.parts if not _DATE.fullmatch(part)) or self.name
        told = {"plate": plate} if plate else {}
        for part in self.parts or (self.folder.name,):
            told |= group_of(part)
        return told


def is_gen5(source: Path) -> bool:
    """Say whether most TIFF files of a folder, or of one below it, have names as Gen5 gives them."""
    return source.is_dir() and any(_most(folder) for folder in _walk(source))


def read(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read the exports of one plate, or of several, each in a folder of its own.

    Raises
    ------
    BadInput
        A channel or plane of a field is missing or of another size, depth is not chosen, two files show the same, or
        fields differ in their channels.
    """
    fields: list[RawField] = []
    used: set[Path] = set()
    folders = [(folder, _images(folder)) for folder in _walk(source)]
    shared = _shared([_parts(folder, source) for folder, names in folders if names])
    for folder, names in folders:
        if others := [
            p for p in _files(folder) if not is_mask(p) and (p.suffix.lower() not in images.TIFF or not parse(p))
        ]:
            warnings.append(f"{others[0]}: not named by Gen5 ({len(others)} such files); left out")
        if names:
            masks = _masks_of(folder, source)
            used |= {path.parent for path in masks}
            plate = Plate(folder, _parts(folder, source)[shared:])
            fields += _fields(plate, names, masks, options, warnings)
    left = _mask_folders(source, used)
    warnings.extend(f"{folder}: masks that no folder of images lies beside; left out" for folder in left)
    _refuse_other_channels(fields)
    return fields


def _walk(source: Path, deep: int = DEPTH) -> Iterator[Path]:
    """Yield the source and the folders below it, not those of masks."""
    yield source
    if deep:
        for path in _folders(source):
            if path.name.lower() not in MASK_FOLDERS:
                yield from _walk(path, deep - 1)


def _folders(path: Path) -> list[Path]:
    return [p for p in sorted(path.iterdir()) if p.is_dir() and p.name[0] != "." and p.suffix.lower() != ".zarr"]


def _images(folder: Path) -> list[Name]:
    return [name for p in _files(folder) if p.suffix.lower() in images.TIFF and (name := parse(p))]


def _most(folder: Path) -> bool:
    tiffs = [p for p in folder.iterdir() if p.suffix.lower() in images.TIFF]
    named = sum(parse(p) is not None for p in tiffs)
    return named > 0 and 2 * named > sum(parse(p) is not None or not is_mask(p) for p in tiffs)


def _parts(folder: Path, source: Path) -> tuple[str, ...]:
    return tuple(part for part in folder.relative_to(source).parts if part.lower() not in IMAGE_FOLDERS)


def _shared(plates: list[tuple[str, ...]]) -> int:
    """Return how many folders above the plates tell nothing: those of all, as long as more than dates remain.

    >>> _shared([("run", "P1"), ("run", "P2")]), _shared([("run", "P1", "2026-02-19")]), _shared([("P1",)])
    (1, 1, 0)
    """
    shared = sum(len(set(folders)) == 1 for folders in zip(*plates, strict=False))
    while shared and all(_DATE.fullmatch(part) for plate in plates for part in plate[shared:]):
        shared -= 1
    return shared


def _masks_of(folder: Path, source: Path) -> list[Path]:
    """Return the annotations beside the images, and those of the nearest mask folder that has a place for them.

    `Plate A/` has its masks in `Plate A/masks/`, or in `masks/Plate A/` beside it; so has `Plate A/images/`.
    """
    drawn = [p for p in _files(folder) if is_mask(p) and not parse(p)]
    for above in (folder, *folder.parents):
        for masks in (p for p in _folders(above) if p.name.lower() in MASK_FOLDERS):
            place = masks.joinpath(*_parts(folder, above))
            if place.is_dir() and (inside := _files(place, masks=True)):
                return drawn + inside
        if above == source:
            break
    return drawn


def _mask_folders(source: Path, used: set[Path]) -> Iterator[Path]:
    """Yield the folders of masks that were not used."""
    for folder in _walk(source):
        for masks in (p for p in _folders(folder) if p.name.lower() in MASK_FOLDERS):
            yield from (p for p in _walk(masks) if p not in used and _files(p, masks=True))


def _fields(
    plate: Plate, names: list[Name], drawn: list[Path], options: Options, warnings: list[str]
) -> Iterator[RawField]:
    pairs = _pair([name.path for name in names], drawn, warnings)
    for label, members in sites(names, plate.folder, warnings).items():
        name = f"{plate.name}_{label}" if plate.name else label
        yield _field(name, members, pairs, options, plate.groups, warnings)


def _pair(frames: list[Path], masks: list[Path], warnings: list[str]) -> dict[Path, Path]:
    """Return the annotation of each image: by name, whatever words its channel has, else as in any folder."""
    by_stem = {path.stem.lower(): path for path in frames}
    pairs: dict[Path, Path] = {}
    for mask in masks:
        stems = (mask.stem, without_suffix(mask.stem), bare(mask))
        frame = next((by_stem[stem.lower()] for stem in stems if stem.lower() in by_stem), None)
        if frame is not None:
            pairs.setdefault(frame, mask)
    if not pairs:
        return pair(frames, masks, warnings)
    if spare := sorted(set(masks) - set(pairs.values())):
        warnings.append(f"{spare[0]}: no image of that name without a mask ({len(spare)} such masks); left out")
    return pairs


def _field(
    name: str,
    names: list[Name],
    pairs: dict[Path, Path],
    options: Options,
    groups: dict[str, str],
    warnings: list[str],
) -> RawField:
    """Return one field: its time points in order, each a stack of channels and planes in depth."""
    told = sorted({one.channel for one in names})
    channels = [told[place] for place in depth.choose(name, told, options.channels)]
    kept = [one for one in names if one.channel in channels]
    planes = sorted({one.z for one in kept})
    depth.check(kept[0].path, len(planes), options.z)
    times = sorted({one.time for one in kept})
    _warn_of_gaps(name, times, warnings)
    drawn = _drawn(name, names, [*channels, *(c for c in told if c not in channels)], len(channels), pairs, warnings)
    at = {(one.time, one.channel, one.z): one.path for one in kept}
    files: list[RawFile] = []
    for time in times:
        missing = [f"{c} Z{z}" for c in channels for z in planes if (time, c, z) not in at]
        if missing:
            raise BadInput(f"{names[0].path.parent}: {name} time {time} lacks {missing[0]}; export it again")
        paths = tuple(at[time, channel, z] for channel in channels for z in planes)
        frame = _plane(paths, files[0] if files else None, len(channels))
        drawing = drawings.drawing(drawn[time], frame, paths[0].name) if time in drawn else None
        files.append(RawFile(paths[0].name, frame, paths, partial(_picture, paths, len(planes), options.z), drawing))
    entries = [metadata(file.image) for file in files]
    plate = next((one["Plate"] for one in entries if one.get("Plate")), None)
    groups = ({"plate": plate} if plate else {}) | groups | {"well": names[0].well}
    sizes, moments = [_pixel_size(one) for one in entries], [_moment(one) for one in entries]
    size = sizes[0] if sizes[0] is not None and all(_close(one, sizes[0]) for one in sizes) else None
    return RawField(name, tuple(files), groups, tuple(channels), size, _interval(moments))


def _plane(paths: tuple[Path, ...], first: RawFile | None, channels: int) -> images.Plane:
    """Return what the files of one frame hold together; refuse another size than theirs or the first frame's."""
    heads = [images.header(path) for path in paths]
    known, known_shape = (first.image, first.plane.shape) if first else (paths[0], heads[0].shape)
    for path, head in zip(paths, heads, strict=True):
        if head.shape != known_shape:
            sizes = f"{head.shape[0]} x {head.shape[1]} px, {known.name} of its field"
            raise BadInput(f"{path}: {sizes} {known_shape[0]} x {known_shape[1]}; export all at one size")
    dtype = str(np.result_type(*(head.dtype for head in heads)))
    return replace(heads[0], channels=channels, frames=1, dtype=dtype)


def _drawn(
    name: str, names: list[Name], order: list[str], kept: int, pairs: dict[Path, Path], warnings: list[str]
) -> dict[int, Path]:
    """Return the annotation at each time: that of the first channel in `order` that has one, lowest plane first.

    A warning names what was left out, unless it is of a channel after the first `kept`, which nobody asked for.
    """
    found: dict[int, list[Name]] = defaultdict(list)
    for one in sorted((n for n in names if n.path in pairs), key=lambda n: (order.index(n.channel), n.z)):
        found[one.time].append(one)
    spare = [(mine[0], one) for mine in found.values() for one in mine[1:] if one.channel in order[:kept]]
    if spare:
        taken, left = spare[0]
        warnings.append(f"{name}: masks of {taken} taken; those of {left} left out ({len(spare)} masks)")
    return {time: pairs[mine[0].path] for time, mine in found.items()}


def _warn_of_gaps(name: str, times: list[int], warnings: list[str]) -> None:
    gaps = sorted(set(range(times[0], times[-1] + 1)) - set(times))
    if gaps:
        listed = ", ".join(map(str, gaps[:5])) + " ..." * (len(gaps) > 5)
        warnings.append(f"{name}: no files of time points {listed} ({len(gaps)} missing); its frames close up")


def _refuse_other_channels(fields: list[RawField]) -> None:
    for one in fields:
        if one.channels != fields[0].channels:
            here, first = ", ".join(one.channels), ", ".join(fields[0].channels)
            raise BadInput(
                f"{one.files[0].image.parent}: field {one.name} has channels {here}, {fields[0].name} has {first}; "
                "choose with --channels one that all have, or export the same everywhere"
            )


def _picture(paths: tuple[Path, ...], planes: int, z: str | None) -> Iterator[Picture]:
    """Yield the one frame that these files make: channels, each with its planes in depth."""
    stack, note = [], None
    for path in paths:
        (image, told), *more = images.frames(path)
        if more or len(image) != 1:
            raise BadInput(f"{path}: more than one plane in a Gen5 file; export single planes")
        stack.append(image[0])
        note = note or told
    deep = np.stack(stack).reshape(-1, planes, *stack[0].shape)
    yield depth.flatten(deep, z), note


def metadata(path: Path) -> dict[str, str]:
    """Return the entries of a file's `<BTIImageMetaData>` by name; nothing if it has none."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        text = str(tiff.pages.first.description)
    start = text.find(f"<{METADATA}")
    if start < 0 or "<!DOCTYPE" in text or "<!ENTITY" in text:
        return {}
    with suppress(ElementTree.ParseError):
        root = ElementTree.fromstring(text[start : text.rfind(">") + 1])  # noqa: S314 - without DTD and entities
        return {entry.tag: (entry.text or "").strip() for entry in root.iter()}
    return {}


def _pixel_size(told: dict[str, Any]) -> float | None:
    with suppress(KeyError, ValueError, ZeroDivisionError):
        size = float(told["ImageWidthMicrons"]) / int(told["PixelWidth"])
        return float(f"{size:.6g}") if is_possible(size) else None
    return None


def _moment(told: dict[str, str]) -> datetime | None:
    with suppress(KeyError, ValueError):
        return datetime.strptime(f"{told['Date']} {told['Time']}", "%m/%d/%y %H:%M:%S")  # no zone told
    return None


def _interval(moments: list[datetime | None]) -> float | None:
    """Return the median step in seconds, if every time is told and they go forward."""
    known = [moment for moment in moments if moment is not None]
    if len(known) < 2 or len(known) < len(moments):
        return None
    steps = [(b - a).total_seconds() for a, b in pairwise(known)]
    return statistics.median(steps) if min(steps) > 0 else None


def _close(value: float | None, other: float) -> bool:
    return value is not None and abs(value - other) <= 1e-3 * other
