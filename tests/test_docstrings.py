"""The examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
PACKAGES = ("data_io", "postprocess", "analysis", "search", "cluster")
FILES = sorted(
    file.relative_to(HOME)
    for package in PACKAGES
    for file in (HOME / package).rglob("*.py")
    if ">>>" in file.read_text(encoding="utf-8")
)


def test_there_are_examples() -> None:
    assert {file.parts[0] for file in FILES} >= {"data_io", "search"}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_examples_of_a_module_hold(file: Path) -> None:
    outcome = doctest.testmod(importlib.import_module(".".join(file.with_suffix("").parts)))
    assert outcome.attempted
    assert not outcome.failed
