"""The same cells measured two ways: our unbiased estimators and TrackMate's, and what a perfect disc gives in both.

Traits from two programs do not compare until both draw the outline alike: TrackMate thins the pixel outline to a few
vertices, which makes perimeters longer and circularities smaller, the more so the smaller the cells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.clusters import clusters
from analysis.matched import matched
from analysis.report import MISSING, Block, Cell, Section, Table, number, significant
from analysis.results import ordered
from analysis.samples import TRAITS, TRUTH
from analysis.statistics import clustered_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from analysis.results import Results
    from analysis.samples import Study

DISCS, MOST_PIXELS = 144, 2_000_000
"""Discs measured, and the pixels they may take together: large ones are fewer."""


def true_disc(trait: str, radius: float) -> float:
    """Return the trait of a disc by geometry, lengths in px."""
    return {
        "area": math.pi * radius**2,
        "perimeter": 2 * math.pi * radius,
        "circularity": 1.0,
        "solidity": 1.0,
        "radius": radius,
        "shape_index": 2 * math.sqrt(math.pi),
    }[trait]


def on_discs(radius: float) -> pd.DataFrame:
    """Return the mean error in % of both conventions on digitised discs at random sub-pixel places.

    Columns trait, ours, trackmate, n; the places are drawn with a fixed seed.
    """
    from postprocess.morphology import measure

    side = 2 * math.ceil(radius) + 5
    across = max(1, min(math.isqrt(DISCS), math.isqrt(MOST_PIXELS) // side))
    labels = np.zeros((across * side, across * side), np.int32)
    rng = np.random.default_rng(0)
    for k in range(across**2):
        row, column = divmod(k, across)
        centre = side / 2 + rng.uniform(-0.5, 0.5, 2)
        y, x = np.ogrid[:side, :side]
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        labels[row * side : (row + 1) * side, column * side : (column + 1) * side][inside] = k + 1
    table = measure(labels)
    rows = [
        (trait, _off(table[TRAITS[trait]], trait, radius), _off(table[f"{trait}_trackmate"], trait, radius), len(table))
        for trait in TRAITS
    ]
    return pd.DataFrame(rows, columns=["trait", "ours", "trackmate", "n"])


def _off(measured: pd.Series[float], trait: str, radius: float) -> float:
    return float(100 * (measured.mean() / true_disc(trait, radius) - 1))


def conventions(study: Study, method: str) -> pd.DataFrame:
    """Return each trait of a method's cells in both conventions, a row per trait that has both.

    Columns trait, n_cells, ours, trackmate (means over cells measured both ways), percent (mean of TrackMate's value
    over ours, minus 100 %), low, high (95 %, clustered by track and frame or by frame; NaN below 5 clusters), reason.
    """
    cells = study.of(method)
    rows = []
    for trait in _both(study):
        ours, theirs = cells[TRAITS[trait]].to_numpy(float), cells[f"{trait}_trackmate"].to_numpy(float)
        known = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0)
        ratio = np.divide(theirs, ours, out=np.full(len(ours), np.nan), where=known)
        found = clustered_mean(100 * (ratio - 1), *clusters(cells).codes)
        means = (float(ours[known].mean()), float(theirs[known].mean())) if known.any() else (np.nan, np.nan)
        rows.append((trait, int(known.sum()), *means, found.mean, found.low, found.high, found.reason))
    return pd.DataFrame(rows, columns=["trait", "n_cells", "ours", "trackmate", "percent", "low", "high", "reason"])


def biases(study: Study, methods: list[str]) -> pd.DataFrame:
    """Return the bias of each method against the truth when both are measured in one convention, % of the true mean.

    Columns trait, method, n_cells, ours, trackmate.
    """
    rows = []
    for trait in _both(study):
        for method in methods:
            cells = matched(study, method)
            both = [_bias(cells, column) for column in (TRAITS[trait], f"{trait}_trackmate")]
            rows.append((trait, method, len(cells), *both))
    return pd.DataFrame(rows, columns=["trait", "method", "n_cells", "ours", "trackmate"])


def _bias(cells: pd.DataFrame, column: str) -> float:
    true, own = (cells[f"{column}_{side}"].to_numpy(float) for side in ("true", "own"))
    known: NDArray[np.bool_] = np.isfinite(true) & np.isfinite(own)
    return float(100 * (own[known].mean() / true[known].mean() - 1)) if known.any() else np.nan


def _both(study: Study) -> list[str]:
    return [trait for trait in study.traits if f"{trait}_trackmate" in study.cells]


def convention_chapter(results: Results) -> Section | None:
    """Tabulate every trait as measured here and as TrackMate measures it."""
    study = results.study
    if not _both(study):
        return None
    reference = TRUTH if study.has_truth else ordered(results)[0]
    radius = float(study.of(reference)[TRAITS["radius"]].median()) if "radius" in study.traits else math.nan
    table = conventions(study, reference).set_index("trait")
    if not table["n_cells"].any():
        return None
    discs = on_discs(radius).set_index("trait") if np.isfinite(radius) and radius >= 1 else pd.DataFrame()
    rows: list[list[Cell | str]] = []
    for trait, row in table.iterrows():
        ideal = [number(discs.loc[trait, kind], 1) if len(discs) else MISSING for kind in ("ours", "trackmate")]
        ends = (float(row["low"]), float(row["high"]))
        told = f"{ends[0]:.1f} to {ends[1]:.1f}" if np.isfinite(ends).all() else ""
        rows.append(
            [
                str(trait).replace("_", " "),
                str(row["n_cells"]),
                significant(row["ours"]),
                significant(row["trackmate"]),
                Cell(number(row["percent"], 1), below=told),
                *ideal,
            ]
        )
    columns = (
        "trait",
        "cells",
        "unbiased",
        "TrackMate",
        "TrackMate more by %",
        "disc: unbiased %",
        "disc: TrackMate %",
    )
    note = (
        f"Cells of {reference}. Area of pixels, Crofton's perimeter and one smooth contour (unbiased) against the "
        "simplified contour of TrackMate 7 and 8. Small print: 95 % interval, clustered. "
    )
    if len(discs):
        note += (
            f"Disc: mean error on {int(discs['n'].iloc[0])} digitised discs of radius {radius:.1f} px, the median of "
            "these cells, whose traits are known."
        )
    blocks: list[Block] = [Table(f"The cells of {reference}, measured both ways", columns, rows, ("trait",), note)]
    if study.has_truth:
        blocks.append(_bias_table(biases(study, ordered(results))))
    lead = (
        "Never compare a circularity or perimeter from TrackMate with one from elsewhere: the two programs draw the "
        "outline of the same pixels differently. Both are in the cells table, the second as columns that end in "
        "_trackmate. Within one convention methods compare."
    )
    title = "Unbiased and TrackMate's measures"
    return Section("conventions", title, (lead,), tuple(blocks), "What you measure", "TrackMate's convention")


def _bias_table(table: pd.DataFrame) -> Table:
    rows: list[list[Cell | str]] = [
        [row.trait.replace("_", " "), row.method, str(row.n_cells), number(row.ours, 1), number(row.trackmate, 1)]
        for row in table.itertuples()
    ]
    return Table(
        "Bias of each method in either convention",
        ("trait", "method", "cells", "bias %, unbiased", "bias %, TrackMate"),
        rows,
        ("trait", "method"),
        "Method minus truth, both measured alike, % of the true mean; matched cells away from the border.",
        folded=len(rows) > 12,
    )
