"""Every row of the fault table has tests that exist, and the page says what the table says."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.table import TABLE, Row, as_markdown

TESTS = Path(__file__).resolve().parents[1]


@cache
def functions(file: Path) -> set[str]:
    """Names of the test functions of a file."""
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_row_is_shown_by_tests_that_exist(row: Row) -> None:
    assert row.tests
    for test in row.tests:
        file, _, name = test.partition("::")
        assert name in functions(TESTS / file), test


def test_no_row_is_missing() -> None:
    names = [row.name for row in TABLE]
    assert len(names) == len(set(names))
    assert {f"F{number}" for number in range(1, 38)} <= set(names)


def test_the_page_holds_the_table() -> None:
    page = (TESTS / "faults" / "README.md").read_text()
    assert as_markdown() in page, "python -m tests.faults.table prints the table for the page"
