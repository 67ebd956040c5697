"""Do cells that touch others come out larger, smaller, rounder? The error of each trait against the neighbours.

A neighbour is another annotated cell that shares a pixel edge with a cell. Where cells lie close, what separates them
decides the outline, so that a method may be right on the average and wrong in every clump.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import figures
from analysis.clusters import clusters
from analysis.comparisons import LEVEL
from analysis.matched import matched, percent
from analysis.report import Block, Cell, Gallery, Section, Table, number, p_value, significant, with_ci
from analysis.results import ONE_FIELD, ordered
from analysis.samples import INDEPENDENT
from analysis.slope import clustered_slope
from analysis.statistics import clustered_mean, holm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from analysis.figures import Look, Picture
    from analysis.results import Results
    from analysis.samples import Study

MOST = 3
"""Cells with as many neighbours or more are one group."""
FEWEST_CELLS = 5
"""Cells that a mean needs to be drawn; the table of the figure has them all."""
NEIGHBOURS = "n_neighbours_true"


def by_neighbours(study: Study, method: str, trait: str) -> pd.DataFrame:
    """Return the mean error, % of the true value, of matched cells with 0, 1, 2, `MOST` or more touching neighbours.

    Columns neighbours, n_cells, error, low, high (95 %, clustered; NaN below 5 clusters), reason.
    """
    cells = matched(study, method)
    error, group = percent(cells, trait), np.minimum(cells[NEIGHBOURS].to_numpy(float), MOST)
    codes = clusters(cells, "_true").codes
    rows = []
    for k in range(MOST + 1):
        own = group == k
        found = clustered_mean(error[own], *(c[own] for c in codes))
        rows.append((k, found.n, found.mean, found.low, found.high, found.reason))
    return pd.DataFrame(rows, columns=["neighbours", "n_cells", "error", "low", "high", "reason"])


def slopes(study: Study, methods: list[str], traits: list[str]) -> pd.DataFrame:
    """Return how much the error, % of the true value, changes with each touching neighbour.

    One row per trait and method: trait, method, n_cells, touching (share of cells with a neighbour), slope, low, high,
    p, p_holm (over all rows), clustered_by, verdict, reason.
    """
    rows = []
    for trait in traits:
        for method in methods:
            cells = matched(study, method)
            neighbours = cells[NEIGHBOURS].to_numpy(float)
            by = clusters(cells, "_true")
            found = clustered_slope(neighbours, percent(cells, trait), *by.codes)
            touching = float(np.mean(neighbours > 0)) if len(cells) else np.nan
            rows.append(
                {
                    "trait": trait, "method": method, "n_cells": found.n, "touching": touching, "slope": found.mean,
                    "low": found.low, "high": found.high, "p": found.p, "clustered_by": by.name, "reason": found.reason,
                }
            )  # fmt: skip
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["verdict"] = [_in_words(row) for row in table.to_dict("records")]
    return table


def _in_words(row: dict[str, object]) -> str:
    if row["reason"]:
        return f"descriptive only: {row['reason']}"
    if not float(str(row["p_holm"])) < LEVEL:
        return "no change with neighbours shown"
    more = "larger" if float(str(row["slope"])) > 0 else "smaller"
    return f"{row['trait']} is measured {more}, the more neighbours touch"


def density_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Draw and tabulate the error of each trait against the number of touching neighbours."""
    study = results.study
    if not study.has_truth or "n_neighbours" not in study.cells:
        return None
    methods, traits = ordered(results), [t for t in INDEPENDENT if t in study.traits]
    groups = {(trait, m): by_neighbours(study, m, trait) for trait in traits for m in methods}
    if not any(own["n_cells"].iloc[1:].any() for own in groups.values()):
        return None
    pictures = [_picture(trait, {m: groups[trait, m] for m in methods}, looks) for trait in traits]
    table = slopes(study, methods, traits)
    rows: list[list[Cell | str]] = [
        [
            row["trait"],
            row["method"],
            str(row["n_cells"]),
            number(100 * row["touching"], 0),
            with_ci(row["slope"], (row["low"], row["high"])),
            p_value(row["p_holm"]),
            row["verdict"],
        ]
        for row in table.to_dict("records")
    ]
    note = (
        "Change per neighbour: slope of a straight line, percentage points, with its 95 % interval clustered by "
        f"{', '.join(sorted(set(table['clustered_by'])))}. p is adjusted by Holm's method over this table. "
    )
    note += ONE_FIELD if results.one_field and table["low"].notna().any() else ""
    columns = ("trait", "method", "cells", "touching %", "change per neighbour", "p (Holm)", "in words")
    lead = (
        "Where cells touch, something has to part them, and a bias can hide there: a method may be right on average "
        "and wrong in every clump. If treated cells cluster more than others, such a bias looks like an effect of the "
        "treatment. A line that stays level is what you want."
    )
    drawn = (
        "Mean error of matched cells, % of the true value, by the number of annotated cells that touch them; bars: "
        f"95 % interval, clustered, none below 5 clusters; {MOST} is {MOST} or more; no mean of fewer than "
        f"{FEWEST_CELLS} cells."
    )
    blocks: tuple[Block, ...] = (
        Gallery(pictures, drawn, figures.legend(methods, looks)),
        Table(
            "Does the error change with the number of neighbours?", columns, rows, ("trait", "method", "in words"), note
        ),
    )
    return Section("density", "Bias where cells touch", (lead,), blocks, "What you measure", "Touching cells")


def _picture(trait: str, groups: Mapping[str, pd.DataFrame], looks: Mapping[str, Look]) -> Picture:
    with figures.canvas(3.7, 3.0) as (figure, axis):
        shifts = np.linspace(-0.2, 0.2, len(groups)) if len(groups) > 1 else np.zeros(1)
        for (method, own), shift in zip(groups.items(), shifts, strict=True):
            look, known = looks.get(method, figures.NOBODY), own[own["n_cells"] >= FEWEST_CELLS]
            x, y = known["neighbours"].to_numpy(float) + shift, known["error"].to_numpy(float)
            reach = np.nan_to_num(np.stack([y - known["low"], known["high"] - y]))
            axis.errorbar(
                x, y, reach, fmt=look.marker, linestyle=look.dash, color=look.colour, linewidth=1.1, markersize=5,
                elinewidth=0.9, label=method,
            )  # fmt: skip
        axis.axhline(0, color=figures.INK, linewidth=0.8)
        axis.set_xticks(range(MOST + 1), [*map(str, range(MOST)), f"{MOST}+"])
        axis.set(title=trait, xlabel="touching neighbours", ylabel="error (%)")
        told = "; ".join(f"{m} {', '.join(significant(v, 2) for v in own['error'])}" for m, own in groups.items())
        data = pd.concat([own.assign(method=m) for m, own in groups.items()], ignore_index=True)
        alt = f"Mean error of {trait} in % for cells with 0, 1, 2, {MOST} or more touching neighbours: {told}."
        return figures.svg(figure, alt, name=f"density_{trait}", data=data)
