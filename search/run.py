"""From a folder of annotated microscope frames to the best model per target and a defended comparison.

    python -m search.run                                 synthetic movies, minutes on two CPU cores
    python -m search.run --data FOLDER --out RUN         your frames and masks

Each stage reads what the one before wrote; the same command on an existing RUN does what is missing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_io import errors, files
from data_io.errors import BadInput
from data_io.provenance import provenance
from search.changes import differences
from search.config import Config, config_hash, dump, load
from search.options import CONFIG_OF_A_RUN, parse
from search.signals import Ended, Signals

if TYPE_CHECKING:
    from data_io.store import Dataset
    from search.ledger import Ledger
    from search.scheduler import Watcher
    from search.space import Plan, TrialConfig
    from search.trial import Banks, Row


def main(arguments: list[str] | None = None) -> int:
    """Command line of the whole way."""
    options = parse(arguments)
    if (printed := options.printed()) is not None:
        print(printed, end="")
        return errors.DONE
    config = options.config()
    if options.dry_run:
        return dry_run(config)
    run_dir = options.resume or options.out or numbered(Path("runs"))
    signals = Signals()
    signals.install()
    try:
        return run(config, run_dir, signals)
    except Ended as end:
        print(f"{end}: stopped; go on with: python -m search.run --resume {run_dir}", file=sys.stderr)
        return end.code


def run(config: Config, run_dir: Path, signals: Signals) -> int:
    """Go the whole way in `run_dir`, skipping what is done; returns the exit code."""
    began = time.monotonic()
    config = settled_config(config, run_dir)
    made = not run_dir.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    from search.lock import only_driver

    try:
        with only_driver(run_dir):
            dataset = prepare_data(config, run_dir)
            return _go(resolve(config, dataset), dataset, run_dir, signals, began)
    except BadInput:
        if made:
            _remove_unstarted(run_dir)
        raise


def _go(config: Config, dataset: Dataset, run_dir: Path, signals: Signals, began: float) -> int:
    from analysis.compare import compare_run
    from postprocess.export import read_labels
    from postprocess.run import run as postprocess
    from search import predict, results
    from search.ledger import Ledger
    from search.select import eligible

    plan, notes = make_plan(config, dataset)
    files.write_text(run_dir / CONFIG_OF_A_RUN, dump(config))
    files.write_json(run_dir / predict.RUN_FACTS, run_facts(config, dataset, run_dir))
    ledger = Ledger(run_dir / "ledger.jsonl")
    try:
        announce(config, dataset, plan, notes, run_dir)
        train(config, plan, dataset, run_dir, ledger, signals)
        states = ledger.trials()
        chosen = eligible(plan.trials, states, lambda trial: run_dir / "trials" / trial)
        if not chosen:
            _say_why_none(plan, ledger)
            return errors.NO_TRIAL
        say("choosing: validation frames, decode parameters, one model per target")
        models, test = choose(config, chosen, dataset, run_dir)
        trials = results.trials_table(plan, ledger, count_parameters(plan, dataset), test)
        results.write_trials(run_dir, trials)
        predict.predict(run_dir, run_dir, dataset, predict.held_out(dataset), rule_of_model=False, say=say)
        say("instances and morphology")
        done = postprocess(run_dir)
        facts = results.summary(
            config,
            plan,
            ledger,
            dataset,
            models,
            _reader(run_dir, read_labels),
            trials,
            notes,
            time.monotonic() - began,
        )
        files.write_json(run_dir / "summary.json", facts)
    finally:
        ledger.close()
    say("comparison and report")
    report_failed = False
    try:
        report: Path | None = compare_run(run_dir)
    except Exception as fault:
        import traceback

        (run_dir / "report_error.txt").write_text(traceback.format_exc())
        print(f"report failed: {fault}; numbers are saved, details in {run_dir / 'report_error.txt'}", file=sys.stderr)
        report, report_failed = None, True
    shutil.rmtree(run_dir / "cache", ignore_errors=True)
    closing(facts, run_dir, report, time.monotonic() - began)
    if report_failed:
        return errors.REPORT_FAILED
    return errors.PARTIAL if done.failed else errors.DONE


def settled_config(config: Config, run_dir: Path) -> Config:
    """Return the configuration to run with; BadInput when the folder holds a run of another one, or something else."""
    stored = run_dir / CONFIG_OF_A_RUN
    if not stored.is_file():
        if run_dir.is_dir() and any(
            p.name not in {"lock", "cache", "dataset.zarr", "synthetic"} for p in run_dir.iterdir()
        ):
            raise BadInput(f"{run_dir}: holds files that are no run; give a new folder with --out")
        return config
    before = load(None, stored, [])
    changed = differences(before, config)
    if changed:
        raise BadInput(
            f"{run_dir}: was made with another configuration ({'; '.join(changed[:6])}); give a new folder with --out"
        )
    return before.model_copy(
        update={"tracking": config.tracking, "budget": config.budget, "resources": config.resources}
    )


def prepare_data(config: Config, run_dir: Path) -> Dataset:
    """Make synthetic movies where no data are given, convert what is not a store yet, open it."""
    from data_io import synthetic
    from data_io.convert import convert

    data = config.data
    source = Path(data.path) if data.path is not None else run_dir / "synthetic"
    if data.path is None and not (run_dir / "dataset.zarr").exists():
        made = data.synthetic
        say(f"making {made.fields} synthetic movies of {made.frames} frames, {made.height} x {made.width} px")
        synthetic.write(
            source,
            fields=made.fields,
            frames=made.frames,
            size=(made.height, made.width),
            preset=made.preset,
            seed=made.seed,
        )
    dataset = convert(
        source,
        run_dir / "dataset.zarr",
        pixel_size_um=data.pixel_size_um,
        frame_interval_s=data.frame_interval_s,
        split_by=data.split_by,
    )
    if not dataset.frames("test"):
        raise BadInput(f"{source}: no annotated frames to train and test on; add masks beside the frames")
    return dataset


def resolve(config: Config, dataset: Dataset) -> Config:
    """Fill in what depends on data and machine: the crop, the arithmetic."""
    from search.precision import faster

    train = config.train
    fill: dict[str, Any] = {}
    if train.crop is None:
        fill["crop"] = dataset.recommended["crop"]
    if train.precision == "auto":
        fill["precision"] = faster()
    return config.model_copy(update={"train": train.model_copy(update=fill)})


def make_plan(config: Config, dataset: Dataset) -> tuple[Plan, list[str]]:
    """Plan of the trials, and what the user must be told about pretraining."""
    from search import weights
    from search.space import plan

    encoders = [*config.space.encoders, *(reference.encoder for reference in config.schedule.references)]
    pretraining, notes = weights.resolve(encoders, config.space.encoder_weights)
    channels = len(next(iter(dataset.fields.values())).channels)
    return plan(config, channels, weights=pretraining), notes


def train(config: Config, plan: Plan, dataset: Dataset, run_dir: Path, ledger: Ledger, signals: Signals) -> None:
    """Search: every trial that is not settled, on Ray, watched by the display and W&B."""
    import ray

    from cluster.start import start_ray
    from search.progress import Display
    from search.tracking import make_tracker
    from search.tuning import needs_training, search

    if not needs_training(config, plan, ledger):
        say("search: finished before, nothing to train")
        return
    banks = decode_frames(dataset, run_dir)
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for notice in start_ray().notices:
        say(f"note: {notice}")
    signals.install()
    tracker = make_tracker(config.tracking, run_dir, run_dir.resolve().name)
    settled = {name: state.status for name, state in ledger.trials().items() if state.status}
    try:
        with signals.patiently(), Display(plan.trials, settled, config.budget.minutes) as display:
            watchers: list[Watcher] = [display, Tracking(tracker)]
            search(config, plan, banks, run_dir, ledger, watchers, lambda: signals.received is not None)
    finally:
        ray.shutdown()
        tracker.close()


class Tracking:
    """The watcher that passes the search on to the tracker."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker

    def started(self, trial: TrialConfig) -> None:
        """See `search.scheduler.Watcher`."""
        self.tracker.start_trial(trial.id, trial.model_dump(mode="json"))

    def epoch(self, trial: TrialConfig, row: Row) -> None:
        """See `search.scheduler.Watcher`."""
        self.tracker.epoch(trial.id, row)

    def ended(self, trial: TrialConfig, status: str, reason: str) -> None:
        """See `search.scheduler.Watcher`."""
        self.tracker.finish_trial(trial.id, {"status": status, "reason": reason})


def decode_frames(dataset: Dataset, run_dir: Path) -> Banks:
    """Decode training and validation frames once into memory maps that all trials share."""
    from data_io.crops import FrameBank
    from search.trial import Banks

    cache = run_dir / "cache"
    FrameBank.build(dataset, dataset.frames("train"), cache / "train")
    FrameBank.build(dataset, dataset.frames("val"), cache / "val")
    return Banks(train=(cache / "train").resolve(), val=(cache / "val").resolve())


def choose(
    config: Config, chosen: list[TrialConfig], dataset: Dataset, run_dir: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Choose and hand over one model per target; then score every candidate once on test.

    Returns the facts of the models by target and the test dataset IoU by trial. A choice already made from the same
    trials by the same objective is kept.
    """
    import json

    from postprocess.predictions import PredictionStore
    from search import handover, predict, select

    kept = run_dir / "best" / "selection.json"
    question = {
        "objective": config.objective,
        "trials": sorted(trial.id for trial in chosen),
        "data": dataset.content_hash,
    }
    if kept.is_file():
        before = json.loads(kept.read_text())
        if before["question"] == question:
            return {t: handover.read_facts(run_dir / "best" / t) for t in before["targets"]}, before["test"]
    models: dict[str, dict[str, Any]] = {}
    test: dict[str, float] = {}
    store = PredictionStore.open_or_create(run_dir / predict.PREDICTIONS)
    for target in dict.fromkeys(trial.target for trial in chosen):
        rivals = [
            select.examine(trial, run_dir / "trials" / trial.id, dataset, config.objective)
            for trial in chosen
            if trial.target == target
        ]
        best = select.winner(rivals)
        models[target] = select.hand_over(best, run_dir / "best" / target, dataset, config, rivals)
        predict.register(store, target, models[target], dataset)
        for ref, prediction in zip(dataset.frames("val"), best.predictions, strict=True):
            store.write(target, ref, prediction)
        say(f"{target}: {best.trial.id} ({config.objective} {best.value:.4f} on validation, best of {len(rivals)})")
        test |= {rival.trial.id: select.foreground_iou(rival, dataset, dataset.frames("test")) for rival in rivals}
    files.write_json(kept, {"question": question, "targets": list(models), "test": test})
    return models, test


def count_parameters(plan: Plan, dataset: Dataset) -> dict[str, int]:
    """Trainable parameters per trial, counted on the meta device."""
    from search.models import parameters_on_meta

    channels = len(next(iter(dataset.fields.values())).channels)
    return {
        t.id: parameters_on_meta(
            t.architecture, t.encoder, t.target, channels, t.train.encoder_depth, t.train.decoder_width, t.output_stride
        )
        for t in plan.trials
    }


def run_facts(config: Config, dataset: Dataset, run_dir: Path) -> dict[str, Any]:
    """Return run.json: where the data are, what kind of run this is, and what made it."""
    path = dataset.path.resolve()
    inside = path.is_relative_to(run_dir.resolve())
    return {
        "kind": "search",
        "dataset": str(path.relative_to(run_dir.resolve())) if inside else str(path),
        "synthetic": dataset.synthetic,
        "config_hash": config_hash(config),
        "data_hash": dataset.content_hash,
        "provenance": provenance(seed=config.seed),
    }


def dry_run(config: Config) -> int:
    """Print the trials, the infeasible cells and the estimated cost; nothing is written or trained."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare_data(config, Path(folder))
        config = resolve(config, dataset)
        plan, notes = make_plan(config, dataset)
        print(f"{len(plan.trials)} trials, {len(plan.infeasible)} infeasible cells, {dataset_line(dataset)}")
        for trial in plan.trials:
            mark = "  reference, never stopped" if trial.reference else ""
            print(f"  {trial.id}  crop {trial.crop} px, batch {trial.train.batch_size}, {trial.epochs} epochs{mark}")
        for cell in plan.infeasible:
            print(f"  infeasible: {cell.target} {cell.architecture} {cell.encoder} {cell.loss}: {cell.reason}")
        for note in [*plan.notes, *notes]:
            print(f"  note: {note}")
        print(cost_line(config, plan, dataset))
    return errors.DONE


def announce(config: Config, dataset: Dataset, plan: Plan, notes: list[str], run_dir: Path) -> None:
    """Say beforehand what will be done and about how long it takes."""
    say(f"run folder {run_dir}")
    say(dataset_line(dataset))
    for warning in dict.fromkeys([*dataset.warnings, *plan.notes, *notes]):
        say(f"note: {warning}")
    references = sum(trial.reference for trial in plan.trials)
    stopping = "ASHA stops weak trials early within each target" if config.schedule.asha else "no early stopping"
    say(
        f"plan: {len(plan.trials)} trials ({references} references that nothing stops), "
        f"{len(plan.infeasible)} infeasible cells; up to {config.train.max_epochs} epochs each, {stopping}; "
        "then one model per target, test scores, cells table, report"
    )
    say(cost_line(config, plan, dataset))


def cost_line(config: Config, plan: Plan, dataset: Dataset) -> str:
    """Return one line with the estimated cost on this machine."""
    from search.cost import estimate, slots_here

    slots = slots_here(config)
    crop = config.train.crop or 1
    area = sum(
        dataset.fields[ref.field].shape[0] * dataset.fields[ref.field].shape[1] for ref in dataset.frames("train")
    )
    crops = config.train.crops_per_epoch or max(config.train.batch_size, -(-area // crop**2))
    cost = estimate(config, plan, slots, crops, len(next(iter(dataset.fields.values())).channels))
    limit = f", at most {config.budget.minutes:g} by the budget" if config.budget.minutes else ""
    return (
        f"estimated: about {cost.epochs} epochs of {crops} crops, {cost.seconds / 60:.0f} minutes of training "
        f"on {slots} trials at a time{limit}, and about 2 more for the rest"
    )


def dataset_line(dataset: Dataset) -> str:
    """Return the data set in one line."""
    parts = {part: len(dataset.frames(part)) for part in ("train", "val", "test", "unannotated")}
    numbers = ", ".join(f"{count} {part}" for part, count in parts.items() if count)
    synthetic = "synthetic data: " if dataset.synthetic else ""
    return f"{synthetic}{dataset.name}: {len(dataset.fields)} fields, frames: {numbers}; split by {dataset.splits.unit}"


def closing(facts: dict[str, Any], run_dir: Path, report: Path | None, seconds: float) -> None:
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
    search = facts["search"]
    print(
        f"{search['trials']} trials: {search['completed']} completed, {search['stopped']} stopped early, "
        f"{search['failed'] + search['diverged']} failed; {seconds / 60:.1f} minutes in all"
    )
    print(f"report: {report.resolve() if report else 'failed'}\ncells:  {(run_dir / 'cells.parquet').resolve()}")


def _shown(scores: dict[str, Any]) -> list[str]:
    keys = ("dataset_iou", "per_image_iou", "f1_50", "pq_50")
    values = [f"{scores[key]:.4f}" if scores[key] is not None else "-" for key in keys]
    return [*values, f"{scores['n_pred']} of {scores['n_truth']}"]


def _reader(run_dir: Path, read_labels: Any) -> Any:
    def read(method: str, ref: Any) -> Any:
        return read_labels(run_dir, method, ref)

    return read


def _say_why_none(plan: Plan, ledger: Ledger) -> None:
    print("no usable trial:", file=sys.stderr)
    states = ledger.trials()
    for trial in plan.trials:
        state = states.get(trial.id)
        reason = state.ending.get("reason", "") if state else "not started"
        print(f"  {trial.id}: {state.status if state else 'waiting'} {reason}", file=sys.stderr)


def _remove_unstarted(run_dir: Path) -> None:
    """Take away the folder of a run that was refused before anything was made in it."""
    if all(path.name in {"lock", "cache"} for path in run_dir.iterdir()):
        shutil.rmtree(run_dir)


def numbered(parent: Path) -> Path:
    """Return the first free ``runs/0001``, ``runs/0002``, ..."""
    taken = [int(path.name) for path in parent.glob("[0-9]*") if path.name.isdigit()]
    return parent / f"{max(taken, default=0) + 1:04d}"


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(errors.entry_point(main))
