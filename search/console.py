"""What the user reads before and after the search, as plain lines and one table."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from data_io.errors import printable
from data_io.secrecy import veiled

if TYPE_CHECKING:
    from pathlib import Path

    from data_io.store import Dataset
    from search.config import Config
    from search.ledger import Ledger
    from search.space import Plan


CAUSES = {
    "death": "whose process died",
    "error": "after an error",
    "hang": "that hung",
    "lack": "that found too little memory for their share",
    "memory": "that Ray ended because the memory of their node ran out",
    "node": "whose node was lost",
}
"""What a retry is called, by its cause in the ledger."""


def say(line: str) -> None:
    """Print a line at once; names in it move no cursor and it shows no secret."""
    print("\n".join(map(printable, veiled(line).split("\n"))), flush=True)


def announce(config: Config, dataset: Dataset, plan: Plan, notes: list[str], run_dir: Path) -> None:
    """Say beforehand what will be done and about how long it takes."""
    say(f"run folder {run_dir}")
    say(dataset_line(dataset))
    for warning in dict.fromkeys([*dataset.warnings, *plan.notes, *notes]):
        say(f"note: {warning}")
    references = sum(trial.reference for trial in plan.trials) + len(plan.of_winner)
    stopping = "ASHA stops weak trials early within each target" if config.schedule.asha else "no early stopping"
    proposed = config.space.trials * len(config.space.seeds) if plan.rows and config.space.trials else 0
    say(
        f"plan: {max(proposed, len(plan.trials)) + len(plan.of_winner)} trials ({references} references that nothing "
        f"stops), {len(plan.infeasible)} infeasible cells; up to {config.train.max_epochs} epochs each, {stopping}; "
        "then one model per target, test scores, cells table, report"
    )


def resumed(plan: Plan, ledger: Ledger) -> str:
    """Say how far a run had come before."""
    states = ledger.trials()
    begun = [trial for trial in plan.trials if trial.id in states and states[trial.id].rows]
    settled = sum(states[trial.id].status is not None for trial in begun)
    return (
        f"resumed {len(begun)} of {len(plan.trials)} trials: {settled} have ended, {len(begun) - settled} go on from "
        f"their last checkpoint; {ledger.epochs} epochs on record"
    )


def came_again(ledger: Ledger) -> str:
    """Say how often trials came again, each cause apart; empty where none did."""
    causes = Counter(event["cause"] for event in ledger.events if event["event"] == "retry")
    causes |= Counter({"lack": sum(event["event"] == "oom" for event in ledger.events)})
    told = "; ".join(f"{count} {CAUSES[cause]}" for cause, count in sorted(causes.items()) if count)
    return f"trials that came again: {told}" if told else ""


def announce_cost(config: Config, dataset: Dataset, plan: Plan) -> None:
    """Say what the trials will cost here."""
    from search.cost import estimate, slots_here

    slots = slots_here(config)
    cost = estimate(config, plan, slots, dataset)
    limit = f", at most {config.budget.minutes:g} by the budget" if config.budget.minutes else ""
    say(
        f"estimated: about {cost.epochs} epochs, {max(1, round(cost.seconds / 60))} minutes of training on {slots} "
        f"trials at a time{limit}, and about 2 more for the rest"
    )


def show_plan(config: Config, dataset: Dataset, plan: Plan, notes: list[str]) -> None:
    """Print every trial, every infeasible cell with its reason, and the cost."""
    if plan.rows:
        say(f"{config.space.trials} configurations that Optuna will choose among {len(plan.rows)}")
    own = " and StarDist's own network" if config.space.stardist_unet and "star" in config.space.targets else ""
    say(f"{plan.feasible} feasible and {len(plan.infeasible)} infeasible cells of the grid{own}")
    say(f"{len(plan.trials)} trials; {dataset_line(dataset)}")
    for trial in plan.trials:
        mark = "  reference, never stopped" if trial.reference else ""
        say(f"  {trial.id}  crop {trial.crop} px, batch {trial.train.batch}, {trial.epochs} epochs{mark}")
    for reference in plan.of_winner:
        variant = " with a gap between touching cells" if reference.gap else ""
        say(
            f"  the best {config.space.targets[0]} network, later as {reference.target} {reference.loss}{variant}, "
            f"{config.schedule.reference_epochs or config.train.max_epochs} epochs  reference, never stopped"
        )
    for cell in plan.infeasible:
        say(f"  infeasible: {cell.target} {cell.architecture} {cell.encoder} {cell.loss}: {cell.reason}")
    for note in [*plan.notes, *notes]:
        say(f"  note: {note}")
    announce_cost(config, dataset, plan)


def dataset_line(dataset: Dataset) -> str:
    """Return the data set in one line."""
    parts = {part: len(dataset.frames(part)) for part in ("train", "val", "test", "unannotated")}
    numbers = ", ".join(f"{count} {part}" for part, count in parts.items() if count)
    synthetic = "synthetic data: " if dataset.synthetic else ""
    return f"{synthetic}{dataset.name}: {len(dataset.fields)} fields, frames: {numbers}; split by {dataset.splits.unit}"


def closing(facts: dict[str, Any], run_dir: Path, report: Path | None) -> None:
    """Print the summary table and where the report is."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="test frames" + (" (synthetic data)" if facts["dataset"]["synthetic"] else ""))
    for name in ("method", "model", "dataset IoU", "per-image IoU", "F1@0.5", "PQ", "cells"):
        table.add_column(name, justify="left" if name in {"method", "model"} else "right")
    for target, found in facts["targets"].items():
        setting = found["configuration"]
        model = " ".join(part for part in (setting["architecture"], setting["encoder"], setting["loss"]) if part)
        mark = "* " if target == facts["winner"]["target"] else "  "
        table.add_row(mark + target, model, *_shown(found["test"]))
    table.add_row("  classical", "local-SD Otsu, fill, erode", *_shown(facts["baseline"]["classical"]["test"]))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    print(f"* {facts['winner']['sentence']}")
    for target, found in facts["selection"].items():
        print(f"{target}: {found['sentence']}")
    search = facts["search"]
    print(
        f"{search['trials']} trials: {search['completed']} completed, {search['stopped']} stopped early, "
        f"{search['failed'] + search['diverged']} failed; {search['seconds'] / 60:.1f} minutes of search"
    )
    print(f"report: {report.resolve() if report else 'failed'}\ncells:  {(run_dir / 'cells.parquet').resolve()}")


def _shown(scores: dict[str, Any]) -> list[str]:
    keys = ("dataset_iou", "per_image_iou", "f1_50", "pq_50")
    values = [f"{scores[key]:.4f}" if scores[key] is not None else "-" for key in keys]
    return [*values, f"{scores['n_pred']} of {scores['n_truth']}"]


def say_why_none(plan: Plan, ledger: Ledger) -> None:
    """Say how every trial ended when none can be used."""
    print("no usable trial:", file=sys.stderr)
    states = ledger.trials()
    for trial in plan.trials:
        state = states.get(trial.id)
        reason = state.ending.get("reason", "") if state else "not started"
        told = f"{trial.id}: {state.status if state else 'waiting'} {reason}"
        print(f"  {printable(veiled(told))}", file=sys.stderr)
