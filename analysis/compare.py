"""Compare methods on the same images and write comparisons.csv, agreement.csv and report.html.

    python -m analysis.compare RUN
    python -m analysis.compare cellpose=masks/ stardist=stardist.tif --truth truth.tif --out comparison/
    python -m analysis.compare ours=cells.csv trackmate=spots.csv --truth truth.tif --traits area,circularity --out out/
    python -m analysis.compare method=cells.csv --by condition --out comparison/
    python -m analysis.compare small=a.csv large=b.csv --by condition --out comparison/
    python -m analysis.compare control=RUN1 treated=RUN2 --by condition --method star --out comparison/

A RUN is the folder `python -m search.run` made. A PATH is a label stack or folder (TIFF, PNG, .npy; Cellpose, Fiji,
StarDist and others) or a table of cells (CSV or parquet of this project, TrackMate's spots, ImageJ's results).

With --by, conditions are compared on means of the highest of patient, well and field that the table names; where they
come as separate files, the names before = are the conditions.

Written are comparisons.csv (every test), agreement.csv (every method against the truth), choices.csv (which method for
which trait), scores.csv and report.html. What each test and column means: analysis/README.md.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis import comparisons
from analysis.agreement import agree_with_truth
from analysis.conditions import compare_conditions
from analysis.contents import page
from analysis.loose_files import from_paths, parse_method
from analysis.record import read_record
from analysis.report import render
from analysis.results import Results
from analysis.samples import TRUTH, Study, counts, from_run
from data_io.command_line import Parser
from data_io.errors import DONE, REPORT_FAILED, BadInput, disk_full, entry_point, is_disk_full, printable
from data_io.files import write_text
from data_io.job_folder import refuse_lost
from data_io.location import refuse_remote
from data_io.secrecy import veiled
from postprocess.export import write_csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analysis.record import Record

SYNTHETIC = "synthetic data"


class ReportFailed(RuntimeError):
    """The numbers are written, the page is not."""


def compare_run(
    run_dir: Path | str,
    out: Path | None = None,
    by: str | None = None,
    traits: Sequence[str] | None = None,
    *,
    allow_missing: bool = True,
) -> Path:
    """Compare the methods of a run on its test frames; returns the path of report.html.

    Parameters
    ----------
    run_dir
        A run folder: run.json, cells.parquet, labels.zarr, and summary.json, trials.parquet, trials/ of a search.
    out
        Where to write; the run folder by default.
    by
        A column of the cells table, such as condition, whose values are compared too.
    traits
        Traits to compare; by default all.
    allow_missing
        Go on, with a warning, where a tenth of the frames or more failed.

    Raises
    ------
    BadInput
        When the folder is not a run, or an earlier stage has not written its files.
    ReportFailed
        When the page could not be made; the tables are written.
    """
    run = Path(run_dir)
    return _write(from_run(run, allow_missing=allow_missing), read_record(run), out or run, by, traits)


def compare_paths(
    paths: Mapping[str, Path],
    truth: Path | None,
    out: Path,
    by: str | None = None,
    traits: Sequence[str] | None = None,
    *,
    method: str = "",
    allow_missing: bool = False,
) -> Path:
    """Compare label images or cells tables from anywhere; returns the path of report.html.

    Parameters and errors are those of `compare_run`; `paths` are the methods, or the conditions where `by` names them,
    of which `method` is then read where a path is a run.
    """
    study = from_paths(paths, truth, by or "", method=method, allow_missing=allow_missing)
    return _write(study, None, out, by, traits)


def analyse(
    study: Study, record: Record | None = None, by: str | None = None, traits: Sequence[str] | None = None
) -> Results:
    """Score, compare and hold against the truth."""
    table = comparisons.compare_methods(study, traits)
    if by:
        conditions = compare_conditions(study, by, traits)
        table = pd.concat([table, conditions], ignore_index=True) if len(table) else conditions
    scored = [m for m in study.methods if study.has_truth and TRUTH in study.labels and m in study.labels]
    counted = {method: counts(study, method) for method in scored}
    return Results(study, table, agree_with_truth(study, traits), counted, record)


def _write(study: Study, record: Record | None, out: Path, by: str | None, traits: Sequence[str] | None) -> Path:
    results = analyse(study, record, by, traits)
    _write_tables(results, out)
    report = out / "report.html"
    try:
        write_text(report, render(page(results)))
    except Exception as fault:
        report.unlink(missing_ok=True)  # an older page would not show these numbers
        if is_disk_full(fault):
            raise disk_full(fault, report) from fault
        raise ReportFailed(f"{report}: {type(fault).__name__}: {fault}") from fault
    return report


def _write_tables(results: Results, out: Path) -> None:
    note = {"note": SYNTHETIC} if results.record and results.record.synthetic else {}
    scores = pd.DataFrame([{"method": name, **found} for name, found in results.scored.items()])
    tables = {
        "comparisons": results.comparisons,
        "agreement": results.agreement,
        "choices": results.choices,
        "scores": scores,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            if len(table) or name in ("comparisons", "agreement"):
                write_csv(out / f"{name}.csv", table.assign(**note))
    except OSError as fault:
        if is_disk_full(fault):
            raise disk_full(fault, out) from fault
        raise BadInput(f"{out}: cannot be written to ({fault.strerror or fault}); name another folder") from fault


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    given: list[str] = arguments.what
    traits = [name.strip() for name in arguments.traits.split(",")] if arguments.traits else None
    loose = [text for text in given if "=" in text and not Path(text).exists()]
    if loose and len(loose) < len(given):
        raise BadInput(f"{next(g for g in given if g not in loose)}: not METHOD=PATH; give one RUN or only METHOD=PATH")
    if not loose and len(given) > 1:
        raise BadInput(
            "more than one RUN; name each method, METHOD=PATH METHOD=PATH, such as first=a.tif second=b.tif, with "
            "label images, or the label stacks of each run"
        )
    for text in given:
        refuse_remote(text.partition("=")[2] if text in loose else text)
    if arguments.out is not None:
        refuse_remote(arguments.out, "--out")
        refuse_lost(arguments.out, "--out")
    elif not loose:
        refuse_lost(given[0])
    print(f"comparing {printable(', '.join(given))}: reading and matching cells, then testing every trait", flush=True)
    try:
        if loose:
            paths, truth, out = _loose(arguments)
            chosen = {"method": arguments.method or "", "allow_missing": arguments.allow_missing}
            report = compare_paths(paths, truth, out, arguments.by, traits, **chosen)
        else:
            if not Path(given[0]).is_dir():
                raise BadInput(f"{given[0]}: no such run folder; give a folder made by `python -m search.run`")
            if arguments.truth:
                raise BadInput("--truth: a run has its own truth; leave it out")
            report = compare_run(given[0], arguments.out, arguments.by, traits, allow_missing=arguments.allow_missing)
    except ReportFailed as fault:
        print(veiled(traceback.format_exc()), end="", file=sys.stderr)
        told = f"error: the report failed, the numbers are saved beside it: {fault}"
        print(printable(veiled(told)), file=sys.stderr)
        return REPORT_FAILED
    print(f"report: {report}")
    return DONE


def _loose(arguments: argparse.Namespace) -> tuple[dict[str, Path], Path | None, Path]:
    """Paths of the methods, of the truth, and where to write."""
    if not arguments.out:
        raise BadInput("--out: missing; name the folder to write to")
    paths = dict(map(parse_method, arguments.what))
    if len(paths) < len(arguments.what):
        raise BadInput("METHOD=PATH: a method name is given twice; choose different names")
    if arguments.truth and not arguments.truth.exists():
        raise BadInput(f"{arguments.truth}: no such file or folder; check --truth")
    return paths, arguments.truth, arguments.out


def _parser() -> Parser:
    parser = Parser(
        "python -m analysis.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", metavar="RUN | METHOD=PATH", help="one run folder, or named paths")
    parser.add_argument("--truth", type=Path, help="annotated label images or cells table of the same frames")
    parser.add_argument("--out", type=Path, help="folder for the results (default: the run folder)")
    parser.add_argument("--by", metavar="COLUMN", help="compare conditions, for example condition")
    parser.add_argument("--method", metavar="NAME", help="method to read where runs or their tables are conditions")
    parser.add_argument("--traits", metavar="A,B", help="traits to compare (default: all measured)")
    parser.add_argument(
        "--allow-missing", action="store_true", help="go on where a method lacks more than a tenth of the frames"
    )
    return parser


if __name__ == "__main__":
    entry_point(main)
