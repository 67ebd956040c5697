"""The top set trained again: which runs, and how far their results spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.config import ConfirmConfig, load
from search.confirm import runs, spread
from search.feasibility import Feasibility
from search.options import parse
from search.space import Plan, plan

if TYPE_CHECKING:
    from pathlib import Path

PLAN: Plan = plan(
    load("demo", None, ["train.crop=128"]), examine=lambda cells: {cell: Feasibility(True, 128) for cell in cells}
)
A, B, C = (trial.id for trial in [t for t in PLAN.trials if t.target == "star"][:3])


def standing(*ties: str, ranked: bool = True) -> dict[str, dict[str, Any]]:
    rows = [{"trial": trial, "tie": trial in ties} for trial in (A, B, C)]
    top = [row for row in rows if row["tie"]] if ranked else []
    return {"star": {"candidates": rows, "top": top, "ranked": ranked}}


def test_every_tie_is_trained_on_every_fold_with_every_seed_and_never_stopped() -> None:
    made = runs(PLAN.trials, standing(A, B), ConfirmConfig(folds=3, seeds=1, top=3))
    assert len(made) == 2 * 3 * 2
    assert {of for _, of in made.values()} == {A, B}
    assert {(run.fold, run.seed) for run, _ in made.values()} == {(fold, seed) for fold in range(3) for seed in (0, 1)}
    assert all(run.reference and run.id == name for name, (run, _) in made.items())


def test_where_nothing_is_ranked_the_best_are_trained_again_and_no_more_than_wanted() -> None:
    made = runs(PLAN.trials, standing(ranked=False), ConfirmConfig(seeds=2, top=2))
    assert [(of, run.seed, run.fold) for run, of in made.values()] == [
        (A, 1, None), (A, 2, None), (B, 1, None), (B, 2, None),
    ]  # fmt: skip


def test_nothing_is_trained_again_unless_asked() -> None:
    assert runs(PLAN.trials, standing(A), ConfirmConfig()) == {}


def test_the_spread_is_that_between_folds_and_between_seeds_of_the_chosen_one() -> None:
    values = {(0, 0): 0.6, (0, 1): 0.7, (1, 0): 0.8, (1, 1): 0.9}
    rows = [
        {"target": "star", "of": "a", "fold": fold, "seed": seed, "test_pq": value}
        for (fold, seed), value in values.items()
    ]
    said = spread([*rows, {"target": "star", "of": "b", "fold": 0, "seed": 0, "test_pq": 0.1}], "star")
    assert "2 folds and 2 seeds, a has PQ 0.750" in said
    assert "between folds 0.141" in said  # of 0.65 and 0.85
    assert "between seeds 0.071" in said  # of 0.70 and 0.80
    assert spread(rows, "two_class") == ""


def test_the_options_set_the_folds_of_the_data_as_well(tmp_path: Path) -> None:
    config = parse(["--folds", "4", "--seeds", "2"]).config()
    assert (config.confirm.folds, config.data.folds, config.confirm.seeds) == (4, 4, 2)
