"""The page about comparisons speaks of columns, commands and figures that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis import agreement, choice, comparisons, score
from analysis.compare import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "analysis" / "README.md").read_text(encoding="utf-8")


def named(heading: str) -> set[str]:
    """Return the names in the first column of the table under a bold heading."""
    part = PAGE[PAGE.index(f"**{heading}**") :]
    table = part[part.index("\n|") : part.index("\n\n", part.index("\n|"))]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("comparisons.csv", comparisons.COLUMNS),
        ("agreement.csv", agreement.COLUMNS),
        ("scores.csv", tuple(score.IN_WORDS)),
    ],
)
def test_every_column_told_is_written(heading: str, columns: tuple[str, ...]) -> None:
    told = named(heading) - {"threshold_rule", "empty_rule", "notes"}
    assert len(told) > 10
    assert not {name for name in told if name not in columns}


def test_every_column_written_is_told() -> None:
    words = set(re.findall(r"[a-z0-9_]+", PAGE))
    for columns in (comparisons.COLUMNS, score.IN_WORDS):
        assert not [name for name in columns if name not in words]
    assert {"use", "tied", "certain", "front", "gain", "pq_cost"} <= words & set(choice.COLUMNS)


def test_rows_told_are_the_tests_there_are() -> None:
    for name in ("POOLED", "SAME_CELLS", "REPLICATES", "PAIRED_REPLICATES", "PERMUTED"):
        assert f"`{getattr(comparisons, name)}`" in PAGE


def test_scripts_told_are_there() -> None:
    for path in re.findall(r"`(?:python )?(tests/\S+\.py)", PAGE):
        assert (ROOT / path).is_file(), path
    assert "--allow-missing" in PAGE
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0


def test_tables_of_the_page_are_tables() -> None:
    for table in re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert pd.Series(PAGE.splitlines()).str.len().max() < 250
