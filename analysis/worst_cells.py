"""Where each method went most wrong: its splits, merges, missed and invented cells and worst outlines, looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import figures, pixels
from analysis.examples import frame_image
from analysis.instances import which
from analysis.matching import match_overlap, overlap
from analysis.report import Block, Cell, Gallery, Section, Table
from analysis.results import ordered
from analysis.samples import TRUTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from analysis.figures import Look, Picture
    from analysis.matching import Labels, Match, Overlap
    from analysis.results import Results
    from analysis.samples import Study

KINDS = {
    "merge": "several cells drawn as one",
    "split": "one cell drawn as several",
    "missed": "cell not found",
    "invented": "cell drawn where none is",
    "outline": "cell found, outline off",
}
"""Kinds of mistakes, in words."""
SHOWN, EACH = 8, 3
"""Mistakes shown per method, and of one kind."""
SMALLEST = 48
"""Side of the smallest picture, px."""


@dataclass(frozen=True)
class Mistake:
    """One mistake of a method: `wrong` counts pixels, `box` is (y0, x0, y1, x1) around the cells concerned."""

    kind: str
    field: str
    frame: int
    wrong: int
    box: tuple[int, int, int, int]


def mistakes(truth: Labels, pred: Labels, field: str, frame: int) -> list[Mistake]:
    """Find every mistake of a frame.

    Wrong pixels are, of a merge or split, the area outside its largest part; of a missed or invented cell, its area; of
    an outline, what is not in both of the pair.

    Parameters
    ----------
    truth, pred
        `(Y, X)` integers, 0 background.
    """
    found = overlap(truth, pred)
    pairs = match_overlap(found)
    cells = which(found, pairs)
    merged = _of(found, found.cols, cells.merged, found.pred_area)
    split = _of(found, found.rows, cells.split, found.truth_area)
    named = [("merge", found.pred_ids[k], pred, n) for k, n in merged]
    named += [("split", found.truth_ids[k], truth, n) for k, n in split]
    named += [("missed", found.truth_ids[k], truth, int(found.truth_area[k])) for k in cells.missed]
    named += [("invented", found.pred_ids[k], pred, int(found.pred_area[k])) for k in cells.spurious]
    named += [("outline", label, truth, n) for label, n in _outlines(found, pairs)]
    boxes = {id(labels): _boxes(labels) for labels in (truth, pred)}
    return [Mistake(kind, field, frame, n, boxes[id(labels)][int(label)]) for kind, label, labels, n in named if n > 0]


def _of(
    found: Overlap, side: NDArray[np.int64], which: NDArray[np.intp], area: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Pair each cell with its pixels outside the largest part it shares."""
    largest = np.zeros(len(area), np.int64)
    np.maximum.at(largest, side, found.shared)
    return [(int(k), int(area[k] - largest[k])) for k in which]


def _outlines(found: Overlap, pairs: Match) -> list[tuple[int, int]]:
    truth = dict(zip(found.truth_ids.tolist(), found.truth_area.tolist(), strict=True))
    pred = dict(zip(found.pred_ids.tolist(), found.pred_area.tolist(), strict=True))
    wrong = []
    for label, own, iou in zip(pairs.truth.tolist(), pairs.pred.tolist(), pairs.iou.tolist(), strict=True):
        both = truth[label] + pred[own]
        wrong.append((label, round(both * (1 - iou) / (1 + iou))))  # union - shared
    return wrong


def _boxes(labels: Labels) -> dict[int, tuple[int, int, int, int]]:
    from scipy.ndimage import find_objects

    ids, dense = np.unique(labels, return_inverse=True)
    spans = find_objects(np.asarray(dense.reshape(labels.shape), np.int32) + int(ids[0] != 0))
    cells = ids[ids > 0].tolist()
    return {
        cell: (span[0].start, span[1].start, span[0].stop, span[1].stop)
        for cell, span in zip(cells, spans, strict=True)
        if span
    }


def worst(found: list[Mistake]) -> list[Mistake]:
    """Return the `SHOWN` mistakes with most wrong pixels, at most `EACH` of a kind and one of a place in any frame."""
    kept: list[Mistake] = []
    for mistake in sorted(found, key=lambda m: (-m.wrong, m.field, m.frame, m.box)):
        alike = sum(other.kind == mistake.kind for other in kept)
        if alike < EACH and not any(_same_place(mistake, other) for other in kept):
            kept.append(mistake)
    return kept[:SHOWN]


def _same_place(a: Mistake, b: Mistake) -> bool:
    """Tell whether the middle of one lies in the box of the other: a cell stays where it is from frame to frame."""
    middle = (a.box[0] + a.box[2]) / 2, (a.box[1] + a.box[3]) / 2
    inside = all(b.box[k] <= middle[k] <= b.box[k + 2] for k in (0, 1))
    return a.field == b.field and inside


def worst_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Count the mistakes of each method and show the worst."""
    study = results.study
    if not study.has_truth or TRUTH not in study.labels or not study.frames:
        return None
    methods = [method for method in ordered(results) if method in study.labels]
    found = {
        method: [
            m for key in study.frames for m in mistakes(study.labels[TRUTH](*key), study.labels[method](*key), *key)
        ]
        for method in methods
    }
    galleries: list[Block] = [
        Gallery(
            [_picture(study, method, mistake, looks) for mistake in worst(found[method])],
            f"{method}: where most pixels are wrong (yellow: truth, {method} in its colour)",
            folded=at > 0,
            medium=True,
        )
        for at, method in enumerate(methods)
        if found[method]
    ]
    if not galleries:
        return None
    rows: list[list[Cell | str]] = []
    for method in methods:
        of_kind = {kind: [m.wrong for m in found[method] if m.kind == kind] for kind in KINDS}
        rows.append(
            [method, *(Cell(str(len(n)), below=f"{sum(n):,} px") for kind, n in of_kind.items() if kind != "outline")]
        )
    columns = ("method", *(f"{kind}: {told}" for kind, told in KINDS.items() if kind != "outline"))
    note = (
        "A cell lies in another when more than half of it does and it makes up a tenth of the other. A split or merge "
        "is counted once and not again as missed or invented. Small print: pixels wrong."
    )
    lead = (
        "Means hide single failures. These are the places with most wrong pixels over all compared frames, at most "
        f"{EACH} of one kind: look whether they are mistakes of the method or of the annotation."
    )
    blocks = (Table("Mistakes counted", columns, rows, ("method",), note), *galleries)
    return Section("worst", "The worst cells", (lead,), blocks, "The cells", "Worst cells")


def _picture(study: Study, method: str, mistake: Mistake, looks: Mapping[str, Look]) -> Picture:
    key = (mistake.field, mistake.frame)
    truth, pred = study.labels[TRUTH](*key), study.labels[method](*key)
    y0, x0, y1, x1 = mistake.box
    size = max(SMALLEST, 2 * max(y1 - y0, x1 - x0))
    window = pixels.around((y0 + y1) / 2, (x0 + x1) / 2, size, truth.shape)
    drawn = [(truth[window], figures.YELLOW), (pred[window], looks[method].colour)]
    where = f"{mistake.field}, frame {mistake.frame}, row {(y0 + y1) // 2}, column {(x0 + x1) // 2}"
    told = f"{mistake.kind}: {KINDS[mistake.kind]}, {mistake.wrong} px"
    zoom = max(1, min(4, 256 // size))
    name = f"{mistake.kind}_{method}_{mistake.field}_{mistake.frame}"
    picture = pixels.outlines(frame_image(study, key)[window], drawn, f"{method}, {told}; {where}", zoom, name)
    data = pd.DataFrame([(method, mistake.kind, *key, mistake.wrong, *mistake.box)])
    data.columns = pd.Index(["method", "kind", "field", "frame", "wrong_px", "y0", "x0", "y1", "x1"])
    return figures.captioned(figures.with_data(picture, data), f"{told}. {where}")
