"""Cells, measures and tracks of every method of a run: the CPU stage, no torch needed.

    python -m postprocess.run RUN

reads RUN/run.json and RUN/predictions.zarr and writes

    RUN/labels.zarr                   the cells of every method over the image, OME-Zarr 0.5 (napari)
    RUN/labels/<method>.tif           the same as TIFF stacks (Fiji) of the frames that every method has, page by page
    RUN/labels/frames.csv             which frame each page of these stacks is
    RUN/cells.parquet, RUN/cells.csv  one row per cell and method
    RUN/cells/                        measures per frame, so that a rerun does only what is missing
    RUN/cells/counts.csv              per frame: cells at the edge, with holes, in pieces, out of limits, dropped

Beside the methods of predictions.zarr it treats the annotation ("truth") and a baseline without learning
("classical"), where there is annotation. A frame that fails is listed and the others are done: exit code 4.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io.command_line import Parser
from data_io.damage import one_line
from data_io.errors import (
    DONE,
    PARTIAL,
    BadInput,
    DiskFull,
    disk_full,
    entry_point,
    is_disk_full,
    of_a_place,
    printable,
)
from data_io.files import sha256, write_bytes, write_json
from data_io.job_folder import refuse_lost
from data_io.location import refuse_remote
from data_io.secrecy import veiled
from postprocess import blocks, exchange, export, large, methods, policies, schedulers
from postprocess.label_store import LabelStore
from postprocess.policies import AS_FOUND, Policy
from postprocess.predictions import PredictionStore
from postprocess.tables import appending, read_parquet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from data_io.store import Dataset, FrameRef

VERSION = 3
"""Raised when decoding or measuring changes, so that old results are computed again."""
EXAMPLES = """\
examples:
  python -m postprocess.run RUN                                   what is missing
  python -m postprocess.run RUN --border drop --min-area 40       whole cells of at least 40 px only
  python -m postprocess.run RUN --scheduler tcp://10.0.0.1:8786   on a Dask cluster that sees RUN under the same path
  python -m postprocess.run RUN --export all

what to open, and with what:
  labels/<method>.tif            Fiji: File > Open; napari: napari labels/star.tif
  labels.zarr                    napari with napari-ome-zarr: napari --plugin napari-ome-zarr RUN/labels.zarr
  cells.csv, cells.parquet       R, pandas, a spreadsheet
  --export trackmate             exports/<method>/<field>_spots.csv: TrackMate's own table of spots, for its scripts
  --export rois                  exports/<method>/<field>_rois.zip: Fiji, drag it onto the movie (ROI Manager)
  --export geojson               exports/<method>/<field>_NNNNN.geojson: QuPath, drag it onto the frame
  --export outlines              exports/<method>/outlines/<field>_NNNNN.png: any viewer
  --export gif                   exports/<method>/outlines/<field>.gif: a browser, slides
  --export binary                exports/<method>/binary/: Fiji, File > Import > Image Sequence, then TrackMate's
                                 threshold detector, threshold 128
"""
POLICY = "policy.json"
COUNTS = Path("cells") / "counts.csv"
TRUTH, CLASSICAL = "truth", "classical"
PAUSE = 10.0
"""Seconds between lines of progress where they cannot be written over."""
KEYS = ("image", "patient", "well", "field", "condition", "split", "frame", "time_s", "track", "label", "method")


@dataclass(frozen=True)
class Job:
    """One frame of one method; the key changes with everything its result depends on."""

    method: str
    ref: FrameRef
    key: str


@dataclass(frozen=True)
class Failure:
    """A frame that could not be done, and why."""

    method: str
    field: str
    frame: int
    reason: str
    no_room: str = ""
    """Path on a disk that was full: then all of it ends, for no other frame could be stored either."""


@dataclass(frozen=True)
class Result:
    """What a run of the stage did."""

    frames: int
    """Frames times methods there are to do."""
    computed: int
    """How many of them were computed now; the others were there."""
    failed: tuple[Failure, ...]
    cells: Path
    """The cells table, parquet."""


@dataclass(frozen=True)
class Stage:
    """Where everything lies."""

    run: Path
    dataset: Dataset
    predictions: PredictionStore | None
    labels: LabelStore
    policy: Policy = AS_FOUND

    def part(self, job: Job) -> Path:
        """Return the file of a frame's measures."""
        slug = self.dataset.fields[job.ref.field].slug
        return self.run / "cells" / job.method / f"{slug}_{job.ref.frame:05d}.parquet"


def run(
    run_dir: Path | str,
    scheduler: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    policy: Policy | None = None,
) -> Result:
    """Do what is missing of the stage; see the top of this file.

    Parameters
    ----------
    run_dir
        A folder with run.json.
    scheduler
        "auto", "sync", "threads", "ray" or "tcp://host:port"; see `schedulers.scheduler`. Results do not depend on it.
    progress
        Called with (frames done, frames to do); `print_progress` prints it.
    policy
        What becomes of cells at the edge, holes, pieces and sizes; kept with the run. None takes the kept one, else
        changes nothing.

    Raises
    ------
    BadInput
        No run, no data set, unknown scheduler, decode parameters that do not fit their target.
    DiskFull
        There is no room for the results.
    """
    schedulers.check(scheduler)
    with _writing(Path(run_dir)):
        stage = replace(open_stage(Path(run_dir)), policy=settled_policy(Path(run_dir), policy))
        jobs = plan(stage)
        if not jobs:
            raise BadInput(f"{run_dir}: no predictions and no annotation; run `python -m search.predict` first")
        prepare(stage.labels, list(dict.fromkeys(job.method for job in jobs)))
        missing = [job for job in jobs if not is_done(stage, job)]
        failed = compute(stage, missing, scheduler, progress)
        finish(stage, jobs, failed)
    return Result(len(jobs), len(missing), tuple(failed), stage.run / "cells.parquet")


@contextmanager
def _writing(run_dir: Path) -> Iterator[None]:
    """Turn what the file system refuses into `BadInput`, a full disk into `DiskFull`."""
    try:
        yield
    except OSError as fault:
        if is_disk_full(fault):
            raise disk_full(fault, run_dir) from fault
        if isinstance(fault, PermissionError) and (refusal := of_a_place(fault)) is not None:
            raise refusal from fault
        place, told = fault.filename or run_dir, fault.strerror or type(fault).__name__
        raise BadInput(f"{place}: cannot be written ({told}); make room, or move away what is in its place") from fault


def prepare(labels: LabelStore, names: Sequence[str]) -> None:
    """Make room for the cells of the methods.

    Raises
    ------
    BadInput
        What is there is no label store any more.
    """
    try:
        labels.prepare(names)
    except BadInput as fault:
        raise BadInput(f"{fault} (delete {labels.path}, the same command fills it)") from fault
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
        raise BadInput(f"{labels.path}: damaged ({one_line(fault)}); delete it, the same command fills it") from fault


def settled_policy(run_dir: Path, policy: Policy | None) -> Policy:
    """Return the policy given, which is then kept with the run, else the one kept, else one that changes nothing."""
    kept = run_dir / POLICY
    if policy is None:
        try:
            return Policy(**json.loads(kept.read_text())) if kept.is_file() else AS_FOUND
        except (TypeError, ValueError, RecursionError) as fault:
            raise BadInput(f"{kept}: no policy ({fault}); delete it and give the policy again") from fault
    if policy != AS_FOUND or kept.is_file():
        write_json(kept, asdict(policy))
    return policy


def open_stage(run_dir: Path) -> Stage:
    """Open what the stage reads."""
    dataset = export.open_dataset(run_dir)
    path = run_dir / "predictions.zarr"
    predictions = PredictionStore.open(path) if path.exists() else None
    return Stage(run_dir, dataset, predictions, LabelStore(run_dir / "labels.zarr", dataset))


def plan(stage: Stage) -> list[Job]:
    """List the frames of every method: predicted ones, then truth and baseline on annotated ones."""
    jobs = []
    for method in stage.predictions.methods() if stage.predictions else []:
        assert stage.predictions is not None  # noqa: S101 - for the type checker
        if method in (TRUTH, CLASSICAL):
            raise BadInput(f"{stage.predictions.path}: {method!r} is a reserved name; predict under another one")
        facts = stage.predictions.attrs(method)
        if not facts.get("decode"):
            raise BadInput(f"{stage.predictions.path}: {method} has no decode parameters; fit them first")
        methods.params_from(facts["target"], facts["decode"])
        for ref in stage.predictions.frames(method):
            source = [facts["target"], facts["decode"], stage.predictions.mark(method, ref), stage.dataset.content_hash]
            jobs.append(Job(method, ref, key_of([*source, asdict(stage.policy)])))
    annotated = [ref for ref in stage.dataset.frames("all") if stage.dataset.split_of(ref) != "unannotated"]
    for method in (TRUTH, CLASSICAL):
        key = key_of([method, stage.dataset.content_hash, asdict(stage.policy) if method == CLASSICAL else None])
        jobs += [Job(method, ref, key) for ref in annotated]
    return jobs


def key_of(source: list[Any]) -> str:
    """Return a hash of what a result depends on."""
    return hashlib.sha256(json.dumps([VERSION, source], sort_keys=True).encode()).hexdigest()


def is_done(stage: Stage, job: Job) -> bool:
    """Say whether a frame's cells and measures are there and belong to each other and to the job."""
    facts = _part_facts(stage.part(job))
    return facts.get("key") == job.key and facts.get("labels") == stage.labels.mark(job.method, job.ref)


def compute(
    stage: Stage, jobs: Sequence[Job], scheduler: str, progress: Callable[[int, int], None] | None
) -> list[Failure]:
    """Do the jobs as Dask tasks, a few at a time so that memory stays flat; return those that failed."""
    if not jobs:
        return []
    for method in dict.fromkeys(job.method for job in jobs):
        (stage.run / "cells" / method).mkdir(parents=True, exist_ok=True)
    images = [Job("image", ref, "") for ref in dict.fromkeys(job.ref for job in jobs)]
    work = [*images, *jobs]
    failed: list[Failure] = []
    with schedulers.scheduler(scheduler) as chosen:
        step = 4 * chosen.slots
        for start in range(0, len(work), step):
            part = work[start : start + step]
            tasks = [partial(_try_image if job.method == "image" else _try, stage, job) for job in part]
            done = chosen.compute(tasks, partial(_lost, stage, part))
            failed += [fault for fault in done if fault]
            if full := next((fault.no_room for fault in failed if fault.no_room), ""):
                raise DiskFull(full)
            if progress is not None:
                progress(max(min(start + step - len(images), len(jobs)), 0), len(jobs))
    return failed


def do(stage: Stage, job: Job) -> None:
    """Find the cells of a frame, measure them, store both; a large frame in blocks."""
    shape = stage.dataset.fields[job.ref.field].shape
    if shape[0] * shape[1] <= large.PIXELS:
        store(stage, job, find_cells(stage, job))
        return
    with large.on_disk(stage.part(job).with_suffix(".cells"), shape) as cells:
        if job.method in (TRUTH, CLASSICAL):
            cells[:] = find_cells(stage, job)
        else:
            find_in_blocks(stage, job, cells)
        store(stage, job, cells)


def find_in_blocks(stage: Stage, job: Job, cells: NDArray[np.int32]) -> None:
    """Write the cells of a predicted frame into ``(Y, X)`` int32, never holding its prediction whole."""
    assert stage.predictions is not None  # noqa: S101 - for the type checker
    facts = stage.predictions.attrs(job.method)
    params = methods.params_from(facts["target"], facts["decode"])
    read = partial(stage.predictions.window, job.method, job.ref)
    blocks.decode(facts["target"], read, (cells.shape[0], cells.shape[1]), params, cells)


def store(stage: Stage, job: Job, cells: NDArray[np.int32]) -> None:
    """Measure the cells of a frame, change what the policy changes (never the annotation), store both."""
    table = measures(stage, job, cells)
    counts = policies.apply(cells, table, AS_FOUND if job.method == TRUTH else stage.policy)
    if counts["dropped"] or counts["changed"]:
        table = measures(stage, job, cells)
    mark = stage.labels.write(job.method, job.ref, cells)
    _write_part(stage.part(job), table, {"key": job.key, "labels": mark, "counts": counts})


def find_cells(stage: Stage, job: Job) -> NDArray[np.int32]:
    """Return the cells of a frame, ``(Y, X)`` int32."""
    from postprocess import classical

    if job.method == TRUTH:
        return stage.dataset.labels(job.ref)
    if job.method == CLASSICAL:
        return classical.segment(stage.dataset.normalised(job.ref))
    assert stage.predictions is not None  # noqa: S101 - for the type checker
    facts = stage.predictions.attrs(job.method)
    return methods.decode(facts["target"], stage.predictions.read(job.method, job.ref), facts["decode"])


def measures(stage: Stage, job: Job, cells: NDArray[np.int32]) -> pd.DataFrame:
    """Return the measures of a frame's cells with its keys in front; tracks follow once all frames are there."""
    from postprocess.morphology import measure

    field = stage.dataset.fields[job.ref.field]
    measured = measure if cells.size <= large.PIXELS else large.measure_tiles
    table = measured(cells, stage.dataset.image(job.ref), field.pixel_size_um)
    interval = field.frame_interval_s
    keys = {
        "image": field.sources[job.ref.frame],
        "patient": field.groups.get("patient"),
        "well": field.groups.get("well"),
        "field": field.name,
        "condition": field.groups.get("condition"),
        "split": stage.dataset.split_of(job.ref),
        "frame": job.ref.frame,
        "time_s": job.ref.frame * interval if interval else float("nan"),
        "track": 0,
        "method": job.method,
    }
    table = table.assign(**keys)
    for name in ("image", "patient", "well", "field", "condition", "split", "method", "reason"):
        table[name] = table[name].astype("string")
    return table[[*KEYS, *(name for name in table.columns if name not in KEYS)]]


def finish(stage: Stage, jobs: Sequence[Job], failed: Sequence[Failure]) -> None:
    """Put the frames together: tracks, tables, stacks; nothing is written again that is already up to date."""
    bad = {(fault.method, fault.field, fault.frame) for fault in failed}
    good = [job for job in jobs if (job.method, job.ref.field, job.ref.frame) not in bad]
    good = [job for job in good if is_done(stage, job)]
    summary = stage.run / "cells" / "frames.json"
    state: dict[str, Any] = {"jobs": key_of([[job.method, job.ref.field, job.ref.frame, job.key] for job in good])}
    stacked = frames_of_stacks(good)
    if _is_written(stage, summary, state, stacked[0]):
        return
    summary.unlink(missing_ok=True)
    for method in dict.fromkeys(job.method for job in jobs):
        own = [job for job in good if job.method == method]
        stage.labels.keep(method, {job.ref for job in own}, highest_labels(stage, own))
    write_cells(stage, good)
    write_counts(stage, good)
    write_stacks(stage, *stacked)
    write_json(summary, state | {"files": _as_written(stage, stacked[0])})


def highest_labels(stage: Stage, jobs: Sequence[Job]) -> dict[str, int]:
    """Return field -> highest label."""
    highest: dict[str, int] = {}
    for job in jobs:
        labels = read_part(stage, job, ["label"])["label"]
        highest[job.ref.field] = max(highest.get(job.ref.field, 0), int(labels.max()) if len(labels) else 0)
    return highest


def write_cells(stage: Stage, jobs: Sequence[Job]) -> None:
    """Write cells.parquet and cells.csv of the frames done, frame by frame."""
    import pyarrow.parquet as pq

    if not jobs:
        return
    names = list(dict.fromkeys(name for job in jobs for name in pq.read_schema(stage.part(job)).names))
    with appending(stage.run / "cells.parquet") as add, appending(stage.run / "cells.csv") as add_text:
        for method, field in dict.fromkeys((job.method, job.ref.field) for job in jobs):
            own = sorted(
                (job for job in jobs if (job.method, job.ref.field) == (method, field)), key=lambda job: job.ref.frame
            )
            for job, track in zip(own, tracks_of(stage, method, field, own), strict=True):
                table = read_part(stage, job)
                table["track"] = table["label"].map(track).astype("int64")
                table = table.reindex(columns=names)
                add(table)
                add_text(table)


def write_counts(stage: Stage, jobs: Sequence[Job]) -> None:
    """Write cells/counts.csv: per frame how many cells are at the edge, have holes, lie in pieces, were dropped."""
    import pandas as pd

    rows = [
        {"method": job.method, "field": job.ref.field, "frame": job.ref.frame} | _part_facts(stage.part(job))["counts"]
        for job in jobs
    ]
    export.write_csv(stage.run / COUNTS, pd.DataFrame(rows))


def tracks_of(stage: Stage, method: str, field: str, jobs: Sequence[Job]) -> Iterator[dict[int, int]]:
    """Yield label -> track of each frame: the label itself where annotators kept it over time, else linked by overlap.

    Label images are read only where there is something to link.
    """
    from postprocess.track import Linker

    kept = method == TRUTH and stage.dataset.fields[field].tracked
    linker = Linker()
    for job in jobs:
        if kept or len(jobs) == 1:
            labels = sorted(read_part(stage, job, ["label"])["label"].tolist())
            yield {label: label if kept else at for at, label in enumerate(labels, start=1)}
        else:
            yield linker.step(job.ref.frame, stage.labels.read(method, job.ref))


def frames_of_stacks(jobs: Sequence[Job]) -> tuple[list[str], list[FrameRef]]:
    """Return the methods that get a stack and the frames all of them have, in the order of the first method.

    A method that shares no frame with those before it gets none: stacks are there to be compared page by page.
    """
    names: list[str] = []
    shared: list[FrameRef] = []
    for method in dict.fromkeys(job.method for job in jobs):
        own = {job.ref: None for job in jobs if job.method == method}
        common = [ref for ref in shared if ref in own] if names else list(own)
        if common:
            names, shared = [*names, method], common
    return names, shared


def write_stacks(stage: Stage, names: Sequence[str], refs: Sequence[FrameRef]) -> None:
    """Write one TIFF stack per method, all of the same frames, and the list of their pages."""
    import pandas as pd

    folder = stage.run / "labels"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.tif"):
        if old.stem not in names:
            old.unlink()
    for name in names:
        highest = max(int(stage.labels.read(name, ref).max(initial=0)) for ref in refs)
        export.write_stack(folder / f"{name}.tif", refs, partial(stage.labels.read, name), stage.dataset, highest)
    pages = []
    for page, ref in enumerate(refs):
        field = stage.dataset.fields[ref.field]
        place = (page, ref.field, ref.frame, field.sources[ref.frame], stage.dataset.split_of(ref))
        pages.append((*place, *field.shape))
    columns = ["page", "field", "frame", "image", "split", "height_px", "width_px"]
    export.write_csv(folder / "frames.csv", pd.DataFrame(pages, columns=columns))


def _try(stage: Stage, job: Job) -> Failure | None:
    try:
        do(stage, job)
    except Exception as fault:  # one bad frame must not cost the others: it is listed, exit code 4
        stage.part(job).unlink(missing_ok=True)
        return _failure(stage, job, fault)
    return None


def _try_image(stage: Stage, job: Job) -> Failure | None:
    try:
        stage.labels.copy_image(job.ref)
    except Exception as fault:  # as above
        return _failure(stage, job, fault)
    return None


def _failure(stage: Stage, job: Job, fault: Exception) -> Failure:
    no_room = str(disk_full(fault, stage.run).filename) if is_disk_full(fault) else ""
    return Failure(job.method, job.ref.field, job.ref.frame, f"{type(fault).__name__}: {fault}", no_room)


def _lost(stage: Stage, jobs: Sequence[Job], place: int, fault: Exception) -> Failure:
    """Return what there is to say of a frame that takes its worker with it."""
    job = jobs[place]
    if job.method != "image":
        stage.part(job).unlink(missing_ok=True)
    return Failure(job.method, job.ref.field, job.ref.frame, f"its worker died ({type(fault).__name__})")


def _write_part(path: Path, table: pd.DataFrame, facts: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed, arrow = io.BytesIO(), pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), b"job": json.dumps(facts)})
    pq.write_table(arrow, packed, write_page_checksum=True)
    write_bytes(path, packed.getvalue())


def read_part(stage: Stage, job: Job, columns: list[str] | None = None) -> pd.DataFrame:
    """Return the measures of a frame; BadInput where they are damaged."""
    return read_parquet(stage.part(job), "delete it, the same command measures the frame again", columns)


def _part_facts(path: Path) -> dict[str, Any]:
    """Return the job a part was written for; none where there is no readable part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        facts: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {}).get(b"job", b"{}"))
    except (OSError, ValueError, pa.ArrowInvalid):
        return {}
    return facts


def _is_written(stage: Stage, summary: Path, state: dict[str, Any], stacked: Sequence[str]) -> bool:
    """Whether what `finish` writes is there for this state, and as it was written."""
    try:
        return bool(json.loads(summary.read_text()) == state | {"files": _as_written(stage, stacked)})
    except (OSError, ValueError, RecursionError):
        return False


def _as_written(stage: Stage, stacked: Sequence[str]) -> dict[str, int | str]:
    """Return SHA-256 of the tables and sizes of the stacks, of which there may be many gigabytes, by their names."""
    tables = ["cells.parquet", "cells.csv", str(COUNTS), "labels/frames.csv"]
    stacks = [f"labels/{method}.tif" for method in stacked]
    return {
        **{name: sha256(stage.run / name) for name in tables if (stage.run / name).is_file()},
        **{name: (stage.run / name).stat().st_size for name in stacks},
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = Parser(
        prog="python -m postprocess.run",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder written by search.run or search.predict")
    parser.add_argument(
        "--scheduler",
        metavar="|".join([*schedulers.NAMES, "tcp://HOST:PORT"]),
        default="auto",
        help="where frames are treated: threads of this process (auto), Ray, or the Dask cluster at an address",
    )
    what = parser.add_argument_group("policies", "what becomes of cells; kept with the run, all counted in any case")
    what.add_argument("--border", choices=("keep", "drop"), help="cells that the frame's edge cuts (default: keep)")
    what.add_argument("--holes", choices=("keep", "fill"), help="background within a cell (default: keep)")
    what.add_argument("--pieces", choices=("keep", "largest"), help="a cell in several pieces (default: keep all)")
    what.add_argument("--min-area", type=int, metavar="PX", help="smallest cell in pixels, after the fitted limit")
    what.add_argument("--max-area", type=int, metavar="PX", help="largest cell in pixels")
    parser.add_argument(
        "--export", metavar="KINDS", help=f"files for other programs: all, or of {','.join(exchange.KINDS)}"
    )
    options = parser.parse_args(argv)
    refuse_remote(options.run)
    refuse_lost(options.run)
    kinds = exchange.kinds_of(options.export)
    given = {name: getattr(options, name) for name in ("border", "holes", "pieces", "min_area", "max_area")}
    given = {name: value for name, value in given.items() if value is not None}
    result = run(options.run, options.scheduler, print_progress, Policy(**given) if given else None)
    kept = result.frames - result.computed
    print(f"{result.frames} frames of all methods: {result.computed} computed, {kept} were there")
    for fault in result.failed:
        told = f"failed: {fault.method}, {fault.field} frame {fault.frame}: {fault.reason}"
        print(printable(veiled(told)), file=sys.stderr)
    print(f"cells: {result.cells}")
    if kinds:
        written = exchange.write_exports(options.run, kinds, progress=Progress("export"))
        print(f"exports: {len(written)} files in {options.run / exchange.FOLDER}")
    return PARTIAL if result.failed else DONE


class Progress:
    """Prints "what done/total" to standard error, over itself on a terminal, elsewhere a line every `PAUSE` at most."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Say how far it is; the end is always said."""
        finished, live, now = done >= total, sys.stderr.isatty(), time.monotonic()
        if live or finished or now >= self._next:
            start, end = ("\r", "\n" if finished else "") if live else ("", "\n")
            print(f"{start}{self.what} {done}/{total}", end=end, file=sys.stderr, flush=True)
            self._next = 0.0 if finished else now + PAUSE


print_progress = Progress("post-processing frame")
"""A plain report of progress, ``print_progress(done, total)``, for `run`."""


if __name__ == "__main__":
    entry_point(main)
