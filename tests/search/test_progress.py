"""What the user sees while trials run."""

from __future__ import annotations

import io
from typing import Any

import pytest

from search.config import load
from search.feasibility import Feasibility
from search.metrics import COLUMNS
from search.progress import Display
from search.space import Plan, TrialConfig, plan

CONFIG = load(
    "demo", None, ["train.crop=128", "train.max_epochs=10", "schedule.references=[]", "schedule.grace_epochs=1"]
)
PLAN: Plan = plan(CONFIG, examine=lambda cells: {cell: Feasibility(True, 128) for cell in cells})
FIRST, SECOND, THIRD = PLAN.trials[:3]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("search.progress.time.monotonic", lambda: now[0])
    return now


def row(epoch: int, value: float) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch, "rung_metric": value}


def run(display: Display, trial: TrialConfig, epochs: int, clock: list[float], value: float = 0.5) -> None:
    display.started(trial)
    for epoch in range(1, epochs + 1):
        clock[0] += 60
        display.epoch(trial, row(epoch, value))


def test_the_time_left_follows_the_pace_and_the_length_of_those_that_ended(clock: list[float]) -> None:
    display = Display((FIRST, SECOND, THIRD), {}, None, io.StringIO())
    assert display.seconds_left() is None
    run(display, FIRST, 2, clock)
    assert display.seconds_left() == pytest.approx(60 * (8 + 10 + 10))  # a minute an epoch, all of them to the end
    display.ended(FIRST, "stopped", "below the cutoff")
    assert display.seconds_left() == pytest.approx(60 * (2 + 2))
    run(display, SECOND, 1, clock)
    assert display.seconds_left() == pytest.approx(60 * (1 + 2))


def test_the_time_left_is_never_more_than_the_budget(clock: list[float]) -> None:
    display = Display((FIRST, SECOND), {}, 5, io.StringIO())
    run(display, FIRST, 2, clock)
    assert display.seconds_left() == pytest.approx(60 * 3)


def test_a_log_has_plain_lines_with_the_best_so_far_and_the_time_left(clock: list[float]) -> None:
    out = io.StringIO()
    display = Display((FIRST, SECOND), {}, None, out)
    run(display, FIRST, 1, clock, value=0.875)
    line = out.getvalue().splitlines()[-1]
    assert "1 running, 1 waiting" in line
    assert "about 19 min left" in line
    assert f"best {FIRST.target} 0.8750" in line
    assert "\x1b" not in line


def test_when_all_has_ended_no_time_is_left(clock: list[float]) -> None:
    display = Display((FIRST,), {}, None, io.StringIO())
    run(display, FIRST, 10, clock)
    display.ended(FIRST, "completed", "")
    assert display.seconds_left() is None


def test_a_live_table_is_drawn_twice_a_second_at_most_and_whenever_a_trial_ends(clock: list[float]) -> None:
    class Drawn:
        count = 0

        def update(self, table: object, *, refresh: bool) -> None:
            self.count += 1

    display, live = Display((FIRST, SECOND), {}, None, io.StringIO()), Drawn()
    display.live = live  # type: ignore[assignment]
    for epoch in range(1, 10):
        clock[0] += 0.1
        display.epoch(FIRST, row(epoch, 0.5))
    assert live.count == 2
    display.ended(FIRST, "stopped", "")
    display.ended(SECOND, "failed", "")
    assert live.count == 4
