"""Convert a folder of microscope images and masks into dataset.zarr.

    python -m data_io.convert ../shared/data/yeast_phase_movie yeast.zarr

Everything is looked at before anything is written; the store is built under another name beside OUT and takes its
name only when it is complete. The same command on a finished store does nothing and says so.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import facts, masks, normalise, readers
from data_io import splits as splitting
from data_io.errors import DONE, BadInput, entry_point
from data_io.facts import Written
from data_io.files import building, sha256, slug
from data_io.provenance import provenance
from data_io.store import Dataset, Field, Splits, Writer, is_store
from data_io.survey import Survey, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Progress = Callable[[int, int, str], None]


def convert(
    source: Path | str,
    out: Path | str,
    *,
    annotations: bool = True,
    pixel_size_um: float | None = None,
    frame_interval_s: float | None = None,
    split_by: str = "auto",
    progress: Progress | None = None,
) -> Dataset:
    """Convert `source` into the store `out` and open it; only open it if it is already there from the same source.

    Parameters
    ----------
    source
        Folder or multi-page TIFF (see `readers`), or a finished store, which is opened as it is.
    out
        The store to make.
    annotations
        False: frames without masks are what is wanted (prediction); masks found are kept, nothing is split.
    pixel_size_um, frame_interval_s
        Micrometres per pixel, seconds per frame; None: as ImageJ or OME metadata of the files say, else unknown.
    split_by
        "auto", "field", "time" or a group key; see `splits.split`.
    progress
        Called as (frames done, frames in all, name of the field).

    Raises
    ------
    BadInput
        Anything wrong with the source, or `out` holds something else. Nothing is left on disk.
    """
    source, out = Path(source), Path(out)
    if source.is_dir() and is_store(source):
        return Dataset.open(source)
    options: dict[str, Any] = {"annotations": annotations, "pixel_size_um": pixel_size_um}
    options |= {"frame_interval_s": frame_interval_s, "split_by": split_by}
    _check_sizes(options)
    found = readers.find(source)
    origin = {"path": str(source), "reader": found.reader, "files": _fingerprint(found, source), "options": options}
    if out.exists():
        return _same(out, origin)
    surveys = [survey(raw) for raw in found.fields]
    _check_set(source, surveys, annotations)
    fields = [_describe(one, options, found.facts) for one in surveys]
    splits = splitting.split(fields, split_by) if annotations else splitting.unsplit()
    with building(out) as partial:
        writer = Writer(partial)
        show = _counted(progress, sum(field.n_frames for field in fields))
        written = [_write_field(writer, one, field, show) for one, field in zip(surveys, fields, strict=True)]
        _finish(writer, found, written, splits, origin)
    return Dataset.open(out)


def _write_field(writer: Writer, survey: Survey, field: Field, show: Callable[[str], None]) -> Written:
    """Write a field frame by frame, measuring each on the way."""
    image, truth = writer.field(field)
    percentiles, digests = [], []
    areas: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    before, shared, stayed, grey = None, 0, 0, False
    for at, frame in enumerate(survey.frames()):
        digests.append(writer.frame(image, at, frame.image))
        percentiles.append(normalise.percentiles(frame.image))
        grey |= frame.grey
        if frame.labels is None:
            areas.append(np.zeros(0, np.int64))
        else:
            writer.frame(truth, at, frame.labels)
            areas.append(np.unique_counts(frame.labels[frame.labels > 0]).counts)
            lengths.append(masks.lengths(frame.labels))
            common, same = (0, 0) if before is None else masks.kept(before, frame.labels)
            shared, stayed, before = shared + common, stayed + same, frame.labels
        show(field.name)
    tracked = field.tracked or (field.annotation == masks.LABELS and masks.follow_cells(shared, stayed))
    limits = tuple(tuple((float(low), float(high)) for low, _, high in one) for one in percentiles)
    field = replace(field, cells=tuple(map(len, areas)), percentiles=limits, tracked=tracked)
    nothing = np.zeros(0, np.int64)
    return Written(field, percentiles, np.concatenate(areas), np.concatenate([nothing, *lengths]), grey, digests)


def _finish(
    writer: Writer, found: readers.Found, written: list[Written], splits: Splits, origin: dict[str, Any]
) -> None:
    """Write what is known of all fields together: split, normalisation, recommendation, warnings."""
    warnings = [*found.warnings, *facts.warnings(written, origin["options"]["annotations"]), *splits.warnings]
    source = Path(origin["path"]).resolve()
    writer.finish(
        fields=[one.field for one in written],
        splits=splits,
        normalisation=facts.normalisation(written, splits),
        facts={
            "name": source.stem if source.is_file() else source.name,
            "synthetic": bool(found.facts.get("synthetic")),
            "warnings": warnings,
            "recommended": facts.recommend(written, splits),
            "source": origin,
            "provenance": provenance(),
        },
    )


def _describe(survey: Survey, options: dict[str, Any], marker: dict[str, Any]) -> Field:
    """Return what is known of a field before its pixels are read; `cells` are then the values in each mask."""
    plane = survey.plane
    return Field(
        name=survey.raw.name,
        slug=slug(survey.raw.name),
        n_frames=len(survey.sources),
        channels=tuple(f"channel_{i + 1}" for i in range(plane.channels)),
        shape=plane.shape,
        dtype=survey.dtype,
        pixel_size_um=options["pixel_size_um"] or survey.scale("pixel_size_um"),
        frame_interval_s=options["frame_interval_s"] or survey.scale("frame_interval_s"),
        groups=dict(survey.raw.groups),
        annotated=survey.annotated,
        cells=survey.drawn,
        sources=survey.sources,
        percentiles=(),
        tracked=bool(marker.get("tracked")),
        annotation=survey.annotation,
    )


def _check_sizes(options: dict[str, Any]) -> None:
    for name in ("pixel_size_um", "frame_interval_s"):
        value = options[name]
        if value is not None and not (math.isfinite(value) and value > 0):
            raise BadInput(f"{name}: {value} is not a positive number; give it in its unit, or leave it out if unknown")


def _check_set(source: Path, surveys: Sequence[Survey], annotations: bool) -> None:
    """Refuse a set that no store can be made from."""
    channels = {one.plane.channels: one.raw.files[0].image for one in surveys}
    if len(channels) > 1:
        (few, a), (many, b) = sorted(channels.items())[:2]
        raise BadInput(f"{b}: {many} channels, {a.name} has {few}; export the same channels everywhere")
    slugs: dict[str, str] = {}
    for one in surveys:
        other = slugs.setdefault(slug(one.raw.name).lower(), one.raw.name)
        if other != one.raw.name:
            raise BadInput(f"{source}: fields {other!r} and {one.raw.name!r} are the same as file names; rename one")
    if annotations and not any(any(one.annotated) for one in surveys):
        raise BadInput(f"{source}: no masks at all; add label images in masks/, named like their images")
    if annotations and not any(one.values for one in surveys):
        raise BadInput(f"{source}: all masks are empty; annotate some cells")


def _same(out: Path, origin: dict[str, Any]) -> Dataset:
    """Open a finished store if it was made from this source in this way."""
    dataset = Dataset.open(out)
    made = dataset.facts["source"]
    if made["files"] != origin["files"]:
        raise BadInput(f"{out}: holds another data set ({made['path']}, or before it changed); choose another name")
    for name, value in origin["options"].items():
        if made["options"][name] != value:
            was = made["options"][name]
            raise BadInput(f"{out}: was converted with {name}={was}, not {value}; choose another name or remove it")
    return dataset


def _fingerprint(found: readers.Found, source: Path) -> str:
    """Return a hash over the names and contents of all files read."""
    root = source if source.is_dir() else source.parent
    for path in found.paths():
        if any("\udc80" <= letter <= "\udcff" for letter in str(path)):
            raise BadInput(f"{str(path)!r}: the name is not UTF-8 text; rename the file")
    lines = [f"{path.relative_to(root).as_posix()} {sha256(path)}" for path in found.paths()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def summary(dataset: Dataset) -> str:
    """Return what a store holds, in a few lines."""
    fields = list(dataset.fields.values())
    sizes = sorted({f"{f.shape[0]} x {f.shape[1]} px {f.dtype}{_pixel(f)}" for f in fields})
    frames = sum(f.n_frames for f in fields)
    kinds = ", ".join(sorted({f.annotation for f in fields}))
    lines = [
        f"{dataset.path}: {len(fields)} field{'s' * (len(fields) > 1)}, {frames} frames, {facts.some(sizes)}",
        f"  {kinds}: {sum(sum(f.cells) for f in fields)} cells; recommended crop {dataset.recommended['crop']} px",
    ]
    if dataset.splits.unit != "none":
        parts = ", ".join(f"{part} {len(dataset.frames(part))}" for part in ("train", "val", "test"))
        lines.append(f"  split by {dataset.splits.unit}: {parts} frames")
    return "\n".join([*lines, *(f"warning: {text}" for text in dataset.warnings)])


def _pixel(field: Field) -> str:
    return f" of {field.pixel_size_um:g} um" if field.pixel_size_um else ""


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    text = "Convert a folder of microscope images and masks into dataset.zarr (OME-Zarr 0.5)."
    example = "example: python -m data_io.convert ../shared/data/yeast_phase_movie yeast.zarr --pixel-size 0.16"
    parser = argparse.ArgumentParser("python -m data_io.convert", description=text, epilog=example)
    parser.add_argument("source", type=Path, help="folder of TIFF or PNG frames and masks, or a multi-page TIFF")
    parser.add_argument("out", type=Path, help="the store to make, such as dataset.zarr")
    parser.add_argument("--no-masks", action="store_true", help="frames without annotation, for prediction only")
    parser.add_argument("--pixel-size", type=float, metavar="UM", help="micrometres per pixel (default: as files say)")
    parser.add_argument("--frame-interval", type=float, metavar="S", help="seconds per frame (default: as files say)")
    parser.add_argument("--split-by", default="auto", metavar="WHAT", help="auto, field, time or a group such as well")
    given = parser.parse_args(argv)
    finished = given.out.exists()
    dataset = convert(
        given.source,
        given.out,
        annotations=not given.no_masks,
        pixel_size_um=given.pixel_size,
        frame_interval_s=given.frame_interval,
        split_by=given.split_by,
        progress=_show,
    )
    if finished or dataset.path != given.out:
        print("already converted, nothing to do")
    print(summary(dataset))
    return DONE


def _counted(progress: Progress | None, total: int) -> Callable[[str], None]:
    """Return a function that counts the frames of all fields and reports each."""
    done = 0

    def show(field: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, field)

    return show


def _show(done: int, total: int, field: str) -> None:
    """Show progress: one line that renews itself on a terminal, a line every tenth in a log."""
    line = f"converting {done}/{total} frames ({field})"
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="" if done < total else "\n", file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 10) == 0:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    entry_point(main)
