"""Does a method make cells rounder than they are? The error of circularity against the true circularity.

A method with an idea of what a cell looks like (star-convex polygons, smoothing) draws what it expects: irregular cells
come out rounder. The mean over all cells may hide this, the slope does not: 0 where every cell keeps its shape, -1
where all come out alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis import figures
from analysis.clusters import clusters
from analysis.comparisons import LEVEL
from analysis.matched import matched, values
from analysis.report import Cell, Gallery, Section, Table, interval, number, p_value
from analysis.results import ONE_FIELD, ordered
from analysis.slope import clustered_slope
from analysis.statistics import holm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from analysis.figures import Frame, Look, Picture
    from analysis.results import Results
    from analysis.samples import Study

TRAIT = "circularity"


def rounding(study: Study, methods: list[str]) -> pd.DataFrame:
    """Return the slope of the error of circularity on the true circularity, a row per method.

    Columns method, n_cells, slope, low, high (95 %, clustered), p, p_holm (over methods), kept (SD of circularity as
    measured over the true SD), clustered_by, verdict, reason.
    """
    rows = []
    for method in methods:
        cells = matched(study, method)
        true, own = values(cells, TRAIT)
        by = clusters(cells, "_true")
        found = clustered_slope(true, own - true, *by.codes)
        both = np.isfinite(true) & np.isfinite(own)
        spread = float(true[both].std()) if both.any() else 0.0
        kept = float(own[both].std()) / spread if spread > 0 else np.nan
        rows.append(
            {
                "method": method, "n_cells": found.n, "slope": found.mean, "low": found.low, "high": found.high,
                "p": found.p, "kept": kept, "clustered_by": by.name, "reason": found.reason,
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["verdict"] = [_in_words(*row) for row in table[["reason", "p_holm", "slope"]].itertuples(index=False)]
    return table


def _in_words(reason: str, p: float, slope: float) -> str:
    if reason:
        return f"descriptive only: {reason}"
    if not p < LEVEL:
        return "no levelling of shapes shown"
    if slope < 0:
        return "levels shapes: irregular cells come out rounder, compared with round ones"
    return "exaggerates shapes: irregular cells come out more irregular, compared with round ones"


def rounding_chapter(results: Results, looks: Mapping[str, Look]) -> Section | None:
    """Draw and tabulate the error of circularity against the true circularity."""
    study = results.study
    if not study.has_truth or TRAIT not in study.traits:
        return None
    table = rounding(study, ordered(results))
    if table["slope"].isna().all():
        return None
    clouds = {}
    for method in ordered(results):
        true, own = values(matched(study, method), TRAIT)
        known = np.isfinite(true) & np.isfinite(own)
        if np.count_nonzero(known) > 2:
            clouds[method] = true[known], own[known] - true[known]
    frame = figures.shared_frame(list(clouds.values()))
    slope = table.set_index("method")["slope"]
    pictures = [_picture(m, x, y, float(slope[m]), looks.get(m, figures.NOBODY), frame) for m, (x, y) in clouds.items()]
    rows: list[list[Cell | str]] = [
        [
            row["method"],
            str(row["n_cells"]),
            Cell(number(row["slope"], 2), below=_small(row)),
            number(row["kept"], 2),
            p_value(row["p_holm"]),
            row["verdict"],
        ]
        for row in table.to_dict("records")
    ]
    note = (
        f"95 % intervals clustered by {', '.join(sorted(set(table['clustered_by'])))}; p adjusted by Holm's method "
        "over the methods. Spread kept: SD of the circularity measured, over the true SD. An annotation that is itself "
        "uneven makes every slope a little more negative. "
    )
    note += ONE_FIELD if results.one_field and table["low"].notna().any() else ""
    lead = (
        "Slope 0: each cell keeps its own shape. Slope -1: all cells come out alike, whatever their shape. A method "
        "that expects round cells, such as star-convex polygons, can have no bias on average and still hide that some "
        "cells are elongated."
    )
    columns = ("method", "cells", "slope", "spread kept", "p (Holm)", "in words")
    blocks = (
        Gallery(
            pictures, "Error of circularity of each matched cell against its true circularity, with the fitted line."
        ),
        Table("Error of circularity against true circularity", columns, rows, ("method", "in words"), note),
    )
    return Section("rounding", "Are cells made rounder?", (lead,), blocks, "What you measure", "Rounding")


def _small(row: Mapping[str, float]) -> str:
    return interval((row["low"], row["high"]), 2) if np.isfinite(row["low"]) else ""


def _picture(
    method: str, x: NDArray[np.float64], y: NDArray[np.float64], slope: float, look: Look, frame: Frame | None
) -> Picture:
    shown = figures.sample(len(x))
    with figures.canvas() as (figure, axis):
        figures.scatter(axis, x[shown], y[shown], look)
        axis.axhline(0, color=figures.INK, linewidth=0.8)
        if np.isfinite(slope):
            ends = np.array([x.min(), x.max()])
            axis.plot(ends, y.mean() + slope * (ends - x.mean()), color=look.colour, linewidth=2, linestyle=look.dash)
        if frame:
            axis.set(xlim=frame.x, ylim=frame.y)
        axis.locator_params(axis="x", nbins=5)
        axis.set(title=figures.short(method), xlabel="true circularity", ylabel="method - truth")
        data = pd.DataFrame({"true_circularity": x[shown], "error": y[shown]})
        alt = f"Error of circularity of {method} against true circularity: slope {slope:.2f}, {len(x)} matched cells."
        return figures.svg(figure, alt, name=f"rounding_{method}", data=data)
