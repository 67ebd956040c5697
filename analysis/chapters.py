"""What the report says, chapter by chapter: results in, sections out; wording is never stronger than the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import figures
from analysis.clusters import LEVELS, is_known
from analysis.report import MISSING, Block, Cell, Gallery, Section, Table, interval, number, significant
from analysis.results import FURTHER, LABEL, ONE_FIELD, Results, frames, model_name, ordered, unit
from analysis.samples import TRAITS, TRUTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from analysis.figures import Look


def score_chapter(results: Results) -> Section:
    """Tabulate every method, also the worse ones, with intervals or the reason why there are none."""
    methods = [m for m in (*ordered(results),) if m in results.scored]
    keys = tuple(LABEL)
    rows: list[list[Cell | str]] = []
    best = {
        key: max((results.scored[m][key] for m in methods if results.scored[m][key] is not None), default=None)
        for key in keys
    }
    for method in methods:
        found = results.scored[method]
        row: list[Cell | str] = [
            Cell(method, strong=method == results.winner, below=model_name(results, method).replace(MISSING, ""))
        ]
        for key in keys:
            ci = found[f"{key}_ci"]
            row.append(Cell(number(found[key]), strong=found[key] == best[key], below=interval(ci) if ci else ""))
        rows.append(
            [
                *row,
                str(found["n_pred"]),
                significant(100 * found["count_error"], 2) if found["count_error"] is not None else MISSING,
            ]
        )
    reasons = {
        found[f"{key}_ci_reason"] for found in results.scored.values() for key in keys if f"{key}_ci_reason" in found
    }
    n = len(results.study.frames)
    note = f"{frames(n)}, {next(iter(results.scored.values()))['n_truth']} annotated cells. " if results.scored else ""
    note += (
        f"Small print: 95 % intervals, {'frames' if results.one_field else 'fields'} as clusters. "
        if not reasons
        else f"Intervals missing: {'; '.join(sorted(reasons))}. "
    )
    note += f"{ONE_FIELD} " if results.one_field and not reasons else ""
    note += f"Bold: {'chosen on validation; ' if results.winner else ''}highest value of a column."
    split = "Test frames" if results.record else "Compared frames"
    table = Table(
        f"{split}: every method against the annotation",
        ("method", *LABEL.values(), "cells drawn", "count error %"), rows, ("method",), note,
    )  # fmt: skip
    blocks: list[Block] = [table, *_further(results, methods)]
    validation = _validation(results)
    if validation.rows:
        blocks.append(validation)
    title = "How well each method finds the cells"
    return Section("scores", title, (_explain_scores(),), tuple(blocks), "The cells", "Scores")


def _further(results: Results, methods: list[str]) -> list[Block]:
    """Tabulate outlines, distances and mistakes, as far as they were counted."""
    keys = [key for key in FURTHER if any(results.scored[m].get(key) is not None for m in methods)]
    if not set(keys) - {"dice"}:
        return []
    rows: list[list[Cell | str]] = []
    for method in methods:
        found = results.scored[method]
        digits = {key: DIGITS.get(key, 3) for key in keys}
        cells = [
            Cell(number(found.get(key), n), below=interval(found[f"{key}_ci"], n) if found.get(f"{key}_ci") else "")
            for key, n in digits.items()
        ]
        rows.append([Cell(method, strong=method == results.winner), *cells])
    note = (
        "Boundary scores ask how well the outlines of the foreground meet, within 1 or 2 px; HD95 is the distance "
        "that 95 % of a found cell's outline stays within. SEG and AJI are those of the Cell Tracking Challenge and "
        "of Kumar et al. 2017. A split or merge is not counted again as missed or invented."
    )
    columns = ("method", *(FURTHER[key] for key in keys))
    return [
        Table("Further scores: outlines, distances, kinds of mistakes", columns, rows, ("method",), note, folded=True)
    ]


DIGITS = {"hd95": 2, "splits": 0, "merges": 0, "missed": 0, "spurious": 0}
"""Decimals of the further scores that are no share."""


def _explain_scores() -> str:
    return (
        "Dataset IoU asks whether the right pixels are called cell; F1 whether cells are found one by one; PQ both at "
        "once: how many are found and how well their outlines fit. 1 is perfect."
    )


def _validation(results: Results) -> Table:
    rows: list[list[Cell | str]] = []
    sources = {**results.summary.get("targets", {}), **results.summary.get("baseline", {})}
    for name in ordered(results):
        found = sources.get(name)
        if not found:
            continue
        told, top = found.get("validation") or {}, found.get("ceiling") or {}
        rows.append(
            [
                Cell(name, strong=name == results.winner),
                *(number(told.get(key)) for key in LABEL),
                number(top.get("f1_50")),
                number(top.get("pq_50")),
                f"{found['parameters'] / 1e6:.1f}" if found.get("parameters") else MISSING,
            ]
        )
    return Table(
        "Validation frames, on which thresholds were fitted and the model was chosen",
        ("method", *LABEL.values(), "ceiling F1", "ceiling PQ", "million parameters"),
        rows,
        ("method",),
        "Validation scores are optimistic: the choice was made on them. The ceiling is what the method reaches when "
        "its network output is perfect.",
    )


def trait_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Draw the distribution of each trait per method, with the means of frames and of replicates."""
    study = results.study
    cells = groups(results)
    looks = looks if set(cells) <= set(looks) else figures.looks(list(cells))
    if not any(len(rows) > 1 for rows in cells.values()):
        return None
    level = replicate(results)
    pictures = [
        figures.superplot(cells, trait.replace("_", " "), TRAITS[trait], unit(trait), looks, level)
        for trait in study.traits
    ]
    caption = "Shape: all cells (middle 99 %); line: median of all cells; small marks: the mean of each frame, in order"
    caption += f"; large marks: the mean of each {level}, the same joined by a line." if level else "."
    what = f"the means of each {level}" if level else "the means of frames"
    lead = (
        f"Cells of one frame, and the same cell in several frames, are not independent: compare {what}, not the "
        "number of cells. Radius follows from area, and shape index from circularity."
    )
    return Section(
        "traits", "Traits of the cells", (lead,), (Gallery(pictures, caption),), "What you measure", "Traits"
    )


def groups(results: Results) -> dict[str, pd.DataFrame]:
    """Return the cells of the truth and of each method, apart by condition where conditions are compared."""
    study = results.study
    names = [*([TRUTH] if study.has_truth else []), *ordered(results)]
    if not study.by or study.independent or study.by not in study.cells:
        return {name: study.of(name) for name in names}
    conditions = sorted(map(str, study.cells[study.by].dropna().unique()))
    own = {name: study.of(name) for name in names}
    return {f"{c}: {name}": rows[rows[study.by].astype(str) == c] for c in conditions for name, rows in own.items()}


def replicate(results: Results) -> str:
    """Name the level that conditions are compared on, else the highest of which there are two or more; or nothing."""
    cells, table = results.study.cells, results.comparisons
    compared = [level for level in LEVELS if (table["clustered_by"] == level).any()]
    known = [level for level in LEVELS if is_known(cells, level) and cells[level].nunique() > 1]
    return next(iter([*(compared if results.study.by else []), *known]), "")
