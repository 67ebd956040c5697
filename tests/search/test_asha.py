"""Early stopping's decisions, without Ray; and the same decisions as Ray's own ASHA where both apply."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.asha import Bracket, has_diverged, quantile


def test_rungs_grow_by_the_reduction_and_end_below_the_last_epoch() -> None:
    assert Bracket(3, 24, 3).rungs == (3, 9)
    assert Bracket(10, 1000, 3).rungs == (10, 30, 90, 270, 810)
    assert Bracket(1, 9, 3).rungs == (1, 3)
    assert Bracket(5, 5, 3).rungs == ()
    assert Bracket(3, 4, 1.1).rungs == (3,)


def test_the_first_trial_at_a_rung_goes_on_whatever_its_value() -> None:
    assert not Bracket(1, 9, 3).judge("a", 1, 0.0).stop


def test_a_trial_is_judged_once_per_rung() -> None:
    bracket = Bracket(1, 9, 3)
    bracket.judge("a", 1, 0.9)
    assert bracket.judge("b", 1, 0.1).stop
    assert not bracket.judge("b", 1, 0.1).stop
    assert bracket.recorded == {1: {"a": 0.9, "b": 0.1}}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_best_trial_of_a_rung_is_never_stopped_there(values: list[float]) -> None:
    bracket = Bracket(1, 9, 3)
    stopped = [bracket.judge(str(i), 1, value).stop for i, value in enumerate(values)]
    assert not stopped[values.index(max(values))]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12), st.floats(0, 1)), max_size=60))
def test_replaying_what_was_reported_gives_the_same_decisions(reports: list[tuple[int, int, float]]) -> None:
    first, second = Bracket(2, 12, 3), Bracket(2, 12, 3)
    decisions = [first.judge(str(t), e, v) for t, e, v in reports]
    assert [second.judge(str(t), e, v) for t, e, v in reports] == decisions
    assert first.recorded == second.recorded


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_equal_to_rays_bracket_at_one_rung(values: list[float]) -> None:
    from ray.tune.schedulers.async_hyperband import _Bracket
    from ray.tune.schedulers.trial_scheduler import TrialScheduler

    theirs = _Bracket(min_t=1, max_t=3, reduction_factor=3, s=0, stop_last_trials=False)
    ours = Bracket(1, 3, 3)
    for i, value in enumerate(values):
        action = theirs.on_result(SimpleNamespace(trial_id=str(i)), 1, value)
        assert ours.judge(str(i), 1, value).stop == (action == TrialScheduler.STOP)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "0.5", True])
def test_what_is_no_finite_number_has_diverged(value: object) -> None:
    assert has_diverged(value)


def test_a_number_has_not_diverged() -> None:
    assert not has_diverged(0.0)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.sampled_from([2.0, 3.0, 4.0, 2.5]))
def test_the_cutoff_is_numpys_quantile(values: list[float], reduction: float) -> None:
    share = 1 - 1 / reduction
    assert quantile(sorted(values), share) == float(np.percentile(values, 100 * share))
