"""The driver of a real search whose trials are toys.

    python -m tests.faults.driver RUN TRIALS [options of search.run]

Command line, configuration, lock, ledger, queue, scheduler, Ray, Optuna, signals and exit codes are those of
`search.run`; only the plan, what trains a trial, and what follows the search are replaced. The last prints one line of
JSON: every trial with its status, epochs and best value.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from data_io import errors, files
from search import changes, console, prepare, run, tuning
from search.asha import has_diverged
from search.space import Plan, TrialConfig
from tests.faults import toy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.config import Config
    from search.ledger import Ledger

REFERENCES = 2
SETTINGS = [
    "train.max_epochs=9",
    "train.crop=64",
    "train.batch_size=4",
    "train.precision=fp32",
    "train.channels_last=true",
    "train.checkpoint_every=2",
    "schedule.grace_epochs=1",
    "schedule.reduction_factor=3",
    "schedule.references=[]",
    "budget.minutes=null",
    "tracking.wandb=disabled",
]


def trials(config: Config, number: int, references: int) -> tuple[TrialConfig, ...]:
    """References first, then trials that may be stopped, of two targets in turn."""
    made = []
    for index in range(number + references):
        reference = index < references
        made.append(
            TrialConfig(
                id=f"reference-{index}" if reference else f"toy-{index - references:03d}",
                target=("two_class", "three_class")[index % 2],
                architecture="unet",
                encoder="resnet18",
                loss="dice",
                learning_rate=0.001,
                weight_decay=0.0,
                augmentation=0.5,
                seed=index,
                crop=64,
                output_stride=None,
                encoder_weights=None,
                reference=reference,
                epochs=(reference and config.schedule.reference_epochs) or config.train.max_epochs,
                cpus=1.0,
                train=config.train,
            )
        )
    return tuple(made)


def outcome(plan: Plan, ledger: Ledger) -> dict[str, Any]:
    """Return what became of every trial."""
    states = ledger.trials()
    found = {}
    for trial in plan.trials:
        state = states.get(trial.id)
        rows = state.rows if state else {}
        finite = [row["rung_metric"] for row in rows.values() if not has_diverged(row["rung_metric"])]
        best = max(finite, default=None)
        found[trial.id] = {"status": state.status if state else None, "epochs": max(rows, default=0), "best": best}
    return found


def instead_of_models(
    config: Config, plan: Plan, dataset: Any, run_dir: Path, ledger: Ledger, *others: Any
) -> tuple[dict[str, Any], bool]:
    """Stand for what follows the search: the completed trials are the result."""
    found = outcome(plan, ledger)
    files.write_json(run_dir / "summary.json", found)
    if not any(trial["status"] in {"completed", "budget"} for trial in found.values()):
        console.say_why_none(plan, ledger)
        return {}, False
    return found, False


def install(number: int, references: int, slots: int, put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Replace the plan, what trains a trial and what follows the search; `put` may be that of a monkeypatch."""
    from cluster import start as cluster_start

    begin = cluster_start.start_ray

    def make_plan(config: Config, *others: Any, **more: Any) -> tuple[Plan, list[str]]:
        return Plan(trials(config, number, references), ()), []

    def start(*others: Any, **more: Any) -> Any:
        return begin(cpus=slots)

    put(cluster_start, "start_ray", start)
    put(prepare, "make_plan", make_plan)
    put(prepare, "decode_frames", lambda *others, **more: toy.NoFrames())
    put(console, "announce_cost", lambda *others: None)
    put(run, "hand_on", instead_of_models)
    put(console, "closing", lambda facts, *others: print(f"outcome: {json.dumps(facts)}"))
    put(tuning, "search", partial(tuning.search, train=toy.train))
    put(changes, "sources", lambda: {"toy.py": os.environ.get("TOY_CODE", "1")})


def main() -> int:
    """Run the search in this process."""
    run_dir, number, *arguments = sys.argv[1:]
    install(int(number), int(os.environ.get("TOY_REFERENCES", REFERENCES)), int(os.environ.get("TOY_SLOTS", "2")))
    run.compare = lambda run_dir: run_dir / "summary.json"
    where = ["--resume", run_dir] if "--resume" in arguments else ["--out", run_dir]
    settings = [] if "--resume" in arguments else SETTINGS
    return run.main([*where, *settings, *(a for a in arguments if a != "--resume")])


if __name__ == "__main__":
    sys.exit(errors.entry_point(lambda arguments: main()))
