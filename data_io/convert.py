"""Convert a folder of microscope images and masks into dataset.zarr.

    python -m data_io.convert ../shared/data/yeast_phase_movie yeast.zarr

Everything is looked at before anything is written; the store is built under another name beside OUT and takes its
name only when it is complete. The same command on a finished store does nothing and says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import facts, ngff, readers
from data_io.command_line import Parser
from data_io.errors import DONE, BadInput, disk_full, entry_point, is_disk_full, printable
from data_io.files import building, sha256
from data_io.intake import NORMALISATIONS, Intake, Measured, Settings, measure_field, take_in
from data_io.integrity import is_taken
from data_io.job_folder import refuse_lost
from data_io.location import check_bucket, located
from data_io.progress import show
from data_io.provenance import provenance
from data_io.readers import Options
from data_io.store import Dataset, Writer, is_store, splits_as_facts, store_around

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from data_io.store import Field
    from data_io.survey import Frame, Survey

    Progress = Callable[[int, int, str], None]


def convert(
    source: Path | str,
    out: Path | str,
    settings: Settings | None = None,
    *,
    ome_zarr: str = ngff.DEFAULT,
    progress: Progress | None = None,
) -> Dataset:
    """Convert `source` into the store `out` and open it; only open it if it is already there from the same source.

    Parameters
    ----------
    source
        Whatever a reader knows (see `readers`), or a finished store, which is opened as it is.
    out
        The store to make: a folder, or s3://bucket/name.
    settings
        What is said about the source; by default nothing.
    ome_zarr
        "0.5", or "0.4" for programs that do not read Zarr version 3.
    progress
        Called as (frames done, frames in all, name of the field).

    Raises
    ------
    BadInput
        Anything wrong with the source, or `out` holds something else. Nothing is left on disk.
    """
    source, out, settings = located(source), located(out), settings or Settings()
    inside = store_around(out.parent)
    if inside is not None:
        raise BadInput(f"{out}: lies in the data set {inside}, which would be damaged; choose a place outside it")
    if not isinstance(source, Path):
        check_bucket(source)
    if is_store(source):
        return Dataset.open(source)
    if not isinstance(source, Path):
        raise BadInput(f"{source}: no finished data set; copy the images to this machine and convert them from there")
    intake = take_in(source, settings)
    origin = {
        "path": str(source),
        "reader": intake.found.reader,
        "files": _fingerprint(intake.found, source),
        "options": settings.as_facts() | {"ome_zarr": ome_zarr},
    }
    try:
        if is_taken(out):
            return _same(out, origin)
        with building(out) as partial:
            writer = Writer(partial, ome_zarr)
            count = _counted(progress, intake.n_frames)
            pairs = zip(intake.surveys, intake.fields, strict=True)
            measured = [_write_field(writer, one, field, count) for one, field in pairs]
            _finish(writer, intake, measured, origin)
    except OSError as fault:
        if is_disk_full(fault):
            raise disk_full(fault, out) from fault
        if not is_taken(out):
            raise BadInput(f"{out}: cannot be written ({fault.strerror or fault}); choose another place") from fault
        return _same(out, origin)  # another process was faster
    return Dataset.open(out)


def _write_field(writer: Writer, survey: Survey, field: Field, count: Callable[[str], None]) -> Measured:
    """Write a field frame by frame, measuring each on the way."""
    image, truth = writer.field(field)

    def keep(at: int, frame: Frame) -> None:
        writer.frame(image, at, frame.image)
        if frame.labels is not None:
            writer.frame(truth, at, frame.labels)
        count(field.name)

    return measure_field(survey, field, keep)


def _finish(writer: Writer, intake: Intake, measured: list[Measured], origin: dict[str, Any]) -> None:
    """Write what is known of all fields together: split, normalisation, recommendation, fingerprint, warnings."""
    source = intake.source.resolve()
    writer.finish(
        fields=[one.field for one in measured],
        splits=intake.splits,
        normalisation=facts.normalisation(measured, intake.splits, intake.settings.normalise),
        facts={
            "name": source.stem if source.is_file() else source.name,
            "synthetic": bool(intake.found.facts.get("synthetic")),
            **facts.of_set(intake, measured),
            "folds": [splits_as_facts(fold) for fold in intake.folds],
            "lineage": {one.raw.name: one.raw.lineage for one in intake.surveys if one.raw.lineage},
            "source": origin,
            "provenance": provenance(),
        },
    )


def _same(out: Path, origin: dict[str, Any]) -> Dataset:
    """Open a finished store if it was made from this source in this way."""
    if not is_store(out):
        raise BadInput(f"{out}: exists and is no data set; choose another name or remove it")
    dataset = Dataset.open(out)
    made = dataset.facts["source"]
    if made["files"] != origin["files"]:
        raise BadInput(f"{out}: holds another data set ({made['path']}, or before it changed); choose another name")
    for name, value in origin["options"].items():
        if made["options"].get(name) != value:
            was = made["options"].get(name)
            raise BadInput(f"{out}: was converted with {name}={was}, not {value}; choose another name or remove it")
    return dataset


def _fingerprint(found: readers.Found, source: Path) -> str:
    """Return a hash over the names and contents of all files read."""
    root = source if source.is_dir() else source.parent
    for path in found.paths():
        if any("\udc80" <= letter <= "\udcff" for letter in str(path)):
            raise BadInput(f"{str(path)!r}: the name is not UTF-8 text; rename the file")
    lines = [f"{_relative(path, root)} {sha256(path)}" for path in found.paths()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def summary(dataset: Dataset) -> str:
    """Return what a store holds, in a few lines."""
    fields = list(dataset.fields.values())
    sizes = sorted({f"{f.shape[0]} x {f.shape[1]} px {f.dtype}{_pixel(f)}" for f in fields})
    frames = sum(f.n_frames for f in fields)
    kinds = ", ".join(sorted({f.annotation for f in fields}))
    source = dataset.facts["source"]
    lines = [
        f"{dataset.path}: {len(fields)} field{'s' * (len(fields) > 1)}, {frames} frames, {facts.some(sizes)}",
        f"  read as {source['reader']}, written as OME-Zarr {dataset.ome_zarr}",
        f"  {kinds}: {sum(sum(f.cells) for f in fields)} cells; recommended crop {dataset.recommended['crop']} px",
    ]
    if dataset.channels > 1:
        lines.append(f"  channels: {', '.join(fields[0].channels)}")
    if dataset.splits.unit != "none":
        parts = ", ".join(f"{part} {len(dataset.frames(part))}" for part in ("train", "val", "test"))
        lines.append(f"  split by {dataset.splits.unit}: {parts} frames")
    return "\n".join([*lines, *(f"warning: {text}" for text in dataset.warnings)])


def _pixel(field: Field) -> str:
    return f" of {field.pixel_size_um:g} um" if field.pixel_size_um else ", pixel size unknown"


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    text = "Convert microscope images and their annotation into dataset.zarr (OME-Zarr)."
    example = "example: python -m data_io.convert ../shared/data/yeast_phase_movie yeast.zarr --pixel-size 0.16"
    parser = Parser("python -m data_io.convert", description=text, epilog=example)
    parser.add_argument("source", help="folder of frames and masks, movie file, Gen5 export, OME-Zarr ...")
    parser.add_argument("out", help="the store to make, such as dataset.zarr or s3://bucket/dataset.zarr")
    parser.add_argument("--ome-zarr", default=ngff.DEFAULT, metavar="V", help="0.5 (default) or 0.4")
    add_options(parser)
    given = parser.parse_args(argv)
    refuse_lost(given.out)
    finished = is_taken(located(given.out))
    dataset = convert(given.source, given.out, settings_of(given), ome_zarr=given.ome_zarr, progress=_show)
    if str(dataset.path) != str(located(given.out)):
        print(f"{given.source}: a data set already; {given.out} is not made")
    elif finished:
        print("already converted, nothing to do")
    print("\n".join(map(printable, summary(dataset).split("\n"))))
    return DONE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a source holds and how it is split."""
    add = parser.add_argument
    add("--no-masks", action="store_true", help="frames without annotation, for prediction only")
    add("--pixel-size", type=float, metavar="UM", help="micrometres per pixel (default: as files say)")
    add("--frame-interval", type=float, metavar="S", help="seconds per frame (default: as files say)")
    add("--split-by", default="auto", metavar="WHAT", help="auto, field, time or a group such as well or patient")
    add("--folds", type=int, default=0, metavar="K", help="store K-fold splits over groups as well (3 or more)")
    add("--split-touching", action="store_true", help="binary masks: tell touching cells apart by a watershed")
    add("--normalise", default="frame", choices=NORMALISATIONS, help="grey values by frame (default) or by data set")
    add("--reader", default="auto", metavar="NAME", help=f"auto (default), {', '.join(readers.READERS)}")
    add("--z", metavar="HOW", help="stacks in depth: max, mean, focus or the number of a plane, from 0")
    add("--channels", default="", metavar="A,B", help="names or numbers (from 0) of the channels to keep")
    add("--truth", default="auto", metavar="WHICH", help="Cell Tracking Challenge: gold or silver (default: auto)")
    add("--labels", metavar="NAME", help="OME-Zarr: which label image is the annotation")
    add("--tiles", metavar="RxC", help="each image is a mosaic of R rows and C columns of tiles, each a field")


def settings_of(given: argparse.Namespace) -> Settings:
    """Return what the options of `add_options` say."""
    reading = Options(
        reader=given.reader,
        z=given.z,
        channels=tuple(one.strip() for one in given.channels.split(",") if one.strip()),
        truth=given.truth,
        labels=given.labels,
        tiles=_tiles(given.tiles),
    )
    return Settings(
        annotations=not given.no_masks,
        pixel_size_um=given.pixel_size,
        frame_interval_s=given.frame_interval,
        split_by=given.split_by,
        folds=given.folds,
        split_touching=given.split_touching,
        normalise=given.normalise,
        reading=reading,
    )


def _tiles(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise BadInput(f"--tiles {text}: not rows and columns; write them as 3x4")
    return int(rows), int(columns)


def _counted(progress: Progress | None, total: int) -> Callable[[str], None]:
    """Return a function that counts the frames of all fields and reports each."""
    done = 0

    def count(field: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, field)

    return count


def _show(done: int, total: int, field: str) -> None:
    show("converting", done, total, f"frames ({field})")


if __name__ == "__main__":
    entry_point(main)
