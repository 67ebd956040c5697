"""The top set trained again on other folds and with other seeds, after the choice: how far results spread.

Nothing is chosen from it. ``confirm.json`` holds one row per run: the trial it repeats, fold, seed, and PQ and dataset
IoU on the test frames of that fold, decoded as fits its validation frames best.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from data_io import sealed
from search import prepare, select
from search.candidates import examine
from search.space import Plan, TrialConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from data_io.store import Dataset
    from search.config import Config, ConfirmConfig
    from search.frames import Banks
    from search.ledger import Ledger
    from search.select import Selection

FILE = "confirm.json"


def runs(
    trials: Sequence[TrialConfig], standings: dict[str, dict[str, Any]], wanted: ConfirmConfig
) -> dict[str, tuple[TrialConfig, str]]:
    """Return by id the runs that repeat each target's top set (its best ones, where nothing is ranked), and of what.

    Every fold with the trial's own seed and `wanted.seeds` more; without folds the plain split with the new seeds.
    """
    by_id = {trial.id: trial for trial in trials}
    unused = max(trial.seed for trial in trials) + 1
    made = {}
    for standing in standings.values():
        best = standing["top"] if standing["ranked"] else standing["candidates"]
        for row in best[: wanted.top]:
            trial = by_id[row["trial"]]
            seeds = [trial.seed, *range(unused, unused + wanted.seeds)]
            places: list[tuple[int | None, int]] = [(fold, seed) for fold in range(wanted.folds) for seed in seeds]
            for fold, seed in places or [(None, seed) for seed in seeds[1:]]:
                name = "-".join([trial.id, *([f"fold{fold}"] if fold is not None else []), f"seed{seed}"])
                run = trial.model_copy(update={"id": name, "fold": fold, "seed": seed, "reference": True})
                made[name] = (run, trial.id)
    return made


def confirm(
    config: Config,
    trials: Sequence[TrialConfig],
    selection: Selection,
    dataset: Dataset,
    run_dir: Path,
    ledger: Ledger,
    train: Callable[[Plan, Banks], None],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train and score the runs that are not yet in confirm.json; return its rows.

    Parameters
    ----------
    trials
        The trials of the search.
    train
        Trains a plan on decoded frames.
    """
    wanted = runs(trials, selection.standings, config.confirm)
    if not wanted:
        return []
    kept = run_dir / FILE
    rows = [row for row in (sealed.read(kept) or {"runs": []})["runs"] if row["trial"] in wanted]
    left = [run for name, (run, _) in wanted.items() if name not in {row["trial"] for row in rows}]
    if left:
        say(f"confirming the top set: {len(left)} runs on other folds and seeds")
        for fold in sorted({run.fold for run in left if run.fold is not None}):
            prepare.decode_frames(config, dataset.in_fold(fold), run_dir, f"fold_{fold}")
        train(Plan(tuple(left), ()), prepare.decode_frames(config, dataset, run_dir))
    states = ledger.trials()
    done = [run for run in left if run.id in states and states[run.id].status == "completed"]
    rows += [_scored(config, run, wanted[run.id][1], dataset, run_dir) for run in done]
    sealed.write(kept, {"runs": rows})
    return rows


def _scored(config: Config, run: TrialConfig, of: str, dataset: Dataset, run_dir: Path) -> dict[str, Any]:
    own = dataset if run.fold is None else dataset.in_fold(run.fold)
    folder = run_dir / "trials" / run.id
    decode = asdict(examine(run, folder, own, config.objective).fit.params)
    found = select.scores_of(run, decode, folder, own, own.frames("test"))
    facts = {"target": run.target, "trial": run.id, "of": of, "fold": run.fold, "seed": run.seed}
    return facts | {"test_pq": found["pq"], "test_dataset_iou": found["dataset_iou"]}


def spread(rows: Sequence[dict[str, Any]], target: str) -> str:
    """Return how far the confirmed runs of a target's chosen trial spread, in words; empty without runs.

    >>> rows = [dict(target="star", of="a", fold=f, seed=s, test_pq=0.7 + 0.1 * f) for f in (0, 1) for s in (0, 1)]
    >>> spread(rows, "star")
    'Trained again on 2 folds and 2 seeds, a has PQ 0.750 on test; SD between folds 0.071, between seeds 0.000.'
    """
    own = [row for row in rows if row["target"] == target]
    if not own:
        return ""
    own = [row for row in own if row["of"] == own[0]["of"]]
    values = np.array([row["test_pq"] for row in own])
    parts = []
    for name, key in (("folds", "fold"), ("seeds", "seed")):
        means = [np.mean([row["test_pq"] for row in own if row[key] == kind]) for kind in _kinds(own, key)]
        if len(means) > 1:
            parts.append(f"between {name} {np.std(means, ddof=1):.3f}")
    kinds = {"folds": _kinds(own, "fold"), "seeds": _kinds(own, "seed")}
    counted = " and ".join(
        f"{len(found)} {name if len(found) > 1 else name[:-1]}" for name, found in kinds.items() if found != [None]
    )
    deviation = f"; SD {', '.join(parts)}" if parts else ""
    return f"Trained again on {counted}, {own[0]['of']} has PQ {values.mean():.3f} on test{deviation}."


def _kinds(rows: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))
