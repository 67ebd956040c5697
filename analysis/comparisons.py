"""The tests of every trait and pair of methods on the same cells, one row each.

The same cells are seen by all methods, again and again, in shared frames. So cells are matched one-to-one, the
difference is tested with errors clustered by what they repeat in (`clusters`), and the pooled Mann-Whitney test of the
study is shown beside it with a caution.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import statistics as st
from analysis.clusters import clusters
from analysis.same_cells import same_cells
from analysis.samples import INDEPENDENT, TRAITS, Study
from data_io.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

POOLED = "pooled Mann-Whitney U (as in the study)"
SAME_CELLS = "same cells, cluster-robust t"
REPLICATES = "independent replicates, Welch t"
PAIRED_REPLICATES = "replicates in both conditions, paired t"
PERMUTED = "replicates, permutation test"
CAUTION = "caution: pooled cells are not independent, so p is not what it claims"
LEVEL = 0.05

COLUMNS = (
    "trait", "a", "b", "test", "estimate", "ci_low", "ci_high", "relative_percent", "statistic", "df", "n_cells",
    "n_clusters", "clustered_by", "n_eff", "p", "p_holm", "p_bh", "n_family", "hodges_lehmann", "a12", "cliffs_delta",
    "rank_biserial", "dropped", "caution", "verdict", "reason",
)  # fmt: skip


def compare_methods(study: Study, traits: Sequence[str] | None = None) -> pd.DataFrame:
    """Compare every pair of methods in every trait: `COLUMNS`, two rows (tests) each.

    `estimate` is the mean of a minus b over the cells both found (`SAME_CELLS`) or of all cells (`POOLED`, which has no
    interval that would hold). Holm counts the independent traits x pairs of the `SAME_CELLS` rows that could be tested.
    """
    rows = []
    if not study.independent:
        for a, b in combinations(study.methods, 2):
            cells = same_cells(study, a, b)
            for trait in chosen(study, traits):
                rows += [_pooled(study, trait, a, b), _paired(cells, trait, a, b)]
    return adjusted(pd.DataFrame(rows, columns=list(COLUMNS)), {SAME_CELLS})


def adjusted(table: pd.DataFrame, tests: set[str]) -> pd.DataFrame:
    """Correct the p-values of some tests, as one family of independent traits x pairs, and put verdicts in words."""
    family = table["test"].isin(tests) & table["trait"].isin(INDEPENDENT)
    for column, adjust in (("p_holm", st.holm), ("p_bh", st.benjamini_hochberg)):
        table.loc[family, column] = adjust(table.loc[family, "p"].to_numpy(float))
        table[column] = table[column].astype(float)
    table.loc[family, "n_family"] = int(np.isfinite(table.loc[family, "p"].to_numpy(float)).sum())
    return table.assign(verdict=[_verdict(row) for row in table.to_dict("records")])


def chosen(study: Study, traits: Sequence[str] | None) -> tuple[str, ...]:
    """Return the traits asked for, or all measured.

    Raises
    ------
    BadInput
        When one is not measured.
    """
    unknown = [trait for trait in traits or () if trait not in study.traits]
    if unknown:
        raise BadInput(f"trait {unknown[0]!r}: not measured here; choose from {', '.join(study.traits)}")
    return tuple(dict.fromkeys(traits)) if traits else study.traits


def _pooled(study: Study, trait: str, a: str, b: str) -> dict[str, Any]:
    x, y = (study.of(m)[TRAITS[trait]].to_numpy(float) for m in (a, b))
    found = st.mann_whitney(x, y)
    both = pd.concat([study.of(a), study.of(b)])
    by = clusters(both)
    finite = [values[np.isfinite(values)] for values in (x, y)]
    means = [values.mean() if len(values) else np.nan for values in finite]
    return {
        "trait": trait,
        "a": a,
        "b": b,
        "test": POOLED,
        "estimate": means[0] - means[1],
        "relative_percent": percent(means[0] - means[1], means[1]),
        "statistic": found.statistic,
        "n_cells": sum(map(len, finite)),
        "n_clusters": str(len(set(by.codes[0]))),
        "clustered_by": by.name.split(" ")[0],
        "n_eff": st.effective_n(both[TRAITS[trait]].to_numpy(float), by.codes[0]),
        "p": found.p,
        "hodges_lehmann": st.hodges_lehmann_shift(x, y),
        "a12": found.a12,
        "cliffs_delta": found.delta,
        "dropped": len(x) + len(y) - sum(map(len, finite)),
        "caution": CAUTION.removeprefix("caution: "),
        "reason": "" if np.isfinite(found.p) else f"not tested: {_why_not_pooled(finite, a, b)}",
    }


def _why_not_pooled(finite: list[NDArray[np.float64]], a: str, b: str) -> str:
    empty = [name for name, values in zip((a, b), finite, strict=True) if not len(values)]
    return f"{' and '.join(empty)} has no values" if empty else "all values are equal"


def _paired(cells: pd.DataFrame, trait: str, a: str, b: str) -> dict[str, Any]:
    d = (cells[f"{trait}_a"] - cells[f"{trait}_b"]).to_numpy(float)
    by = clusters(cells)
    found = st.clustered_mean(d, *by.codes)
    base = cells.loc[np.isfinite(d), f"{trait}_b"].mean() if len(cells) else np.nan
    return {
        "trait": trait,
        "a": a,
        "b": b,
        "test": SAME_CELLS,
        "estimate": found.mean,
        "ci_low": found.low,
        "ci_high": found.high,
        "relative_percent": percent(found.mean, base),
        "statistic": found.statistic,
        "df": found.df,
        "n_cells": found.n,
        "n_clusters": " x ".join(map(str, found.clusters)),
        "clustered_by": by.name,
        "n_eff": st.effective_n(d, by.codes[0]),
        "p": found.p,
        "hodges_lehmann": st.pseudomedian(d),
        "rank_biserial": st.signed_rank(d).rank_biserial,
        "dropped": found.dropped,
        "caution": by.caution,
        "reason": f"not tested: {found.reason}" if found.reason else "",
    }


def percent(part: float, whole: float) -> float:
    """Return 100 part / whole, NaN where that is no number."""
    return float(100 * part / whole) if np.isfinite(whole) and whole else float("nan")


def _verdict(row: dict[str, Any]) -> str:
    """Say what one test shows, never more."""
    trait = row["trait"].replace("_", " ")
    if row["test"] == POOLED:
        return row["reason"] or CAUTION
    if row["test"] == SAME_CELLS and row["n_cells"] > 1 and row["estimate"] == 0 and "all values" in row["reason"]:
        return f"{trait} is the same in {row['a']} and {row['b']} on every cell both found"
    if row["reason"]:
        return f"cannot rank in {trait}: {row['reason'].removeprefix('not tested: ')}"
    if row["trait"] not in INDEPENDENT:
        return f"{trait} follows another trait and is not counted as a further test"
    if row["test"] == PERMUTED and row["p_holm"] >= LEVEL:
        return f"no difference in {trait} shown by permutation (which does not prove them equal)"
    if row["p_holm"] >= LEVEL:
        return f"no difference in {trait} shown between {row['a']} and {row['b']} (which does not prove them equal)"
    more = "larger" if row["estimate"] > 0 else "smaller"
    by = f", by {abs(row['relative_percent']):.2g} %" if np.isfinite(row["relative_percent"]) else ""
    where = " on cells both found" if row["test"] == SAME_CELLS else " on average over replicates"
    return f"{trait} is {more} in {row['a']} than in {row['b']}{by}{where}"
