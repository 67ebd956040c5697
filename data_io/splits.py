"""Which frames train, which choose, which are reported: whole fields where there are enough, else stretches of time."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from data_io.errors import BadInput
from data_io.store import FrameRef, Splits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_io.store import Field

SHARED = "the same cells appear in several parts: scores on new movies may be lower"
GAP_FROM = 20
"""Annotated frames from which on one frame is left out at each boundary in time."""
GROUPS = ("patient", "well")
"""Groups that keep fields together without being asked, if there are three of them."""

Lists = tuple[list[FrameRef], list[FrameRef], list[FrameRef]]


def split(fields: Sequence[Field], by: str = "auto") -> Splits:
    """Return the split of all annotated frames; a pure function of the fields' names, groups and annotation.

    Parameters
    ----------
    fields
        All fields, in order.
    by
        "auto": by patient, well or field if there are three of them, else by time. "field", "time" or a group key asks
        for that.

    Raises
    ------
    BadInput
        Fewer than three annotated frames, an unknown group, or fewer than two groups to split by.
    """
    frames = {field.name: [ref for ref in field.refs() if field.annotated[ref.frame]] for field in fields}
    known = [field for field in fields if frames[field.name]]
    total = sum(map(len, frames.values()))
    if total < 3:
        raise BadInput(f"{total} annotated frames; training, validation and test need at least 3: annotate more frames")
    unit = _unit(known, by)
    groups: dict[str, list[Field]] = defaultdict(list)
    for field in known:
        groups[_group(field, unit)].append(field)
    if len(groups) == 1 and by not in ("auto", "time"):
        raise BadInput(f"split by {by}: there is one {by}, a split needs two or more; split by time instead")
    if unit == "time" or len(groups) == 1:
        return _checked(known, _each_in_time(known, frames), "time", [SHARED])
    if len(groups) == 2:
        lists, warnings = _two(*groups.values(), frames=frames, unit=unit)
        return _checked(known, lists, unit, warnings)
    return _checked(known, _by_group(groups, frames), unit, [])


def unsplit() -> Splits:
    """Return the split of a data set without annotation: nothing in any part."""
    return Splits((), (), (), "none")


def in_time(refs: Sequence[FrameRef]) -> Lists:
    """Split one movie: train first, then validation, test last; 10 frames give 6/2/2, 3 give 1/1/1.

    From 20 frames on one frame is left out at each boundary.
    """
    n = len(refs)
    part = max(1, round(0.2 * n))
    gap = int(n >= GAP_FROM)
    train = n - 2 * part - 2 * gap
    return list(refs[:train]), list(refs[train + gap : train + gap + part]), list(refs[n - part :])


def _unit(fields: Sequence[Field], by: str) -> str:
    if by in ("field", "time"):
        return by
    keys = sorted({key for field in fields for key in field.groups})
    if by != "auto":
        if by not in keys:
            raise BadInput(f"split by {by!r}: unknown group; choose from {', '.join(['auto', 'field', 'time', *keys])}")
        return by
    several = [key for key in GROUPS if len({_group(field, key) for field in fields}) >= 3 and key in keys]
    return several[0] if several else "field"


def _group(field: Field, unit: str) -> str:
    return field.name if unit in ("field", "time") else field.groups.get(unit, "unknown")


def _each_in_time(fields: Sequence[Field], frames: dict[str, list[FrameRef]]) -> Lists:
    """Split every movie of three frames or more in time; shorter ones are trained on."""
    lists: Lists = ([], [], [])
    for field in fields:
        refs = frames[field.name]
        parts = _with_cells(refs, field.cells) if len(refs) >= 3 else (refs, [], [])
        for target, part in zip(lists, parts, strict=True):
            target.extend(part)
    return lists


def _with_cells(refs: list[FrameRef], cells: Sequence[int]) -> Lists:
    """Split in time; if a part has no cells then, split the frames with cells and let the empty ones follow."""
    parts = in_time(refs)
    filled = [ref for ref in refs if cells[ref.frame]]
    if len(filled) < 3 or all(any(cells[ref.frame] for ref in part) for part in parts):
        return parts
    _, val, test = in_time(filled)
    gap = int(len(refs) >= GAP_FROM)
    first, second = refs.index(val[0]), refs.index(test[0])
    return refs[: first - gap], refs[first : second - gap], refs[second:]


def _two(
    first: list[Field], second: list[Field], *, frames: dict[str, list[FrameRef]], unit: str
) -> tuple[Lists, list[str]]:
    """Keep the second group for the test; the first gives training and validation, by field or else by time."""
    if sum(len(frames[field.name]) for field in first) < 2 or not any(sum(field.cells) for field in second):
        first, second = second, first
    test = [ref for field in second for ref in frames[field.name]]
    refs = [ref for field in first for ref in frames[field.name]]
    if len(first) > 1:
        last = frames[first[-1].name]
        return (refs[: -len(last)], last, test), [f"two groups by {unit}: training and validation share one of them"]
    part = max(1, round(0.25 * len(refs)))
    gap = int(len(refs) >= GAP_FROM)
    warning = f"two fields: training and validation share {first[0].name}, where {SHARED}"
    return (refs[: len(refs) - part - gap], refs[-part:], test), [warning]


def _by_group(groups: dict[str, list[Field]], frames: dict[str, list[FrameRef]]) -> Lists:
    """Give about 60/20/20 % of the groups, in sorted order and evenly mixed; groups with cells and empty ones apart."""
    filled = sorted(name for name, members in groups.items() if any(sum(field.cells) for field in members))
    empty = sorted(groups.keys() - set(filled))
    parts = _deal(len(filled)) + _deal(len(empty)) if len(filled) >= 3 else _deal(len(groups))
    lists: Lists = ([], [], [])
    for part, name in zip(parts, filled + empty, strict=True):
        lists[part].extend(ref for field in groups[name] for ref in frames[field.name])
    return lists


def _deal(n: int) -> list[int]:
    """Return the part (0 train, 1 validation, 2 test) of each of n groups; below three all are trained on.

    >>> _deal(3), _deal(5), _deal(10)
    ([0, 1, 2], [0, 0, 0, 1, 2], [0, 0, 0, 1, 2, 0, 0, 0, 1, 2])
    """
    fives, rest = divmod(n, 5)
    return [0, 0, 0, 1, 2] * fives + ([0] * rest if rest < 3 else [0] * (rest - 2) + [1, 2])


def _checked(fields: Sequence[Field], lists: Lists, unit: str, warnings: list[str]) -> Splits:
    """Say what a reader of the scores must know: parts without cells."""
    cells = {field.name: field.cells for field in fields}
    for name, refs in zip(("training", "validation", "test"), lists, strict=True):
        if not refs:
            raise BadInput(f"split by {unit}: no frame left for {name}; annotate more frames or split by field")
        if not any(cells[ref.field][ref.frame] for ref in refs):
            warnings.append(f"no cells at all in the {name} frames")
    train, val, test = map(tuple, lists)
    return Splits(train, val, test, unit, tuple(warnings))
