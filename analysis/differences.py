"""What the tests say, pair by pair: the same cells compared, the pooled test of the study beside it, conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.comparisons import LEVEL, PAIRED_REPLICATES, PERMUTED, POOLED, REPLICATES, SAME_CELLS
from analysis.report import MISSING, Block, Cell, Section, Table, many, number, p_value, significant, with_ci
from analysis.results import ONE_FIELD

if TYPE_CHECKING:
    import pandas as pd

    from analysis.results import Results


def difference_chapter(results: Results) -> Section | None:
    """Compare methods pair by pair, with the pooled test of the study beside the one that holds; then conditions."""
    table = results.comparisons
    if table.empty:
        return None
    paired, pooled = table[table["test"] == SAME_CELLS], table[table["test"] == POOLED]
    others = table[table["test"].isin(T_TESTS)]
    blocks: list[Block] = []
    if len(paired):
        blocks.append(_same_cells(results, paired, pooled))
    if len(others):
        blocks.append(_conditions(others, table[table["test"] == PERMUTED]))
    lead = (
        "The methods see the same cells, again and again, in shared frames. So each cell is compared with itself, and "
        "errors may repeat within a track and within a frame.",
        "The last two columns show what papers usually report: a Mann-Whitney test that takes every cell for an "
        "independent one. With no true difference it rejected in 36 % of simulated studies where each cell keeps its "
        "own error. n_eff is how many independent cells the pooled ones are worth.",
    )
    told = _counted(table)
    limit = f" {ONE_FIELD}" if results.one_field and (table["p_holm"] < LEVEL).any() else ""
    paragraphs = (*(lead if len(paired) else ()), told + limit)
    title = "Do the methods measure differently?" if len(paired) else "Do the conditions differ?"
    return Section("comparisons", title, paragraphs, tuple(blocks), "What you measure", "Comparisons")


T_TESTS = (REPLICATES, PAIRED_REPLICATES)
"""Tests of conditions; a permutation test stands beside each."""


def _counted(table: pd.DataFrame) -> str:
    table = table[table["test"].isin([SAME_CELLS, *T_TESTS])]
    tested = table["p_holm"].notna()
    if not tested.any():
        return "No comparison could be tested here; cannot rank."
    clear = int((table.loc[tested, "p_holm"] < LEVEL).sum())
    return (
        f"Of {many(int(tested.sum()), 'comparison')} of independent traits that could be tested, {clear} "
        f"{'shows' if clear == 1 else 'show'} a difference after Holm's correction at {LEVEL:g}."
    )


def _same_cells(results: Results, paired: pd.DataFrame, pooled: pd.DataFrame) -> Table:
    usual = {(row["trait"], row["a"], row["b"]): row for row in pooled.to_dict("records")}
    rows: list[list[Cell | str]] = []
    for row in paired.to_dict("records"):
        other = usual.get((row["trait"], row["a"], row["b"]), {})
        rows.append(
            [
                row["trait"].replace("_", " "),
                f"{row['a']} - {row['b']}",
                *_tested(row),
                row["verdict"],
                p_value(other.get("p")),
                significant(other.get("n_eff")),
            ]
        )
    columns = ("trait", "pair", *TESTED, "in words", "pooled p (caution)", "pooled n_eff")
    note = (
        f"Cells are paired by {results.study.matched_by}. Small print: 95 % interval. p (Holm) is adjusted over the "
        "independent traits and pairs; radius follows area, shape index circularity. comparisons.csv has more columns."
    )
    return Table("The same cells, method by method", columns, rows, ("trait", "pair", "in words"), note, len(rows) > 24)


TESTED = ("difference", "%", "cells", "clusters", "p", "p (Holm)")


def _tested(row: dict[str, Any]) -> list[Cell | str]:
    return [
        with_ci(row["estimate"], (row["ci_low"], row["ci_high"])),
        number(row["relative_percent"], 1),
        f"{row['n_cells']:,}",
        str(row["n_clusters"]),
        p_value(row["p"]),
        p_value(row["p_holm"]),
    ]


def _conditions(others: pd.DataFrame, permuted: pd.DataFrame) -> Table:
    usual = {(row["trait"], row["a"], row["b"]): row for row in permuted.to_dict("records")}
    rows: list[list[Cell | str]] = []
    for row in others.to_dict("records"):
        other = usual.get((row["trait"], row["a"], row["b"]), {})
        names = row["trait"].replace("_", " "), f"{row['a']} - {row['b']}", str(row["test"])
        rows.append([*names, *_tested(row), p_value(other.get("p")), row["verdict"]])
    columns = ("trait", "pair", "test", *TESTED, "p, permuted", "in words")
    levels = ", ".join(sorted(set(others["clustered_by"].astype(str)))) or MISSING
    note = (
        f"The unit tested is the replicate ({levels}), not the cell; clusters are the replicates of each side. A "
        "permutation test of the same means stands beside the t test: with few replicates it cannot be small."
    )
    return Table("Independent conditions", columns, rows, ("trait", "pair", "test", "in words"), note, len(rows) > 24)
