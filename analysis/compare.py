"""Compare methods on the same images and write comparisons.csv, agreement.csv and report.html.

    python -m analysis.compare RUN
    python -m analysis.compare cellpose=masks/ stardist=stardist.tif --truth truth.tif --out comparison/
    python -m analysis.compare small=a.csv large=b.csv --by condition --out comparison/

A RUN is the folder `python -m search.run` made. A PATH is a label stack or folder (TIFF, PNG) or a cells table (CSV,
parquet, TrackMate CSV).
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis import comparisons
from analysis.contents import page
from analysis.loose_files import from_paths, parse_method
from analysis.record import read_record
from analysis.report import render
from analysis.results import Results
from analysis.samples import TRUTH, Study, counts, from_run
from data_io.command_line import Parser
from data_io.errors import DONE, REPORT_FAILED, BadInput, entry_point
from data_io.files import write_text
from postprocess.export import write_csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from analysis.record import Record

SYNTHETIC = "synthetic data"


def compare_run(
    run_dir: Path | str, out: Path | None = None, by: str | None = None, traits: Sequence[str] | None = None
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

    Raises
    ------
    BadInput
        When the folder is not a run, or an earlier stage has not written its files.
    """
    run = Path(run_dir)
    return _write(from_run(run), read_record(run), out or run, by, traits)


def compare_paths(
    paths: Mapping[str, Path],
    truth: Path | None,
    out: Path,
    by: str | None = None,
    traits: Sequence[str] | None = None,
) -> Path:
    """Compare label images or cells tables from anywhere; returns the path of report.html."""
    return _write(from_paths(paths, truth), None, out, by, traits)


def analyse(
    study: Study, record: Record | None = None, by: str | None = None, traits: Sequence[str] | None = None
) -> Results:
    """Score, compare and hold against the truth."""
    table = comparisons.compare_methods(study, traits)
    if by:
        table = pd.concat([table, comparisons.compare_conditions(study, by, traits)], ignore_index=True)
    scored = [m for m in study.methods if study.has_truth and TRUTH in study.labels and m in study.labels]
    counted = {method: counts(study, method) for method in scored}
    return Results(study, table, comparisons.agree_with_truth(study, traits), counted, record)


def _write(study: Study, record: Record | None, out: Path, by: str | None, traits: Sequence[str] | None) -> Path:
    results = analyse(study, record, by, traits)
    out.mkdir(parents=True, exist_ok=True)
    note = {"note": SYNTHETIC} if record and record.synthetic else {}
    write_csv(out / "comparisons.csv", results.comparisons.assign(**note))
    write_csv(out / "agreement.csv", results.agreement.assign(**note))
    report = out / "report.html"
    write_text(report, render(page(results)))
    return report


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    given: list[str] = arguments.what
    traits = arguments.traits.split(",") if arguments.traits else None
    print(f"comparing {', '.join(given)}: cells are matched frame by frame, then every trait is tested", flush=True)
    loose = [text for text in given if "=" in text and not Path(text).exists()]
    if loose and len(loose) < len(given):
        raise BadInput(f"{next(g for g in given if g not in loose)}: not METHOD=PATH; give one RUN or only METHOD=PATH")
    if not loose and len(given) > 1:
        raise BadInput("more than one RUN; compare METHOD=PATH METHOD=PATH, with label stacks from each run")
    try:
        if not loose:
            if not Path(given[0]).is_dir():
                raise BadInput(f"{given[0]}: no such run folder; give a folder made by `python -m search.run`")
            if arguments.truth:
                raise BadInput("--truth: a run has its own truth; leave it out")
            report = compare_run(given[0], arguments.out, arguments.by, traits)
        else:
            if not arguments.out:
                raise BadInput("--out: missing; name the folder to write to")
            paths = dict(map(parse_method, given))
            if len(paths) < len(given):
                raise BadInput("METHOD=PATH: a method name is given twice; choose different names")
            truth = arguments.truth
            if truth and not truth.exists():
                raise BadInput(f"{truth}: no such file or folder; check --truth")
            report = compare_paths(paths, truth, arguments.out, arguments.by, traits)
    except BadInput:
        raise
    except Exception:
        traceback.print_exc()
        print("error: the comparison failed; all earlier results are kept, run it again when fixed", file=sys.stderr)
        return REPORT_FAILED
    print(f"report: {report}")
    return DONE


def _parser() -> Parser:
    parser = Parser(
        "python -m analysis.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", metavar="RUN | METHOD=PATH", help="one run folder, or named paths")
    parser.add_argument("--truth", type=Path, help="annotated label images or cells table of the same frames")
    parser.add_argument("--out", type=Path, help="folder for the results (default: the run folder)")
    parser.add_argument("--by", metavar="COLUMN", help="compare conditions, for example condition")
    parser.add_argument("--traits", metavar="A,B", help="traits to compare (default: all measured)")
    return parser


if __name__ == "__main__":
    entry_point(main)
