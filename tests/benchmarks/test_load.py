"""The load figures are measured to their end, on next to nothing; what they must hold is asserted by the command."""

from __future__ import annotations

import pytest

from tests.benchmarks import load


@pytest.mark.slow
def test_the_load_figures_of_a_small_search(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--trials", "8", "--epochs", "40", "--kills", "2", "--frames", "8"]
    code = load.main(["trials", "reference", "preflight", *small])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("holds", "MISSED")) for line in lines) == 6
    exact = [line for line in lines if "epochs missing or twice" in line or "checkpoints of a trial" in line]
    assert len(exact) == 2
    assert all(line.startswith("holds") for line in exact)
    assert code in (0, 1)  # eight trials pay for the start of Ray as five hundred do
