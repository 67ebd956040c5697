"""The load of statistics runs to its end on a few cells, and on a million within its limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("statistics_load.py")


def _printed(cells: int) -> tuple[int, str]:
    call = [sys.executable, str(SCRIPT), "--cells", str(cells)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=400, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_few_cells():
    code, out = _printed(20_000)
    assert code == 0
    assert "19,5" in out.splitlines()[0]
    assert "peak of memory" in out


@pytest.mark.slow
def test_a_million_cells_in_a_minute_and_two_gigabytes():
    assert _printed(1_000_000)[0] == 0
