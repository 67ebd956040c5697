"""Which frames train, which choose, which are reported: whole fields where there are enough, else stretches of time."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from data_io.errors import BadInput
from data_io.store import PARTS, FrameRef, Splits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from data_io.store import Field

SHARED = "the same cells appear in several parts: scores on new movies may be lower"
GAP_FROM = 20
"""Annotated frames from which on one frame is left out at each boundary in time."""
GROUPS = ("patient", "well")
"""Groups that keep fields together without being asked, if there are three of them."""

Lists = tuple[list[FrameRef], list[FrameRef], list[FrameRef]]


def split(fields: Sequence[Field], by: str = "auto", parts: Mapping[str, str] | None = None) -> Splits:
    """Return the split of all annotated frames; a pure function of the fields' names, groups and annotation.

    Parameters
    ----------
    fields
        All fields, in order.
    by
        "auto": by patient, well or field if there are three of them, else by time. "field", "time" or a group key asks
        for that.
    parts
        The part of each field, where the user says it; then nothing is dealt out, and a group asked for with `by` must
        not lie in two parts.

    Raises
    ------
    BadInput
        Fewer than three annotated frames, an unknown group, fewer than two groups to split by, or a group in two parts.
    """
    known, frames = _annotated(fields)
    if parts:
        return _as_told(known, frames, by, parts)
    unit = _unit(known, by)
    groups = _groups(known, unit)
    if len(groups) == 1 and by not in ("auto", "time"):
        raise BadInput(f"split by {by}: there is one {by}, a split needs two or more; split by time instead")
    if unit == "time" or len(groups) == 1:
        return _checked(known, _each_in_time(known, frames), "time", [SHARED])
    if len(groups) == 2:
        lists, warnings = _two(*groups.values(), frames=frames, unit=unit)
        return _checked(known, lists, unit, warnings)
    return _checked(known, _by_group(groups, frames), unit, [])


def folds(fields: Sequence[Field], by: str, k: int) -> tuple[Splits, ...]:
    """Return k splits over whole groups: every group is tested once and validated on once.

    In fold i the groups dealt to share i are the test, those of share i + 1 choose, the others train.

    Parameters
    ----------
    fields
        All fields, in order.
    by
        "auto", "field" or a group key; time has no groups.
    k
        Number of folds, 3 or more.

    Raises
    ------
    BadInput
        Fewer than 3 folds, fewer groups than folds, or a split by time.
    """
    known, frames = _annotated(fields)
    unit = _unit(known, by)
    if unit == "time":
        raise BadInput("--folds: one movie cut in time has no groups to deal out; give more fields, or leave folds out")
    groups = _groups(known, unit)
    if len(groups) < 3:
        raise BadInput(f"--folds {k}: 3 groups or more are needed, not {len(groups)} by {unit}; leave folds out")
    if k < 3 or len(groups) < k:
        raise BadInput(
            f"--folds {k}: 3 or more are needed, and no more than groups ({len(groups)} by {unit}); give another number"
        )
    shares: list[list[FrameRef]] = [[] for _ in range(k)]
    filled = sorted(groups, key=lambda name: (not any(sum(f.cells) for f in groups[name]), name))
    for at, name in enumerate(filled):
        shares[at % k].extend(ref for field in groups[name] for ref in frames[field.name])
    found = []
    for i in range(k):
        train = [ref for j in range(k) if j not in (i, (i + 1) % k) for ref in shares[j]]
        found.append(_checked(known, (train, shares[(i + 1) % k], shares[i]), unit, []))
    return tuple(found)


def _annotated(fields: Sequence[Field]) -> tuple[list[Field], dict[str, list[FrameRef]]]:
    """Return the fields with annotated frames, and those frames."""
    frames = {field.name: [ref for ref in field.refs() if field.annotated[ref.frame]] for field in fields}
    total = sum(map(len, frames.values()))
    if total < 3:
        raise BadInput(
            f"{total} annotated frames; training, validation and test need at least 3: "
            "annotate more, or cut a mosaic with --tiles RxC"
        )
    return [field for field in fields if frames[field.name]], frames


def _groups(fields: Sequence[Field], unit: str) -> dict[str, list[Field]]:
    groups: dict[str, list[Field]] = defaultdict(list)
    for field in fields:
        groups[_group(field, unit)].append(field)
    return groups


def _as_told(fields: list[Field], frames: dict[str, list[FrameRef]], by: str, parts: Mapping[str, str]) -> Splits:
    """Return the split the user wrote down, field by field."""
    if by == "time":
        raise BadInput("split by time, but parts are written down for the fields; leave out one of the two")
    if strange := sorted(set(parts.values()) - set(PARTS)):
        raise BadInput(f"part {strange[0]!r}: unknown; choose from {', '.join(PARTS)}")
    if missing := [field.name for field in fields if field.name not in parts]:
        raise BadInput(f"field {missing[0]!r}: has no part; give train, val or test to every annotated field")
    unit = "field" if by == "auto" else _unit(fields, by)
    for name, members in _groups(fields, unit).items():
        places = sorted({parts[field.name] for field in members})
        if len(places) > 1:
            raise BadInput(f"split by {unit}: {unit} {name!r} lies in {' and '.join(places)}; keep it in one part")
    lists: Lists = ([], [], [])
    for field in fields:
        lists[PARTS.index(parts[field.name])].extend(frames[field.name])
    return _checked(fields, lists, unit, [])


def _shared(fields: Sequence[Field], lists: Lists, unit: str) -> list[str]:
    """Name the patients and wells that lie in several parts although fields are kept apart."""
    if unit == "time":
        return []
    told = []
    part_of = {ref.field: name for name, refs in zip(PARTS, lists, strict=True) for ref in refs}
    for key in sorted({key for field in fields for key in field.groups if key in GROUPS and key != unit}):
        parts: dict[str, set[str]] = defaultdict(set)
        for field in fields:
            if key in field.groups and field.name in part_of:
                parts[_group(field, key)].add(part_of[field.name])
        if both := sorted(value for value, where in parts.items() if len(where) > 1):
            told.append(
                f"{key} {both[0]} appears in several parts ({len(both)} such): scores on a new {key} may be lower"
            )
    return told


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
        if without := [field.name for field in fields if by not in field.groups]:
            raise BadInput(f"split by {by}: {by} of field {without[0]!r} is unknown; add it to groups.csv")
        return by
    several = [key for key in GROUPS if len({_group(field, key) for field in fields}) >= 3 and key in keys]
    return several[0] if several else "field"


def _group(field: Field, unit: str) -> str:
    if unit in ("field", "time"):
        return field.name
    plate = f"{field.groups['plate']} " if unit == "well" and "plate" in field.groups else ""
    return plate + field.groups.get(unit, "unknown")


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
    warnings += _shared(fields, lists, unit)
    train, val, test = map(tuple, lists)
    return Splits(train, val, test, unit, tuple(warnings))
