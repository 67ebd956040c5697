"""Methods or conditions from loose files: label images and tables of cells of any program.

{"cellpose": Path("masks/"), "trackmate": Path("spots.csv")} and a truth: the same frames, seen by both
{"small": Path("a.csv"), "large": Path("b.csv")} by condition: other samples, compared on replicates
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.cells_input import is_table, read_cells, refuse_header
from analysis.label_input import FIELD, LabelImages, paired, read_labels
from analysis.samples import MOST_MISSING, TRAITS, TRUTH, Study, only, tidy
from data_io.errors import BadInput, printable
from data_io.progress import show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

    from analysis.matching import Labels
    from analysis.samples import Key


def from_paths(
    paths: Mapping[str, Path], truth: Path | None = None, by: str = "", *, method: str = "", allow_missing: bool = False
) -> Study:
    """Read label images, stacks, folders of them, cells tables (CSV, parquet) or runs, one per method.

    Of a run the method of that name is read. Frames without file names are numbered from 0. Cells of label images are
    measured here, and followed over the frames of a field by their overlap.

    Parameters
    ----------
    paths, truth
        Where the methods, and the annotation, are.
    by
        Column of conditions to compare. Where no table holds two of them, every path is a condition of its own.
    method
        Which method of a run to read, where the names of `paths` are conditions.
    allow_missing
        Go on where a method lacks more than `MOST_MISSING` of the frames.

    Raises
    ------
    BadInput
        When a path cannot be read, frames do not fit together, or a table lacks the columns needed.
    """
    if by in ("method", "frame", "label"):
        raise BadInput(f"--by {by}: no condition; name a column that says how samples were treated")
    tables_of = {name: _in_run(path) for name, path in paths.items()}
    if by and not truth and len(paths) > 1 and not any(_holds_conditions(path, by) for path in tables_of.values()):
        return _conditions(tables_of, by, method)
    named = {**({TRUTH: truth} if truth else {}), **paths}
    everything = {name: _in_run(path, name) for name, path in named.items()}
    images, notes = _paired_images({name: path for name, path in everything.items() if not is_table(path)})
    read = {name: read_cells(path, name) for name, path in everything.items() if is_table(path)}
    tables, told = _one_estimator({**{name: _measure(found) for name, found in images.items()}, **read})
    tables, images = _one_field(tables, images)
    held = {
        name: set(images[name].frames) if name in images else set(zip(table["field"], table["frame"], strict=True))
        for name, table in tables.items()
    }
    frames, missing = _shared_frames(everything, held, set(images), allow_missing, by)
    study = Study(
        cells=tidy(pd.concat([table.assign(method=name) for name, table in tables.items()], ignore_index=True)),
        methods=tuple(paths),
        has_truth=truth is not None,
        frames=frames,
        labels={name: _reader(found) for name, found in images.items()},
        warnings=(*notes, *told, *missing),
        by=by,
    )
    return only(study, frames)


def _in_run(path: Path, method: str = "") -> Path:
    """Return what to read of a run: the label stack of a method, else its table; any other path as it is."""
    if not (path / "run.json").is_file():
        return path
    stack, table = path / "labels" / f"{method}.tif", path / "cells.parquet"
    if not table.is_file():
        raise BadInput(f"{table}: no such file; run `python -m postprocess.run {path}` first")
    return stack if method and stack.is_file() else table


def _holds_conditions(path: Path, by: str) -> bool:
    """Tell whether a table has a column with two conditions or more."""
    import pyarrow.parquet

    if not is_table(path) or not path.is_file():
        return False
    try:
        if path.suffix.lower() == ".parquet":
            held = by in pyarrow.parquet.read_schema(path).names
            return held and pd.read_parquet(path, columns=[by])[by].nunique() > 1
        refuse_header(path)
        return by in pd.read_csv(path, nrows=0) and pd.read_csv(path, usecols=[by])[by].nunique() > 1
    except (ValueError, OSError):
        return False  # reading all of it says what is wrong


def _conditions(paths: Mapping[str, Path], by: str, method: str) -> Study:
    """Every path is a condition of its own: other samples, other cells."""
    images = {name: read_labels(path) for name, path in paths.items() if not is_table(path)}
    tables = {name: _measure(images[name]) for name in images}
    tables |= {name: read_cells(path, method or name, paired=False) for name, path in paths.items() if is_table(path)}
    tables, told = _one_estimator({name: tables[name] for name in paths})
    cells = [table.assign(method=name, **{by: name}) for name, table in tables.items()]
    together = tidy(pd.concat(cells, ignore_index=True))
    notes = [note for found in images.values() for note in found.notes]
    return Study(
        cells=together,
        methods=tuple(paths),
        has_truth=False,
        frames=tuple(dict.fromkeys(zip(together["field"], together["frame"], strict=True))),
        warnings=(*notes, *told),
        by=by,
        independent=True,
    )


def _paired_images(paths: Mapping[str, Path]) -> tuple[dict[str, LabelImages], list[str]]:
    """Read label images and give the frames of all the keys of the first, which is the truth where there is one."""
    found = {name: read_labels(path) for name, path in paths.items()}
    first = next(iter(found.values()), None)
    for name, images in found.items():
        if first is not None and images is not first:
            found[name] = paired(first, images)
    return found, [note for images in found.values() for note in images.notes]


def _measure(images: LabelImages) -> pd.DataFrame:
    """Measure all cells and follow them over the frames of each field by overlap."""
    from postprocess.morphology import measure
    from postprocess.track import Linker

    parts, linkers = [], {name: Linker() for name in images.fields}
    for done, ((name, number), labels) in enumerate(images.frames.items(), start=1):
        show(f"measuring {printable(images.path.name)}", done, len(images.frames), "frames")
        cells = measure(labels, None, None)
        tracks = linkers[name].step(number, labels)
        parts.append(cells.assign(field=name, frame=number, track=[float(tracks[i]) for i in cells["label"]]))
    found = pd.concat(parts, ignore_index=True)
    found.attrs = {"estimator": "", "unit": "px"}
    return found


def _one_estimator(tables: Mapping[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Measure all methods alike: where one comes from TrackMate, its measures are taken of the others too."""
    facts = {name: dict(table.attrs) for name, table in tables.items()}
    kinds, units = ({fact[what] for fact in facts.values()} for what in ("estimator", "unit"))
    if len(units) > 1:
        odd = next(name for name, fact in facts.items() if fact["unit"] != "px")
        raise BadInput(
            f"{odd}: lengths are in {facts[odd]['unit']}, those of other methods in pixels; export it with a pixel "
            "size of 1 pixel, or give its label images"
        )
    notes = [] if units <= {"px"} else [f"lengths are in {units.pop()}, wherever px is written"]
    if len(kinds) < 2:
        return dict(tables), notes
    lacking = []
    changed = dict(tables)
    for name, table in tables.items():
        if facts[name]["estimator"] == "trackmate":
            continue
        theirs = {f"{trait}_trackmate": column for trait, column in TRAITS.items() if f"{trait}_trackmate" in table}
        if "trackmate" in kinds and theirs and facts[name]["estimator"] == "":
            changed[name] = table.drop(columns=list(theirs.values()), errors="ignore").rename(columns=theirs)
        else:
            lacking.append(name)
    if len(lacking) < len(tables) - sum(fact["estimator"] == "trackmate" for fact in facts.values()):
        notes.append("traits of all methods are TrackMate's, since one of them was measured by it")
    if lacking:
        notes.append(
            f"{', '.join(lacking)} was measured in another way than the rest: part of a difference in perimeter, "
            "circularity, solidity or shape index is that of the measure"
        )
    return changed, notes


def _one_field(
    tables: dict[str, pd.DataFrame], images: dict[str, LabelImages]
) -> tuple[dict[str, pd.DataFrame], dict[str, LabelImages]]:
    """Give a single field one name in all sources, where each has but one."""
    names = {name: set(table["field"].astype(str)) | set(_fields_of(images, name)) for name, table in tables.items()}
    if any(len(fields) > 1 for fields in names.values()):
        return tables, images
    called = [field for fields in names.values() for field in fields]
    common = next((field for field in called if field != FIELD), FIELD)
    tables = {name: table.assign(field=common) for name, table in tables.items()}
    return tables, {name: found.in_field(common) for name, found in images.items()}


def _fields_of(images: Mapping[str, LabelImages], name: str) -> list[str]:
    return images[name].fields if name in images else []


def _shared_frames(
    paths: Mapping[str, Path], held: Mapping[str, set[Key]], images: Set[str], allow_missing: bool, by: str
) -> tuple[tuple[Key, ...], list[str]]:
    """Return the frames to compare, in order, and what is to be said of those that a method lacks."""
    filled = {name: frames for name, frames in held.items() if frames}
    if not filled:
        return (), []
    reference = filled[TRUTH] if TRUTH in filled else set().union(*filled.values())
    first = next(iter(filled))
    notes, kept = [], reference
    for name, frames in filled.items():
        if not frames & filled[first]:
            apart = f"give tables without the column {by}" if by else "say so with --by condition"
            raise BadInput(
                f"{paths[name]}: no frame in common with {paths[first]}; methods are compared on the same frames, and "
                f"where the files are conditions, {apart}"
            )
    for name, frames in filled.items():
        if beyond := len(frames - reference):
            notes.append(f"{name}: {beyond} of its {len(frames)} frames have no truth and were left out")
        lost = reference - frames
        share = len(lost) / len(reference)
        if share > MOST_MISSING and not allow_missing:
            raise BadInput(
                f"{paths[name]}: no cells in {len(lost)} of {len(reference)} frames ({100 * share:.0f} %), more than "
                f"{100 * MOST_MISSING:.0f} %: frames that failed are no random sample; add them, or go on with "
                "--allow-missing"
            )
        if lost and name in images:
            kept = kept - lost
            notes.append(f"{name}: no label image for {len(lost)} of {len(reference)} frames; left out for all methods")
        elif lost:
            notes.append(f"{name}: no cells in {len(lost)} of {len(reference)} frames, counted as frames without cells")
    return tuple(sorted(kept)), notes


def _reader(images: LabelImages) -> Callable[[str, int], Labels]:
    return lambda name, frame: images.frames[name, frame]


def parse_method(text: str) -> tuple[str, Path]:
    """Split a command-line METHOD=PATH into the name and an existing path; anything else raises BadInput."""
    name, _, path = text.partition("=")
    if not path or not re.fullmatch(r"[\w .+-]{1,60}", name):
        raise BadInput(f"{text!r}: not METHOD=PATH; write for example cellpose=masks.tif")
    if name == TRUTH:
        raise BadInput("method 'truth': the name is taken; give the ground truth with --truth PATH")
    if not Path(path).exists():
        raise BadInput(f"{path}: no such file or folder; check the path given for {name}")
    return name, Path(path)
