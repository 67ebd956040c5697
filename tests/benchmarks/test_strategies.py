"""The replay of search strategies on recorded curves."""

from __future__ import annotations

import numpy as np
import pytest

from search.asha import Bracket
from tests.benchmarks.strategies import CURVES, Curve, Curves, advised, drawn, listed, read, replay


def curves(late: bool = False) -> Curves:
    """Six trials of nine epochs that keep their order from the first epoch on, or turn it round at the end."""
    made = {}
    for number, rate in enumerate((0.001, 0.002, 0.003, 0.004, 0.005, 0.006)):
        place = (("two_class", "unet", "resnet18", "dice"), (rate, 0.0001, 0.5))
        iou = np.linspace(0.1, 0.5, 9) + 0.05 * number
        if late:
            iou = np.append(iou[:8], 1.0 - 0.1 * number)
        made[place] = Curve(place, iou, iou, np.ones(9))
    return made


def test_the_full_grid_spends_all_epochs_and_loses_nothing() -> None:
    outcome = replay(curves(), listed(list(curves())), None)
    assert (outcome.spent, outcome.lost) == (1.0, 0.0)


def test_early_stopping_spends_less_and_finds_the_best_of_curves_that_keep_their_order() -> None:
    outcome = replay(curves(), listed(drawn(curves(), 1)), Bracket(1, 9, 3))
    assert outcome.spent < 0.7
    assert outcome.lost == pytest.approx(0)


def test_early_stopping_loses_the_slow_starter_and_the_replay_says_how_much() -> None:
    assert replay(curves(late=True), listed(list(curves())[::-1]), Bracket(1, 9, 3)).lost == pytest.approx(30)


def test_optuna_is_replayed_on_no_more_than_its_trials_and_the_same_for_one_seed() -> None:
    first, again = (advised(curves(), 3, 4, Bracket(1, 9, 3)) for _ in range(2))
    assert first == again
    assert first.spent <= 4 / 6


@pytest.mark.parametrize("name", CURVES)
def test_the_recorded_curves_are_a_full_grid_of_36_whole_trials(name: str) -> None:
    recorded = read(CURVES[name])
    assert len(recorded) == 36
    assert {len(curve.metric) for curve in recorded.values()} == {27}
