"""Settings of every test: no deadlines, since two cores are shared, and the yeast movie where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several threads that wait for two busy cores take ten times as long
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

YEAST = Path(__file__).resolve().parents[2] / "shared" / "data" / "yeast_phase_movie"


@pytest.fixture(scope="session")
def yeast() -> Path:
    """Folder of the yeast phase movie (real 16-bit frames and masks), kept beside the repository."""
    if not YEAST.is_dir():
        pytest.skip("the yeast movie is not beside this repository (../shared/data/yeast_phase_movie)")
    return YEAST
