"""File names as Gen5 gives them, and which of them show one field.

`B1_04_2_1_GFP 469,525_003` is well B1, read 04, step 2, field 1, channel GFP, time point 3. A region of a well adds
`ROI1` to the well, a stack in depth `Z0`, `Z1`, ... to the field. Read and step count the channels in some exports and
separate images of one channel in others: `sites` tells which from the names of a whole plate.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_io.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

_WELL = r"^(?P<well>(?:[A-P]|A[A-F])\d{1,2})(?:ROI(?P<roi>\d+))?"
_NAMES = (
    re.compile(
        _WELL + r"_(?P<read>-?\d+)_(?P<step>\d+)_(?P<field>\d+)(?:Z(?P<z>\d+))?_(?P<channel>[^_].*?)_(?P<time>\d{3,})$",
        re.IGNORECASE,
    ),
    re.compile(
        _WELL + r"(?:Z(?P<z>\d+))?_(?P<channel>[A-Z][^_]*)_(?P<read>-?\d+)_(?P<field>\d{3,})_(?P<time>\d{3,})$",
        re.IGNORECASE,
    ),
)
"""Present names, and those of older versions: `A1Z2_Bright Field_1_001_001` (read 1, field 001, time point 001)."""
_STITCHED = re.compile(r"^Stitched\[(.+)\]$", re.IGNORECASE)
_AFTER_TIME = re.compile(r"(_\d{3,})[_\-. ]+\D.*$")


@dataclass(frozen=True)
class Name:
    """What a file name says; numbers that only tell fields apart are kept as written."""

    path: Path
    well: str
    """In capitals."""
    roi: str
    """Region of the well, empty when none is named."""
    read: str
    step: str
    field: str
    channel: str
    z: int
    time: int

    def __str__(self) -> str:
        """Return the channel, and the plane of a stack."""
        return f"{self.channel} Z{self.z}"


def parse(path: Path) -> Name | None:
    """Return what a Gen5 file name says, or None if it is no such name.

    >>> from pathlib import Path
    >>> one = parse(Path("b1_04_2_1Z3_GFP 469,525_012.tif"))
    >>> one.well, one.read, one.step, one.field, one.z, one.channel, one.time
    ('B1', '04', '2', '1', 3, 'GFP 469,525', 12)
    """
    told = next((match for pattern in _NAMES if (match := pattern.match(path.stem))), None)
    if told is None:
        return None
    say = {key: text or "" for key, text in told.groupdict().items()}
    stitched = _STITCHED.match(say["channel"])
    channel = stitched[1] if stitched else say["channel"]
    return Name(
        path, say["well"].upper(), say["roi"], say["read"], say.get("step", ""), say["field"], channel,
        int(say["z"] or 0), int(say["time"]),
    )  # fmt: skip


def without_suffix(stem: str) -> str:
    """Return a mask's name without what follows the time point.

    >>> without_suffix("B1_04_1_1_Label Free_001_cp_masks")
    'B1_04_1_1_Label Free_001'
    """
    return _AFTER_TIME.sub(r"\1", stem)


def sites(names: list[Name], plate: Path, warnings: list[str]) -> dict[str, list[Name]]:
    """Return the files of each field of a plate by the field's name, as short as tells the fields apart.

    Raises
    ------
    BadInput
        Two files for one well, field, channel, plane and time point.
    """
    by_step = _repeats(names)
    by_read = not _reads_are_channels(names, by_step)
    for apart, word in ((by_read, "read"), (by_step, "step")):
        if apart:
            numbers = ", ".join(sorted({getattr(one, word) for one in names}))
            warnings.append(f"{plate}: {word}s {numbers} are separate fields; they may show the same cells")
    found: dict[str, list[Name]] = defaultdict(list)
    seen: dict[tuple[object, ...], Name] = {}
    for one in names:
        parts = [one.well + (f"ROI{one.roi}" if one.roi else "")]
        parts += [one.read] * by_read + [one.step] * by_step + [one.field]
        other = seen.setdefault((*parts, one.channel, one.z, one.time), one)
        if other is not one:
            raise BadInput(f"{one.path}: same well, field, channel and time as {other.path.name}; keep one of them")
        found["_".join(parts)].append(one)
    return found


def _repeats(names: list[Name]) -> bool:
    """Say whether steps repeat one image, else they count channels."""
    with_step = {(one.well, one.roi, one.read, one.field, one.channel, one.z, one.time, one.step) for one in names}
    return len({key[:-1] for key in with_step}) < len(with_step)


def _reads_are_channels(names: list[Name], by_step: bool) -> bool:
    """Say whether every read shows other channels of the same fields at the same times."""
    channels: dict[str, set[str]] = defaultdict(set)
    places: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    for one in names:
        channels[one.channel].add(one.read)
        places[one.read].add((one.well, one.roi, one.field, one.time, one.step if by_step else ""))
    first = places[names[0].read]
    return all(len(reads) == 1 for reads in channels.values()) and all(place == first for place in places.values())
