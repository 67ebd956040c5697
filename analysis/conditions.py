"""Independent conditions, such as treated and control: compared on the means of replicates, never on cells.

A replicate is the highest of patient, well and field that is known for every cell. Where replicates stand on both sides
(the same patients treated and not), their differences are tested, else the two groups of means. A permutation test of
the same means stands beside it; with few replicates it cannot reach a small p.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import statistics as st
from analysis.clusters import LEVELS
from analysis.comparisons import COLUMNS, PAIRED_REPLICATES, PERMUTED, REPLICATES, adjusted, chosen, percent
from analysis.samples import TRAITS, TRUTH, Study
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW = 2
"""Shared replicates from which conditions are compared within them."""
UNEQUAL = (
    "sides of unequal numbers: a permutation test supposes that replicates scatter alike in both, and rejects too "
    "often where those of the smaller side scatter more"
)


def compare_conditions(study: Study, by: str, traits: Sequence[str] | None = None) -> pd.DataFrame:
    """Compare the conditions in column `by`, method by method: the columns of `compare_methods`, two rows a pair.

    `a` and `b` read "method: condition", or just the condition where conditions came as separate files. Holm counts the
    independent traits and pairs of conditions of one method, the t tests and the permutation tests each.

    Raises
    ------
    BadInput
        No such column, a single condition, a replicate known for some cells only, or one of its own for each cell.
    """
    if by not in study.cells:
        columns = [name for name in study.cells if name not in ("frame_id", "track_id")]
        raise BadInput(f"--by {by}: no such column in the cells table; columns: {', '.join(map(str, columns))}")
    level = replicate_level(study.cells)
    parts = []
    for name in [""] if study.independent else [*study.methods, *([TRUTH] if study.has_truth else [])]:
        cells = study.of(name) if name else study.cells
        conditions = list(study.methods) if study.independent else sorted(map(str, cells[by].dropna().unique()))
        if len(conditions) < 2:
            raise BadInput(f"--by {by}: {' and '.join(conditions) or 'no value'} alone; two conditions are needed")
        rows = [
            row
            for a, b in combinations(conditions, 2)
            for trait in chosen(study, traits)
            for row in _tested(cells, trait, by, level, (a, b), name)
        ]
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        for tests in ({REPLICATES, PAIRED_REPLICATES}, {PERMUTED}):
            table = adjusted(table, tests)
        unknown = int(cells[by].isna().sum())
        if unknown:
            told = f"{unknown} cells without {by} are left out"
            table["caution"] = [f"{caution}; {told}" if caution else told for caution in table["caution"]]
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def replicate_level(cells: pd.DataFrame) -> str:
    """Return the highest of patient, well and field that the table knows.

    Raises
    ------
    BadInput
        When it is empty for some cells, or different for every cell.
    """
    level = next(name for name in LEVELS if name in cells and (name == LEVELS[-1] or cells[name].notna().any()))
    unknown = int(cells[level].isna().sum())
    if unknown:
        raise BadInput(
            f"column {level}: empty for {unknown} of {len(cells)} cells; fill it in, or leave the column out"
        )
    if len(cells) > 1 and cells.groupby(["method", level]).size().max() == 1:
        raise BadInput(
            f"column {level}: another value for every cell; cells are no replicates of a condition: give the {level} "
            "that each cell comes from"
        )
    return level


def _tested(
    cells: pd.DataFrame, trait: str, by: str, level: str, conditions: tuple[str, str], method: str
) -> list[dict[str, Any]]:
    """Rows of one trait and pair of conditions."""
    column = TRAITS[trait]
    sides = [cells[cells[by].astype(str) == condition] for condition in conditions]
    means = [side.groupby(level)[column].mean().dropna() for side in sides]
    values = np.concatenate([side[column].to_numpy(float) for side in sides])
    a, b = (f"{method}: {condition}" if method else condition for condition in conditions)
    shared = means[0].index.intersection(means[1].index)
    within = len(shared) >= min(FEW, *map(len, means)) > 0 and _is_crossed(cells, level)
    row = {
        "trait": trait,
        "a": a,
        "b": b,
        "n_cells": int(np.isfinite(values).sum()),
        "clustered_by": level,
        "dropped": int((~np.isfinite(values)).sum()),
    }
    base = float(means[1].mean()) if len(means[1]) else float("nan")
    found = _within(means, shared, level) if within else _between(means, level)
    if not within and len(shared) and _is_crossed(cells, level):
        found["caution"] = f"{_few(len(shared), level)} on both sides: the sides are not independent"
    permuted = {**row, **{key: found[key] for key in ("estimate", "n_clusters", "caution", "reason")}}
    permuted |= {"test": PERMUTED, "p": found.pop("p_permutation"), "n_eff": found["n_eff"]}
    if not within and len(means[0]) != len(means[1]) and not found["reason"]:
        permuted["caution"] = "; ".join(filter(None, (found["caution"], UNEQUAL)))
    relative = {"relative_percent": percent(found["estimate"], base)}
    return [row | found | relative, permuted | relative]


def _is_crossed(cells: pd.DataFrame, level: str) -> bool:
    """Tell whether equal names on both sides are one replicate: patients are; wells and fields only in one table."""
    return level == LEVELS[0] or cells["method"].nunique() == 1


def _within(means: list[pd.Series[float]], shared: pd.Index, level: str) -> dict[str, Any]:
    """Paired t test of the replicates that stand on both sides."""
    d = (means[0][shared] - means[1][shared]).to_numpy(float)
    found = st.clustered_mean(d)
    left_out = len(means[0]) + len(means[1]) - 2 * len(shared)
    told = f"{_few(left_out, level)} on one side only, left out" if left_out else ""
    return {
        "test": PAIRED_REPLICATES,
        "estimate": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "statistic": found.statistic,
        "df": found.df,
        "n_clusters": str(len(shared)),
        "n_eff": float(len(shared)),
        "p": found.p,
        "p_permutation": st.sign_flips(d) if not found.reason else float("nan"),
        "caution": told,
        "reason": _reason(found.reason, len(shared), level),
    }


def _between(means: list[pd.Series[float]], level: str) -> dict[str, Any]:
    """Welch's t test of the replicates of either side."""
    found = st.independent(*(side.to_numpy(float) for side in means))
    return {
        "test": REPLICATES,
        "estimate": found.difference,
        "ci_low": found.low,
        "ci_high": found.high,
        "statistic": found.statistic,
        "df": found.df,
        "n_clusters": f"{found.n[0]} + {found.n[1]}",
        "n_eff": float(sum(found.n)),
        "p": found.p,
        "p_permutation": found.p_permutation,
        "caution": "",
        "reason": _reason(found.reason.replace("replicates", f"{level}s"), max(found.n), level),
    }


def _few(n: int, level: str) -> str:
    return f"{n} {level}" if n == 1 else f"{n} {level}s"


def _reason(told: str, replicates: int, level: str) -> str:
    if not told:
        return ""
    if replicates == 1:
        return f"not tested: one {level} cannot speak for others, so there is no population p-value ({told})"
    return f"not tested: {told}"
