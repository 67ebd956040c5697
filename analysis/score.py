"""Score label images against the truth.

    python -m analysis.score cellpose/ truth.tif
    python -m analysis.score stardist.tif truth.tif --json > scores.json
    python -m analysis.score masks/ truth/ --strict

PRED and TRUTH hold 0 as background and a whole number per cell: a TIFF, PNG or .npy file, a stack (one frame a page), a
folder of them, or a folder of one folder per field. Frames are paired by file name, by number or by order.

Each score has a 95 % interval over fields, or over frames where there is one field; with fewer than five of them there
is none, and the reason is told. What each score is: the top of analysis/scores.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis import scores
from analysis.label_input import paired, read_labels
from data_io.command_line import Parser
from data_io.errors import DONE, BadInput, entry_point, printable
from data_io.progress import show

if TYPE_CHECKING:
    from collections.abc import Sequence

IN_WORDS = {
    "dataset_iou": "dataset IoU of the foreground",
    "per_image_iou": "per-image IoU of the foreground",
    "dice": "Dice of the foreground",
    "boundary_f1_1": "boundary F1, within 1 px",
    "boundary_f1_2": "boundary F1, within 2 px",
    "boundary_iou_2": "boundary IoU, 2 px deep",
    "hd95": "HD95 of matched cells, px",
    "f1_50": "F1 at IoU 0.5",
    "pq_50": "PQ at IoU 0.5",
    "sq_50": "SQ: mean IoU of matched cells",
    "rq_50": "RQ: the same as F1",
    "ap": "AP over IoU .50 to .95",
    "seg": "SEG (Cell Tracking Challenge)",
    "aji": "aggregated Jaccard index",
    "count_error": "count error, relative",
    "splits": "true cells split",
    "merges": "cells that merge several",
    "missed": "cells missed",
    "spurious": "cells made up",
    "fn": "true cells not matched",
    "fp": "predicted cells not matched",
    "n_truth": "true cells",
    "n_pred": "predicted cells",
}
"""Every score in the order of the output."""


def score_paths(pred: Path, truth: Path, strict: bool = False) -> dict[str, Any]:
    """Score the label images of one path against those of another.

    Parameters
    ----------
    pred, truth
        Files or folders of label images.
    strict
        Count IoU > threshold in place of IoU >= threshold.

    Returns
    -------
    dict
        `IN_WORDS`, each with `<key>_ci` and, where that is None, `<key>_ci_reason`; the numbers of frames and clusters;
        `clustered_by`, `threshold_rule`, `empty_rule` and `notes` in words. Ready for JSON: nothing is NaN.

    Raises
    ------
    BadInput
        Nothing there, no label images, frames that do not belong together, or a frame without prediction.
    """
    true = read_labels(truth)
    found = paired(true, read_labels(pred))
    lost = [key for key in true.frames if key not in found.frames]
    if lost:
        raise BadInput(
            f"{pred}: no label image for {len(lost)} of {len(true.frames)} frames of {truth}, the first being "
            f"{true.names[lost[0]] or lost[0][1]}; add them, as empty images where nothing was found"
        )
    keys = list(true.frames)
    counts = []
    for done, key in enumerate(keys, start=1):
        counts.append(scores.full_counts(true.frames[key], found.frames[key], strict))
        show("scoring", done, len(keys), "frames")
    result = scores.score(counts, scores.clusters_of(keys))
    several = len({field for field, _ in keys}) > 1
    ordered = {
        name: result[name] for key in IN_WORDS for name in (key, f"{key}_ci", f"{key}_ci_reason") if name in result
    }
    return {
        **ordered,
        "n_frames": result["n_frames"],
        "n_clusters": result["n_clusters"],
        "clustered_by": "field" if several else "frame",
        "threshold_rule": f"IoU {'>' if strict else '>='} threshold",
        "empty_rule": scores.EMPTY_RULE,
        "notes": [*true.notes, *found.notes],
    }


def in_words(result: dict[str, Any]) -> list[str]:
    """Lines for the terminal: each score with its interval, then the rules that hold."""
    width = max(map(len, IN_WORDS.values()))
    lines = [f"{told:<{width}}  {_value(key, result)}" for key, told in IN_WORDS.items()]
    reasons = {str(result[name]) for name in result if name.endswith("_ci_reason")}
    cluster = str(result["clustered_by"])
    noun = cluster if result["n_clusters"] == 1 else f"{cluster}s"
    lines += ["", f"{result['n_frames']} frames; 95 % intervals over {result['n_clusters']} {noun}"]
    lines += [f"No interval: {reason}." for reason in sorted(reasons)]
    lines += [
        f"Cells are matched one to one where {result['threshold_rule']}.",
        f"Empty images: {result['empty_rule']}",
    ]
    return [*lines, *(f"Note: {printable(note)}" for note in result["notes"])]


def _value(key: str, result: dict[str, Any]) -> str:
    value, interval = result[key], result[f"{key}_ci"]
    if value is None:
        return f"none ({result[f'{key}_ci_reason']})"
    digits = "{:.0f}" if key in scores.TOTALS else "{:.4f}"
    told = digits.format(value)
    return f"{told}  ({digits.format(interval[0])} to {digits.format(interval[1])})" if interval else told


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(
        prog="python -m analysis.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pred", type=Path, metavar="PRED", help="label images of a method")
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="label images of the annotation")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--strict", action="store_true", help="count IoU > threshold, as Kirillov et al. do, not >=")
    given = parser.parse_args(argv)
    result = score_paths(given.pred, given.truth, given.strict)
    if given.json:
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        print("\n".join(in_words(result)))
    sys.stdout.flush()
    return DONE


if __name__ == "__main__":
    entry_point(main)
