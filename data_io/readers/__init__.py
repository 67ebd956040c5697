"""Readers: what a file or folder holds, as fields of frames with their annotation.

`raw` what readers hand on, `files` one image file, `drawings` one annotation file, and a reader for each kind of
source: `ome_zarr`, `ctc` (Cell Tracking Challenge), `gen5` (Cytation), `bio` (nd2, czi, lif through bioio) and `folder`
(TIFF and PNG).
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_io.errors import BadInput
from data_io.readers import bio, ctc, folder, gen5, ome_zarr
from data_io.readers.raw import Found, Options, RawField, RawFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Knows = Callable[[Path], bool]
    Read = Callable[[Path, Options, list[str]], list[RawField]]

__all__ = ["MARKER", "READERS", "Found", "Options", "RawField", "RawFile", "find"]

MARKER = "synthetic.json"
GROUPS = "groups.csv"
"""A table in the source: `field`, any of patient, well, plate, condition ..., and `part` (train, val or test)."""

MOST_COLUMNS = 100

READERS: dict[str, tuple[Knows, Read]] = {
    "ome-zarr": (ome_zarr.is_ome_zarr, ome_zarr.read),
    "ctc": (ctc.is_ctc, ctc.read),
    "gen5": (gen5.is_gen5, gen5.read),
    "bioio": (bio.is_bio, bio.read),
    "movie": (folder.is_movie, folder.movie),
    "folder": (folder.is_folder, folder.folder),
}
"""Each reader's question whether it knows a source, and its answer; the first that knows it reads it."""


def find(source: Path, options: Options | None = None) -> Found:
    """Return what a file or folder holds, by the reader asked for or the first that knows it.

    Raises
    ------
    BadInput
        No such source, nothing a reader knows, or names that leave a doubt about which mask belongs to which image.
    """
    options = options or Options()
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give a folder of TIFF or PNG images")
    name = _reader(source, options.reader)
    warnings: list[str] = []
    read = READERS[name][1](source, options, warnings)
    _refuse_names(read)
    _refuse_unused(source, name, options)
    fields = _grouped(source, _named(source, read))
    return Found(name, tuple(fields), _marker(source), tuple(dict.fromkeys(warnings)))


def _refuse_names(fields: list[RawField]) -> None:
    """Refuse files and folders whose names are not UTF-8: they could be written in no table."""
    for path in Found("", tuple(fields), {}).paths():
        if any("\udc80" <= letter <= "\udcff" for letter in str(path)):
            raise BadInput(f"{str(path)!r}: the name is not UTF-8 text; rename the file or folder")


def _refuse_unused(source: Path, name: str, options: Options) -> None:
    """Refuse an option that the reader does not heed: who gives it means something by it."""
    heeded = {
        "--truth": (options.truth != "auto", ("ctc",)),
        "--labels": (options.labels is not None, ("ome-zarr",)),
        "--tiles": (options.tiles is not None, ("folder", "movie")),
    }
    for option, (given, readers) in heeded.items():
        if given and name not in readers:
            raise BadInput(f"{source}: {option} is for {' and '.join(readers)}, this was read by {name}; leave it out")


def _reader(source: Path, wanted: str) -> str:
    if wanted == "auto":
        name = next((name for name, (knows, _) in READERS.items() if knows(source)), None)
        if name is None:
            raise BadInput(f"{source}: neither a file nor a folder; {folder.HOW}")
        return name
    if wanted not in READERS:
        raise BadInput(f"--reader {wanted}: unknown; choose from auto, {', '.join(READERS)}")
    if not READERS[wanted][0](source):
        raise BadInput(f"{source}: not what the reader {wanted} reads; leave --reader out, or choose another")
    return wanted


def _named(source: Path, fields: list[RawField]) -> list[RawField]:
    """Tell fields of one name apart by the folder above theirs.

    Raises
    ------
    BadInput
        That does not tell them apart either.
    """
    names = [one.name for one in fields]
    twice = {name for name in names if names.count(name) > 1}
    told = [replace(one, name=_with_folder(source, one)) if one.name in twice else one for one in fields]
    names = [one.name for one in told]
    if again := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"{source}: two fields are called {again[0]!r}; rename one of their folders")
    return told


def _with_folder(source: Path, field: RawField) -> str:
    """Return the field's name after the folders between the source and it, without those that only say images."""
    parts = [
        part
        for part in field.files[0].image.parent.relative_to(source).parts
        if part.lower() not in folder.IMAGE_FOLDERS and part != field.name
    ]
    return "_".join([*parts, field.name])


def _grouped(source: Path, fields: list[RawField]) -> list[RawField]:
    """Add the groups that `groups.csv` names for the fields."""
    table = source / GROUPS
    if not source.is_dir() or not os.path.lexists(table):
        return fields
    if not table.is_file():
        raise BadInput(f"{table}: a folder, a pipe or a link to nothing, not a table; put the table there or remove it")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except (UnicodeDecodeError, csv.Error) as fault:
        raise BadInput(f"{table}: no table ({fault}); save it as CSV in UTF-8") from fault
    if len(columns) == 1 and {";", "\t"} & set(columns[0]):
        raise BadInput(f"{table}: its columns are not separated by commas; save it as CSV with commas")
    if len(set(columns)) > MOST_COLUMNS:
        raise BadInput(f"{table}: {len(set(columns))} columns; keep field and those of groups, {MOST_COLUMNS} at most")
    if "field" not in columns:
        raise BadInput(f"{table}: has no column field; columns: field and any of {', '.join(folder.GROUPS)}")
    if twice := [name for name, times in Counter(columns).items() if name and times > 1]:
        raise BadInput(f"{table}: two columns are called {twice[0]!r}; keep one of them")
    if not rows or any(row.get("") for row in rows):
        raise BadInput(f"{table}: {'no rows' if not rows else 'cells below a column without a name'}; mend the table")
    told: dict[str, dict[str, str]] = {}
    for row in rows:
        if None in row or None in row.values():
            raise BadInput(f"{table}: the row of {row['field']!r} has not as many cells as the header; mend it")
        if row["field"] in told:
            raise BadInput(f"{table}: field {row['field']!r} has two rows; keep one of them")
        told[row["field"]] = {key: value.strip() for key, value in row.items() if key != "field" and value.strip()}
    if strange := sorted(told.keys() - {one.name for one in fields}):
        known = ", ".join(one.name for one in fields[:5])
        raise BadInput(f"{table}: no field {strange[0]!r}; the fields are {known}{' ...' * (len(fields) > 5)}")
    parts = {name: groups.pop("part", "") for name, groups in told.items()}
    return [replace(one, groups=one.groups | told.get(one.name, {}), part=parts.get(one.name, "")) for one in fields]


def _marker(source: Path) -> dict[str, Any]:
    if not source.is_dir() or not (source / MARKER).is_file():
        return {}
    try:
        facts = json.loads((source / MARKER).read_text())
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"{source / MARKER}: not JSON ({fault}); make the synthetic movies again") from fault
    if not isinstance(facts, dict):
        raise BadInput(f"{source / MARKER}: holds no facts; make the synthetic movies again")
    return facts
