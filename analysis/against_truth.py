"""Each method's measurements held against the truth: bias, limits of agreement, trait fidelity, Bland-Altman plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import figures
from analysis.fidelity import pareto_front
from analysis.matched import matched, values
from analysis.report import MISSING, Block, Cell, Gallery, Section, Table, interval, number, significant, with_ci
from analysis.results import ONE_FIELD, Results, or_nan, ordered, unit
from analysis.samples import INDEPENDENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.figures import Look, Picture

READING = (
    "Full line: bias; dashed: 95 % limits; bands: their 95 % intervals, clustered, where there are any; thin line: no "
    "difference. Same axes for all. Border cells left out."
)
"""How to read a Bland-Altman plot."""


def agreement_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Hold each method's measurements against the truth, cell by cell."""
    table, study = results.agreement, results.study
    if table.empty:
        return None
    rows: list[list[Cell | str]] = []
    order = {method: at for at, method in enumerate(ordered(results))}
    in_words = table["verdict"].nunique() > 1
    for row in sorted(table.to_dict("records"), key=lambda r: (study.traits.index(r["trait"]), order[r["method"]])):
        best = table.loc[table["trait"] == row["trait"], "tfe"].min()
        cells: list[Cell | str] = [
            row["trait"].replace("_", " "),
            row["method"],
            str(row["n_matched"]),
            with_ci(row["bias"], (row["bias_low"], row["bias_high"])),
            number(row["bias_percent"], 1),
            f"{significant(row['loa_low'])} to {significant(row['loa_high'])}",
            number(row["ccc"], 2),
            Cell(number(row["tfe"], 2), strong=row["tfe"] == best, below=_tfe_interval(row)),
            f"{number(row['tfe_matched'], 2)} / {number(row['tfe_detection'], 2)}",
        ]
        rows.append([*cells, row["verdict"]] if in_words else cells)
    columns = (
        "trait", "method", "cells", "bias", "bias %", "95 % limits", "CCC", "TFE", "of it outlines / detection",
        *(["in words"] if in_words else []),
    )  # fmt: skip
    reasons = sorted({reason for reason in table["reason"] if reason})
    note = f"Intervals, where given, are clustered by {', '.join(sorted(set(table['clustered_by'])))}. "
    note += f"Not everything could be tested: {'; '.join(reasons)}. " if reasons else ""
    if in_words or not reasons:
        adjusted = "tost_p_holm" in table
        note += f"Tests are {'' if adjusted else 'not '}adjusted for their number{' (Holm)' if adjusted else ''}. "
    note += f"{ONE_FIELD} " if results.one_field and table["bias_low"].notna().any() else ""
    note += f"The spread of a trait is the SD over {', '.join(sorted(set(table['sigma_source'])))}. Lengths in px."
    main = Table("Matched cells, method minus truth", columns, rows, ("trait", "method", "in words"), note)
    lead = (
        "IoU does not see what you measure. Bias is what a method adds to every cell on average, the limits hold 95 % "
        "of cells, CCC is agreement (1 perfect). TFE, the trait fidelity error, is the typical error in units of "
        "the natural spread between cells; a missed or invented cell counts as one spread. 0 is perfect, 1 is no "
        "better than guessing the mean."
    )
    blocks: list[Block] = [main]
    for trait in [t for t in INDEPENDENT if t in study.traits]:
        pictures = _bland_altman(results, trait, looks)
        if pictures:
            caption = f"Bland-Altman plots of {trait}"
            folded = trait not in ("area", "circularity")
            blocks.append(Gallery(pictures, caption if folded else f"{caption}. {READING}", folded=folded))
    fronts = _fronts(results, looks)
    if fronts:
        told = "Ring: no other method is at least as good in both PQ and trait fidelity."
        blocks.append(Gallery(fronts, told, figures.legend(ordered(results), looks)))
    title = "Agreement with the annotation, trait by trait"
    return Section("agreement", title, (lead,), tuple(blocks), "What you measure", "Agreement")


def _tfe_interval(row: Mapping[str, Any]) -> str:
    told = interval((or_nan(row.get("tfe_low")), or_nan(row.get("tfe_high"))), 2)
    return "" if told == MISSING else told


BANDS = (("bias_low", "bias_high"), ("loa_low_ci_low", "loa_low_ci_high"), ("loa_high_ci_low", "loa_high_ci_high"))
"""Columns of agreement.csv with the intervals of the bias and of both limits."""


def _bland_altman(results: Results, trait: str, looks: Mapping[str, Look]) -> list[Picture]:
    clouds = {}
    for method in ordered(results):
        true, own = values(matched(results.study, method), trait)
        both = np.isfinite(true) & np.isfinite(own)
        if np.count_nonzero(both) > 2:
            clouds[method] = true[both], own[both]
    frame = figures.shared_frame([((x + y) / 2, y - x) for x, y in clouds.values()])
    rows = results.agreement[results.agreement["trait"] == trait].set_index("method")
    return [
        figures.bland_altman(
            x, y, trait, unit(trait), method, looks[method], frame, [tuple(rows.loc[method, list(b)]) for b in BANDS]
        )
        for method, (x, y) in clouds.items()
    ]


def _fronts(results: Results, looks: Mapping[str, Look]) -> list[Picture]:
    pictures = []
    for trait in [t for t in INDEPENDENT if t in results.study.traits]:
        errors = results.agreement.set_index(["trait", "method"])["tfe"]
        points = {m: (float(s["pq_50"]), float(errors.get((trait, m), np.nan))) for m, s in results.scored.items()}
        points = {m: point for m, point in points.items() if np.isfinite(point).all()}
        if len(points) > 1:
            on = pareto_front(*zip(*points.values(), strict=True))
            ringed = [m for m, is_on in zip(points, on, strict=True) if is_on]
            pictures.append(figures.front(points, trait, ringed, looks))
    return pictures
