"""Gen5 exports of BioTek Cytation and Lionheart microscopes: one TIFF per well, field, channel and time point.

`B1_04_1_1_Bright Field_001.tif` is well B1, read 04, step 1, field 1, channel Bright Field, time point 1; a stack in
depth adds `Z0`, `Z1`, ... to the field. Each TIFF carries a `<BTIImageMetaData>` document in its ImageDescription:
the pixel size is ImageWidthMicrons / PixelWidth, the frame interval the median step between the times of acquisition.
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
from data_io.errors import BadInput
from data_io.readers import drawings
from data_io.readers.folder import IMAGE_FOLDERS, MASK_FOLDERS, _files, group_of, is_mask, pair
from data_io.readers.raw import RawField, RawFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from data_io.readers.raw import Options, Picture

NAME = re.compile(
    r"^(?P<well>[A-Z]{1,2}\d{1,2})_(?P<read>-?\d+)_(?P<step>\d+)_(?P<field>\d+)(?:Z(?P<z>\d+))?_"
    r"(?P<channel>[^_].*?)_(?P<time>\d{3,})$"
)
METADATA = "BTIImageMetaData"
_SITE = ("well", "read", "step", "field")


@dataclass(frozen=True)
class Name:
    """What a file name says."""

    site: tuple[str, ...]
    """Well, read, step and field."""
    channel: str
    z: int
    time: int
    path: Path


def parse(path: Path) -> Name | None:
    """Return what a Gen5 file name says, or None if it is no such name."""
    told = NAME.match(path.stem)
    if told is None:
        return None
    return Name(tuple(told[key] for key in _SITE), told["channel"], int(told["z"] or 0), int(told["time"]), path)


def is_gen5(source: Path) -> bool:
    """Say whether most TIFF files of a folder, or of its sub-folders, have names as Gen5 gives them."""
    return source.is_dir() and any(_most(folder) for folder in (source, *_below(source)))


def read(source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    """Read the exports of one plate, or of several, each in a folder of its own.

    Raises
    ------
    BadInput
        A time point, channel or plane of a field is missing, or depth is not chosen.
    """
    fields: list[RawField] = []
    for folder in (source, *_below(source)):
        if _most(folder):
            fields += _plate(folder, source, options, warnings)
    return fields


def _below(source: Path) -> list[Path]:
    """Return the folders one and two levels down that may hold images, not those of masks."""
    deep = [p for p in sorted(source.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    deep += [q for p in deep for q in sorted(p.iterdir()) if q.is_dir() and not q.name.startswith(".")]
    return [p for p in deep if p.name.lower() not in MASK_FOLDERS]


def _most(folder: Path) -> bool:
    tiffs = [p for p in folder.iterdir() if p.suffix.lower() in images.TIFF and not is_mask(p)]
    return bool(tiffs) and 2 * sum(parse(p) is not None for p in tiffs) > len(tiffs)


def _plate(folder: Path, source: Path, options: Options, warnings: list[str]) -> list[RawField]:
    here = _files(folder)
    named = [name for path in here if not is_mask(path) and (name := parse(path))]
    if others := [p for p in here if not is_mask(p) and parse(p) is None]:
        warnings.append(f"{others[0]}: not named by Gen5 ({len(others)} such files); left out")
    home = folder.parent if folder.name.lower() in IMAGE_FOLDERS and folder != source else folder
    beside = next((p for p in sorted(home.iterdir()) if p.is_dir() and p.name.lower() in MASK_FOLDERS), None)
    drawn = _files(beside, masks=True) if beside else [p for p in here if is_mask(p)]
    sites: dict[tuple[str, ...], list[Name]] = defaultdict(list)
    for name in named:
        sites[name.site].append(name)
    shown = [at for at in range(len(_SITE)) if at in (0, 3) or len({site[at] for site in sites}) > 1]
    pairs = pair([name.path for name in named], drawn, warnings) if drawn else {}
    plate = None if home == source else home.name
    found = []
    for site, names in sites.items():
        label = "_".join(site[at] for at in shown)
        found.append(_field(f"{plate}_{label}" if plate else label, names, pairs, options, plate))
    return found


def _field(name: str, names: list[Name], pairs: dict[Path, Path], options: Options, plate: str | None) -> RawField:
    """Return one field: its time points in order, each a stack of channels and planes in depth."""
    told = sorted({one.channel for one in names})
    channels = [told[place] for place in depth.choose(name, told, options.channels)]
    planes = sorted({one.z for one in names})
    at = {(one.time, one.channel, one.z): one.path for one in names}
    depth.check(names[0].path, len(planes), options.z)
    files, moments, sizes = [], [], []
    for time in sorted({one.time for one in names}):
        missing = [f"{c} Z{z}" for c in channels for z in planes if (time, c, z) not in at]
        if missing:
            raise BadInput(f"{names[0].path.parent}: {name} time {time} lacks {missing[0]}; export it again")
        paths = tuple(at[time, channel, z] for channel in channels for z in planes)
        head = images.header(paths[0])
        if any(images.header(path).shape != head.shape for path in paths[1:]):
            raise BadInput(f"{paths[0]}: its channels have different sizes; export them again")
        mask = next((pairs[one.path] for one in names if one.time == time and one.path in pairs), None)
        frame = replace(head, channels=len(channels), frames=1)
        drawing = drawings.drawing(mask, frame, paths[0].name) if mask else None
        files.append(RawFile(paths[0].name, frame, paths, partial(_picture, paths, len(planes), options.z), drawing))
        entries = metadata(paths[0])
        moments.append(_moment(entries))
        sizes.append(_pixel_size(entries))
        plate = plate or entries.get("Plate")
    well = names[0].site[0]
    groups = ({"plate": plate} if plate else {}) | {"well": well} | group_of(names[0].path.parent.name)
    size = sizes[0] if sizes[0] is not None and all(_close(one, sizes[0]) for one in sizes) else None
    return RawField(name, tuple(files), groups, tuple(channels), size, _interval(moments))


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
        return float(f"{size:.6g}") if 0 < size < float("inf") else None
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
