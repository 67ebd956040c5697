"""A data set of a few small frames, made once for all searches of the fault tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.disturbed import small_dataset

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the data set."""
    return small_dataset(tmp_path_factory.mktemp("faults-data"))
