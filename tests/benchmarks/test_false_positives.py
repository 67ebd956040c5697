"""The simulation in small: recommended tests hold their level where pooling, and other shortcuts, do not."""

from __future__ import annotations

import pytest

from tests.benchmarks import false_positives as simulation

TWO_WAY, WELCH, ROBUST = simulation.RECOMMENDED
RUNS = 100


def test_same_cells_measured_by_two_equal_methods():
    persistent = simulation.same_cells(RUNS, 1, "persistent")
    assert simulation.holds(TWO_WAY, persistent[TWO_WAY], RUNS)
    assert persistent["pooled Mann-Whitney (the study's)"] > 0.2
    assert persistent["Wilcoxon on frame means"] > 0.4
    focus = simulation.same_cells(RUNS, 1, "with focus")
    assert simulation.holds(TWO_WAY, focus[TWO_WAY], RUNS)
    assert focus["Wilcoxon on track means"] > 0.12


def test_pooling_misses_what_is_there_when_errors_are_random():
    random = simulation.same_cells(RUNS, 1, "random")
    assert simulation.holds(TWO_WAY, random[TWO_WAY], RUNS)
    assert random["pooled Mann-Whitney (the study's)"] < 0.02


@pytest.mark.parametrize("fields", [3, 12])
def test_two_equal_conditions(fields):
    found = simulation.conditions(RUNS, 1, fields)
    assert simulation.holds(WELCH, found[WELCH], RUNS)
    assert found["pooled Mann-Whitney"] > 0.5


def test_intervals_over_few_clusters():
    found = simulation.coverage(300, 1, 5)
    assert simulation.holds(ROBUST, found[ROBUST], 300)
    assert found["percentile bootstrap of clusters"] < 0.9


@pytest.mark.slow
def test_all_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["false_positives.py", "--runs", "400"])
    assert simulation.main() == 0
    assert "no recommended test" in capsys.readouterr().out
