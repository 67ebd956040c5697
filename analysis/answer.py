"""The table under the verdict: which method to use for which trait, how sure that is, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.report import MISSING, Cell, Table, interval, number
from analysis.results import ONE_FIELD

if TYPE_CHECKING:
    from analysis.results import Results

GUESSING = 1.0
"""Trait fidelity error of calling every cell average, in SD of the true trait."""
GUESS = "; not shown to be better than calling every cell average"


def answer(results: Results) -> Table | None:
    """Return a row per trait from `Results.choices`; None without truth or with a single method."""
    table = results.choices
    if table.empty:
        return None
    rows: list[list[Cell | str]] = [
        [
            str(row["trait"]).replace("_", " "),
            Cell(str(row["use"]) or MISSING, strong=True),
            _how_sure(row),
            _with_ends(row, "tfe"),
            str(row["best_pq"]) or MISSING,
            _with_ends(row, "gain"),
            _with_ends(row, "pq_cost", 3),
        ]
        for row in table.to_dict("records")
    ]
    note = (
        "TFE, the trait fidelity error: typical error in SD of the true trait, a missed or invented cell counting 1; 0 "
        f"is perfect, {GUESSING:g} is calling every cell average. Gain: TFE of the method with the highest PQ minus "
        "that of the method named; cost: the PQ given up for it. Small print: 95 % interval, clustered. Radius "
        "follows area, shape index circularity. "
    )
    note += ONE_FIELD if results.one_field and table["tfe_low"].notna().any() else ""
    columns = ("trait", "smallest error", "how sure", "TFE", "highest PQ", "gain in TFE", "cost in PQ")
    words = ("trait", "smallest error", "how sure", "highest PQ")
    return Table("Which method for which trait", columns, rows, words, note)


def _how_sure(row: dict[str, Any]) -> str:
    """Say what the test shows about the choice, never more."""
    if row["reason"]:
        said = f"point estimate only: {row['reason']}"
    elif row["certain"]:
        said = "smaller than that of every other method"
    else:
        said = f"not told apart from {row['tied']}"
    return said + (GUESS if max(row["tfe"], row["tfe_high"]) >= GUESSING else "")


def _with_ends(row: dict[str, Any], name: str, digits: int = 2) -> Cell:
    told = interval((row[f"{name}_low"], row[f"{name}_high"]), digits)
    return Cell(number(row[name], digits), below="" if told == MISSING else told)
