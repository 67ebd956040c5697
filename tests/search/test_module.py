"""The course of the learning rate."""

from __future__ import annotations

from search.module import stable_factor


def test_the_plateau_does_not_depend_on_the_length_of_the_training() -> None:
    for step in range(20, 200):
        assert stable_factor(step, 1000) == stable_factor(step, 250) == 1.0


def test_it_rises_first_and_falls_to_zero_at_the_end() -> None:
    course = [stable_factor(step, 500) for step in range(501)]
    assert course[0] < course[5] < course[9] == 1.0
    assert course[400] == 1.0
    assert 0.4 < course[450] < 0.6
    assert course[500] == 0.0
